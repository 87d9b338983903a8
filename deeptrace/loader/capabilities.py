"""Gives up all capabilities of the calling process for good. Descriptors that are held stay usable."""

from __future__ import annotations

import ctypes
import errno
import os
import pathlib

from deeptrace.errors import ProbeError

# linux/prctl.h, linux/capability.h
PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 23, 24, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
CAPABILITY_VERSION_3 = 0x20080522
MAX_CAPABILITIES = 64  # version 3 has two words of 32


class Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class Word(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def drop_capabilities() -> None:
    """Clear bounding, ambient, inheritable, permitted and effective sets of this thread, and forbid that exec gives any
    back. Call it before other threads start: capabilities are per thread. Raises ProbeError if some remain."""
    libc = ctypes.CDLL(None, use_errno=True)
    for number in range(MAX_CAPABILITIES):
        if libc.prctl(PR_CAPBSET_READ, number, 0, 0, 0) == 1:
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)  # EPERM without CAP_SETPCAP: no_new_privs covers it
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    header, words = Header(CAPABILITY_VERSION_3, 0), (Word * 2)()
    if libc.capset(ctypes.byref(header), ctypes.byref(words)) != 0:
        raise ProbeError(f"capabilities cannot be given up: {os.strerror(ctypes.get_errno() or errno.EPERM)}")
    if effective_capabilities():
        raise ProbeError("capabilities remain after giving them up; run the agent without a wrapper that restores them")


def effective_capabilities() -> int:
    """CapEff of the calling thread as a bit set."""
    for line in pathlib.Path("/proc/thread-self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    raise ProbeError("/proc/thread-self/status has no CapEff line; mount /proc")
