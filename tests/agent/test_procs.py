"""The process table over a made-up /proc."""

import pathlib

import pytest

from deeptrace.agent import procs
from deeptrace.agent.procs import ProcessTable, ProcFiles, descendants

BOOT_S = 1_700_000_000


class FakeProc:
    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        (root / "stat").write_text(f"cpu 1 2 3\nbtime {BOOT_S}\n")

    def add(self, pid, comm, cmdline, *, parent=1, start_ticks=100, cgroup="0::/\n"):
        folder = self.root / str(pid)
        folder.mkdir(exist_ok=True)
        (folder / "comm").write_text(comm + "\n")
        (folder / "cmdline").write_bytes(b"\0".join(part.encode() for part in cmdline) + b"\0")
        (folder / "cgroup").write_text(cgroup)
        numbers = ["0"] * 17 + [str(start_ticks)] + ["0"] * 20
        (folder / "stat").write_text(f"{pid} ({comm}) S {parent} " + " ".join(numbers))

    def remove(self, pid):
        for path in (self.root / str(pid)).iterdir():
            path.unlink()
        (self.root / str(pid)).rmdir()


@pytest.fixture
def proc(tmp_path):
    return FakeProc(tmp_path)


def table_of(proc, overrides=None):
    return ProcessTable(ProcFiles(str(proc.root)), overrides)


def test_start_is_boot_time_plus_ticks(proc):
    proc.add(10, "a (b) c", ["/bin/abc"], start_ticks=250)
    files = ProcFiles(str(proc.root))
    process = table_of(proc).get(10, 0)
    assert process.start_ns == BOOT_S * 10**9 + 250 * 10**9 // files.ticks_per_s
    assert process.comm == "a (b) c"


def test_exec_gives_the_process_its_new_name(proc):
    proc.add(10, "sh", ["sh"])
    table = table_of(proc)
    assert table.get(10, 0).service == "sh"
    proc.add(10, "nginx", ["nginx"])
    assert table.get(10, 0).service == "sh"
    table.forget(10)
    assert table.get(10, 0).service == "nginx"


def test_a_process_that_died_unread_is_known_by_its_last_comm(proc):
    table = table_of(proc)
    table.exited(99, "curl", 0)
    assert table.get(99, 0).service == "curl"
    assert table.get(99, 0).start_ns is None
    assert table.n_unread == 1


def test_an_ended_process_is_remembered_for_its_last_spans(proc):
    proc.add(10, "nginx", ["nginx"])
    table = table_of(proc)
    table.get(10, 0)
    proc.remove(10)
    table.exited(10, "nginx", 1)
    assert table.get(10, procs.RECHECK_NS * 2).service == "nginx"


def test_a_reused_pid_is_another_process(proc):
    proc.add(10, "nginx", ["nginx"])
    table = table_of(proc)
    table.get(10, 0)
    table.exited(10, "nginx", 1)
    proc.add(10, "redis-server", ["redis-server"], start_ticks=900)
    table.forget(10)
    assert table.get(10, 2).service == "redis-server"


def test_a_reused_pid_is_found_even_if_its_records_were_lost(proc):
    proc.add(10, "nginx", ["nginx"])
    table = table_of(proc)
    table.get(10, 0)
    proc.add(10, "redis-server", ["redis-server"], start_ticks=900)
    assert table.get(10, procs.RECHECK_NS + 1).service == "redis-server"


def test_two_services_of_one_name_carry_their_ports(proc):
    proc.add(10, "redis-server", ["redis-server"])
    proc.add(20, "redis-server", ["redis-server"])
    table = table_of(proc)
    for pid, port in ((10, 6379), (20, 6380)):
        table.get(pid, 0)
        table.serves(pid, port)
    assert table.get(10, 0).service == "redis-server:6379"
    assert table.get(20, 0).service == "redis-server:6380"


def test_workers_of_one_master_are_one_service(proc):
    proc.add(10, "nginx", ["nginx: master process"])
    proc.add(11, "nginx", ["nginx: worker process"], parent=10)
    proc.add(12, "nginx", ["nginx: worker process"], parent=10)
    table = table_of(proc)
    for pid, port in ((11, 80), (12, 443)):
        table.get(pid, 0)
        table.serves(pid, port)
    assert table.get(11, 0).service == table.get(12, 0).service == "nginx"


def test_a_server_that_forks_for_every_connection_costs_no_more_with_every_child(proc, monkeypatch):
    proc.add(10, "sshd", ["sshd"])
    table = table_of(proc)
    table.get(10, 0)
    table.serves(10, 22)
    named = []
    monkeypatch.setattr(table, "_tell_apart", lambda pid, _service: named.append(pid))
    for pid in range(100, 400):  # gone before they could be read: each stands for a tree of its own
        table.get(pid, 0, comm="sshd")
        table.serves(pid, 22)
    assert len(named) == 300
    assert table.get(399, 0).service == "sshd"


def test_what_was_forgotten_no_longer_tells_services_apart(proc):
    table = table_of(proc)
    for pid, port in ((10, 6379), (20, 6380)):
        proc.add(pid, "redis-server", ["redis-server"])
        table.get(pid, 0)
        table.serves(pid, port)
    table.forget(20)
    proc.add(30, "redis-server", ["redis-server"])
    table.get(30, 0)
    table.serves(30, 6379)
    assert table.get(30, 0).service == "redis-server"


def test_the_same_port_in_two_containers_stays_one_name(proc):
    proc.add(10, "redis-server", ["redis-server"])
    proc.add(20, "redis-server", ["redis-server"])
    table = table_of(proc)
    for pid in (10, 20):
        table.get(pid, 0)
        table.serves(pid, 6379)
    assert table.get(20, 0).service == "redis-server"


def test_the_table_is_bounded_and_forgets_ended_processes_first(proc, monkeypatch):
    monkeypatch.setattr(procs, "MAX_PROCESSES", 16)
    proc.add(1000, "keep", ["keep"])
    table = table_of(proc)
    table.get(1000, 0)
    for pid in range(100):
        table.exited(pid, "gone", 0)
    assert len(table) <= 16
    assert 1000 in table


def test_control_characters_of_a_name_are_not_passed_on(proc):
    proc.add(10, "evil\x1b[2J", ["evil\x1b[2J"])
    process = table_of(proc).get(10, 0)
    assert process.comm.isprintable()
    assert process.service.isprintable()


def test_descendants_are_the_whole_subtree(proc):
    for pid, parent in ((10, 1), (11, 10), (12, 11), (20, 1)):
        proc.add(pid, "x", ["x"], parent=parent)
    assert descendants([10], ProcFiles(str(proc.root))) == {10, 11, 12}


def test_the_container_of_a_process_that_is_gone_is_that_of_its_cgroup(proc):
    container = "a" * 64
    proc.add(10, "app", ["app"], cgroup=f"0::/docker/{container}\n")
    table = table_of(proc)
    table.get(10, 0, cgroup_id=7)
    assert table.get(11, 0, comm="gone", cgroup_id=7).container_id == container
    assert table.get(12, 0, comm="gone", cgroup_id=8).container_id is None
