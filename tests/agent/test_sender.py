"""Shipping against a server that the test can stop, slow and make refuse."""

import dataclasses
import socket

import pytest
from fake_server import FakeServer, batch_of

from deeptrace.agent.sender import Identity, Report, Sender
from deeptrace.counters import PythonCounters
from deeptrace.ledger import Balance

IDENTITY = Identity(agent_id="a", epoch_ns=1, host="h", boot_id="b", pid=7)


def make_sender(address: str, *, queue_spans: int = 1000, **more: object) -> Sender:
    sender = Sender(address, IDENTITY, queue_spans=queue_spans, counters=PythonCounters(), **more)  # type: ignore[arg-type]
    sender.start()
    return sender


def finish(sender: Sender, timeout_s: float) -> int:
    left = sender.flush(timeout_s)
    sender.close()
    return left


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture
def server():
    fake = FakeServer()
    yield fake
    fake.stop()


def test_every_batch_arrives_in_order_and_is_counted_as_acknowledged(server):
    sender = make_sender(server.address)
    for n in (3, 5, 7):
        assert sender.submit(batch_of(n))
    assert finish(sender, 5.0) == 0
    assert [(sequence, len(batch)) for sequence, batch in server.batches] == [(1, 3), (2, 5), (3, 7)]
    delivery = sender.delivery()
    assert (delivery.acked, delivery.rejected, delivery.dropped, delivery.in_flight) == (15, 0, 0, 0)
    assert server.hellos[0].agent_id == "a"
    assert server.hellos[0].pid == 7


def test_a_server_that_is_not_there_yet_is_found_when_it_comes():
    port = free_port()
    sender = make_sender(f"127.0.0.1:{port}")
    sender.submit(batch_of(4))
    assert not sender.wait_welcome(0.3)
    server = FakeServer(port)
    try:
        assert sender.wait_welcome(10.0)
        assert finish(sender, 5.0) == 0
        assert sender.delivery().acked == 4
    finally:
        server.stop()


def test_what_was_not_acknowledged_is_sent_again_after_the_server_came_back(server):
    server.acking = False
    sender = make_sender(server.address)
    sender.submit(batch_of(2))
    assert server.wait_for(lambda: len(server.batches) == 1)
    server.stop()
    again = FakeServer(server.port)
    try:
        assert again.wait_for(lambda: len(again.batches) == 1)
        assert finish(sender, 5.0) == 0
        assert sender.delivery().acked == 2
        assert sender._counters.snapshot()["retries"] == 1
    finally:
        again.stop()


def test_what_the_server_stored_before_it_was_lost_is_not_sent_again(server):
    server.acking = False
    sender = make_sender(server.address)
    sender.submit(batch_of(2))
    assert server.wait_for(lambda: len(server.batches) == 1)
    server.stop()
    again = FakeServer(server.port)
    again.stored = 1
    try:
        assert finish(sender, 10.0) == 0
        assert again.batches == []
        assert sender.delivery().acked == 2
    finally:
        again.stop()


def test_a_full_queue_drops_new_spans_and_counts_them():
    sender = make_sender(f"127.0.0.1:{free_port()}", queue_spans=10)
    assert sender.submit(batch_of(6))
    assert not sender.submit(batch_of(6))
    assert sender.submit(batch_of(4))
    delivery = sender.delivery()
    assert (delivery.dropped, delivery.in_flight) == (6, 10)
    assert finish(sender, 0.1) == 10


def test_refused_spans_are_counted_as_rejected(server):
    server.rejected = lambda _sequence: 3
    sender = make_sender(server.address)
    sender.submit(batch_of(5))
    assert finish(sender, 5.0) == 0
    delivery = sender.delivery()
    assert (delivery.acked, delivery.rejected) == (2, 3)


def test_heartbeats_carry_the_ledger(server):
    sender = make_sender(server.address)
    sender.report(Report({"calls": 23}, [Balance("calls", 23, 22, 1)], 5))
    assert server.wait_for(lambda: bool(server.heartbeats))
    sender.close()
    beat = server.heartbeats[0]
    assert beat.values["calls"] == 23
    assert (beat.balances[0].left, beat.balances[0].right, beat.balances[0].slack) == (23, 22, 1)


def test_a_server_that_refuses_the_agent_is_told_apart_from_one_that_is_away():
    server = FakeServer(refused="the agent is too old")
    sender = make_sender(server.address)
    try:
        assert not sender.wait_welcome(5.0)
        assert sender.refused == "the agent is too old"
    finally:
        sender.close()
        server.stop()


def test_the_servers_process_is_told_at_each_welcome():
    server = FakeServer(boot_id="b", pid=42)
    seen = []
    sender = make_sender(server.address, on_welcome=seen.append)
    try:
        assert sender.wait_welcome(5.0)
        assert [(w.boot_id, w.pid) for w in seen] == [("b", 42)]
    finally:
        sender.close()
        server.stop()


def test_the_last_report_is_sent_before_the_end(server):
    sender = make_sender(server.address)
    assert sender.wait_welcome(5.0)
    sender.report(Report({"calls": 29}, [], 5))
    sender.close()
    assert server.wait_for(lambda: bool(server.heartbeats), 1.0)
    assert server.heartbeats[-1].values["calls"] == 29


def test_a_batch_that_cannot_be_encoded_is_dropped_and_counted_and_the_next_one_arrives(server):
    sender = make_sender(server.address)
    broken = dataclasses.replace(batch_of(4), string_at=None)
    sender.submit(broken)
    sender.submit(batch_of(3))
    assert finish(sender, 5.0) == 0
    delivery = sender.delivery()
    assert (delivery.dropped, delivery.acked) == (4, 3)
