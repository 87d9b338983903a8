"""What a running agent is to its host: it can be asked, it can be switched off at once, and when it hangs its probes stop."""

import contextlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time

import pytest
from real import DEEPTRACE, Up, loaded_programs, programs_of, wait_until

from deeptrace.agent.local import LocalAgent, find_agents
from deeptrace.core.wire import COUNTS_DTYPE
from deeptrace.counters import NUMBERS
from deeptrace.loader import bpf_objects, map_calls
from deeptrace.loader.rings import cpu_numbers

pytestmark = pytest.mark.kernel

SAID = re.compile(
    r"debug +probes: socket ffff\w+ moves its first bytes of this direction by (sendto|recvfrom).* line=SOCKET_NEW cpu=\d+ pid=\d+"
)

TALKER = """
import socket, time
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server = listener.accept()[0]
while True:
    client.send(b"x" * 64)
    server.recv(64)
    time.sleep(0.01)
"""


@contextlib.contextmanager
def talker():
    """A process that moves 100 messages a second over a connection with itself."""
    process = subprocess.Popen([sys.executable, "-c", TALKER])
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def traced():
    with talker() as pid:
        yield pid


@pytest.fixture
def up(tmp_path, traced):
    """An agent with its server that traces the talker."""
    started = Up(tmp_path / "data", "--pid", str(traced))
    yield started
    with contextlib.suppress(ProcessLookupError):
        os.kill(started.ready["agent_pid"], signal.SIGCONT)
    started.stop()


def run(*arguments):
    ran = subprocess.run([*DEEPTRACE, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout, ran.stderr
    return json.loads(ran.stdout)


class Outside:
    """An agent's counters, read without asking it."""

    def __init__(self, pid: int) -> None:
        agent: LocalAgent = next(agent for agent in find_agents() if agent.pid == pid)
        self.fd = next(fd for fd in map(bpf_objects.map_by_id, sorted(agent.maps)) if bpf_objects.map_name(fd) == "COUNTERS")

    def calls(self) -> int:
        rows = (map_calls.map_lookup(self.fd, struct.pack("=i", cpu), COUNTS_DTYPE.itemsize) for cpu in cpu_numbers("online"))
        return sum(struct.unpack_from("=Q", row, 8 * NUMBERS["calls"])[0] for row in rows if row)

    def moves_on(self, within_s: float) -> bool:
        before = self.calls()
        return bool(wait_until(lambda: self.calls() > before, within_s))

    def close(self) -> None:
        os.close(self.fd)


def test_a_running_agent_is_asked_stops_when_it_hangs_and_is_switched_off(up):
    """One agent for all three: loading the probes takes seconds."""
    pid = up.ready["agent_pid"]
    report = run("doctor", "--json", "--server", up.ready["http"])
    status = next(status for status in report["probes"] if status["pid"] == pid)
    assert status["selftest"]["passed"], status["selftest"]
    assert {"socket_io", "conn", "proc"} <= set(status["groups"])
    runs = {program["name"]: program["runs_then"] for program in status["programs"]}
    assert runs["dt_enter_sendto"] >= 20
    assert runs["dt_exit_sendto"] >= 20
    sendto = next(program for program in status["programs"] if program["name"] == "dt_exit_sendto")
    assert sendto["run_ns_then"] > 0
    assert 0 < status["maps"]["PIDS"]["entries"] <= status["maps"]["PIDS"]["most"]
    assert status["maps"]["SOCKETS"]["bytes"] > 0

    outside = Outside(pid)
    os.kill(pid, signal.SIGSTOP)
    assert outside.moves_on(2)
    assert wait_until(lambda: not outside.moves_on(0.5), 8)
    stopped_at = outside.calls()
    time.sleep(0.5)  # 50 messages of the talker, of which no hook takes notice
    assert outside.calls() == stopped_at
    os.kill(pid, signal.SIGCONT)
    assert outside.moves_on(5)
    outside.close()
    assert wait_until(lambda: "its probes stopped by themselves" in up.errors.read_text())
    assert wait_until(lambda: up.agent_ledger()["values"]["lapsed"] > 0)
    assert up.agent_ledger()["balanced"], up.agent_ledger()

    programs = programs_of(pid)
    assert programs
    (done,) = run("off", "--pid", str(pid), "--json")["agents"]
    assert (done["pid"], done["how"], done["detached"]) == (pid, "asked", True)
    assert done["probes"] >= 30
    assert done["seconds"] < 3  # 0.1-0.2 on a quiet host
    assert programs.isdisjoint(loaded_programs())
    assert up.process.wait(40) == 1  # `up` says that its agent is gone
    assert "the agent ended with code 0" in up.errors.read_text()


def test_an_agent_shows_what_its_probes_say_and_when_it_hangs_it_is_disarmed_and_killed(tmp_path, traced):
    command = [*DEEPTRACE, "-vv", "agent", "--server", "127.0.0.1:1", "--pid", str(traced), "--json"]
    errors = tmp_path / "stderr"
    with errors.open("wb") as sink, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sink) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline(), errors.read_text()
        assert wait_until(lambda: SAID.search(errors.read_text())), errors.read_text()
        programs = programs_of(agent.pid)
        outside = Outside(agent.pid)
        assert outside.moves_on(5)
        agent.send_signal(signal.SIGSTOP)
        (done,) = run("off", "--pid", str(agent.pid), "--json")["agents"]
        assert (done["how"], done["detached"]) == ("killed", True)
        assert done["seconds"] < 5
        assert agent.wait(10) == -signal.SIGKILL
    assert programs.isdisjoint(loaded_programs())
    stopped_at = outside.calls()
    time.sleep(0.2)
    assert outside.calls() == stopped_at
    outside.close()


def test_nothing_is_done_where_no_agent_runs():
    assert run("off", "--pid", "1", "--json") == {"agents": []}
