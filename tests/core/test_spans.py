"""What a span says of one exchange: times, threads, ends that were not orderly."""

import errno

import pytest
from core_traffic import MS, START, US, S, request, response

CLIENT, SERVER = 2, 1
CUT, GAP, MID_STREAM, INCOMPLETE, AMBIGUOUS_FLAG = 1, 2, 4, 8, 16


def test_client_times_and_threads_are_those_of_its_calls(traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START, tid=7)
    data, answer = request("/a", b"0123456789", "POST"), response(b"x" * 100)
    c.write(data[:20], at=START + 10 * MS, took=3 * MS, tid=1)
    c.write(data[20:], at=START + 20 * MS, took=2 * MS, tid=2)
    c.read(answer[:10], at=START + 30 * MS, took=9 * MS, tid=3)
    c.read(answer[10:], at=START + 40 * MS, took=9 * MS, tid=4)
    (span,) = new_run().feed(traffic).take()
    assert span["kind"] == CLIENT
    assert span["start_ns"] == START + 7 * MS
    assert span["request_end_ns"] == START + 20 * MS
    assert span["response_start_ns"] == START + 30 * MS
    assert span["end_ns"] == START + 40 * MS
    assert (span["req_tid"], span["resp_tid"], span["connect_tid"]) == (1, 3, 7)
    assert span["connect_ns"] == START - US
    assert (span["request_bytes"], span["response_bytes"]) == (len(data), len(answer))
    assert span["flags"] == 0


def test_server_times_and_threads_are_those_of_its_calls(traffic, new_run) -> None:
    s = traffic.server()
    s.accept(at=START)
    data, answer = request("/a", b"0123456789", "POST"), response(b"x" * 100)
    head = data.index(b"\r\n\r\n") + 4
    s.read(data[:1], at=START + 10 * MS, took=5 * MS, tid=1)
    s.read(data[1 : head + 2], at=START + 15 * MS, tid=2)
    s.read(data[head + 2 :], at=START + 20 * MS, took=5 * MS, tid=3)
    s.write(answer[:10], at=START + 30 * MS, took=4 * MS, tid=4)
    s.write(answer[10:], at=START + 40 * MS, took=4 * MS, tid=5)
    (span,) = new_run().feed(traffic).take()
    assert span["kind"] == SERVER
    assert span["start_ns"] == START + 10 * MS
    assert span["request_end_ns"] == START + 20 * MS
    assert span["response_start_ns"] == START + 26 * MS
    assert span["end_ns"] == START + 40 * MS
    assert (span["req_tid"], span["resp_tid"]) == (2, 4)
    assert span["connect_ns"] == 0


def test_connect_is_named_on_the_first_request_only(traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    for i in range(3):
        c.write(request(), at=START + (2 * i + 1) * MS)
        c.read(response(), at=START + (2 * i + 2) * MS)
    spans = new_run().feed(traffic).take()
    assert [s["connect_ns"] for s in spans] == [START - US, 0, 0]
    assert len({s["connection_id"] for s in spans}) == 1
    assert len({s["span_id"] for s in spans}) == 3


def test_stream_positions_name_the_first_bytes(traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    positions = []
    for i in range(20):  # the positions wrap around 2^32 on the way
        positions.append((c.next[1], c.next[0]))
        c.write(request(), at=START + (2 * i + 1) * MS)
        c.read(response(b"y" * 50), at=START + (2 * i + 2) * MS)
    spans = new_run().feed(traffic).take()
    assert [(s["req_seq"], s["resp_seq"]) for s in spans] == positions


def test_pipelined_requests_are_paired_in_order(traffic, new_run) -> None:
    s = traffic.server()
    s.accept(at=START)
    s.read(b"".join(request(f"/{i}") for i in range(9)), at=START + MS)
    s.write(b"".join(response(status=400 + i) for i in range(9)), at=START + 2 * MS)
    spans = new_run().feed(traffic).take()
    assert [(s["attributes"]["url.path"], s["attributes"]["http.response.status_code"]) for s in spans] == [
        (f"/{i}", 400 + i) for i in range(9)
    ]


def test_a_response_before_the_end_of_its_request_waits_for_it(traffic, new_run) -> None:
    s = traffic.server()
    s.accept(at=START)
    data = request("/big", b"z" * 1000, "PUT")
    s.read(data[:200], at=START + MS)
    s.write(response(status=413), at=START + 2 * MS)
    run = new_run().feed(traffic, now=START + 3 * MS)
    assert run.take() == []
    s.read(data[200:], at=START + 5 * MS)
    (span,) = run.feed(traffic, first=3).take()
    assert span["request_end_ns"] == START + 5 * MS
    assert span["end_ns"] == START + 2 * MS
    run.assert_balanced()


@pytest.mark.parametrize(("error", "reason"), [(0, "connection_closed"), (errno.ECONNRESET, "connection_reset")])
def test_a_connection_that_ends_ends_its_request(traffic, new_run, error: int, reason: str) -> None:
    c = traffic.client()
    c.connect(at=START)
    c.write(request(), at=START + MS)
    c.closed(at=START + 5 * MS, error=error)
    run = new_run().feed(traffic, now=START + S)
    (span,) = run.take()
    assert (span["status"], span["error_type"], span["flags"]) == (1, reason, INCOMPLETE)
    assert (span["end_ns"], span["response_start_ns"]) == (START + 5 * MS, 0)
    assert (run.count("spans_incomplete"), run.count("spans_paired")) == (1, 0)
    assert run.pipeline.gauges()["flows"] == 0
    run.assert_balanced()


def test_a_response_cut_off_by_a_reset_is_incomplete(traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    c.write(request(), at=START + MS)
    c.read(response(b"b" * 5000)[:1000], at=START + 2 * MS)
    c.closed(at=START + 5 * MS, error=errno.ECONNRESET)
    run = new_run().feed(traffic, now=START + S)
    (span,) = run.take()
    assert (span["status"], span["error_type"], span["flags"]) == (1, "connection_reset", INCOMPLETE)
    assert span["attributes"]["http.response.status_code"] == 200
    assert span["response_start_ns"] == START + 2 * MS
    run.assert_balanced()


def test_bytes_read_after_the_close_still_count(traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    c.write(request(), at=START + MS)
    c.peer_closed(at=START + 2 * MS)
    c.closed(at=START + 2 * MS)
    c.read(response(), at=START + 3 * MS)
    (span,) = new_run().feed(traffic, now=START + S).take()
    assert (span["status"], span["flags"]) == (0, 0)


def test_a_body_until_the_end_of_the_connection_ends_with_it(traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    c.write(request(), at=START + MS)
    c.read(b"HTTP/1.0 200 OK\r\n\r\nsome", at=START + 2 * MS)
    c.read(b"more", at=START + 3 * MS)
    c.peer_closed(at=START + 4 * MS)
    run = new_run().feed(traffic, now=START + 5 * MS)
    assert run.take() == []
    (span,) = run.flush(START + S).take()
    assert (span["end_ns"], span["response_bytes"], span["flags"]) == (START + 3 * MS, 27, 0)
    run.assert_balanced()


def test_a_request_without_an_answer_times_out_and_its_late_answer_is_an_orphan(traffic, new_run) -> None:
    s = traffic.server()
    s.accept(at=START)
    s.read(request("/slow"), at=START + MS)
    s.read(request("/next"), at=START + 8 * S)
    run = new_run(request_timeout_ns=10 * S).feed(traffic, now=START + 9 * S)
    assert run.take() == []
    (slow,) = run.flush(START + 10 * S + MS).take()
    assert (slow["error_type"], slow["status"], slow["flags"]) == ("timeout", 1, INCOMPLETE)
    assert slow["end_ns"] == START + MS + 10 * S
    s.write(response(status=201), at=START + 12 * S)
    s.write(response(status=202), at=START + 13 * S)
    (after,) = run.feed(traffic, first=3).take()
    assert (after["attributes"]["url.path"], after["attributes"]["http.response.status_code"]) == ("/next", 202)
    assert run.count("orphan_response") == 1
    run.assert_balanced()


def test_deadlines_do_not_depend_on_how_batches_are_cut(traffic, new_run) -> None:
    s = traffic.server()
    s.accept(at=START)
    s.read(request("/slow"), at=START + MS)
    other = traffic.server()
    other.accept(at=START + 59 * S)
    other.read(request("/other"), at=START + 59 * S + MS)
    s.write(response(), at=START + 60 * S)
    spans = new_run().feed(traffic).take()
    assert [(x["attributes"]["url.path"], x["error_type"]) for x in spans] == [("/slow", "timeout")]


def test_a_streaming_response_is_no_timeout(traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    c.write(request("/stream"), at=START + MS)
    c.read(response(b"s" * 1000)[:300], at=START + 2 * MS)
    run = new_run(request_timeout_ns=S).feed(traffic).flush(START + 60 * S)
    assert run.take() == []
    c.read(response(b"s" * 1000)[300:], at=START + 61 * S)
    (span,) = run.feed(traffic, first=3).take()
    assert (span["end_ns"], span["flags"], span["status"]) == (START + 61 * S, 0, 0)


def test_a_slow_upload_is_no_timeout(traffic, new_run) -> None:
    s = traffic.server()
    s.accept(at=START)
    data = request("/up", b"u" * 1000, "PUT")
    s.read(data[:300], at=START + MS)
    run = new_run(request_timeout_ns=S).feed(traffic).flush(START + 60 * S)
    s.read(data[300:], at=START + 61 * S)
    s.write(response(), at=START + 61 * S + MS)
    (span,) = run.feed(traffic, first=2).take()
    assert span["error_type"] == ""


def test_the_exit_of_a_process_ends_its_requests(traffic, new_run) -> None:
    c = traffic.client(tgid=300)
    c.connect(at=START)
    c.write(request(), at=START + MS)
    bystander = traffic.client(tgid=301)
    bystander.connect(at=START)
    bystander.write(request("/b"), at=START + 2 * MS)
    traffic.exit(300, at=START + 5 * MS)
    bystander.read(response(), at=START + 6 * MS)
    run = new_run().feed(traffic, now=START + 7 * MS)
    gone, fine = run.take()
    assert (gone["error_type"], gone["status"], gone["flags"], gone["end_ns"]) == (
        "process_exited", 1, INCOMPLETE, START + 5 * MS,
    )  # fmt: skip
    assert (fine["status"], fine["pid"]) == (0, 301)
    run.assert_balanced()


def test_the_end_of_a_recording_makes_rows_of_what_is_open(traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    c.write(request(), at=START + MS)
    run = new_run().feed(traffic)
    run.finish(START + 2 * MS)
    (span,) = run.take()
    assert (span["status"], span["error_type"], span["flags"]) == (0, "", INCOMPLETE)
    assert run.pipeline.gauges()["requests_open"] == 0
    run.assert_balanced()


def test_status_of_an_error_depends_on_the_side(traffic, new_run) -> None:
    for end in (traffic.client(), traffic.server()):
        (end.write if end.peer_port == 80 else end.read)(request(), at=START + MS)
        (end.read if end.peer_port == 80 else end.write)(response(status=404), at=START + 2 * MS)
    spans = new_run().feed(traffic).take()
    assert {(s["kind"], s["status"], s["error_type"]) for s in spans} == {(CLIENT, 1, "404"), (SERVER, 0, "")}


def test_an_interim_response_ends_nothing(traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    data = b"PUT /u HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    c.write(data, at=START + MS)
    c.read(b"HTTP/1.1 100 Continue\r\n\r\n", at=START + 2 * MS)
    c.write(b"abc", at=START + 3 * MS)
    c.read(response(status=201), at=START + 4 * MS)
    run = new_run().feed(traffic)
    (span,) = run.take()
    assert span["attributes"]["http.response.status_code"] == 201
    assert span["response_start_ns"] == START + 4 * MS
    assert run.count("one_way") == 1


def test_an_upgraded_connection_is_left_alone(traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    c.write(b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", at=START + MS)
    c.read(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x05hello", at=START + 2 * MS)
    c.write(b"\x81\x85frames that are no HTTP", at=START + 3 * MS)
    run = new_run().feed(traffic)
    (span,) = run.take()
    assert span["attributes"]["http.response.status_code"] == 101
    assert run.count("bytes_upgraded") == 7 + 25
    assert run.count("bad_frame") == 0
    run.assert_balanced()


def test_times_are_moved_to_unix_time_but_absent_ones_stay_absent(traffic, new_run) -> None:
    s = traffic.server()
    s.accept(at=START)
    s.read(request(), at=START + MS)
    s.write(response(), at=START + 2 * MS)
    run = new_run().feed(traffic)
    rows = run.pipeline.take(10**18)
    assert rows.spans["start_ns"][0] == START + MS + 10**18
    assert rows.spans["connect_ns"][0] == 0
    assert len(run.pipeline.take(0).spans) == 0
