"""Settled spans that a late long one may still claim: the traces whose root is a call without a caller. Bounded by spans and age.

Kept in the parts in which they came, so that neither taking in nor forgetting copies what stays. Pure: no clock, no store.
"""

from collections import deque

import numpy as np
import numpy.typing as npt

from deeptrace.server.correlate._window import CLIENT, PRODUCER, WINDOW_DTYPE

Spans = npt.NDArray[np.void]
U64 = npt.NDArray[np.uint64]

MAX_HISTORY_SPANS = 500_000  # 90 MB; half a minute of 20,000 spans/s without a known caller
HISTORY_NS = 90 * 10**9  # requests are given up on after 60 s (agent.request_timeout_s); some delay on top


class History:
    """Rows of WINDOW_DTYPE, oldest part first. A trace whose root is a SERVER span is complete above and never kept."""

    def __init__(self) -> None:
        self._parts: deque[Spans] = deque()
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def add(self, rows: Spans) -> None:
        """Keep those that may be claimed; beyond MAX_HISTORY_SPANS the parts that came first go."""
        kept = rows[rows["root_is_call"] == 1]
        if len(kept):
            self._parts.append(kept[-MAX_HISTORY_SPANS:].copy())
            self._n += len(self._parts[-1])
        while self._n > MAX_HISTORY_SPANS:
            self._n -= len(self._parts.popleft())

    def expire(self, now_ns: int) -> None:
        """Forget parts of which every span arrived HISTORY_NS ago or earlier."""
        while self._parts and now_ns - int(self._parts[0]["arrived_ns"].max()) >= HISTORY_NS:
            self._n -= len(self._parts.popleft())

    def claimed_roots(self, late: Spans) -> U64:
        """Root ids of the traces that one of these long spans may have caused: calls of its process, inside its time."""
        wanted: list[U64] = [np.zeros(0, np.uint64)]
        processes = np.unique(late["process"])
        for part in self._parts:
            calls = (part["kind"] == CLIENT) | (part["kind"] == PRODUCER)
            mine = part[calls & (part["parent_id"] == 0) & np.isin(part["process"], processes)]
            if len(mine) == 0:
                continue
            for span in late:
                within = (mine["process"] == span["process"]) & (mine["start_ns"] >= span["start_ns"])
                wanted.append(mine["root_id"][within & (mine["end_ns"] <= span["end_ns"])])
        return np.unique(np.concatenate(wanted))

    def take(self, roots: U64) -> Spans:
        """Remove and return all spans of these traces."""
        taken = [np.zeros(0, WINDOW_DTYPE)]
        parts: deque[Spans] = deque()
        for part in self._parts:
            back = np.isin(part["root_id"], roots)
            if back.any():
                taken.append(part[back])
                part = part[~back]
            if len(part):
                parts.append(part)
        self._parts = parts
        self._n = sum(map(len, parts))
        return np.concatenate(taken)
