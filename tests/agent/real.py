"""Real processes for the tests that need a kernel: nginx, `deeptrace up`, and what can be asked of them."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

DEEPTRACE = [sys.executable, "-m", "deeptrace.cli"]

NGINX_CONF = """
worker_processes 1; daemon off; master_process on; error_log {folder}/error.log; pid {folder}/nginx.pid;
events {{ worker_connections 256; }}
http {{
  access_log off; keepalive_requests 1000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 "hello"; }} }}
}}
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_until(condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """The first true value of condition(), or its last one after timeout_s."""
    end = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(0.05)


@contextlib.contextmanager
def nginx(folder: pathlib.Path) -> Iterator[tuple[int, int]]:
    """(pid, port) of an nginx that answers everything."""
    port = free_port()
    conf = folder / "nginx.conf"
    conf.write_text(NGINX_CONF.format(folder=folder, port=port))
    process = subprocess.Popen(["nginx", "-c", str(conf)], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: get(port, "/up") == 200)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()


def get(port: int, path: str) -> int | None:
    """Status of one request over a connection of its own; None if nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status
    except OSError:
        return None
    finally:
        connection.close()


class Up:
    """A running `deeptrace up --json` with its own data folder and free ports."""

    def __init__(self, data: pathlib.Path, *options: str) -> None:
        places = ["--data", str(data), "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--json"]
        self.data = data
        self.errors = data.parent / (data.name + ".stderr")
        with self.errors.open("wb") as sink:
            self.process = subprocess.Popen([*DEEPTRACE, "up", *places, *options], stdout=subprocess.PIPE, stderr=sink)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.errors.read_text()
        self.ready: dict[str, Any] = json.loads(line)

    def api(self, path: str) -> Any:
        host, port = self.ready["http"].split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        try:
            connection.request("GET", f"/api/v1/{path}")
            return json.loads(connection.getresponse().read())
        except OSError:
            return None
        finally:
            connection.close()

    def spans(self) -> list[dict[str, Any]]:
        found = self.api("spans?since=3600&limit=10000")
        return found["spans"] if isinstance(found, dict) else found or []

    def agent_ledger(self) -> dict[str, Any]:
        return self.api("doctor")["agents"][0]

    def server_pid(self) -> int:
        return int(json.loads((self.data / "server.json").read_text())["pid"])

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(40)


def programs_of(pid: int) -> set[int]:
    """Ids of the BPF programs whose descriptors a process holds."""
    found = set()
    for name in os.listdir(f"/proc/{pid}/fdinfo"):
        with contextlib.suppress(OSError):
            match = re.search(r"^prog_id:\s*(\d+)", pathlib.Path(f"/proc/{pid}/fdinfo/{name}").read_text(), re.MULTILINE)
            if match:
                found.add(int(match[1]))
    return found


def loaded_programs() -> set[int]:
    """Ids of all BPF programs of this machine."""
    shown = subprocess.run(["bpftool", "-j", "prog", "show"], capture_output=True, check=True)
    return {int(program["id"]) for program in json.loads(shown.stdout)}


def thread_status(pid: int, field: str) -> set[str]:
    """The values of one field of /proc/PID/task/*/status."""
    found = set()
    for task in os.listdir(f"/proc/{pid}/task"):
        text = pathlib.Path(f"/proc/{pid}/task/{task}/status").read_text()
        found.add(next(line.split()[1] for line in text.splitlines() if line.startswith(field + ":")))
    return found
