"""Calls that wait for bytes when tracing begins are followed to their end, and never taken for others."""

import pathlib

import pytest
from ring_reader import wait_until

from deeptrace.agent.blocked import ThreadEntries, follow_blocked, waiting_call
from deeptrace.agent.procs import ProcFiles
from deeptrace.core.waiting import RECEIVING
from deeptrace.core.wire import RECORD_FLAGS, SYSCALL_ROWS
from deeptrace.loader import maps

pytestmark = pytest.mark.kernel

CALLS = ("read", "readv", "recvfrom", "recvmsg")
NUMBERS = {name: number for number, name, _direction in SYSCALL_ROWS}
MISSED, AMBIGUOUS = RECORD_FLAGS["enter_missed"], RECORD_FLAGS["seq_ambiguous"]
OUTCOMES = ("data_emitted", "not_socket", "other_socket", "no_data", "interrupted", "map_insert_failed", "map_get_failed")
READS = [number for number, name in RECEIVING.items() if name == "read"]
FILES = ProcFiles()


@pytest.fixture
def waiting(kernel, untraced):
    """A process with a connection, before anything is traced."""
    kernel.probes.disarm()
    untraced.do("connect", name="x", family="AF_INET", host="127.0.0.1")
    return untraced


def block(process, **arguments):
    """Let a thread wait; returns when it does."""
    tid = process.do("block", **arguments)
    wait_until(lambda: waiting_call(FILES, f"{process.pid}/task/{tid}") is not None)
    return tid


def begin(kernel, process, trace=True):
    """What the agent does at its start."""
    if trace:
        kernel.probes.pids.set(process.pid, maps.TRACE)
    n = follow_blocked(kernel.probes, FILES, [process.pid])
    kernel.probes.arm()
    return n


def finish(kernel, process, data=b"late"):
    """Let the waiting call return; returns the records, and what the counters grew by."""
    before = kernel.quiet_counters()
    process.do("send", name="x.c", data=data.hex())
    process.do("join")
    kernel.probes.disarm()
    after = kernel.counters()
    return kernel.take(), {name: after[name] - before[name] for name in after}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_waited_before_tracing_began_is_told_with_its_bytes_and_its_connection(kernel, waiting, call):
    tid = block(waiting, name="x.s", call=call)
    assert begin(kernel, waiting) == 1
    assert kernel.probes.in_flight() == 0  # not counted yet, so not in flight
    records, grown = finish(kernel, waiting)
    sent, received = sorted(records, key=lambda r: r.direction == 0)
    assert (received.code, received.payload, received.result, received.tid) == (NUMBERS[call], b"late", 4, tid)
    assert received.flags & MISSED
    assert (received.local, received.peer) == (sent.peer, sent.local)
    assert received.position == sent.position
    assert grown["blocked_followed"] == 1
    assert grown["calls"] == sum(grown[name] for name in OUTCOMES)


def test_the_next_call_of_that_thread_is_an_ordinary_one(kernel, waiting):
    block(waiting, name="x.s")
    begin(kernel, waiting)
    finish(kernel, waiting)
    kernel.probes.arm()
    waiting.do("block", name="x.s")
    waiting.do("send", name="x.c", data=b"next".hex())
    waiting.do("join")
    received = next(r for r in kernel.take() if r.direction == 0)
    assert (received.payload, received.flags & MISSED) == (b"next", 0)


def test_a_call_whose_process_is_not_traced_is_not_told(kernel, waiting):
    block(waiting, name="x.s")
    assert begin(kernel, waiting, trace=False) == 1
    records, grown = finish(kernel, waiting)
    assert records == []
    assert grown["calls"] == grown["blocked_followed"] == 0


def test_a_descriptor_that_has_become_another_connections_is_not_taken_for_it(kernel, waiting):
    waiting.do("connect", name="y", family="AF_INET", host="127.0.0.1")
    block(waiting, name="x.s")
    begin(kernel, waiting)
    waiting.do("replace", name="x.s", by="y.s")
    records, grown = finish(kernel, waiting)
    assert [r.direction for r in records] == [1]
    assert grown["blocked_followed"] == 1
    assert grown["calls"] == sum(grown[name] for name in OUTCOMES)


def test_a_call_that_returned_before_anything_was_armed_leaves_nothing_behind(kernel, waiting):
    block(waiting, name="x.s")
    kernel.probes.pids.set(waiting.pid, maps.TRACE)
    assert follow_blocked(kernel.probes, FILES, [waiting.pid]) == 1
    before = kernel.counters()
    waiting.do("send", name="x.c", data=b"early".hex())
    waiting.do("join")
    block(waiting, name="x.s", call="read")
    assert kernel.counters()["calls"] == before["calls"]
    kernel.probes.arm()
    records, grown = finish(kernel, waiting)
    assert [r.direction for r in records] == [1]
    assert grown["blocked_followed"] == 0


def test_a_thread_that_ended_leaves_nothing_behind(kernel, waiting):
    tid = block(waiting, name="x.s")
    begin(kernel, waiting)
    before = kernel.counters()["interrupted"]
    rows = maps.map_threads(kernel.probes.map_fds["THREADS"])
    assert tid in rows.rows["tid"]
    waiting.popen.kill()
    waiting.popen.wait()
    wait_until(lambda: tid not in rows.rows["tid"])
    rows.close()
    waiting.popen.stdin.close()
    assert kernel.counters()["interrupted"] == before


def test_what_waits_for_no_bytes_of_a_socket_is_left_alone(kernel, untraced):
    kernel.probes.disarm()
    tid = untraced.pid  # waits for its orders in a read of a pipe
    wait_until(
        lambda: int(pathlib.Path(f"/proc/{tid}/task/{tid}/syscall").read_text().split()[0].replace("running", "-1")) in READS
    )
    assert waiting_call(FILES, f"{tid}/task/{tid}") is None
    assert follow_blocked(kernel.probes, FILES, [untraced.pid, 1 << 22]) == 0


def test_a_call_that_is_another_one_by_now_is_taken_out_again(kernel, waiting, monkeypatch):
    tid = block(waiting, name="x.s")
    put = ThreadEntries.put

    def put_and_let_it_return(entries, *arguments):
        waiting.do("send", name="x.c", data=b"now".hex())
        waiting.do("join")
        return put(entries, *arguments)

    monkeypatch.setattr(ThreadEntries, "put", put_and_let_it_return)
    assert follow_blocked(kernel.probes, FILES, [waiting.pid]) == 0
    rows = maps.map_threads(kernel.probes.map_fds["THREADS"])
    assert tid not in rows.rows["tid"]
    rows.close()
