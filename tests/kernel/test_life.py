"""Processes are followed and left alone as told; connections say when they begin and end; the books balance."""

import errno
import json
import os
import pathlib
import subprocess

import numpy as np
import pytest
from ring_reader import CONN, DATA, PROC, wait_until
from traced_process import Process

from deeptrace.core.wire import PROCESS_DTYPE, SIZEOFS
from deeptrace.loader import maps
from deeptrace.loader.client import ProbeConfig, load_probes

pytestmark = pytest.mark.kernel

CONNECT, ACCEPT, PEER_CLOSED, CLOSED = 1, 2, 3, 4
FORK, EXEC, EXIT = 1, 2, 3
OUTCOMES = (
    "data_emitted", "not_socket", "other_socket", "no_data", "interrupted", "map_insert_failed", "map_get_failed",
    "invalid_direction", "syscall_payload_length_invalid", "message_cut", "shed", "muted", "port_filtered",
)  # fmt: skip


def process_of(record):
    """Whose the record is: struct dt_process."""
    return np.frombuffer(record.payload, PROCESS_DTYPE)[0]


def exchange(process, name="x", data=b"hello"):
    process.do("connect", name=name, family="AF_INET", host="127.0.0.1")
    return process.do("transfer", out=name + ".c", into=name + ".s", egress="write", ingress="read", data=data.hex())


def test_a_process_that_is_not_named_is_not_traced(kernel, untraced):
    exchange(untraced)
    assert [r for r in kernel.rings.drain() if r.kind == DATA or r.tgid == untraced.pid] == []


def test_children_are_followed(kernel, traced):
    traced.do("connect", name="x", family="AF_INET", host="127.0.0.1")
    kernel.rings.drain()
    child, _result = traced.do("fork_and", request={"do": "send", "name": "x.c", "data": b"child".hex()})
    records = kernel.rings.drain()
    assert [r.payload for r in records if r.kind == 1] == [b"child"]
    assert {r.tgid for r in records if r.kind == 1} == {child}
    proc = [(r.code, r.tgid, r.parent_tgid, r.result) for r in records if r.kind == PROC]
    assert proc == [(FORK, child, traced.pid, 0), (EXIT, child, 0, 7 << 8)]
    assert dict(kernel.probes.pids.items()) == {traced.pid: maps.TRACE | maps.FOLLOW}


def test_an_exec_tells_the_new_name(kernel, traced):
    kernel.rings.drain()
    child, code = traced.do("spawn", argv=["/bin/true"])
    assert code == 0
    proc = [(r.code, r.tgid, process_of(r)["comm"].tobytes().rstrip(b"\0")) for r in kernel.take(PROC)]
    assert [(code, pid) for code, pid, _comm in proc] == [(FORK, child), (EXEC, child), (EXIT, child)]
    assert [comm for _code, _pid, comm in proc] == [b"python3", b"true", b"true"]


def proc_start(pid):
    """Ticks after boot at which a process began, as /proc says."""
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    return int(stat[stat.rindex(")") + 2 :].split()[19])


def cgroup_id(pid):
    """Of the unified hierarchy; what the probes must say where it is not mounted is the id of its root, 1."""
    mounts = [line.split() for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()]
    root = next((fields[1] for fields in mounts if fields[2] == "cgroup2"), None)
    path = next(line[3:] for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line.startswith("0::"))
    return None if root is None else os.stat(root + path).st_ino


def test_records_of_processes_and_of_connections_say_which_process_it_is(kernel, traced):
    kernel.rings.drain()
    traced.do("connect", name="x", family="AF_INET", host="127.0.0.1")
    traced.do("fork_and", request={"do": "mark"})
    records = kernel.rings.drain()
    begun = [r for r in records if r.kind == CONN and r.code in (CONNECT, ACCEPT)]
    assert len(begun) == 2
    of_parent = [process_of(r) for r in begun]
    of_child = [process_of(r) for r in records if r.kind == PROC]
    ticks = os.sysconf("SC_CLK_TCK")
    assert {int(p["start_ns"]) * ticks // 10**9 for p in of_parent} == {proc_start(traced.pid)}
    assert len({int(p["start_ns"]) for p in of_child}) == 1
    assert int(of_child[0]["start_ns"]) > int(of_parent[0]["start_ns"])
    assert {p["comm"].tobytes().rstrip(b"\0") for p in (*of_parent, *of_child)} == {b"python3"}
    if (cgroup := cgroup_id(traced.pid)) is not None:
        assert {int(p["cgroup"]) for p in (*of_parent, *of_child)} == {cgroup}


def test_threads_are_no_processes(kernel, traced):
    traced.do("connect", name="x", family="AF_INET", host="127.0.0.1")
    kernel.rings.drain()
    traced.do("block", name="x.s")
    traced.do("send", name="x.c", data=b"x".hex())
    traced.do("join")
    assert kernel.take(PROC) == []


def test_all_processes_are_traced_but_those_denied(kernel, traced, untraced):
    denied = Process()
    kernel.probes.pids.set(denied.pid, maps.DENY | maps.FOLLOW)
    kernel.probes.pids.set(os.getpid(), maps.DENY)
    kernel.probes.arm(ProbeConfig(all_processes=True, batch_bytes=0))
    exchange(denied)
    denied.do("fork_and", request={"do": "send", "name": "x.c", "data": b"child".hex()})
    exchange(untraced)
    exchange(traced)
    kernel.probes.disarm()
    denied.stop()
    seen = {r.tgid for r in kernel.take()}
    assert {traced.pid, untraced.pid} <= seen
    assert not {denied.pid, os.getpid()} & seen


def test_nothing_is_taken_while_disarmed(kernel, traced):
    kernel.probes.disarm()
    exchange(traced)
    assert kernel.rings.drain() == []
    kernel.probes.arm()
    exchange(traced, "y")
    assert kernel.rings.drain() != []


@pytest.mark.parametrize(("family", "host"), [("AF_INET", "127.0.0.1"), ("AF_INET6", "::1")])
def test_a_connection_tells_its_beginning_and_its_end(kernel, traced, family, host):
    client, server = traced.do("connect", name="x", family=family, host=host)
    begins = {r.code: r for r in kernel.take(CONN) if r.tgid == traced.pid}
    assert set(begins) == {CONNECT, ACCEPT}
    sockets = {r.socket for r in begins.values()}
    assert (begins[CONNECT].local[1], begins[CONNECT].peer[1]) == (client[1], server[1])
    assert (begins[ACCEPT].local[1], begins[ACCEPT].peer[1]) == (server[1], client[1])
    assert begins[CONNECT].enter_ns < begins[CONNECT].exit_ns
    traced.do("close", name="x.c")
    peer_closed, *ends = kernel.wait_for(CONN, 1, sockets)  # the FIN's acknowledgement, which ends the client, may be late
    assert (peer_closed.code, peer_closed.socket) == (PEER_CLOSED, begins[ACCEPT].socket)
    traced.do("close", name="x.s")
    ends = {r.socket: r for r in [*ends, *kernel.wait_for(CONN, 2 - len(ends), sockets)]}
    assert {(r.code, r.result) for r in ends.values()} == {(CLOSED, 0)}
    assert set(ends) == sockets
    assert {(r.local[1], r.peer[1]) for r in ends.values()} == {(client[1], server[1]), (server[1], client[1])}
    assert len({r.netns for r in (*ends.values(), *begins.values())}) == 1


def test_a_reset_is_told_as_one(kernel, traced):
    traced.do("connect", name="x", family="AF_INET", host="127.0.0.1")
    accepted = next(r for r in kernel.take(CONN) if r.code == ACCEPT and r.tgid == traced.pid)
    traced.do("close", name="x.c", reset=True)
    ends = {r.socket: r for r in kernel.wait_for(CONN, 1, {accepted.socket})}
    assert ends[accepted.socket].result == -errno.ECONNRESET
    assert ends[accepted.socket].local == accepted.local


def test_a_refused_connection_ends_without_having_begun(kernel, traced):
    code, port = traced.do("refused")
    assert code == errno.ECONNREFUSED
    told = [(r.code, r.result) for r in kernel.wait_for(CONN, 1) if r.peer[1] == port]
    assert told == [(CLOSED, -errno.ECONNREFUSED)]


def test_a_connect_that_does_not_wait_is_told_once(kernel, traced):
    first, again = traced.do("connect_without_waiting", name="x")
    assert (first, again) == (errno.EINPROGRESS, 0)
    told = [(r.code, r.result) for r in kernel.take(CONN) if r.tgid == traced.pid]
    assert told == [(CONNECT, -errno.EINPROGRESS), (ACCEPT, 0)]


def test_two_namespaces_have_loopbacks_of_their_own(kernel):
    processes = [Process("unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh") for _ in range(2)]
    for process in processes:
        kernel.probes.pids.set(process.pid, maps.TRACE)
        exchange(process)
    namespaces = [pathlib.Path(f"/proc/{p.pid}/ns/net").stat().st_ino for p in processes]
    records = kernel.take()
    for process, namespace in zip(processes, namespaces, strict=True):
        assert {r.netns for r in records if r.tgid == process.pid} == {namespace}
        process.stop()
    assert len(set(namespaces)) == 2


def test_every_call_is_accounted_for(kernel, traced, tmp_path):
    before, flying = kernel.quiet_counters(), kernel.probes.in_flight()
    exchange(traced)
    traced.do("udp", name="u", host="127.0.0.1")
    traced.do("sendmmsg", name="u.c", parts=[b"x".hex()] * 18)
    traced.do("no_sockets", path=str(tmp_path / "file"))
    traced.do("many", out="x.c", into="x.s", n=101)
    traced.do("block", name="x.s")
    wait_until(lambda: kernel.probes.in_flight() > flying)
    kernel.probes.disarm()
    after, records, flying_now = kernel.counters(), kernel.rings.drain(), kernel.probes.in_flight()
    delta = {name: after[name] - before[name] for name in after}
    assert delta["calls"] + delta["extra_messages"] == sum(delta[name] for name in OUTCOMES) + flying_now - flying
    assert len(records) == delta["data_emitted"] + delta["conn_emitted"] + delta["proc_emitted"] - delta["ring_full"]
    assert delta["ring_full"] == delta["enter_missed"] == 0
    kernel.probes.arm()
    traced.do("send", name="x.c", data=b"x".hex())
    traced.do("join")


def test_a_full_ring_is_counted_and_leaves_a_jump_in_the_count(kernel, traced):
    traced.do("connect", name="x", family="AF_INET", host="127.0.0.1")
    kernel.rings.drain()
    before = kernel.counters()
    for _ in range(4):
        traced.do("many", out="x.c", into="x.s", n=5000)
    after = kernel.counters()
    lost = after["ring_full"] - before["ring_full"]
    records = kernel.rings.drain()
    assert lost > 0
    emitted = sum(after[name] - before[name] for name in ("data_emitted", "conn_emitted", "proc_emitted"))
    assert len(records) == emitted - lost
    traced.do("many", out="x.c", into="x.s", n=1)
    assert len(kernel.rings.drain()) == 2


def test_a_dead_thread_leaves_nothing_in_the_maps(kernel, traced):
    traced.do("connect", name="x", family="AF_INET", host="127.0.0.1")
    tid = traced.do("block", name="x.s")
    wait_until(lambda: tid in threads_known(kernel))
    traced.popen.kill()
    traced.popen.wait()
    wait_until(lambda: not {tid, traced.pid} & threads_known(kernel) and kernel.probes.pids.get(traced.pid) is None)
    traced.popen.stdin.close()


def threads_known(kernel):
    """Threads that have an entry."""
    rows = maps.map_threads(kernel.probes.map_fds["THREADS"])
    known = set(rows.rows["tid"][rows.rows["tid"] != 0].tolist())
    rows.close()
    return known


def test_a_thread_that_executes_under_the_leaders_number_leaves_nothing_and_is_judged_anew(kernel, traced):
    traced.do("connect", name="x", family="AF_INET", host="127.0.0.1")
    before = threads_known(kernel)
    kernel.rings.drain()
    child, tid = traced.do("fork_and_execute_in_a_thread", name="x.c")
    proc = [(r.code, r.tgid) for r in kernel.take(PROC)]
    assert proc == [(FORK, child), (EXEC, child), (EXIT, child)]
    assert tid not in (child, 0)
    wait_until(lambda: threads_known(kernel) == before)


def program_id(fd):
    info = pathlib.Path(f"/proc/self/fdinfo/{fd}").read_text()
    return next(int(line.split()[1]) for line in info.splitlines() if line.startswith("prog_id:"))


def test_closing_detaches_everything():
    listed = lambda: {p["id"] for p in json.loads(subprocess.check_output(["bpftool", "-j", "prog"]))}  # noqa: E731
    probes = load_probes(config=ProbeConfig(), ring_bytes_per_cpu=1 << 16, sizeofs=SIZEOFS)
    maps_now = {m.get("name") for m in json.loads(subprocess.check_output(["bpftool", "-j", "map"]))}
    assert {"PIDS", "THREADS", "EVENTS", "CONFIG", "COUNTERS", "SOCKETS", "BATCHES", "LIMITS"} <= maps_now
    ids = {program_id(fd) for fd in probes.program_fds.values()}
    assert len(ids) == len(probes.program_fds) > 0
    assert ids <= listed()
    probes.close()
    wait_until(lambda: not ids & listed())
