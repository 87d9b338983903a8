"""The demo's other processes: DeepTrace itself, the load generator, and what processes cost. Knows nothing of spans."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from deeptrace.demo.services import start_process, stop_process
from deeptrace.errors import DeepTraceError

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
READY_TIMEOUT_S = 120.0  # `up` gives itself 150 s on a slow machine; compiling the probes takes 3 s here
STOP_TIMEOUT_S = 30.0  # the server writes its store to the end


@dataclass(frozen=True)
class Cost:
    """What a process has used so far."""

    cpu_s: float = 0.0
    rss_peak_bytes: int = 0


def cost_of(pid: int) -> Cost:
    """Processor time and peak memory of a process with all its threads; nothing when it is gone."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return Cost()
    peak_kib = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)
    return Cost((int(fields[11]) + int(fields[12])) / TICKS_PER_S, peak_kib * 1024)  # proc(5): utime, stime


def cpu_s_of(pids: Iterable[int]) -> float:
    return sum(cost_of(pid).cpu_s for pid in pids)


class Tracing:
    """`deeptrace up` of some processes, with a store of its own that goes with the demo's folder."""

    def __init__(self, folder: pathlib.Path, pids: Iterable[int], settle_s: float) -> None:
        self.log = folder / "up.log"
        chosen = [part for pid in pids for part in ("--pid", str(pid))]
        places = ["--data", str(folder / "data"), "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        command = [
            sys.executable,
            "-P",
            "-m",
            "deeptrace.cli",
            "up",
            "--json",
            *chosen,
            *places,
            "--set",
            f"server.settle_s={settle_s:g}",
        ]
        self.process = start_process(command, self.log, capture=True)
        self.ready: dict[str, Any] = {}

    def wait_ready(self) -> None:
        """Returns when the probes are attached. Raises DeepTraceError with what `up` said if it ended before."""
        assert self.process.stdout is not None
        timer = threading.Timer(READY_TIMEOUT_S, self.process.kill)
        timer.start()
        try:
            for line in self.process.stdout:
                with contextlib.suppress(json.JSONDecodeError):
                    found = json.loads(line)
                    if isinstance(found, dict) and found.get("event") == "ready":
                        self.ready = found
                        return
        finally:
            timer.cancel()
        said = self.log.read_text().strip().splitlines()[-1:]
        raise DeepTraceError(" ".join(said).removeprefix("deeptrace: ") or "'deeptrace up' ended before it was ready")

    @property
    def http(self) -> str:
        return str(self.ready["http"])

    def agent_cost(self) -> Cost:
        return cost_of(self.ready["agent_pid"])

    def server_cost(self) -> Cost:
        return cost_of(self.ready["server_pid"])

    def stop(self) -> None:
        stop_process(self.process, STOP_TIMEOUT_S)


class LoadProcess:
    """The load generator as a child. `last` is its newest report."""

    def __init__(self, folder: pathlib.Path, port: int, rate: float, seconds: float, n_connections: int) -> None:
        self.log = folder / "load.log"
        arguments = [str(port), str(rate), str(seconds), str(n_connections)]
        self.process = start_process([sys.executable, "-P", "-m", "deeptrace.demo.load", *arguments], self.log, capture=True)
        self.last: dict[str, Any] = {"sent": 0, "answered": 0, "failed": 0, "p50_ms": None, "p99_ms": None, "cpu_s": 0.0}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.last = json.loads(line)

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended within timeout_s. Raises DeepTraceError if it failed."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        self._reader.join()
        if code:
            said = self.log.read_text().strip().splitlines()[-1:]
            raise DeepTraceError(f"the demo's load generator failed: {' '.join(said)}")
        return True

    def stop(self) -> None:
        stop_process(self.process)
