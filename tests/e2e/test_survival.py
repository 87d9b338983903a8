"""It survives what happens to it: a killed server, a killed traced process, a full disk, a signal."""

import contextlib
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from running import DEEPTRACE, Started, http_get, listens, wait_for

from deeptrace.demo.services import free_ports


def test_a_killed_server_comes_back_and_the_spans_made_meanwhile_arrive(started: Started) -> None:
    traced, port = started.server()
    grpc, http = free_ports(2)
    data = str(started.folder / "data")
    places = ["--grpc", f"127.0.0.1:{grpc}", "--http", f"127.0.0.1:{http}", "--data", data, "--set", "server.settle_s=1"]
    first = started.tool("server", *places)
    agent = started.tool("agent", "--server", f"127.0.0.1:{grpc}", "--http", f"127.0.0.1:{http}", "--pid", str(traced.pid))
    http_get(port, "/ok/before")
    wait_for("the first span", lambda: "/ok/before" in first.paths())

    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    for i in range(20):
        http_get(port, f"/ok/{i}")
    assert agent.process.poll() is None
    second = started.tool("server", *places, name="server-again")
    wanted = {"/ok/before", *(f"/ok/{i}" for i in range(20))}
    wait_for("all spans", lambda: wanted <= second.paths(), timeout_s=30)
    paths = [s["attributes"].get("url.path") for s in second.spans()]
    assert len(paths) == len(set(paths)), "a span was stored twice"
    assert agent.stop() == 0
    assert second.stop() == 0


def test_up_restarts_a_killed_server_and_loses_nothing(started: Started) -> None:
    traced, port = started.server()
    up = started.up(traced.pid)
    http_get(port, "/ok/before")
    wait_for("the first span", up.spans)
    os.kill(up.ready["server_pid"], signal.SIGKILL)
    http_get(port, "/ok/meanwhile")
    wait_for("the spans of before and meanwhile", lambda: {"/ok/before", "/ok/meanwhile"} <= up.paths(), timeout_s=40)
    assert up.stop() == 0


def test_ctrl_c_detaches_flushes_and_exits_0(started: Started) -> None:
    traced, port = started.server()
    up = started.up(traced.pid)
    http_get(port, "/ok/last")
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(30) == 0
    assert not listens(int(up.ready["http"].rsplit(":", 1)[1]))
    programs = subprocess.run(["bpftool", "prog", "show"], capture_output=True, text=True, check=True).stdout
    assert f"pids deeptrace({up.ready['agent_pid']})" not in programs
    server = started.tool("server", "--data", str(started.folder / "data"), "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0")
    assert "/ok/last" in server.paths()


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of its own, small."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: pathlib.Path) -> None:
    """Write until the disk is full."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as f:
        while True:
            f.write(b"\0" * (1 << 16))


def test_a_disk_that_gets_full_stops_nothing_and_is_counted(started: Started, small_disk: pathlib.Path) -> None:
    traced, port = started.server()
    up = started.up(traced.pid, options=["--data", str(small_disk / "data")])
    http_get(port, "/ok/before")
    wait_for("the first span", up.spans)
    ballast = small_disk / "ballast"
    fill(ballast)
    for i in range(200):
        http_get(port, f"/ok/{i}")
    time.sleep(2)
    assert up.process.poll() is None, "up has ended"
    ballast.unlink()
    http_get(port, "/ok/after")
    wait_for(
        "the span made after there was room",
        lambda: "/ok/after" in up.paths(),
        timeout_s=40,
    )
    found = up.paths()
    dropped = up.counters().get("queue_dropped", 0)
    assert len(found & {f"/ok/{i}" for i in range(200)}) + dropped >= 200
    assert up.stop(40) == 0


def test_unknown_options_and_a_taken_port_are_one_sentence(started: Started) -> None:
    _, port = started.server()
    for arguments, code, word in (
        (["up", "--nonsense"], 2, "nonsense"),
        (["traces", "--server", "127.0.0.1:1"], 1, "127.0.0.1:1"),
        (["server", "--http", f"127.0.0.1:{port}", "--grpc", "127.0.0.1:0", "--data", str(started.folder / "d")], 1, str(port)),
    ):
        ran = subprocess.run([DEEPTRACE, *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == code, (arguments, ran.stderr)
        assert word in ran.stderr
        assert "Traceback" not in ran.stderr
        assert len(ran.stderr.strip().splitlines()) == 1, ran.stderr
