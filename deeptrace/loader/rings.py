"""Opens the perf rings through which records leave the kernel: one per online CPU, entered into EVENTS. The agent maps
them; the loader only needs their descriptors."""

from __future__ import annotations

import ctypes
import pathlib
import struct

from .failure import LoadFailure
from .map_calls import map_update
from .sys_numbers import perf_event_open

# linux/perf_event.h
TYPE_SOFTWARE = 1
COUNT_SW_BPF_OUTPUT = 10
SAMPLE_RAW = 1 << 10
FLAG_WATERMARK = 1 << 14  # wake by bytes waiting, not by events
OPEN_CLOEXEC = 1 << 3
ATTR_SIZE_VER0 = 64

WAKEUP_SHARE = 4  # wake the reader when a quarter of the ring is full: a wakeup costs 9 us, and the agent drains by time as well


class PerfEventAttr(ctypes.Structure):
    """struct perf_event_attr, its first published size."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("wakeup_watermark", ctypes.c_uint32),
        ("bp_type", ctypes.c_uint32),
        ("bp_addr", ctypes.c_uint64),
    )


def cpu_numbers(which: str) -> list[int]:
    """The machine's `online` or `possible` CPUs."""
    numbers: list[int] = []
    for part in pathlib.Path("/sys/devices/system/cpu", which).read_text().strip().split(","):
        first, _, last = part.partition("-")
        numbers.extend(range(int(first), int(last or first) + 1))
    return numbers


def open_rings(events_fd: int, ring_bytes: int) -> dict[int, int]:
    """{cpu: descriptor}. ring_bytes: data area of each ring, a power of two of pages. Raises LoadFailure."""
    rings: dict[int, int] = {}
    for cpu in cpu_numbers("online"):
        attributes = PerfEventAttr(
            type=TYPE_SOFTWARE,
            size=ATTR_SIZE_VER0,
            config=COUNT_SW_BPF_OUTPUT,
            sample_period=1,
            sample_type=SAMPLE_RAW,
            flags=FLAG_WATERMARK,
            wakeup_watermark=ring_bytes // WAKEUP_SHARE,
        )
        try:
            rings[cpu] = perf_event_open(attributes, pid=-1, cpu=cpu, flags=OPEN_CLOEXEC)
            map_update(events_fd, struct.pack("=i", cpu), struct.pack("=i", rings[cpu]))
        except OSError as e:
            raise LoadFailure(
                f"no perf ring on CPU {cpu}: {e.strerror}; DeepTrace needs CAP_PERFMON or CAP_SYS_ADMIN (run it as root)"
            ) from None
    return rings
