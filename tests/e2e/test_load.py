"""At full speed, every request is a span, or the ledger says how many were lost and where."""

import json
import re
import subprocess

from running import DEEPTRACE, Started, Tool, wait_for

from deeptrace.counters import events_lost

SECONDS = 4


def at_rest(up: Tool) -> dict[str, int]:
    """The agent's counters when everything that was captured is stored and the ledger balances."""

    def settled() -> dict[str, int] | None:
        report = up.doctor()
        counters: dict[str, int] = report["agents"][0]["counters"] if report["agents"] else {}
        made = sum(counters.get(name, 0) for name in ("spans_paired", "spans_incomplete"))
        done = sum(counters.get(name, 0) for name in ("spans_acked", "queue_dropped", "spans_filtered", "spans_rejected"))
        return counters if report["balanced"] and 0 < made == done and not counters.get("requests_open") else None

    return wait_for("all spans stored and a balanced ledger", settled, timeout_s=60, pause_s=1)


def test_wrk_on_nginx_spans_are_requests_or_the_ledger_says_what_was_lost(started: Started) -> None:
    n_connections = 16
    master, port = started.nginx()
    up = started.up(master.pid)
    command = ["wrk", "-t1", f"-c{n_connections}", f"-d{SECONDS}s", f"http://127.0.0.1:{port}/"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    n_requests = int(re.findall(r"(\d+) requests in", said)[0])
    counters = at_rest(up)
    n_spans, lost = counters["spans_acked"], events_lost(counters)
    print(f"wrk: {n_requests} requests, {n_spans} spans, {lost} lost")
    assert n_requests > 1000
    if lost == 0:  # wrk ends in mid-request on each connection: these it does not count
        assert n_requests <= n_spans <= n_requests + n_connections


def test_redis_benchmark_pipelined_spans_are_commands_or_the_ledger_says_what_was_lost(started: Started) -> None:
    n_commands = 100_000
    process, port = started.redis()
    up = started.up(process.pid)
    command = ["redis-benchmark", "-p", str(port), "-P", "16", "-n", str(n_commands), "-t", "set,get", "-q", "--csv"]
    subprocess.run(command, capture_output=True, check=True, timeout=60)
    counters = at_rest(up)
    n_spans, lost = counters["spans_acked"], events_lost(counters)
    print(f"redis-benchmark: {2 * n_commands} commands, {n_spans} spans, {lost} lost")
    if lost == 0:  # it also asks for the configuration, once per connection at most
        assert 2 * n_commands <= n_spans <= 2 * n_commands + 200


def test_the_demo_captures_what_it_sends() -> None:
    ran = subprocess.run([DEEPTRACE, "demo", "--seconds", "4", "--json"], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    summary = json.loads(ran.stdout.splitlines()[-1])
    assert summary["requests_sent"] == summary["requests_captured"] == 4000
    assert summary["traces_wrong"] == summary["events_lost"] == summary["requests_failed"] == summary["spans_unexpected"] == 0
    assert summary["ledger_balanced"] is True
    assert summary["traces_complete"] + summary["traces_incomplete"] == 4000
    for link in (
        "nginx to orders > orders",
        "orders > orders to redis",
        "orders to redis > redis for orders",
        "orders > orders to stock",
    ):
        assert summary["links"][link] == {"right": 4000}, link
    assert summary["agent_cpu_s"] > 0
    assert summary["agent_rss_peak_bytes"] > 1 << 20
