"""Protocols are found by listing their package; each has what its users rely on."""

import pathlib
from importlib.metadata import EntryPoint

import pytest

from deeptrace import registry
from deeptrace.errors import DeepTraceError
from deeptrace.model import PROTOCOL_NAMES

SOURCES = pathlib.Path(__file__).parents[2] / "ext" / "protocols"


def test_every_source_is_a_protocol_of_its_own_name() -> None:
    assert {p.name for p in registry.load_protocols()} == {path.stem for path in SOURCES.glob("*.pyx")}


def test_numbers_are_those_that_spans_are_read_with() -> None:
    protocols = registry.load_protocols()
    assert [p.id for p in protocols] == sorted({p.id for p in protocols})
    assert all(PROTOCOL_NAMES[p.id] == p.name for p in protocols)


def test_an_outsider_joins_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry_points(*, group: str) -> list[EntryPoint]:
        return [EntryPoint("x", "deeptrace.protocols:__doc__", group)]

    monkeypatch.setattr(registry.importlib.metadata, "entry_points", entry_points)
    with pytest.raises(DeepTraceError, match="no L7Protocol"):
        registry.load_protocols.__wrapped__()


def test_two_protocols_with_one_number_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry_points(*, group: str) -> list[EntryPoint]:
        return [EntryPoint("x", "deeptrace.protocols.redis:PROTOCOL", group)]

    monkeypatch.setattr(registry.importlib.metadata, "entry_points", entry_points)
    with pytest.raises(DeepTraceError, match="both have the number 3"):
        registry.load_protocols.__wrapped__()


def test_ports_are_ports() -> None:
    for protocol in registry.load_protocols():
        assert all(0 < port < 65536 for port in protocol.ports)
