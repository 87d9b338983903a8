"""Writing payload limits: the newest wish of a socket counts, and no more are written than a second allows."""

import numpy as np

from deeptrace.agent.limits import MAX_AT_ONCE, MAX_WAITING, MAX_WRITES_PER_S, LimitWriter
from deeptrace.core.pipeline import WISH_DTYPE
from deeptrace.counters import PythonCounters

S = 10**9


class Map(dict):
    def __init__(self, room: int = 1 << 20) -> None:
        super().__init__()
        self.room = room

    def set(self, socket: int, payload_limit: int, local_port: int, peer_port: int) -> bool:
        if socket not in self and len(self) >= self.room:
            return False
        self[socket] = (payload_limit, local_port, peer_port)
        return True


def wishes(*rows: tuple[int, int, int, int]):
    return np.array(list(rows), WISH_DTYPE)


def test_the_newest_wish_of_a_socket_is_written_once() -> None:
    limits, counters = Map(), PythonCounters()
    LimitWriter(limits, counters).take(wishes((1, 4096, 80, 5), (2, 0, 81, 6), (1, 16384, 80, 5)), S)
    assert limits == {1: (16384, 80, 5), 2: (0, 81, 6)}
    assert counters.snapshot()["limits_written"] == 2


def test_more_than_a_second_allows_waits_for_the_next_ones() -> None:
    limits, counters = Map(), PythonCounters()
    writer = LimitWriter(limits, counters)
    writer.take(wishes(*((k, 4096, 0, 0) for k in range(5000))), S)
    assert len(limits) == MAX_AT_ONCE
    for i in range(1, 101):
        writer.take(wishes(), S + i * S // 100)
    assert len(limits) == MAX_AT_ONCE + MAX_WRITES_PER_S
    for i in range(500):
        writer.take(wishes(), 2 * S + i * S // 100)
    assert len(limits) == 5000
    assert counters.snapshot() == {"limits_written": 5000, "limits_dropped": 0}


def test_what_does_not_fit_is_counted() -> None:
    limits, counters = Map(room=10), PythonCounters()
    writer = LimitWriter(limits, counters)
    writer.take(wishes(*((k, 4096, 0, 0) for k in range(20))), S)
    assert (len(limits), counters.snapshot()["limits_dropped"]) == (10, 10)
    writer.take(wishes(*((k, 4096, 0, 0) for k in range(100, 101 + MAX_WAITING))), S)
    assert counters.snapshot()["limits_dropped"] > 10
