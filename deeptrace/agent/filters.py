"""What the settings let the probes trace, kept true while programs are replaced and containers come and go.

Resolves the filters of the settings (paths, names) to what the kernel knows (numbers of files, cgroups and processes) and
exchanges all rules at once. Decides nothing per event: the probes do, once per thread and change.
"""

import logging
import socket
import threading
from dataclasses import dataclass, field

from deeptrace import clock
from deeptrace.agent import cgroups
from deeptrace.agent.cgroups import Cgroups, Found
from deeptrace.agent.executables import Executable
from deeptrace.agent.pidfilter import PidFilter, Root, require_processes
from deeptrace.agent.probes import trace
from deeptrace.agent.procs import ProcFiles
from deeptrace.config import Capture
from deeptrace.errors import UsageError
from deeptrace.loader.maps import DENY, TRACE
from deeptrace.loader.probes import ProbeConfig, Probes
from deeptrace.loader.rules import ALLOW, Key
from deeptrace.loader.rules import DENY as DENY_RULE
from deeptrace.log import event

MAX_RULES = 500  # of one kind, with what patterns stand for; the maps hold 1,024, and for a moment the old ones beside the new
MAX_COMM_BYTES = 15  # TASK_COMM_LEN without the final zero
LAST_PORT = 65535
SCAN_SHARE = 100  # a search for containers that took t is not made again for 100 t: 1 % of one CPU
SCAN_NS = 10**9
IPV6_BYTES = 16
MAPPED_IPV4 = b"\0" * 10 + b"\xff\xff"

Rules = dict[str, dict[Key, int]]
Ends = frozenset[tuple[bytes, int]]  # (address of 16 bytes, port)

logger = logging.getLogger("deeptrace.agent.filters")


@dataclass
class _Plan:
    """The filters of one state of the settings, resolved."""

    capture: Capture
    programs: dict[str, Executable] = field(default_factory=dict)
    found: dict[str, Found] = field(default_factory=dict)

    def rules(self, own_ends: Ends) -> Rules:
        """All rules. What is both allowed and denied is denied."""
        capture = self.capture
        rules: Rules = {"comm": {}, "exe": {}, "cgroup": {}, "port": {}}
        for verdict, comm, exe, cgroup, port in (
            (ALLOW, capture.comm, capture.exe, capture.cgroup, capture.port),
            (DENY_RULE, capture.deny_comm, capture.deny_exe, capture.deny_cgroup, capture.deny_port),
        ):
            rules["comm"].update(dict.fromkeys(comm, verdict))
            rules["exe"].update((file_id, verdict) for path in exe for file_id in self.programs[path].ids())
            rules["cgroup"].update((number, verdict) for name in cgroup for number in self.found[name].ids)
            rules["port"].update(dict.fromkeys(port, verdict))
        rules["port"].update(dict.fromkeys(own_ends, DENY_RULE))
        for kind, entries in rules.items():
            if len(entries) > MAX_RULES:
                raise UsageError(
                    f"{len(entries)} rules of kind {kind} are too many; the most is {MAX_RULES}: name what contains them"
                )
        return rules

    def roots(self) -> dict[Root, tuple[int, set[int]]]:
        """The processes that are told apart by number: named ones, and those of containers that the unified hierarchy lacks."""
        capture = self.capture
        roots: dict[Root, tuple[int, set[int]]] = {("pid", str(pid)): (TRACE, {pid}) for pid in capture.pid}
        roots |= {("pid", str(pid)): (DENY, {pid}) for pid in capture.deny_pid}
        for flags, names in ((TRACE, capture.cgroup), (DENY, capture.deny_cgroup)):
            for name in names:
                if self.found[name].folders:
                    roots["cgroup", name] = (flags, cgroups.members(self.found[name].folders))
        return roots

    def is_by_belonging(self) -> bool:
        """Whether a rule holds for what a running process can change: its name, its cgroup."""
        c = self.capture
        return bool(c.comm or c.deny_comm or c.cgroup or c.deny_cgroup)


class Filters:
    """install() on loaded probes, then refresh() about once a second, apply() for other settings. One thread only."""

    def __init__(self, capture: Capture, files: ProcFiles, *, server: str = "", trees: Cgroups | None = None) -> None:
        """server: where this agent ships to, "host:port". Raises UsageError for what cannot be; nothing is needed of the probes."""
        self._files = files
        self._cgroups = trees or Cgroups()
        self._server = server
        self._own_ends: Ends = frozenset()
        self._plan = self._resolve(capture, None)
        self._probes: Probes | None = None
        self._pids: PidFilter | None = None
        self._scan_at_ns = 0
        self._is_over = False  # that was said

    def install(self, probes: Probes, pids: PidFilter) -> None:
        """Put everything into the maps. Raises UsageError."""
        self._probes, self._pids = probes, pids
        self._own_ends = ends_of(self._server, numeric=True)
        self._exchange(self._plan, self._config(self._plan.capture))

    def armed(self) -> None:
        """Put in the children that were forked while the probes were not armed yet, and ask for the server's address. After
        privileges are given up: a thread keeps what its maker had."""
        assert self._pids is not None
        self._pids.put(self._plan.roots())
        if self._server and not self._own_ends:
            threading.Thread(target=self._resolve_server, name="resolve", daemon=True).start()  # it may wait for seconds

    def apply(self, capture: Capture) -> None:
        """Follow other settings from now on. Raises UsageError; then nothing has changed."""
        before = self._plan
        plan = self._resolve(capture, before)
        try:
            self._exchange(plan, self._config(capture))
        except UsageError:
            self._exchange(before, self._config(before.capture))
            _close(plan, but=before)
            raise
        self._plan = plan
        _close(before, but=plan)

    def refresh(self, now_ns: int) -> None:
        """Look again at files, containers and processes that may be others by now. now_ns: CLOCK_MONOTONIC."""
        assert self._probes is not None
        assert self._pids is not None
        plan = self._plan
        changed = [program for program in plan.programs.values() if program.refresh()]
        if now_ns >= self._scan_at_ns and plan.found:
            self._find_again(plan)
        before = {kind: self._probes.rules.items(kind) for kind in ("exe", "cgroup", "port")}
        try:
            rules = plan.rules(self._own_ends)
            self._is_over = False
            if changed or any(rules[kind] != entries for kind, entries in before.items()):
                self._exchange(plan, self._probes.config)
                return
        except UsageError as e:  # a pattern that stands for too many by now
            if not self._is_over:
                event(logger, logging.WARNING, "the filters stay as they were", reason=str(e))
            self._is_over = True
        self._list_again(plan)
        # The probes see themselves when a thread takes a name or cgroup, but not that it holds for all of its process.
        if plan.is_by_belonging() or "rename" in self._probes.report.disabled:
            self._probes.bump()

    def close(self) -> None:
        """Let go of the files. Idempotent."""
        _close(self._plan)

    def _resolve(self, capture: Capture, before: _Plan | None) -> _Plan:
        """What was there `before` needs not be there any more: its children and other processes live on. Raises UsageError."""
        check_values(capture)
        known = {*before.capture.pid, *before.capture.deny_pid} if before else set()
        require_processes([pid for pid in (*capture.pid, *capture.deny_pid) if pid not in known], self._files)
        plan = _Plan(capture)
        held = before.programs if before else {}
        try:
            for path in (*capture.exe, *capture.deny_exe):
                plan.programs[path] = held.get(path) or plan.programs.get(path) or Executable(path)
            for name in (*capture.cgroup, *capture.deny_cgroup):
                find = self._cgroups.find if before and name in before.found else self._cgroups.require
                plan.found[name] = find(name)
        except UsageError:
            _close(plan, but=before)
            raise
        return plan

    def _config(self, capture: Capture) -> ProbeConfig:
        assert self._probes is not None
        return trace.probe_config(capture, self._probes.config)

    def _exchange(self, plan: _Plan, config: ProbeConfig) -> None:
        """New rules first, old ones last: what both allow is traced without a gap. Raises UsageError."""
        assert self._probes is not None
        assert self._pids is not None
        rules = plan.rules(self._own_ends)
        self._pids.put(plan.roots())
        try:
            self._probes.exchange(config, rules)
        except OSError as e:
            raise UsageError(f"the probes do not take the rules ({e.strerror}); use fewer of them") from e
        self._pids.prune()

    def _resolve_server(self) -> None:
        self._own_ends = ends_of(self._server)  # refresh() makes it a rule

    def _find_again(self, plan: _Plan) -> None:
        started_ns = clock.monotonic_ns()
        plan.found = {name: self._cgroups.find(name) for name in plan.found}
        took_ns = clock.monotonic_ns() - started_ns
        self._scan_at_ns = started_ns + max(took_ns * SCAN_SHARE, SCAN_NS // 2)

    def _list_again(self, plan: _Plan) -> None:
        """Processes that containers gained and lost, and containers that came and ended, in the first version of cgroups."""
        assert self._pids is not None
        roots = plan.roots()
        if self._pids.roots() != set(roots):
            self._pids.put(roots)
            self._pids.prune()
        for root, (_flags, listed) in roots.items():
            if root[0] != "pid":
                self._pids.list_again(root, listed)


def check_values(capture: Capture) -> None:
    """Raises UsageError for a value that no process or connection can have."""
    for comm in (*capture.comm, *capture.deny_comm):
        n_bytes = len(comm.encode())
        if not 0 < n_bytes <= MAX_COMM_BYTES:
            first = comm.encode()[:MAX_COMM_BYTES].decode(errors="ignore")
            hint = f"; the kernel keeps the first {MAX_COMM_BYTES}: {first!r}" if n_bytes else ""
            raise UsageError(f"the process name {comm!r} has {n_bytes} bytes, a name has 1 to {MAX_COMM_BYTES}{hint}")
    for port in (*capture.port, *capture.deny_port):
        if not 0 < port <= LAST_PORT:
            raise UsageError(f"there is no port {port}; ports are numbers from 1 to {LAST_PORT}")


def ends_of(server: str, *, numeric: bool = False) -> Ends:
    """Addresses of "host:port" as the probes see them; none when the name does not resolve. numeric: ask nobody."""
    host, _colon, port = server.rpartition(":")
    if not port.isdigit() or not 0 < int(port) <= LAST_PORT:
        return frozenset()
    flags = socket.AI_NUMERICHOST if numeric else 0
    try:
        places = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=flags)
    except (OSError, UnicodeError) as e:
        if not numeric:
            event(logger, logging.INFO, "the server's name does not resolve", server=server, reason=str(e))
        return frozenset()
    packed = [socket.inet_pton(family, str(place[0]).split("%")[0]) for family, _kind, _protocol, _name, place in places]
    addresses = [a if len(a) == IPV6_BYTES else MAPPED_IPV4 + a for a in packed]
    return frozenset((a, int(port)) for a in addresses if any(a.removeprefix(MAPPED_IPV4)))  # all zeros: whatever address


def _close(plan: _Plan, *, but: _Plan | None = None) -> None:
    for path, program in plan.programs.items():
        if but is None or but.programs.get(path) is not program:
            program.close()
