"""Calls that wait for bytes when tracing begins: put into the probes' map, so that the first request of a server that waits in a
read on every thread is seen. Needs the privilege to see other processes' calls; reads numbers that the kernel writes, and nothing
that a traced process could have written."""

import logging
import os
import pathlib
import re
import struct
from collections.abc import Iterable

from deeptrace import clock
from deeptrace.agent.procs import ProcFiles
from deeptrace.core.waiting import EMPTY, RECEIVING, thread_entry
from deeptrace.core.wire import SYSCALL_ROWS
from deeptrace.loader import map_calls
from deeptrace.loader.probes import Probes
from deeptrace.log import event

MAX_SCAN_NS = 10**9  # 10,000 to 50,000 threads, 20 to 90 us each; those of a larger host are followed from their next call on
FLAGS_AT = {"recvfrom": 3, "recvmsg": 2}  # which argument holds MSG_*
INDEX = struct.Struct("=i")
TID = struct.Struct("=I")
LAST_TID = 1 << 22  # linux/threads.h: PID_MAX_LIMIT

NUMBERS = {name: number for number, name, _direction in SYSCALL_ROWS}

logger = logging.getLogger("deeptrace.agent.blocked")

SOCKET = re.compile(r"socket:\[(\d+)\]")

Call = tuple[str, tuple[int, ...], int]  # name, arguments, inode of the socket


def waiting_call(files: ProcFiles, tid_folder: str) -> Call | None:
    """The call that a thread waits in, if it is one that brings bytes from a socket. tid_folder: "PID/task/TID"."""
    try:
        with open(f"{files.root}/{tid_folder}/syscall", encoding="ascii") as file:
            fields = file.read().split()
        if len(fields) < 7:  # "running", or asleep outside a call
            return None
        name = RECEIVING.get(int(fields[0]))
        if name is None:
            return None
        arguments = tuple(int(field, 16) for field in fields[1:7])
        target = os.readlink(f"{files.root}/{tid_folder}/fd/{arguments[0] & 0xFFFFFFFF}")
    except (OSError, ValueError):  # it ended meanwhile, its descriptor was closed, or it may not be seen
        return None
    socket = SOCKET.fullmatch(target)
    return (name, arguments, int(socket.group(1))) if socket else None


class ThreadEntries:
    """Writes map THREADS while the probes are not armed: nothing but ends of threads changes it then."""

    def __init__(self, probes: Probes) -> None:
        self._fds = probes.map_fds
        self._n_slots = map_calls.map_info(self._fds["THREADS"]).max_entries
        self._is_exact = highest_tid() <= self._n_slots  # as the loader decides it: every thread has an index of its own

    def put(self, tid: int, tgid: int, call: Call) -> bool:
        """Write a thread's entry; False when its index is another's."""
        name, arguments, inode = call
        index = tid & (self._n_slots - 1)
        if not self._is_exact and not map_calls.map_insert(self._fds["OWNERS"], INDEX.pack(index), TID.pack(tid)):
            return False
        fd, buffer, count = arguments[:3]
        for enter_ns in (0, clock.monotonic_ns()):  # the time last: from there on it is a call
            entry = thread_entry(
                tid=tid,
                tgid=tgid,
                syscall=NUMBERS[name],
                fd=fd & 0xFFFFFFFF,
                inode=inode,
                buffer=buffer,
                count=count,
                msg_flags=arguments[FLAGS_AT[name]] & 0xFFFFFFFF if name in FLAGS_AT else 0,
                enter_ns=enter_ns,
            )
            map_calls.map_update(self._fds["THREADS"], INDEX.pack(index), entry)
        return True

    def clear(self, tid: int) -> None:
        """Take a thread's entry out again."""
        index = tid & (self._n_slots - 1)
        map_calls.map_update(self._fds["THREADS"], INDEX.pack(index), EMPTY)
        if not self._is_exact:
            map_calls.map_delete(self._fds["OWNERS"], INDEX.pack(index))


def highest_tid() -> int:
    """No thread has a larger number."""
    try:
        return int(pathlib.Path("/proc/sys/kernel/pid_max").read_text())
    except (OSError, ValueError):
        return LAST_TID


def follow_blocked(probes: Probes, files: ProcFiles, pids: Iterable[int]) -> int:
    """Put in the calls that threads of these processes wait in; returns how many. Between load_probes() and arm()."""
    entries = ThreadEntries(probes)
    followed = 0
    until_ns = clock.monotonic_ns() + MAX_SCAN_NS
    for pid in pids:
        if clock.monotonic_ns() > until_ns:
            event(logger, logging.WARNING, "not all threads were looked at for calls that wait already", seconds=MAX_SCAN_NS / 1e9)
            break
        try:
            tids = [int(name) for name in os.listdir(f"{files.root}/{pid}/task")]
        except OSError:
            continue
        followed += sum(follow_thread(entries, files, pid, tid) for tid in tids)
    return followed


def follow_thread(entries: ThreadEntries, files: ProcFiles, pid: int, tid: int) -> bool:
    """Put in the call that a thread waits in, if it does."""
    folder = f"{pid}/task/{tid}"
    call = waiting_call(files, folder)
    if call is None or not entries.put(tid, pid, call):
        return False
    # A thread that returned before it was put in is in another call by now, or in none: its arguments tell. One that returns
    # later finds its entry.
    if waiting_call(files, folder) != call:
        entries.clear(tid)
        return False
    return True
