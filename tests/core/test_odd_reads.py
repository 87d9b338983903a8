"""Reads that look without taking, reads that throw away, and datagrams of one socket with many peers."""

import pytest
from core_traffic import INGRESS, MS, PEEK, START, TRUNCATED, UDP, US, Run, S, Traffic, request, response


def server_of(traffic: Traffic, is_unix: bool):
    end = traffic.unix_pair()[1] if is_unix else traffic.server()
    end.accept(at=START)
    return end


@pytest.mark.parametrize("is_unix", [False, True])
def test_a_peek_before_the_first_read_changes_nothing(is_unix: bool) -> None:
    traffic, run = Traffic(), Run()
    end = server_of(traffic, is_unix)
    end.move(INGRESS, request()[:5], at=START + MS, flags=PEEK, again=True)
    end.seen[INGRESS] = False  # the probes say FIRST again: nothing was taken yet
    end.read(request(), at=START + 2 * MS)
    end.move(INGRESS, request()[:5], at=START + 3 * MS, flags=PEEK, again=True)
    end.write(response(), at=START + 4 * MS)
    end.read(request(), at=START + 5 * MS)
    end.write(response(), at=START + 6 * MS)
    spans = run.feed(traffic).finish(START + S).take()
    assert len(spans) == 2
    assert not any(s["flags"] for s in spans)
    assert (run.count("bytes_duplicate"), run.count("gap")) == (10, 0)
    run.assert_balanced()


def test_only_a_peek_was_seen_of_a_connection_and_no_flow_is_made() -> None:
    traffic, run = Traffic(), Run()
    end = traffic.server(fresh=False)
    end.move(INGRESS, request(), at=START, flags=PEEK, again=True)
    run.feed(traffic)
    assert run.pipeline.gauges()["flows"] == 0
    run.assert_balanced()


def test_bytes_thrown_away_by_a_read_advance_the_stream() -> None:
    traffic, run = Traffic(), Run()
    end = server_of(traffic, is_unix=False)
    head = b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 4000\r\n\r\n"
    end.read(head, at=START + MS)
    end.move(INGRESS, b"u" * 4000, at=START + 2 * MS, captured=0, flags=TRUNCATED)
    end.write(response(), at=START + 3 * MS)
    end.read(request("/next"), at=START + 4 * MS)
    end.write(response(), at=START + 5 * MS)
    spans = run.feed(traffic).finish(START + S).take()
    assert [(s["attributes"]["url.path"], s["request_bytes"]) for s in spans] == [
        ("/upload", len(head) + 4000),
        ("/next", len(request("/next"))),
    ]
    assert (run.count("bytes_not_captured"), run.count("gap"), run.count("bytes_duplicate")) == (4000, 0, 0)
    run.assert_balanced()


def test_a_head_thrown_away_costs_that_request_and_no_later_one() -> None:
    traffic, run = Traffic(), Run()
    end = server_of(traffic, is_unix=False)
    at = START + MS
    for i in range(6):
        if i == 2:
            end.move(INGRESS, request(f"/{i}"), at=at, captured=0, flags=TRUNCATED)
        else:
            end.read(request(f"/{i}"), at=at)
        end.write(response(), at=at + US * 50)
        at += 20 * MS
    spans = run.feed(traffic).finish(START + S).take()
    assert [s["attributes"]["url.path"] for s in spans] == ["/0", "/1", "/3", "/4", "/5"]
    run.assert_balanced()


def test_a_socket_with_many_peers_makes_no_flows_and_evicts_none() -> None:
    traffic, run = Traffic(), Run(max_flows=64)
    end = server_of(traffic, is_unix=False)
    end.read(request("/slow"), at=START + MS)
    names = traffic.server(port=53, fresh=False)
    for i in range(5000):
        names.peer_port = 1024 + i
        names._record(
            1,
            1,
            enter_ns=START + 2 * MS + i,
            exit_ns=START + 2 * MS + i,
            tid=None,
            payload=b"q" * 30,
            direction=0,
            result=30,
            l4=UDP,
        )
    end.write(response(), at=START + 20 * MS)
    run.feed(traffic)
    assert run.pipeline.gauges()["flows"] == 1
    assert (run.count("bytes_datagram"), run.count("flows_evicted")) == (150_000, 0)
    assert len(run.finish(START + S).take()) == 1
    run.assert_balanced()
