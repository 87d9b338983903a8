"""Fixtures of the core's tests; what they build stands in core_traffic.py."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from core_traffic import Run, Traffic


@pytest.fixture
def traffic() -> Traffic:
    return Traffic()


@pytest.fixture
def new_run() -> type[Run]:
    return Run
