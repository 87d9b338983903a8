"""Vectors of the protocols: tests/protocols/<name>/*.yaml, found by listing the folders."""

import pathlib
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from deeptrace.core.proto import L7Protocol
from deeptrace.registry import load_protocols

FOLDER = pathlib.Path(__file__).parent
PROTOCOLS = {protocol.name: protocol for protocol in load_protocols()}

Chunk = tuple[str, bytes, int]  # role, data, bytes not captured behind it


@dataclass(frozen=True)
class Vector:
    """One file: what is given (chunks in order) and the messages that it holds."""

    name: str
    protocol: L7Protocol
    origin: str
    chunks: tuple[Chunk, ...]
    messages: tuple[dict[str, Any], ...]


def read_vector(path: pathlib.Path) -> Vector:
    text = yaml.safe_load(path.read_text("utf-8"))
    chunks = []
    for given in text["given"]:
        role = "request" if "request" in given else "response"
        chunks.append((role, given[role].encode("latin-1"), given.get("missing", 0)))
    messages = tuple({"status": 0, "flags": [], "attributes": {}, **message} for message in text["messages"])
    return Vector(f"{path.parent.name}/{path.stem}", PROTOCOLS[path.parent.name], text["origin"], tuple(chunks), messages)


def all_vectors() -> list[Vector]:
    return [read_vector(path) for path in sorted(FOLDER.glob("*/*.yaml"))]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "vector" in metafunc.fixturenames:
        vectors = all_vectors()
        metafunc.parametrize("vector", vectors, ids=[v.name for v in vectors])


@pytest.fixture(scope="session")
def http1() -> L7Protocol:
    return PROTOCOLS["http1"]


@pytest.fixture(scope="session")
def redis() -> L7Protocol:
    return PROTOCOLS["redis"]
