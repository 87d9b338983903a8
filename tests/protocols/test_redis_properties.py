"""Redis against redis-py's own packer and parser: generated connections give the same messages, however they are cut."""

import io
from itertools import pairwise
from typing import Any

from deeptrace.protocols.redis import PROTOCOL
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.connection import Connection

from deeptrace.core.vectors import run_protocol

WORDS = st.binary(max_size=30)
LINE = st.text("abcXYZ 0123", max_size=12).map(str.encode)
COMMANDS = st.sampled_from(["GET", "set", "HSET", "lpush", "EXPIRE", "PING", "MSET", "CLIENT", "CONFIG", "AUTH"])
PLACES = st.lists(st.integers(0, 100_000), max_size=8)


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


SCALARS = st.one_of(
    LINE.map(lambda text: b"+%b\r\n" % text),
    st.integers(-(2**63), 2**63 - 1).map(lambda n: b":%d\r\n" % n),
    WORDS.map(bulk),
    st.sampled_from([b"$-1\r\n", b"_\r\n", b"#t\r\n", b"#f\r\n", b",1.5\r\n", b",-inf\r\n", b"(12345678901234567890\r\n"]),
    WORDS.map(lambda data: b"=%d\r\ntxt:%b\r\n" % (len(data) + 4, data)),
)


def aggregates(inner: Any) -> Any:
    def join(kind: bytes, per: int) -> Any:
        return lambda items: kind + b"%d\r\n" % (len(items) // per) + b"".join(items[: len(items) // per * per])

    items = st.lists(inner, max_size=5)
    return items.map(join(b"*", 1)) | items.map(join(b"~", 1)) | items.map(join(b"%", 2))


REPLIES = st.recursive(SCALARS, aggregates, max_leaves=12)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(at)]


def pack(*words: Any) -> bytes:
    return b"".join(Connection().pack_command(*words))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(COMMANDS, st.lists(WORDS, max_size=6)), min_size=1, max_size=4), PLACES)
def test_requests_are_those_that_the_client_packed(made: list[tuple[str, list[bytes]]], places: list[int]) -> None:
    packed = [pack(name, *words) for name, words in made]
    messages = run_protocol(PROTOCOL, [("request", part, 0) for part in cut(b"".join(packed), places)])
    assert [message["bytes"] for message in messages] == [len(one) for one in packed]
    for (name, _), message in zip(made, messages, strict=True):
        assert message["attributes"]["db.operation.name"].split()[0] == name.upper()


@settings(max_examples=200, deadline=None)
@given(st.lists(REPLIES, min_size=1, max_size=4), PLACES)
def test_replies_end_where_they_end(made: list[bytes], places: list[int]) -> None:
    chunks = [("request", pack("GET", "k") * len(made), 0)]  # all are replies to something
    chunks += [("response", part, 0) for part in cut(b"".join(made), places)]
    messages = [message for message in run_protocol(PROTOCOL, chunks) if message["role"] == "response"]
    assert [message["bytes"] for message in messages] == [len(one) for one in made]
    assert all(message["type"] == "response" and not message["flags"] for message in messages)


@settings(max_examples=100, deadline=None)
@given(REPLIES.filter(lambda reply: b"$-1" not in reply))  # RESP2's null, which a RESP3 client does not read
def test_the_clients_parser_takes_a_reply_to_be_as_long(reply: bytes) -> None:
    assert read_by_client(reply) == len(reply)


def read_by_client(data: bytes) -> int:
    """Bytes that redis-py's RESP3 parser reads for one reply."""
    from redis._parsers.resp3 import _RESP3Parser

    class Buffer:
        def __init__(self) -> None:
            self.stream = io.BytesIO(data)

        def readline(self, **_: Any) -> bytes:
            return self.stream.readline().removesuffix(b"\r\n")

        def read(self, n: int, **_: Any) -> bytes:
            found = self.stream.read(n)
            self.stream.read(2)
            return found

        def get_pos(self) -> int:
            return self.stream.tell()

        def rewind(self, pos: int) -> None:
            pass

        def purge(self) -> None:
            pass

    class Encoder:
        encoding_errors = "strict"
        encoding = "utf-8"

        def decode(self, value: Any, **_: Any) -> Any:
            return value

    parser = _RESP3Parser(65536)
    parser._buffer = Buffer()
    parser.encoder = Encoder()
    try:
        parser.read_response(disable_decoding=True)
    except TypeError:  # a set or map whose members Python cannot hash; it was read whole before
        return len(data)
    return int(parser._buffer.stream.tell())
