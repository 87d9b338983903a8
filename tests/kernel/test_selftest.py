"""Each load tests itself with known messages: it leaves nothing behind, finds wrong offsets, and takes off only what is wrong."""

import pathlib
import shutil
import subprocess
import sys

import pytest
from ring_reader import DATA, Rings

from deeptrace.core.wire import DTYPES, RECORD_DTYPE, SIZEOFS
from deeptrace.errors import ProbeError
from deeptrace.loader import client, layouts, maps
from deeptrace.loader.client import ProbeConfig, load_probes

pytestmark = pytest.mark.kernel

ROOT = pathlib.Path(__file__).parents[2]
RING_BYTES = 1 << 18
OFFSETS = "include/offsets.def"
EACH = 23  # calls through each hook


@pytest.fixture
def load(monkeypatch, tmp_path):
    """Load the probes with some of their files changed: (file, text, its replacement). All are closed afterwards."""
    loaded = []

    def start(*changes, **arguments):
        folder = tmp_path / "bpf"
        shutil.copytree(ROOT / "bpf", folder, dirs_exist_ok=True)
        for name, text, other in changes:
            before = (folder / name).read_text()
            assert text in before, f"{name} has changed; change this test with it"
            (folder / name).write_text(before.replace(text, other))
        monkeypatch.setattr(client, "shipped_folder", lambda _name: folder)
        loaded.append(load_probes(config=ProbeConfig(batch_bytes=0), ring_bytes_per_cpu=RING_BYTES, sizeofs=SIZEOFS, **arguments))
        return loaded[-1]

    yield start
    for probes in loaded:
        probes.close()


def test_known_messages_go_through_every_hook_and_leave_nothing_behind(load):
    probes = load()
    found = probes.report.selftest
    assert found["passed"], found
    assert set(found["calls"]) >= {"read", "readv", "recvfrom", "recvmsg", "recvmmsg", "sendfile64", "splice"}
    assert set(found["calls"]) >= {"write", "writev", "sendto", "sendmsg", "sendmmsg"}
    assert found["messages"] >= EACH * 12  # ten calls, of which two move two messages
    assert found["skipped"] == [] or all("was not tested" in sentence for sentence in found["skipped"])
    assert not probes.counters().any()
    kept = ("THREADS", "THREADS_MORE", "OWNERS")  # places of threads, other processes' too
    assert not {name: fill for name, fill in probes.map_fill().items() if fill[0] and name not in kept}
    assert probes.in_flight() == 0
    rings = Rings(probes, RING_BYTES)
    assert rings.drain() == []
    rings.close()


def test_a_wrong_offset_of_the_data_calls_is_an_error_that_names_it(load):
    with pytest.raises(ProbeError, match=r"the self-test found \w+: .*position in the stream.*TCP over IPv4"):
        load((OFFSETS, "(TCP_WRITE_SEQ, tcp_sock, write_seq)", "(TCP_WRITE_SEQ, tcp_sock, snd_una)"))


def test_what_is_wrong_is_taken_off_alone_with_a_sentence(load):
    """Wrong offsets of two groups, a group that does not compile, and one call that reads its arguments wrongly."""
    probes = load(
        (OFFSETS, "(SK_ERR, sock, sk_err)", "(SK_ERR, sock, sk_err_soft)"),
        (OFFSETS, "(KIOCB_CQE, io_kiocb, cqe)", "(KIOCB_CQE, io_kiocb, ctx)"),
        ("include/syscalls.def", "writev, EGRESS, IOVEC", "writev, EGRESS, BUFFER"),
        ("probes/proc.bpf.c", "int dt_raw_sched_process_exec(", "#error broken\nint dt_raw_sched_process_exec("),
    )
    report = probes.report
    assert "-104" in report.disabled["conn"]
    assert report.disabled["proc"] == "its probes do not compile"
    if not any("io_uring was not tested" in sentence for sentence in report.selftest["skipped"]):
        assert "the self-test found io_uring" in report.disabled["uring"]
    assert {"conn", "proc"}.isdisjoint(report.groups)
    assert "sys_enter_writev" not in report.groups["socket_io"]
    assert any("writev is not traced: the self-test found" in warning for warning in report.warnings)
    assert {"dt_enter_writev", "dt_exit_writev", "dt_exit_connect"}.isdisjoint(probes.program_fds)
    assert moved_messages(probes) == 2


def moved_messages(probes) -> int:
    """Data records of a child that writes and reads over loopback."""
    code = (
        "import socket, sys; sys.stdin.readline(); l = socket.create_server(('127.0.0.1', 0)); "
        "c = socket.create_connection(l.getsockname()); s = l.accept()[0]; c.send(b'x'); s.recv(1)"
    )
    rings = Rings(probes, RING_BYTES)
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    probes.pids.set(child.pid, maps.TRACE)
    probes.arm()
    child.communicate(b"\n", timeout=20)
    probes.disarm()
    records = [record for record in rings.drain() if record.kind == DATA]
    rings.close()
    return len(records)


OPEN = """
import importlib, sys
sys.path.insert(0, {package!r})
import loader.selftest_traffic as traffic
pairs, skipped = traffic.open_pairs()
print([pair.label for pair in pairs], *skipped, sep="|")
"""


def test_a_host_without_ipv6_tests_the_rest_and_says_so():
    script = OPEN.format(package=str(ROOT / "deeptrace"))
    command = 'ip link set lo up && echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; exec "$@"'
    ran = subprocess.run(
        ["unshare", "-n", "-m", "sh", "-c", command, "sh", "/usr/bin/python3", "-B", "-c", script],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    shown, *sentences = ran.stdout.strip().split("|")
    assert shown == "['TCP over IPv4', 'UDP over IPv4']"
    assert len(sentences) == 2
    assert all("IPv6 was not tested: ::1 cannot be used here" in sentence for sentence in sentences)


def test_the_loader_reads_the_layouts_as_the_compiled_core_does():
    found = layouts.read_layouts(ROOT / "bpf")
    assert {"dt_record", "dt_config", "dt_process"} <= set(found)
    for name, layout in found.items():
        if name in DTYPES:
            assert layout.bytes == DTYPES[name].itemsize, name
    flat = {name: offset for name, (kind, offset, *_) in RECORD_DTYPE.fields.items() if kind.names is None}
    inner, at = RECORD_DTYPE.fields["tuple"][:2]
    flat |= {name: at + offset for name, (_kind, offset, *_) in inner.fields.items()}
    assert {name: field.offset for name, field in found["dt_record"].fields.items()} == flat
