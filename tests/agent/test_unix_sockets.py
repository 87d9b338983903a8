"""Unix sockets and payload feedback with a real agent: redis over a socket file, and connections of no known protocol."""

import os
import pathlib
import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from real import Up, free_port, wait_until

pytestmark = pytest.mark.kernel

SET, GET = b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n", b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n"
N = 23
PAUSE = threading.Event()  # never set: wait() is a pause
PIPELINES, DEPTH = 400, 16
LONG = b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$300\r\n" + b"v" * 300 + b"\r\n"


@pytest.fixture
def redis(tmp_path: pathlib.Path) -> Iterator[tuple[int, pathlib.Path, int]]:
    """(pid, socket file, port)."""
    path, port = tmp_path / "redis.sock", free_port()
    options = ["--port", str(port), "--unixsocket", str(path), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL, cwd=tmp_path)
    try:
        assert wait_until(path.exists)
        yield process.pid, path, port
    finally:
        process.terminate()
        process.wait()


def connect(path: pathlib.Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    wait_until(lambda: client.connect_ex(str(path)) == 0)
    return client


def ask(client: socket.socket, command: bytes, replies: int = 1) -> None:
    client.sendall(command)
    lines = 0
    while lines < replies:
        lines += client.recv(65536).count(b"\r\n")


def calls(up: Up) -> list[dict[str, Any]]:
    """The spans of redis; those of asking for them are HTTP."""
    return [span for span in up.spans() if span["protocol"] == "redis"]


def test_calls_over_unix_sockets_are_spans_joined_at_both_ends_and_unknown_ones_are_muted(tmp_path, redis) -> None:
    pid, path, _ = redis
    old = connect(path)  # before tracing begins
    up = Up(tmp_path / "data", "--pid", str(pid), "--pid", str(os.getpid()))
    try:
        new = connect(path)
        one, other = socket.socketpair()
        for _ in range(N):
            ask(new, SET)
            ask(old, GET, 2)
            PAUSE.wait(0.015)
        for i in range(10 * N):
            one.sendall(bytes([200, i % 256, 3, 4]) * 50)
            other.recv(1000)
            PAUSE.wait(0.002)
        joined = wait_until(
            lambda: found if len(found := [s for s in calls(up) if s["link_method"] == "unix_fifo"]) >= 2 * N else None
        )
        spans = calls(up)
        ledger = wait_until(lambda: up.agent_ledger() if up.agent_ledger()["values"].get("muted") else None)
    finally:
        assert up.stop() == 0
        for client in (old, new, one, other):
            client.close()
    assert sorted((s["kind"], s["name"]) for s in spans) == sorted(
        [("CLIENT", "GET"), ("CLIENT", "SET"), ("SERVER", "GET"), ("SERVER", "SET")] * N
    )
    assert {s["seq_space"] for s in spans} == {s["attributes"]["network.transport"] for s in spans} == {"unix"}
    assert {s["local_addr"] for s in spans} == {None}
    assert {s["link_confidence"] for s in joined if s["name"] == "SET"} == {1.0}
    assert {s["link_confidence"] for s in joined if s["name"] == "GET"} == {0.99}
    assert len(joined) == 2 * N
    values = ledger["values"]
    assert ledger["balanced"]
    assert values["flows_muted"] == 2  # both ends of the pair
    assert 2 * 10 * N - values["muted"] < 200


def test_a_pipelining_connection_gets_more_of_its_calls_captured(tmp_path, redis) -> None:
    pid, _, port = redis
    up = Up(tmp_path / "data", "--pid", str(pid))
    try:
        client = socket.create_connection(("127.0.0.1", port))
        for _ in range(PIPELINES):
            ask(client, LONG * DEPTH, DEPTH)
            PAUSE.wait(0.001)
        client.close()
        wanted = 0.85 * PIPELINES * DEPTH  # some 50 ms go by until the probes know
        values = (
            wait_until(lambda: (v := up.agent_ledger()["values"]).get("spans_paired", 0) > wanted and v)
            or up.agent_ledger()["values"]
        )
    finally:
        assert up.stop() == 0
    assert (values["limits_raised"], values["limits_written"]) == (1, 1)
    assert values["spans_paired"] > wanted
