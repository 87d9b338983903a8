"""Connections that were open when tracing began: who asks, what is certain, and calls that were under way."""

import pytest
from core_traffic import EGRESS, ENTER_MISSED, INGRESS, MS, START, URING, US, Run, S, Traffic, request, response
from test_streams import redis_exchanges

AMBIGUOUS = 0x2
CLIENT, SERVER = 2, 1
MID_STREAM, SEQ_AMBIGUOUS = 0x04, 0x10
EXCHANGES = {"http": [(request(f"/{i}"), response(b"r" * i)) for i in range(6)], "redis": redis_exchanges(6)}
PORTS = {"http": 80, "redis": 6379}


def ends_of(traffic: Traffic, kind: str, which: str):
    """The ends of one connection that are seen: both, or one of them; their kinds of span."""
    if kind.startswith("unix"):
        client, server = traffic.unix_pair(fresh=False)
    else:
        client, server = traffic.client(port=PORTS[kind], fresh=False), traffic.server(port=PORTS[kind], fresh=False)
    return {"client": (client, None), "server": (None, server), "both": (client, server)}[which]


def play(ends, exchanges, *, at: int, first_is_answer: bool = False) -> int:
    """Exchanges 20 ms apart; first_is_answer: tracing began between the first request and its response."""
    client, server = ends
    for i, (ask, answer) in enumerate(exchanges):
        if i or not first_is_answer:
            if client:
                client.write(ask, at=at)
            if server:
                server.read(ask, at=at + 20 * US)
        if server:
            server.write(answer, at=at + 40 * US)
        if client:
            client.read(answer, at=at + 60 * US)
        at += 20 * MS
    return at


@pytest.mark.parametrize("which", ["client", "server", "both"])
@pytest.mark.parametrize("kind", ["http", "redis", "unix-http", "unix-redis"])
@pytest.mark.parametrize("first_is_answer", [False, True])
def test_a_message_says_which_end_asks_when_the_beginning_was_not_seen(kind: str, which: str, first_is_answer: bool) -> None:
    traffic, run = Traffic(), Run(capture_start_ns=START)
    ends = ends_of(traffic, kind, which)
    exchanges = EXCHANGES[kind.removeprefix("unix-")]
    play(ends, exchanges, at=START + 30 * MS, first_is_answer=first_is_answer)
    spans = run.feed(traffic).finish(START + 10 * S).take()
    wanted = {"client": {CLIENT}, "server": {SERVER}, "both": {CLIENT, SERVER}}[which]
    assert {s["kind"] for s in spans} == wanted
    assert len(spans) == (len(exchanges) - first_is_answer) * len(wanted)
    for span in spans:
        assert span["pid"] == (100 if span["kind"] == CLIENT else 200)
        assert span["flags"] & ~SEQ_AMBIGUOUS == MID_STREAM
    run.assert_balanced()


def missed(end, direction: int, data: bytes, *, at: int) -> None:
    """A call that was blocked when tracing began: its enter is not known, its position only from its end."""
    end.move(direction, data, at=at, took=0, flags=ENTER_MISSED | AMBIGUOUS)
    if end.l4:
        end.traffic.rows[-1]["seq_enter"] = end.next[direction]  # nobody read it then


@pytest.mark.parametrize("is_unix", [False, True])
def test_a_read_that_was_blocked_when_tracing_began_is_part_of_its_stream(is_unix: bool) -> None:
    traffic, run = Traffic(), Run(capture_start_ns=START)
    end = traffic.unix_pair(fresh=False)[1] if is_unix else traffic.server(fresh=False)
    at = START + 40 * MS
    for i in range(4):
        ask, answer = request(f"/{i}"), response()
        if i == 0:
            missed(end, INGRESS, ask, at=at)
        else:
            end.read(ask, at=at)
        end.write(answer, at=at + 50 * US)
        at += MS
    spans = run.feed(traffic).finish(at + S).take()
    assert [s["attributes"]["url.path"] for s in spans] == ["/0", "/1", "/2", "/3"]
    assert [bool(s["flags"] & SEQ_AMBIGUOUS) for s in spans] == [True, False, False, False]
    assert run.count("gap") == run.count("bytes_duplicate") == 0
    run.assert_balanced()


def test_a_blocked_read_behind_bytes_already_seen_repeats_nothing() -> None:
    traffic, run = Traffic(), Run(capture_start_ns=START)
    end = traffic.client(fresh=False)
    end.write(request("/a"), at=START + 20 * MS, tid=1)
    missed(end, INGRESS, response(b"one"), at=START + 21 * MS)  # the reader was waiting before
    end.write(request("/b"), at=START + 22 * MS, tid=1)
    end.read(response(b"two"), at=START + 23 * MS, tid=2)
    spans = run.feed(traffic).finish(START + S).take()
    assert [(s["attributes"]["url.path"], s["response_bytes"]) for s in spans] == [
        ("/a", len(response(b"one"))),
        ("/b", len(response(b"two"))),
    ]
    assert run.count("gap") == run.count("bytes_duplicate") == 0


def test_bytes_that_io_uring_moved_between_calls_of_its_thread_find_their_place() -> None:
    traffic, run = Traffic(), Run()
    end = traffic.client()
    end.connect(at=START)
    ask = request("/ring", b"b" * 40, "POST")
    # Submitted before the first write, done after it: its position is behind, its time of enter in front.
    end.write(ask[:30], at=START + 100 * US, took=10 * US, tid=1)
    end.move(EGRESS, ask[30:], at=START + 200 * US, took=150 * US, tid=1, flags=URING)
    end.read(response(), at=START + 300 * US, tid=1)
    spans = run.feed(traffic, order=[0, 2, 1, 3]).finish(START + S).take()
    assert [(s["request_bytes"], s["error_type"]) for s in spans] == [(len(ask), "")]
    assert run.count("gap") == 0
    run.assert_balanced()


def test_io_uring_messages_without_payload_are_counted_bytes_of_the_connection() -> None:
    traffic, run = Traffic(), Run()
    end = traffic.server()
    end.accept(at=START)
    at = START + MS
    for i in range(3):
        end.read(request(f"/{i}"), at=at)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"
        end.write(head, at=at + 10 * US)
        end.move(EGRESS, b"x" * 500, at=at + 30 * US, captured=0, flags=URING)
        at += MS
    spans = run.feed(traffic).finish(START + S).take()
    assert [s["response_bytes"] for s in spans] == [len(head) + 500] * 3
    assert run.count("bytes_not_captured") == 1500
    run.assert_balanced()
