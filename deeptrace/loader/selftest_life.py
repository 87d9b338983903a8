"""The self-test's connections and its one process: what the groups `conn` and `proc` have to tell of them."""

from __future__ import annotations

import errno
import os
import pathlib
import socket
import struct
import time
from typing import NamedTuple

from .layouts import Layout
from .selftest_records import CONN, PROC, Record
from .selftest_traffic import FAMILIES, End, Pair

CONNECT, ACCEPT, PEER_CLOSED, CLOSED = 1, 2, 3, 4  # dt_records.h: enum dt_conn_event
FORK, EXEC, EXIT = 1, 2, 3  # enum dt_proc_event
WAIT_S = 0.5  # for what a softirq tells after the call that caused it
FAILING = ("/bin/false", "/usr/bin/false")  # ends with code 1: an exit code that zeroed memory does not show
LINGER_RESET = struct.pack("=ii", 1, 0)  # SO_LINGER: close with a reset
START_FIELD = 19  # of /proc/PID/stat behind the name: starttime, in ticks
UNIFIED = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")


class Event(NamedTuple):
    """One connection record to expect: whose end, which event, its result; own: the record names this process."""

    end: End
    code: int
    result: int
    own: bool


def close_pairs(pairs: list[Pair]) -> list[Event]:
    """Close the streams in order, the last with a reset; what must be told of them."""
    events = []
    for pair in (pair for pair in pairs if pair.is_stream):
        events += [Event(pair.client_end, CONNECT, 0, True), Event(pair.server_end, ACCEPT, 0, True)]
        pair.client.close()
        events.append(Event(pair.server_end, PEER_CLOSED, 0, False))
        wait_ended(pair.server)
        pair.server.close()
        events += [Event(pair.client_end, CLOSED, 0, False), Event(pair.server_end, CLOSED, 0, False)]
    for pair in pairs:
        pair.close()
    return events


def reset_one(families: list[str]) -> list[Event]:
    """Reset a connection: its other end must say so."""
    for label, family, kind, host in FAMILIES:
        if label in families and kind == socket.SOCK_STREAM:
            pair = Pair(label, family, kind, host)
            pair.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
            pair.server.close()
            wait_ended(pair.client)
            pair.close()
            return [Event(pair.client_end, CLOSED, -errno.ECONNRESET, False)]
    return []


def wait_ended(sock: socket.socket) -> None:
    """Until the peer's end, or its reset, has arrived; the socket keeps its state."""
    import select

    poller = select.poll()
    poller.register(sock, select.POLLRDHUP)
    poller.poll(WAIT_S * 1000)


def judge_connections(events: list[Event], records: list[Record], netns: int) -> str:
    """The first event that was not told, or not rightly; empty when all were."""
    names = {CONNECT: "connect", ACCEPT: "accept", PEER_CLOSED: "the peer's end", CLOSED: "the end"}
    known = {(record["code"], (record["local_addr"], record["local_port"])): record for record in records if record["kind"] == CONN}
    for event in events:
        record = known.get((event.code, event.end.local))
        if record is None:
            return f"{names[event.code]} of a connection was not recorded, or under another address"
        if (record["peer_addr"], record["peer_port"]) != event.end.peer or record["netns"] != netns:
            return f"{names[event.code]} of a connection was recorded with a wrong peer or network namespace"
        if record["result"] != event.result:
            return f"{names[event.code]} of a connection was recorded with {record['result']} instead of {event.result}"
        if event.own and record["tgid"] != os.getpid():
            return f"{names[event.code]} of a connection was recorded for another process"
    return ""


class Child(NamedTuple):
    """What is known of the process that was started: starttime in ticks, cgroup 0 when it cannot be read."""

    pid: int
    name: str
    code: int
    start_ticks: int
    cgroup: int


def run_child() -> Child | None:
    """Start a process that fails and wait for it. None: this machine has no such program."""
    for path in FAILING:
        if os.access(path, os.X_OK):
            pid = os.posix_spawn(path, [path], {})
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            ticks = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[START_FIELD])
            code = os.waitpid(pid, 0)[1]
            return Child(pid, os.path.basename(path), code, ticks, own_cgroup())
    return None


def own_cgroup() -> int:
    """Id of this process's cgroup in the unified hierarchy, which its child begins in; 0 when it cannot be found."""
    for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            for place in UNIFIED:
                if os.path.exists(place + "/cgroup.controllers"):
                    try:
                        return os.stat(place + line[3:]).st_ino
                    except OSError:
                        return 0
    return 0


def judge_child(child: Child, records: list[Record], process: Layout) -> str:
    """The first event that was not told, or not rightly; empty when all were. process: of struct dt_process."""
    of_child = {record["code"]: record for record in records if record["kind"] == PROC and record["tgid"] == child.pid}
    for code, name in ((FORK, "fork"), (EXEC, "exec"), (EXIT, "exit")):
        if code not in of_child:
            return f"the {name} of a process was not recorded, or for another process"
    if of_child[FORK]["parent_tgid"] != os.getpid():
        return "a fork was recorded with a wrong parent"
    if of_child[EXIT]["result"] != child.code:
        return f"a process ended with {child.code}, recorded was {of_child[EXIT]['result']}"
    payload = of_child[EXEC].payload
    comm, start_ns, cgroup = (
        struct.unpack_from(process.format(), payload) if len(payload) >= process.bytes else (payload, None, None)
    )
    if bytes(comm).split(b"\0")[0].decode(errors="replace") != child.name[:15]:
        return "an exec was recorded with a wrong name"
    tick_ns = 10**9 // os.sysconf("SC_CLK_TCK")
    if start_ns is not None and abs(start_ns - child.start_ticks * tick_ns) > 2 * tick_ns:
        return "an exec was recorded with a wrong start of its process"
    if child.cgroup and cgroup is not None and cgroup != child.cgroup:
        return "an exec was recorded with a wrong cgroup"
    return ""


def wait_events(n: int, taken: list[Record], take: object) -> None:
    """Take records until n of connections and processes are there, or time is over."""
    assert callable(take)
    end = time.monotonic() + WAIT_S
    while True:
        taken += take()
        if sum(record["kind"] != 1 for record in taken) >= n or time.monotonic() > end:
            return
        time.sleep(0.001)
