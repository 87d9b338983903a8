"""Joins the two ends of one call over a unix socket: the sockets name each other, one host's clock orders what passed between them.

Where both ends were seen from the first byte, their positions are equal, and that is proof. An end that was joined under way
counts from where it began to look, so positions of the two ends differ by a constant: it is learned from requests that found the
connection idle, of which the first one read is certainly the first one written, and which agree in size. A connection whose
requests do not agree on one constant, and requests that were never seen alone, are not joined. Two calls of one key and one
position are told apart by time: the same two addresses of sockets may be another connection a moment later.
"""

import numpy as np
import numpy.typing as npt

from deeptrace.server.correlate import Links, Rows, links
from deeptrace.server.correlate._joins import rows_but
from deeptrace.server.correlate._window import CLIENT, CONSUMER, MID_STREAM, PRODUCER, SEQ_AMBIGUOUS, SEQ_UNIX, SERVER, Columns, mix

RANK = 11
FIFO_CONFIDENCE = 0.99  # a span that is missing at one end, at the moment when the constant is learned, is not excluded
CLOCK_NS = 1_000_000  # one clock at both ends; but it is read anew each second to make Unix time of it

U64 = npt.NDArray[np.uint64]


class Evidence:
    """Remembers nothing."""

    def link(self, spans: Columns, parent: Rows, now_ns: int) -> Links:  # noqa: ARG002 - the interface
        usable = (spans["seq_space"] == SEQ_UNIX) & (spans["flags"] & SEQ_AMBIGUOUS == 0)
        if not usable.any():
            return Links()
        clients = np.flatnonzero(usable & ((spans["kind"] == CLIENT) | (spans["kind"] == PRODUCER)))
        servers = np.flatnonzero(usable & ((spans["kind"] == SERVER) | (spans["kind"] == CONSUMER)))
        clients, servers = _of_both(spans, clients, servers)
        joined = usable & (spans["flags"] & MID_STREAM > 0)
        late = usable & np.isin(spans["tuple"], np.unique(spans["tuple"][joined]))  # an end of it was joined under way
        shift, known = _learned(spans, clients[late[clients]], servers[late[servers]])
        known |= ~late
        clients, servers = clients[known[clients]], servers[known[servers] & (parent[servers] < 0)]
        child, of, ambiguous = _by_position(spans, clients, servers, shift)
        confidence = np.where(late[child], FIFO_CONFIDENCE, 1.0)
        return links(child, of, "unix_fifo", confidence, rows_but(len(spans), [ambiguous], [child, of]))


def _of_both(spans: Columns, clients: Rows, servers: Rows) -> tuple[Rows, Rows]:
    """Those whose other end is in the window at all."""
    key = spans["tuple"]
    return clients[np.isin(key[clients], key[servers])], servers[np.isin(key[servers], key[clients])]


def _learned(spans: Columns, clients: Rows, servers: Rows) -> tuple[U64, npt.NDArray[np.bool_]]:
    """(what to add to a server's positions, request in the high half, response in the low one; for which rows it is known)."""
    shift, known = np.zeros(len(spans), np.uint64), np.zeros(len(spans), bool)
    if len(clients) == 0 or len(servers) == 0:
        return shift, known
    c, s = _alone(spans, clients, servers)
    difference = _pack(spans["req_seq"][c] - spans["req_seq"][s], spans["resp_seq"][c] - spans["resp_seq"][s])
    pair = mix(spans["connection"][c], spans["connection"][s])
    # One constant per pair of ends, or the one that most requests agree on.
    order = np.lexsort((difference, pair))
    pair, difference, c, s = pair[order], difference[order], c[order], s[order]
    new_pair = np.ones(len(pair), bool)
    new_pair[1:] = pair[1:] != pair[:-1]
    new_run = new_pair.copy()
    new_run[1:] |= difference[1:] != difference[:-1]
    first = np.flatnonzero(new_run)
    votes = np.diff(np.append(first, len(pair)))
    group = np.cumsum(new_pair) - 1
    total = np.bincount(group)
    wins = first[votes * 2 > total[group[first]]]
    for rows, of in ((clients, c), (servers, s)):
        _spread(spans["connection"], rows, of[wins], difference[wins], shift, known)
    return shift, known


def _spread(connection: U64, rows: Rows, winners: Rows, difference: U64, shift: U64, known: npt.NDArray[np.bool_]) -> None:
    """Give all rows of a connection the constant of its one row among the winners."""
    ends, first = np.unique(connection[winners], return_index=True)
    if len(ends) == 0:
        return
    at = np.minimum(np.searchsorted(ends, connection[rows]), len(ends) - 1)
    found = ends[at] == connection[rows]
    shift[rows[found]] = difference[first[at[found]]]
    known[rows[found]] = True


def _alone(spans: Columns, clients: Rows, servers: Rows) -> tuple[Rows, Rows]:
    """(client, server) rows of requests that found their connection idle: the first of a burst at both ends, equal in size."""
    key, start, end = spans["tuple"], spans["start_ns"], spans["end_ns"]
    clients = clients[np.lexsort((spans["req_seq"][clients], start[clients], key[clients]))]
    idle = np.ones(len(clients), bool)
    same = key[clients[1:]] == key[clients[:-1]]
    idle[1:] = ~same | (start[clients[1:]] >= _highest_so_far(end[clients], same)[:-1])
    first = clients[idle]
    servers = servers[np.lexsort((spans["req_seq"][servers], start[servers], key[servers]))]
    at = _position(key[servers], start[servers], key[first], start[first])
    fits = at < len(servers)
    first, served = first[fits], servers[at[fits]]
    fits = (key[first] == key[served]) & _contains(spans, first, served)
    fits &= (spans["request_bytes"][first] == spans["request_bytes"][served]) & (spans["response_start_ns"][first] > 0)
    fits &= (spans["response_bytes"][first] == spans["response_bytes"][served]) & (spans["response_start_ns"][served] > 0)
    return first[fits], served[fits]


def _by_position(spans: Columns, clients: Rows, servers: Rows, shift: U64) -> tuple[Rows, Rows, Rows]:
    """(servers, their clients, rows with more than one possibility): equal positions, and the later end inside the earlier one."""
    if len(clients) == 0 or len(servers) == 0:
        return clients[:0], clients[:0], clients[:0]
    at_client = mix(spans["tuple"][clients], spans["req_seq"][clients].astype(np.uint64))
    moved = spans["req_seq"][servers] + (shift[servers] >> np.uint64(32)).astype(np.uint32)
    at_server = mix(spans["tuple"][servers], moved.astype(np.uint64))
    start = spans["start_ns"]
    order = np.lexsort((start[clients], at_client))
    clients, at_client = clients[order], at_client[order]
    found_c: list[Rows] = []
    found_s: list[Rows] = []
    # The newest client that began before the server did; where two readings of the clock are in between, the next one.
    last = _position(at_client, start[clients], at_server, start[servers] + 1) - 1
    for at in (last, last + 1):
        inside = (at >= 0) & (at < len(clients))
        row = clients[np.clip(at, 0, len(clients) - 1)]
        fits = inside & (at_client[np.clip(at, 0, len(clients) - 1)] == at_server) & _contains(spans, row, servers)
        fits &= _same_response(spans, row, servers, shift)
        if len(found_s):
            fits &= ~np.isin(servers, found_s[0])
        found_c.append(row[fits])
        found_s.append(servers[fits])
    c, s = np.concatenate(found_c), np.concatenate(found_s)
    twice = np.bincount(c, minlength=len(spans))[c] > 1
    return s[~twice], c[~twice], np.concatenate([c[twice], s[twice]])


def _contains(spans: Columns, clients: Rows, servers: Rows) -> npt.NDArray[np.bool_]:
    """Whether what the server did lies within what the client waited for."""
    result = spans["start_ns"][servers] >= spans["start_ns"][clients] - CLOCK_NS
    result &= spans["start_ns"][servers] <= spans["end_ns"][clients] + CLOCK_NS
    both = (spans["response_start_ns"][clients] > 0) & (spans["response_start_ns"][servers] > 0)
    result &= ~both | (spans["response_start_ns"][servers] <= spans["response_start_ns"][clients] + CLOCK_NS)
    return result


def _same_response(spans: Columns, clients: Rows, servers: Rows, shift: U64) -> npt.NDArray[np.bool_]:
    """Whether the responses stand at one position, or one end has none."""
    both = (spans["response_start_ns"][clients] > 0) & (spans["response_start_ns"][servers] > 0)
    moved = spans["resp_seq"][servers] + shift[servers].astype(np.uint32)
    result: npt.NDArray[np.bool_] = ~both | (spans["resp_seq"][clients] == moved)
    return result


def _pack(high: npt.NDArray[np.uint32], low: npt.NDArray[np.uint32]) -> U64:
    result: U64 = high.astype(np.uint64) << np.uint64(32) | low
    return result


def _position(keys: U64, times: npt.NDArray[np.int64], key: U64, time: npt.NDArray[np.int64]) -> Rows:
    """Where (key, time) would stand in (keys, times), which are sorted: before all that are equal or greater."""
    n = len(keys)
    order = np.lexsort((np.concatenate([np.ones(n, np.int8), np.zeros(len(key), np.int8)]), np.concatenate([times, time]),
                        np.concatenate([keys, key])))  # fmt: skip
    is_asked = order >= n
    before = np.cumsum(~is_asked)
    result = np.zeros(len(key), np.int64)
    result[order[is_asked] - n] = before[is_asked]
    return result


def _highest_so_far(values: npt.NDArray[np.int64], same: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Running maximum within each group; same[i]: whether row i + 1 is of the group of row i."""
    group = np.concatenate([[0], np.cumsum(~same)])
    rank = np.argsort(np.argsort(values, kind="stable"), kind="stable")  # so that groups can be told apart in one number
    highest = np.maximum.accumulate(group * len(values) + rank) - group * len(values)
    result: npt.NDArray[np.int64] = np.sort(values)[highest]
    return result
