"""Writes what the rings deliver to a record file instead of parsing it: the agent's source with a tape in the pipeline's place.

Privileges go before the first record, as in the agent. A recording is parsed later, by `replay`, on any machine.
"""

import signal
from typing import Any, cast

import numpy as np

from deeptrace import __version__, clock
from deeptrace.agent.batch import BatchMaker
from deeptrace.agent.capturing import Capturing, give_up_privileges
from deeptrace.agent.identity import identity
from deeptrace.agent.kernel_log import KernelLog
from deeptrace.agent.pidfilter import PidFilter
from deeptrace.agent.procs import ProcessTable, ProcFiles
from deeptrace.agent.redact import Redactor
from deeptrace.agent.source import Source, Stages
from deeptrace.config import Settings
from deeptrace.core.batch import Batch
from deeptrace.core.pipeline import Pipeline
from deeptrace.core.ring import Rings
from deeptrace.counters import PythonCounters, by_name, events_lost
from deeptrace.model import ProcessInfo
from deeptrace.wire.capture import CaptureInfo, CaptureWriter, RecordFrame, gather


class Tape:
    """Takes batches as the pipeline does and writes them, each in its order of time. spans: none, ever."""

    def __init__(self, writer: CaptureWriter, processes: ProcessTable, *, redact: bool) -> None:
        self._writer = writer
        self._processes = processes
        self._redactor = Redactor() if redact else None
        self._written: dict[int, ProcessInfo] = {}

    def feed(self, batch: Batch, now_ns: int, _first: int = 0, _max_spans: int = 0) -> int:
        """Append one batch, and what is known of processes that are new in it. Raises CaptureError when the disk refuses."""
        order = batch.order
        if len(order) == 0:
            return 0
        records = batch.records[order]
        sizes = records["payload_len"].astype(np.int64)
        payload = gather(batch.payload, batch.payload_at[order], sizes)
        frame = RecordFrame(now_ns, records, payload, (np.cumsum(sizes) - sizes).astype(np.uint32))
        if self._redactor is not None:
            frame = self._redactor.redact(frame)
        known = [self._processes.get(pid, now_ns) for pid in np.unique(records["tgid"]).tolist() if pid in self._processes]
        new = [info for info in known if self._written.get(info.pid) != info]
        self._written.update((info.pid, info) for info in new)
        self._writer.write_processes(new)
        self._writer.write(frame)
        return len(order)

    def flush(self, now_ns: int) -> None:
        """Nothing is held here."""

    def finish(self, now_ns: int) -> None:
        """Nothing is open here."""

    def gauges(self) -> dict[str, int]:
        return {"spans_waiting": 0}


class Recorder(Capturing):
    """start(), run() until stop() or the time is over, finish(), close(). Main thread only."""

    def __init__(self, path: str, settings: Settings, *, redact: bool = False) -> None:
        super().__init__(settings.capture)
        self.settings = settings
        self._redact = redact
        self._python_counters = PythonCounters()
        self._writer = CaptureWriter(path)  # while the privilege to write where the user wants is there
        self._source: Source | None = None

    def start(self) -> None:
        """Everything up to the first record. Raises ProbeError, UsageError, CaptureError; then nothing stays attached."""
        files = ProcFiles()
        _probes, rings, pid_filter = self.attach(files)
        give_up_privileges()
        self._source = self._make_source(rings, files, pid_filter)
        self._begin()
        self.arm()

    def run(self, seconds: float = 0) -> None:
        """Write records until stop(), or for so many seconds. Raises CaptureError when the disk is full."""
        assert self._source is not None
        end_ns = clock.monotonic_ns() + int(seconds * 1e9) if seconds else None
        while not self._stopping and (end_ns is None or clock.monotonic_ns() < end_ns):
            self._source.poll()

    def stop(self, *_: Any) -> None:
        """Ask run() to end. Safe in a signal handler."""
        self._stopping = True
        self.wake()

    def finish(self) -> dict[str, int]:
        """Stop capturing, write what is left. Returns records, bytes and what was lost, by name."""
        assert self._probes is not None
        assert self._source is not None
        self._probes.disarm()
        self._source.finish()
        values = self._values()
        self._writer.close({name: n for name, n in values.items() if n})
        return {"records": self._writer.n_records, "bytes": self._writer.written_bytes, "lost": events_lost(values)}

    def close(self) -> None:
        """Detach the probes and close the file. Idempotent."""
        self.release()
        self._writer.abandon()

    def _begin(self) -> None:
        who = identity(self.settings.agent.host, self.settings.capture.pid)
        info = CaptureInfo(
            host=who.host,
            boot_id=who.boot_id,
            clock_offset_ns=clock.monotonic_to_unix_offset_ns(),
            capture_start_ns=clock.monotonic_ns(),
            created_ns=clock.unix_ns(),
            redacted=self._redact,
            written_by=f"deeptrace {__version__}",
        )
        self._writer.begin(info)

    def _make_source(self, rings: Rings, files: ProcFiles, pid_filter: PidFilter) -> Source:
        processes = ProcessTable(files, self.settings.agent.service)
        stages = Stages(
            rings=rings,
            pipeline=cast(Pipeline, Tape(self._writer, processes, redact=self._redact)),
            sender=cast(Any, None),  # a tape has no spans, so nothing is ever sent
            processes=processes,
            filter=pid_filter,
            batches=BatchMaker(processes, host="", boot_id=""),
            counters=self._python_counters,
            kernel_log=KernelLog() if self._probes and self._probes.report.debug else None,
        )
        source = Source(
            stages,
            drain_ms=self.settings.agent.drain_ms,
            batch_ms=self.settings.ship.batch_ms,
            batch_spans=self.settings.ship.batch_spans,
            every_second=self._every_second,
        )
        source.wake_on(self._wake_read)
        return source

    def _every_second(self) -> None:
        assert self._filters is not None
        self.live()
        self._filters.refresh(clock.monotonic_ns())

    def _values(self) -> dict[str, int]:
        """All counters of the recording by name."""
        assert self._probes is not None
        core = by_name(self._core_counters.values)
        kernel = {name: n for name, n in by_name(self._probes.counters()).items() if n}
        return {**core, **kernel, **self._python_counters.snapshot()}


def stop_on_signals(recorder: Recorder) -> None:
    """SIGTERM, SIGINT and SIGHUP end the recording in order."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, recorder.stop)
