"""Reads the whole ledger of an agent: kernel counters, core counters, gauges, and what the sender delivered. Changes nothing.

The kernel's counters move while they are read; they are read twice, around the gauges that belong to them (ledger.py says
why that is enough). Must run on the thread that drains the rings, between two batches, when the core stands still.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from deeptrace import ledger
from deeptrace.agent.sender import Delivery
from deeptrace.counters import CORE_NUMBERS, KERNEL_NUMBERS, NUMBERS, PythonCounters, by_name, events_lost
from deeptrace.ledger import Balance

TRIES = 4  # readings until one balances: a virtual CPU that is paused between two steps of a probe can spoil one
PAUSE_S = 0.0005


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger at one moment. values: counters and gauges by name; time_ns: Unix ns."""

    values: dict[str, int]
    balances: list[Balance]
    events_lost: int
    time_ns: int

    @property
    def balanced(self) -> bool:
        return ledger.is_balanced(self.balances)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where the figures come from. kernel: uint64 (64,), by counter number; core: uint64 (256,); gauges: of core and rings."""

    kernel: Callable[[], npt.NDArray[np.uint64]]
    calls_in_flight: Callable[[], int]
    core: Callable[[], npt.NDArray[np.uint64]]
    gauges: Callable[[], dict[str, int]]
    python: PythonCounters
    delivery: Callable[[], Delivery]
    spans_held: Callable[[], int]  # made by the core and not yet with the sender


def read_account(sources: Sources, now_unix_ns: int) -> Account:
    """One consistent account, read again up to TRIES times while it does not balance."""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE_S)
        values, later = _read(sources)
        balances = ledger.check(values, later)
        if ledger.is_balanced(balances):
            break
    return Account(values=values, balances=balances, events_lost=events_lost(values), time_ns=now_unix_ns)


def _read(sources: Sources) -> tuple[dict[str, int], dict[str, int]]:
    values = sources.python.snapshot()
    values.update(kernel_values(sources.kernel()))
    values["calls_in_flight"] = sources.calls_in_flight()
    values.update(sources.gauges())
    later = kernel_values(sources.kernel())
    core = sources.core()
    values.update({name: int(core[NUMBERS[name]]) for name in _CORE_NAMES})
    delivery = sources.delivery()
    values["spans_acked"] = delivery.acked
    values["spans_rejected"] = delivery.rejected
    values["queue_dropped"] = values.get("queue_dropped", 0) + delivery.dropped
    values["spans_in_flight"] = delivery.in_flight + sources.spans_held()
    return values, later


def kernel_values(counters: npt.NDArray[np.uint64]) -> dict[str, int]:
    """The kernel's counters by name."""
    return {name: value for name, value in by_name(counters).items() if name in _KERNEL_NAMES}


_KERNEL_NAMES = frozenset(name for name, number in NUMBERS.items() if number in KERNEL_NUMBERS)
_CORE_NAMES = frozenset(name for name, number in NUMBERS.items() if number in CORE_NUMBERS)
