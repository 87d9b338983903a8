"""Writes the payload limits that the core asks for, connection by connection. Bounded in how many wait and how many it writes."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from deeptrace.counters import PythonCounters

MAX_WRITES_PER_S = 1000  # 6 us each: 0.6 % of a CPU at worst, such as when 10,000 unknown connections are found at the start
MAX_AT_ONCE = 100  # writes between two reads of the rings
MAX_WAITING = 8192  # twice what the core asks for at once; what is dropped it asks for again
S = 10**9  # ns


class Limits(Protocol):
    """Map LIMITS."""

    def set(self, socket: int, payload_limit: int, local_port: int, peer_port: int) -> bool: ...


class LimitWriter:
    """take() what Pipeline.take_limits() gives, as often as records are moved; the newest wish for a socket counts."""

    def __init__(self, limits: Limits, counters: PythonCounters) -> None:
        self._limits = limits
        self._counters = counters
        self._waiting: dict[int, tuple[int, int, int]] = {}
        self._allowed = float(MAX_AT_ONCE)
        self._last_ns = 0

    def take(self, wishes: npt.NDArray[np.void], now_ns: int) -> None:
        """Write what may be written now. wishes: WISH_DTYPE (n,); now_ns: monotonic."""
        for socket, limit, local_port, peer_port in wishes.tolist():
            if socket not in self._waiting and len(self._waiting) >= MAX_WAITING:
                self._counters.add("limits_dropped")
                continue
            self._waiting[socket] = (limit, local_port, peer_port)
        if self._waiting:
            self._write(now_ns)

    def _write(self, now_ns: int) -> None:
        self._allowed = min(self._allowed + (now_ns - self._last_ns) * MAX_WRITES_PER_S / S, MAX_AT_ONCE)
        self._last_ns = now_ns
        results: list[Any] = []
        while self._waiting and len(results) + 1 <= self._allowed:
            socket = next(iter(self._waiting))
            results.append(self._limits.set(socket, *self._waiting.pop(socket)))
        self._allowed -= len(results)
        written = sum(results)
        self._counters.add("limits_written", written)
        self._counters.add("limits_dropped", len(results) - written)
