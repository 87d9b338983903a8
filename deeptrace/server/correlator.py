"""Runs the assembler over what the writer stored, and writes links and trace members. One thread; never slows the writer.

Falls behind gracefully: the pause between steps grows with their cost, and beyond MAX_WAITING_SPANS new spans are stored without
links and counted. After a restart the spans of groups that had not settled are read again.
"""

import json
import logging
import pathlib
import threading

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from deeptrace import clock, log
from deeptrace.counters import PythonCounters
from deeptrace.errors import StoreError
from deeptrace.model import SpanBatch
from deeptrace.server.assemble import FULL_WINDOW_SPANS, MAX_WINDOW_SPANS, Assembler, Changes
from deeptrace.server.correlate import METHODS
from deeptrace.server.correlate._window import rows_of
from deeptrace.server.store.read import batches_after, count_after
from deeptrace.server.store.store import Store
from deeptrace.server.wal import replace_file

logger = logging.getLogger("deeptrace.server.correlator")

TICK_S = 0.5  # between steps, at least
DUTY = 0.6  # of one core at most: after a step of t seconds comes a pause of at least t * (1 - DUTY) / DUTY
MAX_WAITING_SPANS = 500_000  # handed over and not yet taken in; batches of 250 bytes per span, and what a window can take
MAX_TAKEN_UP_SPANS = FULL_WINDOW_SPANS  # after a restart: leaves room for what agents held back meanwhile and send at once
WATERMARK = "correlate.json"


class Correlator:
    """feed() from the writer's thread; everything else is its own."""

    def __init__(self, store: Store, folder: pathlib.Path, counters: PythonCounters, *, settle_s: float) -> None:
        self._store, self._folder, self._counters = store, folder, counters
        self._assembler = Assembler(round(settle_s * 1e9))
        self._lock = threading.Lock()
        self._waiting: list[tuple[int, SpanBatch, int]] = []
        self._n_waiting = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dt-correlator", daemon=True)
        self._unwritten: list[Changes] = []
        self._last_group = self._settled_group = self._read_watermark()
        self._step_ms = 0

    def start(self) -> None:
        """Take up what had not settled when the last server stopped, then begin."""
        now_ns = clock.unix_ns()
        n_unsettled = count_after(self._store, self._settled_group)
        for group_id, batch in batches_after(self._store, self._settled_group, MAX_TAKEN_UP_SPANS):
            self._waiting.append((group_id, batch, now_ns))
            self._n_waiting += len(batch)
        self._counters.add("uncorrelated_overload", max(0, n_unsettled - self._n_waiting))
        self._thread.start()

    def stop(self) -> None:
        """Publish what is known and end. What has not settled is worked on again after the next start."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=60)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def feed(self, group_id: int, batch: SpanBatch) -> None:
        with self._lock:
            if self._n_waiting + len(batch) <= MAX_WAITING_SPANS:
                self._waiting.append((group_id, batch, clock.unix_ns()))
                self._n_waiting += len(batch)
                return
        self._counters.add("uncorrelated_overload", len(batch))

    def gauges(self) -> dict[str, int]:
        """What the correlator holds now."""
        return {
            "correlator_waiting": self._n_waiting,
            "correlator_window": len(self._assembler.window),
            "correlator_history": len(self._assembler.history),
            "correlator_step_ms": self._step_ms,
        }

    def _run(self) -> None:
        pause_s = TICK_S
        while not self._stopping.wait(pause_s):
            pause_s = max(TICK_S, self._step() * (1 - DUTY) / DUTY)
        self._step()

    def _step(self) -> float:
        """One round. Returns the seconds that it took."""
        begun_ns = clock.monotonic_ns()
        with self._lock:
            waiting, self._waiting, self._n_waiting = self._waiting, [], 0
        arrived = [rows_of(batch, group_id, now_ns) for group_id, batch, now_ns in waiting]
        if waiting:
            self._last_group = max(self._last_group, *(group_id for group_id, _, _ in waiting))
        changes = self._assembler.step(arrived, clock.unix_ns())
        for name, amount in (
            ("links_made", changes.n_linked),
            ("links_ambiguous", changes.n_ambiguous),
            ("cycles_cut", changes.n_cycles),
            ("uncorrelated_overload", changes.n_overload),
        ):
            self._counters.add(name, amount)
        if len(changes.spans):
            self._unwritten.append(changes)
        if self._write():
            self._save_watermark()
        took_s = (clock.monotonic_ns() - begun_ns) / 1e9
        self._step_ms = round(took_s * 1e3)
        return took_s

    def _write(self) -> bool:
        """Write what is not written yet. False when the store refused; it is tried again in the next step."""
        while self._unwritten:
            changes = self._unwritten[0]
            revision = clock.unix_ns()
            try:
                self._store.insert("links", link_rows(changes, revision))
                if changes.moved.any():
                    self._store.insert("trace_members", member_rows(changes, revision))
            except StoreError as e:
                self._counters.add("store_errors")
                log.event(logger, logging.INFO, "links could not be written; trying again", reason=str(e))
                self._forget_oldest()
                return False
            self._unwritten.pop(0)
        return True

    def _forget_oldest(self) -> None:
        """While the store refuses, keep at most a window of changes; what is dropped is counted, and found again at a restart."""
        while sum(len(c.spans) for c in self._unwritten) > MAX_WINDOW_SPANS:
            self._counters.add("uncorrelated_overload", len(self._unwritten.pop(0).spans))

    def _save_watermark(self) -> None:
        """Remember up to which group everything has settled and is written."""
        oldest = self._assembler.oldest_unsettled_group
        settled = self._last_group if oldest is None else oldest - 1
        if settled == self._settled_group:
            return
        try:
            replace_file(self._folder / WATERMARK, json.dumps({"settled_group": settled}).encode())
            self._settled_group = settled
        except OSError as e:  # a full disk: the next step tries again
            log.event(logger, logging.INFO, "the watermark could not be written", reason=str(e))

    def _read_watermark(self) -> int:
        try:
            return int(json.loads((self._folder / WATERMARK).read_text())["settled_group"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0


def link_rows(changes: Changes, revision: int) -> pa.Table:
    """Rows of the table `links`."""
    spans = changes.spans
    methods = pa.DictionaryArray.from_arrays(pa.array(np.ascontiguousarray(spans["method"]).astype(np.int32)), list(METHODS))
    return pa.table(
        {
            "start_ns": pa.array(spans["start_ns"].astype(np.uint64)),
            "span_id": pa.array(np.ascontiguousarray(spans["span_id"])),
            "trace_id": _fixed(changes.trace_ids),
            "parent_id": pa.array(np.ascontiguousarray(spans["parent_id"])),
            "method": methods.cast(pa.string()),
            "confidence": pa.array(np.ascontiguousarray(spans["confidence"])),
            "revision": pa.repeat(pa.scalar(revision, pa.uint64()), len(spans)),
        }
    )


def member_rows(changes: Changes, revision: int) -> pa.Table:
    """Rows of the table `trace_members`: the spans that are new in their trace."""
    spans = changes.spans[changes.moved]
    return pa.table(
        {
            "trace_id": _fixed(changes.trace_ids[changes.moved]),
            "span_id": pa.array(np.ascontiguousarray(spans["span_id"])),
            "start_ns": pa.array(spans["start_ns"].astype(np.uint64)),
            "revision": pa.repeat(pa.scalar(revision, pa.uint64()), len(spans)),
        }
    )


def _fixed(values: npt.NDArray[np.uint8]) -> pa.Array:
    return pa.Array.from_buffers(pa.binary(16), len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])
