"""The server end to end in one process: ingest, exactly once, queries, back-pressure. Starts a real server on loopback."""

import json
import pathlib
import time
from collections.abc import Iterator

import pytest
from shipper import Shipper
from span_factory import CLIENT, SERVER, T0, Factory, load

from deeptrace.cli._client import Client
from deeptrace.config import Settings
from deeptrace.config import load as load_settings
from deeptrace.errors import DeepTraceError, StoreError, UsageError
from deeptrace.model import SpanBatch
from deeptrace.server import writer as writer_module
from deeptrace.server.serve import Server
from deeptrace.server.store.store import Store
from deeptrace.wire import codec
from deeptrace.wire import deeptrace_pb2 as pb


def settings(data: pathlib.Path, **more: object) -> Settings:
    overrides = {"server.data": str(data), "server.grpc": "127.0.0.1:0", "server.http": "127.0.0.1:0", "server.settle_s": 2.0}
    return load_settings(overrides=overrides | more, environ={})


@pytest.fixture
def data(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "data"


@pytest.fixture
def server(data: pathlib.Path) -> Iterator[Server]:
    running = Server(settings(data))
    running.start()
    yield running
    running.stop()


def exchange(seq: int = 1000) -> SpanBatch:
    """One call: a CLIENT span of pid 1 and the SERVER span of pid 2."""
    factory = Factory()
    common = {"req_seq": seq, "resp_seq": seq + 1}
    attributes = {"url.path": "/a", "http.response.status_code": 200}
    factory.add(CLIENT, pid=1, service="front", start=0, end=5, local_port=4000, peer_port=80, attributes=attributes, **common)
    factory.add(SERVER, pid=2, service="back", start=1, end=4, local_port=80, peer_port=4000, attributes=attributes, **common)
    return factory.batch()


def wait_for(what: object, timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def stored(server: Server) -> int:
    return Client(server.http).get("doctor")["server"]["store"]["spans"]["rows"]


def test_an_exchange_becomes_one_trace(server: Server) -> None:
    shipper = Shipper(server.grpc)
    assert shipper.welcome.last_sequence == 0
    shipper.send(exchange(), 1)
    assert [(a.sequence, a.stored_spans, a.rejected_spans) for a in shipper.acks(1)] == [(1, 2, 0)]
    client = Client(server.http)
    wait_for(lambda: len(client.get("traces", {"since": T0})["traces"]) == 1)
    wait_for(lambda: client.get("traces", {"since": T0})["traces"][0]["n_spans"] == 2)
    row = client.get("traces", {"since": T0})["traces"][0]
    assert (row["service"], row["n_spans"], row["duration_ns"]) == ("front", 2, 5_000_000)
    trace = client.get(f"traces/{row['trace_id']}")
    front, back = trace["spans"]
    assert front["parent_span_id"] is None
    assert (back["parent_span_id"], back["link_method"], back["link_confidence"]) == (front["span_id"], "tcp_seq", 1.0)
    assert back["attributes"] == {"url.path": "/a", "http.response.status_code": 200}
    shipper.close()


def test_what_is_sent_again_is_acknowledged_and_not_stored_again(server: Server) -> None:
    shipper = Shipper(server.grpc)
    shipper.send(exchange(), 1)
    shipper.send(exchange(5), 2)
    shipper.acks(2)
    shipper.close()
    again = Shipper(server.grpc)
    assert again.welcome.last_sequence == 2
    again.send(exchange(), 1)
    again.send(exchange(9), 3)
    assert [a.sequence for a in again.acks(2)] == [1, 3]
    assert stored(server) == 6
    other_run = Shipper(server.grpc, epoch_ns=8)
    assert other_run.welcome.last_sequence == 0
    doctor = Client(server.http).get("doctor")["server"]
    assert doctor["balanced"]
    assert doctor["counters"]["spans_duplicate"] == 2


def test_marks_survive_a_restart(data: pathlib.Path) -> None:
    first = Server(settings(data))
    first.start()
    shipper = Shipper(first.grpc)
    shipper.send(exchange(), 1)
    shipper.acks(1)
    first.stop()
    assert not (data / "server.json").exists()
    second = Server(settings(data))
    second.start()
    try:
        again = Shipper(second.grpc)
        assert again.welcome.last_sequence == 1
        again.send(exchange(), 1)
        again.acks(1)
        assert stored(second) == 2
    finally:
        second.stop()


@pytest.mark.parametrize("moment", ["before the insert", "after the insert"])
def test_a_crash_around_the_insert_neither_loses_nor_doubles(
    data: pathlib.Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    insert = Store.insert

    def crash(self: Store, table: str, rows: object, *, token: str | None = None) -> None:
        if table == "spans" and moment == "after the insert":
            insert(self, table, rows, token=token)  # type: ignore[arg-type]
        if table == "spans":
            raise SystemExit  # the thread dies here, as with kill -9
        insert(self, table, rows, token=token)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "insert", crash)
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    first = Server(settings(data))
    first.start()
    shipper = Shipper(first.grpc)
    shipper.send(exchange(), 1)
    wait_for(lambda: not first._writer.is_alive)
    with pytest.raises(DeepTraceError, match="writer has died"):
        first.check()
    monkeypatch.setattr(Store, "insert", insert)
    first.stop()
    second = Server(settings(data))
    second.start()
    try:
        assert stored(second) == 2
        again = Shipper(second.grpc)
        again.send(exchange(), 1)
        again.acks(1)
        assert stored(second) == 2
    finally:
        second.stop()


def test_while_the_store_refuses_nothing_is_acknowledged_and_nothing_is_lost(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = Store.insert
    refuse = [True]

    def full(self: Store, table: str, rows: object, *, token: str | None = None) -> None:
        if refuse[0] and table == "spans":
            raise StoreError("no space left on device")
        insert(self, table, rows, token=token)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "insert", full)
    monkeypatch.setattr(writer_module, "RETRY_S", 0.05)
    shipper = Shipper(server.grpc)
    shipper.send(exchange(), 1)
    client = Client(server.http)
    wait_for(lambda: client.get("doctor")["server"]["counters"].get("store_errors", 0) > 2)
    doctor = client.get("doctor")["server"]
    assert doctor["store_error"] == "no space left on device"
    assert doctor["balanced"]
    assert shipper_last(server) == 0
    refuse[0] = False
    assert shipper.acks(1)[0].sequence == 1
    assert stored(server) == 2


def shipper_last(server: Server) -> int:
    shipper = Shipper(server.grpc)
    shipper.close()
    return int(shipper.welcome.last_sequence)


def test_a_hostile_batch_is_rejected_with_a_reason_and_the_stream_goes_on(server: Server) -> None:
    shipper = Shipper(server.grpc)
    shipper.send_message(pb.Batch(sequence=1, spans=pb.Table(rows=5)))
    batch = exchange()
    batch.spans["start_ns"] = 5
    shipper.send(batch, 2)
    shipper.send(exchange(), 3)
    one, two, three = shipper.acks(3)
    assert one.rejected_spans == 5
    assert "2000" in two.reason
    assert three.stored_spans == 2
    doctor = Client(server.http).get("doctor")["server"]
    assert doctor["balanced"]
    assert (doctor["counters"]["spans_rejected"], doctor["counters"]["spans_stored"]) == (7, 2)


def test_an_agent_of_another_major_version_is_refused_with_a_sentence(server: Server) -> None:
    shipper = Shipper(server.grpc, version=pb.Version(major=9, minor=0))
    assert "protocol 9.0" in shipper.welcome.refused


def test_ledgers_of_agents_are_shown(server: Server) -> None:
    shipper = Shipper(server.grpc)
    shipper.heartbeat({"calls": 5, "ring_full": 2})
    client = Client(server.http)
    wait_for(lambda: client.get("doctor")["agents"][0]["values"])
    agent = client.get("doctor")["agents"][0]
    assert (agent["agent_id"], agent["connected"], agent["values"]["calls"], agent["events_lost"]) == ("a1", True, 5, 2)


def test_tail_shows_new_spans_that_match(server: Server) -> None:
    client = Client(server.http)
    lines = client.lines("tail", {"service": "back"})
    shipper = Shipper(server.grpc)
    time.sleep(0.3)  # the request is on its way; nothing says when the server has it
    shipper.send(exchange(), 1)
    assert next(lines)["service"] == "back"
    lines.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("spans", {"limit": "0"}),
        ("spans", {"limit": "x"}),
        ("spans", {"since": "soon"}),
        ("spans", {"protocol": "carrier pigeon"}),
        ("spans", {"status": "maybe"}),
        ("spans", {"order": "up"}),
        ("spans", {"colour": "red"}),
        ("spans", {"service": "x" * 2000}),
        ("traces/abc", {}),
        ("traces", {"min_duration_ms": "-1"}),
    ],
)
def test_a_wrong_parameter_is_answered_with_a_sentence(server: Server, path: str, parameters: dict[str, str]) -> None:
    with pytest.raises(UsageError) as told:
        Client(server.http).get(path, parameters)
    assert "\n" not in str(told.value)


def test_a_trace_that_is_not_there_is_said_so(server: Server) -> None:
    with pytest.raises(DeepTraceError, match="no trace"):
        Client(server.http).get(f"traces/{'0' * 32}")


def test_services_count_requests_errors_and_latencies(server: Server) -> None:
    shipper = Shipper(server.grpc)
    factory = Factory()
    for i in range(10):
        factory.add(SERVER, pid=1, service="shop", start=i * 10, end=i * 10 + 4, status=int(i == 0))
    shipper.send(factory.batch(), 1)
    shipper.acks(1)
    row = Client(server.http).get("services", {"since": T0})["services"][0]
    assert (row["service"], row["requests"], row["errors"], row["p50_ns"]) == ("shop", 10, 1, 4_000_000)


def test_a_second_server_on_the_same_folder_or_port_is_refused(server: Server, data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(StoreError, match="another DeepTrace server"):
        Server(settings(data)).start()
    with pytest.raises(DeepTraceError, match="cannot be used"):
        Server(settings(tmp_path / "b", **{"server.http": server.http})).start()
    state = json.loads((data / "server.json").read_text())
    assert state["http"] == server.http
    assert (data / "server.json").stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_made_is_one_sentence() -> None:
    with pytest.raises(StoreError, match="cannot be used"):
        Server(settings(pathlib.Path("/proc/nowhere"))).start()


def test_a_load_is_stored_whole_and_linked(server: Server) -> None:
    shipper = Shipper(server.grpc)
    for i in range(4):
        shipper.send(load(500, seed=i, first=i * 500, start_ns=T0 + i * 10**8), i + 1)
    assert sum(a.stored_spans for a in shipper.acks(4)) == 12000
    assert stored(server) == 12000
    client = Client(server.http)
    wait_for(lambda: client.get("doctor")["server"]["counters"].get("links_made", 0) >= 6000)
    assert codec.PROTOCOL_MAJOR == 1


def test_a_server_that_is_being_watched_and_shipped_to_stops_in_time(data: pathlib.Path) -> None:
    running = Server(settings(data))
    running.start()
    lines = Client(running.http).lines("tail")
    shipper = Shipper(running.grpc)
    time.sleep(0.3)
    shipper.send(exchange(), 1)
    next(lines)
    running.check()
    begun = time.monotonic()
    running.stop()
    running.stop()
    assert len(list(lines)) <= 1  # the other span of the exchange may still have come
    assert time.monotonic() - begun < 8
