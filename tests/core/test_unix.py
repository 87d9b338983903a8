"""Unix stream sockets: flows without addresses and ports, positions that the probes counted."""

import pytest
from core_traffic import MS, START, US, Run, S, Traffic, request, response

COMMAND, REPLY = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", b"$5\r\nvalue\r\n"
CLIENT, SERVER = 2, 1


def exchange(client, server, ask: bytes, answer: bytes, *, at: int) -> int:
    """One request and its response, seen at both ends; returns the time after it."""
    client.write(ask, at=at)
    server.read(ask, at=at + 10 * US)
    server.write(answer, at=at + 50 * US)
    client.read(answer, at=at + 60 * US)
    return at + 100 * US


@pytest.mark.parametrize(("ask", "answer", "protocol"), [(request(), response(), 1), (COMMAND, REPLY, 3)])
def test_both_ends_of_a_unix_connection_make_spans_with_equal_positions(ask: bytes, answer: bytes, protocol: int) -> None:
    traffic, run = Traffic(), Run()
    client, server = traffic.unix_pair()
    at = START
    for _ in range(3):
        at = exchange(client, server, ask, answer, at=at)
    spans = run.feed(traffic).finish().take()
    assert [(s["kind"], s["protocol"]) for s in spans] == [(SERVER, protocol), (CLIENT, protocol)] * 3
    for end in (CLIENT, SERVER):
        mine = [s for s in spans if s["kind"] == end]
        assert [s["req_seq"] for s in mine] == [0, len(ask), 2 * len(ask)]
        assert [s["resp_seq"] for s in mine] == [0, len(answer), 2 * len(answer)]
    assert {s["seq_space"] for s in spans} == {3}
    assert {s["attributes"]["network.transport"] for s in spans} == {"unix"}
    assert not any(s["flags"] for s in spans)
    run.assert_balanced()


def test_the_ends_of_a_span_mirror_each_other_and_show_no_kernel_address() -> None:
    traffic, run = Traffic(), Run()
    client, server = traffic.unix_pair()
    exchange(client, server, COMMAND, REPLY, at=START)
    rows = run.feed(traffic).finish().pipeline.take(0).spans
    ends = [(row["local_addr"].tobytes(), row["peer_addr"].tobytes()) for row in rows]
    assert ends[0] == ends[1][::-1]
    assert ends[0][0] != ends[0][1]
    assert not any(row["local_port"] or row["peer_port"] for row in rows)
    for end in ends[0]:
        assert end[8:] == bytes(8)
        assert end[6:8] != b"\xff\xff"


def test_a_lost_record_of_a_unix_connection_is_an_exact_gap() -> None:
    traffic, run = Traffic(), Run()
    client, server = traffic.unix_pair()
    at = exchange(client, server, COMMAND, REPLY, at=START)
    client.write(COMMAND, at=at, lost=True)
    client.read(REPLY, at=at + 60 * US)
    exchange(client, server, COMMAND, REPLY, at=at + 20 * MS)
    spans = [s for s in run.feed(traffic).finish().take() if s["kind"] == CLIENT]
    assert (run.count("gap"), run.count("gap_bytes")) == (1, len(COMMAND))
    assert [s["req_seq"] for s in spans] == [0, 2 * len(COMMAND)]
    run.assert_balanced()


def test_another_connection_on_the_same_socket_address_is_another_flow() -> None:
    traffic, run = Traffic(), Run()
    first = traffic.unix_pair(sockets=(1, 2))
    again = traffic.unix_pair(sockets=(1, 2))  # the same two addresses
    other = traffic.unix_pair(sockets=(1, 3), fresh=False)  # another peer, whose beginning was not seen
    at = exchange(*first, COMMAND, REPLY, at=START)
    at = exchange(*again, COMMAND, REPLY, at=at)
    exchange(*other, COMMAND, REPLY, at=at + 20 * MS)
    run.feed(traffic)
    assert run.pipeline.gauges()["flows"] == 3  # sockets 1, 2 and 3
    spans = run.finish().take()
    assert len({s["connection_id"] for s in spans}) == len(spans) == 6
    assert [s["req_seq"] for s in spans] == [0] * 6
    assert run.count("gap") == 0
    run.assert_balanced()


def test_a_response_that_ends_with_its_connection_is_whole_when_the_address_is_used_again() -> None:
    traffic, run = Traffic(), Run()
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    first, again = traffic.unix_pair(sockets=(1, 2)), traffic.unix_pair(sockets=(1, 2))
    at = exchange(*first, request("/old"), head + b"no length", at=START)
    exchange(*again, request("/new"), response(), at=at + 50 * MS)
    spans = run.feed(traffic).finish().take()
    assert len(spans) == 4
    assert not any(s["error_type"] or s["flags"] for s in spans)
    run.assert_balanced()


def test_many_short_unix_connections_need_no_more_flows_than_sockets() -> None:
    traffic, run = Traffic(), Run()
    at = START
    for _ in range(50):
        at = exchange(*traffic.unix_pair(sockets=(7, 8)), COMMAND, REPLY, at=at)
    run.feed(traffic)
    assert run.pipeline.gauges()["flows"] == 2
    assert len(run.finish(at + S).take()) == 100
    run.assert_balanced()


def test_records_that_come_out_of_order_are_put_by_their_count() -> None:
    traffic, run = Traffic(), Run()
    client, _ = traffic.unix_pair()
    for i, piece in enumerate((COMMAND[:5], COMMAND[5:9], COMMAND[9:])):
        client.write(piece, at=START + i, tid=i)
    client.read(REPLY, at=START + MS)
    spans = run.feed(traffic, order=[1, 0, 2, 3]).finish().take()
    assert [(s["request_bytes"], s["response_bytes"], s["flags"]) for s in spans] == [(len(COMMAND), len(REPLY), 0)]
    run.assert_balanced()
