"""Makes the C library give freed memory back to the system. Changes nothing but when memory is returned."""

import contextlib
import ctypes

import pyarrow as pa

M_MMAP_THRESHOLD = -3  # malloc.h
LARGE_BYTES = 4 << 20  # the correlator's columns at 500,000 spans; smaller blocks are reused too often to be mapped each time


def return_large_blocks() -> None:
    """By default the threshold grows to 32 MiB with use, and what lies below it stays with the process: after a burst of two
    million spans 300 MB more than was in use."""
    with contextlib.suppress(OSError, AttributeError):  # another C library: it has ways of its own
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
    pa.set_memory_pool(pa.system_memory_pool())


def trim() -> None:
    """Return what has come free between blocks that are still in use: 200 MB after a burst of 1.5 million spans."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
