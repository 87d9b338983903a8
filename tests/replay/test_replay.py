"""Replay: spans equal to what tshark reads, the same every time, from every capture; one sentence for what goes wrong."""

import io
import json
import pathlib
import struct
import time
import types

import numpy as np
import pytest

from deeptrace import cli, ledger
from deeptrace.agent.redact import Redactor
from deeptrace.agent.replay import PacketRecording, Replay, open_recording, replay_all
from deeptrace.config import Agent
from deeptrace.core.wire import RECORD_DTYPE
from deeptrace.errors import CaptureError
from deeptrace.model import ProcessInfo, raw_spans, span_json
from deeptrace.wire.capture import CaptureInfo, CaptureReader, CaptureWriter, RecordFrame
from deeptrace.wire.pcap import PacketCaptureReader

ASK, ANSWER = b"GET /a HTTP/1.1\r\nHost: shop\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def spans_of(path: pathlib.Path) -> list[dict]:
    _, batches, damage = replay_all(path, Agent())
    assert damage is None
    return [span_json(raw) for batch in batches for raw in raw_spans(batch)]


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = cli.run([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def as_dtcap(path: pathlib.Path, target: pathlib.Path, info: CaptureInfo | None = None) -> pathlib.Path:
    """A packet capture as a record file."""
    reader = PacketCaptureReader(path)
    with CaptureWriter(target, info or CaptureInfo(capture_start_ns=1)) as writer:
        for frame in reader.frames():
            writer.write(frame)
    return target


# ---- tshark

ANY_PORT_HTTP = ("-d", "tcp.port==1-65535,http")
UNFINISHED = ("-o", "http.desegment_headers:FALSE", "-o", "http.desegment_body:FALSE")  # of messages that the capture cuts


@pytest.mark.parametrize(("name", "options"), [
    ("http/client-ip.pcap", UNFINISHED), ("http/httpv1.pcap", ()), ("http/sw8.pcap", ()), ("http/istio-tcp-frag.pcap", UNFINISHED),
    ("thrift/tt.pcap", ()),
])  # fmt: skip
def test_http_methods_paths_and_statuses_are_those_of_tshark(captures, tshark, name, options):
    fields = ["tcp.stream", "http.request.method", "http.request.uri", "http.response.code"]
    rows = tshark(captures / name, fields, "http.request.method || http.response.code", *ANY_PORT_HTTP, *options)
    streams: dict[str, dict[str, list]] = {}
    for stream, method, uri, code in rows:
        found = streams.setdefault(stream, {"asked": [], "answered": []})
        if method:
            found["asked"].append((method, uri.partition("?")[0]))
        if code:
            found["answered"].append(int(code))
    expected = sorted((*asked, code) for s in streams.values() for asked, code in zip(s["asked"], s["answered"], strict=True))
    assert expected
    spans = spans_of(captures / name)
    names = ("http.request.method", "url.path", "http.response.status_code")
    assert sorted(tuple(s["attributes"][n] for n in names) for s in spans) == expected
    assert {s["protocol"] for s in spans} == {"http1"}


@pytest.mark.parametrize("name", ["redis/redis.pcap", "redis/redis-error.pcap", "redis/redis-debug.pcap"])
def test_redis_commands_keys_and_errors_are_those_of_tshark(captures, tshark, name):
    fields = ["tcp.stream", "tcp.dstport", "resp.bulk_string.value", "resp.error"]
    rows = tshark(captures / name, fields, "resp", "-d", "tcp.port==6379,resp")
    errors = [error.split()[0] for _, _, _, error in rows if error]
    expected = []
    for _, port, values, _ in rows:
        if port == "6379":
            words = [bytes.fromhex(value).decode() for value in values.split("\x1f")]
            expected.append((words[0].upper(), " ".join([words[1], *("?" for _ in words[2:])])))
    spans = spans_of(captures / name)
    assert sorted(
        (s["attributes"]["db.operation.name"], s["attributes"]["db.query.text"].partition(" ")[2]) for s in spans
    ) == sorted(expected)
    assert [s["attributes"]["db.response.status_code"] for s in spans if s["status"] == "error"] == errors
    assert {s["protocol"] for s in spans} == {"redis"}


def test_a_made_capture_is_read_as_tshark_reads_it(make, pcap_file, tshark):
    """Pipelining, chunks, bodies over segments, two connections, a repeated and a swapped segment."""
    one = make.Script(server=("10.0.0.2", 80)).connect()
    one.ask(b"GET /first?a=b HTTP/1.1\r\nHost: x\r\n\r\nHEAD /second HTTP/1.1\r\nHost: x\r\n\r\n")
    one.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").answer(b"0\r\n\r\n")
    one.answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 77\r\n\r\n")
    one.ask(b"POST /third HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc").ask(b"def")
    one.answer(b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\n").answer(b"dead").finish()
    one.packets.insert(5, one.packets[4])
    one.swap(9, 10)
    two = make.Script(client=("10.0.0.9", 50123), server=("10.0.0.2", 80), isn=(2**32 - 5, 7), start_ns=one.now_ns).connect()
    two.ask(b"DELETE /fourth HTTP/1.1\r\nHost: x\r\n\r\n").answer(b"HTTP/1.1 204 No Content\r\n\r\n").finish()
    path = pcap_file([*one.packets, *two.packets])
    fields = ["http.request.method", "http.request.uri", "http.response.code"]
    rows = tshark(path, fields, "http", "-o", "tcp.reassemble_out_of_order:TRUE")
    asked = [(m, u.partition("?")[0]) for ms, us, _ in rows if ms for m, u in zip(ms.split("\x1f"), us.split("\x1f"), strict=True)]
    codes = [int(c) for _, _, cs in rows if cs for c in cs.split("\x1f")]
    names = ("http.request.method", "url.path", "http.response.status_code")
    spans = sorted(spans_of(path), key=lambda s: (s["start_ns"], s["req_seq"]))
    assert [tuple(s["attributes"][n] for n in names[:2]) for s in spans] == asked
    assert [s["attributes"][names[2]] for s in spans] == codes == [200, 404, 500, 204]


def test_made_redis_traffic_is_read_as_tshark_reads_it(make, pcap_file, tshark):
    talk = make.Script(server=("10.0.0.3", 6379)).connect()
    words = ([b"SET", b"k", b"v"], [b"get", b"k"], [b"LPUSH", b"l", b"1", b"2"], [b"INCR", b"l"])
    for command in words:
        talk.ask(b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in command))
    talk.answer(b"+OK\r\n").answer(b"$1\r\nv\r\n").answer(b":2\r\n").answer(b"-WRONGTYPE Operation against a key\r\n").finish()
    path = pcap_file(talk.packets)
    rows = tshark(path, ["tcp.dstport", "resp.bulk_string.value", "resp.error"], "resp")
    asked = [bytes.fromhex(values.split("\x1f")[0]).decode().upper() for port, values, _ in rows if port == "6379"]
    spans = spans_of(path)
    assert [s["attributes"]["db.operation.name"] for s in spans] == asked
    assert [s["error_type"] for s in spans if s["status"] == "error"] == [e.split()[0] for *_, e in rows if e] == ["WRONGTYPE"]


def test_every_capture_replays_within_seconds_to_client_spans_without_a_process(captures):
    for path in sorted(captures.rglob("*.pcap")):
        start = time.monotonic()
        spans = spans_of(path)
        assert time.monotonic() - start < 5, path
        for span in spans:
            assert span["kind"] == "CLIENT", path
            assert span["pid"] is span["service"] is span["host"] is None
            assert 0 < span["start_ns"] <= span["request_end_ns"] <= span["end_ns"]


# ---- the same every time


def test_two_replays_of_a_file_print_the_same_bytes(captures, capsys):
    for name in ("http/sw8.pcap", "redis/redis.pcap", "thrift/tt.pcap"):
        first = run(capsys, "replay", captures / name, "--json")
        assert first[0] == 0
        assert first[1].count("\n") >= 3
        assert run(capsys, "replay", captures / name, "--json") == first


def test_a_recording_gives_the_spans_of_what_was_recorded(captures, tmp_path):
    for name in ("http/sw8.pcap", "redis/redis.pcap", "redis/redis-debug.pcap", "http/httpv1.pcap"):
        path = as_dtcap(captures / name, tmp_path / "a.dtcap")
        assert spans_of(path) == spans_of(captures / name)


def test_host_processes_and_clock_of_a_recording_are_in_its_spans(make, pcap_file, tmp_path):
    reader = PacketCaptureReader(pcap_file(make.Script().connect().ask(ASK).answer(ANSWER).packets))
    info = CaptureInfo(host="web1", boot_id="b", clock_offset_ns=5, capture_start_ns=1)
    with CaptureWriter(tmp_path / "a.dtcap", info) as writer:
        writer.write_processes([ProcessInfo(pid=42, comm="curl", service="shop", start_ns=7)])
        for frame in reader.frames():
            frame.records["tgid"] = 42
            writer.write(frame)
    (span,) = spans_of(tmp_path / "a.dtcap")
    assert (span["host"], span["boot_id"], span["pid"], span["comm"], span["service"]) == ("web1", "b", 42, "curl", "shop")
    (plain,) = spans_of(pcap_file(make.Script().connect().ask(ASK).answer(ANSWER).packets))
    assert span["start_ns"] == plain["start_ns"] + 5


# ---- what a capture may look like


def test_a_guess_of_the_client_that_the_bytes_refute_is_corrected(make, pcap_file):
    talk = make.Script(client=("10.0.0.1", 1500), server=("10.0.0.2", 9999))  # the ports say the opposite
    talk.ask(ASK).answer(ANSWER)
    (span,) = spans_of(pcap_file(talk.packets))
    assert (span["kind"], span["local_port"], span["peer_port"]) == ("CLIENT", 1500, 9999)


def test_segments_out_of_order_and_repeated_give_one_span(make, pcap_file):
    talk = make.Script().connect().ask(ASK[:10]).ask(ASK[10:]).answer(ANSWER[:9]).answer(ANSWER[9:])
    talk.swap(3, 4).swap(5, 6)
    talk.packets.insert(6, talk.packets[4])
    talk.finish()
    (span,) = spans_of(pcap_file(talk.packets))
    assert span["attributes"]["http.response.status_code"] == 200
    assert "incomplete" not in span["flags"]


def test_a_segment_that_was_sent_again_after_a_second_is_waited_for(make, pcap_file):
    talk = make.Script().connect().ask(ASK).answer(ANSWER[:9]).answer(ANSWER[9:])
    late = talk.packets.pop(4)
    talk.packets.append((talk.now_ns + 1_000_000_000, late[1]))
    (span,) = spans_of(pcap_file(talk.packets))
    assert span["attributes"]["http.response.status_code"] == 200
    assert span["flags"] == []


def test_a_reset_in_mid_request_is_a_span_that_says_so(make, pcap_file):
    (span,) = spans_of(pcap_file(make.Script().connect().ask(ASK).reset().packets))
    assert (span["status"], span["error_type"]) == ("error", "connection_reset")
    assert "incomplete" in span["flags"]


def test_a_port_used_again_gives_spans_of_two_connections(make, pcap_file):
    first = make.Script().connect().ask(ASK).answer(ANSWER).finish()
    second = make.Script(isn=(77, 88), start_ns=first.now_ns).connect().ask(ASK).answer(ANSWER).finish()
    spans = spans_of(pcap_file(first.packets + second.packets))
    assert len({s["span_id"] for s in spans}) == len({s["connection_id"] for s in spans}) == 2


def test_a_packet_capture_cut_by_its_snapshot_limit_says_so(make, pcap_file):
    talk = make.Script().connect().ask(ASK).answer(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + b"z" * 500).finish()
    (span,) = spans_of(pcap_file(talk.packets, snap_size=120))
    assert span["attributes"]["http.response.status_code"] == 200
    assert "cut" in span["flags"]
    assert span["response_bytes"] == 540


def test_pcapng_is_read_like_pcap(make, pcap_file, tmp_path):
    packets = make.Script().connect().ask(ASK).answer(ANSWER).packets
    body = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
    parts = [(0x0A0D0D0A, body), (1, struct.pack("<HHIHHBxxxHH", 101, 0, 0, 9, 1, 9, 0, 0))]
    parts += [
        (6, struct.pack("<IIIII", 0, t >> 32, t & 0xFFFFFFFF, len(p), len(p)) + p + b"\0" * (-len(p) % 4)) for t, p in packets
    ]
    file = io.BytesIO()
    for kind, data in parts:
        size = struct.pack("<I", len(data) + 12)
        file.write(struct.pack("<I", kind) + size + data + size)
    (tmp_path / "a.pcapng").write_bytes(file.getvalue())
    assert spans_of(tmp_path / "a.pcapng") == spans_of(pcap_file(packets))


# ---- the commands


def test_a_damaged_file_gives_the_spans_before_the_damage_and_one_sentence(make, pcap_file, tmp_path, capsys):
    talk = make.Script().connect().ask(ASK).answer(ANSWER).ask(ASK).answer(ANSWER)
    path = pcap_file(talk.packets)
    path.write_bytes(path.read_bytes()[:-5])
    code, out, err = run(capsys, "replay", path, "--json")
    assert code == 1
    assert len(out.splitlines()) == 2
    assert err.splitlines()[-1].startswith(f"deeptrace: {path}: damaged at byte ")
    whole = as_dtcap(pcap_file(talk.packets), tmp_path / "a.dtcap").read_bytes()
    (tmp_path / "cut.dtcap").write_bytes(whole[:-60])
    code, out, err = run(capsys, "replay", tmp_path / "cut.dtcap", "--json")
    assert code == 1
    assert "damaged at byte" in err.splitlines()[-1]


@pytest.mark.parametrize(("content", "said"), [
    (b"", "is empty"), (b"plain text, no capture", "is none of .dtcap, .pcap and .pcapng"), (b"\x1f\x8b\x08gz", "unpack it first"),
    (b"\xd4\xc3\xb2\xa1", "damaged at byte 0"), (b"DTCAP\r\n\x1a", "is no record file"),
])  # fmt: skip
@pytest.mark.parametrize("verb", ["replay", "dump"])
def test_what_is_no_capture_is_told_in_one_line(tmp_path, capsys, verb, content, said):
    (tmp_path / "x").write_bytes(content)
    code, out, err = run(capsys, verb, tmp_path / "x", "--json")
    assert (code, out) == (1, "")
    assert said in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_missing_file_is_told_in_one_line(tmp_path, capsys):
    for verb in ("replay", "dump"):
        code, _, err = run(capsys, verb, tmp_path / "none.pcap")
        assert (code, err.count("\n")) == (1, 1)
        assert "No such file" in err


def test_replay_says_what_it_read_and_what_it_could_not(make, pcap_file, capsys):
    packets = [(t, make.ethernet(p)) for t, p in make.Script().connect().ask(ASK).answer(ANSWER).packets]
    packets.append((packets[-1][0] + 1, make.ethernet(b"\0" * 28, 0x0806)))
    _, out, err = run(capsys, "replay", pcap_file(packets, link_type=1), "--json")
    assert json.loads(out)["name"] == "GET"
    assert err == "deeptrace: 6 packets, 3 records, 1 spans; 1 packets skipped (not IP)\n"


def test_dump_shows_every_record_and_the_payload_when_asked(make, pcap_file, capsys):
    path = pcap_file(make.Script().connect().ask(ASK).answer(ANSWER).finish().packets)
    code, out, _ = run(capsys, "dump", path, "--json", "--payload")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [(r["kind"], r["event"]) for r in rows[:3]] == [("conn", "connect"), ("data", "packet"), ("data", "packet")]
    assert rows[1]["payload"] == ASK.hex()
    assert (rows[1]["local"], rows[1]["peer"], rows[1]["direction"]) == ("10.0.0.1:40000", "10.0.0.2:80", "egress")
    code, out, _ = run(capsys, "dump", path, "--payload")
    assert "10.0.0.1:40000 -> 10.0.0.2:80 31 bytes" in out
    assert "GET /a HTTP/1.1." in out
    assert ASK.hex() not in run(capsys, "dump", path, "--json")[1]
    assert len(run(capsys, "dump", path, "--limit", "2")[1].splitlines()) == 2


def test_dump_names_the_host_of_a_recording_and_says_when_it_is_redacted(make, pcap_file, tmp_path, capsys):
    path = pcap_file(make.Script().connect().ask(ASK).packets)
    info = CaptureInfo(host="web1", boot_id="b", redacted=True, written_by="deeptrace 0.1.0")
    _, out, _ = run(capsys, "dump", as_dtcap(path, tmp_path / "a.dtcap", info))
    assert out.splitlines()[0] == "# host web1, boot b, written by deeptrace 0.1.0, payload redacted"


def test_the_ledger_of_a_replay_balances(captures):
    for path in sorted(captures.rglob("*.pcap")):
        recording = open_recording(path)
        replay = Replay(recording, Agent())
        list(replay.batches())
        recording.close()
        balances = {b.name: b for b in ledger.check({**replay.counters, **replay.gauges})}
        for name in ("decoded", "bytes", "requests", "responses"):
            assert balances[name].balanced, (path, balances[name])


def test_a_packet_capture_is_read_at_tens_of_thousands_of_packets_a_second(captures):
    start = time.process_time()
    recording = PacketRecording(str(captures / "memcached/memcached-userdata.pcap"))
    n = sum(len(frame.records) for frame in recording.frames())
    assert n / (time.process_time() - start) > 20_000  # half of what a busy, small machine does


def hostile_frame(rng: np.random.Generator) -> RecordFrame:
    """Records whose every number may be anything, with payload that looks like messages."""
    n = 100
    records = np.frombuffer(bytearray(rng.bytes(n * RECORD_DTYPE.itemsize)), RECORD_DTYPE)
    records["kind"], records["direction"] = rng.choice([1, 1, 1, 2, 3, 9], n), rng.choice([0, 1, 7], n)
    records["socket"], records["tuple"], records["netns"] = rng.integers(0, 3, n), 0, 0
    records["tuple"]["l4_protocol"] = rng.choice([6, 6, 17], n)
    parts = [
        b"".join(rng.choice([ASK, ANSWER, b"*1\r\n$9\r\n", b"+OK\r\n"], 2).tolist())[: int(rng.integers(90))] for _ in range(n)
    ]
    records["payload_len"] = sizes = np.array([len(p) for p in parts])
    records["result"] = np.where(rng.random(n) < 0.8, sizes, records["result"])
    records["seq_enter"] = rng.integers(0, 5000, n)
    records["seq_exit"] = np.where(rng.random(n) < 0.9, records["seq_enter"] + sizes, records["seq_exit"])
    return RecordFrame(
        1, records, np.frombuffer(bytearray(b"".join(parts)), np.uint8), (np.cumsum(sizes) - sizes).astype(np.uint32)
    )


def test_no_records_whatever_do_harm_and_their_ledger_balances():
    rng = np.random.default_rng(11)
    for _ in range(60):
        frames = [hostile_frame(rng) for _ in range(3)]
        recording = types.SimpleNamespace(info=CaptureInfo(), processes={}, frames=lambda frames=frames: iter(frames))
        replay = Replay(recording, Agent())
        list(replay.batches())
        for balance in ledger.check({**replay.counters, **replay.gauges}):
            assert balance.name in ("records", "spans") or balance.balanced, balance
        redactor = Redactor()
        assert all(redactor.redact(frame).records is frame.records for frame in frames)


def test_a_capture_error_is_one_sentence(tmp_path):
    with pytest.raises(CaptureError) as e:
        CaptureReader(tmp_path)
    assert "\n" not in str(e.value)
