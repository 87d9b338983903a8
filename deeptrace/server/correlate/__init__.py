"""Evidence about which span caused which, one file per kind. Pure: arrays in, links out; time is an argument; no clock, no store.

A module here whose name does not begin with "_" holds one kind of evidence: `RANK` (the smaller, the stronger) and
`Evidence`, a class without arguments. A link of stronger evidence is never replaced by one of weaker evidence.
"""

import importlib
import pkgutil
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from deeptrace.server.correlate._window import Columns

Rows = npt.NDArray[np.int64]  # row numbers in the window
METHODS = ("", "tcp_seq", "tcp_seq_request", "traceparent", "b3", "x-request-id", "thread", "thread_adjacent", "unix_fifo")


def _no_rows() -> Rows:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Links:
    """child[i] has the parent parent[i]; method: number in METHODS; confidence: 0..1. ambiguous: rows with several candidates."""

    child: Rows = field(default_factory=_no_rows)
    parent: Rows = field(default_factory=_no_rows)
    method: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    confidence: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    ambiguous: Rows = field(default_factory=_no_rows)


def links(
    child: Rows, parent: Rows, method: str, confidence: float | npt.NDArray[np.float64] = 1.0, ambiguous: Rows | None = None
) -> Links:
    """Links that share a method."""
    n = len(child)
    return Links(
        child,
        parent,
        np.full(n, METHODS.index(method), np.uint8),
        np.broadcast_to(np.asarray(confidence, np.float32), n),
        _no_rows() if ambiguous is None else ambiguous,
    )


def joined(parts: list[Links]) -> Links:
    """Several results as one."""
    if not parts:
        return Links()
    return Links(
        np.concatenate([p.child for p in parts]),
        np.concatenate([p.parent for p in parts]),
        np.concatenate([p.method for p in parts]),
        np.concatenate([p.confidence for p in parts]),
        np.concatenate([p.ambiguous for p in parts]),
    )


class Evidence(Protocol):
    """One kind of evidence. It may learn from window to window; equal calls in equal order give equal results."""

    def link(self, spans: Columns, parent: Rows, now_ns: int) -> Links:
        """Find parents. spans: the columns of WINDOW_DTYPE, any order; parent (n,): row of the parent by stronger evidence or -1
        (not to be changed); now_ns: arrival time of the newest span."""


def evidence() -> list[Evidence]:
    """One object of each kind, the strongest first."""
    found = []
    for name in sorted(info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_")):
        module = importlib.import_module(f"{__name__}.{name}")
        found.append((module.RANK, module.Evidence()))
    return [kind for _, kind in sorted(found, key=lambda pair: pair[0])]
