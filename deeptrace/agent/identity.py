"""Who this agent is: host, boot and a name that stays the same over its restarts. Reads a few small files once."""

import hashlib
import os
import pathlib
import socket
from collections.abc import Sequence

from deeptrace import clock
from deeptrace.agent.sender import Identity

BOOT_ID = pathlib.Path("/proc/sys/kernel/random/boot_id")
MACHINE_IDS = (pathlib.Path("/etc/machine-id"), pathlib.Path("/var/lib/dbus/machine-id"))


def boot_id() -> str:
    """The kernel's id of this boot as /proc shows it; empty where it does not."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def identity(host: str = "", pids: Sequence[int] = ()) -> Identity:
    """This agent. host: name to use instead of the system's; pids: what it traces, so that two agents of one host differ.
    The host's name is part of the id, since cloned machines and images share one machine id."""
    host = host or socket.gethostname()
    boot = boot_id()
    seed = "\0".join([_machine_id(), host, *map(str, sorted(pids))])
    agent_id = hashlib.sha256(b"deeptrace agent\0" + seed.encode()).hexdigest()[:32]
    return Identity(agent_id=agent_id, epoch_ns=clock.unix_ns(), host=host, boot_id=boot, pid=os.getpid())


def _machine_id() -> str:
    for path in MACHINE_IDS:
        try:
            found = path.read_text().strip()
        except OSError:
            continue
        if found:
            return found
    return ""
