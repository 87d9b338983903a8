"""Reads and writes BPF maps through bpf(2) on descriptors that are held already, which needs no capability.
Standard library only; runs in both processes. Keys and values are bytes in the kernel's layout."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterator

from .sys_numbers import bpf

NO_EXIST = 1  # linux/bpf.h: BPF_NOEXIST
# linux/bpf.h: enum bpf_cmd
MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, MAP_NEXT_KEY, OBJECT_INFO, MAP_LOOKUP_BATCH = 1, 2, 3, 4, 15, 24


class ElementCall(ctypes.Structure):
    """union bpf_attr of the BPF_MAP_*_ELEM commands."""

    _fields_ = (
        ("map_fd", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
        ("key", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    )


class InfoCall(ctypes.Structure):
    """union bpf_attr of BPF_OBJ_GET_INFO_BY_FD."""

    _fields_ = (("fd", ctypes.c_uint32), ("info_bytes", ctypes.c_uint32), ("info", ctypes.c_uint64))


class MapInfo(ctypes.Structure):
    """struct bpf_map_info up to its flags (linux/bpf.h)."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_bytes", ctypes.c_uint32),
        ("value_bytes", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
    )


class BatchCall(ctypes.Structure):
    """union bpf_attr of BPF_MAP_LOOKUP_BATCH."""

    _fields_ = (
        ("in_batch", ctypes.c_uint64),
        ("out_batch", ctypes.c_uint64),
        ("keys", ctypes.c_uint64),
        ("values", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("map_fd", ctypes.c_uint32),
        ("element_flags", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    )


def _element(
    command: int, fd: int, key: ctypes.Array[ctypes.c_char] | None, value: ctypes.Array[ctypes.c_char] | None, flags: int = 0
) -> None:
    call = ElementCall(map_fd=fd, flags=flags)
    call.key = ctypes.addressof(key) if key is not None else 0
    call.value = ctypes.addressof(value) if value is not None else 0
    bpf(command, call)


def map_update(fd: int, key: bytes, value: bytes) -> None:
    """Set an entry. Raises OSError (E2BIG: the map is full)."""
    _element(MAP_UPDATE, fd, ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value)))


def map_offer(fd: int, key: bytes, value: bytes) -> bool:
    """Set an entry; False when the map is full."""
    try:
        map_update(fd, key, value)
    except OSError as e:
        if e.errno in (errno.E2BIG, errno.ENOMEM):
            return False
        raise
    return True


def map_insert(fd: int, key: bytes, value: bytes) -> bool:
    """Add an entry to a hash map; False when it is there already, or the map is full."""
    try:
        _element(
            MAP_UPDATE, fd, ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value)), NO_EXIST
        )
    except OSError as e:
        if e.errno in (errno.EEXIST, errno.E2BIG, errno.ENOMEM):
            return False
        raise
    return True


def map_info(fd: int) -> MapInfo:
    """Type and sizes of a map."""
    info = MapInfo()
    bpf(OBJECT_INFO, InfoCall(fd=fd, info_bytes=ctypes.sizeof(info), info=ctypes.addressof(info)))
    return info


def map_lookup(fd: int, key: bytes, value_bytes: int) -> bytes | None:
    """The value of a key, None if it is not there. value_bytes: for per-CPU maps that of all possible CPUs."""
    value = ctypes.create_string_buffer(value_bytes)
    try:
        _element(MAP_LOOKUP, fd, ctypes.create_string_buffer(key, len(key)), value)
    except OSError as e:
        if e.errno == errno.ENOENT:
            return None
        raise
    return value.raw


def map_delete(fd: int, key: bytes) -> bool:
    """Remove an entry; False if it was not there."""
    try:
        _element(MAP_DELETE, fd, ctypes.create_string_buffer(key, len(key)), None)
    except OSError as e:
        if e.errno == errno.ENOENT:
            return False
        raise
    return True


def map_keys(fd: int, key_bytes: int) -> Iterator[bytes]:
    """The keys of a hash map, one call each. Entries that come or go meanwhile may be missed or seen twice."""
    key: ctypes.Array[ctypes.c_char] | None = None
    while True:
        following = ctypes.create_string_buffer(key_bytes)
        try:
            _element(MAP_NEXT_KEY, fd, key, following)
        except OSError as e:
            if e.errno == errno.ENOENT:
                return
            raise
        yield following.raw
        key = following


def map_read_all(fd: int, *, key_bytes: int, value_bytes: int, max_entries: int) -> tuple[bytes, bytes]:
    """All keys and all values of a hash map, each as one run of bytes, by one call per BATCH entries."""
    keys, values = bytearray(), bytearray()
    batch = min(max_entries, BATCH_ENTRIES)
    key_buffer = ctypes.create_string_buffer(batch * key_bytes)
    value_buffer = ctypes.create_string_buffer(batch * value_bytes)
    cursor = ctypes.create_string_buffer(max(key_bytes, 8))
    started = False
    while len(keys) <= max_entries * key_bytes:
        call = BatchCall(map_fd=fd, count=batch, out_batch=ctypes.addressof(cursor))
        call.in_batch = ctypes.addressof(cursor) if started else 0
        call.keys, call.values = ctypes.addressof(key_buffer), ctypes.addressof(value_buffer)
        ended = False
        try:
            bpf(MAP_LOOKUP_BATCH, call)
        except OSError as e:
            if e.errno != errno.ENOENT:
                raise
            ended = True
        keys += ctypes.string_at(key_buffer, call.count * key_bytes)
        values += ctypes.string_at(value_buffer, call.count * value_bytes)
        started = True
        if ended:
            break
    return bytes(keys), bytes(values)


BATCH_ENTRIES = 1024  # entries per call; a hash bucket that does not fit fails with ENOSPC, buckets hold a handful
