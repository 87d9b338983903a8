"""Finds the tracing file system and mounts it when it is missing. Mounts nothing else and unmounts nothing."""

from __future__ import annotations

import ctypes
import os
import pathlib

from .failure import LoadFailure

PLACE = pathlib.Path("/sys/kernel/tracing")
OLD_PLACE = pathlib.Path("/sys/kernel/debug/tracing")


def ready_tracefs() -> tuple[pathlib.Path, bool]:
    """(where the tracepoints are described, whether it was mounted now). Raises LoadFailure."""
    for place in (PLACE, OLD_PLACE):
        if (place / "events").is_dir():
            return place, False
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tracefs", bytes(PLACE), b"tracefs", ctypes.c_ulong(0), None) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise LoadFailure(
            f"no tracefs at {PLACE} and it cannot be mounted ({reason}); run 'mount -t tracefs tracefs {PLACE}' on the host"
        )
    if not (PLACE / "events").is_dir():
        raise LoadFailure(f"tracefs at {PLACE} offers no events; use a kernel built with CONFIG_FTRACE_SYSCALLS=y")
    return PLACE, True


def has_tracepoint(tracefs: pathlib.Path, category: str, event: str) -> bool:
    """category: * for any."""
    return any((tracefs / "events").glob(f"{category}/{event}/id"))
