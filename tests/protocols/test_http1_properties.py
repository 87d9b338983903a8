"""HTTP/1 against llhttp (httptools): generated connections give the same messages, however they are cut into calls."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httptools
from deeptrace.protocols.http1 import PROTOCOL
from hypothesis import given, settings
from hypothesis import strategies as st

from deeptrace.core.vectors import run_protocol

BODY_BYTES = st.binary(max_size=40)
TOKEN = st.text("abcdefgXYZ-", min_size=1, max_size=8)
VALUE = st.text("abc 123;=,", max_size=20).map(str.strip)
PATH = st.text("abc123/._-~", max_size=20).map(lambda text: "/" + text)
QUERY = st.none() | st.text("abc123=&", min_size=1, max_size=20)
FIELDS = st.lists(st.tuples(TOKEN.map(lambda name: "X-" + name), VALUE), max_size=5)
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
STATUSES = st.sampled_from([200, 201, 204, 301, 304, 400, 404, 500, 503])


def head(start: str, fields: list[tuple[str, str]]) -> bytes:
    return "\r\n".join([start, *(f"{name}: {value}" for name, value in fields), "", ""]).encode()


def chunked(pieces: list[bytes], extension: str) -> bytes:
    lines = [f"{len(piece):x}{extension}\r\n".encode() + piece + b"\r\n" for piece in pieces if piece]
    return b"".join(lines) + b"0\r\n\r\n"


@st.composite
def bodies(draw: Any) -> tuple[list[tuple[str, str]], bytes]:
    """Fields and bytes of a body that says where it ends."""
    if draw(st.booleans()):
        body = draw(BODY_BYTES)
        return [("Content-Length", str(len(body)))], body
    extension = draw(st.sampled_from(["", ";a", ';a="b;c"']))
    return [("Transfer-Encoding", "chunked")], chunked(draw(st.lists(BODY_BYTES, max_size=4)), extension)


@st.composite
def requests(draw: Any) -> bytes:
    fields, body = draw(st.just(([], b"")) | bodies())
    query = draw(QUERY)
    target = draw(PATH) + ("" if query is None else "?" + query)
    return head(f"{draw(METHODS)} {target} HTTP/1.1", [("Host", "a"), *draw(FIELDS), *fields]) + bytes(body)


@st.composite
def responses(draw: Any) -> bytes:
    status = draw(STATUSES)
    fields, body = ([], b"") if status in (204, 304) else draw(bodies())
    return head(f"HTTP/1.1 {status} X", [*draw(FIELDS), *fields]) + bytes(body)


@dataclass
class Oracle:
    """What llhttp says of one direction."""

    starts: list[Any] = field(default_factory=list)
    completed: int = 0
    target: bytes = b""

    def on_message_begin(self) -> None:
        self.target = b""

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_headers_complete(self) -> None:
        if isinstance(self.parser, httptools.HttpRequestParser):
            self.starts.append((self.parser.get_method().decode(), self.target.decode()))
        else:
            self.starts.append(self.parser.get_status_code())

    def on_message_complete(self) -> None:
        self.completed += 1

    parser: Any = None


def oracle_of(kind: type, data: bytes) -> Oracle:
    oracle = Oracle()
    oracle.parser = kind(oracle)
    oracle.parser.feed_data(data)
    return oracle


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(at)]


PLACES = st.lists(st.integers(0, 10_000), max_size=8)


@settings(max_examples=150, deadline=None)
@given(st.lists(requests(), min_size=1, max_size=4), PLACES)
def test_requests_are_those_of_llhttp(made: list[bytes], places: list[int]) -> None:
    oracle = oracle_of(httptools.HttpRequestParser, b"".join(made))
    messages = run_protocol(PROTOCOL, [("request", part, 0) for part in cut(b"".join(made), places)])
    assert oracle.completed == len(made)
    assert [message["bytes"] for message in messages] == [len(one) for one in made]
    for (method, target), message in zip(oracle.starts, messages, strict=True):
        attributes = message["attributes"]
        path, _, query = target.partition("?")
        assert attributes["http.request.method"] == method
        assert attributes["url.path"] == path
        assert attributes.get("url.query", "") == query


@settings(max_examples=150, deadline=None)
@given(st.lists(responses(), min_size=1, max_size=4), PLACES)
def test_responses_are_those_of_llhttp(made: list[bytes], places: list[int]) -> None:
    oracle = oracle_of(httptools.HttpResponseParser, b"".join(made))
    messages = run_protocol(PROTOCOL, [("response", part, 0) for part in cut(b"".join(made), places)])
    assert oracle.completed == len(made)
    assert [message["bytes"] for message in messages] == [len(one) for one in made]
    assert [message["status"] for message in messages] == oracle.starts
