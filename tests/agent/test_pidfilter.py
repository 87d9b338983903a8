"""Map PIDS over a made-up /proc: every entry belongs to a root, and leaves with it."""

import pytest
from test_procs import FakeProc

from deeptrace.agent.pidfilter import PidFilter, require_processes
from deeptrace.agent.procs import ProcFiles
from deeptrace.errors import UsageError
from deeptrace.loader.maps import DENY, FOLLOW, TRACE


class FakePids(dict):
    """A map that a kernel may write, too."""

    def set(self, pid, flags):
        self[pid] = flags

    def delete(self, pid):
        return self.pop(pid, None) is not None

    def flags(self):
        return {pid: value & 7 for pid, value in self.items()}


@pytest.fixture
def proc(tmp_path):
    """10 -> 11 -> 12, and 20."""
    made = FakeProc(tmp_path)
    for pid, parent in ((10, 1), (11, 10), (12, 11), (20, 1)):
        made.add(pid, "shop", ["shop"], parent=parent)
    return made


@pytest.fixture
def pids():
    return FakePids()


@pytest.fixture
def filtering(proc, pids):
    return PidFilter(pids, ProcFiles(str(proc.root)))


def exchange(filtering, **roots):
    """pid_10=TRACE puts in process 10 with its children."""
    filtering.put({("pid", name[4:]): (flags, {int(name[4:])}) for name, flags in roots.items()})
    filtering.prune()


def test_a_process_is_put_in_with_all_that_descend_from_it(filtering, pids):
    exchange(filtering, pid_10=TRACE)
    assert pids.flags() == dict.fromkeys((10, 11, 12), TRACE | FOLLOW)
    assert filtering.traced == {10, 11, 12}


def test_a_denial_is_stronger_wherever_it_stands(filtering, pids):
    exchange(filtering, pid_10=TRACE, pid_11=DENY)
    assert pids.flags() == {10: TRACE | FOLLOW, 11: DENY | FOLLOW, 12: DENY | FOLLOW}
    exchange(filtering, pid_11=TRACE, pid_10=DENY)
    assert pids.flags() == dict.fromkeys((10, 11, 12), DENY | FOLLOW)


def test_what_a_stronger_root_covered_stays_in_for_the_other(filtering, pids):
    exchange(filtering, pid_10=TRACE, pid_11=DENY)
    exchange(filtering, pid_10=TRACE)
    assert pids.flags() == dict.fromkeys((10, 11, 12), TRACE | FOLLOW)


def test_children_that_the_kernel_put_in_leave_with_their_root_also_without_a_parent(filtering, pids):
    exchange(filtering, pid_10=TRACE, pid_20=TRACE)
    pids[99] = pids[12]  # a fork, whose parents have ended meanwhile
    exchange(filtering, pid_10=TRACE)
    assert set(pids) == {10, 11, 12, 99}
    exchange(filtering, pid_20=TRACE)
    assert set(pids) == {20}


def test_a_root_that_stays_is_not_written_again(filtering, pids):
    exchange(filtering, pid_10=TRACE)
    before = dict(pids)
    exchange(filtering, pid_10=TRACE, pid_20=DENY)
    assert {pid: pids[pid] for pid in before} == before


def test_a_number_that_became_another_process_is_not_put_in(proc, filtering, pids):
    exchange(filtering, pid_10=TRACE)
    proc.add(10, "other", ["other"], start_ticks=900)
    pids.clear()
    exchange(filtering, pid_10=TRACE)
    assert pids == {}


def test_listed_processes_come_and_leave(filtering, pids):
    filtering.put({("cgroup", "box"): (TRACE, {10, 20})})
    assert set(pids) == {10, 20}  # children are listed themselves
    assert filtering.list_again(("cgroup", "box"), {20, 11})
    assert set(pids) == {20, 11}
    assert not filtering.list_again(("cgroup", "box"), {20, 11})


def test_own_processes_are_never_put_in(proc, filtering, pids):
    proc.add(11, "deeptrace", ["deeptrace"], parent=10)
    filtering.deny_own()
    exchange(filtering, pid_10=TRACE)
    assert 11 not in pids
    assert pids.flags()[10] == TRACE | FOLLOW


def test_a_denied_process_is_forgotten_with_its_number(filtering, pids):
    filtering.deny(20)
    assert pids.flags() == {20: DENY}
    filtering.forget(20)
    assert pids == {}


def test_a_full_map_is_said_and_survived(proc, caplog):
    class Full(FakePids):
        def set(self, _pid, _flags):
            raise OSError(7, "Argument list too long")

    exchange(PidFilter(Full(), ProcFiles(str(proc.root))), pid_20=TRACE)
    assert "the map of processes does not take a process" in caplog.text


def test_a_process_that_is_not_there_is_named(proc):
    with pytest.raises(UsageError, match="there is no process 4711"):
        require_processes([10, 4711], ProcFiles(str(proc.root)))
