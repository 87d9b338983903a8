"""Finds the agents that run on this host and speaks to them: over their control sockets, and, where one does not answer, over the
probes themselves. Needs root for the latter."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from deeptrace.agent.control import address, peer_of, read_line, trusted
from deeptrace.core.wire import CONFIG_DTYPE
from deeptrace.loader import bpf_objects
from deeptrace.loader.map_calls import map_update
from deeptrace.procname import is_own_process

MAX_ANSWER_BYTES = 1 << 20  # a status is some 20 KB
LISTED = re.compile(r"@deeptrace-agent-(\d+)$", re.MULTILINE)
HELD = re.compile(r"^(prog_id|map_id):\s*(\d+)", re.MULTILINE)


class LocalAgent(msgspec.Struct, frozen=True, kw_only=True):
    """A process that holds DeepTrace's probes. programs, maps: their numbers in the kernel, empty without the privilege to look."""

    pid: int
    programs: frozenset[int] = frozenset()
    maps: frozenset[int] = frozenset()


def find_agents() -> list[LocalAgent]:
    """All agents of this host: those that hold programs, and those that listen (agents of another network namespace are found by
    the first, those of another user by the second)."""
    listening = {int(pid) for pid in LISTED.findall(_read("/proc/net/unix"))}
    found = []
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        if pid == os.getpid() or not is_own_process(pid):
            continue
        held = set(_held(pid))
        programs = frozenset(number for kind, number in held if kind == "prog_id")
        if programs or pid in listening:
            maps = frozenset(number for kind, number in held if kind == "map_id")
            found.append(LocalAgent(pid=pid, programs=programs, maps=maps))
    return found


def ask(pid: int, what: str, timeout_s: float) -> dict[str, Any] | None:
    """An agent's answer; None if it does not answer in time, is not there, or is somebody else's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(address(pid))
            other_pid, uid = peer_of(connection)
            if other_pid != pid or not trusted(uid):
                return None
            connection.sendall(json.dumps({"do": what}).encode() + b"\n")
            return read_line(connection, MAX_ANSWER_BYTES)
        except (OSError, ValueError):
            return None


def disarm(agent: LocalAgent) -> bool:
    """Write an empty CONFIG into a hung agent's probes: from here on they do nothing. False when none was found. Needs root."""
    done = False
    for number in agent.maps:
        with contextlib.suppress(OSError):
            fd = bpf_objects.map_by_id(number)
            try:
                if bpf_objects.map_name(fd) == "CONFIG":
                    map_update(fd, struct.pack("=i", 0), bytes(CONFIG_DTYPE.itemsize))
                    done = True
            finally:
                os.close(fd)
    return done


def is_stopped(pid: int) -> bool:
    """Whether a signal or a debugger has stopped the process: it will not answer."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1] in (["T"], ["t"])


def end(pid: int) -> bool:
    """Ask an agent to end in order. False when we may not, or it is gone."""
    return _signal(pid, signal.SIGTERM)


def kill(pid: int) -> bool:
    """End a hung agent at once; the kernel detaches what it held. False when we may not, or it is gone."""
    return _signal(pid, signal.SIGKILL)


def wait_detached(programs: frozenset[int], timeout_s: float) -> bool:
    """Whether none of these programs is loaded any more within the time. True without the privilege to look."""
    end = time.monotonic() + timeout_s
    while True:
        try:
            if programs.isdisjoint(bpf_objects.program_ids()):
                return True
        except OSError:
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.02)


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except OSError:
        return False
    return True


def _held(pid: int) -> Iterator[tuple[str, int]]:
    """("prog_id" | "map_id", number) of the descriptors that a process holds."""
    folder = f"/proc/{pid}/fdinfo"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            for kind, number in HELD.findall(_read(f"{folder}/{name}")):
                yield kind, int(number)


def _read(path: str) -> str:
    try:
        return pathlib.Path(path).read_text()
    except OSError:
        return ""
