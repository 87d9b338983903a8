"""Starts and stops the demo's services: nginx, two Python services and Redis, on loopback, in a folder of their own.

They die with this process, however it dies. Ports are free ones of the moment; nothing on this machine is configured.
"""

import ctypes
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from deeptrace.errors import DeepTraceError

HERE = pathlib.Path(__file__).parent
START_TIMEOUT_S = 10.0  # a service that does not listen by then has failed; nginx and Redis need well under one second
STOP_TIMEOUT_S = 5.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h
N_CONNECTIONS_KEPT = 64  # nginx -> orders; at least as many as the load generator's connections
LIBC = ctypes.CDLL(None, use_errno=True)

NGINX_CONF = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
user root;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 100000000;
    upstream orders {{ server 127.0.0.1:{orders}; keepalive {kept}; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{nginx} backlog=512;
        location / {{ proxy_pass http://orders; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    }}
}}
"""


def free_ports(n: int) -> list[int]:
    """Distinct TCP ports of loopback that nobody uses at this moment."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [int(s.getsockname()[1]) for s in held]
    for s in held:
        s.close()
    return ports


def die_with_parent() -> None:
    """Between fork and exec: the kernel sends SIGTERM to this process when the demo ends, even by SIGKILL."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def start_process(command: Sequence[str], log: pathlib.Path, *, capture: bool = False) -> subprocess.Popen[str]:
    """Start a child in a session of its own (the terminal's Ctrl-C reaches only the demo, which stops all in order)."""
    with log.open("w") as stderr:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if capture else stderr,
            stderr=stderr,
            text=True,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


def stop_process(process: subprocess.Popen[str], timeout_s: float = STOP_TIMEOUT_S) -> int:
    """SIGTERM, then SIGKILL after timeout_s. Returns the exit code."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def children(pid: int) -> list[int]:
    """Direct children of a process now; none when it is gone."""
    try:
        return [int(c) for c in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def program(name: str, package: str) -> str:
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin")
    if path is None:
        raise DeepTraceError(
            f"the demo needs {name}; 'make demo' installs it, or: apt-get install --no-install-recommends {package}"
        )
    return path


class Services:
    """The four services. Each role is the name of a service: nginx, orders, stock, redis."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.ports: dict[str, int] = {}

    def start(self) -> None:
        """Start all and return when each of them listens. Raises DeepTraceError with the end of the log of one that does not."""
        nginx, redis = program("nginx", "nginx-light"), program("redis-server", "redis-server")
        self.ports = dict(zip(("nginx", "orders", "stock", "redis"), free_ports(4), strict=True))
        orders, stock, store = (str(self.ports[role]) for role in ("orders", "stock", "redis"))
        conf = self.folder / "nginx.conf"
        conf.write_text(NGINX_CONF.format(folder=self.folder, kept=N_CONNECTIONS_KEPT, **self.ports))
        python = sys.executable
        self._start("redis", redis, "--port", store, "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder))
        self._start("stock", python, "-I", str(HERE / "stock.py"), stock, store)
        self._start("orders", python, "-I", str(HERE / "orders.py"), orders, stock, store)
        self._start("nginx", nginx, "-p", str(self.folder), "-c", str(conf), "-e", "stderr")
        for role in self.processes:
            self._wait_until_listening(role)

    def _start(self, role: str, *command: str) -> None:
        self.processes[role] = start_process(command, self.folder / f"{role}.log")

    def _wait_until_listening(self, role: str) -> None:
        give_up = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < give_up and self.processes[role].poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.ports[role]), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        said = (self.folder / f"{role}.log").read_text().strip().splitlines()[-1:]
        raise DeepTraceError(f"the demo's {role} did not start on port {self.ports[role]}: {' '.join(said) or 'it said nothing'}")

    def roots(self) -> list[int]:
        """The process ids to trace; what they start is followed."""
        return [p.pid for p in self.processes.values()]

    def role_of_pid(self) -> dict[int, str]:
        """Which service a process id belongs to, nginx's worker included."""
        return {pid: role for role, p in self.processes.items() for pid in (p.pid, *children(p.pid))}

    def seed_redis(self, keys_and_values: dict[str, str]) -> None:
        """Fill Redis, before anything is traced."""
        with socket.create_connection(("127.0.0.1", self.ports["redis"])) as sock, sock.makefile("rb") as replies:
            pairs = list(keys_and_values.items())
            for first in range(0, len(pairs), 1000):
                some = [part.encode() for pair in pairs[first : first + 1000] for part in pair]
                sock.sendall(b"*%d\r\n$4\r\nMSET\r\n" % (len(some) + 1) + b"".join(b"$%d\r\n%b\r\n" % (len(b), b) for b in some))
                if replies.readline() != b"+OK\r\n":
                    raise DeepTraceError("the demo's Redis did not take its data")

    def stop(self) -> None:
        for process in reversed(self.processes.values()):
            stop_process(process)
