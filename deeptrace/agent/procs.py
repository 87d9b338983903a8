"""What is known of each process: start, name, service, container. Reads only files of /proc that need no privilege.

Bounded by MAX_PROCESSES; a process that ended is remembered, since its last spans come after it.
"""

import os
import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from deeptrace.agent import names
from deeptrace.model import ProcessInfo
from deeptrace.procname import OWN_COMM

MAX_PROCESSES = 16384  # entries of about 1 KB; a machine's pid_max is 32,768 by default and most processes never talk
RECHECK_NS = 30 * 10**9  # an entry older than this is held against /proc again: fork and exec records can be lost
MAX_CMDLINE = 4096  # bytes read of a command line: the script stands at its beginning
MAX_PORTS = 64  # ports learned of one process; servers listen on a few
MAX_TREE = 64  # ancestors looked at when two services have one name
NS_PER_S = 10**9


@dataclass
class _Entry:
    process: ProcessInfo  # as shown: its service may carry a port
    service: str  # without a port
    parent: int
    checked_ns: int
    exited: bool = False
    ports: set[int] = field(default_factory=set)


class ProcFiles:
    """The files of /proc/PID as text; None when the process is gone. root: another folder for tests."""

    def __init__(self, root: str = "/proc") -> None:
        self.root = root
        self.ticks_per_s = os.sysconf("SC_CLK_TCK")
        self.boot_ns = self._boot_ns()

    def _boot_ns(self) -> int:
        for line in pathlib.Path(self.root, "stat").read_text().splitlines():
            if line.startswith("btime "):
                return int(line.split()[1]) * NS_PER_S
        return 0

    def read(self, pid: int, name: str) -> bytes | None:
        """At most MAX_CMDLINE bytes of a file of a process."""
        try:
            descriptor = os.open(f"{self.root}/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return os.read(descriptor, MAX_CMDLINE)
        except OSError:  # ESRCH: it ended between open and read
            return None
        finally:
            os.close(descriptor)

    def comm(self, pid: int) -> str | None:
        data = self.read(pid, "comm")
        return None if data is None else clean(data)

    def parent_and_start(self, pid: int) -> tuple[int, int] | None:
        """Parent's pid and start in Unix ns."""
        data = self.read(pid, "stat")
        if not data:
            return None
        values = data[data.rindex(b")") + 2 :].split()  # comm may hold spaces and parentheses
        return int(values[1]), self.boot_ns + int(values[19]) * NS_PER_S // self.ticks_per_s

    def start_of(self, boottime_ns: int) -> int:
        """The start in Unix ns that /proc shows of a process that began at that time of CLOCK_BOOTTIME: it counts in ticks."""
        ticks = boottime_ns * self.ticks_per_s // NS_PER_S
        return self.boot_ns + ticks * NS_PER_S // self.ticks_per_s

    def pids(self) -> list[int]:
        return [int(name) for name in os.listdir(self.root) if name.isdigit()]


def clean(text: bytes) -> str:
    """A name from outside as printable text: it ends up in terminals and tables."""
    decoded = text.decode("utf-8", "replace").rstrip("\n\0")
    return decoded if decoded.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in decoded)


class _Service:
    """The processes that serve under one name, as trees, and their ports. A server may fork for every connection: nothing here
    passes over all processes unless a port is new."""

    def __init__(self) -> None:
        self.roots: dict[int, int] = {}  # process -> root of its tree
        self.trees: dict[int, Counter[int]] = {}  # root -> its ports, with the number of processes that serve each
        self.ports: Counter[int] = Counter()  # of all trees, with the number of trees

    def add(self, pid: int, port: int) -> list[int]:
        """A process of `roots` serves a port. Returns the processes whose name may change by it."""
        root = self.roots[pid]
        is_new_tree = root not in self.trees
        tree = self.trees.setdefault(root, Counter())
        tree[port] += 1
        if tree[port] > 1:
            return [pid]
        self.ports[port] += 1
        return [pid] if is_new_tree and self.ports[port] > 1 else list(self.roots)

    def discard(self, pid: int, ports: Iterable[int]) -> None:
        root = self.roots.pop(pid)
        tree = self.trees[root]
        for port in ports:
            tree[port] -= 1
            if not tree[port]:
                del tree[port]
                self.ports[port] -= 1
                if not self.ports[port]:
                    del self.ports[port]
        if not tree:
            del self.trees[root]


class ProcessTable:
    """ProcessInfo by pid. overrides: agent.service of the settings."""

    def __init__(self, files: ProcFiles, overrides: Mapping[str, str] | None = None) -> None:
        self.files = files
        self._overrides = dict(overrides or {})
        self._entries: dict[int, _Entry] = {}  # in order of first sight
        self._services: dict[str, _Service] = {}  # by name, those of which a process was seen serving
        self._containers: dict[int, str] = {}  # by cgroup: names the containers of processes that are gone
        self.n_unread = 0  # processes that were gone before they could be read

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, pid: int) -> bool:
        return pid in self._entries

    def is_own(self, pid: int) -> bool:
        """Whether the process calls itself DeepTrace's, by what is known of it."""
        entry = self._entries.get(pid)
        return entry is not None and entry.process.comm == OWN_COMM

    def get(
        self, pid: int, now_ns: int, *, comm: str = "", start_ns: int | None = None, cgroup_id: int | None = None
    ) -> ProcessInfo:
        """What is known of a process, read now if it is new. comm, start_ns, cgroup_id: as its records told them (start_ns as
        start_of() gives it): they hold when it is gone already, or its pid is another's. now_ns: monotonic."""
        entry = self._entries.get(pid)
        if entry is not None and not entry.exited and now_ns - entry.checked_ns > RECHECK_NS:
            entry = self._recheck(pid, entry, now_ns)
        if entry is None:
            entry = self._read(pid, now_ns, comm, start_ns, cgroup_id)
            self._make_room()
            self._entries[pid] = entry
        return entry.process

    def serves(self, pid: int, port: int) -> None:
        """Learn that a known process answers on a port. Process trees that serve one name on different ports are different
        services: from then on each carries its lowest port. Learned from SERVER spans, since which process owns a
        listening socket cannot be seen without privilege."""
        entry = self._entries.get(pid)
        if entry is None or port in entry.ports or not entry.service or len(entry.ports) >= MAX_PORTS:
            return
        entry.ports.add(port)
        service = self._services.setdefault(entry.service, _Service())
        if pid not in service.roots:
            service.roots[pid] = self._root(pid)
        changed = service.add(pid, port)
        if len(service.trees) > 1:
            for member in changed:
                self._tell_apart(member, service)

    def forget(self, pid: int) -> None:
        """The pid has another program (exec) or owner (fork) now."""
        entry = self._entries.pop(pid, None)
        if entry is not None:
            service = self._services.get(entry.service)
            if service is not None and pid in service.roots:
                service.discard(pid, entry.ports)
                if not service.roots:
                    del self._services[entry.service]

    def exited(self, pid: int, comm: str, now_ns: int) -> None:
        """Keep what is known for the spans that are still open; a process never read is known by its last comm."""
        entry = self._entries.get(pid)
        if entry is None:
            self.get(pid, now_ns, comm=comm)
            entry = self._entries[pid]
        entry.exited = True

    def _read(self, pid: int, now_ns: int, comm: str = "", start_ns: int | None = None, cgroup_id: int | None = None) -> _Entry:
        stat = self.files.parent_and_start(pid)
        read_comm = self.files.comm(pid) if stat else None
        if stat is None or read_comm is None or start_ns not in (None, stat[1]):
            self.n_unread += 1
            service = self._overrides.get(str(pid)) or self._overrides.get(comm) or comm
            container = self._containers.get(cgroup_id or 0)
            gone = ProcessInfo(pid=pid, start_ns=start_ns, comm=comm, service=service, container_id=container, cgroup_id=cgroup_id)
            return _Entry(gone, service, 0, now_ns)
        cgroup = clean_lines(self.files.read(pid, "cgroup") or b"")
        cmdline = [clean(part) for part in (self.files.read(pid, "cmdline") or b"").rstrip(b"\0").split(b"\0")]
        process = ProcessInfo(
            pid=pid,
            start_ns=stat[1],
            comm=read_comm,
            service=names.service_name(cmdline if cmdline != [""] else [], read_comm, cgroup, self._overrides, pid),
            container_id=names.container_id(cgroup),
            cgroup_id=cgroup_id,
        )
        if cgroup_id and process.container_id and len(self._containers) < MAX_PROCESSES:
            self._containers[cgroup_id] = process.container_id
        return _Entry(process, process.service, stat[0], now_ns)

    def _recheck(self, pid: int, entry: _Entry, now_ns: int) -> _Entry | None:
        """The entry if it still describes the process; None if it must be read again."""
        stat = self.files.parent_and_start(pid)
        if stat is None:
            entry.exited = True
        elif stat[1] != entry.process.start_ns or self.files.comm(pid) != entry.process.comm:
            self.forget(pid)
            return None
        entry.checked_ns = now_ns
        return entry

    def _make_room(self) -> None:
        """Before the table overflows, forget the ended processes first, then those seen first."""
        if len(self._entries) < MAX_PROCESSES:
            return
        ended = [pid for pid, entry in self._entries.items() if entry.exited]
        for pid in (ended or list(self._entries))[: MAX_PROCESSES // 8]:
            self.forget(pid)

    def _tell_apart(self, pid: int, service: "_Service") -> None:
        """Name a process by its tree's lowest port if another tree of that name serves a port that this one does not."""
        ports = service.trees[service.roots[pid]]
        if len(ports) < len(service.ports):
            entry = self._entries[pid]
            entry.process = msgspec.structs.replace(entry.process, service=f"{entry.service}:{min(ports)}")

    def _root(self, pid: int) -> int:
        """The oldest ancestor with the same service, none of another one between: workers and their master are one tree."""
        entry = self._entries.get(pid)
        for _ in range(MAX_TREE):
            if entry is None or entry.parent <= 1:
                return pid
            parent = self._entries.get(entry.parent)
            if parent is None:
                parent = self._read(entry.parent, entry.checked_ns)  # not kept: it may never talk itself
            if parent.service != entry.service:
                return pid
            pid, entry = entry.parent, parent
        return pid


def clean_lines(data: bytes) -> str:
    return "\n".join(clean(line) for line in data.split(b"\n"))


def descendants(pids: Iterable[int], files: ProcFiles) -> set[int]:
    """These processes and all that descend from them, as /proc shows it now."""
    children: dict[int, list[int]] = {}
    for pid in files.pids():
        stat = files.parent_and_start(pid)
        if stat is not None:
            children.setdefault(stat[0], []).append(pid)
    found: set[int] = set()
    todo = list(pids)
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo.extend(children.get(pid, ()))
    return found
