"""One run of the demo, from starting the services to the summary. Tells its progress through callbacks; prints nothing."""

import contextlib
import pathlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from deeptrace import clock
from deeptrace.demo import show
from deeptrace.demo.children import Cost, LoadProcess, Tracing, cpu_s_of
from deeptrace.demo.load import order_id
from deeptrace.demo.reading import Api, Report, wait_for_rest
from deeptrace.demo.services import Services
from deeptrace.demo.truth import CERTAIN_LINKS, Findings, compare

SETTLE_S = 4.0  # the correlator judges evidence on spans older than 2 s; a request of the demo takes milliseconds
STILL_S = 3.5  # longer than the pause until the correlator begins to trust an event loop
LOOK_S = 0.5  # how often the live table is read
LAST_LOOKS = 10  # batches are sent every 200 ms, so two looks are enough unless the machine is busy
LOAD_SLACK_S = 30.0  # how much longer than planned the load may take


@dataclass
class Costs:
    """Processor seconds of each part during the load, and the agent's most memory."""

    agent: Cost = field(default_factory=Cost)
    server_cpu_s: float = 0.0
    services_cpu_s: float = 0.0


class Play:
    """Holds everything that runs; use as a context manager. tell: called with each step in words."""

    def __init__(
        self, folder: pathlib.Path, *, seconds: float, rate: float, n_connections: int, tell: Callable[[str], None]
    ) -> None:
        self.folder, self.tell = folder, tell
        self.seconds, self.rate, self.n_connections = seconds, rate, n_connections
        self.n_requests = round(seconds * rate)
        self.stack = contextlib.ExitStack()
        self.services = Services(folder)
        self.tracing: Tracing | None = None

    def __enter__(self) -> "Play":
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def prepare(self) -> Api:
        """Start services and DeepTrace. Returns its API once the probes are attached."""
        self.tell("starting nginx, orders, stock and redis")
        self.stack.callback(self.services.stop)
        self.services.start()
        orders = {f"order:{order_id(i)}": f'{{"item": "lamp", "pieces": {i % 9 + 1}}}' for i in range(self.n_requests)}
        stock = {f"stock:{order_id(i)}": f'{{"item": "lamp", "left": {i % 90}}}' for i in range(self.n_requests)}
        self.services.seed_redis(orders | stock)
        self.tell("starting DeepTrace beside them: deeptrace up --pid ...")
        self.tracing = Tracing(self.folder, self.services.roots(), SETTLE_S)
        self.stack.callback(self.tracing.stop)
        self.tracing.wait_ready()
        return Api(self.tracing.http)

    def load(self, api: Api, look: Callable[[list[dict[str, Any]], float, dict[str, Any]], None]) -> dict[str, Any]:
        """Run the load. look(rows of services, seconds since the last look, the generator's report) is called while it runs
        and once after it, with 0 seconds. Returns the generator's last report."""
        self.tell(f"sending {self.rate:,.0f} requests a second for {self.seconds:g} s over {self.n_connections} connections")
        self.began_ns = clock.unix_ns()
        self.before = self._costs()
        load = LoadProcess(self.folder, self.services.ports["nginx"], self.rate, self.seconds, self.n_connections)
        self.stack.callback(load.stop)
        looked = time.monotonic()
        give_up = looked + self.seconds + LOAD_SLACK_S
        while not load.wait(LOOK_S) and time.monotonic() < give_up:
            now = time.monotonic()
            look(api.services(self.began_ns), now - looked, load.last)
            looked = now
        load.stop()
        look(self._last_rows(api), 0.0, load.last)
        return load.last

    def _last_rows(self, api: Api) -> list[dict[str, Any]]:
        """The services once no more of their requests come in."""
        rows = api.services(self.began_ns)
        for _ in range(LAST_LOOKS):
            time.sleep(LOOK_S)
            before, rows = rows, api.services(self.began_ns)
            if sum(row["requests"] for row in rows) == sum(row["requests"] for row in before):
                break
        return rows

    def finish(self, api: Api, load: dict[str, Any]) -> tuple[dict[str, Any], Findings]:
        """Wait for the last spans and links, compare with what was sent. Returns the summary and the findings."""
        self.tell("waiting until all spans are stored and linked")
        report = wait_for_rest(lambda: Report(api.json("doctor")), still_s=STILL_S)
        costs = self._costs()
        self.tell("comparing every trace with its request")
        found = compare(api.spans(self.began_ns), self.services.role_of_pid())
        return self._summary(load, report, found, costs), found

    def _costs(self) -> Costs:
        assert self.tracing is not None
        return Costs(self.tracing.agent_cost(), self.tracing.server_cost().cpu_s, cpu_s_of(self.services.role_of_pid()))

    def _summary(self, load: dict[str, Any], report: Report, found: Findings, costs: Costs) -> dict[str, Any]:
        agent_cpu_s = costs.agent.cpu_s - self.before.agent.cpu_s
        return {
            "requests_sent": load["sent"],
            "requests_captured": found.requests_captured,
            "requests_failed": load["failed"] + self.n_requests - load["sent"],
            "spans_by_service": dict(sorted(found.spans_by_service.items())),
            "traces_complete": found.traces_complete,
            "traces_incomplete": found.traces_incomplete,
            "traces_wrong": found.traces_wrong,
            "incomplete_because": dict(found.incomplete_because.most_common()),
            "links": show.counted(found.links),
            "spans_unexpected": found.spans_unexpected,
            "events_lost": report.events_lost,
            "losses": report.losses,
            "ledger_balanced": report.balanced,
            "unbalanced": report.unbalanced,
            "agent_cpu_s": round(agent_cpu_s, 3),
            "agent_cpu_share": round(agent_cpu_s / self.seconds, 4),
            "agent_rss_peak_bytes": costs.agent.rss_peak_bytes,
            "server_cpu_s": round(costs.server_cpu_s - self.before.server_cpu_s, 3),
            "services_cpu_s": round(costs.services_cpu_s - self.before.services_cpu_s, 3),
            "load_cpu_s": round(load["cpu_s"], 3),
            "latency_ms": {"p50": load["p50_ms"], "p99": load["p99_ms"]},
        }


def complaints(summary: dict[str, Any]) -> list[str]:
    """Why a run did not do what the demo promises, one sentence each; empty when it did."""
    said = []
    sent, captured = summary["requests_sent"], summary["requests_captured"]
    if captured != sent:
        said.append(f"{captured} requests were captured of {sent} sent")
    if summary["requests_failed"]:
        said.append(f"{summary['requests_failed']} requests failed")
    if summary["events_lost"]:
        said.append(f"{summary['events_lost']} events were lost ({', '.join(summary['losses'])})")
    if not summary["ledger_balanced"]:
        said.append(f"the ledger does not balance ({'; '.join(summary['unbalanced']) or 'no agent has reported'})")
    if summary["traces_wrong"]:
        said.append(f"{summary['traces_wrong']} traces have a wrong parent")
    for link in CERTAIN_LINKS:
        missing = captured - summary["links"].get(link, {}).get("right", 0)
        if missing:
            said.append(f"{missing} links '{link}' were not made, which need no guess")
    return said
