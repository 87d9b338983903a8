"""What each kind of evidence links, and what it must leave alone."""

from typing import Any

import numpy as np
import pytest
from linking import publish
from span_factory import CLIENT, SERVER, Factory, load, shuffled, v4

SEQ_AMBIGUOUS, INCOMPLETE = 0x10, 0x08
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def call(
    factory: Factory, seq: int = 7, client: dict[str, Any] | None = None, server: dict[str, Any] | None = None
) -> tuple[int, int]:
    """The two ends of one call between pids 1 and 2; returns (client, server)."""
    common: dict[str, Any] = {"req_seq": seq, "resp_seq": seq + 100}
    c = factory.add(CLIENT, pid=1, **{"start": 0, "end": 5, "local_port": 4000, "peer_port": 80} | common | (client or {}))
    s = factory.add(SERVER, pid=2, **{"start": 1, "end": 4, "local_port": 80, "peer_port": 4000} | common | (server or {}))
    return c, s


def test_equal_positions_join_the_two_ends_of_a_call() -> None:
    factory = Factory()
    c, s = call(factory)
    found = publish(factory.batch())
    assert (found.parent[s], found.method[s], found.confidence[s]) == (c, "tcp_seq", 1.0)
    assert found.trace[s] == found.trace[c]


def test_address_translation_does_not_hide_a_call() -> None:
    factory = Factory()
    c, s = call(factory, server={"peer_addr": v4(77), "peer_port": 61000})
    assert publish(factory.batch()).parent[s] == c


def test_clocks_that_differ_by_more_than_ten_seconds_are_not_joined() -> None:
    factory = Factory()
    _, s = call(factory, server={"start": 11_000, "end": 11_004})
    assert publish(factory.batch()).parent[s] == 0


def test_addresses_break_a_tie() -> None:
    factory = Factory()
    c, s = call(factory)
    _, other = call(factory, client={"local_port": 4001, "peer_addr": v4(9)}, server={"peer_port": 4002})
    found = publish(factory.batch())
    assert found.parent[s] == c
    assert found.parent[other] == 0


def test_two_candidates_that_nothing_tells_apart_stay_unlinked_and_are_counted() -> None:
    factory = Factory()
    pairs = [call(factory), call(factory)]
    found = publish(factory.batch())
    assert [found.parent[s] for _, s in pairs] == [0, 0]
    assert (found.n_linked, found.n_ambiguous) == (0, 4)


def test_positions_that_are_not_proven_join_nothing() -> None:
    factory = Factory()
    _, s = call(factory, server={"flags": SEQ_AMBIGUOUS})
    assert publish(factory.batch()).parent[s] == 0


def test_a_call_without_a_response_is_joined_by_its_request_and_says_so() -> None:
    factory = Factory()
    c, s = call(factory, client={"flags": INCOMPLETE}, server={"flags": INCOMPLETE})
    batch = factory.batch()
    batch.spans["response_start_ns"][0] = 0
    batch.spans["resp_seq"][0] = 0
    found = publish(batch)
    assert (found.parent[s], found.method[s]) == (c, "tcp_seq_request")


def test_a_request_position_alone_is_not_enough_when_the_addresses_differ() -> None:
    factory = Factory()
    _, s = call(factory, client={"local_port": 4009})
    batch = factory.batch()
    batch.spans["response_start_ns"][0] = 0
    assert publish(batch).parent[s] == 0


def test_loopback_of_another_network_namespace_is_another_address() -> None:
    factory = Factory()
    _, s = call(factory, server={"netns": 99})
    batch = factory.batch()
    batch.spans["response_start_ns"][0] = 0
    assert publish(batch).parent[s] == 0


@pytest.mark.parametrize(
    ("key", "incoming", "outgoing"),
    [
        ("traceparent", TRACEPARENT, "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"),
        ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1", "80f198ee56343ba864fe8b2a57d3eff7-05e3ac9a4f6e3b90-1"),
        ("b3", "64fe8b2a57d3eff7-e457b5a2e4d86bd1-1", "64fe8b2a57d3eff7-05e3ac9a4f6e3b90-1"),
        ("x-request-id", "r-1", "r-1"),
    ],
)
def test_an_id_that_travels_links_a_call_to_its_request(key: str, incoming: str, outgoing: str) -> None:
    factory = Factory()
    s = factory.add(SERVER, pid=1, start=0, end=9, req_tid=1, resp_tid=2, attributes={key: incoming}, seq_space=0)
    factory.add(
        SERVER, pid=1, start=1, end=8, req_tid=1, resp_tid=3, attributes={key: incoming.replace("4", "5") + "9"}, seq_space=0
    )
    c = factory.add(CLIENT, pid=1, start=2, end=3, req_tid=9, attributes={key: outgoing}, seq_space=0)
    far = factory.add(SERVER, pid=2, start=2.2, end=2.8, attributes={key: outgoing}, seq_space=0)
    found = publish(factory.batch())
    assert (found.parent[c], found.method[c]) == (s, key)
    assert (found.parent[far], found.method[far]) == (c, key)


def test_an_id_that_two_open_requests_share_links_nothing() -> None:
    factory = Factory()
    for tid in (2, 3):
        factory.add(SERVER, pid=1, start=0, end=9, req_tid=1, resp_tid=tid, attributes={"x-request-id": "same"}, seq_space=0)
    c = factory.add(CLIENT, pid=1, start=2, end=3, req_tid=9, attributes={"x-request-id": "same"}, seq_space=0)
    assert publish(factory.batch()).parent[c] == 0


def served(factory: Factory, tid: int, start: float, end: float, **fields: Any) -> int:
    return factory.add(
        SERVER, pid=5, start=start, end=end, req_tid=tid, resp_tid=fields.pop("resp_tid", tid), seq_space=0, **fields
    )


def made(factory: Factory, tid: int, start: float, end: float, **fields: Any) -> int:
    fields = {"connection_id": len(factory.rows)} | fields
    return factory.add(
        CLIENT, pid=5, start=start, end=end, req_tid=tid, resp_tid=fields.pop("resp_tid", tid), seq_space=0, **fields
    )


def test_a_thread_that_serves_one_request_links_its_calls() -> None:
    factory = Factory()
    s = [served(factory, tid, 0, 10) for tid in (1, 2)]
    c = [made(factory, tid, at, at + 1) for tid in (1, 2) for at in (2, 4)]
    found = publish(factory.batch())
    assert [found.parent[x] for x in c] == [s[0], s[0], s[1], s[1]]
    assert {found.method[x] for x in c} == {"thread"}
    assert 0.95 < found.confidence[c[0]] < 1


@pytest.mark.parametrize(
    "spoil",
    [
        {"resp_tid": 8},  # another thread read the answer
        {"connect_ns": 1_800_000_000_001_000_000, "connect_tid": 8},  # another thread made the connection
    ],
)
def test_a_call_that_another_thread_touched_is_left_alone(spoil: dict[str, Any]) -> None:
    factory = Factory()
    served(factory, 1, 0, 10)
    c = made(factory, 1, 2, 3, **spoil)
    assert publish(factory.batch()).parent[c] == 0


def test_a_request_answered_by_another_thread_keeps_no_calls() -> None:
    factory = Factory()
    served(factory, 1, 0, 10, resp_tid=2)
    c = made(factory, 1, 2, 3)
    assert publish(factory.batch()).parent[c] == 0


def test_requests_that_overlap_on_a_thread_take_the_whole_process_off() -> None:
    factory = Factory()
    served(factory, 1, 0, 10)
    served(factory, 1, 5, 15)
    alone = served(factory, 2, 0, 10)
    c = made(factory, 2, 2, 3)
    assert alone
    assert publish(factory.batch()).parent[c] == 0


def test_calls_that_overlap_are_no_work_of_a_blocking_thread() -> None:
    factory = Factory()
    served(factory, 1, 0, 10)
    c = [made(factory, 1, 2, 4), made(factory, 1, 3, 5)]
    found = publish(factory.batch())
    assert [found.parent[x] for x in c] == [0, 0]


def test_pipelined_calls_of_one_connection_are_linked() -> None:
    factory = Factory()
    s = served(factory, 1, 0, 10)
    c = [made(factory, 1, 2, 4, connection_id=3), made(factory, 1, 2.01, 4.01, connection_id=3)]
    found = publish(factory.batch())
    assert [found.parent[x] for x in c] == [s, s]


def test_a_request_that_arrives_long_after_its_calls_still_gets_them() -> None:
    factory = Factory()
    c = made(factory, 1, 1000, 1001)
    s = served(factory, 1, 0, 40_000)
    far = factory.add(SERVER, pid=6, start=1000.2, end=1000.8, seq_space=1, req_seq=3, resp_seq=4)
    batch = factory.batch()
    for name, value in (("seq_space", 1), ("req_seq", 3), ("resp_seq", 4)):
        batch.spans[name][0] = value
    found = publish(batch)
    assert (found.parent[c], found.parent[far]) == (s, c)
    assert found.trace[c] == found.trace[s] == found.trace[far]


def test_spans_without_links_are_traces_of_their_own() -> None:
    factory = Factory()
    a, b = made(factory, 1, 0, 1), made(factory, 2, 0, 1)
    found = publish(factory.batch())
    assert found.parent == {a: 0, b: 0}
    assert found.trace[a] != found.trace[b]


def test_a_cycle_is_cut_at_its_earliest_span() -> None:
    from deeptrace.server.assemble import _cut_cycles

    parent, start = np.array([1, 2, 0, 0, -1]), np.array([5, 3, 4, 9, 0])
    assert _cut_cycles(parent, start) == 1
    assert parent.tolist() == [1, -1, 0, 0, -1]


def test_the_order_of_arrival_does_not_change_the_result() -> None:
    batch = load(300, seed=3)
    first, second = publish(batch), publish(shuffled(batch, 5))
    assert (first.parent, first.trace) == (second.parent, second.trace)
    assert sum(method == "tcp_seq" for method in first.method.values()) == 900


def test_a_recording_is_linked_in_one_go() -> None:
    from deeptrace.server.assemble import link_all

    factory = Factory()
    c, s = call(factory)
    links = link_all([factory.batch()])
    assert links[s].parent_span_id == c
    assert links[s].trace_id == links[c].trace_id
    assert (links[c].parent_span_id, links[c].method, links[c].confidence) == (None, None, None)
