"""What the server keeps of settled spans, and what it lets go of."""

import numpy as np
from span_factory import Factory

from deeptrace.server import history as history_module
from deeptrace.server.assemble import Assembler
from deeptrace.server.correlate._window import CLIENT, SERVER, WINDOW_DTYPE, rows_of
from deeptrace.server.history import HISTORY_NS, History

SECOND = 10**9


def rows(n, *, first_id=1, arrived_ns=0, root_is_call=1):
    found = np.zeros(n, WINDOW_DTYPE)
    found["span_id"] = found["root_id"] = np.arange(first_id, first_id + n)
    found["kind"], found["process"] = CLIENT, 7
    found["start_ns"], found["end_ns"] = 100, 200
    found["arrived_ns"], found["root_is_call"] = arrived_ns, root_is_call
    return found


def test_only_traces_without_a_known_caller_are_kept():
    history = History()
    history.add(np.concatenate([rows(3), rows(5, first_id=10, root_is_call=0)]))
    assert len(history) == 3


def test_the_history_is_bounded_and_the_oldest_go_first(monkeypatch):
    monkeypatch.setattr(history_module, "MAX_HISTORY_SPANS", 10)
    history = History()
    for first in (1, 5, 9):
        history.add(rows(4, first_id=first))
    assert len(history) == 8
    assert sorted(history.take(np.arange(1, 100, dtype=np.uint64))["span_id"]) == list(range(5, 13))
    assert len(history) == 0


def test_old_spans_are_forgotten_though_nothing_new_comes():
    history = History()
    history.add(rows(4, arrived_ns=SECOND))
    history.expire(SECOND + HISTORY_NS - 1)
    assert len(history) == 4
    history.expire(SECOND + HISTORY_NS)
    assert len(history) == 0


def test_a_long_span_claims_calls_of_its_process_inside_its_time():
    history = History()
    history.add(rows(3))
    history.add(rows(3, first_id=11))
    late = rows(1, first_id=99)
    late["kind"], late["start_ns"], late["end_ns"] = SERVER, 50, 300
    assert history.claimed_roots(late).tolist() == [1, 2, 3, 11, 12, 13]
    late["end_ns"] = 150
    assert history.claimed_roots(late).tolist() == []


def test_a_trace_with_its_caller_known_does_not_enter_the_history():
    factory = Factory()
    factory.add(CLIENT, pid=1, start=0, end=5, peer_port=80, local_port=5000, connection_id=1, req_seq=1, resp_seq=2, seq_space=1)
    factory.add(SERVER, pid=2, start=1, end=4, peer_port=5001, local_port=81, connection_id=2, req_seq=8, resp_seq=9, seq_space=1)
    assembler = Assembler(SECOND)
    arrived = rows_of(factory.batch(), 1, 0)
    assembler.step([arrived], 0)
    for second in (2, 4, 6, 8):
        assembler.step([], second * SECOND)
    assert len(assembler.window) == 0
    assert len(assembler.history) == 1  # the call that nobody is known to have caused
