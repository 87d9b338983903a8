"""Which processes are told apart by their number: writes map PIDS. Never traces DeepTrace's own processes.

Every entry carries the number of its root: the process, or the container, that it was put in for. The probes copy the whole
entry to children, so that all of a root can be taken out again, also those whose parents are gone.
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from deeptrace.agent.procs import ProcFiles, descendants
from deeptrace.errors import UsageError
from deeptrace.loader.maps import DENY, FOLLOW, TRACE
from deeptrace.log import event
from deeptrace.procname import OWN_COMM

MAX_ROUNDS = 10  # scans until no new child was found; the kernel follows children of what is in the map from then on
ROOT_SHIFT = 8  # bits of an entry that are flags; the rest is the number of its root
LAST_ROOT = (1 << 24) - 1  # a root that comes 16 million changes after another may take its number

logger = logging.getLogger("deeptrace.agent.pidfilter")

# (kind, name): ("pid", "123") a process with all that descend from it; any other kind: processes that are listed
Root = tuple[str, str]


class Pids(Protocol):
    """What is used of deeptrace.loader.maps.PidMap."""

    def set(self, pid: int, flags: int) -> None: ...
    def get(self, pid: int) -> int | None: ...
    def delete(self, pid: int) -> bool: ...
    def items(self) -> Iterable[tuple[int, int]]: ...


@dataclass
class _Placed:
    """A root that is in force."""

    number: int
    flags: int
    start_ns: int = 0  # of the process of kind "pid": its number may become another's
    listed: set[int] = field(default_factory=set)


class PidFilter:
    """The processes that are traced and those that never are."""

    def __init__(self, pids: Pids, files: ProcFiles) -> None:
        self._pids = pids
        self._files = files
        self._roots: dict[Root, _Placed] = {}
        self._last_root = 0
        self.own: set[int] = set()  # DeepTrace's own, this one first
        self.traced: set[int] = set()  # told apart to be traced, at the last scan; none: every process that no rule denies

    def deny(self, pid: int) -> None:
        """Never trace this process. Harmless when it has ended."""
        if pid in self.own:
            return
        self.own.add(pid)
        # The probes know DeepTrace's processes by their name. An entry would outlive it in the process's next program.
        if self._files.comm(pid) != OWN_COMM:
            self._set(pid, DENY)

    def forget(self, pid: int) -> None:
        """The pid has a new program or owner, or none; a denial does not pass on to it."""
        if pid in self.own:
            self.own.discard(pid)
            if self._pids.get(pid) == DENY:
                self._pids.delete(pid)

    def ended(self, pid: int) -> None:
        """The process is gone. The probes remove what they know of a process before they tell its end: a denial that is in the map
        came too late, and would keep the next process of that number from being traced."""
        self.forget(pid)

    def deny_own(self) -> None:
        """This process, and every other one that says it is DeepTrace's."""
        self.deny(os.getpid())
        for pid in self._files.pids():
            if self._files.comm(pid) == OWN_COMM:
                self.deny(pid)

    def roots(self) -> set[Root]:
        return set(self._roots)

    def put(self, wanted: Mapping[Root, tuple[int, set[int]]]) -> None:
        """First half of an exchange: put in the processes of all these roots, {root: (TRACE or DENY, its processes)}, with their
        children to come. What is there for other roots stays."""
        kept = {root: placed for root, placed in self._roots.items() if root in wanted and placed.flags == wanted[root][0]}
        self._roots = kept | {root: self._new_root(root, flags) for root, (flags, _pids) in wanted.items() if root not in kept}
        self.traced = set()
        for root, (flags, listed) in sorted(wanted.items(), key=lambda item: item[1][0] == DENY):  # a denial is written last
            self._put_root(root, listed)
            self.traced |= self._roots[root].listed if flags == TRACE else set()

    def prune(self) -> None:
        """Second half: take out what belongs to no root any more."""
        live = {placed.number: placed for placed in self._roots.values()}
        for pid, value in list(self._pids.items()):
            number = value >> ROOT_SHIFT
            if number and number not in live:
                self._pids.delete(pid)

    def list_again(self, root: Root, listed: set[int]) -> bool:
        """Set the processes of a root of listed ones anew. Returns whether any came or left."""
        placed = self._roots[root]
        left = placed.listed - listed
        come = listed - placed.listed
        for pid in left:
            value = self._pids.get(pid)
            if value is not None and value >> ROOT_SHIFT == placed.number:
                self._pids.delete(pid)
        placed.listed &= listed
        self._put_root(root, come)
        return bool(left or come)

    def _new_root(self, root: Root, flags: int) -> _Placed:
        self._last_root = self._last_root % LAST_ROOT + 1
        stat = self._files.parent_and_start(int(root[1])) if root[0] == "pid" else None
        return _Placed(self._last_root, flags, stat[1] if stat else 0)

    def _put_root(self, root: Root, listed: set[int]) -> None:
        placed = self._roots[root]
        if root[0] == "pid" and not self._is_same_process(int(root[1]), placed.start_ns):
            return
        done: set[int] = set()
        for _ in range(MAX_ROUNDS):
            found = (descendants(listed, self._files) if root[0] == "pid" else listed) - done - self.own
            if not found:
                break
            for pid in found:
                self._put_one(pid, placed)
            done |= found
        placed.listed |= done

    def _put_one(self, pid: int, placed: _Placed) -> None:
        value = placed.flags | FOLLOW | placed.number << ROOT_SHIFT
        before = self._pids.get(pid)
        if before == value:
            return
        is_live = before is not None and any(p.number == before >> ROOT_SHIFT for p in self._roots.values())
        if is_live and before is not None and (before & DENY or placed.flags == TRACE):
            return  # it is in for another root, which says the same or more
        self._set(pid, value)

    def _is_same_process(self, pid: int, start_ns: int) -> bool:
        stat = self._files.parent_and_start(pid)
        return stat is not None and stat[1] == start_ns

    def _set(self, pid: int, flags: int) -> None:
        try:
            self._pids.set(pid, flags)
        except OSError as e:
            event(logger, logging.ERROR, "the map of processes does not take a process", pid=pid, reason=e.strerror)


def require_processes(pids: Sequence[int], files: ProcFiles) -> None:
    """Raises UsageError for a process that is not there."""
    for pid in pids:
        if files.parent_and_start(pid) is None:
            raise UsageError(f"there is no process {pid}; 'pgrep -a NAME' finds it")
