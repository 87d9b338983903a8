"""The agent's view of the probes' maps, over descriptors it holds: needs no capability. Never opens a map by name."""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from deeptrace.core.wire import CALL_BLOCKED, CONFIG_DTYPE, COUNTS_DTYPE, LIMIT_DTYPE, PID_DENY, PID_FOLLOW, PID_TRACE, THREAD_DTYPE
from deeptrace.loader import map_calls
from deeptrace.loader.sys_numbers import bpf

TRACE, DENY, FOLLOW = PID_TRACE, PID_DENY, PID_FOLLOW
WORD = struct.Struct("=I")
LONG = struct.Struct("=Q")
HASHES = (1, 5, 9)  # linux/bpf.h: BPF_MAP_TYPE_HASH, _PERCPU_HASH, _LRU_HASH


class PidMap:
    """Map PIDS: which processes are traced. flags: TRACE, DENY, FOLLOW (children inherit the value). changed: called after every
    change, so that no verdict of before stays in force."""

    def __init__(self, fd: int, changed: Callable[[], None]) -> None:
        self._fd = fd
        self._changed = changed

    def set(self, pid: int, flags: int) -> None:
        """Raises OSError (E2BIG) when the map is full."""
        map_calls.map_update(self._fd, WORD.pack(pid), WORD.pack(flags))
        self._changed()

    def delete(self, pid: int) -> bool:
        found = map_calls.map_delete(self._fd, WORD.pack(pid))
        if found:
            self._changed()
        return found

    def get(self, pid: int) -> int | None:
        value = map_calls.map_lookup(self._fd, WORD.pack(pid), WORD.size)
        return None if value is None else int(WORD.unpack(value)[0])

    def items(self) -> Iterator[tuple[int, int]]:
        for key in map_calls.map_keys(self._fd, WORD.size):
            value = map_calls.map_lookup(self._fd, key, WORD.size)
            if value is not None:
                yield int(WORD.unpack(key)[0]), int(WORD.unpack(value)[0])


class LimitMap:
    """Map LIMITS: how many bytes of each call of one connection are captured. The probes remove what they no longer need."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def set(self, socket: int, payload_limit: int, local_port: int, peer_port: int) -> bool:
        """socket: address of struct sock, as records give it; payload_limit: bytes per call, LIMIT_DEFAULT or LIMIT_MUTE. False
        when the map is full: then the connection keeps the limit it has."""
        row = np.zeros(1, LIMIT_DTYPE)
        row["payload_limit"], row["local_port"], row["peer_port"] = payload_limit, local_port, peer_port
        return map_calls.map_offer(self._fd, LONG.pack(socket), row.tobytes())

    def delete(self, socket: int) -> bool:
        return map_calls.map_delete(self._fd, LONG.pack(socket))

    def get(self, socket: int) -> tuple[int, int, int] | None:
        """(payload_limit, local_port, peer_port)."""
        value = map_calls.map_lookup(self._fd, LONG.pack(socket), LIMIT_DTYPE.itemsize)
        if value is None:
            return None
        row = np.frombuffer(value, LIMIT_DTYPE)[0]
        return int(row["payload_limit"]), int(row["local_port"]), int(row["peer_port"])


class MappedArray:
    """An array map of structures that the probes write, read in place. Its pages are the kernel's own and never copied."""

    def __init__(self, fd: int, dtype: np.dtype[np.void]) -> None:
        """Raises OSError when the kernel does not let it be mapped."""
        self.n_entries = map_calls.map_info(fd).max_entries
        n_bytes = -(-self.n_entries * dtype.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = mmap.mmap(fd, n_bytes, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        self.rows: npt.NDArray[np.void] = np.frombuffer(self._memory, dtype, self.n_entries)

    def close(self) -> None:
        """Unmap. No row may be used any more."""
        self.rows = np.zeros(0, self.rows.dtype)
        self._memory.close()


def map_counts(fd: int) -> MappedArray:
    """Map COUNTERS by CPU."""
    return MappedArray(fd, COUNTS_DTYPE)


def map_threads(fd: int) -> MappedArray:
    """Map THREADS."""
    return MappedArray(fd, THREAD_DTYPE)


def sum_counts(counts: MappedArray) -> npt.NDArray[np.uint64]:
    """The counters over all CPUs: uint64 (64,), indexed by the numbers of counters.def."""
    total: npt.NDArray[np.uint64] = counts.rows["value"].sum(axis=0, dtype=np.uint64)
    return total


def threads_in_call(rows: npt.NDArray[np.void]) -> int:
    """Threads whose call was counted at its enter and has not returned. rows: THREAD_DTYPE (n,)."""
    entered = np.flatnonzero(rows["enter_ns"])  # few; all else is looked at for those only
    return int(np.count_nonzero(rows["call_flags"][entered] & CALL_BLOCKED == 0))


def read_threads(fd: int) -> npt.NDArray[np.void]:
    """Map THREADS_MORE, copied: THREAD_DTYPE (n,)."""
    most = map_calls.map_info(fd).max_entries
    _keys, values = map_calls.map_read_all(fd, key_bytes=WORD.size, value_bytes=THREAD_DTYPE.itemsize, max_entries=most)
    return np.frombuffer(values, THREAD_DTYPE)


def write_config(fd: int, **fields: int) -> None:
    """Set map CONFIG, fields that are not named to 0; the probes follow it from the next call on."""
    row = np.zeros(1, CONFIG_DTYPE)
    for name, value in fields.items():
        row[name] = value
    map_calls.map_update(fd, struct.pack("=i", 0), row.tobytes())


def fill(fd: int) -> tuple[int, int] | None:
    """(entries, most entries) of a hash map; None for maps of other types."""
    info = map_calls.map_info(fd)
    if info.type not in HASHES:
        return None
    keys, _values = map_calls.map_read_all(fd, key_bytes=info.key_bytes, value_bytes=info.value_bytes, max_entries=info.max_entries)
    return len(keys) // info.key_bytes, int(info.max_entries)


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
