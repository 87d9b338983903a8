"""Every vector gives its messages, however its bytes arrive."""

from collections.abc import Iterable
from typing import Any

from deeptrace.core.vectors import run_protocol
from deeptrace.registry import load_protocols


def messages_of(vector: Any, chunks: Iterable[Any]) -> list[dict[str, Any]]:
    return [{"status": 0, **message} for message in run_protocol(vector.protocol, chunks)]


def by_direction(messages: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Requests before responses: which of the two is seen first depends on how the bytes arrive."""
    return sorted(messages, key=lambda message: message["role"])


def test_a_vector_gives_its_messages(vector: Any) -> None:
    assert messages_of(vector, vector.chunks) == list(vector.messages)
    assert vector.origin


def test_a_vector_split_at_any_byte_gives_the_same_messages(vector: Any) -> None:
    for i, (role, data, missing) in enumerate(vector.chunks):
        for at in range(1, len(data)):
            parts = ((role, data[:at], 0), (role, data[at:], missing))
            chunks = [*vector.chunks[:i], *parts, *vector.chunks[i + 1 :]]
            assert by_direction(messages_of(vector, chunks)) == by_direction(vector.messages), f"chunk {i} split at {at}"


def test_a_vector_byte_by_byte_gives_the_same_messages(vector: Any) -> None:
    chunks = []
    for role, data, missing in vector.chunks:
        chunks += [(role, data[at : at + 1], 0) for at in range(len(data) - 1)]
        chunks.append((role, data[-1:], missing))
    assert by_direction(messages_of(vector, chunks)) == by_direction(vector.messages)


def test_no_vector_leaks_a_planted_secret(vector: Any) -> None:
    for message in vector.messages:
        assert "SECRET" not in str(message["attributes"])
        assert not any(f"S{i}" in str(message["attributes"]) for i in range(1, 20))


def test_every_protocol_has_vectors(request: Any) -> None:
    for protocol in load_protocols():
        assert list((request.path.parent / protocol.name).glob("*.yaml")), f"no vectors for {protocol.name}"
