"""Joins calls to requests in event loops that finish what they begin (nginx): by what stands next to what on a thread.

A thread's events in order of time: R a request was read, C a call was sent (or its connection begun), A its answer was read, W a
response was written. Such a loop reacts to an event at once, so R is directly followed by the first C of its request, A by the
next C or by W. A call belongs to a request only if the chain of neighbours reaches the request's R backwards AND its W forwards.
One side alone links nothing. Moreover nothing near may contradict: each other request that was open on the thread when the call
was made must itself be explained (R directly followed by its own W or by a call of a whole chain), and each call that was made
while the request was open must lie on a whole chain. The share of what is explained is learned per process; below MIN_SHARE, or
before there are enough, the process gets no such links at all: an asyncio service interleaves and fails this.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deeptrace.server.correlate import Links, Rows, links
from deeptrace.server.correlate._joins import distinct
from deeptrace.server.correlate._threads import TIME_BITS, Keys, Learned, Threads, n_covering, n_points_in, rows_where
from deeptrace.server.correlate._window import CLIENT, PRODUCER, SERVER, Columns

RANK = 40
MIN_SHARE = 0.98  # of explained spans, add-one smoothed: 48 without a contradiction are the least that reach it
MAX_CHAIN_BITS = 12  # calls of one request that are followed: 4096
GRACE_NS = 2 * 10**9  # spans younger than this may wait for their neighbours: they are not held against the process

READ, CALL, SENT, ANSWER, WRITE = 1, 2, 3, 4, 5  # SENT: first write of a call whose event is its connect


class Evidence:
    """Remembers per process how often the assumption held."""

    def __init__(self) -> None:
        self._learned = Learned()

    def link(self, spans: Columns, parent: Rows, now_ns: int) -> Links:
        self._learned.fade(now_ns)
        known = spans["process"] > 0
        servers = rows_where(known & (spans["kind"] == SERVER) & (spans["req_tid"] > 0))
        clients = rows_where(known & ((spans["kind"] == CLIENT) | (spans["kind"] == PRODUCER)) & (spans["req_tid"] > 0))
        if len(servers) == 0 or len(clients) == 0:
            return Links()
        view = _View(spans, servers, clients)
        serves = np.zeros(view.n_threads, bool)
        serves[view.read_thread[servers]] = True
        clients = clients[serves[view.call_thread[clients]]]
        chains = view.chains()
        head_ok = view.heads(chains)
        # Judged: what is old enough to have its neighbours here.
        old = spans["arrived_ns"] <= now_ns - GRACE_NS
        good = np.concatenate([clients[chains.whole[clients]], servers[head_ok[servers]]])
        bad = np.concatenate([clients[~chains.whole[clients]], servers[~head_ok[servers]]])
        processes = distinct(spans["process"][clients])
        n_right, n_wrong = self._learned.weigh(spans, processes, good[old[good]], bad[old[bad]])
        share = (n_right + 1) / (n_right + n_wrong + 2)
        which = np.searchsorted(processes, spans["process"][clients])
        chosen = chains.whole[clients] & (share >= MIN_SHARE)[which] & (parent[clients] < 0)
        chosen &= view.undisputed(clients, chains, head_ok)
        rows = clients[chosen]
        return links(rows, chains.head[rows], "thread_adjacent", share[which[chosen]])


@dataclass(frozen=True)
class _Chains:
    """Per row of the window. head, tail: the request that a call's chain reaches, or -1; whole: both are the same one."""

    head: Rows
    tail: Rows
    whole: npt.NDArray[np.bool_]


class _View:
    """The events of a window in order, and who stands next to whom."""

    def __init__(self, spans: Columns, servers: Rows, clients: Rows) -> None:
        self.spans, self.servers, self.clients = spans, servers, clients
        connected = (spans["connect_ns"] > 0) & (spans["connect_tid"] > 0)
        call_tid = np.where(connected, spans["connect_tid"], spans["req_tid"]).astype(np.uint32)
        threads = Threads(spans["process"], spans["end_ns"], spans["req_tid"], spans["resp_tid"], call_tid)
        call_ns = np.where(connected, spans["connect_ns"], spans["start_ns"])
        self.n_threads = threads.n
        self.read_thread, self.call_thread = threads.numbers[0], threads.numbers[2]
        self.read: Keys = threads.key(0, spans["start_ns"])
        self.call: Keys = threads.key(2, call_ns)
        self.end: Keys = threads.key(0, spans["end_ns"])
        answered = (spans["response_start_ns"] > 0) & (spans["resp_tid"] > 0)
        late_body = servers[spans["request_end_ns"][servers] > spans["start_ns"][servers]]
        parts = [
            (READ, servers, self.read[servers]),
            (READ, late_body, threads.key(0, spans["request_end_ns"])[late_body]),
            (WRITE, servers[answered[servers]], threads.key(1, spans["response_start_ns"])[servers[answered[servers]]]),
            (CALL, clients, self.call[clients]),
            (SENT, clients[connected[clients]], threads.key(0, spans["start_ns"])[clients[connected[clients]]]),
        ]
        answers = clients[answered[clients]]
        more = answers[spans["end_ns"][answers] > spans["response_start_ns"][answers]]
        parts.append((ANSWER, answers, threads.key(1, spans["response_start_ns"])[answers]))
        parts.append((ANSWER, more, threads.key(1, spans["end_ns"])[more]))
        keys = np.concatenate([key for _, _, key in parts])
        order = np.argsort(keys, kind="stable")
        self.thread = keys[order] >> TIME_BITS
        self.what = np.concatenate([np.full(len(rows), what, np.uint8) for what, rows, _ in parts])[order]
        self.owner = np.concatenate([rows for _, rows, _ in parts])[order]

    def chains(self) -> _Chains:
        """Follow the neighbours of all calls in both directions."""
        n = len(self.spans)
        what, owner = self.what, self.owner
        same = self.thread[1:] == self.thread[:-1]
        before, after = np.flatnonzero(same), np.flatnonzero(same) + 1
        back_call, back_head = np.full(n, -1), np.full(n, -1)
        to_call = what[after] == CALL
        from_read, from_answer = what[before] == READ, what[before] == ANSWER
        back_head[owner[after[to_call & from_read]]] = owner[before[to_call & from_read]]
        back_call[owner[after[to_call & from_answer]]] = owner[before[to_call & from_answer]]
        ahead_call = self._agreed(owner[before[to_call & from_answer]], owner[after[to_call & from_answer]])
        to_write = from_answer & (what[after] == WRITE)
        ahead_head = self._agreed(owner[before[to_write]], owner[after[to_write]])
        torn = (ahead_call >= 0) & (ahead_head >= 0)  # its answer's two reads point to different places
        ahead_call[torn | (ahead_call == -2)] = -1
        ahead_head[torn | (ahead_head == -2)] = -1
        # a link between two calls holds only if both say so
        calls = rows_where(back_call >= 0)
        back_call[calls[ahead_call[back_call[calls]] != calls]] = -1
        calls = rows_where(ahead_call >= 0)
        ahead_call[calls[back_call[ahead_call[calls]] != calls]] = -1
        head, tail = _follow(back_call, back_head), _follow(ahead_call, ahead_head)
        whole = (head >= 0) & (head == tail)
        spans = self.spans
        rows = rows_where(whole)
        of = head[rows]
        inside = (spans["start_ns"][of] <= spans["start_ns"][rows]) & (spans["end_ns"][rows] <= spans["end_ns"][of])
        whole[rows[~inside]] = False
        return _Chains(head, tail, whole)

    def heads(self, chains: _Chains) -> npt.NDArray[np.bool_]:
        """Which requests are explained: their read is directly followed by their own write or by the first call of a whole
        chain of theirs."""
        what, owner = self.what, self.owner
        explained = np.zeros(len(self.spans), bool)
        same = self.thread[1:] == self.thread[:-1]
        before, after = np.flatnonzero(same), np.flatnonzero(same) + 1
        reads = what[before] == READ
        own_write = reads & (what[after] == WRITE) & (owner[after] == owner[before])
        own_call = reads & (what[after] == CALL)
        own_call &= chains.whole[owner[after]] & (chains.head[owner[after]] == owner[before])
        explained[owner[before[own_write | own_call]]] = True
        return explained

    def undisputed(self, calls: Rows, chains: _Chains, head_ok: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Which of the calls have no unexplained request around them and no broken chain within their request."""
        unexplained = self.servers[~head_ok[self.servers]]
        doubtful = n_covering(self.call[calls], self.read[unexplained], self.end[unexplained]) > 0
        broken = self.clients[~chains.whole[self.clients]]
        head = np.maximum(chains.head[calls], 0)
        doubtful |= n_points_in(self.read[head], self.end[head], self.call[broken]) > 0
        result: npt.NDArray[np.bool_] = ~doubtful & (chains.head[calls] >= 0)
        return result

    def _agreed(self, rows: Rows, targets: Rows) -> Rows:
        """targets by row, -1 where there is none, -2 where a row has two that differ."""
        result = np.full(len(self.spans), -1)
        result[rows] = targets
        result[rows[result[rows] != targets]] = -2
        return result


def _follow(step: Rows, goal: Rows) -> Rows:
    """From each row along `step` (-1: stop) to the first row with a goal; that goal, or -1. By pointer doubling."""
    itself = np.arange(len(step))
    at = np.where((goal >= 0) | (step < 0), itself, step)
    for _ in range(MAX_CHAIN_BITS):
        at = at[at]
    return goal[at]
