"""Gives each test a folder, a way to start things, and the certainty that they are stopped. All tests here need the kernel."""

import pathlib
import sys
from collections.abc import Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from running import Started


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if pathlib.Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.kernel)


@pytest.fixture
def started(tmp_path: pathlib.Path) -> Iterator[Started]:
    started = Started(tmp_path)
    with started.stack:
        yield started
