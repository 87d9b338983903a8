"""Any bytes give a verdict: nothing crashes, no probe is fooled by chance, no work grows with the square of the input."""

import random
import time
from typing import Any

import pytest

from deeptrace.core.proto import L7Protocol
from deeptrace.core.vectors import attributes_in, probe, resync, run_protocol
from deeptrace.registry import load_protocols

THRESHOLD = 60  # inference takes a protocol from here on
PROTOCOLS = load_protocols()
ROLES = ("request", "response")


@pytest.fixture(params=PROTOCOLS, ids=[p.name for p in PROTOCOLS])
def protocol(request: Any) -> L7Protocol:
    return request.param


def test_random_bytes_are_no_protocol(protocol: L7Protocol) -> None:
    chance = random.Random(7)
    for _ in range(10_000):
        data = chance.randbytes(chance.randrange(1, 200))
        for role in ROLES:
            assert probe(protocol, data, role) < THRESHOLD


@pytest.mark.parametrize(
    "data",
    [
        b"get key\r\n",  # memcached
        b"set k 0 0 1\r\nx\r\n",
        b"VALUE k 0 1\r\nx\r\nEND\r\n",
        b"STORED\r\n",
        b"HELO example.org\r\n",  # SMTP
        b"220 mail.example.org ESMTP\r\n",
        b"+OK POP3 server ready\r\n",
        b"PING\r\n",  # NATS
        b'INFO {"server_id":"x"}\r\n',
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"OPTIONS rtsp://example.com/media RTSP/1.0\r\nCSeq: 1\r\n\r\n",
        b"OPTIONS sip:a@b SIP/2.0\r\n\r\n",
        b"SIP/2.0 200 OK\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"\x00\x00\x00\x0a5.7.40\x00",  # MySQL
        b"SELECT * FROM t WHERE a = 1\r\n",
    ],
)
def test_other_protocols_are_not_taken_for_one(protocol: L7Protocol, data: bytes) -> None:
    for role in ROLES:
        assert probe(protocol, data, role) < THRESHOLD


def test_whole_messages_are_recognised(vector: Any) -> None:
    for message, (role, data, _) in zip(vector.messages, vector.chunks, strict=False):
        name = message["attributes"].get("name", "redis")
        if role == message["role"] == "request" and name not in ("redis", "HTTP") and not data.startswith(b"PING"):
            assert probe(vector.protocol, data, role) >= THRESHOLD


@pytest.mark.parametrize(
    "data",
    [
        b"+PONG\r\n",
        b"$5\r\nhello\r\n",
        b"$-1\r\n",
        b":1\r\n",
        b"*2\r\n:1\r\n:2\r\n",
        b"-NOAUTH Authentication required.\r\n",
    ],
)
def test_common_replies_are_recognised(redis: L7Protocol, data: bytes) -> None:
    assert probe(redis, data, "response") >= THRESHOLD


def test_an_array_of_strings_alone_does_not_say_who_asks(redis: L7Protocol) -> None:
    array = b"*2\r\n$7\r\nFOO.BAR\r\n$1\r\nb\r\n"
    assert 0 < probe(redis, array, "response") < probe(redis, array, "request") < THRESHOLD


def test_an_inline_command_and_its_reply_together_are_redis(redis: L7Protocol) -> None:
    assert (probe(redis, b"PING\r\n", "request") + probe(redis, b"+PONG\r\n", "response")) // 2 >= THRESHOLD


def mutated(chance: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(changed) + 1)
        kind = chance.randrange(3)
        if kind == 0:
            changed[at:at] = chance.randbytes(chance.randrange(1, 4))
        elif kind == 1:
            del changed[at : at + chance.randrange(1, 9)]
        elif at < len(changed):
            changed[at] = chance.choice(b"\r\n:*$ 0\xff\x00%;=")
    return bytes(changed)


def test_damaged_vectors_crash_nothing_and_split_alike(vector: Any) -> None:
    chance = random.Random(vector.name)
    for _ in range(40):
        chunks = [(role, mutated(chance, data), missing) for role, data, missing in vector.chunks]
        whole = run_protocol(vector.protocol, chunks)
        single = []
        for role, data, missing in chunks:
            single += [(role, data[i : i + 1], 0) for i in range(max(0, len(data) - 1))] + [(role, data[-1:], missing)]
        split = run_protocol(vector.protocol, single)
        for role in ROLES:
            assert [m["type"] for m in whole if m["role"] == role] == [m["type"] for m in split if m["role"] == role], chunks


def test_random_bytes_crash_nothing(protocol: L7Protocol) -> None:
    chance = random.Random(11)
    alphabet = b"\r\n\r\n0123456789*$+-:%~>|=!_#,(GETPOSTHTTP/1. ;ab"
    for _ in range(3_000):
        data = bytes(chance.choice(alphabet) for _ in range(chance.randrange(1, 120)))
        for role in ROLES:
            run_protocol(protocol, [(role, data, chance.choice([0, 0, 5]))])
            assert 0 <= resync(protocol, data, role) <= len(data)
            assert 0 <= probe(protocol, data, role) <= 100


def test_resync_finds_the_next_message(http1: L7Protocol, redis: L7Protocol) -> None:
    request = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    command = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"
    for junk in (b"", b"tail of a body\r\n", b'{"a": 1}', b"\r\n\r\n", b"xx\nyy\n"):
        assert resync(http1, junk + request, "request") == len(junk)
        assert resync(http1, junk + response, "response") == len(junk)
    for junk in (b"", b"tail of a value\r\n", b"\r\n"):
        assert resync(redis, junk + command, "request") == len(junk)
        assert resync(redis, junk + b"$3\r\nabc\r\n", "response") == len(junk)


def seconds(protocol: L7Protocol, role: str, data: bytes) -> float:
    chunks = [(role, data[i : i + 1], 0) for i in range(len(data))]
    start = time.perf_counter()
    run_protocol(protocol, chunks)
    return time.perf_counter() - start


def test_a_hostile_head_byte_by_byte_is_bounded(http1: L7Protocol) -> None:
    head = b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 480 + b"Cookie: " + b"x" * 8000
    assert seconds(http1, "request", head) < 2.0
    many = b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 600
    (message,) = run_protocol(http1, [("request", many, 0)])
    assert message["flags"] == ["cut", "lost"]


def test_long_lines_and_values_of_redis_take_no_memory(redis: L7Protocol) -> None:
    for data in (b"+" + b"x" * 20_000, b"-ERR " + b"x" * 20_000, b"(" + b"1" * 20_000):
        (message,) = run_protocol(redis, [("response", data[i : i + 500], 0) for i in range(0, len(data), 500)])
        assert message["bytes"] == len(data)


def test_huge_counts_are_refused_not_followed(redis: L7Protocol) -> None:
    for data in (b"*9999999999\r\n", b"$99999999999999\r\n", b"%2147483648\r\n"):
        assert run_protocol(redis, [("response", data, 0)])[0]["type"] == "bad"
    deep = b"*1\r\n" * 50_000 + b":1\r\n"
    (message,) = run_protocol(redis, [("response", deep, 0)])
    assert message["bytes"] == len(deep)


def test_every_attribute_fits_into_the_promised_room(http1: L7Protocol) -> None:
    head = b"GET /" + b"p" * 3000 + b"?" + b"q=%FF\xff&" * 500 + b" HTTP/1.1\r\nHost: " + b"h" * 255 + b"\r\n"
    head += b"User-Agent: " + b"\xff" * 900 + b"\r\nX-Request-Id: " + b"r" * 300 + b"\r\nb3: " + b"a" * 300
    head += b"\r\ntraceparent: " + b"0" * 300 + b"\r\n\r\n"
    (message,) = run_protocol(http1, [("request", head, 0)])
    assert {"traceparent", "b3", "x-request-id"} <= set(message["attributes"])
    assert all(len(str(value).encode()) <= 1024 for value in message["attributes"].values())


def test_with_too_little_room_attributes_are_left_out_or_cut_never_wrong(vector: Any) -> None:
    role, data, _ = vector.chunks[0]
    if vector.messages[0]["type"] == "bad" or vector.messages[0]["role"] != role:
        return
    try:
        whole = attributes_in(vector.protocol, data, role, 4096)
    except ValueError:  # the first chunk holds no whole head
        return
    for capacity in range(600):
        for name, value in attributes_in(vector.protocol, data, role, capacity).items():
            assert str(whole[name]).startswith(str(value))
