"""How much the core asks the probes to capture of a connection."""

import pytest
from core_traffic import EGRESS, INGRESS, MS, START, US, Run, S, Traffic, request, response
from limited import DEFAULT, MOST, MUTE, LimitedRun

SET = b"*3\r\n$3\r\nSET\r\n$4\r\nkey:\r\n$300\r\n" + b"v" * 300 + b"\r\n"
NOISE = bytes(range(128, 256)) * 2


def pipelines(run: LimitedRun, end, n: int, *, depth: int = 16, command: bytes = SET, at: int = START, calls: int = 1 << 30) -> int:
    for _ in range(n):
        at = run.exchange(end, command * depth, b"+OK\r\n" * depth, at=at, calls=calls)
    return at


def test_a_simple_connection_asks_for_nothing() -> None:
    run = LimitedRun()
    end, at = run.traffic.client(), START
    for i in range(100):
        at = run.exchange(end, request(f"/{i}", b"b" * 3000, "POST"), response(b"r" * 9000), at=at)
    assert run.wishes == []
    assert len(run.finish().take()) == 100


@pytest.mark.parametrize("end_of", ["client", "server"])
def test_a_pipelining_connection_gets_more_before_its_head_is_used_up(end_of: str) -> None:
    run = LimitedRun()
    end = run.traffic.client(port=6379) if end_of == "client" else run.traffic.server(port=6379)
    pipelines(run, end, 50, depth=10)
    assert [(limit, end.local_port, end.peer_port) for _, limit, *_ in run.wishes] == [(4096, end.local_port, end.peer_port)]
    assert len(run.finish().take()) == 500
    assert run.count("bad_frame") == run.count("bytes_not_captured") == 0
    run.assert_balanced()


def test_without_feedback_the_same_pipelines_lose_most_commands() -> None:
    run = LimitedRun(payload_bytes=0)
    pipelines(run, run.traffic.client(port=6379), 50, depth=10)
    assert run.wishes == []
    assert len(run.finish().take()) < 100


def test_long_calls_raise_the_limit_to_the_most_that_is_allowed() -> None:
    run = LimitedRun()
    end, command = run.traffic.server(port=6379), SET.replace(b"$300", b"$2000").replace(b"v" * 300, b"v" * 2000)
    at = pipelines(run, end, 1, depth=16, command=command, calls=MOST)  # longer than the head: known only in part
    assert {limit for _, limit, *_ in run.wishes} == {MOST}
    pipelines(run, end, 39, depth=16, command=command, calls=MOST, at=at + 20 * MS)
    assert len(run.finish().take()) >= 39 * 16
    assert run.count("bad_frame") == 1
    run.assert_balanced()


def test_calls_longer_than_the_most_that_is_allowed_ask_for_nothing() -> None:
    run = LimitedRun(payload_max_bytes=4096)
    pipelines(run, run.traffic.client(port=6379), 20, depth=50)
    assert run.wishes == []


def test_a_batch_is_taken_in_parts_that_make_no_more_spans_than_asked_for() -> None:
    traffic, whole, parted = Traffic(), Run(), Run()
    end = traffic.client(port=6379)
    for i in range(3000):
        end.write(SET, at=START + 2 * i * US)
        end.read(b"+OK\r\n", at=START + (2 * i + 1) * US)
    batch = traffic.batch()
    now = int(batch.records["exit_ns"].max())
    taken, found, calls = 0, [], 0
    while taken < len(batch):
        taken = parted.pipeline.feed(batch, now, taken, 1000)
        found.append(parted.take())
        calls += 1
    assert calls > 2
    assert max(map(len, found)) <= 1000 + 512
    assert [span["span_id"] for part in found for span in part] == [span["span_id"] for span in whole.feed(traffic).take()]
    assert parted.count("records_taken") == len(batch)


def test_a_long_request_head_is_worth_a_higher_limit() -> None:
    run = LimitedRun()
    end, at = run.traffic.server(), START
    ask = request("/x").replace(b"\r\n\r\n", b"\r\nCookie: " + b"c" * 2000 + b"\r\n\r\n")
    for _ in range(10):
        at = run.exchange(end, ask, response(), at=at)
    assert [limit for _, limit, *_ in run.wishes] == [4096]
    assert not any(span["flags"] for span in run.finish().take())


def test_a_raised_limit_is_lowered_when_nothing_needs_it() -> None:
    run = LimitedRun()
    end = run.traffic.client(port=6379)
    at = pipelines(run, end, 20, depth=10)
    for _ in range(100):
        at = run.exchange(end, SET, b"+OK\r\n", at=at + S)
    assert [limit for _, limit, *_ in run.wishes] == [4096, DEFAULT]
    assert run.pipeline.gauges()["flows_raised"] == 0
    pipelines(run, end, 20, depth=10, at=at)
    assert [limit for _, limit, *_ in run.wishes] == [4096, DEFAULT, 4096]


def test_only_so_many_connections_get_more_and_the_others_are_counted_once() -> None:
    run = LimitedRun(max_raised=3)
    ends = [run.traffic.client(port=6379) for _ in range(8)]
    at = START
    for _ in range(5):
        for end in ends:
            at = pipelines(run, end, 2, depth=10, at=at)
    assert len(run.wishes) == run.count("limits_raised") == 3
    assert run.count("limits_refused") == 5
    ends[0].closed(at=at)
    run.feed(run.traffic, first=len(run.traffic.rows) - 1)
    run.flush(at + S)
    pipelines(run, ends[7], 2, depth=10, at=at + S)  # there is room for another
    assert run.count("limits_raised") == 4


@pytest.mark.parametrize("is_unix", [False, True])
def test_an_unknown_protocol_is_muted_and_costs_nothing_more(is_unix: bool) -> None:
    run = LimitedRun()
    end = run.traffic.unix_pair()[0] if is_unix else run.traffic.client(port=9999)
    for i in range(1000):
        run.play(end, (EGRESS, INGRESS)[i % 2], NOISE, at=START + i * MS)
    assert [limit for _, limit, *_ in run.wishes] == [MUTE]
    assert run.count("flows_muted") == 1
    assert len(run.traffic.rows) <= 33
    assert run.count("bytes_in") == run.count("bytes_unknown") == len(NOISE) * len(run.traffic.rows)
    run.finish()
    assert run.count("gap") == 0
    run.assert_balanced()


def test_a_connection_that_left_its_protocol_is_muted() -> None:
    run = LimitedRun()
    end = run.traffic.client()
    ask = b"GET /chat HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    at = run.exchange(end, ask, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", at=START)
    for i in range(20):
        run.play(end, EGRESS, NOISE, at=at + i * MS)
    assert [limit for _, limit, *_ in run.wishes] == [MUTE]
    run.flush(START + 3600 * S)
    assert run.ask() == []


def test_a_wish_that_was_lost_is_made_again() -> None:
    run = LimitedRun(follows=False)
    end = run.traffic.client(port=9999)
    for i in range(100):
        run.play(end, EGRESS, NOISE, at=START + i * S // 5)
    assert [limit for _, limit, *_ in run.wishes] == [MUTE] * 3
    assert run.count("flows_muted") == 1


def joined_in_a_body(run: LimitedRun, end, at: int) -> int:
    for _ in range(40):
        run.play(end, INGRESS, NOISE, at=at)
        at += MS
    return at


def test_a_connection_joined_inside_a_body_is_heard_again_and_then_understood() -> None:
    run = LimitedRun()
    end = run.traffic.client(fresh=False)
    at = joined_in_a_body(run, end, START)
    assert [limit for _, limit, *_ in run.wishes] == [MUTE]
    run.play(end, INGRESS, NOISE * 20, at=at)  # goes on unheard
    run.flush(at + 61 * S)
    assert [limit for *_, limit, _, _ in run.ask()] == [DEFAULT]
    at += 62 * S
    for i in range(30):
        at = run.exchange(end, request(f"/{i}"), response(), at=at + 20 * MS)
    assert len(run.finish().take()) >= 29
    assert run.count("gap") == 0
    run.assert_balanced()


def test_what_stays_unknown_is_heard_again_more_and_more_seldom() -> None:
    run = LimitedRun()
    end, at = run.traffic.client(port=9999, fresh=False), START
    for _ in range(3600 * 5):
        at += 200 * MS
        run.play(end, EGRESS, NOISE, at=at)
        if len(run.traffic.rows) > 2000:
            break
        run.flush(at)
        run.ask()
    assert run.muted_bytes > 0.97 * 3600 * 5 * len(NOISE)
    assert 4 <= run.count("flows_muted") <= 7


def test_a_connection_seen_from_its_first_byte_is_not_heard_again() -> None:
    run = LimitedRun()
    end = run.traffic.client(port=9999)
    joined_in_a_body(run, end, START)
    run.flush(START + 899 * S)
    assert run.ask() == []


def test_another_connection_on_the_address_of_a_muted_unix_socket_is_heard() -> None:
    run = LimitedRun()
    first, again = (run.traffic.unix_pair(sockets=(1, 2))[0] for _ in range(2))
    at = joined_in_a_body(run, first, START)
    again.connect(at=at)  # the wish to mute may come after the probes forgot the old one
    run.feed(run.traffic, first=len(run.traffic.rows) - 1)
    assert [limit for _, limit, *_ in run.ask()] == [DEFAULT]
    at = run.exchange(again, request(), response(), at=at + US)
    assert len(run.finish().take()) == 1


def test_wishes_without_room_are_made_when_there_is_room() -> None:
    run = LimitedRun(follows=False)
    ends = [run.traffic.client(port=9999) for _ in range(5000)]
    for i in range(33):
        for k, end in enumerate(ends):
            end.write(NOISE[:20], at=START + i * S + k * US)
    run.feed(run.traffic, first=0)
    assert len(run.ask()) == 4096
    fed = len(run.traffic.rows)
    for k, end in enumerate(ends):
        end.write(NOISE[:20], at=START + 34 * S + k * US)
    run.feed(run.traffic, first=fed)
    assert len(run.ask()) == 5000 - 4096
    assert run.count("flows_muted") == 5000
