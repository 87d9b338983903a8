"""Tells the probes that their agent lives, and notices when it did not for a while. The probes stop by themselves when they are not
told for five seconds, so it must be called from the loop that reads the rings and from nowhere else: a thread would go on."""

import logging

from deeptrace.loader.client import Probes
from deeptrace.loader.probes import DEADLINE_NS
from deeptrace.log import event

EVERY_NS = 1_000_000_000  # between two signs of life: four may be late

logger = logging.getLogger("deeptrace.agent")


class DeadMan:
    """tick() at least once a second, from arm() on."""

    def __init__(self, probes: Probes, now_ns: int) -> None:
        self._probes = probes
        self._told_ns = now_ns
        self.blind_ns = 0  # in all

    def tick(self, now_ns: int) -> None:
        """Refresh the deadline when it is time; after a lapse the probes go on and one line says how long they did nothing."""
        since_ns = now_ns - self._told_ns
        if since_ns < EVERY_NS:
            return
        self._probes.refresh(now_ns)
        self._told_ns = now_ns
        blind_ns = since_ns - DEADLINE_NS
        if blind_ns > 0:
            self.blind_ns += blind_ns
            message = "the agent did not run, so its probes stopped by themselves; they go on now"
            event(logger, logging.WARNING, message, blind_s=round(blind_ns / 1e9, 1))
