"""What must not leave the parsers does not: planted secrets appear in no attribute."""

from typing import Any

import pytest
from deeptrace.protocols.http1 import PROTOCOL as HTTP1
from deeptrace.protocols.redis import PROTOCOL as REDIS
from hypothesis import given, settings
from hypothesis import strategies as st

from deeptrace.core.proto import L7Protocol
from deeptrace.core.vectors import run_protocol

SECRET = "hunter2hunter2"
PARAMETERS = [
    "token", "access_token", "accessToken", "refresh-token", "id_token", "api_key", "apikey", "API-KEY", "key", "password",
    "passwd", "pwd", "secret", "client_secret", "signature", "sig", "X-Amz-Signature", "X-Amz-Credential",
    "X-Amz-Security-Token", "X-Goog-Signature", "AWSAccessKeyId", "code", "session", "sessionid", "PHPSESSID", "jsessionid",
    "auth", "authorization", "jwt", "user[password]", "otp", "ticket", "x" * 100,
]  # fmt: skip
HARMLESS = ["q", "page", "sort_key", "monkey", "encoded", "tokens_used", "keyword", "author", "id", "signal"]


def attributes_of(target: str, fields: str = "") -> dict[str, Any]:
    head = f"GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode()
    (message,) = run_protocol(HTTP1, [("request", head, 0)])
    assert isinstance(message["attributes"], dict)
    return message["attributes"]


def escaped(text: str, every: int) -> str:
    return "".join(f"%{ord(c):02x}" if i % every == 0 else c for i, c in enumerate(text))


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_secret_parameter_keeps_its_name_and_loses_its_value(name: str) -> None:
    for written in (name, name.upper(), escaped(name, 1), escaped(name, 3)):
        attributes = attributes_of(f"/p?a=1&{written}={SECRET}&b=2")
        assert attributes["url.query"] == f"a=1&{written}=REDACTED&b=2"
        assert SECRET not in str(attributes_of(f"/p;{written}={SECRET}/q"))
        assert SECRET not in str(attributes_of(f"/p?next=%2Fq%3F{written}%3D{SECRET}%26x"))
        assert SECRET not in str(attributes_of(f"http://h/p?{written}={SECRET}"))


@pytest.mark.parametrize("name", HARMLESS)
def test_other_parameters_stay(name: str) -> None:
    assert attributes_of(f"/p?{name}=value")["url.query"] == f"{name}=value"


@pytest.mark.parametrize(
    "target",
    [
        f"http://joe:{SECRET}@host/p",
        f"//joe:{SECRET}@host/p",
        f"/proxy/http://joe:{SECRET}@host/p",
        f"/p?u=http://joe:{SECRET}@host/p",
        f"/p?u=http%3A%2F%2Fjoe%3A{SECRET}%40host%2Fp",
        f"joe:{SECRET}@host/p",
        f"/p#access_token={SECRET}",
        f"http://host/p?a=1#{SECRET}",
    ],
)
def test_user_and_password_in_a_target_are_dropped(target: str) -> None:
    assert SECRET not in str(attributes_of(target))


@pytest.mark.parametrize(
    "field", ["Authorization: Bearer", "Proxy-Authorization: Basic", "Cookie: session=", "X-Api-Key:", "X-Auth-Token:", "Referer: http://h/?t="]
)  # fmt: skip
def test_secret_fields_reach_no_attribute(field: str) -> None:
    assert SECRET not in str(attributes_of("/", f"{field} {SECRET}\r\n"))
    head = f"HTTP/1.1 200 OK\r\nSet-Cookie: s={SECRET}\r\n{field} {SECRET}\r\nContent-Length: 14\r\n\r\n{SECRET}".encode()
    assert SECRET not in str(run_protocol(HTTP1, [("response", head, 0)]))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(PARAMETERS + HARMLESS), st.sampled_from(["&", ";"])), min_size=1, max_size=6),
    st.integers(1, 4),
    st.integers(0, 200),
)
def test_no_mixture_of_parameters_leaks(names: list[tuple[str, str]], every: int, cut: int) -> None:
    query = "".join(f"{escaped(name, every)}={SECRET if name in PARAMETERS else 'ok'}{separator}" for name, separator in names)
    assert SECRET not in str(attributes_of("/p?" + query))
    head = f"GET /p?{query} HTTP/1.1\r\n".encode()[: 5 + cut]
    assert SECRET not in str(run_protocol(HTTP1, [("request", head, 999)]))


def packed(*words: str) -> bytes:
    return f"*{len(words)}\r\n".encode() + b"".join(f"${len(word)}\r\n{word}\r\n".encode() for word in words)


@pytest.mark.parametrize(
    "words",
    [
        ("SET", "k", SECRET), ("SETEX", "k", "10", SECRET), ("MSET", "k", SECRET, SECRET, SECRET), ("HSET", "k", SECRET, SECRET),
        ("AUTH", SECRET), ("AUTH", "user", SECRET), ("HELLO", "3", "AUTH", "user", SECRET), ("ACL", "SETUSER", "u", f">{SECRET}"),
        ("CONFIG", "SET", "requirepass", SECRET), ("CONFIG", SECRET), ("EVAL", SECRET, "1", "k", SECRET), ("EVALSHA", SECRET, "0"),
        ("SCRIPT", "LOAD", SECRET), ("FUNCTION", "LOAD", SECRET), ("FCALL", SECRET, "0", SECRET), ("PUBLISH", "c", SECRET),
        ("MIGRATE", "h", "1", "k", "0", "5", "AUTH", SECRET), ("LPUSH", "k", SECRET), ("XADD", "k", "*", "f", SECRET),
        ("ECHO", SECRET), ("PING", SECRET), (SECRET, "k"), (SECRET,), ("SENTINEL", "SET", "m", "auth-pass", SECRET),
        ("CLIENT", "SETNAME", SECRET), ("CLIENT", SECRET), ("SUBSCRIBE", SECRET), ("GETSET", "k", SECRET),
        ("ZADD", "k", "1", SECRET),
    ],
)  # fmt: skip
def test_values_of_redis_reach_no_attribute(words: tuple[str, ...]) -> None:
    for command in (packed(*words), packed(words[0].lower(), *words[1:]), " ".join(words).encode() + b"\r\n"):
        for cut in {len(command), len(command) // 2, len(command) - 3}:
            messages = run_protocol(REDIS, [("request", command[:cut], 0 if cut == len(command) else 50)])
            assert SECRET not in str(messages)
            assert SECRET.upper() not in str(messages)


@pytest.mark.parametrize(
    "reply",
    [
        f"${len(SECRET)}\r\n{SECRET}\r\n", f"+{SECRET}\r\n", f"-ERR value {SECRET}\r\n", f"-{SECRET}\r\n",
        f"*1\r\n${len(SECRET)}\r\n{SECRET}\r\n", f"!{len(SECRET)}\r\n{SECRET}\r\n", f"={len(SECRET) + 4}\r\ntxt:{SECRET}\r\n",
        f">2\r\n+invalidate\r\n+{SECRET}\r\n",
    ],
)  # fmt: skip
def test_replies_of_redis_reach_no_attribute(reply: str) -> None:
    assert SECRET not in str(run_protocol(REDIS, [("response", reply.encode(), 0)]))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_texts_are_utf_8_without_control_characters(data: bytes) -> None:
    field = data.replace(b"\r", b"").replace(b"\n", b"")
    head = b"GET /" + field.replace(b" ", b"") + b" HTTP/1.1\r\nUser-Agent: " + field + b"\r\n\r\n"
    http = run_protocol(HTTP1, [("request", head, 0)])  # run_protocol decodes strictly
    redis = run_protocol(REDIS, [("request", b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(data), data), 0)])
    for message in http + redis:
        for value in message["attributes"].values():
            assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in str(value))


def test_valid_text_is_kept_as_it_is(http1: L7Protocol) -> None:
    agent = "Zürich 東京 😀 ok"
    head = f"GET / HTTP/1.1\r\nUser-Agent: {agent}\r\n\r\n".encode()
    assert run_protocol(http1, [("request", head, 0)])[0]["attributes"]["user_agent.original"] == agent
