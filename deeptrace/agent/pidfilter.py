"""Whose calls the probes record: writes map PIDS. Never traces DeepTrace's own processes."""

import logging
import os
from collections.abc import Sequence

from deeptrace.agent.procs import ProcFiles, descendants
from deeptrace.errors import UsageError
from deeptrace.loader.maps import DENY, FOLLOW, TRACE, PidMap
from deeptrace.log import event
from deeptrace.procname import OWN_COMM

MAX_ROUNDS = 10  # scans until no new child was found; the kernel follows children of what is in the map from then on

logger = logging.getLogger("deeptrace.agent.pidfilter")


class PidFilter:
    """The processes that are traced and those that never are."""

    def __init__(self, pids: PidMap, files: ProcFiles) -> None:
        self._pids = pids
        self._files = files
        self.own: set[int] = set()  # denied: DeepTrace's own, this one first
        self.traced: set[int] = set()  # told apart by trace(); none: every process

    def deny(self, pid: int) -> None:
        """Never trace this process. Harmless when it has ended."""
        if pid not in self.own:
            self.own.add(pid)
            self._set(pid, DENY)

    def forget(self, pid: int) -> None:
        """The pid has a new program or owner, or none; a denial does not pass on to it."""
        if pid in self.own:
            self.own.discard(pid)
            flags = self._pids.get(pid)
            if flags is not None and flags & DENY:
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

    def trace(self, pids: Sequence[int]) -> None:
        """Trace these processes and their descendants; children that come later are followed by the probes."""
        done: set[int] = set()
        for _ in range(MAX_ROUNDS):
            found = descendants(pids, self._files) - done - self.own
            if not found:
                break
            for pid in found:
                self._set(pid, TRACE | FOLLOW)
            done |= found
        self.traced |= done

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
