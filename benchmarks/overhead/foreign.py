"""Finds tracing programs of other tools: while theirs are attached, `none` is not untouched. Only looks."""

import contextlib
import ctypes
import os
from collections.abc import Iterable

from deeptrace.loader.sys_numbers import bpf

# linux/bpf.h
PROG_NEXT_ID, PROG_FD_BY_ID, OBJECT_INFO = 11, 13, 15
TRACING_TYPES = (5, 17, 24, 26)  # tracepoint, raw tracepoint, writable raw tracepoint, tracing


class IdCall(ctypes.Structure):
    """union bpf_attr of BPF_PROG_GET_NEXT_ID and BPF_PROG_GET_FD_BY_ID."""

    _fields_ = (("number", ctypes.c_uint32), ("next_number", ctypes.c_uint32), ("flags", ctypes.c_uint32))


class InfoCall(ctypes.Structure):
    """union bpf_attr of BPF_OBJ_GET_INFO_BY_FD."""

    _fields_ = (("fd", ctypes.c_uint32), ("info_bytes", ctypes.c_uint32), ("info", ctypes.c_uint64))


class ProgramInfo(ctypes.Structure):
    """struct bpf_prog_info, its first fields."""

    _fields_ = (("kind", ctypes.c_uint32), ("number", ctypes.c_uint32))


def info_of(fd: int) -> ProgramInfo:
    info = ProgramInfo()
    bpf(OBJECT_INFO, InfoCall(fd=fd, info_bytes=ctypes.sizeof(info), info=ctypes.addressof(info)))
    return info


class ForeignPrograms:
    """The tracing programs of the machine except our own."""

    def __init__(self, own_fds: Iterable[int]) -> None:
        self._own = {int(info_of(fd).number) for fd in own_fds}
        self._is_tracing: dict[int, bool] = {}

    def now(self) -> int:
        """How many are loaded; some may be loaded and not attached."""
        return sum(self._look_at(number) for number in program_numbers() if number not in self._own)

    def _look_at(self, number: int) -> bool:
        if number not in self._is_tracing:
            self._is_tracing[number] = False  # gone before it was opened
            with contextlib.suppress(OSError):
                fd = bpf(PROG_FD_BY_ID, IdCall(number=number))
                try:
                    self._is_tracing[number] = int(info_of(fd).kind) in TRACING_TYPES
                finally:
                    os.close(fd)
        return self._is_tracing[number]


def program_numbers() -> list[int]:
    """The numbers of all loaded programs; empty where the kernel does not tell (it needs CAP_SYS_ADMIN)."""
    numbers: list[int] = []
    call = IdCall()
    while True:
        try:
            bpf(PROG_NEXT_ID, call)
        except OSError:
            return numbers
        numbers.append(int(call.next_number))
        call.number = call.next_number
