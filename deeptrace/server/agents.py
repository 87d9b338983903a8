"""Which agents there are and what their ledgers say. Holds the last report of each; the store keeps it over restarts."""

import threading

import msgspec
import pyarrow as pa

from deeptrace.ledger import Balance
from deeptrace.server.store.store import Store
from deeptrace.wire import deeptrace_pb2 as pb

MAX_AGENTS = 100_000  # reports of a few kB each; more hosts than one server is meant for


class Report(msgspec.Struct, kw_only=True, frozen=True):
    """The last heartbeat of one agent. connected: whether its stream is open now."""

    agent_id: str
    host: str
    boot_id: str
    pid: int
    tool_version: str
    epoch_ns: int
    time_ns: int = 0
    connected: bool = True
    values: dict[str, int] = {}
    balances: list[Balance] = []


class Agents:
    """Reports by agent id. Safe to call from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reports: dict[str, Report] = {}
        self._changed: set[str] = set()

    def load(self, store: Store) -> None:
        """Read the reports that the store kept."""
        for row in store.rows("SELECT agent_id, report FROM {db}.ledger FINAL"):
            try:
                report = msgspec.json.decode(row["report"], type=Report)
            except msgspec.MsgspecError:
                continue  # of another version; the agent's next heartbeat replaces it
            self._reports[row["agent_id"]] = msgspec.structs.replace(report, connected=False)

    def hello(self, hello: pb.Hello, now_ns: int) -> None:
        report = Report(
            agent_id=hello.agent_id, host=hello.host, boot_id=hello.boot_id, pid=hello.pid,
            tool_version=hello.tool_version, epoch_ns=hello.epoch_ns, time_ns=now_ns,
        )  # fmt: skip
        self._put(report)

    def heartbeat(self, agent_id: str, heartbeat: pb.Heartbeat) -> None:
        with self._lock:
            report = self._reports.get(agent_id)
        if report is not None:
            balances = [Balance(b.name, b.left, b.right, b.slack) for b in heartbeat.balances]
            values = {str(k): int(v) for k, v in heartbeat.values.items()}
            self._put(msgspec.structs.replace(report, time_ns=heartbeat.time_ns, values=values, balances=balances, connected=True))

    def gone(self, agent_id: str, epoch_ns: int) -> None:
        """The stream of this run of the agent ended."""
        with self._lock:
            report = self._reports.get(agent_id)
        if report is not None and report.epoch_ns == epoch_ns:
            self._put(msgspec.structs.replace(report, connected=False))

    def reports(self) -> list[Report]:
        with self._lock:
            return sorted(self._reports.values(), key=lambda r: r.agent_id)

    def save(self, store: Store, now_ns: int) -> None:
        """Write the reports that changed since the last call. Raises StoreError; they are written next time then."""
        with self._lock:
            changed, self._changed = self._changed, set()
            reports = [self._reports[agent_id] for agent_id in sorted(changed)]
        if not reports:
            return
        rows = pa.table(
            {
                "agent_id": [r.agent_id for r in reports],
                "host": [r.host for r in reports],
                "report": [msgspec.json.encode(r).decode() for r in reports],
                "revision": pa.array([now_ns] * len(reports), pa.uint64()),
            }
        )
        try:
            store.insert("ledger", rows)
        except BaseException:
            with self._lock:
                self._changed |= changed
            raise

    def _put(self, report: Report) -> None:
        with self._lock:
            if report.agent_id in self._reports or len(self._reports) < MAX_AGENTS:
                self._reports[report.agent_id] = report
                self._changed.add(report.agent_id)
