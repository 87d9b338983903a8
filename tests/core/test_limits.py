"""Every bound of the core holds, is counted, and leaves the ledger balanced."""

from core_traffic import MS, START, US, S, Traffic, request, response


def test_more_flows_than_the_table_holds_evict_the_idlest(traffic: Traffic, new_run) -> None:
    for i in range(100):
        s = traffic.server()
        s.accept(at=START + i * MS)
        s.read(request(f"/{i}"), at=START + i * MS + US)
    run = new_run(max_flows=16).feed(traffic)
    assert run.pipeline.gauges()["flows"] == 16
    assert run.count("flows_evicted") == 84
    spans = run.take()
    assert [x["attributes"]["url.path"] for x in spans] == [f"/{i}" for i in range(84)]
    assert {(x["flags"], x["error_type"]) for x in spans} == {(8, "")}
    run.assert_balanced()


def test_idle_flows_are_forgotten(traffic: Traffic, new_run) -> None:
    s = traffic.server()
    s.accept(at=START)
    s.read(request(), at=START + MS)
    s.write(response(), at=START + 2 * MS)
    run = new_run(idle_ns=S).feed(traffic)
    assert run.flush(START + S).pipeline.gauges()["flows"] == 1
    assert run.flush(START + S + 2 * MS).pipeline.gauges()["flows"] == 0


def test_too_many_open_requests_are_counted_and_pairing_resumes_when_it_is_quiet(traffic: Traffic, new_run) -> None:
    s = traffic.server()
    s.accept(at=START)
    s.read(b"".join(request(f"/{i}") for i in range(10)), at=START + MS)
    s.write(b"".join(response() for _ in range(10)), at=START + 2 * MS)
    s.read(request("/later"), at=START + 50 * MS)
    s.write(response(), at=START + 51 * MS)
    run = new_run(max_open_requests=4).feed(traffic)
    assert [x["attributes"]["url.path"] for x in run.take()] == ["/0", "/1", "/2", "/3", "/later"]
    assert run.count("request_overflow") == 1
    assert run.count("request_unpaired_after_cut") == 5
    assert run.count("response_unpaired_after_cut") == 6
    run.assert_balanced()


def test_a_pipeline_deeper_than_any_bound_is_accounted_for(traffic: Traffic, new_run) -> None:
    c = traffic.client(port=6379)
    c.connect(at=START)
    for i in range(50):
        c.write(b"*1\r\n$4\r\nPING\r\n" * 100, at=START + i * US)
    for i in range(50):
        c.read(b"+PONG\r\n" * 100, at=START + MS + i * US)
    run = new_run().feed(traffic)
    assert len(run.take()) == 4096
    assert run.count("requests") == run.count("responses") == 5000
    run.assert_balanced()


def test_a_head_that_never_ends_is_given_up_at_the_bound(traffic: Traffic, new_run) -> None:
    s = traffic.server()
    s.accept(at=START)
    s.read(b"GET / HTTP/1.1\r\nHost: h\r\nX: ", at=START)
    for i in range(100):
        s.read(b"y" * 1000, at=START + (i + 1) * US)
        assert s.next
    run = new_run().feed(traffic)
    assert run.pipeline.gauges()["bytes_carried"] <= 65536
    run.finish()
    run.assert_balanced()


def test_without_memory_to_carry_bytes_are_abandoned_and_counted(traffic: Traffic, new_run) -> None:
    for i in range(40):
        s = traffic.server()
        s.accept(at=START)
        s.read(request(f"/{i}", b"", "GET")[:-4], at=START + MS)
        s.read(b"\r\n\r\n", at=START + 2 * MS)
        s.write(response(), at=START + 3 * MS)
    run = new_run(memory_bytes=4096).feed(traffic)
    run.finish()
    run.assert_balanced()
    assert run.count("bytes_abandoned") + run.count("bytes_unknown") + run.count("bytes_resync") > 0


def test_more_held_calls_than_the_bound_declare_a_gap(traffic: Traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    c.write(request("/0"), at=START)
    c.write(b"lost", at=START, lost=True)
    for i in range(100):
        c.write(request(f"/{i + 1}"), at=START + i * US)
    run = new_run().feed(traffic, now=START + MS)
    assert run.count("gap") == 1
    run.finish()
    run.assert_balanced()


def test_a_first_record_that_was_lost_is_a_gap_after_the_hold(traffic: Traffic, new_run) -> None:
    s = traffic.server()
    s.accept(at=START)
    s.read(request("/lost"), at=START + MS, lost=True)
    s.read(request("/seen"), at=START + 2 * MS)
    run = new_run().feed(traffic)
    assert run.pipeline.gauges()["bytes_carried"] == len(request("/seen"))
    run.flush(START + S)
    run.finish()
    assert run.count("gap") == 1
    run.assert_balanced()


def test_a_new_connection_on_an_old_socket_is_another_flow(traffic: Traffic, new_run) -> None:
    c = traffic.client()
    c.connect(at=START)
    c.write(request("/old"), at=START + MS)
    c.closed(at=START + 2 * MS)
    c.seen = [False, False]
    c.next = [5, 5]
    c.connect(at=START + 3 * MS)
    c.write(request("/new"), at=START + 4 * MS)
    c.read(response(), at=START + 5 * MS)
    old, new = new_run().feed(traffic).take()
    assert (old["error_type"], new["error_type"]) == ("connection_closed", "")
    assert old["connection_id"] != new["connection_id"]


def test_ids_are_what_they_were(traffic: Traffic, new_run) -> None:
    """Guards the hash: changing it would give old recordings new ids."""
    s = traffic.server()
    s.accept(at=START)
    s.read(request(), at=START + MS)
    s.write(response(), at=START + 2 * MS)
    (span,) = new_run().feed(traffic).take()
    assert span["span_id"] == 10792242340853703940
