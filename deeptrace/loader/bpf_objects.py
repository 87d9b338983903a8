"""What the kernel says of BPF programs and maps, by descriptor or by number, and its statistics of running programs.
Reads; loads and changes nothing. Numbers and statistics need CAP_SYS_ADMIN."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator

import msgspec

from deeptrace.loader.map_calls import OBJECT_INFO, InfoCall
from deeptrace.loader.sys_numbers import bpf

# linux/bpf.h: enum bpf_cmd
PROG_NEXT_ID, PROG_FD_BY_ID, MAP_FD_BY_ID, ENABLE_STATS = 11, 13, 14, 32
STATS_RUN_TIME = 0  # enum bpf_stats_type


class ProgramInfo(ctypes.Structure):
    """struct bpf_prog_info up to verified_insns (linux/bpf.h). Older kernels fill in less of it."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_bytes", ctypes.c_uint32),
        ("translated_bytes", ctypes.c_uint32),
        ("pointers", ctypes.c_uint64 * 5),
        ("name", ctypes.c_char * 16),
        ("middle", ctypes.c_uint8 * 112),
        ("run_time_ns", ctypes.c_uint64),
        ("run_count", ctypes.c_uint64),
        ("recursion_misses", ctypes.c_uint64),
        ("verified_insns", ctypes.c_uint32),
        ("attach_object", ctypes.c_uint32),
    )


class MapInfo(ctypes.Structure):
    """struct bpf_map_info up to its name (linux/bpf.h)."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_bytes", ctypes.c_uint32),
        ("value_bytes", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("name", ctypes.c_char * 16),
    )


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """One loaded program. runs, run_ns: since it was loaded, counted only while statistics are on; misses: runs that the kernel
    skipped because another program was active on that CPU."""

    id: int
    name: str
    runs: int
    run_ns: int
    misses: int
    instructions: int


class IdCall(ctypes.Structure):
    """union bpf_attr of the commands by number."""

    _fields_ = (("id", ctypes.c_uint32), ("next_id", ctypes.c_uint32), ("flags", ctypes.c_uint32))


def program(fd: int, name: str = "") -> Program:
    """name: in place of the kernel's, which ends after 15 bytes. Raises OSError."""
    told = ProgramInfo()
    bpf(OBJECT_INFO, InfoCall(fd=fd, info_bytes=ctypes.sizeof(told), info=ctypes.addressof(told)))
    return Program(
        id=told.id,
        name=name or told.name.decode(errors="replace"),
        runs=told.run_count,
        run_ns=told.run_time_ns,
        misses=told.recursion_misses,
        instructions=told.translated_bytes // 8,
    )


def map_name(fd: int) -> str:
    """The first 15 bytes of a map's name. Raises OSError."""
    told = MapInfo()
    bpf(OBJECT_INFO, InfoCall(fd=fd, info_bytes=ctypes.sizeof(told), info=ctypes.addressof(told)))
    return bytes(told.name).decode(errors="replace")


def program_ids() -> Iterator[int]:
    """Numbers of all programs of this machine. Raises OSError without the privilege."""
    number = 0
    while True:
        call = IdCall(id=number)
        try:
            bpf(PROG_NEXT_ID, call)
        except OSError as e:
            if e.errno == errno.ENOENT:
                return
            raise
        number = call.next_id
        yield number


def map_by_id(number: int) -> int:
    """A descriptor of that map, the caller's to close. Raises OSError."""
    return bpf(MAP_FD_BY_ID, IdCall(id=number))


class Statistics:
    """The kernel counts and times runs of all programs while this is open; a crash ends it too. Raises OSError."""

    def __init__(self) -> None:
        self._fd = bpf(ENABLE_STATS, IdCall(id=STATS_RUN_TIME))

    def __enter__(self) -> Statistics:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
