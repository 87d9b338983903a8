"""The loop between rings and sender over made-up records: names follow processes, DeepTrace's own records go nowhere."""

import numpy as np
import pytest
from test_procs import BOOT_S, FakeProc

from deeptrace.agent.batch import BatchMaker
from deeptrace.agent.pidfilter import PidFilter
from deeptrace.agent.proc_events import PROCESS, Known, process_records, read_process
from deeptrace.agent.procs import ProcessTable, ProcFiles
from deeptrace.agent.source import EXEC, EXIT, FORK, KIND_PROC, Source, Stages
from deeptrace.core.batch import Batch
from deeptrace.core.pipeline import SpanRows
from deeptrace.core.wire import ATTRIBUTE_DTYPE, RECORD_DTYPE, SPAN_DTYPE
from deeptrace.counters import PythonCounters

DATA, KIND_CONN, CONNECT = 1, 2, 1
STARTED_NS = 5_000_000_000  # CLOCK_BOOTTIME


def batch_of(*rows):
    """rows: (kind, code, tgid, comm or "", or Known)."""
    records = np.zeros(len(rows), RECORD_DTYPE)
    payload = b""
    starts = []
    for i, (kind, code, tgid, comm) in enumerate(rows):
        text = (
            PROCESS.pack(comm.comm.encode(), *comm[1:])
            if isinstance(comm, Known)
            else comm.encode().ljust(16, b"\0")
            if comm
            else b""
        )
        starts.append(len(payload))
        payload += text
        for name, value in (("kind", kind), ("code", code), ("tgid", tgid), ("exit_ns", i + 1), ("payload_len", len(text))):
            records[i][name] = value
    return Batch.from_arrays(records, np.frombuffer(payload, np.uint8), np.asarray(starts, np.uint32))


class FakeRings:
    fds = ()

    def __init__(self, *batches):
        self.batches = list(batches)

    def drain(self, _now_ns, *, final=False):
        assert final in (True, False)
        return self.batches.pop(0) if self.batches else batch_of()


class FakePipeline:
    """Makes one span per data record that reaches it."""

    def __init__(self):
        self.pids = []

    def feed(self, batch, _now_ns, first=0, max_spans=0):
        """Ends at max_spans, as the real one does."""
        for taken, row in enumerate(batch.order[first:], first + 1):
            if batch.records[row]["kind"] == DATA:
                self.pids.append(int(batch.records[row]["tgid"]))
            if max_spans and len(self.pids) >= max_spans:
                return taken
        return len(batch.order)

    def flush(self, _now_ns):
        pass

    def finish(self, _now_ns):
        pass

    def gauges(self):
        return {"spans_waiting": len(self.pids)}

    def take(self, _clock_offset_ns):
        pids, rows = np.unique(self.pids, return_inverse=True)
        spans = np.zeros(len(self.pids), SPAN_DTYPE)
        spans["pid"], spans["process"] = self.pids, rows
        self.pids = []
        at = np.zeros(2, np.uint32)
        return SpanRows(spans, np.zeros(0, ATTRIBUTE_DTYPE), at, np.zeros(0, np.uint8), pids.astype(np.uint32))


class FakeSender:
    def __init__(self):
        self.batches = []

    def submit(self, batch):
        self.batches.append(batch)

    def services(self):
        return [[batch.processes[row].service for row in batch.spans["process"]] for batch in self.batches]


class FakePids(dict):
    def set(self, pid, flags):
        self[pid] = flags

    def delete(self, pid):
        return self.pop(pid, None) is not None


@pytest.fixture
def proc(tmp_path):
    return FakeProc(tmp_path)


def source_of(proc, *batches, batch_spans=10**6):
    files = ProcFiles(str(proc.root))
    processes = ProcessTable(files)
    stages = Stages(
        rings=FakeRings(*batches),
        pipeline=FakePipeline(),
        sender=FakeSender(),
        processes=processes,
        filter=PidFilter(FakePids(), files),
        batches=BatchMaker(processes, host="h", boot_id="b"),
        counters=PythonCounters(),
    )
    return stages, Source(stages, drain_ms=1, batch_ms=1e6, batch_spans=batch_spans, every_second=lambda: None)


def test_spans_carry_the_name_of_their_process(proc):
    proc.add(10, "nginx", ["nginx"])
    stages, source = source_of(proc, batch_of((DATA, 1, 10, ""), (DATA, 1, 10, "")))
    source.finish()
    assert stages.sender.services() == [["nginx", "nginx"]]


def test_records_of_deeptraces_own_processes_are_taken_out(proc):
    proc.add(10, "nginx", ["nginx"])
    proc.add(20, "deeptrace", ["python3", "deeptrace"])
    stages, source = source_of(proc, batch_of((DATA, 1, 20, ""), (DATA, 1, 10, ""), (DATA, 1, 20, "")))
    source.finish()
    assert stages.sender.services() == [["nginx"]]
    assert stages.filter._pids == {}  # the probes know them by their name
    assert stages.counters.snapshot() == {"records_filtered": 2}


def test_spans_of_a_process_that_turns_out_to_be_an_own_one_are_taken_out_and_counted(proc):
    proc.add(10, "nginx", ["nginx"])
    stages, source = source_of(proc)
    stages.pipeline.pids = [10, 20, 20]
    stages.filter.deny(20)
    source.ship()
    assert stages.sender.services() == [["nginx"]]
    assert stages.counters.snapshot() == {"spans_filtered": 2}


def test_an_own_process_that_has_ended_already_is_known_by_its_exit_record(proc):
    stages, source = source_of(proc, batch_of((DATA, 1, 20, ""), (KIND_PROC, EXIT, 20, "deeptrace")))
    source.finish()
    assert stages.sender.services() == []
    assert stages.counters.snapshot() == {"records_filtered": 2}


def test_a_denial_that_came_after_the_end_does_not_stay(proc):
    stages, source = source_of(proc, batch_of((DATA, 1, 20, ""), (KIND_PROC, EXIT, 20, "deeptrace")))
    source.finish()
    assert stages.filter._pids == {}


def test_a_short_lived_process_is_known_by_its_fork_and_exit(proc):
    forked, ended = Known("bash", STARTED_NS, 77), Known("curl", STARTED_NS, 77)
    stages, source = source_of(proc, batch_of((KIND_PROC, FORK, 30, forked), (DATA, 1, 30, ""), (KIND_PROC, EXIT, 30, ended)))
    source.finish()
    assert stages.sender.services() == [["curl"]]
    process = stages.sender.batches[0].processes[0]
    assert (process.start_ns, process.cgroup_id) == (BOOT_S * 10**9 + STARTED_NS, 77)


def test_a_process_that_was_there_before_and_is_gone_is_known_by_its_connection(proc):
    said = Known("worker", STARTED_NS, 77)
    stages, source = source_of(proc, batch_of((KIND_CONN, CONNECT, 30, said), (DATA, 1, 30, "")))
    source.finish()
    assert stages.sender.services() == [["worker"]]
    assert stages.sender.batches[0].processes[0].start_ns == BOOT_S * 10**9 + STARTED_NS


def test_a_pid_that_is_another_process_by_now_does_not_give_its_name(proc):
    proc.add(30, "nginx", ["nginx"], start_ticks=900)
    stages, source = source_of(proc, batch_of((KIND_CONN, CONNECT, 30, Known("curl", STARTED_NS, 0)), (DATA, 1, 30, "")))
    source.finish()
    assert stages.sender.services() == [["curl"]]


def test_a_process_of_which_a_record_tells_its_start_is_the_one_of_proc(proc):
    proc.add(30, "nginx", ["nginx"], start_ticks=500)
    stages, source = source_of(
        proc, batch_of((KIND_CONN, CONNECT, 30, Known("nginx", STARTED_NS + 9_999_999, 9)), (DATA, 1, 30, ""))
    )
    source.finish()
    process = stages.sender.batches[0].processes[0]
    assert (process.start_ns, process.service, process.cgroup_id) == (BOOT_S * 10**9 + STARTED_NS, "nginx", 9)


def test_a_batch_that_makes_many_spans_is_shipped_in_parts(proc):
    proc.add(10, "nginx", ["nginx"])
    stages, source = source_of(proc, batch_of(*[(DATA, 1, 10, "")] * 25), batch_spans=10)
    source.finish()
    assert stages.sender.services() == [["nginx"] * n for n in (10, 10, 5)]


def test_what_was_known_of_a_pid_does_not_outlive_its_process(proc):
    stages, source = source_of(proc, batch_of((KIND_PROC, EXIT, 30, Known("old", STARTED_NS, 0))), batch_of((DATA, 1, 30, "")))
    source.poll()
    proc.add(30, "nginx", ["nginx"], start_ticks=900)
    source.finish()
    assert stages.sender.services() == [["nginx"]]


def test_a_process_whose_end_comes_a_batch_later_is_known_by_its_fork(proc):
    stages, source = source_of(proc, batch_of((KIND_PROC, FORK, 30, "bash"), (DATA, 1, 30, "")))
    source.poll()
    source.finish()
    assert stages.sender.services() == [["bash"]]


def test_spans_before_an_exec_keep_the_old_name(proc):
    proc.add(10, "sh", ["sh"])
    stages, source = source_of(proc, batch_of((DATA, 1, 10, "")), batch_of((KIND_PROC, EXEC, 10, "nginx"), (DATA, 1, 10, "")))
    source.poll()
    proc.add(10, "nginx", ["nginx"])
    source.finish()
    assert stages.sender.services() == [["sh"], ["nginx"]]


def test_a_request_that_an_exec_left_open_keeps_the_old_name(proc):
    proc.add(10, "sh", ["sh"])
    stages, source = source_of(
        proc, batch_of((DATA, 1, 10, "")), batch_of((KIND_PROC, EXEC, 10, "true"), (KIND_PROC, EXIT, 10, "true"))
    )
    source.poll()
    source.ship()
    proc.remove(10)
    source.poll()
    stages.pipeline.pids = [10]  # its end makes the request a span
    source.finish()
    assert stages.sender.services() == [["sh"], ["sh"]]


def test_a_pid_with_a_new_owner_is_not_denied_any_more(proc):
    proc.add(20, "deeptrace", ["deeptrace"])
    stages, source = source_of(
        proc, batch_of((DATA, 1, 20, "")), batch_of((KIND_PROC, FORK, 20, "bash"), (DATA, 1, 20, ""), (KIND_PROC, EXIT, 20, "curl"))
    )
    source.poll()
    proc.remove(20)
    source.finish()
    assert stages.sender.services() == [["curl"]]
    assert stages.filter._pids == {}


def test_processes_that_never_talk_are_not_looked_up(proc):
    proc.add(40, "make", ["make"])
    stages, source = source_of(proc, batch_of((KIND_PROC, EXEC, 40, "make")))
    source.finish()
    assert 40 not in stages.processes


def test_process_records_come_in_the_order_of_time_with_printable_names():
    batch = batch_of((KIND_PROC, EXIT, 2, "b\x1b"), (DATA, 1, 9, ""), (KIND_PROC, FORK, 1, "a"))
    assert process_records(batch, np.flatnonzero(batch.records["kind"] == KIND_PROC)) == [
        (EXIT, 2, Known("b\ufffd")),
        (FORK, 1, Known("a")),
    ]


@pytest.mark.parametrize("size", [0, 5, 16, 20, 31, 32, 40])
def test_the_payload_of_a_process_record_of_any_version_is_read(size):
    payload = (PROCESS.pack(b"nginx", 123, 456) + b"more than there is").ljust(64, b"\0")[:size]
    known = read_process(payload)
    assert known == (Known("nginx", 123, 456) if size >= 32 else Known("nginx"[:size]))
