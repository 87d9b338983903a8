"""The agent's view of the probes' maps, over descriptors it holds: needs no capability. Never opens a map by name."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from deeptrace.core.wire import CONFIG_DTYPE
from deeptrace.loader import map_calls
from deeptrace.loader.rings import cpu_numbers
from deeptrace.loader.sys_numbers import bpf

KERNEL_COUNTERS = 64  # counters.def: 1-63 are the kernel's
TRACE, DENY, FOLLOW = 1, 2, 4  # dt_records.h: DT_PID_*
TID = struct.Struct("=I")


class PidMap:
    """Map PIDS: which processes are traced. flags: TRACE, DENY, FOLLOW (children inherit the value)."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def set(self, pid: int, flags: int) -> None:
        """Raises OSError (E2BIG) when the map is full."""
        map_calls.map_update(self._fd, TID.pack(pid), TID.pack(flags))

    def delete(self, pid: int) -> bool:
        return map_calls.map_delete(self._fd, TID.pack(pid))

    def get(self, pid: int) -> int | None:
        value = map_calls.map_lookup(self._fd, TID.pack(pid), TID.size)
        return None if value is None else int(TID.unpack(value)[0])

    def items(self) -> Iterator[tuple[int, int]]:
        for key in map_calls.map_keys(self._fd, TID.size):
            value = map_calls.map_lookup(self._fd, key, TID.size)
            if value is not None:
                yield int(TID.unpack(key)[0]), int(TID.unpack(value)[0])


def read_counters(fd: int) -> npt.NDArray[np.uint64]:
    """Map COUNTERS summed over all CPUs: uint64 (64,), indexed by the numbers of counters.def."""
    n_cpus = max(cpu_numbers("possible")) + 1
    totals = np.zeros(KERNEL_COUNTERS, np.uint64)
    for number in range(1, KERNEL_COUNTERS):
        value = map_calls.map_lookup(fd, struct.pack("=i", number), 8 * n_cpus)
        if value is not None:
            totals[number] = np.frombuffer(value, np.uint64).sum()
    return totals


def write_config(fd: int, *, socket_fops: int, all_processes: bool, payload_bytes: int, head_bytes: int) -> None:
    """Set map CONFIG; the probes follow it from the next call on. socket_fops 0 disarms them."""
    row = np.zeros(1, CONFIG_DTYPE)
    row["socket_fops"] = socket_fops
    row["all_processes"] = int(all_processes)
    row["payload_bytes"] = payload_bytes
    row["head_bytes"] = head_bytes
    map_calls.map_update(fd, struct.pack("=i", 0), row.tobytes())


def count_entries(fd: int, *, key_bytes: int, value_bytes: int, max_entries: int) -> int:
    """Entries of a hash map now."""
    keys, _values = map_calls.map_read_all(fd, key_bytes=key_bytes, value_bytes=value_bytes, max_entries=max_entries)
    return len(keys) // key_bytes


def count_in_flight(fd: int, *, value_bytes: int, max_entries: int) -> int:
    """Calls in flight in map ingress or egress: entries whose enter_ns, their first field, is not 0."""
    _keys, values = map_calls.map_read_all(fd, key_bytes=TID.size, value_bytes=value_bytes, max_entries=max_entries)
    return int(np.count_nonzero(np.frombuffer(values, np.uint64).reshape(-1, value_bytes // 8)[:, 0]))


class ProgramInfo(ctypes.Structure):
    """struct bpf_prog_info up to recursion_misses (linux/bpf.h)."""

    _fields_ = (
        ("head", ctypes.c_uint8 * 192),
        ("run_time_ns", ctypes.c_uint64),
        ("run_count", ctypes.c_uint64),
        ("recursion_misses", ctypes.c_uint64),
    )


def recursion_misses(program_fd: int) -> int:
    """Runs of a program that the kernel skipped because another one was active on that CPU."""
    info = ProgramInfo()
    call = map_calls.InfoCall(fd=program_fd, info_bytes=ctypes.sizeof(info), info=ctypes.addressof(info))
    bpf(map_calls.OBJECT_INFO, call)
    return int(info.recursion_misses)
