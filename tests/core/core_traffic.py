"""Builds synthetic records, as the probes would emit them, and runs them through a pipeline."""

import random
import socket as sockets

import numpy as np
from deeptrace.protocols.http1 import PROTOCOL as HTTP1
from deeptrace.protocols.redis import PROTOCOL as REDIS

from deeptrace import ledger
from deeptrace.core.batch import Batch
from deeptrace.core.counters import Counters
from deeptrace.core.pipeline import Pipeline, SpanRows
from deeptrace.core.wire import ATTRIBUTE_ROWS, RECORD_DTYPE
from deeptrace.counters import by_name

INGRESS, EGRESS = 0, 1
DATA, CONN, PROC = 1, 2, 3
CONNECT, ACCEPT, PEER_CLOSED, CLOSED = 1, 2, 3, 4
EXIT = 3
SEQ_VALID, AMBIGUOUS, PEEK, TRUNCATED, ENTER_MISSED, FIRST, FRESH = 0x1, 0x2, 0x4, 0x8, 0x20, 0x40, 0x80
COUNTED, URING = 0x100, 0x200
TCP, UDP, UNIX = 6, 17, 0
US, MS, S = 1_000, 1_000_000, 1_000_000_000
START = 1_000 * S
ATTRIBUTES = {row[0]: (row[2], row[3]) for row in ATTRIBUTE_ROWS}


def address(socket: int) -> int:
    """Where a socket's struct sock stands."""
    return 0xFFFF000000000000 + socket * 64


class Connection:
    """One end of a connection: knows its stream positions."""

    def __init__(self, traffic: "Traffic", *, socket: int, local_port: int, peer_port: int, tgid: int, fresh: bool) -> None:
        self.traffic, self.socket, self.tgid, self.fresh = traffic, socket, tgid, fresh
        self.local_port, self.peer_port = local_port, peer_port
        self.next = [0xFFFFFF00 + socket, 0x7FFFFF00 + socket]  # wraps soon
        self.seen = [False, False]
        self.l4, self.peer = TCP, 0

    def _record(self, kind: int, code: int, *, enter_ns: int, exit_ns: int, tid: int | None, payload: bytes = b"", **fields: int):
        row = np.zeros((), RECORD_DTYPE)
        row["enter_ns"], row["exit_ns"], row["socket"] = enter_ns, exit_ns, address(self.socket)
        quintuple = row["tuple"]
        l4 = fields.pop("l4", self.l4)
        if l4 == UNIX:
            quintuple["local_addr"][:8] = list(address(self.socket).to_bytes(8, "little"))
            quintuple["peer_addr"][:8] = list((address(self.peer) if self.peer else 0).to_bytes(8, "little"))
        else:
            quintuple["local_addr"][:] = list(sockets.inet_pton(sockets.AF_INET6, "::ffff:10.0.0.1"))
            quintuple["peer_addr"][:] = list(sockets.inet_pton(sockets.AF_INET6, "::ffff:10.0.0.2"))
            quintuple["local_port"], quintuple["peer_port"] = self.local_port, self.peer_port
        quintuple["family"], quintuple["l4_protocol"] = 1 if l4 == UNIX else 2, l4
        row["netns"], row["tgid"], row["tid"] = 4026531840, self.tgid, self.tgid if tid is None else tid
        row["kind"], row["code"], row["payload_len"] = kind, code, len(payload)
        for name, value in fields.items():
            row[name] = value
        self.traffic.add(row, payload)

    def connect(self, *, at: int, tid: int | None = None) -> None:
        self._record(CONN, CONNECT, enter_ns=at - US, exit_ns=at, tid=tid)

    def accept(self, *, at: int) -> None:
        self._record(CONN, ACCEPT, enter_ns=at - US, exit_ns=at, tid=None)

    def peer_closed(self, *, at: int) -> None:
        self._record(CONN, PEER_CLOSED, enter_ns=at, exit_ns=at, tid=0)

    def closed(self, *, at: int, error: int = 0) -> None:
        self._record(CONN, CLOSED, enter_ns=at, exit_ns=at, tid=0, result=-error)

    def move(self, direction: int, data: bytes, *, at: int, took: int = US, tid: int | None = None, captured: int | None = None,
             size: int | None = None, flags: int = 0, lost: bool = False, again: bool = False) -> None:  # fmt: skip
        """One call that moves `data` (captured: only so much of it is; lost: no record; again: the stream does not advance)."""
        size = len(data) if size is None else size
        before = self.next[direction]
        after = (before + size) & 0xFFFFFFFF
        if not again:
            self.next[direction] = after
        flags |= (COUNTED if self.l4 == UNIX else SEQ_VALID) | (FRESH if self.fresh else 0) | (0 if self.seen[direction] else FIRST)
        self.seen[direction] = True
        if lost:
            return
        self._record(
            DATA, 6 if direction == EGRESS else 1, enter_ns=at - took, exit_ns=at, tid=tid,
            payload=data if captured is None else data[:captured], direction=direction, result=size, flags=flags,
            seq_enter=before, seq_exit=after,
        )  # fmt: skip

    def read(self, data: bytes, **more: object) -> None:
        self.move(INGRESS, data, **more)

    def write(self, data: bytes, **more: object) -> None:
        self.move(EGRESS, data, **more)


class Traffic:
    """Records in the order in which they were made."""

    def __init__(self) -> None:
        self.rows: list[np.ndarray] = []
        self.payloads: list[bytes] = []
        self._sockets = 0

    def add(self, row: np.ndarray, payload: bytes) -> None:
        self.rows.append(row)
        self.payloads.append(payload)

    def client(self, *, port: int = 80, tgid: int = 100, fresh: bool = True) -> Connection:
        self._sockets += 1
        return Connection(self, socket=self._sockets, local_port=40000 + self._sockets, peer_port=port, tgid=tgid, fresh=fresh)

    def server(self, *, port: int = 80, tgid: int = 200, fresh: bool = True) -> Connection:
        self._sockets += 1
        return Connection(self, socket=self._sockets, local_port=port, peer_port=40000 + self._sockets, tgid=tgid, fresh=fresh)

    def unix_pair(self, *, client: int = 100, server: int = 200, fresh: bool = True, sockets: tuple[int, int] | None = None):
        """(client's end, server's end) of a unix connection; the probes count their bytes from what they see first."""
        if sockets is None:
            self._sockets += 2
            sockets = self._sockets - 1, self._sockets
        ends = []
        for own, peer, tgid in ((*sockets, client), (*sockets[::-1], server)):
            end = Connection(self, socket=own, local_port=0, peer_port=0, tgid=tgid, fresh=fresh)
            end.l4, end.peer, end.next = UNIX, peer, [0, 0]
            ends.append(end)
        return tuple(ends)

    def exit(self, tgid: int, *, at: int) -> None:
        row = np.zeros((), RECORD_DTYPE)
        row["enter_ns"] = row["exit_ns"] = at
        row["kind"], row["code"], row["tgid"], row["tid"] = PROC, EXIT, tgid, tgid
        self.add(row, b"")

    def batch(self, *, first: int = 0, last: int | None = None, order: list[int] | None = None) -> Batch:
        chosen = order if order is not None else list(range(len(self.rows)))[first:last]
        records = np.array([self.rows[i] for i in chosen], dtype=RECORD_DTYPE).reshape(len(chosen))
        sizes = np.array([len(self.payloads[i]) for i in chosen], dtype=np.uint32)
        at = (np.cumsum(sizes, dtype=np.uint32) - sizes).astype(np.uint32)
        return Batch.from_arrays(records, np.frombuffer(b"".join(self.payloads[i] for i in chosen), np.uint8), at)

    def shuffled_bursts(self, seed: int, reach: int) -> list[int]:
        """An order in which records move up to `reach` places, but not past one of the other direction."""
        chance = random.Random(seed)
        turns = [(int(row["kind"]), int(row["direction"])) for row in self.rows]
        burst = [sum(turns[j] != turns[j - 1] for j in range(1, i + 1)) for i in range(len(turns))]
        return sorted(range(len(turns)), key=lambda i: (burst[i], i + chance.random() * reach))


def span_dicts(rows: SpanRows) -> list[dict[str, object]]:
    """Spans as plain dictionaries with their strings and attributes."""
    text = rows.string_bytes.tobytes()

    def string(i: int) -> str:
        return text[rows.string_at[i] : rows.string_at[i + 1]].decode()

    spans = []
    for row in rows.spans:
        span = {name: row[name].item() for name in rows.spans.dtype.names if row[name].ndim == 0}
        span["name"], span["error_type"] = string(row["name"]), string(row["error_type"])
        span["pid"] = int(rows.pids[row["process"]])
        first = int(row["attr_first"])
        span["attributes"] = {
            ATTRIBUTES[int(a["key"])][0]: int(a["number"]) if ATTRIBUTES[int(a["key"])][1] == "NUMBER" else string(a["text"])
            for a in rows.attributes[first : first + int(row["attr_count"])]
        }
        spans.append(span)
    return spans


class Run:
    """A pipeline, what it was fed and what it gave."""

    def __init__(self, **settings: object) -> None:
        self.counters = Counters()
        settings.setdefault("protocols", (HTTP1, REDIS))
        self.pipeline = Pipeline(boot_id="boot", counters=self.counters, **settings)

    def feed(self, traffic: Traffic, *, now: int | None = None, **which: object) -> "Run":
        batch = traffic.batch(**which)
        self.pipeline.feed(batch, int(batch.records["exit_ns"].max()) if now is None else now)
        return self

    def flush(self, now: int) -> "Run":
        self.pipeline.flush(now)
        return self

    def finish(self, now: int = START + 3600 * S) -> "Run":
        self.pipeline.finish(now)
        return self

    def take(self) -> list[dict[str, object]]:
        return span_dicts(self.pipeline.take(0))

    def count(self, name: str) -> int:
        return by_name(self.counters.values)[name]

    def assert_balanced(self) -> None:
        values = by_name(self.counters.values) | self.pipeline.gauges()
        for balance in ledger.check(values):
            if balance.name in ("bytes", "requests", "responses"):
                assert balance.balanced, (balance, {k: v for k, v in values.items() if v})


def request(path: str = "/a", body: bytes = b"", method: str = "GET") -> bytes:
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nHost: h\r\n{length}\r\n".encode() + body


def response(body: bytes = b"ok", status: int = 200) -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
