"""Runs the assembler over spans as they would arrive and keeps what was published last."""

from dataclasses import dataclass, field

import numpy as np

from deeptrace.model import SpanBatch
from deeptrace.server.assemble import Assembler, trace_ids
from deeptrace.server.correlate import METHODS
from deeptrace.server.correlate._window import rows_of

SETTLE_NS = 10 * 10**9


@dataclass
class Published:
    """By span id: parent (0: none), method, confidence, trace id."""

    parent: dict[int, int] = field(default_factory=dict)
    method: dict[int, str] = field(default_factory=dict)
    confidence: dict[int, float] = field(default_factory=dict)
    trace: dict[int, str] = field(default_factory=dict)
    n_linked: int = 0
    n_ambiguous: int = 0
    assembler: Assembler = field(default_factory=lambda: Assembler(SETTLE_NS))


def publish(
    batch: SpanBatch, *, delays_ns: "np.ndarray | None" = None, kept: "np.ndarray | None" = None, tick_ns: int = 500_000_000
) -> Published:  # type: ignore[type-arg]
    """Feed the spans in the order in which they end (plus delays_ns each), in ticks, until all have settled."""
    result = Published()
    rows = rows_of(batch, 1, 0)
    rows["arrived_ns"] = rows["end_ns"] + (0 if delays_ns is None else delays_ns)
    rows = rows if kept is None else rows[kept]
    rows = rows[np.argsort(rows["arrived_ns"], kind="stable")]
    now, end, at = int(rows["arrived_ns"][0]), int(rows["arrived_ns"][-1]) + 2 * SETTLE_NS, 0
    while now < end:
        now += tick_ns
        until = int(np.searchsorted(rows["arrived_ns"], now, "right"))
        changes = result.assembler.step([rows[at:until].copy()], now)
        at = until
        result.n_linked += changes.n_linked
        result.n_ambiguous += changes.n_ambiguous
        assert np.array_equal(changes.trace_ids, trace_ids(changes.spans["root_id"]))
        for span, trace in zip(changes.spans, changes.trace_ids, strict=True):
            span_id = int(span["span_id"])
            result.parent[span_id], result.method[span_id] = int(span["parent_id"]), METHODS[span["method"]]
            result.confidence[span_id], result.trace[span_id] = float(span["confidence"]), trace.tobytes().hex()
    return result
