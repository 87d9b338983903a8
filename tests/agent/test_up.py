"""`deeptrace up` on this kernel: what it holds, what it traces, what it never traces, and what stays behind."""

import os
import signal
import subprocess
import time

import pytest
from real import DEEPTRACE, Up, get, loaded_programs, nginx, programs_of, thread_status, wait_until

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with nginx(tmp_path_factory.mktemp("nginx")) as found:
        yield found


@pytest.fixture(scope="module")
def up(tmp_path_factory, served):
    """Traces nginx and its worker, which runs already."""
    started = Up(tmp_path_factory.mktemp("up") / "data", "--pid", str(served[0]))
    yield started
    assert started.stop() == 0, started.errors.read_text()


def test_the_agent_holds_no_capability_and_cannot_gain_any(up):
    agent = up.ready["agent_pid"]
    assert thread_status(agent, "CapEff") == {"0" * 16}
    assert thread_status(agent, "CapPrm") == {"0" * 16}
    assert thread_status(agent, "CapBnd") == {"0" * 16}
    assert thread_status(agent, "NoNewPrivs") == {"1"}


def test_requests_to_a_worker_that_ran_before_are_spans_of_a_named_service(up, served):
    for i in range(23):
        assert get(served[1], f"/named/{i}") == 200
    spans = wait_until(lambda: [s for s in up.spans() if "/named/" in s["attributes"]["url.path"]][22:] and up.spans())
    named = [s for s in spans if "/named/" in s["attributes"]["url.path"]]
    assert len(named) == 23
    assert {(s["service"], s["kind"], s["local_port"]) for s in named} == {("nginx", "SERVER", served[1])}
    assert all(abs(s["process_start_ns"] - time.time_ns()) < 600e9 for s in named)


def test_the_ledger_balances_while_requests_come(up, served):
    assert get(served[1], "/balance") == 200
    ledger = wait_until(lambda: (found := up.agent_ledger())["values"].get("requests") and found)
    assert ledger["balanced"], ledger["balances"]
    assert ledger["events_lost"] == 0


def test_the_agent_is_small_and_idles_at_little_cost(up):
    before = up.agent_ledger()["values"]
    time.sleep(3)
    after = wait_until(lambda: (v := up.agent_ledger()["values"])["agent_cpu_ms"] > before["agent_cpu_ms"] and v, 3) or before
    assert after["agent_cpu_ms"] - before["agent_cpu_ms"] < 5 * 3 * 10  # 5 % of a CPU on a machine that others use, too
    assert after["agent_rss_peak_bytes"] < 150 << 20


def test_a_killed_server_is_started_again_and_nothing_is_lost(up, served):
    old = up.server_pid()
    os.kill(old, signal.SIGKILL)
    for i in range(29):
        assert get(served[1], f"/killed/{i}") == 200
    assert wait_until(lambda: up.server_pid() != old)
    stored = wait_until(lambda: len([s for s in up.spans() if "/killed/" in s["attributes"]["url.path"]]) == 29)
    assert stored, up.errors.read_text()
    assert "the server was killed by SIGKILL; starting it again" in up.errors.read_text()


def test_a_killed_agent_leaves_nothing_attached_and_ends_up_with_a_sentence(tmp_path, served):
    up = Up(tmp_path / "data", "--pid", str(served[0]))
    programs = programs_of(up.ready["agent_pid"])
    assert programs <= loaded_programs()
    os.kill(up.ready["agent_pid"], signal.SIGKILL)
    assert up.process.wait(30) == 1
    assert "the agent was killed by SIGKILL" in up.errors.read_text()
    assert wait_until(lambda: not programs & loaded_programs())


def test_its_own_traffic_is_never_traced_and_ctrl_c_ends_it(tmp_path):
    up = Up(tmp_path / "data")
    ports = {int(up.ready[name].rsplit(":", 1)[1]) for name in ("grpc", "http")}
    for _ in range(3):
        for verb in ("services", "doctor"):
            subprocess.run([*DEEPTRACE, verb, "--data", str(up.data), "--json"], check=True, stdout=subprocess.DEVNULL)
    time.sleep(1)
    up.api("health")  # by this process, which is not DeepTrace's: its own side may be traced, the server's never
    time.sleep(1)
    spans = up.spans()
    assert [s for s in spans if s["comm"] == "deeptrace" or s["local_port"] in ports] == []
    agent = up.api("doctor")["agents"][0]
    assert agent["values"].get("records_filtered", 0) == 0  # the probes keep them out
    assert agent["balanced"], agent["balances"]
    assert up.stop(signal.SIGINT) == 0
