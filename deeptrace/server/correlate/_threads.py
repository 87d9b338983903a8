"""Threads as keys that sort: (thread, time) in one number; questions about intervals on threads; what is learned of processes."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from deeptrace.server.correlate import Rows
from deeptrace.server.correlate._joins import distinct
from deeptrace.server.correlate._window import Columns, mix

Keys = npt.NDArray[np.int64]

TIME_BITS = 40  # 18 minutes in ns: longer than any window; what is older counts as its first moment
MAX_TIME = (1 << TIME_BITS) - 1
SETTLES_NOW, SETTLED_BEFORE = 1, 2  # values of the column `settled`
HALF_LIFE_NS = 300 * 10**9  # after this long without news, what was learned counts half
MAX_PROCESSES = 100_000  # learned about at the same time; the ones with the oldest news are forgotten


class Threads:
    """Numbers the threads of a window densely and makes keys of (thread, time)."""

    def __init__(self, process: npt.NDArray[np.uint64], end_ns: npt.NDArray[np.int64], *tids: npt.NDArray[np.uint32]) -> None:
        """process, end_ns, tids: one value per row each. Keys of a process reach back 9 minutes from its newest end."""
        hashes = [np.where((process > 0) & (tid > 0), mix(process, tid.astype(np.uint64)), np.uint64(0)) for tid in tids]
        values = distinct(np.concatenate(hashes))
        self.n = len(values)
        self.numbers = [np.searchsorted(values, h) for h in hashes]  # per argument; compare only among those that are known
        self.known = [h > 0 for h in hashes]
        # Per process, because hosts' clocks differ, and a span with an absurd time must not spoil those of others.
        processes = distinct(process)
        of = np.searchsorted(processes, process)
        newest = np.full(len(processes), np.iinfo(np.int64).min)
        np.maximum.at(newest, of, end_ns)
        self._first_ns = newest[of] - (MAX_TIME >> 1)

    def key(self, which: int, times_ns: npt.NDArray[np.int64]) -> Keys:
        """(thread of argument `which`, time) as one ascending number."""
        keys: Keys = self.numbers[which] << TIME_BITS | np.clip(times_ns - self._first_ns, 0, MAX_TIME)
        return keys


def overlapped(start: Keys, end: Keys) -> npt.NDArray[np.bool_]:
    """Which intervals overlap another one of the same thread."""
    if len(start) == 0:
        return np.zeros(0, bool)
    order = np.argsort(start, kind="stable")
    s, e = start[order], end[order]
    busy_until = np.maximum.accumulate(e)  # threads ascend in the high bits, so an earlier thread's end is always smaller
    meets = np.zeros(len(s), bool)
    later = s[1:] < busy_until[:-1]
    meets[1:] = later
    meets[:-1] |= s[1:] < e[:-1]
    result = np.zeros(len(s), bool)
    result[order] = meets
    return result


def n_covering(points: Keys, start: Keys, end: Keys) -> npt.NDArray[np.int64]:
    """How many of the intervals [start, end] contain each point, thread by thread."""
    begun = np.searchsorted(np.sort(start), points, "right")
    over = np.searchsorted(np.sort(end), points, "left")
    result: npt.NDArray[np.int64] = begun - over
    return result


def n_points_in(start: Keys, end: Keys, points: Keys) -> npt.NDArray[np.int64]:
    """How many of the points lie in each interval [start, end]."""
    ordered = np.sort(points)
    result: npt.NDArray[np.int64] = np.searchsorted(ordered, end, "right") - np.searchsorted(ordered, start, "left")
    return result


@dataclass
class Learned:
    """Right and wrong predictions of one assumption per process, fading with time."""

    right: dict[int, float] = field(default_factory=dict)
    wrong: dict[int, float] = field(default_factory=dict)
    _faded_ns: int = 0

    def fade(self, now_ns: int) -> None:
        """Let what was learned count less, by the time that went by."""
        passed = now_ns - self._faded_ns
        self._faded_ns = now_ns
        factor = 0.5 ** (max(0, passed) / HALF_LIFE_NS) if len(self.right) + len(self.wrong) else 1.0
        for table in (self.right, self.wrong):
            for process in table:
                table[process] *= factor
            while len(table) > MAX_PROCESSES:
                del table[next(iter(table))]

    def weigh(
        self, spans: Columns, processes: npt.NDArray[np.uint64], right: Rows, wrong: Rows
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """(right, wrong) so far for each of `processes`. right, wrong: rows of spans that speak for and against. Rows that settle
        now are remembered; rows that settled before were."""
        sums = []
        for table, rows in ((self.right, right), (self.wrong, wrong)):
            fresh = rows[spans["settled"][rows] != SETTLED_BEFORE]
            now = _counted(spans["process"][fresh])
            sums.append(np.array([table.get(p, 0.0) + now.get(p, 0) for p in processes.tolist()], float))
            for process, n in _counted(spans["process"][fresh[spans["settled"][fresh] == SETTLES_NOW]]).items():
                table[process] = table.pop(process, 0.0) + n
        return sums[0], sums[1]


def _counted(processes: npt.NDArray[np.uint64]) -> dict[int, int]:
    values = distinct(processes)
    counts = np.bincount(np.searchsorted(values, processes), minlength=len(values))
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def rows_where(mask: npt.NDArray[np.bool_]) -> Rows:
    return np.flatnonzero(mask).astype(np.int64)
