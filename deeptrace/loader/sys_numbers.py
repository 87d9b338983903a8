"""bpf(2) and perf_event_open(2), which libc does not wrap. Runs in both processes, standard library only."""

from __future__ import annotations

import ctypes
import os
import platform

# machine -> numbers of (bpf, perf_event_open)
NUMBERS = {
    "x86_64": (321, 298),
    "aarch64": (280, 241),
    "riscv64": (280, 241),
    "s390x": (351, 331),
    "ppc64le": (361, 319),
}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _number(index: int) -> int:
    machine = platform.machine()
    if machine not in NUMBERS:
        raise OSError(f"DeepTrace does not know the system call numbers of {machine}")
    return NUMBERS[machine][index]


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def bpf(command: int, attributes: ctypes.Structure) -> int:
    """bpf(2). Raises OSError."""
    size = ctypes.c_uint(ctypes.sizeof(attributes))
    return _call(_number(0), ctypes.c_int(command), ctypes.byref(attributes), size)


def perf_event_open(attributes: ctypes.Structure, *, pid: int, cpu: int, flags: int) -> int:
    """perf_event_open(2) without a group; a new descriptor. Raises OSError."""
    return _call(
        _number(1), ctypes.byref(attributes), ctypes.c_int(pid), ctypes.c_int(cpu), ctypes.c_int(-1), ctypes.c_ulong(flags)
    )
