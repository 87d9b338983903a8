"""Moves records from the rings through the pipeline to the sender, and keeps the process table right on the way.

One thread, woken by full rings or by time. Python handles processes and batches here, never single events.
"""

import select
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from deeptrace import clock
from deeptrace.agent.batch import BatchMaker, without_processes
from deeptrace.agent.kernel_log import KernelLog
from deeptrace.agent.limits import LimitWriter
from deeptrace.agent.pidfilter import PidFilter
from deeptrace.agent.proc_events import Known, openers, process_records
from deeptrace.agent.procs import ProcessTable
from deeptrace.agent.sender import Sender
from deeptrace.core.batch import Batch
from deeptrace.core.pipeline import Pipeline
from deeptrace.core.ring import FINAL_AFTER_NS, MAX_BYTES, MAX_RECORDS, Rings
from deeptrace.counters import PythonCounters
from deeptrace.procname import OWN_COMM

KIND_PROC = 3  # dt_records.h: enum dt_kind
FORK, EXEC, EXIT = 1, 2, 3  # enum dt_proc_event
MS = 1_000_000  # ns
FULL_BYTES = MAX_BYTES - 16384  # with more payload a batch may have stopped for want of room
MAX_PASSES = 64  # batches between two looks at the clock: half a million records, a second of a saturated host
SMALL_BATCH = 500  # records
IDLE_MS = 40.0  # longest sleep when nothing comes: 25 wakeups a second, with the account 0.8 % of a CPU
MAX_SHORT_LIVED = 4096  # starts and names kept of processes that may be gone before /proc is read
SECOND_NS = 10**9  # how often the account is read, and the wall clock compared: it may be slewed or stepped


T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Stages:
    """What the source moves data between."""

    rings: Rings
    pipeline: Pipeline
    sender: Sender
    processes: ProcessTable
    filter: PidFilter
    batches: BatchMaker
    counters: PythonCounters
    kernel_log: KernelLog | None = None  # of debug builds of the probes
    limits: LimitWriter | None = None  # who reads no messages asks for none


class Source:
    """poll() in a loop, until the end is wished; then finish(). batch_spans, batch_ms: settings ship.*; drain_ms: agent.drain_ms.
    every_second: called between two batches about once a second."""

    def __init__(
        self,
        stages: Stages,
        *,
        drain_ms: float,
        batch_ms: float,
        batch_spans: int,
        every_second: Callable[[], object],
    ) -> None:
        self._stages = stages
        self._drain_s = drain_ms / 1e3
        self._sleep_s = self._drain_s
        self._batch_ns = int(batch_ms * MS)
        self._batch_spans = batch_spans
        self._every_second = every_second
        self._known: dict[int, Known] = {}  # by their own records: they may be gone before /proc is read
        self._executed: set[int] = set()  # have a new program, but open requests of the old one: read again when they talk
        self._offset_ns = clock.monotonic_to_unix_offset_ns()
        now = clock.monotonic_ns()
        self._offset_at_ns = now
        self._shipped_at_ns = now
        self._second_at_ns = now
        self._epoll = select.epoll()
        for descriptor in stages.rings.fds:
            self._epoll.register(descriptor, select.EPOLLIN)

    def wake_on(self, descriptor: int) -> None:
        """End a sleep early when this becomes readable."""
        self._epoll.register(descriptor, select.EPOLLIN)

    def poll(self) -> None:
        """Sleep until records wait or it is time, then move everything that is final."""
        self._epoll.poll(self._sleep_s)
        taken = self._drain(final=False)
        # The longer it was quiet the longer the next sleep: an idle host costs next to nothing.
        self._sleep_s = self._drain_s if taken else min(self._sleep_s * 2, max(IDLE_MS / 1e3, self._drain_s))
        now = clock.monotonic_ns()
        if now - self._shipped_at_ns >= self._batch_ns:
            if not taken:
                self._flush(now)
            self.ship()
        if now - self._second_at_ns >= SECOND_NS:
            self._second_at_ns = now
            self._every_second()

    def _flush(self, now_ns: int) -> None:
        """What is due when no records come."""
        stages = self._stages
        stages.pipeline.flush(now_ns - FINAL_AFTER_NS)
        if stages.limits:
            stages.limits.take(stages.pipeline.take_limits(), now_ns)

    def finish(self) -> None:
        """Move everything that is left, young records too, and close what is open."""
        while self._drain(final=True):
            pass
        self._stages.pipeline.finish(clock.monotonic_ns())
        self.ship()
        self._epoll.close()

    def ship(self) -> None:
        """Hand the spans made so far to the sender."""
        now = clock.monotonic_ns()
        self._shipped_at_ns = now
        stages = self._stages
        if stages.pipeline.gauges()["spans_waiting"] == 0:
            return
        if now - self._offset_at_ns > SECOND_NS:
            self._offset_ns, self._offset_at_ns = clock.monotonic_to_unix_offset_ns(), now
        rows = stages.pipeline.take(self._offset_ns)
        own = stages.filter.own.intersection(rows.pids.tolist())
        if own:
            made = len(rows.spans)
            rows = without_processes(rows, own)
            stages.counters.add("spans_filtered", made - len(rows.spans))
        if len(rows.spans):
            stages.sender.submit(stages.batches.make(rows, now))

    def _drain(self, *, final: bool) -> int:
        """Move what is old enough to be in order over all rings, with `final` everything; returns the number of records."""
        stages = self._stages
        taken = 0
        now = clock.monotonic_ns()
        until = now if final else now - FINAL_AFTER_NS
        for _ in range(MAX_PASSES):
            batch = stages.rings.drain(now, final=final)
            n, n_bytes = len(batch), len(batch.payload)
            taken += n
            if batch.n_logs:
                self._show_logs(batch)
            if n:
                self._follow_processes(batch, now)
                self._feed(batch, now, until)
            batch.release()
            if n < MAX_RECORDS and n_bytes < FULL_BYTES:
                break
        return taken

    def _feed(self, batch: Batch, now_ns: int, until_ns: int) -> None:
        """A batch through the pipeline, in parts that make no more spans than are shipped at once."""
        stages = self._stages
        taken = 0
        while True:
            taken = stages.pipeline.feed(batch, until_ns, taken, self._batch_spans)
            if stages.pipeline.gauges()["spans_waiting"] >= self._batch_spans:
                self.ship()
            if taken >= len(batch.order):
                break
        if stages.limits:
            stages.limits.take(stages.pipeline.take_limits(), now_ns)

    def _show_logs(self, batch: Batch) -> None:
        """Take the log records out; they are shown, if somebody wants to see them."""
        show = self._stages.kernel_log
        n = show.show(batch) if show else len(batch.take_logs()[0])
        self._stages.counters.add("records_filtered", n)

    def _follow_processes(self, batch: Batch, now_ns: int) -> None:
        """Keep the process table right and take the records of DeepTrace's own processes out of the batch."""
        stages = self._stages
        records = batch.records
        is_proc = records["kind"] == KIND_PROC
        ended = self._process_events(batch, np.flatnonzero(is_proc)) if is_proc.any() else ()
        seen = distinct(records["tgid"][~is_proc])  # processes that talk: most that start and end never do
        for pid in self._executed.intersection(seen):
            self._forget(pid)
        new = [pid for pid in seen if pid and pid not in stages.processes and pid not in stages.filter.own]
        said = openers(batch, new) if new else {}
        for pid in new:
            self._meet(pid, now_ns, said.get(pid))
        own = stages.filter.own.intersection(seen)
        if own:
            stages.counters.add("records_filtered", batch.exclude_tgids(own))
        for pid in ended:
            stages.filter.ended(pid)
            self._executed.discard(pid)
            if pid in stages.processes:
                stages.processes.exited(pid, self._known.get(pid, Known()).comm, now_ns)
            self._known.pop(pid, None)  # what has this pid next is another one

    def _meet(self, pid: int, now_ns: int, said: Known | None) -> None:
        """A process that has not been seen before. said: what its connections say of it."""
        known = said or self._known.get(pid) or Known()
        processes = self._stages.processes
        start_ns = processes.files.start_of(known.started_ns) if known.started_ns else None
        process = processes.get(pid, now_ns, comm=known.comm, start_ns=start_ns, cgroup_id=known.cgroup_id or None)
        if process.comm == OWN_COMM:
            self._stages.filter.deny(pid)

    def _forget(self, pid: int) -> None:
        self._executed.discard(pid)
        self._stages.batches.forget(pid)
        self._stages.processes.forget(pid)

    def _process_events(self, batch: Batch, rows: Any) -> list[int]:
        """Forks, execs and exits of this batch; returns the processes that ended."""
        stages = self._stages
        ended = []
        for code, pid, known in process_records(batch, rows):
            remember(self._known, pid, known)  # its end may come in a later batch, when it cannot be read any more
            if code == EXIT:
                ended.append(pid)
                continue
            stages.filter.forget(pid)
            if pid in stages.processes:
                self.ship()  # under the name that they were made under
                if code == FORK:
                    self._forget(pid)
                else:
                    self._executed.add(pid)
        return ended


def distinct(values: Any) -> list[int]:
    """The different values of an array; numpy's own way has a fixed cost that small batches need not pay."""
    found: list[int] = np.unique(values).tolist() if len(values) > SMALL_BATCH else list(set(values.tolist()))
    return found


def remember(table: dict[int, T], pid: int, value: T) -> None:
    """Keep the newest MAX_SHORT_LIVED values."""
    table.pop(pid, None)
    if len(table) >= MAX_SHORT_LIVED:
        table.pop(next(iter(table)))
    table[pid] = value
