"""A request that ends badly is a span that says so; bytes that are no request harm nothing."""

import os
import pathlib
import signal
import socket
import struct
import subprocess
from typing import Any

import pytest
from running import Started, Tool, http_get, wait_for


def span_of(up: Tool, path: str, kind: str) -> dict[str, Any]:
    """The one span of a path and kind, once it is there."""

    def find() -> dict[str, Any] | None:
        found = [s for s in up.spans() if s["kind"] == kind and s["attributes"].get("url.path") == path]
        found += [s for s in up.spans() if s["kind"] == kind and str(s["attributes"].get("url.full", "")).endswith(path)]
        return found[0] if found else None

    return wait_for(f"a {kind} span of {path}", find)


def traced_client(started: Started, port: int, *paths: str) -> tuple[subprocess.Popen[str], pathlib.Path]:
    go = started.folder / f"go-{paths[-1].strip('/')}"
    return started.python("client", port, go, *paths, name=f"client-{paths[-1].strip('/')}"), go


def test_bad_ends_leave_spans_that_say_so(started: Started) -> None:
    """One `up` for all of them: each needs seconds to start."""
    server, port = started.server()
    _, other_port = dying = started.server()
    clients = {path: traced_client(started, port, "/ok", path) for path in ("/slow", "/reset", "/leave")}
    clients["/die"] = traced_client(started, other_port, "/ok", "/die")
    killed, _ = clients["/slow"]
    up = started.up(server.pid, dying[0].pid, *(c.pid for c, _ in clients.values()), options=["--set", "agent.request_timeout_s=2"])
    for _, start in clients.values():
        start.touch()

    slow = wait_for("the slow request", lambda: http_timeout(port, "/slow?by=timeout"))
    assert slow
    timed_out = span_of(up, "/slow", "SERVER")
    assert (timed_out["status"], timed_out["error_type"]) == ("error", "timeout")
    assert "incomplete" in timed_out["flags"]

    os.kill(killed.pid, signal.SIGKILL)
    for path, errors in (
        ("/reset", {"connection_reset"}),
        ("/leave", {"connection_closed"}),
        ("/die", {"connection_closed", "connection_reset"}),
    ):
        span = span_of(up, path, "CLIENT")
        assert span["status"] == "error", path
        assert span["error_type"] in errors, path
        assert "incomplete" in span["flags"], path
    died = span_of(up, "/die", "SERVER")
    assert (died["status"], died["error_type"]) == ("error", "process_exited")
    assert up.doctor()["balanced"]
    assert up.stop() == 0


def http_timeout(port: int, path: str) -> bool:
    """Whether a request gets no answer within half a second."""
    with pytest.raises(TimeoutError):
        http_get(port, path, timeout_s=0.5)
    return True


def test_a_client_killed_in_mid_request_leaves_a_span_that_says_so(started: Started) -> None:
    server, port = started.server()
    client, go = traced_client(started, port, "/ok", "/slow")
    up = started.up(server.pid, client.pid)
    go.touch()
    wait_for("the first request", lambda: len(up.spans()) >= 2)
    os.kill(client.pid, signal.SIGKILL)
    span = span_of(up, "/slow", "CLIENT")
    assert (span["status"], span["error_type"]) == ("error", "process_exited")
    assert "incomplete" in span["flags"]


def test_garbage_and_a_100_mb_answer_harm_nothing(started: Started) -> None:
    server, port = started.server()
    up = started.up(server.pid)
    for garbage in (
        b"\x00" * 4096,
        os.urandom(65536),
        b"GET " + b"a" * 100_000 + b"\r\n\r\n",
        b"*3\r\n$-5\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(garbage)
    assert len(http_get(port, "/big")) > 100 << 20
    assert http_get(port, "/ok/after").endswith(b"ok")
    span = span_of(up, "/big", "SERVER")
    assert span["response_bytes"] > 100 << 20
    assert span["attributes"]["http.response.status_code"] == 200
    assert span_of(up, "/ok/after", "SERVER")["status"] == "unset"
    assert up.doctor()["balanced"]
    assert server.poll() is None
