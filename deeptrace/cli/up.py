"""`deeptrace up`: an agent and a server of its own, the way to try DeepTrace. Starts, watches and stops the two."""

import json as jsonlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from deeptrace.cli import _children
from deeptrace.cli._options import FILTERS, JsonOption, settings_options
from deeptrace.config import Settings, assignments
from deeptrace.errors import DeepTraceError

SERVER_READY_S = 60.0  # the store of a full disk is slow to open
AGENT_READY_S = 90.0  # compiling the probes takes 3 s, on a busy small machine much longer
RESTARTS = 5  # of a server that keeps dying
RESTARTS_WITHIN_S = 60.0
RESTART_PAUSE_S = 0.2  # for the ports of the dead server to be free again


@settings_options(*FILTERS, "capture.payload_bytes", "server.data", "server.grpc", "server.http", "agent.service")
def command(settings: Settings, json: JsonOption = False) -> int:
    """Trace this machine: start a server and an agent, and stop both with Ctrl-C.

    Everything that these processes say to each other over HTTP/1 and Redis becomes spans, without touching them. Without --pid
    every process of this machine is traced.

    Example:
      deeptrace up                               trace everything; then, in another terminal: deeptrace tail
      deeptrace up --pid 1234 --data /tmp/try    trace one process and its children
    """
    return _Up(settings, _children.Signals(), as_json=json).run()


class _Up:
    def __init__(self, settings: Settings, signals: _children.Signals, *, as_json: bool) -> None:
        self.settings = settings
        self.signals = signals
        self.as_json = as_json
        self.flags = [a for a in _verbosity() if a]
        self.place: dict[str, Any] = {}  # the server's ready line
        self.server: subprocess.Popen[bytes] | None = None
        self.agent: subprocess.Popen[bytes] | None = None
        self.restarts: list[float] = []

    def run(self) -> int:
        from deeptrace.loader.client import check_privilege

        check_privilege()  # before a server is started for nothing
        try:
            code = self._start()
            return code if code is not None else self._watch()
        finally:
            for child in (self.agent, self.server):  # in this order: the agent's last spans need the server
                if child is not None:
                    _children.stop(child)

    def _start(self) -> int | None:
        """Start both and say so; the exit code if that failed or was interrupted."""
        server = self.settings.server
        self.server, ready = self._start_server(server.grpc, server.http)
        if ready is None:
            return self._ended_early(self.server)
        self.place = ready
        agent = ["agent", "--server", ready["grpc"], "--http", ready["http"], "--json"]
        self.agent = _children.start_verb([*self.flags, *agent, *self._sets()], group=self.server.pid)
        found = _children.read_ready(self.agent, AGENT_READY_S, self.signals)
        if found is None:
            return self._ended_early(self.agent)
        if not found.get("connected"):
            raise DeepTraceError(f"the agent does not reach the server that was just started at {ready['grpc']}")
        self._tell_ready(found)
        return None

    def _start_server(self, grpc: str, http: str) -> tuple[subprocess.Popen[bytes], dict[str, Any] | None]:
        arguments = ["server", "--grpc", grpc, "--http", http, "--data", self.settings.server.data, "--json"]
        child = _children.start_verb([*self.flags, *arguments, *self._sets()])
        self.server = child
        return child, _children.read_ready(child, SERVER_READY_S, self.signals)

    def _sets(self) -> list[str]:
        """--set options that give a child our settings; addresses and folder are given apart."""
        skipped = ("server.grpc=", "server.http=", "server.data=", "ship.server=")
        kept = [a for a in assignments(self.settings) if not a.startswith(skipped)]
        return [part for a in kept for part in ("--set", a)]

    def _ended_early(self, child: subprocess.Popen[bytes]) -> int:
        """A child ended before it was ready; it has said why, unless we or someone else stopped it."""
        if self.signals.end_asked:
            return 0
        code = child.wait()
        if code < 0:
            raise DeepTraceError(f"a process of deeptrace {_children.describe_end(code)} while it started")
        return code or 1

    def _tell_ready(self, agent: dict[str, Any]) -> None:
        assert self.server is not None
        ready = {
            "event": "ready",
            "pid": os.getpid(),
            "grpc": self.place["grpc"],
            "http": self.place["http"],
            "data": self.place["data"],
            "agent_pid": agent["pid"],
            "server_pid": self.server.pid,
            "probes": agent.get("probes"),
        }
        if self.as_json:
            print(jsonlib.dumps(ready), flush=True)
            return
        option = "" if self.place["http"] == Settings().server.http else f" --server {self.place['http']}"
        c = self.settings.capture
        traced = "what the filters allow" if c.pid or c.comm or c.exe or c.cgroup else "every process"
        lines = [
            f"Tracing {traced} of this machine; data in {self.place['data']}, query API at http://{self.place['http']}",
            "",
            f"  deeptrace tail{option}        spans as they come",
            f"  deeptrace traces{option}      recent traces; then: deeptrace trace ID{option}",
            f"  deeptrace services{option}    who talks to whom, how fast",
            f"  deeptrace doctor{option}      whether anything was lost",
            "",
            "Ctrl-C ends it.",
        ]
        print("\n".join(lines), flush=True)

    def _watch(self) -> int:
        """Until the end is asked for: restart a dead server, end with a dead agent."""
        assert self.server is not None
        assert self.agent is not None
        while not self.signals.end_asked:
            if self.agent.poll() is not None:
                _children.stop(self.server)
                raise DeepTraceError(
                    f"the agent {_children.describe_end(self.agent.returncode)}; the server was stopped, its data is kept"
                )
            if self.server.poll() is not None:
                self._restart_server(_children.describe_end(self.server.returncode))
            self.signals.wait()
        return 0

    def _restart_server(self, how: str) -> None:
        """The same server at the same addresses, so that the agent finds it again; it holds its spans meanwhile."""
        now = time.monotonic()
        self.restarts = [t for t in self.restarts if now - t < RESTARTS_WITHIN_S] + [now]
        if len(self.restarts) > RESTARTS:
            raise DeepTraceError(f"the server {how} for the {RESTARTS + 1}th time within {RESTARTS_WITHIN_S:g} s; giving up")
        print(f"deeptrace: the server {how}; starting it again", file=sys.stderr, flush=True)
        time.sleep(RESTART_PAUSE_S)
        _, ready = self._start_server(self.place["grpc"], self.place["http"])
        if ready is not None:
            print(f"deeptrace: the server is back at {ready['grpc']}", file=sys.stderr, flush=True)


def _verbosity() -> Sequence[str]:
    """-v as our children understand it, from how loud our own log is."""
    import logging

    level = logging.getLogger("deeptrace").level
    return ["-vv"] if level <= logging.DEBUG else ["-v"] if level <= logging.INFO else []
