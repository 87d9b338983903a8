"""Starts the tool as a user does, and real servers beside it. Everything started here is stopped at the end of its test."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from deeptrace.demo.services import free_ports, start_process, stop_process

HERE = pathlib.Path(__file__).parent
DEEPTRACE = str(pathlib.Path(sys.executable).parent / "deeptrace")
READY_S = 60.0  # compiling the probes takes 3 s, on a busy small machine several times that
SETTLE_S = 20.0
T = TypeVar("T")


def wait_for(what: str, condition: Callable[[], T], timeout_s: float = SETTLE_S, pause_s: float = 0.2) -> T:
    """Poll until condition() is true; returns what it returned. Fails the test after timeout_s, naming `what`."""
    give_up = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < give_up, f"not within {timeout_s:g} s: {what}"
        time.sleep(pause_s)
    return found


class Tool:
    """A running `deeptrace up|agent|server --json`: its ready line, its log, and questions to its server."""

    def __init__(self, folder: pathlib.Path, *arguments: str, command: Sequence[str] = (DEEPTRACE,), name: str = "") -> None:
        self.log = folder / f"{name or arguments[0]}.log"
        self.process = start_process([*command, *arguments, "--json"], self.log, capture=True)
        self.ready = self._read_ready()
        self._drain = threading.Thread(target=self._read_rest, daemon=True)
        self._drain.start()

    def _read_ready(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        timer = threading.Timer(READY_S, self.process.kill)
        timer.start()
        try:
            for line in self.process.stdout:
                if '"ready"' in line:
                    return dict(json.loads(line))
        finally:
            timer.cancel()
        raise AssertionError(f"{self.log.stem} was not ready: {self.log.read_text()[-2000:]}")

    def _read_rest(self) -> None:
        assert self.process.stdout is not None
        for _ in self.process.stdout:
            pass

    def ask(self, *arguments: str) -> str:
        """stdout of `deeptrace ARGUMENTS --server ...`."""
        return run_tool(*arguments, "--server", str(self.ready["http"]))

    def spans(self, *arguments: str) -> list[dict[str, Any]]:
        """Spans of the last ten minutes, as the command line prints them."""
        return [
            json.loads(line) for line in self.ask("spans", "--since", "600", "--limit", "100000", "--json", *arguments).splitlines()
        ]

    def paths(self) -> set[str]:
        """url.path of all its spans; none while its server does not answer."""
        if run_tool("doctor", "--server", str(self.ready["http"]), "--json", check=False) == "":
            return set()
        return {s["attributes"]["url.path"] for s in self.spans() if "url.path" in s["attributes"]}

    def doctor(self) -> dict[str, Any]:
        return dict(json.loads(self.ask("doctor", "--json").splitlines()[-1]))

    def counters(self) -> dict[str, int]:
        """The counters of its agent, once it has reported."""
        return dict(wait_for("an agent's report", lambda: self.doctor()["agents"])[0]["counters"])

    def stop(self, timeout_s: float = 20.0) -> int:
        return stop_process(self.process, timeout_s)


def run_tool(*arguments: str, check: bool = True, timeout_s: float = 60.0) -> str:
    ran = subprocess.run([DEEPTRACE, *arguments], capture_output=True, text=True, timeout=timeout_s, check=False)
    assert not check or ran.returncode == 0, f"deeptrace {' '.join(arguments)}: exit {ran.returncode}: {ran.stderr[-2000:]}"
    return ran.stdout


class Started:
    """What a test has started; stopped in reverse order."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.stack = contextlib.ExitStack()

    def tool(self, *arguments: str, name: str = "", command: Sequence[str] = (DEEPTRACE,)) -> Tool:
        tool = Tool(self.folder, *arguments, name=name, command=command)
        self.stack.callback(tool.stop)
        return tool

    def up(self, *pids: int, options: Sequence[str] = ()) -> Tool:
        """`deeptrace up` of some processes (none: all), with a store in the test's folder and links that settle soon."""
        chosen = [part for pid in pids for part in ("--pid", str(pid))]
        data = [] if "--data" in options else ["--data", str(self.folder / "data")]
        places = ["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--set", "server.settle_s=1", *data]
        return self.tool("up", *chosen, *places, *options)

    def process(self, *command: str, name: str) -> subprocess.Popen[str]:
        process = start_process(command, self.folder / f"{name}.log")
        self.stack.callback(lambda: kill(process))
        return process

    def python(self, script: str, *arguments: object, name: str = "") -> subprocess.Popen[str]:
        """A Python program of this folder, as a process that may be traced."""
        path = str(HERE / "programs" / f"{script}.py")
        return self.process(sys.executable, "-I", path, *map(str, arguments), name=name or script)

    def server(self) -> tuple[subprocess.Popen[str], int]:
        """programs/server.py, listening. Returns it and its port."""
        (port,) = free_ports(1)
        process = self.python("server", port)
        wait_listening(port)
        return process, port

    def nginx(self) -> tuple[subprocess.Popen[str], int]:
        """nginx with one worker that answers 200 by itself. Returns the master and the port."""
        (port,) = free_ports(1)
        conf = self.folder / "nginx.conf"
        temps = "".join(f"{kind}_temp_path {self.folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        conf.write_text(
            f"daemon off; user root; worker_processes 1; pid {self.folder}/nginx.pid; error_log stderr;"
            "events { worker_connections 1024; }"
            f"http {{ access_log off; keepalive_requests 100000000; {temps}"
            f'server {{ listen 127.0.0.1:{port}; location / {{ return 200 "hello"; }} }} }}'
        )
        process = self.process("/usr/sbin/nginx", "-p", str(self.folder), "-c", str(conf), "-e", "stderr", name="nginx")
        wait_listening(port)
        return process, port

    def redis(self) -> tuple[subprocess.Popen[str], int]:
        (port,) = free_ports(1)
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        process = self.process("redis-server", *options, name="redis")
        wait_listening(port)
        return process, port


def kill(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.kill(process.pid, signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_listening(port: int) -> None:
    wait_for(f"a listener on port {port}", lambda: listens(port), timeout_s=10, pause_s=0.02)


def http_get(port: int, path: str, *, headers: Sequence[str] = (), timeout_s: float = 10.0) -> bytes:
    """One request on a connection of its own, from this process; the whole answer."""
    lines = [f"GET {path} HTTP/1.1", "Host: test", "Connection: close", *headers, "", ""]
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as sock:
        sock.sendall("\r\n".join(lines).encode())
        return b"".join(iter(lambda: sock.recv(1 << 20), b""))


def iter_rows(folder: pathlib.Path) -> Iterator[tuple[pathlib.Path, bytes]]:
    """Every file below a folder with its bytes."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with contextlib.suppress(OSError):
                yield path, path.read_bytes()
