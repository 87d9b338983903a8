"""Lets the tests of this folder use the span factory of tests/server."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "server"))
