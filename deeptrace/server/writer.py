"""Stores received batches: groups what waits, logs it, inserts it, and only then acknowledges. One thread, strictly in order.

Exactly once: the log (wal.py) holds the group before the insert, the insert carries the group's number as its token, and the
marks say which sequences are settled. A store that refuses is tried again for as long as it takes; nothing is acknowledged then.
"""

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from deeptrace import log
from deeptrace.counters import PythonCounters
from deeptrace.errors import StoreError, WireError
from deeptrace.model import SpanBatch
from deeptrace.server.store.spans import span_rows
from deeptrace.server.store.store import Store
from deeptrace.server.wal import Marks, WriteAheadLog
from deeptrace.wire import codec
from deeptrace.wire import deeptrace_pb2 as pb

logger = logging.getLogger("deeptrace.server.writer")

GROUP_SPANS = 50_000  # one insert: 471 k rows/s at this size, 162 k/s at a tenth of it
MAX_DAYS = 32  # distinct days of one batch: each costs the store a file of its own
FIRST_NS = 946_684_800 * 10**9  # 2000-01-01
LAST_NS = 4_102_444_800 * 10**9  # 2100-01-01; the store's dates end soon after
DAY_NS = 86_400 * 10**9
RETRY_S = 1.0  # between attempts while the store refuses


@dataclass(frozen=True)
class Received:
    """One batch from one agent. answer is called from the writer's thread once the sequence is settled."""

    agent_id: str
    epoch_ns: int
    message: pb.Batch
    answer: Callable[[pb.Ack], None]


@dataclass(frozen=True)
class _Fresh:
    received: Received
    batch: SpanBatch
    rows: pa.Table


Listener = Callable[[int, SpanBatch], None]


class Writer:
    """The only writer of spans. Listeners get (group id, batch) after it is stored, on the writer's thread."""

    def __init__(self, store: Store, wal: WriteAheadLog, counters: PythonCounters, listeners: list[Listener]) -> None:
        self._store, self._wal, self._counters, self._listeners = store, wal, counters, listeners
        self._queue: queue.SimpleQueue[Received | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dt-writer", daemon=True)
        self._marks_lock = threading.Lock()
        self._marks = Marks()
        self._group_id = 0
        self._in_hand = 0
        self.store_error = ""  # of the last attempt; empty while the store accepts

    def start(self) -> None:
        """Settle what a crash left behind, then begin. Raises StoreError."""
        self._recover()
        self._thread.start()

    def stop(self) -> None:
        """End after the group in hand; what still waits is not acknowledged, so its agents send it again."""
        self._stopping.set()
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, received: Received) -> None:
        n_spans = _n_spans(received.message)
        with self._marks_lock:
            self._counters.add("spans_received", n_spans)
            self._in_hand += n_spans
        self._queue.put(received)

    def last_sequence(self, agent_id: str, epoch_ns: int) -> int:
        """Highest settled sequence of an agent's run; 0 if none."""
        with self._marks_lock:
            return self._marks.get(agent_id, epoch_ns)

    def values(self) -> dict[str, int]:
        """All counters with the gauge `spans_in_queue`, read in one moment."""
        with self._marks_lock:
            return {"spans_received": 0} | self._counters.snapshot() | {"spans_in_queue": self._in_hand}

    def _run(self) -> None:
        while not self._stopping.is_set():
            waiting = self._take()
            if waiting:
                self._settle(waiting)

    def _take(self) -> list[Received]:
        """Block for one batch, then add what else waits, up to a group."""
        first = self._queue.get()
        taken, n_spans = [], 0
        while first is not None:
            taken.append(first)
            n_spans += _n_spans(first.message)
            if n_spans >= GROUP_SPANS or self._queue.empty():
                break
            first = self._queue.get()
        return taken

    def _settle(self, waiting: list[Received]) -> None:
        marks = self._marks.copy()
        fresh: list[_Fresh] = []
        answers: list[tuple[Received, pb.Ack]] = []
        counts = {"spans_stored": 0, "spans_duplicate": 0, "spans_rejected": 0}
        for received in waiting:
            n_spans, sequence = _n_spans(received.message), received.message.sequence
            ack = pb.Ack(sequence=sequence, stored_spans=n_spans)
            if sequence <= marks.get(received.agent_id, received.epoch_ns):
                counts["spans_duplicate"] += n_spans
            else:
                try:
                    batch = _checked(received.message)
                    fresh.append(_Fresh(received, batch, span_rows(batch, self._group_id + 1)))
                    counts["spans_stored"] += n_spans
                except (WireError, pa.ArrowException) as e:
                    counts["spans_rejected"] += n_spans
                    ack = pb.Ack(sequence=sequence, rejected_spans=n_spans, reason=str(e))
                    log.event(logger, logging.WARNING, "a batch was rejected", agent=received.agent_id, reason=str(e))
                marks.advance(received.agent_id, received.epoch_ns, sequence)
            answers.append((received, ack))
        if fresh and not self._store_group(fresh, marks):
            return  # stopping: nothing of this group was acknowledged
        with self._marks_lock:
            self._marks = marks
            self._in_hand -= sum(_n_spans(received.message) for received in waiting)
            for name, amount in counts.items():
                self._counters.add(name, amount)
        for received, ack in answers:
            received.answer(ack)
        for item in fresh:
            for listener in self._listeners:
                listener(self._group_id, item.batch)

    def _store_group(self, fresh: list[_Fresh], marks: Marks) -> bool:
        """Log and insert, again and again until both succeeded. False: the server stops and it did not succeed."""
        group_id = self._group_id + 1
        batches = [item.received.message.SerializeToString() for item in fresh]
        rows = _one_block([item.rows for item in fresh])
        logged = False
        while True:
            try:
                if not logged:
                    self._wal.write(group_id, marks, batches)
                    logged = True
                self._store.insert("spans", rows, token=f"group-{group_id}")
                break
            except (StoreError, OSError) as e:
                self._counters.add("store_errors")
                if not self.store_error:
                    log.event(logger, logging.WARNING, "the store refuses writes; trying again", reason=str(e))
                self.store_error = str(e)
                if self._stopping.wait(RETRY_S):
                    return False
        if self.store_error:
            log.event(logger, logging.WARNING, "the store accepts writes again")
            self.store_error = ""
        self._group_id = group_id
        return True

    def _recover(self) -> None:
        """Store the logged group again under its token, and make sure that it is there, day by day."""
        highest = self._store.rows("SELECT max(group_id) AS group_id FROM {db}.spans")[0]["group_id"]
        logged = self._wal.read()
        self._group_id = max(highest, logged.group_id if logged else 0)
        if logged is None:
            return
        self._marks = logged.marks
        batches = [_checked(pb.Batch.FromString(data)) for data in logged.batches]
        if not batches:
            return
        rows = _one_block([span_rows(batch, logged.group_id) for batch in batches])
        self._store.insert("spans", rows, token=f"group-{logged.group_id}")
        # A crash between the engine's note of the token and its commit would leave the token without the rows.
        sql = "SELECT DISTINCT intDiv(start_ns, {day:UInt64}) AS day FROM {db}.spans WHERE group_id = {group:UInt64}"
        stored = {row["day"] for row in self._store.rows(sql, {"day": DAY_NS, "group": logged.group_id})}
        days = rows["start_ns"].to_numpy() // DAY_NS
        missing = [int(day) for day in np.unique(days) if int(day) not in stored]
        if missing:
            self._store.insert("spans", rows.filter(pa.array(np.isin(days, missing))), token=f"group-{logged.group_id}-again")
        log.event(logger, logging.INFO, "the last group of the log is settled", group=logged.group_id, spans=rows.num_rows)


def _n_spans(message: pb.Batch) -> int:
    return min(message.spans.rows, codec.MAX_BATCH_SPANS)


def _checked(message: pb.Batch) -> SpanBatch:
    """Decode a batch and check what the store needs. Raises WireError."""
    batch = codec.decode(message).batch
    start = batch.spans["start_ns"]
    if len(start) and (int(start.min()) < FIRST_NS or int(start.max()) >= LAST_NS):
        raise WireError("a span starts before the year 2000 or after 2099; set the clock of the agent's host")
    n_days = len(np.unique(start // DAY_NS))
    if n_days > MAX_DAYS:
        raise WireError(f"the spans of a batch are spread over {n_days} days; the limit is {MAX_DAYS}")
    return batch


def _one_block(tables: list[pa.Table]) -> pa.Table:
    """Rows of a group in one chunk: one insert is then one block, which is stored whole or not at all."""
    return pa.concat_tables(tables).combine_chunks()
