"""Links to traces: keeps the window of recent spans, runs the evidence over it, and says what changed. Pure: no clock, no store.

A span's life here: it arrives; after PROVISIONAL_NS its trace is published; while it is younger than the settling time its links
may change, and changes are published as revisions; then it settles: its links stand, it is kept as context for later ones, and
after that in a bounded history. A late long span (a slow request whose calls came long before it) takes the spans that
it may have caused, with their whole traces, back from the history into the window.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deeptrace.model import Link, SpanBatch
from deeptrace.server.correlate import METHODS, Evidence, Rows, evidence
from deeptrace.server.correlate._threads import SETTLED_BEFORE, SETTLES_NOW
from deeptrace.server.correlate._window import CLIENT, PRODUCER, SERVER, WINDOW_DTYPE, Columns, mix, rows_of
from deeptrace.server.history import History

Spans = npt.NDArray[np.void]

PROVISIONAL_NS = 10**9  # both ends of a call arrive within one batching delay of each other (0.2 s) in the normal case
MAX_WINDOW_SPANS = 800_000  # 600 MB while a step runs, with all its columns; 8 s at 100,000 spans/s
FULL_WINDOW_SPANS = 300_000  # beyond it spans settle earlier: a step takes 3 us per span of the window ...
MIN_SETTLE_NS = 2 * 10**9  # ... but not before their neighbours can be expected
CONTEXT_SHARE = 4  # settled spans stay for a quarter of the settling time as neighbours of younger ones
MAX_RECALLS = 256  # late spans per step that search the history; each is a pass over a process's part of it
RECORDING_SETTLE_NS = 10 * 10**9  # as server.settle_s
RECORDING_STEP_SPANS = 400_000  # leaves room in the window for the context of the step before
GRACE_NS = 3 * 10**9  # at the end of a recording no span waits for its neighbours any more
MAX_DEPTH_BITS = 16  # a path of 65,536 spans; deeper is a cycle


@dataclass(frozen=True)
class Changes:
    """What a step found out. spans: WINDOW_DTYPE rows whose published state is new, parent_id to method as it is now;
    trace_ids: (n, 16) u8; moved: rows of it that are new in their trace. The counts are of spans that settled in this step."""

    spans: Spans
    trace_ids: npt.NDArray[np.uint8]
    moved: npt.NDArray[np.bool_]
    n_linked: int = 0
    n_ambiguous: int = 0
    n_cycles: int = 0
    n_overload: int = 0


def trace_ids(root_ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    """hash128 of the ids of root spans: (n, 16) u8."""
    halves = np.empty((len(root_ids), 2), ">u8")
    halves[:, 0] = mix(root_ids, np.uint64(0x6A09E667F3BCC908))
    halves[:, 1] = mix(root_ids, np.uint64(0xBB67AE8584CAA73B))
    return halves.view(np.uint8).reshape(-1, 16)


class Assembler:
    """The state between steps. One thread."""

    def __init__(self, settle_ns: int, kinds: list[Evidence] | None = None) -> None:
        self._settle_ns = settle_ns
        self._evidence = evidence() if kinds is None else kinds
        self.window: Spans = np.zeros(0, WINDOW_DTYPE)
        self.history = History()

    @property
    def oldest_unsettled_group(self) -> int | None:
        """The lowest group with a span that has not settled; None if all have."""
        groups = self.window["group_id"][self.window["settled"] == 0]
        return int(groups.min()) if len(groups) else None

    def step(self, arrived: list[Spans], now_ns: int, *, everything: bool = False) -> Changes:
        """Take in new rows and work out all links anew. everything: settle all spans now (the end of a recording)."""
        room = max(0, MAX_WINDOW_SPANS - len(self.window))
        fresh = np.concatenate([np.zeros(0, WINDOW_DTYPE), *arrived])
        n_overload = max(0, len(fresh) - room)
        fresh = fresh[len(fresh) - min(room, len(fresh)) :]  # the newest: their neighbours are still to come
        if len(fresh):
            self.window = np.concatenate([self.window, fresh])
        n_overload += self._recall(fresh, now_ns)
        window = self.window
        age = now_ns - window["arrived_ns"]
        settling = (window["settled"] == 0) & ((age >= self._settle_now_ns(age)) | everything)
        window["settled"][settling] = SETTLES_NOW
        parent, method, confidence, ambiguous = self._parents(now_ns)
        n_cycles = _cut_cycles(parent, window["start_ns"])
        due = (window["published"] > 0) | (age >= PROVISIONAL_NS) | everything
        changes = self._compare(parent, method, confidence, due)
        self._settle(now_ns)
        return Changes(
            changes.spans, changes.trace_ids, changes.moved,
            n_linked=int((parent[settling] >= 0).sum()), n_ambiguous=int((ambiguous & settling & (parent < 0)).sum()),
            n_cycles=n_cycles, n_overload=n_overload,
        )  # fmt: skip

    def _settle_now_ns(self, age: npt.NDArray[np.int64]) -> int:
        """The settling time of this step: the full one, or what keeps the window at FULL_WINDOW_SPANS, but MIN_SETTLE_NS."""
        too_many = len(age) - FULL_WINDOW_SPANS
        if too_many <= 0:
            return self._settle_ns
        oldest = int(np.partition(age, len(age) - too_many)[len(age) - too_many])
        return min(self._settle_ns, max(MIN_SETTLE_NS, oldest))

    def _parents(self, now_ns: int) -> tuple[Rows, npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Parent row (or -1), method and confidence of each row, and which had several candidates."""
        window = self.window
        n = len(window)
        parent = np.full(n, -1, np.int64)
        method, confidence, ambiguous = np.zeros(n, np.uint8), np.zeros(n, np.float32), np.zeros(n, bool)
        columns = Columns(window)
        for kind in self._evidence:
            found = kind.link(columns, parent, now_ns)
            new = (parent[found.child] < 0) & (found.child != found.parent)
            child = found.child[new]
            parent[child], method[child], confidence[child] = found.parent[new], found.method[new], found.confidence[new]
            ambiguous[found.ambiguous] = True
        # What settled before keeps its parent, which may have left the window.
        kept = window["settled"] == SETTLED_BEFORE
        parent[kept] = _rows_of_ids(window, window["parent_id"][kept])
        method[kept], confidence[kept] = window["method"][kept], window["confidence"][kept]
        return parent, method, confidence, ambiguous

    def _compare(
        self, parent: Rows, method: npt.NDArray[np.uint8], confidence: npt.NDArray[np.float32], due: npt.NDArray[np.bool_]
    ) -> Changes:
        """Put the result into the window and find what differs from what was published."""
        window = self.window
        top = _roots(parent)
        ids = window["span_id"]
        # A settled top whose own parent has left the window stands for the root that it was published with.
        anchored = (window["settled"] == SETTLED_BEFORE) & (window["published"] > 0)
        root_id = np.where(anchored[top], window["root_id"][top], ids[top]) if len(window) else ids
        is_call = (window["kind"] == CLIENT) | (window["kind"] == PRODUCER)
        window["root_is_call"] = np.where(anchored[top], window["root_is_call"][top], is_call[top]) if len(window) else 0
        parent_id = np.where(parent >= 0, ids[parent], 0) if len(window) else ids
        kept = window["settled"] == SETTLED_BEFORE  # their parent may have left the window; only the root above it can change
        parent_id[kept] = window["parent_id"][kept]
        new_root = root_id != window["root_id"]
        unpublished = window["published"] == 0
        differs = new_root | unpublished | (parent_id != window["parent_id"]) | (method != window["method"])
        differs |= np.abs(confidence - window["confidence"]) > 0.01
        rows = np.flatnonzero(differs & due)
        moved = (new_root | unpublished)[rows]
        window["parent_id"][rows], window["root_id"][rows] = parent_id[rows], root_id[rows]
        window["method"][rows], window["confidence"][rows] = method[rows], confidence[rows]
        window["published"][rows] = 1
        spans = window[rows]
        return Changes(spans, trace_ids(spans["root_id"]), moved)

    def _settle(self, now_ns: int) -> None:
        """Move what has been context for long enough into the history."""
        window = self.window
        window["settled"][window["settled"] == SETTLES_NOW] = SETTLED_BEFORE
        age = now_ns - window["arrived_ns"]
        settle_ns = self._settle_now_ns(age)
        context_ns = settle_ns // CONTEXT_SHARE
        leaves = (window["settled"] == SETTLED_BEFORE) & (age >= settle_ns + context_ns)
        self.history.expire(now_ns)
        if leaves.any():
            self.history.add(window[leaves])
            self.window = window[~leaves]

    def _recall(self, fresh: Spans, now_ns: int) -> int:
        """Take spans that a late long one may have caused back from history or context, with their traces, as unsettled.
        Returns how many late spans there were too many of to search for."""
        settled_before = now_ns - self._settle_ns
        late = fresh[(fresh["end_ns"] - fresh["start_ns"] >= self._settle_ns // 2) & (fresh["kind"] == SERVER)]
        late = late[late["process"] > 0]
        n_left = max(0, len(late) - MAX_RECALLS)
        late = late[:MAX_RECALLS]
        if len(late) == 0:
            return 0
        roots = self.history.claimed_roots(late)
        # the same for what still stands in the window as context
        window = self.window
        context = (window["settled"] == SETTLED_BEFORE) & np.isin(window["process"], late["process"]) & (window["parent_id"] == 0)
        roots = np.union1d(roots, window["root_id"][context])
        window["settled"][np.isin(window["root_id"], roots) & (window["settled"] == SETTLED_BEFORE)] = 0
        window["arrived_ns"][(window["settled"] == 0) & (window["arrived_ns"] < settled_before)] = now_ns
        recalled = self.history.take(roots)
        recalled["settled"], recalled["arrived_ns"] = 0, now_ns
        self.window = np.concatenate([window, recalled])
        return n_left


def link_all(batches: list[SpanBatch]) -> dict[int, Link]:
    """Links of all spans of a recording, by span id. What fits into one window is linked in one go: nothing is late then. More
    is stepped through in the order of the spans' ends."""
    rows = np.concatenate([np.zeros(0, WINDOW_DTYPE), *(rows_of(batch, 1, 0) for batch in batches)])
    rows["arrived_ns"] = rows["end_ns"]
    rows = rows[np.argsort(rows["arrived_ns"], kind="stable")]
    assembler = Assembler(RECORDING_SETTLE_NS)
    found: dict[int, Link] = {}
    for first in range(0, len(rows), RECORDING_STEP_SPANS):
        part = rows[first : first + RECORDING_STEP_SPANS]
        now_ns = int(part["arrived_ns"][-1])
        is_last = first + RECORDING_STEP_SPANS >= len(rows)
        changes = assembler.step([part], now_ns + (GRACE_NS if is_last else 0), everything=is_last)
        found.update(zip(changes.spans["span_id"].tolist(), _as_links(changes), strict=True))
    return found


def _as_links(changes: Changes) -> Iterator[Link]:
    columns = (changes.spans[name].tolist() for name in ("parent_id", "method", "confidence"))
    for trace_id, parent_id, method, confidence in zip(changes.trace_ids, *columns, strict=True):
        yield Link(
            trace_id=trace_id.tobytes().hex(),
            parent_span_id=parent_id or None,
            method=METHODS[method] or None,
            confidence=round(confidence, 4) if parent_id else None,
        )


def _rows_of_ids(window: Spans, ids: npt.NDArray[np.uint64]) -> Rows:
    """Row of each span id, -1 if it is not in the window."""
    if len(ids) == 0:
        return np.zeros(0, np.int64)
    order = np.argsort(window["span_id"], kind="stable")
    at = np.minimum(np.searchsorted(window["span_id"], ids, sorter=order), len(window) - 1)
    rows = order[at]
    return np.where((window["span_id"][rows] == ids) & (ids > 0), rows, -1)


def _roots(parent: Rows) -> Rows:
    """The row at the top of each row's path. There must be no cycle."""
    top = np.where(parent >= 0, parent, np.arange(len(parent)))
    for _ in range(MAX_DEPTH_BITS):
        above = top[top]
        if np.array_equal(above, top):
            break
        top = above
    return top


def _cut_cycles(parent: Rows, start_ns: npt.NDArray[np.int64]) -> int:
    """Make the earliest span of each cycle a root. Returns how many links were taken back."""
    n_cut = 0
    top = _roots(parent)
    trapped = np.flatnonzero(parent[top] >= 0) if len(parent) else top
    while len(trapped):
        path: dict[int, int] = {}
        row = int(trapped[0])
        while row not in path:
            path[row] = len(path)
            row = int(parent[row])
        cycle = [r for r, at in path.items() if at >= path[row]]
        parent[min(cycle, key=lambda r: (int(start_ns[r]), r))] = -1
        n_cut += 1
        top = _roots(parent)
        trapped = np.flatnonzero(parent[top] >= 0)
    return n_cut
