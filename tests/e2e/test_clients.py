"""Ordinary clients and servers, whose log and whose spans must be the same at both ends: bodies and replies far beyond what is
captured of a call, without any pause between requests, and connections that were busy before tracing began."""

import http.client
import os
import pathlib
import socket
import threading
import time
from collections import Counter
from typing import Any

from running import Started, Tool, wait_for, wait_listening

from deeptrace.counters import events_lost
from deeptrace.demo.services import free_ports

N = 30
KINDS = ("CLIENT", "SERVER")


class RedisClient:
    """Sends one command at a time and keeps a log of their names."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.file = self.sock.makefile("rb")
        self.log: Counter[str] = Counter()

    def ask(self, *words: str) -> object:
        self.sock.sendall(f"*{len(words)}\r\n".encode() + b"".join(f"${len(w)}\r\n{w}\r\n".encode() for w in words))
        self.log[words[0]] += 1
        return self.reply()

    def reply(self) -> object:
        line = self.file.readline()
        if line[:1] == b"*":
            return [self.reply() for _ in range(int(line[1:]))]
        return self.file.read(int(line[1:]) + 2)[:-2] if line[:1] == b"$" else line[:-2]


def nginx_gzip(started: Started) -> int:
    """nginx that compresses a large file as it sends it, in chunks; its port."""
    (port,) = free_ports(1)
    folder: pathlib.Path = started.folder
    (folder / "big.html").write_bytes(os.urandom(200_000).hex().encode())
    temps = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "gzip.conf").write_text(
        f"daemon off; user root; pid {folder}/gzip.pid; error_log stderr; events {{}} http {{ access_log off; {temps}"
        f"types {{ text/html html; }} gzip on; client_max_body_size 10m;"
        f"server {{ listen 127.0.0.1:{port}; root {folder}; rewrite ^ /big.html; }} }}"
    )
    started.process("/usr/sbin/nginx", "-p", str(folder), "-c", str(folder / "gzip.conf"), "-e", "stderr", name="gzip")
    wait_listening(port)
    return port


def spans_when_done(up: Tool, condition: Any) -> list[dict[str, Any]]:
    def done() -> list[dict[str, Any]]:
        spans = up.spans()
        return spans if condition(spans) else []

    return wait_for("all spans", done, timeout_s=15)


def test_bodies_and_replies_beyond_the_capture_limit_lose_no_request(started: Started) -> None:
    up = started.up(os.getpid())
    port = nginx_gzip(started)
    _, redis_port = started.redis()
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for i in range(N):
        client.request("GET", f"/down{i}", headers={"Accept-Encoding": "gzip"})
        client.getresponse().read()
        client.request("GET", f"/cookies{i}", headers={"Cookie": "; ".join(f"c{k}={'v' * 150}" for k in range(40))})
        client.getresponse().read()
    client.close()
    redis = RedisClient(redis_port)
    for i in range(N):
        redis.ask("RPUSH", "list", *[f"element-{k}" for k in range(300)])
        redis.ask("LRANGE", "list", "0", "-1")
        redis.ask("MSET", *[f"key{i}-{k // 2}" for k in range(400)])
        redis.ask("PING")
    redis.sock.close()
    redis.file.close()
    paths = {f"/{what}{i}" for what in ("down", "cookies") for i in range(N)}
    spans = spans_when_done(up, lambda spans: len(spans) >= 2 * (len(paths) + redis.log.total()))
    for kind in KINDS:
        ours = [s for s in spans if s["kind"] == kind]
        assert Counter(s["attributes"]["url.path"] for s in ours if s["protocol"] == "http1") == Counter(paths)
        assert Counter(s["name"] for s in ours if s["protocol"] == "redis") == redis.log
    for span in spans:
        assert set(span["flags"]) <= {"cut"}, span
        assert span["status"] == "unset", span
        assert span["start_ns"] <= span["request_end_ns"] <= span["response_start_ns"] <= span["end_ns"], span
    assert events_lost(up.counters()) == 0
    wait_for("a balanced ledger", lambda: up.doctor()["balanced"])


def test_a_connection_that_was_busy_before_tracing_began_is_followed_after_a_while(started: Started) -> None:
    process, port = started.redis()
    stop = threading.Event()
    redis = RedisClient(port)

    def work() -> None:
        while not stop.wait(0.0005):
            redis.ask("INCRBY", "n", "1")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        up = started.up(process.pid)
        time.sleep(1.5)
        up_to = int(redis.log.total())
    finally:
        stop.set()
        thread.join()
        redis.sock.close()
        redis.file.close()
    assert up_to > 500
    spans = spans_when_done(up, lambda spans: len(spans) > 200)
    assert {(s["name"], tuple(s["flags"]), s["status"]) for s in spans} == {("INCRBY", ("mid_stream",), "unset")}
