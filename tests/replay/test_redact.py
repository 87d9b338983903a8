"""Redaction: planted secrets are not in the file, and the spans are the same but for values."""

import random
import time

import pytest

from deeptrace.agent.redact import Redactor, http1, redis
from deeptrace.agent.replay import Replay, open_recording
from deeptrace.config import Agent
from deeptrace.model import raw_spans, span_json
from deeptrace.wire.capture import CaptureInfo, CaptureReader, CaptureWriter
from deeptrace.wire.pcap import PacketCaptureReader

SECRET = b"hunter2-S3CR3T"

REQUESTS = (
    b"GET /a/b?token=%s&page=2&%s HTTP/1.1\r\nHost: shop\r\nAuthorization: Bearer %s\r\nCookie: s=%s\r\nX-Request-Id: 77\r\n\r\n",
    b"POST /login HTTP/1.1\r\nHost: shop\r\nContent-Type: text/%s\r\nContent-Length: %d\r\n\r\n%s",
    b"PUT /x HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\ne;%s=1\r\n%s\r\n0\r\nX-Sum: %s\r\n\r\n",
    b"HEAD / HTTP/1.0\r\nX-Folded: a\r\n %s\r\n\r\n",
)
RESPONSES = (
    b"HTTP/1.1 200 OK %s\r\nSet-Cookie: %s\r\nContent-Length: %d\r\n\r\n%s",
    b"HTTP/1.1 204 No Content\r\nLocation: /%s\r\n\r\n",
    b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\ne\r\n%s\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n",
)


def fill(template: bytes) -> bytes:
    """The secret in every place that is marked; the size of it where a number is."""
    return template.replace(b"%d", str(len(SECRET)).encode()).replace(b"%s", SECRET)


HTTP_ASKED = b"".join(fill(r) for r in REQUESTS)
HTTP_ANSWERED = b"".join(fill(r) for r in RESPONSES)
REDIS_ASKED = b"".join(
    b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)
    for words in (
        [b"AUTH", SECRET],
        [b"set", SECRET, SECRET],
        [b"GET", SECRET],
        [b"CLIENT", b"SETNAME", SECRET],
        [b"PING"],
        [SECRET],
    )
)
REDIS_ANSWERED = fill(
    b"+OK\r\n+OK\r\n$%d\r\n%s\r\n+OK\r\n+PONG\r\n-ERR unknown command '%s'\r\n"
    b"*2\r\n$%d\r\n%s\r\n:31415926\r\n+%s\r\n%1\r\n+%s\r\n,3.1415926\r\n"
)


def in_pieces(data: bytes, rng: random.Random, least: int = 1) -> list[bytes]:
    cuts = sorted(rng.sample(range(least, len(data)), rng.randint(0, 12)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@pytest.mark.parametrize(("module", "data"), [
    (http1, HTTP_ASKED), (http1, HTTP_ANSWERED), (redis, REDIS_ASKED), (redis, REDIS_ANSWERED),
])  # fmt: skip
def test_no_split_of_the_bytes_lets_a_secret_through(module, data):
    rng = random.Random(4)
    assert module.begins(data, is_start=True)
    for _ in range(300):
        masker = module.masker({})
        pieces = in_pieces(data, rng)
        masked = [masker.feed(piece) for piece in pieces]
        assert [len(m) for m in masked] == [len(p) for p in pieces]
        assert not masker.is_lost
        for part in (SECRET, SECRET[:8], SECRET[-8:], b"31415926", b"1415926"):
            assert part not in b"".join(masked)


def test_what_frames_and_routes_is_kept():
    masker = http1.masker({})
    masked = masker.feed(HTTP_ASKED)
    for kept in (
        b"GET /a/b?token=",
        b"&page=x&",
        b"Host: shop",
        b"X-Request-Id: 77",
        b"Content-Length: 14",
        b"chunked\r\n\r\ne;xx",
    ):
        assert kept in masked
    masked = redis.masker({}).feed(REDIS_ASKED)
    for kept in (b"$4\r\nAUTH", b"$3\r\nset", b"$3\r\nGET", b"$6\r\nCLIENT\r\n$7\r\nSETNAME", b"$4\r\nPING"):
        assert kept in masked


@pytest.mark.parametrize("module", [http1, redis])
def test_a_hole_in_a_frame_masks_everything_after_it(module):
    data = HTTP_ASKED if module is http1 else REDIS_ASKED
    masker = module.masker({})
    masker.feed(data[:7])
    masker.skip(3)
    assert masker.is_lost
    assert masker.feed(data) == b"x" * len(data)


def redacted(path, tmp_path):
    """A capture as a redacted record file."""
    redactor = Redactor()
    target = tmp_path / "redacted.dtcap"
    reader = PacketCaptureReader(path)
    with CaptureWriter(target, CaptureInfo(redacted=True, capture_start_ns=1)) as writer:
        for frame in reader.frames():
            writer.write(redactor.redact(frame))
    return target


def stored_bytes(path) -> bytes:
    with CaptureReader(path) as reader:
        return b"".join(frame.records.tobytes() + frame.payload.tobytes() for frame in reader.frames())


def spans_of(path):
    recording = open_recording(path)
    spans = [span_json(raw) for batch in Replay(recording, Agent()).batches() for raw in raw_spans(batch)]
    recording.close()
    return spans


VALUES = ("attributes", "ids")


def without_values(span):
    kept = {k: v for k, v in span.items() if k not in VALUES}
    names = ("http.request.method", "url.path", "http.response.status_code", "db.operation.name", "db.response.status_code")
    return {**kept, **{name: span["attributes"].get(name) for name in names}}


def conversation(make):
    """HTTP and Redis on two connections, in pieces."""
    rng = random.Random(7)
    web = make.Script(server=("10.0.0.2", 80)).connect()
    for asked, answered in zip(REQUESTS, RESPONSES, strict=True):
        for piece in in_pieces(fill(asked), rng, 10):
            web.ask(piece)
        for piece in in_pieces(fill(answered), rng, 10):
            web.answer(piece)
    store = make.Script(client=("10.0.0.1", 40001), server=("10.0.0.3", 6379), start_ns=web.now_ns).connect()
    store.ask(REDIS_ASKED).answer(REDIS_ANSWERED).finish()
    other = make.Script(client=("10.0.0.1", 40002), server=("10.0.0.4", 9999), start_ns=store.now_ns).connect()
    other.ask(b"\x00\x01binary " + SECRET).answer(SECRET)
    datagram = make.udp_packet(("10.0.0.1", 5), ("10.0.0.2", 53), b"q" + SECRET)
    return [*web.packets, *store.packets, *other.packets, (other.now_ns, datagram)]


def test_planted_secrets_are_in_the_capture_and_not_in_the_redacted_file(make, pcap_file, tmp_path):
    plain = pcap_file(conversation(make))
    assert SECRET in plain.read_bytes()
    stored = stored_bytes(redacted(plain, tmp_path))
    assert SECRET not in stored
    assert SECRET not in (tmp_path / "redacted.dtcap").read_bytes()
    for i in range(len(SECRET) - 6):
        assert SECRET[i : i + 7] not in stored


def test_a_redacted_file_gives_the_same_spans_but_for_values(make, pcap_file, tmp_path):
    plain = pcap_file(conversation(make))
    before, after = spans_of(plain), spans_of(redacted(plain, tmp_path))
    assert len(before) >= 9
    assert [without_values(s) for s in after] == [without_values(s) for s in before]


@pytest.mark.parametrize(
    "name", ["http/sw8.pcap", "http/httpv1.pcap", "redis/redis.pcap", "redis/redis-debug.pcap", "thrift/tt.pcap"]
)
def test_real_captures_give_the_same_spans_but_for_values(captures, tmp_path, name):
    before, after = spans_of(captures / name), spans_of(redacted(captures / name, tmp_path))
    assert before
    assert [without_values(s) for s in after] == [without_values(s) for s in before]


def test_bytes_that_come_twice_or_late_are_masked(make, pcap_file, tmp_path):
    talk = make.Script().connect().ask(fill(REQUESTS[0]))
    again = make.tcp_packet(make.CLIENT, make.SERVER, 1001, b"z" * 20 + SECRET)
    talk.packets.append((talk.now_ns, again))
    talk.ask(fill(REQUESTS[1]))
    stored = stored_bytes(redacted(pcap_file(talk.packets), tmp_path))
    assert SECRET not in stored
    assert b"POST /login" in stored


def test_a_new_connection_on_the_same_socket_is_masked_from_its_beginning(make, pcap_file):
    talk = make.Script().connect().ask(fill(REQUESTS[1])[:-3])
    (frame,) = PacketCaptureReader(pcap_file(talk.packets)).frames()
    redactor = Redactor()
    redactor.redact(frame)
    again = redactor.redact(frame).payload.tobytes()
    assert b"POST /login HTTP/1.1" in again
    assert SECRET[:9] not in again


def test_redaction_keeps_up_with_tens_of_thousands_of_records_a_second(make, pcap_file):

    talk = make.Script(server=("10.0.0.3", 6379)).connect()
    for _ in range(2000):
        talk.ask(b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n").answer(b"+OK\r\n")
    frames = list(PacketCaptureReader(pcap_file(talk.packets)).frames())
    start = time.process_time()
    redactor = Redactor()
    n = sum(len(redactor.redact(frame).records) for frame in frames)
    assert n / (time.process_time() - start) > 10_000
