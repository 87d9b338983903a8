"""What a capturing process is to others on its host: a sign of life to its probes, an answer to `doctor`, and an end to `off`."""

import os
import signal
from typing import Any

from deeptrace import clock
from deeptrace.agent.control import Control
from deeptrace.agent.deadman import DeadMan
from deeptrace.agent.probe_status import probe_status
from deeptrace.loader.client import Probes


class Presence:
    """begin() when the probes are armed, tick() from the loop that reads the rings, end() before the probes are closed."""

    def __init__(self, probes: Probes) -> None:
        self._probes = probes
        self._dead_man = DeadMan(probes, clock.monotonic_ns())
        self._control = Control({"status": self._status, "off": self._off})

    def begin(self) -> None:
        """After privileges are given up: threads keep what their maker had."""
        self._control.start()

    def tick(self) -> None:
        self._dead_man.tick(clock.monotonic_ns())

    def end(self) -> None:
        self._control.stop()

    def _status(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "blind_s": round(self._dead_man.blind_ns / 1e9, 1), **probe_status(self._probes)}

    def _off(self) -> dict[str, Any]:
        """Take the probes off at once, whatever the loop does, then ask it to end: it ships what it has."""
        began_ns = clock.monotonic_ns()
        n = len(self._probes.keep_fds)
        self._probes.disarm()
        self._probes.detach()
        seconds = (clock.monotonic_ns() - began_ns) / 1e9
        os.kill(os.getpid(), signal.SIGTERM)  # the handler of every capturing verb ends its loop in order
        return {"detached": n, "seconds": round(seconds, 3)}
