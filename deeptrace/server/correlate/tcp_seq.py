"""Joins the two ends of one call by stream position: both ends of a TCP connection count the same byte with the same number.

`tcp_seq`: positions of the request's and the response's first byte are equal, within TOLERANCE_NS; the two ends' addresses
confirm it or break a tie, but need not agree (address translation). `tcp_seq_request`: one end saw no response; then addresses
and the request's position. Positions that are not proven are never used. Several candidates: no join.
"""

import numpy as np
import numpy.typing as npt

from deeptrace.server.correlate import Links, Rows, joined, links
from deeptrace.server.correlate._joins import candidates, rows_but, unique_pairs
from deeptrace.server.correlate._window import CLIENT, CONSUMER, PRODUCER, SEQ_AMBIGUOUS, SEQ_UNIX, SERVER, Columns, mix

RANK = 10
TOLERANCE_NS = 10 * 10**9  # how far two hosts' clocks may differ; positions of one connection repeat after 4 GiB
REQUEST_CONFIDENCE = 0.999  # addresses and one position: a port reused within ten seconds at the same position is not excluded


class Evidence:
    """Remembers nothing."""

    def link(self, spans: Columns, parent: Rows, now_ns: int) -> Links:  # noqa: ARG002 - the interface
        proven = (spans["seq_space"] > 0) & (spans["seq_space"] != SEQ_UNIX) & (spans["flags"] & SEQ_AMBIGUOUS == 0)
        clients = np.flatnonzero(proven & ((spans["kind"] == CLIENT) | (spans["kind"] == PRODUCER)))
        servers = np.flatnonzero(proven & ((spans["kind"] == SERVER) | (spans["kind"] == CONSUMER)) & (parent < 0))
        exact = _exact(spans, clients, servers)
        clients = rows_but(len(spans), [clients], [exact.parent])
        servers = rows_but(len(spans), [servers], [exact.child])
        return joined([exact, _by_request(spans, clients, servers)])


def _exact(spans: Columns, clients: Rows, servers: Rows) -> Links:
    clients = clients[spans["response_start_ns"][clients] > 0]
    servers = servers[spans["response_start_ns"][servers] > 0]
    positions = _both_positions(spans)
    c, s, given_up = candidates(positions[clients], positions[servers])
    c, s, given = clients[c], servers[s], clients[given_up]
    near = np.abs(spans["start_ns"][c] - spans["start_ns"][s]) <= TOLERANCE_NS
    c, s = c[near], s[near]
    mirrored = spans["tuple"][c] == spans["tuple"][s]
    alone = unique_pairs(c, s)
    # A pair that is one of several counts only if its addresses agree and no other's of either member do.
    confirmed = np.zeros(len(c), bool)
    confirmed[mirrored] = unique_pairs(c[mirrored], s[mirrored])
    chosen = alone | confirmed
    ambiguous = rows_but(len(spans), [c, s, given], [c[chosen], s[chosen]])
    return links(s[chosen], c[chosen], "tcp_seq", 1.0, ambiguous)


def _by_request(spans: Columns, clients: Rows, servers: Rows) -> Links:
    requests = _request_position(spans)
    c, s, given_up = candidates(requests[clients], requests[servers])
    c, s, given = clients[c], servers[s], clients[given_up]
    near = np.abs(spans["start_ns"][c] - spans["start_ns"][s]) <= TOLERANCE_NS
    near &= (spans["response_start_ns"][c] == 0) | (spans["response_start_ns"][s] == 0)
    c, s = c[near], s[near]
    chosen = unique_pairs(c, s)
    ambiguous = rows_but(len(spans), [c[~chosen], s[~chosen], given], [])
    return links(s[chosen], c[chosen], "tcp_seq_request", REQUEST_CONFIDENCE, ambiguous)


def _both_positions(spans: Columns) -> npt.NDArray[np.uint64]:
    positions = spans["req_seq"].astype(np.uint64) << np.uint64(32) | spans["resp_seq"]
    return mix(positions, _stream(spans))


def _request_position(spans: Columns) -> npt.NDArray[np.uint64]:
    return mix(mix(spans["tuple"], spans["req_seq"].astype(np.uint64)), _stream(spans))


def _stream(spans: Columns) -> npt.NDArray[np.uint64]:
    """What else must be equal: the space of the positions and the stream within the connection."""
    result: npt.NDArray[np.uint64] = spans["seq_space"].astype(np.uint64) << np.uint64(32) | spans["stream_id"]
    return result
