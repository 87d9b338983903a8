"""Unix sockets and processes in recordings: masked as other connections are, and read again from files of any age."""

import struct

import numpy as np
from core_traffic import CONN, MS, PROC, START, US, Run, Traffic, request, response, span_dicts

from deeptrace.agent.redact import Redactor
from deeptrace.agent.replay import Replay, open_recording
from deeptrace.config import Settings
from deeptrace.core.pipeline import SpanRows
from deeptrace.model import SpanBatch
from deeptrace.wire.capture import CaptureInfo, CaptureWriter, RecordFrame

SECRET = b"hunter2"


def frame_of(traffic: Traffic) -> RecordFrame:
    batch = traffic.batch()
    return RecordFrame(int(batch.records["exit_ns"].max()), batch.records, batch.payload, batch.payload_at)


def unix_traffic() -> Traffic:
    traffic = Traffic()
    client, server = traffic.unix_pair()
    client.connect(at=START)
    traffic.payloads[-1] = struct.pack("=16sQQ", b"caller", 5, 6)
    traffic.rows[-1]["payload_len"] = 32
    traffic.exit(999, at=START)
    traffic.payloads[-1] = b"old\0".ljust(16, b"\0")  # as before processes told their start
    traffic.rows[-1]["payload_len"] = 16
    at = START + MS
    for i in range(4):
        ask = request(f"/login?password={SECRET.decode()}", SECRET * i, "POST")
        for end, direction in ((client, 1), (server, 0)):
            end.move(direction, ask, at=at)
            at += 10 * US
        for end, direction in ((server, 1), (client, 0)):
            end.move(direction, response(SECRET), at=at)
            at += 10 * US
    return traffic


def facts(spans) -> list[tuple[object, ...]]:
    names = ("kind", "protocol", "seq_space", "req_seq", "resp_seq", "request_bytes", "response_bytes", "flags", "pid")
    return [tuple(span[name] for name in names) for span in spans]


def replayed(frame: RecordFrame, path) -> list[dict[str, object]]:
    with_file = CaptureWriter(path, CaptureInfo(boot_id="boot"))
    with_file.write(frame)
    with_file.close()
    recording = open_recording(path)
    spans = []
    for batch in Replay(recording, Settings().agent).batches():
        spans += span_dicts(_rows(batch))
    recording.close()
    return spans


def _rows(batch: SpanBatch) -> SpanRows:
    pids = np.array([process.pid for process in batch.processes], np.uint32)
    return SpanRows(batch.spans, batch.attributes, batch.string_at, batch.string_bytes, pids)


def test_a_recorded_unix_connection_gives_the_same_spans_masked_or_not(tmp_path) -> None:
    traffic = unix_traffic()
    live = facts(Run().feed(traffic).finish().take())
    plain = replayed(frame_of(traffic), tmp_path / "plain.dtcap")
    masked = replayed(Redactor().redact(frame_of(traffic)), tmp_path / "masked.dtcap")
    assert facts(plain) == facts(masked) == live
    assert len(live) == 8
    assert {span["attributes"]["network.transport"] for span in masked} == {"unix"}


def test_values_of_unix_connections_are_masked_and_processes_are_not() -> None:
    frame = Redactor().redact(frame_of(unix_traffic()))
    text = frame.payload.tobytes()
    assert SECRET not in text
    assert b"POST /" in text
    for kind, size in ((CONN, 32), (PROC, 16)):
        row = int(np.flatnonzero(frame.records["kind"] == kind)[0])
        at = int(frame.offsets[row])
        assert frame.payload[at : at + size].tobytes() in (struct.pack("=16sQQ", b"caller", 5, 6), b"old".ljust(16, b"\0"))
