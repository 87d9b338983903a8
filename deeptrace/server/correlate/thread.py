"""Joins a call to the request that the same thread was serving, where one thread serves one request at a time.

A CLIENT span gets the SERVER span of its process as parent when the same thread read the request, wrote the call, read its answer
and wrote the response, when the call lies inside it, when no other SERVER span was open on that thread at any moment of it, and
when all calls of the thread meanwhile were made one after the other. What contradicts that one thread serves one request (SERVER
spans that overlap on a thread, calls that overlap, calls that stick out of a request or belong to none) is counted per process;
above MAX_WRONG of all, a process gets no links by thread at all: it is an event loop, and guessing there would be wrong.
"""

import numpy as np
import numpy.typing as npt

from deeptrace.server.correlate import Links, Rows, links
from deeptrace.server.correlate._joins import distinct
from deeptrace.server.correlate._threads import Keys, Learned, Threads, n_covering, overlapped, rows_where
from deeptrace.server.correlate._window import CLIENT, INCOMPLETE, PRODUCER, SERVER, Columns

RANK = 30
MAX_WRONG = 0.02  # share of contradictions that a thread-per-request process may show (pipelining, calls after the response)
PRIOR_RIGHT, PRIOR_ALL = 19.0, 20.0  # before anything is learned the assumption holds with 0.95; measured where it holds: 0.997-1


class Evidence:
    """Remembers per process how often the assumption was contradicted."""

    def __init__(self) -> None:
        self._learned = Learned()

    def link(self, spans: Columns, parent: Rows, now_ns: int) -> Links:
        self._learned.fade(now_ns)
        view = _View(spans)
        if len(view.servers) == 0 or len(view.clients) == 0:
            return Links()
        fits, server, right, wrong = view.judge()
        process = spans["process"]
        n_right, n_wrong = self._learned.weigh(spans, view.processes, right, wrong)
        trusted = n_wrong <= MAX_WRONG * (n_right + n_wrong)
        confidence = (n_right + PRIOR_RIGHT) / (n_right + n_wrong + PRIOR_ALL)
        which = np.searchsorted(view.processes, process[view.clients])
        chosen = fits & trusted[which] & (parent[view.clients] < 0)
        return links(view.clients[chosen], server[chosen], "thread", confidence[which[chosen]])


class _View:
    """The SERVER and CLIENT spans of a window as intervals on threads."""

    def __init__(self, spans: Columns) -> None:
        self.spans = spans
        threads = Threads(spans["process"], spans["end_ns"], spans["req_tid"])
        self.n_threads = threads.n
        known = threads.known[0]
        self.servers = rows_where(known & (spans["kind"] == SERVER))
        self.clients = rows_where(known & ((spans["kind"] == CLIENT) | (spans["kind"] == PRODUCER)))
        self.processes = distinct(spans["process"][self.clients])
        self.start: Keys = threads.key(0, spans["start_ns"])
        self.end: Keys = threads.key(0, spans["end_ns"])
        self.thread = threads.numbers[0]
        # one thread from the first byte to the last
        self.one_thread = (spans["response_start_ns"] > 0) & (spans["resp_tid"] == spans["req_tid"])

    def judge(self) -> tuple[npt.NDArray[np.bool_], Rows, Rows, Rows]:
        """(which clients fit, their server rows, rows that speak for the assumption, rows that contradict it)."""
        spans, clients, servers = self.spans, self.clients, self.servers
        shared = overlapped(self.start[servers], self.end[servers])
        order = servers[np.argsort(self.start[servers], kind="stable")]
        is_shared = np.zeros(len(spans), bool)
        is_shared[servers] = shared
        at = np.searchsorted(self.start[order], self.start[clients], "right") - 1
        server = order[np.maximum(at, 0)]
        open_now = (at >= 0) & (self.thread[server] == self.thread[clients]) & (self.start[clients] <= self.end[server])
        inside = open_now & (self.end[clients] <= self.end[server])
        tangled = self._tangled()
        sticks_out = self._sticks_out(open_now, inside)
        is_dirty = np.zeros(len(spans), bool)  # requests with a call that does not fit the assumption
        is_dirty[server[open_now & (tangled | ~inside)]] = True
        is_dirty[order[self._crossed(order, clients[sticks_out])]] = True
        fits = inside & self.one_thread[server] & self.one_thread[clients] & ~is_shared[server] & ~is_dirty[server]
        fits &= self._connected_inside(server)
        serves = np.zeros(self.n_threads, bool)
        serves[self.thread[servers]] = True
        serving = serves[self.thread[clients]]
        orphan = serving & ~inside & (n_covering(self.start[clients], self.start[servers], self.end[servers]) == 0)
        contradicts = np.zeros(len(spans), bool)
        contradicts[servers[shared]] = True
        contradicts |= is_dirty
        contradicts &= spans["flags"] & INCOMPLETE == 0  # an abandoned request says nothing about its thread
        # A call may wait for its request to end and arrive; only after the settling time does it count as belonging to none.
        contradicts[clients[orphan & (spans["settled"][clients] > 0)]] = True
        wrong = rows_where(contradicts)
        return fits, server, clients[fits], wrong

    def _tangled(self) -> npt.NDArray[np.bool_]:
        """Which clients overlap another call of the same thread on another connection. Pipelined calls of one connection are
        one after the other in the eyes of the thread."""
        clients = self.clients
        order = np.argsort(self.start[clients], kind="stable")
        rows = clients[order]
        start, end, connection = self.start[rows], self.end[rows], self.spans["connection"][rows]
        meets = np.zeros(len(rows), bool)
        for step in range(1, 9):  # deeper overlaps contain one of these pairs
            if len(rows) <= step:
                break
            pair = (start[step:] < end[:-step]) & (connection[step:] != connection[:-step])
            meets[step:] |= pair
            meets[:-step] |= pair
        result = np.zeros(len(rows), bool)
        result[order] = meets
        return result

    def _sticks_out(self, open_now: npt.NDArray[np.bool_], inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Which clients begin before or end after the request that they overlap."""
        servers, clients = self.servers, self.clients
        begins_in = n_covering(self.start[clients], self.start[servers], self.end[servers]) > 0
        ends_in = n_covering(self.end[clients], self.start[servers], self.end[servers]) > 0
        result: npt.NDArray[np.bool_] = (open_now & ~inside) | (~begins_in & ends_in) | (begins_in & ~inside)
        return result

    def _crossed(self, order: Rows, clients: Rows) -> npt.NDArray[np.bool_]:
        """Which servers (rows `order`) have an end of one of these clients' intervals inside."""
        points = np.sort(np.concatenate([self.start[clients], self.end[clients]]))
        n = np.searchsorted(points, self.end[order], "right") - np.searchsorted(points, self.start[order], "left")
        result: npt.NDArray[np.bool_] = n > 0
        return result

    def _connected_inside(self, server: Rows) -> npt.NDArray[np.bool_]:
        """Whether a connection that was made for the call was made by the same thread."""
        spans, clients = self.spans, self.clients
        during = spans["connect_ns"][clients] >= spans["start_ns"][server]
        result: npt.NDArray[np.bool_] = ~during | (spans["connect_tid"][clients] == spans["req_tid"][clients])
        return result
