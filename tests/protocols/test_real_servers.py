"""Real clients and servers over a recording proxy on loopback: as many messages as calls, and no value in any attribute."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
import redis as client

from deeptrace.core.proto import L7Protocol
from deeptrace.core.vectors import run_protocol

VALUE = "value-that-is-secret"
SECONDS = 10  # none of this takes one


class Recorder:
    """Passes connections on to a port and keeps what went by: one list of (role, bytes, 0) a connection."""

    def __init__(self, port: int) -> None:
        self.connections: list[list[tuple[str, bytes, int]]] = []
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                seen: list[tuple[str, bytes, int]] = []
                self.connections.append(seen)
                threading.Thread(target=self._pump, args=(near, far, "request", seen), daemon=True).start()
                threading.Thread(target=self._pump, args=(far, near, "response", seen), daemon=True).start()

    @staticmethod
    def _pump(near: socket.socket, far: socket.socket, role: str, seen: list[tuple[str, bytes, int]]) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(1000):
                seen.append((role, data, 0))
                far.sendall(data)
            far.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture(scope="module")
def redis_port() -> Iterator[int]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
            yield port
            server.terminate()


def use_redis(r: Any) -> list[str]:
    """Calls of many shapes; the operations in order."""
    r.set("k", VALUE)
    r.get("k")
    r.set("big", VALUE * 5000)
    r.get("big")
    r.hset("h", mapping={"a": VALUE, "b": VALUE})
    r.hgetall("h")
    r.rpush("l", *[VALUE] * 50)
    r.lrange("l", 0, -1)
    r.zadd("z", {VALUE: 1.5})
    r.zrange("z", 0, -1, withscores=True)
    r.mget(["k", "missing", "big"])
    r.config_get("maxmemory")
    r.client_setname(VALUE)
    with pytest.raises(client.ResponseError):
        r.incr("k")
    r.eval("return {1, {2, 'x'}, redis.error_reply('MY err')}", 0)
    with r.pipeline(transaction=True) as pipe:
        pipe.set("p", VALUE).get("p").lrange("l", 0, 3)
        pipe.execute()
    return [
        "SET", "GET", "SET", "GET", "HSET", "HGETALL", "RPUSH", "LRANGE", "ZADD", "ZRANGE", "MGET", "CONFIG GET",
        "CLIENT SETNAME", "INCRBY", "EVAL", "MULTI", "SET", "GET", "LRANGE", "EXEC",
    ]  # fmt: skip


@pytest.mark.parametrize("version", [2, 3])
def test_a_redis_client_is_followed_call_by_call(redis: L7Protocol, redis_port: int, version: int) -> None:
    recorder = Recorder(redis_port)
    with client.Redis(port=recorder.port, protocol=version, decode_responses=True) as r:
        operations = use_redis(r)
    recorder.close()
    messages = [m for chunks in recorder.connections for m in run_protocol(redis, chunks)]
    kinds = Counter(m["type"] for m in messages)
    named = [m["attributes"]["db.operation.name"] for m in messages if m["type"] == "request"]
    assert named[-len(operations) :] == operations
    assert kinds["request"] == kinds["response"]
    assert not {"lost", "cut"} & {flag for m in messages for flag in m["flags"]}
    assert VALUE not in str(messages)
    assert "ERR" in {m["attributes"].get("error_type") for m in messages}


@pytest.mark.parametrize("version", [2, 3])
def test_a_subscriber_gets_one_way_messages(redis: L7Protocol, redis_port: int, version: int) -> None:
    recorder = Recorder(redis_port)
    with client.Redis(port=recorder.port, protocol=version) as r, client.Redis(port=redis_port) as publisher:
        channel = r.pubsub()
        channel.subscribe("c1", "c2")
        for _ in range(2):
            assert channel.get_message(timeout=SECONDS)["type"] == "subscribe"
        for _ in range(5):
            publisher.publish("c1", VALUE)
            assert channel.get_message(timeout=SECONDS)["type"] == "message"
        channel.close()
    recorder.close()
    messages = [m for chunks in recorder.connections for m in run_protocol(redis, chunks)]
    kinds = Counter(m["type"] for m in messages)
    assert kinds["one_way"] >= 6  # the second confirmation and five messages
    assert kinds["request"] == kinds["response"] or kinds["request"] == kinds["response"] + 1  # closing may unsubscribe
    assert VALUE not in str(messages)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200 if "missing" not in self.path else 404)
        if "chunked" in self.path:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for size in (1, 3000, 17):
                self.wfile.write(b"%x\r\n" % size + b"v" * size + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.send_header("Content-Length", "5000")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(b"v" * 5000)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        if "Content-Length" in self.headers:
            self.rfile.read(int(self.headers["Content-Length"]))
        else:
            while size := int(self.rfile.readline(), 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def test_an_http_client_is_followed_call_by_call(http1: L7Protocol) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    recorder = Recorder(server.server_address[1])
    base = f"http://127.0.0.1:{recorder.port}"
    with httpx.Client(timeout=SECONDS, headers={"Authorization": VALUE}, cookies={"c": VALUE}, trust_env=False) as http:
        for _ in range(3):
            http.get(base + "/plain?token=" + VALUE)
            http.get(base + "/chunked")
            http.head(base + "/plain")
            http.get(base + "/missing")
            http.post(base + "/up", content=VALUE * 500)
            http.post(base + "/up", content=(VALUE.encode() for _ in range(9)))
    recorder.close()
    server.shutdown()
    server.server_close()
    messages = [m for chunks in recorder.connections for m in run_protocol(http1, chunks)]
    requests = [m["attributes"] for m in messages if m["type"] == "request"]
    statuses = [m["status"] for m in messages if m["type"] == "response"]
    assert [(a["http.request.method"], a["url.path"]) for a in requests] == [
        ("GET", "/plain"), ("GET", "/chunked"), ("HEAD", "/plain"), ("GET", "/missing"), ("POST", "/up"), ("POST", "/up"),
    ] * 3  # fmt: skip
    assert statuses == [200, 200, 200, 404, 201, 201] * 3
    assert not {"lost", "cut"} & {flag for m in messages for flag in m["flags"]}
    assert VALUE not in str(messages)
