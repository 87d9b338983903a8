"""What follows from clients that wait for their answers: ends that were not captured; joining a connection that is never quiet."""

from core_traffic import MS, START, US, S, Traffic, request, response

PING, PONG = b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n"


def chunked() -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1a\r\n" + b"w" * 26 + b"\r\n0\r\n\r\n"


def test_a_response_whose_end_was_not_captured_ends_with_the_next_request(traffic: Traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    data = chunked()
    sizes = range(data.index(b"\r\n\r\n") + 4, len(data) - 1)
    for i, size in enumerate(sizes):
        c.write(request(f"/{i}"), at=START + (10 * i + 1) * US)
        c.read(data, at=START + (10 * i + 5) * US, captured=size)
    c.closed(at=START + S)
    run = new_run().feed(traffic).finish()
    spans = run.take()
    assert [s["attributes"]["url.path"] for s in spans] == [f"/{i}" for i in range(len(sizes))]
    assert {(s["response_bytes"], s["end_ns"] - s["response_start_ns"]) for s in spans} == {(len(data), 0)}
    assert run.count("bad_frame") == 0
    run.assert_balanced()


def test_an_array_that_was_not_captured_to_its_end_keeps_every_byte_in_the_ledger(traffic: Traffic, new_run) -> None:
    c = traffic.client(port=6379)
    c.connect(at=START)
    data = b"*3\r\n" + b"$11\r\nabcdefghijk\r\n" * 3
    sizes = range(4, len(data))
    for i, size in enumerate(sizes):  # every cut, the ones inside an element's header too
        c.write(b"*2\r\n$4\r\nLLEN\r\n$1\r\nk\r\n", at=START + (10 * i + 1) * US)
        c.read(data, at=START + (10 * i + 5) * US, captured=size)
    c.closed(at=START + S)
    run = new_run().feed(traffic).finish()
    assert [s["response_bytes"] for s in run.take()] == [len(data)] * len(sizes)
    assert run.count("bytes_framed") + run.count("bytes_not_captured") == run.count("bytes_in")
    run.assert_balanced()


def test_a_chunk_header_that_was_not_captured_loses_the_frame_of_pipelined_responses_and_no_byte(traffic: Traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    data = chunked()
    for i, size in enumerate(range(data.index(b"\r\n\r\n") + 4, len(data) - 6)):
        c.write(request() * 2, at=START + (30 * i + 1) * MS)
        c.read(data * 2, at=START + (30 * i + 2) * MS, captured=size)
    run = new_run().feed(traffic).finish()
    assert run.count("bad_frame") > 0
    assert run.count("request_unpaired_after_cut") > 0
    run.assert_balanced()


def test_a_request_whose_end_was_not_captured_ends_when_it_is_answered(traffic: Traffic, new_run) -> None:
    s = traffic.server()
    s.accept(at=START)
    data = b"POST /up HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"9\r\nchunkdata\r\n" * 50
    for i in range(5):
        s.read(data, at=START + (10 * i + 1) * US, captured=200)
        s.read(b"9\r\nchunkdata\r\n0\r\n\r\n", at=START + (10 * i + 2) * US)
        s.write(response(b"x" * i), at=START + (10 * i + 5) * US)
    run = new_run().feed(traffic)
    spans = run.take()
    assert [span["response_bytes"] for span in spans] == [len(response(b"x" * i)) for i in range(5)]
    assert {span["request_bytes"] for span in spans} == {len(data) + 19}
    assert run.count("bad_frame") == 0
    run.assert_balanced()


def test_an_upload_that_is_read_while_it_is_answered_loses_no_request(traffic: Traffic, new_run) -> None:
    s = traffic.server()
    s.accept(at=START)
    data = b"POST /up HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    for i in range(5):
        s.read(data, at=START + (20 * i + 1) * US)
        s.write(chunked(), at=START + (20 * i + 3) * US, captured=60)
        s.read(b"9\r\nchunkdata\r\n" * 50, at=START + (20 * i + 5) * US, captured=20)
        s.read(b"chunkdata\r\n0\r\n\r\n", at=START + (20 * i + 6) * US)
    s.closed(at=START + S)
    run = new_run().feed(traffic).finish()
    assert {span["response_bytes"] for span in run.take()} == {len(chunked())}
    assert (run.count("spans_paired"), run.count("bad_frame")) == (5, 0)
    run.assert_balanced()


def test_an_upload_that_goes_on_after_its_answer_is_not_taken_for_a_request(traffic: Traffic, new_run) -> None:
    s = traffic.server()
    s.accept(at=START)
    data = b"POST /up HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"9\r\nchunkdata\r\n" * 50
    s.read(data, at=START + 1 * US, captured=200)
    s.write(response(b"too large", 413), at=START + 5 * US)
    s.read(b"chunkdata\r\n9\r\n", at=START + 6 * US)
    s.read(b"chunkdata\r\n0\r\n\r\n", at=START + 7 * US)
    s.read(request("/next"), at=START + 30 * MS)
    s.write(response(), at=START + 31 * MS)
    s.read(request("/after-quiet"), at=START + 50 * MS)
    s.write(response(), at=START + 51 * MS)
    run = new_run().feed(traffic)
    assert [span["attributes"]["url.path"] for span in run.take()] == ["/up", "/next", "/after-quiet"]
    assert run.count("bad_frame") == 0
    run.assert_balanced()


def redis_list(n: int) -> bytes:
    return b"*%d\r\n" % n + b"".join(b"$14\r\nelement-%06d\r\n" % i for i in range(n))


def test_a_long_redis_array_ends_with_the_next_command_where_both_ends_take_turns(traffic: Traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    for i in range(6):
        c.write(b"*4\r\n$6\r\nLRANGE\r\n$1\r\nL\r\n$1\r\n0\r\n$2\r\n-1\r\n", at=START + (20 * i + 1) * US)
        c.read(redis_list(200), at=START + (20 * i + 5) * US, captured=1024)
        c.read(redis_list(200)[6:], at=START + (20 * i + 6) * US, captured=1024)
        c.write(b"*1\r\n$4\r\nPING\r\n", at=START + (20 * i + 8) * US)
        c.read(b"+PONG\r\n", at=START + (20 * i + 9) * US)
    run = new_run().feed(traffic)
    spans = run.take()
    assert [s["name"] for s in spans] == ["LRANGE", "PING"] * 6
    assert {s["response_bytes"] for s in spans} == {2 * len(redis_list(200)) - 6, 7}
    assert run.count("bad_frame") == 0
    run.assert_balanced()


def test_a_long_redis_array_loses_the_frame_where_requests_overlap(traffic: Traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    ask = b"*2\r\n$4\r\nKEYS\r\n$1\r\n*\r\n"
    c.write(ask + ask, at=START + 1 * US)
    c.read(redis_list(2), at=START + 2 * US)
    c.write(ask, at=START + 3 * US)  # one is not answered yet
    c.read(redis_list(2), at=START + 4 * US)
    c.read(redis_list(200), at=START + 5 * US, captured=1024)
    c.write(ask, at=START + 6 * US)
    c.read(redis_list(3), at=START + 7 * US)  # may be the rest of the long one
    run = new_run().feed(traffic)
    assert len(run.take()) == 3
    assert run.count("request_unpaired_after_cut") == 1
    run.assert_balanced()


def test_a_busy_connection_joined_under_way_pairs_after_many_turns_and_says_that_it_was_joined(traffic: Traffic, new_run) -> None:
    c = traffic.client(fresh=False)
    for i in range(400):
        c.write(b"*2\r\n$3\r\nGET\r\n$3\r\n%03d\r\n" % i, at=START + (1000 * i + 1) * US)
        c.read(b"$3\r\n%03d\r\n" % i, at=START + (1000 * i + 100) * US)
    run = new_run().feed(traffic)
    spans = run.take()
    assert 150 < len(spans) < 250
    assert {s["end_ns"] - s["start_ns"] < MS for s in spans} == {True}
    assert {s["flags"] & 4 for s in spans} == {4}
    run.assert_balanced()


def test_a_pipelining_connection_seen_from_its_start_is_in_step_again_after_a_few_even_bursts(traffic: Traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    for i in range(40):
        c.write(PING * 16, at=START + (1000 * i + 1) * US, captured=len(PING) if i < 3 else None)
        c.read(PONG * 16, at=START + (1000 * i + 100) * US)
    run = new_run().feed(traffic)
    spans = run.take()
    assert len(spans) > 28 * 16
    assert {s["end_ns"] - s["start_ns"] < MS for s in spans} == {True}
    run.assert_balanced()


def test_a_burst_that_is_read_in_parts_is_no_exception_from_taking_turns(traffic: Traffic, new_run) -> None:
    s = traffic.server()
    s.accept(at=START)
    command = b"*2\r\n$4\r\nECHO\r\n$200\r\n" + b"e" * 200 + b"\r\n"
    burst, reply = command * 16, b"$200\r\n" + b"e" * 200 + b"\r\n"
    half = len(command) * 8 + 100
    for i in range(60):
        at = START + 1000 * i * US
        s.read(burst[:half], at=at + 1 * US, captured=half if i != 2 else 500)
        s.write(reply * 8, at=at + 100 * US)
        s.read(burst[half:], at=at + 200 * US)
        s.write(reply * 8, at=at + 300 * US)
    run = new_run().feed(traffic)
    spans = run.take()
    assert len(spans) > 48 * 16
    assert max(s["end_ns"] - s["start_ns"] for s in spans) < 300 * US
    run.assert_balanced()


def test_bursts_of_which_some_are_always_ahead_are_never_in_step(traffic: Traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    c.write(PING * 16, at=START, captured=len(PING))
    c.read(PONG * 9, at=START + 5 * US)
    owed = 7
    for i in range(300):
        n = 1 + i * 7 % 13
        c.write(PING * n, at=START + (1000 * i + 20) * US)
        c.read(PONG * min(owed + n, 1 + i * 5 % 11), at=START + (1000 * i + 100) * US)
        owed += n - min(owed + n, 1 + i * 5 % 11)
    run = new_run().feed(traffic)
    assert len(run.take()) <= 1
    run.assert_balanced()


def test_a_busy_connection_joined_under_way_whose_steps_are_not_even_pairs_nothing(traffic: Traffic, new_run) -> None:
    c = traffic.client(fresh=False)
    for i in range(400):
        c.write(PING * (2 if i % 50 == 0 else 1), at=START + (1000 * i + 1) * US)
        c.read(PONG * (2 if i % 50 == 25 else 1), at=START + (1000 * i + 100) * US)
    run = new_run().feed(traffic)
    assert run.take() == []
    run.assert_balanced()
