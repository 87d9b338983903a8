"""Joins spans that carry the same id: traceparent (W3C), b3 (Zipkin), x-request-id. Only what is unique is joined.

Across a hop: the CLIENT span of one process and the SERVER span of another with the same id of the hop, one of each.
Within a process: the CLIENT span and the only SERVER span of that process with the same trace that contains it; a process
that has several SERVER spans of one x-request-id gets no link by it, because some clients send the same one always.
"""

import numpy as np
import numpy.typing as npt

from deeptrace.server.correlate import Links, Rows, joined, links
from deeptrace.server.correlate._joins import candidates, unique_pairs
from deeptrace.server.correlate._window import CLIENT, CONSUMER, PRODUCER, SERVER, Columns, mix

RANK = 20
TOLERANCE_NS = 10 * 10**9  # how far two hosts' clocks may differ
DURATION_TOLERANCE_NS = 10**6  # a server's last write may return after its client has read the answer
KINDS = (
    ("traceparent", "traceparent_trace", "traceparent_hop", 1.0),
    ("b3", "b3_trace", "b3_hop", 1.0),
    ("x-request-id", "request_id", "request_id", 0.99),  # its sender promises nothing about it
)


class Evidence:
    """Remembers nothing."""

    def link(self, spans: Columns, parent: Rows, now_ns: int) -> Links:  # noqa: ARG002 - the interface
        found = []
        taken = parent >= 0  # has a parent
        has_child = np.zeros(len(spans), bool)  # CLIENT spans whose other end is known
        has_child[parent[taken & ((spans["kind"] == SERVER) | (spans["kind"] == CONSUMER))]] = True
        for method, trace, hop, confidence in KINDS:
            if not spans[trace].any():
                continue
            for child, of in (_within(spans, taken, spans[trace], method), _across(spans, taken, has_child, spans[hop])):
                found.append(links(child, of, method, confidence))
                taken[child] = True
        return joined(found)


def _within(spans: Columns, taken: npt.NDArray[np.bool_], trace: npt.NDArray[np.uint64], method: str) -> tuple[Rows, Rows]:
    """(CLIENT rows, their SERVER rows) of one process."""
    known = (trace > 0) & (spans["process"] > 0)
    clients = np.flatnonzero(known & ~taken & ((spans["kind"] == CLIENT) | (spans["kind"] == PRODUCER)))
    servers = np.flatnonzero(known & ((spans["kind"] == SERVER) | (spans["kind"] == CONSUMER)))
    c, s, _ = candidates(mix(trace[clients], spans["process"][clients]), mix(trace[servers], spans["process"][servers]))
    c, s = clients[c], servers[s]
    several = np.bincount(c, minlength=len(spans)) > 1
    inside = (spans["start_ns"][s] <= spans["start_ns"][c]) & (spans["end_ns"][c] <= spans["end_ns"][s])
    if method == "x-request-id":
        inside &= ~several[c]
    c, s = c[inside], s[inside]
    alone = np.bincount(c, minlength=len(spans))[c] == 1
    return c[alone], s[alone]


def _across(
    spans: Columns, taken: npt.NDArray[np.bool_], has_child: npt.NDArray[np.bool_], hop: npt.NDArray[np.uint64]
) -> tuple[Rows, Rows]:
    """(SERVER rows, their CLIENT rows) of different processes."""
    servers = np.flatnonzero((hop > 0) & ~taken & ((spans["kind"] == SERVER) | (spans["kind"] == CONSUMER)))
    clients = np.flatnonzero((hop > 0) & ~has_child & ((spans["kind"] == CLIENT) | (spans["kind"] == PRODUCER)))
    s, c, _ = candidates(hop[servers], hop[clients])
    s, c = servers[s], clients[c]
    near = np.abs(spans["start_ns"][c] - spans["start_ns"][s]) <= TOLERANCE_NS
    near &= (spans["process"][c] != spans["process"][s]) | (spans["process"][c] == 0)
    # Needs no common clock: who serves a call is not busy with it for longer than its caller waits.
    near &= _duration(spans, s) <= _duration(spans, c) + DURATION_TOLERANCE_NS
    s, c = s[near], c[near]
    alone = unique_pairs(s, c)
    return s[alone], c[alone]


def _duration(spans: Columns, rows: Rows) -> npt.NDArray[np.int64]:
    result: npt.NDArray[np.int64] = spans["end_ns"][rows] - spans["start_ns"][rows]
    return result
