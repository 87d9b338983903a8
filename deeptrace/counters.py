"""Names, stages and kinds of all counters, from counters.def. Holds no values except those of Python stages."""

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deeptrace.core.wire import COUNTER_ROWS

KERNEL_NUMBERS = range(1, 64)  # counters.def: the per-CPU map COUNTERS holds these
CORE_NUMBERS = range(64, 160)  # the compiled stages hold these
N_COUNTERS = 256


@dataclass(frozen=True)
class Counter:
    """One line of counters.def."""

    number: int
    name: str
    stage: str
    kind: str  # LOSS | ACCOUNT | BYTES | NOTE
    help: str

    @property
    def is_loss(self) -> bool:
        return self.kind == "LOSS"


COUNTERS: dict[str, Counter] = {row[1]: Counter(*row) for row in COUNTER_ROWS}
NUMBERS: dict[str, int] = {name: counter.number for name, counter in COUNTERS.items()}


class PythonCounters:
    """Counters of the stages written in Python: few increments (per batch, never per event), any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, int] = {}

    def add(self, name: str, amount: int = 1) -> None:
        """Add to a counter of counters.def. Raises KeyError for a name that is not there or that a compiled stage counts: its
        value would overwrite this one."""
        if COUNTERS[name].number < CORE_NUMBERS.stop:
            raise KeyError(f"{name} is counted by a compiled stage; see the ranges in counters.def")
        with self._lock:
            self._values[name] = self._values.get(name, 0) + amount

    def snapshot(self) -> dict[str, int]:
        with self._lock:
            return dict(self._values)


def by_name(values: npt.NDArray[np.uint64]) -> dict[str, int]:
    """Turn an array indexed by counter number, shape (<= 256,), into {name: value}."""
    return {c.name: int(values[c.number]) for c in COUNTERS.values() if c.number < len(values)}


def events_lost(values: dict[str, int]) -> int:
    """Sum of all loss counters, but for records that ring_full counts and that had been taken before."""
    return sum(values.get(c.name, 0) for c in COUNTERS.values() if c.is_loss) - values.get("records_saved", 0)
