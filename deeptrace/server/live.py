"""Hands newly stored spans to whoever watches (`deeptrace tail`). Bounded: a slow watcher misses spans and is told how many."""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deeptrace.core.wire import SPAN_STATUSES
from deeptrace.model import PROTOCOL_NAMES, RawSpan, SpanBatch, raw_spans

MAX_WATCHERS = 16  # each costs a selection per batch
MAX_WAITING = 64  # batches per watcher
MAX_SHOWN = 2000  # spans per batch and watcher; nobody reads faster

_PROTOCOL_NUMBERS = {name: number for number, name in PROTOCOL_NAMES.items()}
_STATUS_NUMBERS = {name: number for number, name in SPAN_STATUSES.items()}


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which spans; empty means any. service and name match exactly."""

    service: str = ""
    protocol: str = ""
    status: str = ""
    name: str = ""

    def select(self, batch: SpanBatch) -> npt.NDArray[np.bool_]:
        """Which rows of a batch match, shape (n,)."""
        spans = batch.spans
        chosen = np.ones(len(spans), bool)
        if self.service:
            chosen &= np.array([p.service == self.service for p in batch.processes], bool)[spans["process"]]
        if self.protocol:
            chosen &= spans["protocol"] == _PROTOCOL_NUMBERS.get(self.protocol, 255)
        if self.status:
            chosen &= spans["status"] == _STATUS_NUMBERS.get(self.status, 255)
        if self.name:
            names = np.unique(spans["name"])
            chosen &= np.isin(spans["name"], [i for i in names if batch.string(int(i)) == self.name])
        return chosen


class Watcher:
    """One watcher's bounded queue."""

    def __init__(self, wanted: Filter) -> None:
        self.wanted = wanted
        self.waiting: queue.Queue[SpanBatch | None] = queue.Queue(MAX_WAITING)
        self.n_missed = 0

    def spans(self, timeout_s: float) -> Iterator[RawSpan] | None:
        """The next spans; an empty iterator after timeout_s without any, None at the end."""
        try:
            batch = self.waiting.get(timeout=timeout_s)
        except queue.Empty:
            return iter(())
        return None if batch is None else raw_spans(batch)

    def take_missed(self) -> int:
        missed, self.n_missed = self.n_missed, 0
        return missed


class Live:
    """All watchers. feed() is called by the writer and never blocks it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watchers: list[Watcher] = []
        self._closed = False

    def watch(self, wanted: Filter) -> Watcher | None:
        """A new watcher, or None when there are too many."""
        watcher = Watcher(wanted)
        with self._lock:
            if self._closed or len(self._watchers) >= MAX_WATCHERS:
                return None
            self._watchers.append(watcher)
        return watcher

    def unwatch(self, watcher: Watcher) -> None:
        with self._lock:
            if watcher in self._watchers:
                self._watchers.remove(watcher)

    def feed(self, _group_id: int, batch: SpanBatch) -> None:
        with self._lock:
            watchers = list(self._watchers)
        for watcher in watchers:
            rows = np.flatnonzero(watcher.wanted.select(batch))
            watcher.n_missed += max(0, len(rows) - MAX_SHOWN)
            rows = rows[:MAX_SHOWN]
            if len(rows) == 0:
                continue
            try:
                watcher.waiting.put_nowait(_rows(batch, rows))
            except queue.Full:
                watcher.n_missed += len(rows)

    def close(self) -> None:
        """End all watchers."""
        with self._lock:
            self._closed = True
            watchers = list(self._watchers)
        for watcher in watchers:
            while True:
                try:
                    watcher.waiting.put_nowait(None)
                    break
                except queue.Full:
                    watcher.waiting.get_nowait()


def _rows(batch: SpanBatch, rows: npt.NDArray[np.intp]) -> SpanBatch:
    """Some spans of a batch; they keep their references into its tables."""
    return SpanBatch(
        batch.spans[rows], batch.attributes, batch.string_at, batch.string_bytes, batch.processes, batch.host, batch.boot_id
    )
