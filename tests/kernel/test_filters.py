"""Filters on a real kernel: each kind alone and together, allowed and denied, and other ones while bytes move."""

import os
import subprocess
import sys
import time

import pytest
from filtering import Filtered, Program, cgroup, copied, move, named, stream
from ring_reader import CONN, DATA, PROC

from deeptrace.agent.cgroups import mounted_hierarchies
from deeptrace.errors import UsageError
from deeptrace.loader.maps import DENY, FOLLOW, TRACE

HAS_UNIFIED = any(h.unified for h in mounted_hierarchies())
HAS_FIRST = any(not h.unified for h in mounted_hierarchies())


@pytest.fixture
def start(tmp_path):
    """Starts drivers under a name of their own; they end with the test."""
    programs = []

    def make(name: str, how=named) -> Program:
        path = tmp_path / name
        programs.append(Program(path if path.exists() else how(tmp_path, name)))
        return programs[-1]

    yield make
    for program in programs:
        program.stop()


@pytest.fixture
def filtered(kernel):
    """Puts filters on the probes; none are left after the test."""
    made = []

    def make(**settings) -> Filtered:
        made.append(Filtered(kernel, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_without_filters_every_process_is_heard(start, filtered):
    assert filtered().heard(start("one"), start("two")) == [True, True]


def test_a_pid_is_allowed_with_its_children_and_nobody_else(kernel, start, filtered):
    one, two = start("one"), start("two")
    under = filtered(pid=[one.pid])
    assert under.heard(one, two) == [True, False]
    child, _result = one.do("fork_and", request={"do": "send", "name": "t.c", "data": b"child".hex()})
    assert child in {r.tgid for r in kernel.take(DATA)}


def test_a_pid_is_denied_with_its_children(kernel, start, filtered):
    one, two = start("one"), start("two")
    under = filtered(deny_pid=[one.pid])
    assert under.heard(one, two) == [False, True]
    child, _result = one.do("fork_and", request={"do": "send", "name": "t.c", "data": b"child".hex()})
    assert child not in {r.tgid for r in kernel.rings.drain()}


@pytest.mark.parametrize("kind", ["comm", "exe"])
@pytest.mark.parametrize("verdict", ["", "deny_"])
def test_names_and_files_are_allowed_and_denied(tmp_path, start, filtered, kind, verdict):
    one, two = start("one", copied), start("two", copied)
    under = filtered(**{verdict + kind: ["one" if kind == "comm" else str(tmp_path / "one")]})
    assert under.heard(one, two) == ([True, False] if verdict == "" else [False, True])


def test_a_process_is_known_by_the_file_whatever_its_path(tmp_path, start, filtered):
    one = start("one", copied)
    (tmp_path / "other").symlink_to(tmp_path / "one")
    assert filtered(exe=[str(tmp_path / "other")]).heard(one, start("two", copied)) == [True, False]


@pytest.mark.skipif(not HAS_UNIFIED, reason="no unified hierarchy of cgroups is mounted")
@pytest.mark.parametrize("verdict", ["", "deny_"])
def test_a_cgroup_is_allowed_and_denied_with_all_below_it(start, filtered, verdict):
    with cgroup(unified=True, name="dtv2") as top:
        inside, below, outside = start("one"), start("two"), start("three")
        move(inside, top)
        move(below, top / "inner")
        under = filtered(**{verdict + "cgroup": [str(top)]})
        allowed = verdict == ""
        assert under.heard(inside, below, outside) == [allowed, allowed, not allowed]
        move(inside, top.parent)  # heard of in the kernel, without user space
        assert under.heard(inside) == [not allowed]
        for program in (inside, below):
            move(program, top.parent)


@pytest.mark.skipif(not HAS_FIRST, reason="no hierarchy of the first version of cgroups is mounted")
@pytest.mark.parametrize("verdict", ["", "deny_"])
def test_a_cgroup_of_the_first_version_is_followed_by_its_processes(kernel, start, filtered, verdict):
    with cgroup(unified=False, name="dtv1") as top:
        inside, later, outside = start("one"), start("two"), start("three")
        move(inside, top / "inner")
        under = filtered(**{verdict + "cgroup": [top.name]})
        allowed = verdict == ""
        assert under.heard(inside, later, outside) == [allowed, not allowed, not allowed]
        child, _result = inside.do("fork_and", request={"do": "send", "name": "t.c", "data": b"child".hex()})
        assert (child in {r.tgid for r in kernel.take(DATA)}) is allowed
        move(later, top)
        move(inside, top.parent)
        under.refresh()
        assert under.heard(inside, later, outside) == [not allowed, allowed, not allowed]
        move(later, top.parent)


@pytest.mark.skipif(not HAS_UNIFIED, reason="no unified hierarchy of cgroups is mounted")
def test_a_container_that_starts_later_is_heard(start, filtered):
    under = filtered(cgroup=["dtlater-*"])
    program = start("one")
    assert under.heard(program) == [False]
    with cgroup(unified=True, name="dtlater") as top:
        move(program, top)
        under.filters._scan_at_ns = 0
        under.refresh()
        assert under.heard(program) == [True]
        move(program, top.parent)


@pytest.mark.parametrize(("verdict", "end"), [("", "client"), ("", "server"), ("deny_", "client"), ("deny_", "server")])
def test_a_port_is_allowed_and_denied_at_either_end(kernel, start, filtered, verdict, end):
    one = start("one")
    client, server = one.do("connect", name="a", family="AF_INET", host="127.0.0.1")
    one.do("connect", name="b", family="AF_INET6", host="::1")
    under = filtered(pid=[one.pid], **{verdict + "port": [client[1] if end == "client" else server[1]]})
    kernel.take()
    before = kernel.counters()["port_filtered"]
    for name in ("a", "b"):
        one.do("transfer", out=name + ".c", into=name + ".s", egress="sendmsg", ingress="recvmsg", data=name.encode().hex())
    allowed = b"a" if verdict == "" else b"b"
    assert [r.payload for r in kernel.take(DATA)] == [allowed, allowed]
    assert kernel.counters()["port_filtered"] - before == 2
    under.apply(pid=[one.pid])
    one.do("transfer", out="a.c", into="a.s", egress="sendmsg", ingress="recvmsg", data=b"A".hex())
    one.do("transfer", out="b.c", into="b.s", egress="sendmsg", ingress="recvmsg", data=b"B".hex())
    assert {r.payload for r in kernel.take(DATA)} == {b"A", b"B"}


def test_a_connection_of_a_denied_port_is_silent_from_connect_to_close(kernel, start, filtered):
    one = start("one")
    filtered(pid=[one.pid], port=[1])
    kernel.rings.drain()
    one.talk()
    one.do("close", name="t.c")
    one.do("close", name="t.s")
    assert [r for r in kernel.rings.drain() if r.kind in (DATA, CONN)] == []


def test_a_denial_wins_and_one_allowance_is_enough(tmp_path, start, filtered):
    one, two, three = start("one", copied), start("two", copied), start("three", copied)
    under = filtered(comm=["one"], exe=[str(tmp_path / "two")], pid=[three.pid])
    assert under.heard(one, two, three) == [True, True, True]
    under.apply(comm=["one"], exe=[str(tmp_path / "two")], pid=[three.pid], deny_comm=["two"], deny_exe=[str(tmp_path / "three")])
    assert under.heard(one, two, three) == [True, False, False]
    under.apply(deny_comm=["one"])
    assert under.heard(one, two, three) == [False, True, True]


def test_an_exec_begins_and_ends_the_tracing(tmp_path, start, filtered):
    named(tmp_path, "loud")
    named(tmp_path, "quiet")
    one = start("one")
    under = filtered(comm=["loud"])
    assert under.heard(one) == [False]
    for name, heard in (("loud", True), ("quiet", False), ("loud", True)):
        one.become(tmp_path / name)
        assert under.heard(one) == [heard], name
    under.apply(deny_comm=["loud"])
    assert under.heard(one) == [False]
    one.become(tmp_path / "quiet")
    assert under.heard(one) == [True]


def test_deeptraces_own_processes_are_never_heard(kernel, start, filtered):
    own, turns = start("deeptrace"), start("one")
    under = filtered(comm=["deeptrace", "one"], pid=[own.pid, turns.pid])
    assert under.heard(own, turns) == [False, True]
    turns.do("rename", name="deeptrace")
    kernel.rings.drain()
    turns.talk()
    own.talk()
    assert [r for r in kernel.rings.drain() if r.tgid in (own.pid, turns.pid) and r.kind != PROC] == []


def test_a_process_that_takes_another_name_is_judged_by_it(start, filtered):
    one = start("one")
    under = filtered(comm=["other"])
    assert under.heard(one) == [False]
    one.do("rename", name="other")
    assert under.heard(one) == [True]


def test_a_program_that_is_replaced_on_disk_is_heard_in_both_versions(tmp_path, start, filtered):
    old = start("one", copied)
    under = filtered(exe=[str(tmp_path / "one")])
    copied(tmp_path, "next").rename(tmp_path / "one")
    new = start("one")
    assert under.heard(old, new) == [True, False]
    under.refresh()
    assert under.heard(old, new) == [True, True]


def test_filters_that_cannot_be_leave_the_old_ones_in_force(start, filtered):
    one, two = start("one"), start("two")
    under = filtered(comm=["one"])
    for wrong in ({"exe": ["/no/such"]}, {"comm": ["x" * 16]}, {"port": [70000]}, {"pid": [1 << 22]}, {"cgroup": ["nothing"]}):
        with pytest.raises(UsageError):
            under.apply(**{"deny_comm": ["one"], **wrong})
    assert under.heard(one, two) == [True, False]


CHANGES = (  # what holds for a while: settings, and whether the second of two programs is heard
    ({"deny_comm": ["two"]}, False),
    ({}, True),
    ({"comm": ["one"]}, False),
    ({"exe": ["ONE", "TWO"]}, True),
    ({"comm": ["one", "two"], "deny_exe": ["TWO"]}, False),
    ({"comm": ["two"], "pid": [1]}, True),
    ({"exe": ["ONE"]}, False),
    ({"deny_comm": ["other"]}, True),
    ({"pid": [1]}, False),
    ({"comm": ["one", "two"]}, True),
)


def test_other_filters_while_bytes_move_lose_nothing_of_the_allowed_and_take_nothing_of_the_denied(
    kernel, tmp_path, start, filtered
):
    one, two = start("one", copied), start("two", copied)
    under, n, records, windows = filtered(pid=[one.pid]), 1500, [], []
    ring_full = kernel.counters()["ring_full"]
    ports = [stream(program, n) for program in (one, two)]  # others talk, too, where every process may
    for settings, heard in CHANGES:
        places = {"ONE": str(tmp_path / "one"), "TWO": str(tmp_path / "two"), 1: one.pid}
        actual = {kind: [places.get(value, value) for value in values] for kind, values in settings.items()}
        if windows:
            windows[-1][1] = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        windows.append([under.apply(**actual, port=ports), 0, heard])
        end = time.monotonic() + 0.08
        while time.monotonic() < end:
            records += kernel.take(DATA)
    windows[-1][1] = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    for program in (one, two):
        program.answer()
    records += kernel.take(DATA)
    assert kernel.counters()["ring_full"] == ring_full
    records.sort(key=lambda record: record.exit_ns)  # a program that moves to another CPU overtakes itself between two drains
    for direction in (0, 1):
        numbers = [number_of(r) for r in records if r.tgid == one.pid and r.direction == direction and len(r.payload) == 8]
        assert numbers == list(range(n))
        for start_ns, end_ns, heard in windows:
            found = [r for r in records if r.tgid == two.pid and r.direction == direction and start_ns <= r.enter_ns < end_ns]
            numbers = [number_of(r) for r in found if len(r.payload) == 8]
            assert bool(numbers) is heard
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if heard else not numbers


def number_of(record):
    return int.from_bytes(record.payload, sys.byteorder)


def test_children_leave_with_the_filter_that_brought_them(kernel, start, filtered):
    one, two = start("one"), start("two")
    under = filtered(pid=[one.pid, two.pid])
    child = one.do("fork_on")
    assert child in dict(kernel.probes.pids.items())
    under.apply(pid=[two.pid], deny_pid=[one.pid])
    assert {pid: value & 7 for pid, value in kernel.probes.pids.items() if pid in (one.pid, two.pid, child)} == {
        one.pid: DENY | FOLLOW,
        two.pid: TRACE | FOLLOW,
        child: DENY | FOLLOW,
    }
    under.apply()
    assert dict(kernel.probes.pids.items()).keys() == {os.getpid()}


@pytest.fixture(params=["tmpfs", "overlay"])
def other_disk(request, tmp_path):
    """A mounted file system of another kind, with a Python of its own."""
    folders = {name: tmp_path / name for name in ("low", "up", "work", "disk")}
    for folder in folders.values():
        folder.mkdir()
    options = f"lowerdir={folders['low']},upperdir={folders['up']},workdir={folders['work']}"
    if request.param == "overlay":  # layers on two file systems: then stat(2) shows a device that the probes never see
        subprocess.run(["mount", "-t", "tmpfs", "none", folders["low"]], check=True)
        copied(folders["low"], "shop")
    kind = ["-t", "overlay", "-o", options] if request.param == "overlay" else ["-t", "tmpfs"]
    mounted = subprocess.run(["mount", *kind, "none", folders["disk"]], capture_output=True, check=False)
    if mounted.returncode == 0:
        if request.param == "tmpfs":
            copied(folders["disk"], "shop")
        yield folders["disk"]
        subprocess.run(["umount", folders["disk"]], check=True)
    if request.param == "overlay":
        subprocess.run(["umount", folders["low"]], check=True)
    if mounted.returncode:
        pytest.skip(f"this kernel mounts no {request.param}")


def test_a_file_is_known_on_every_kind_of_disk(kernel, other_disk):
    program = Program(other_disk / "shop")
    under = Filtered(kernel, exe=[str(other_disk / "shop")])
    assert under.heard(program) == [True]
    under.apply(deny_exe=[str(other_disk / "shop")])
    assert under.heard(program) == [False]
    program.stop()
    under.close()


def test_what_is_shipped_to_the_server_is_not_heard_whoever_passes_it_on(kernel, start):
    proxy = start("proxy")
    _client, server = proxy.do("connect", name="a", family="AF_INET", host="127.0.0.1")
    proxy.do("connect", name="b", family="AF_INET", host="127.0.0.2")
    under = Filtered(kernel, server=f"127.0.0.1:{server[1]}", comm=["proxy"])
    kernel.take()
    for name in ("a", "b"):
        proxy.do("transfer", out=name + ".c", into=name + ".s", egress="sendmsg", ingress="recvmsg", data=name.encode().hex())
    assert [r.payload for r in kernel.take(DATA)] == [b"b", b"b"]
    under.close()
