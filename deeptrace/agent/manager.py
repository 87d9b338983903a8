"""The agent: loads the probes, gives up every privilege, then runs source and sender until it is told to end.

The order of start-up is the point: nothing that traced processes wrote is parsed while the process holds a capability, and no
record is made before DeepTrace's own processes are denied.
"""

import logging
import resource
import signal
from collections.abc import Callable
from typing import Any

from deeptrace import clock
from deeptrace.agent import accounts
from deeptrace.agent.accounts import Account, Sources
from deeptrace.agent.batch import BatchMaker
from deeptrace.agent.capturing import Capturing, give_up_privileges
from deeptrace.agent.identity import identity
from deeptrace.agent.kernel_log import KernelLog
from deeptrace.agent.limits import LimitWriter
from deeptrace.agent.pidfilter import PidFilter
from deeptrace.agent.ports import listening_ports
from deeptrace.agent.procs import ProcessTable, ProcFiles
from deeptrace.agent.sender import Report, Sender
from deeptrace.agent.source import Source, Stages
from deeptrace.config import Settings, changed
from deeptrace.core.pipeline import Pipeline
from deeptrace.core.ring import Rings
from deeptrace.counters import PythonCounters
from deeptrace.errors import UsageError
from deeptrace.loader.client import Probes
from deeptrace.log import event
from deeptrace.registry import load_protocols
from deeptrace.wire import deeptrace_pb2 as pb

RELOADED = ("capture.", "agent.log_level")  # settings that apply() follows ...
NEEDS_RESTART = (
    "capture.ring_bytes",
    "capture.python",
    "capture.max_pids",
    "capture.max_threads",
    "capture.max_sockets",
)  # ... but for these
ACK_TIMEOUT_S = 5.0  # at the end, for the server to acknowledge what was sent

logger = logging.getLogger("deeptrace.agent")


class StopAsked(BaseException):
    """The end was asked for while the agent was starting; not an error, and nothing may swallow it."""


class Agent(Capturing):
    """start(), run() until stop() is called from a signal handler, finish(), close(). Main thread only."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.capture, server=settings.ship.server)
        self.settings = settings
        self.identity = identity(settings.agent.host, settings.capture.pid)
        self._python_counters = PythonCounters()
        self._account: Account | None = None
        self._starting = False
        self._reload_asked = False
        self._read_settings: Callable[[], Settings] | None = None
        self._log_level = logging.getLogger("deeptrace").level  # as the command line says
        self._sender: Sender | None = None
        self._source: Source | None = None

    def start(self) -> None:
        """Everything up to the first record. Raises ProbeError, UsageError, StopAsked; then nothing stays attached."""
        self._starting = True
        self._set_log_level(self.settings.agent.log_level)
        protocols = load_protocols()  # imports need no privilege, but their files may
        files = ProcFiles()
        try:
            probes, rings, pid_filter = self.attach(files)
            listening = listening_ports(files, pid_filter.traced or files.pids())
            give_up_privileges()
            processes = ProcessTable(files, self.settings.agent.service)
            learn_ports(processes, listening)
            self._build(probes, rings, protocols, pid_filter, processes)
            self.arm()
        except BaseException:
            self._starting = False
            self.close()
            raise
        self._starting = False
        for group, reason in probes.report.disabled.items():
            event(logger, logging.WARNING, "a group of probes is not available", group=group, reason=reason)

    def run(self) -> None:
        """Move records until stop()."""
        assert self._source is not None
        while not self._stopping:
            self._source.poll()
            if self._reload_asked:
                self._reload()

    def stop(self, *_: Any) -> None:
        """Ask run() to end; start() ends with StopAsked. For signal handlers: they run on the main thread."""
        self._stopping = True
        if self._starting:
            raise StopAsked
        self.wake()

    def reload_from(self, read_settings: Callable[[], Settings]) -> None:
        """Where ask_reload() gets the settings from. Without it there is nothing to reload, and ask_reload() is stop()."""
        self._read_settings = read_settings

    def ask_reload(self, *_: Any) -> None:
        """Ask run() to read the settings again and to follow them. For signal handlers."""
        if self._read_settings is None:
            self.stop()
            return
        self._reload_asked = True
        self.wake()

    def apply(self, settings: Settings) -> None:
        """Follow other settings from now on: all of [capture] that holds for running probes, and the log level. What needs a
        restart is named in the log and stays as it was. Raises UsageError; then nothing has changed. Between two polls only."""
        assert self._filters is not None
        self._filters.apply(settings.capture)
        self._pipeline.set_payload(settings.capture.payload_bytes, settings.capture.payload_max_bytes)
        self._set_log_level(settings.agent.log_level)
        fixed = [key for key in changed(self.settings, settings) if key in NEEDS_RESTART or not key.startswith(RELOADED)]
        if fixed:
            event(logger, logging.WARNING, "settings that take a restart were not followed", settings=" ".join(fixed))
        self._capture = settings.capture

    def finish(self) -> int:
        """Stop capturing, move and ship what is left, wait for the server. Returns the spans that it did not acknowledge."""
        assert self._probes is not None
        assert self._source is not None
        assert self._sender is not None
        self._probes.disarm()
        self._source.finish()
        left = self._sender.flush(ACK_TIMEOUT_S)
        self._take_account()
        self._sender.close()
        if left:
            event(
                logger,
                logging.WARNING,
                "the server did not acknowledge the last spans",
                spans=left,
                server=self.settings.ship.server,
            )
        return left

    def close(self) -> None:
        """Detach the probes and free everything. Idempotent."""
        self.release()

    def wait_connected(self, timeout_s: float) -> bool:
        """Whether the server has answered within timeout_s."""
        assert self._sender is not None
        end_ns = clock.monotonic_ns() + int(timeout_s * 1e9)
        while not self._stopping and clock.monotonic_ns() < end_ns:
            self.live()
            if self._sender.wait_welcome(0.1):
                return True
        return False

    def probes(self) -> dict[str, str]:
        """State of each group of probes: "attached" or why not."""
        assert self._probes is not None
        report = self._probes.report
        return {**dict.fromkeys(report.groups, "attached"), **report.disabled}

    def ledger(self) -> dict[str, Any]:
        """The last account: {"balanced", "equations", "counters", "events_lost"}; at most a second old while it runs."""
        account = self._account or self._take_account()
        return {
            "balanced": account.balanced,
            "equations": [
                {"name": b.name, "left": b.left, "right": b.right, "slack": b.slack, "balanced": b.balanced}
                for b in account.balances
            ],
            "counters": account.values,
            "events_lost": account.events_lost,
        }

    def _build(self, probes: Probes, rings: Rings, protocols: Any, pid_filter: PidFilter, processes: ProcessTable) -> None:
        settings, who = self.settings, self.identity
        pipeline = Pipeline(
            protocols=protocols,
            boot_id=who.boot_id,
            counters=self._core_counters,
            request_timeout_ns=int(settings.agent.request_timeout_s * 1e9),
            idle_ns=int(settings.agent.flow_idle_s * 1e9),
            max_flows=settings.agent.max_flows,
            capture_start_ns=clock.monotonic_ns(),
            payload_bytes=settings.capture.payload_bytes,
            payload_max_bytes=settings.capture.payload_max_bytes,
        )
        self._pipeline = pipeline
        self._filter = pid_filter
        self._sender = sender = Sender(
            settings.ship.server,
            who,
            queue_spans=settings.ship.queue_spans,
            counters=self._python_counters,
            on_welcome=self._deny_server,
        )
        stages = Stages(
            rings=rings,
            pipeline=pipeline,
            sender=sender,
            processes=processes,
            filter=pid_filter,
            batches=BatchMaker(processes, host=who.host, boot_id=who.boot_id),
            counters=self._python_counters,
            kernel_log=KernelLog() if probes.report.debug else None,
            limits=LimitWriter(probes.limits, self._python_counters),
        )
        self._source = Source(
            stages,
            drain_ms=settings.agent.drain_ms,
            batch_ms=settings.ship.batch_ms,
            batch_spans=settings.ship.batch_spans,
            every_second=self._every_second,
        )
        self._source.wake_on(self._wake_read)
        self._sources = Sources(
            kernel=probes.counters,
            calls_in_flight=probes.in_flight,
            core=lambda: self._core_counters.values,
            gauges=lambda: {**pipeline.gauges(), "records_in_ring": rings.waiting()},
            python=self._python_counters,
            delivery=sender.delivery,
            spans_held=lambda: pipeline.gauges()["spans_waiting"],
        )
        sender.start()

    def _set_log_level(self, name: str) -> None:
        logging.getLogger("deeptrace").setLevel(name.upper() or self._log_level)

    def _reload(self) -> None:
        assert self._read_settings is not None
        self._reload_asked = False
        self.slept()
        try:
            settings = self._read_settings()
            self.apply(settings)
        except UsageError as e:
            event(logger, logging.ERROR, "the settings stay as they were", reason=str(e))
            return
        event(logger, logging.INFO, "the settings were read again")

    def _every_second(self) -> None:
        assert self._filters is not None
        self.live()
        self._take_account()
        self._filters.refresh(clock.monotonic_ns())

    def _take_account(self) -> Account:
        assert self._sender is not None
        account = accounts.read_account(self._sources, clock.unix_ns())
        self._account = account
        values = {**account.values, **process_values(), **self._probe_values()}
        self._sender.report(Report(values, account.balances, account.time_ns))
        return account

    def _probe_values(self) -> dict[str, int]:
        """Tracepoints attached by group, as gauges "probe.GROUP"; 0: the group is not available."""
        if self._probes is None:
            return {}
        report = self._probes.report
        found = {f"probe.{group}": len(points) for group, points in report.groups.items()}
        return {**dict.fromkeys((f"probe.{group}" for group in report.disabled), 0), **found}

    def _deny_server(self, welcome: pb.Welcome) -> None:
        """A server on this host is never traced."""
        if welcome.pid and welcome.boot_id.replace("-", "") == self.identity.boot_id.replace("-", ""):
            self._filter.deny(welcome.pid)


def learn_ports(processes: ProcessTable, listening: dict[int, set[int]]) -> None:
    """Tell the process table who listens where, so that services of one name are told apart from their first span on."""
    now = clock.monotonic_ns()
    for pid, ports in listening.items():
        processes.get(pid, now)
        for port in ports:
            processes.serves(pid, port)


def process_values() -> dict[str, int]:
    """What the agent itself uses: CPU in ms, memory in bytes; gauges beside the ledger."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "agent_cpu_ms": int((usage.ru_utime + usage.ru_stime) * 1000),
        "agent_rss_peak_bytes": usage.ru_maxrss * 1024,
    }


def follow_signals(agent: Agent) -> None:
    """SIGTERM and SIGINT ask the agent to end, SIGHUP to read its settings again."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, agent.stop)
    signal.signal(signal.SIGHUP, agent.ask_reload)
