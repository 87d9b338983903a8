"""Nothing secret reaches a row, a file or a log; nothing of DeepTrace's own is traced."""

import os
import socket
import time

from running import Started, http_get, iter_rows, wait_for

IDLE_S = float(os.environ.get("DEEPTRACE_TEST_IDLE_S", "8"))  # a release check uses 60
SECRET = "hunter2hunter2"


def redis_command(port: int, *words: str) -> bytes:
    data = f"*{len(words)}\r\n" + "".join(f"${len(w)}\r\n{w}\r\n" for w in words)
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall(data.encode())
        return sock.recv(65536)


def test_secrets_are_in_no_row_file_or_log(started: Started) -> None:
    server, port = started.server()
    redis, redis_port = started.redis()
    up = started.up(server.pid, redis.pid, options=["-vv"])
    headers = [f"{name}: {SECRET}" for name in ("Authorization", "Cookie", "X-Api-Key", "Proxy-Authorization")]
    http_get(port, f"/ok?token={SECRET}&password={SECRET}&page=2", headers=headers)
    redis_command(redis_port, "SET", "greeting", SECRET)
    redis_command(redis_port, "GET", "greeting")
    redis_command(redis_port, "AUTH", SECRET)
    redis_command(redis_port, "CONFIG", "SET", "requirepass", SECRET)
    wait_for("the spans", lambda: len(up.spans()) >= 5)
    text = up.ask("spans", "--since", "600", "--json")
    assert "greeting" in text
    assert SECRET not in text
    assert up.stop() == 0
    found = [
        str(p) for p, data in iter_rows(started.folder) if SECRET.encode() in data and p.name not in ("redis.log", "server.log")
    ]
    assert not found


def test_an_idle_up_makes_no_span(started: Started) -> None:
    """All processes are traced, but for DeepTrace's own; questions to the server are its own as well."""
    up = started.up()
    time.sleep(IDLE_S / 2)
    up.doctor()
    time.sleep(IDLE_S / 2)
    own = {up.ready["pid"], up.ready["agent_pid"], up.ready["server_pid"]}
    port = int(up.ready["http"].rsplit(":", 1)[1])
    spans = [s for s in up.spans() if s["pid"] in own or port in (s["local_port"], s["peer_port"]) or s["comm"] == "deeptrace"]
    assert not spans
    report = up.doctor()
    assert report["balanced"], [e for agent in report["agents"] for e in agent["equations"] if not e["balanced"]] or report[
        "server"
    ]
