"""The same exchanges, however their bytes are cut, reordered, repeated or lost; and that every byte is accounted for."""

import numpy as np
import pytest
from core_traffic import MS, PEEK, START, US, Run, S, Traffic, request, response
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
FACTS = ("name", "status", "error_type", "req_seq", "resp_seq", "request_bytes", "response_bytes", "kind", "attributes")


def facts(spans: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{name: span[name] for name in FACTS} for span in spans]


def http_exchanges(n: int) -> list[tuple[bytes, bytes]]:
    return [
        (request(f"/{i}?q={i}", b"b" * (i * 37 % 90), "POST" if i % 2 else "GET"), response(b"r" * (i * 53 % 400), 200 + i % 3))
        for i in range(n)
    ]


def chunked_exchanges(n: int) -> list[tuple[bytes, bytes]]:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [(request(f"/c{i}"), head + b"5\r\nhello\r\n1a\r\n" + b"w" * 26 + b"\r\n0\r\n\r\n") for i in range(n)]


def redis_exchanges(n: int) -> list[tuple[bytes, bytes]]:
    commands = [
        (b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n", b"+OK\r\n"),
        (b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", b"$5\r\nvalue\r\n"),
        (b"*3\r\n$4\r\nMGET\r\n$1\r\nk\r\n$1\r\nj\r\n", b"*2\r\n$5\r\nvalue\r\n$-1\r\n"),
        (b"*2\r\n$4\r\nINCR\r\n$1\r\nk\r\n", b"-ERR value is not an integer\r\n"),
    ]
    return [commands[i % 4] for i in range(n)]


KINDS = {"http": http_exchanges, "chunked": chunked_exchanges, "redis": redis_exchanges}


def whole(exchanges: list[tuple[bytes, bytes]], depth: int) -> list[dict[str, object]]:
    """The spans when every message is one call."""
    traffic, run = Traffic(), Run()
    play(traffic, exchanges, depth, lambda data: [data])
    return run.feed(traffic).finish().take()


def play(traffic: Traffic, exchanges, depth: int, cut, peer: str = "client"):
    """Send `depth` requests at a time; cut(data) gives the calls that move it."""
    end = traffic.client() if peer == "client" else traffic.server()
    end.connect(at=START) if peer == "client" else end.accept(at=START)
    at = START + MS
    ask, answer = (end.write, end.read) if peer == "client" else (end.read, end.write)
    for first in range(0, len(exchanges), depth):
        group = exchanges[first : first + depth]
        for move, data in ((ask, b"".join(q for q, _ in group)), (answer, b"".join(a for _, a in group))):
            for piece in cut(data):
                at += 10 * US
                move(piece, at=at)
    return end


@pytest.mark.parametrize("kind", KINDS)
@EXAMPLES
@given(data=st.data(), depth=st.integers(1, 5))
def test_how_bytes_are_cut_into_calls_changes_no_span(kind: str, data, depth: int) -> None:
    exchanges = KINDS[kind](7)

    def cut(run: bytes) -> list[bytes]:
        places = sorted(data.draw(st.sets(st.integers(1, len(run) - 1), max_size=12))) if len(run) > 1 else []
        return [run[a:b] for a, b in zip([0, *places], [*places, len(run)], strict=True)]

    traffic, run = Traffic(), Run()
    play(traffic, exchanges, depth, cut)
    assert facts(run.feed(traffic).finish().take()) == facts(whole(exchanges, depth))
    assert run.count("bytes_framed") == run.count("bytes_in")
    run.assert_balanced()


@pytest.mark.parametrize("kind", KINDS)
def test_single_bytes_make_the_same_spans(kind: str) -> None:
    exchanges = KINDS[kind](4)
    traffic, run = Traffic(), Run()
    play(traffic, exchanges, 2, lambda data: [data[i : i + 1] for i in range(len(data))])
    assert facts(run.feed(traffic).finish().take()) == facts(whole(exchanges, 2))
    run.assert_balanced()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reach", [3, 8])
@pytest.mark.parametrize("seed", range(4))
def test_records_that_come_out_of_order_fall_into_place(kind: str, reach: int, seed: int) -> None:
    exchanges = KINDS[kind](12)
    traffic, run = Traffic(), Run()
    play(traffic, exchanges, 3, lambda data: [data[i : i + 9] for i in range(0, len(data), 9)])
    order = traffic.shuffled_bursts(seed, reach)
    for i, place in enumerate(order):  # the times say the wrong order, too
        traffic.rows[place]["exit_ns"] = traffic.rows[place]["enter_ns"] = START + MS + i * US
        traffic.rows[place]["tid"] = 500 + place % 3
    run.feed(traffic, order=order, now=START + 5 * MS)
    assert facts(run.finish().take()) == facts(whole(exchanges, 3))
    assert run.count("gap") == 0
    run.assert_balanced()


def test_peeked_and_repeated_bytes_are_counted_once(traffic: Traffic, new_run) -> None:
    s = traffic.server()
    s.accept(at=START)
    s.read(request(), at=START + MS, flags=PEEK, again=True)
    s.seen[0] = False
    s.read(request(), at=START + 2 * MS)
    s.write(response(), at=START + 3 * MS, again=True)
    s.write(response(), at=START + 4 * MS)
    run = new_run().feed(traffic)
    assert len(run.take()) == 1
    assert run.count("bytes_duplicate") == len(request()) + len(response())
    run.assert_balanced()


def test_batches_may_be_cut_anywhere(new_run) -> None:
    exchanges = http_exchanges(9)
    traffic = Traffic()
    play(traffic, exchanges, 3, lambda data: [data[i : i + 40] for i in range(0, len(data), 40)])
    for size in (1, 2, 7):
        run = new_run()
        for first in range(0, len(traffic.rows), size):
            run.feed(traffic, first=first, last=first + size)
        assert facts(run.finish().take()) == facts(whole(exchanges, 3))


def test_the_same_records_give_the_same_arrays(new_run) -> None:
    traffic = Traffic()
    for kind in KINDS.values():
        play(traffic, kind(9), 3, lambda data: [data[i : i + 40] for i in range(0, len(data), 40)])
    first, second = (new_run().feed(traffic).finish().pipeline.take(5) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_hundred_megabytes_pass_by_without_being_carried(traffic: Traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    size = 100 * 1024 * 1024
    c.write(request("/big"), at=START + MS)
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode()
    c.read(head, at=START + 2 * MS)
    for i in range(1600):
        c.read(b"x" * 1024, size=65536, at=START + 3 * MS + i * US)
    c.write(request("/after"), at=START + 10 * MS)
    c.read(response(), at=START + 11 * MS)
    run = new_run().feed(traffic)
    big, after = run.take()
    assert big["response_bytes"] == len(head) + size
    assert big["end_ns"] == START + 3 * MS + 1599 * US
    assert (big["flags"], after["flags"]) == (1, 0)
    assert run.count("bad_frame") == 0
    assert run.pipeline.gauges()["bytes_carried"] == 0
    assert run.count("bytes_not_captured") == 1600 * (65536 - 1024)
    run.assert_balanced()


def test_a_gap_inside_a_body_of_known_size_is_harmless(traffic: Traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    c.write(request("/big"), at=START + MS)
    c.read(response(b"x" * 1000)[:500], at=START + 2 * MS)
    c.read(b"x" * 200, at=START + 3 * MS, lost=True)
    c.read(response(b"x" * 1000)[700:], at=START + 4 * MS)
    c.write(request("/after"), at=START + 5 * MS)
    c.read(response(), at=START + 6 * MS)
    run = new_run(hold_ns=0).feed(traffic)
    big, after = run.take()
    assert (big["flags"], after["flags"]) == (2, 0)
    assert (run.count("gap"), run.count("gap_bytes")) == (1, 200)
    run.assert_balanced()


def test_after_a_lost_response_nothing_is_paired_until_it_is_quiet(traffic: Traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    c.write(request("/0"), at=START + MS)
    c.read(response(status=200), at=START + 2 * MS)
    c.write(request("/1") + request("/2"), at=START + 3 * MS)
    c.read(response(status=201), at=START + 4 * MS, lost=True)
    c.read(response(status=202), at=START + 5 * MS)
    c.write(request("/3"), at=START + 6 * MS)
    c.read(response(status=203), at=START + 7 * MS)
    c.write(request("/4"), at=START + 60 * MS + 7 * MS)
    c.read(response(status=400), at=START + 60 * MS + 9 * MS)
    c.write(request("/5"), at=START + 60 * MS + 30 * MS)
    c.read(response(status=405), at=START + 60 * MS + 31 * MS)
    run = new_run(hold_ns=0).feed(traffic)
    pairs = [(s["attributes"]["url.path"], s["attributes"]["http.response.status_code"]) for s in run.finish().take()]
    assert pairs == [("/0", 200), ("/4", 400), ("/5", 405)]
    assert run.count("request_unpaired_after_cut") == 3
    assert run.count("response_unpaired_after_cut") == 2
    run.assert_balanced()


def test_after_a_lost_request_those_before_it_still_get_their_responses(traffic: Traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    c.write(request("/0"), at=START + MS)
    c.write(request("/1"), at=START + 2 * MS, lost=True)
    c.write(request("/2"), at=START + 3 * MS)
    for i in range(3):
        c.read(response(status=400 + i), at=START + (4 + i) * MS)
    run = new_run(hold_ns=0).feed(traffic)
    (span,) = run.finish().take()
    assert (span["attributes"]["url.path"], span["attributes"]["http.response.status_code"]) == ("/0", 400)
    assert run.count("request_unpaired_after_cut") == 1
    assert run.count("response_unpaired_after_cut") == 2
    run.assert_balanced()


def test_a_head_beyond_the_capture_limit_is_a_cut_message_or_lost_but_counted(traffic: Traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    long = request("/long?" + "p" * 3000)
    c.write(long, at=START + MS, captured=1024)
    c.read(response(), at=START + 2 * MS)
    c.write(request("/next"), at=START + 50 * MS)
    c.read(response(), at=START + 51 * MS)
    run = new_run().feed(traffic)
    paths = [s["attributes"].get("url.path") for s in run.finish().take()]
    assert paths[-1] == "/next"
    assert run.count("bytes_not_captured") == len(long) - 1024
    run.assert_balanced()


@EXAMPLES
@given(data=st.data())
def test_every_byte_is_accounted_for_whatever_happens(data) -> None:
    traffic = Traffic()
    for kind in KINDS.values():
        end = play(
            traffic, kind(8), data.draw(st.integers(1, 4)), lambda run: [run[i : i + 30] for i in range(0, len(run), 30)],
            peer=data.draw(st.sampled_from(["client", "server"])),
        )  # fmt: skip
        if data.draw(st.booleans()):
            end.closed(at=START + S, error=data.draw(st.sampled_from([0, 104])))
    order = []
    for i in range(len(traffic.rows)):
        fate = data.draw(st.integers(0, 19))
        if fate == 0:
            continue  # lost
        if fate == 1 and len(traffic.payloads[i]) > 2:  # cut
            traffic.payloads[i] = traffic.payloads[i][: len(traffic.payloads[i]) // 2]
            traffic.rows[i]["payload_len"] = len(traffic.payloads[i])
        if fate == 2 and traffic.payloads[i]:  # garbage
            traffic.payloads[i] = bytes(255 - b for b in traffic.payloads[i])
        order += [i, i] if fate == 3 else [i]
        if fate == 4 and len(order) > 1:
            order[-2], order[-1] = order[-1], order[-2]
    if not order:
        return
    run = Run(hold_ns=100 * US, quiet_ns=30 * US)
    run.feed(traffic, order=order, now=START + 2 * S)
    run.assert_balanced()
    run.finish()
    run.assert_balanced()
    assert run.pipeline.gauges()["bytes_carried"] == 0
    assert run.pipeline.gauges()["requests_open"] == 0
    assert run.pipeline.gauges()["responses_open"] == 0
    assert len(run.take()) == run.count("spans_paired") + run.count("spans_incomplete")


def test_garbage_is_unknown_and_cheap(traffic: Traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    noise = np.random.default_rng(1)
    for i in range(100):
        c.write(noise.bytes(500), at=START + (2 * i + 1) * MS)
        c.read(noise.bytes(700), at=START + (2 * i + 2) * MS)
    run = new_run().feed(traffic)
    assert run.take() == []
    assert (run.count("flows_unknown"), run.count("bytes_unknown")) == (1, 100 * 1200)
    run.assert_balanced()


def test_a_client_that_sends_garbage_after_a_request_is_counted(traffic: Traffic, new_run) -> None:
    s = traffic.server()
    s.accept(at=START)
    s.read(request("/fine"), at=START + MS)
    s.write(response(), at=START + 2 * MS)
    s.read(b"\xff\xfe garbage \x00" * 30, at=START + 3 * MS)
    s.write(response(status=400), at=START + 4 * MS)
    s.closed(at=START + 5 * MS)
    run = new_run().feed(traffic, now=START + S)
    (span,) = run.take()
    assert span["attributes"]["url.path"] == "/fine"
    assert run.count("bad_frame") == 1
    assert run.count("bytes_resync") == 12 * 30
    run.assert_balanced()


def test_a_flow_that_takes_turns_is_paired_again_at_the_next_turn_after_a_loss(traffic: Traffic, new_run) -> None:
    c = traffic.client(port=6379)
    c.connect(at=START)
    for i in range(100):  # never 10 ms of quiet
        group = redis_exchanges(4)
        c.write(b"".join(q for q, _ in group), at=START + (2 * i + 1) * MS)
        c.read(b"".join(a for _, a in group), at=START + (2 * i + 2) * MS, lost=i == 60)
    run = new_run().feed(traffic)
    assert len(run.take()) == 98 * 4
    assert run.count("request_unpaired_after_cut") == 8
    assert run.count("response_unpaired_after_cut") == 4
    run.assert_balanced()


def test_a_flow_that_pipelines_waits_for_quiet_after_a_loss(traffic: Traffic, new_run) -> None:
    c = traffic.client(port=6379)
    c.connect(at=START)
    ask, answer = redis_exchanges(1)[0]
    c.write(ask, at=START)
    for i in range(100):  # one is always under way
        c.write(ask, at=START + (2 * i + 1) * MS)
        c.read(answer, at=START + (2 * i + 2) * MS, lost=i == 60)
    run = new_run().feed(traffic)
    assert len(run.take()) == 60
    run.assert_balanced()


def test_bytes_that_overlap_are_counted_once(traffic: Traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    c.write(request("/a")[:20], at=START + MS)
    c.next[1] -= 5
    c.write(request("/a")[15:], at=START + 2 * MS)
    c.read(response(), at=START + 3 * MS)
    run = new_run().feed(traffic)
    (span,) = run.take()
    assert span["request_bytes"] == len(request("/a"))
    assert run.count("bytes_duplicate") == 5
    run.assert_balanced()


def test_datagrams_are_counted_apart(traffic: Traffic, new_run) -> None:
    c = traffic.client(port=53)
    c.move(1, b"query", at=START)
    traffic.rows[0]["tuple"]["l4_protocol"] = 17
    run = new_run().feed(traffic)
    assert (run.count("bytes_datagram"), run.count("flows_opened")) == (5, 0)
    run.assert_balanced()


def test_a_body_that_sendfile_sent_keeps_nobody_waiting(traffic: Traffic, new_run) -> None:
    s = traffic.server()
    s.accept(at=START)
    for i in range(3):
        s.read(request(f"/{i}"), at=START + (4 * i + 1) * MS)
        s.write(response(b"x" * 5000)[:-5000], at=START + (4 * i + 2) * MS)
        s.write(b"x" * 5000, at=START + (4 * i + 3) * MS, lost=True)
    run = new_run().feed(traffic)
    assert [x["flags"] for x in run.take()] == [2, 2]
    assert run.count("gap_bytes") == 10000
    run.assert_balanced()


def test_packets_that_belong_to_no_thread_may_come_out_of_order(traffic: Traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    data = request("/a")
    for first in range(0, len(data), 5):
        c.write(data[first : first + 5], at=START + MS + first * US, tid=0)
    c.read(response(), at=START + 2 * MS, tid=0)
    run = new_run().feed(traffic, order=[0, 1, 3, 4, 2, *range(5, len(traffic.rows))])
    assert len(run.take()) == 1
    assert run.count("gap") == 0
