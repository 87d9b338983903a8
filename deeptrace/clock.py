"""The only place that reads the time. Never steps a clock; tests pass times as arguments instead."""

import time


def monotonic_ns() -> int:
    """CLOCK_MONOTONIC in ns: the clock of the probes."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def boottime_ns() -> int:
    """CLOCK_BOOTTIME in ns: like monotonic_ns, with the time that the machine was suspended; what /proc/PID/stat counts in."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def unix_ns() -> int:
    """Wall clock, ns since 1970-01-01 UTC."""
    return time.time_ns()


def monotonic_to_unix_offset_ns(samples: int = 5) -> int:
    """What to add to CLOCK_MONOTONIC to get Unix time, from the tightest of `samples` paired readings. Unit: ns."""
    best_gap, best_offset = 1 << 62, 0
    for _ in range(samples):
        before = monotonic_ns()
        wall = unix_ns()
        after = monotonic_ns()
        if after - before < best_gap:
            best_gap, best_offset = after - before, wall - (before + after) // 2
    return best_offset
