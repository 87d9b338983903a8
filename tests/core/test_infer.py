"""Which protocol, and which end asks: decided from the bytes of both directions, never guessed."""

import pytest
from core_traffic import MS, START, S, Traffic, request, response

CLIENT, SERVER = 2, 1
ARRAY = b"*2\r\n$3\r\nfoo\r\n$3\r\nbar\r\n"  # a reply, or a command that nobody knows


def kinds(spans: list[dict[str, object]]) -> list[object]:
    return [span["kind"] for span in spans]


@pytest.mark.parametrize("known_role", [True, False])
def test_an_array_reply_is_not_taken_for_a_command(traffic: Traffic, new_run, known_role: bool) -> None:
    c = traffic.client(port=7777)
    if known_role:
        c.connect(at=START)
    c.write(b"*2\r\n$4\r\nKEYS\r\n$1\r\n*\r\n", at=START + MS)
    c.read(ARRAY, at=START + 2 * MS)
    run = new_run().feed(traffic)
    assert kinds(run.take()) == [CLIENT]
    run.assert_balanced()


def test_an_unknown_command_waits_for_the_other_direction(traffic: Traffic, new_run) -> None:
    c = traffic.client(port=7777)
    c.write(ARRAY, at=START + MS)
    run = new_run().feed(traffic)
    assert run.pipeline.gauges()["bytes_carried"] == len(ARRAY)
    c.read(b"-ERR unknown command\r\n", at=START + 2 * MS)
    assert kinds(run.feed(traffic, first=1).take()) == [CLIENT]
    run.assert_balanced()


def test_the_role_of_the_connection_decides_between_equal_readings(traffic: Traffic, new_run) -> None:
    s = traffic.server(port=7777)
    s.accept(at=START)
    s.read(ARRAY, at=START + MS)
    s.write(ARRAY, at=START + 2 * MS)
    assert kinds(new_run().feed(traffic).take()) == [SERVER]


def test_equal_readings_without_a_role_make_no_span(traffic: Traffic, new_run) -> None:
    s = traffic.server(port=7777)
    s.read(ARRAY, at=START + MS)
    s.write(ARRAY, at=START + 2 * MS)
    run = new_run().feed(traffic)
    assert run.take() == []
    run.finish()
    assert run.take() == []
    assert run.count("bytes_abandoned") == 2 * len(ARRAY)
    run.assert_balanced()


def test_both_ends_on_one_host_are_two_flows(traffic: Traffic, new_run) -> None:
    c, s = traffic.client(), traffic.server()
    c.connect(at=START)
    s.accept(at=START)
    c.write(request(), at=START + MS)
    s.read(request(), at=START + 2 * MS)
    s.write(response(), at=START + 3 * MS)
    c.read(response(), at=START + 4 * MS)
    assert sorted(kinds(new_run().feed(traffic).take())) == [SERVER, CLIENT]


def test_a_flow_joined_in_the_middle_of_a_body_finds_the_next_message_and_waits_for_quiet(traffic: Traffic, new_run) -> None:
    c = traffic.client(fresh=False)
    c.read(b"tail of a body" * 100, at=START)
    c.write(request("/seen"), at=START + 2 * MS)
    c.read(response(), at=START + 3 * MS)
    c.write(request("/after"), at=START + 20 * MS)
    c.read(response(), at=START + 21 * MS)
    run = new_run().feed(traffic)
    (span,) = run.take()
    assert span["attributes"]["url.path"] == "/after"
    assert span["flags"] == 4
    assert run.count("bad_frame") == 0
    run.assert_balanced()


def test_a_flow_that_was_quiet_since_the_capture_began_is_paired_at_once(traffic: Traffic, new_run) -> None:
    c = traffic.client(fresh=False)
    c.write(request("/first"), at=START + 50 * MS)
    c.read(response(), at=START + 51 * MS)
    (span,) = new_run(capture_start_ns=START).feed(traffic).take()
    assert (span["attributes"]["url.path"], span["flags"]) == ("/first", 4)


def test_a_flow_joined_at_full_speed_is_not_paired_before_it_is_quiet(traffic: Traffic, new_run) -> None:
    c = traffic.client(fresh=False, port=6379)
    c.write(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n", at=START + MS)  # the answer to an unseen one is still under way
    c.read(b"$1\r\n0\r\n", at=START + 2 * MS)
    c.write(b"*2\r\n$3\r\nGET\r\n$1\r\nb\r\n", at=START + 3 * MS)
    c.read(b"$1\r\n1\r\n", at=START + 4 * MS)
    run = new_run(capture_start_ns=START)
    assert run.feed(traffic).take() == []
    assert run.count("request_unpaired_after_cut") == run.count("response_unpaired_after_cut") == 2
    run.assert_balanced()


def test_a_silent_protocol_is_given_up_on(traffic: Traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    for i in range(40):
        c.write(b"%d" % (i % 10), at=START + i * MS)
    run = new_run().feed(traffic, now=START + S)
    assert run.count("flows_unknown") == 1
    assert run.count("bytes_unknown") == 40
    run.assert_balanced()
