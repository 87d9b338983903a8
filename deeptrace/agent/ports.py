"""Which process listens on which TCP ports, as /proc shows it now. Needs the privilege to see other processes' descriptors.

Runs once, before the agent gives its privileges up; what listens later is learned from its SERVER spans. It reads what the kernel
writes, link targets and socket tables, and nothing that a traced process could have written.
"""

import os
from collections.abc import Iterable

from deeptrace.agent.procs import ProcFiles

LISTEN = "0A"  # net/tcp_states.h: TCP_LISTEN, as /proc/net/tcp shows it
MAX_DESCRIPTORS = 200_000  # looked at in all: half a second; a host with more names its services without ports at first
MAX_TABLE_BYTES = 64 << 20  # of one socket table: half a million connections


def listening_ports(files: ProcFiles, pids: Iterable[int]) -> dict[int, set[int]]:
    """Ports by process, for those of `pids` that listen. What cannot be read is left out."""
    tables: dict[str, dict[str, int]] = {}  # network namespace -> socket -> port
    found: dict[int, set[int]] = {}
    left = MAX_DESCRIPTORS
    for pid in pids:
        folder = f"{files.root}/{pid}"
        try:
            namespace = os.readlink(f"{folder}/ns/net")
            if namespace not in tables:
                tables[namespace] = listening_sockets(folder)
            listening = tables[namespace]
            names = os.listdir(f"{folder}/fd") if listening else []
        except OSError:
            continue
        left -= len(names)
        if left < 0:
            break
        ports = {listening[target] for target in _targets(f"{folder}/fd", names) if target in listening}
        if ports:
            found[pid] = ports
    return found


def listening_sockets(folder: str) -> dict[str, int]:
    """{"socket:[inode]": port} of one network namespace, from /proc/PID/net."""
    found = {}
    for name in ("tcp", "tcp6"):
        try:
            with open(f"{folder}/net/{name}", encoding="ascii") as table:
                lines = table.read(MAX_TABLE_BYTES).splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if len(fields) > 9 and fields[3] == LISTEN:
                found[f"socket:[{fields[9]}]"] = int(fields[1].rsplit(":", 1)[1], 16)
    return found


def _targets(folder: str, names: list[str]) -> list[str]:
    found = []
    for name in names:
        try:
            found.append(os.readlink(f"{folder}/{name}"))
        except OSError:  # closed meanwhile
            continue
    return found
