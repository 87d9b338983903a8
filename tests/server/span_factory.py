"""Makes spans for tests: a small language for single ones, and a seeded load of a three-tier application. Not for the product."""

import random
from typing import Any

import numpy as np
import numpy.typing as npt

from deeptrace.core.wire import ATTRIBUTE_DTYPE, ATTRIBUTE_ROWS, SPAN_DTYPE
from deeptrace.model import ProcessInfo, SpanBatch

SERVER, CLIENT = 1, 2
KEYS = {row[2]: (row[0], row[3]) for row in ATTRIBUTE_ROWS}
T0 = 1_800_000_000_000_000_000


def v4(last: int) -> bytes:
    return bytes(10) + b"\xff\xff" + bytes([127, 0, 0, last])


class Factory:
    """Collects spans given by field; `batch()` makes a SpanBatch of them."""

    def __init__(self, host: str = "h1", boot_id: str = "b1") -> None:
        self.host, self.boot_id = host, boot_id
        self.rows: list[dict[str, Any]] = []
        self.strings: dict[str, int] = {"": 0}
        self.attributes: list[tuple[int, int, int]] = []
        self.processes: dict[int, tuple[int, ProcessInfo]] = {}
        self.next_id = 1

    def _string(self, text: str) -> int:
        return self.strings.setdefault(text, len(self.strings))

    def add(
        self, kind: int, *, pid: int, service: str = "", name: str = "GET", attributes: dict[str, Any] | None = None, **fields: Any
    ) -> int:
        """Add one span and return its id. Times are ms after T0 under the names start, end, request_end, response_start."""
        service = service or f"service-{pid}"
        process = self.processes.setdefault(
            pid, (len(self.processes), ProcessInfo(pid=pid, start_ns=T0 - 10**9, comm=service[:15], service=service))
        )[0]
        first = len(self.attributes)
        for key, value in (attributes or {}).items():
            number, kind_of = KEYS[key]
            self.attributes.append((number, 0, value) if kind_of == "NUMBER" else (number, self._string(value), 0))
        start = fields.pop("start", 0)
        end = fields.pop("end", start + 1)
        row = {
            "span_id": fields.pop("span_id", 0) or (self.next_id * 0x9E3779B97F4A7C15) % 2**64,
            "start_ns": T0 + round(start * 1e6),
            "request_end_ns": T0 + round(fields.pop("request_end", start) * 1e6),
            "response_start_ns": T0 + round(fields.pop("response_start", end) * 1e6),
            "end_ns": T0 + round(end * 1e6),
            "pid": pid,
            "req_tid": pid,
            "resp_tid": pid,
            "process": process,
            "kind": kind,
            "protocol": 1,
            "seq_space": 1,
            "weight": 1,
            "name": self._string(name),
            "error_type": self._string(fields.pop("error_type", "")),
            "attr_first": first,
            "attr_count": len(self.attributes) - first,
            "netns": 4026531840,
            "local_addr": v4(1),
            "peer_addr": v4(1),
            "local_port": 40000,
            "peer_port": 80,
            "connection_id": pid * 1000,
        }
        row.update(fields)
        self.next_id += 1
        self.rows.append(row)
        return int(row["span_id"])

    def batch(self) -> SpanBatch:
        spans = np.zeros(len(self.rows), SPAN_DTYPE)
        for i, row in enumerate(self.rows):
            for name, value in row.items():
                spans[i][name] = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
        attributes = np.zeros(len(self.attributes), ATTRIBUTE_DTYPE)
        for i, values in enumerate(self.attributes):
            attributes[i] = values
        return SpanBatch(
            spans, attributes, *string_table(list(self.strings)), [p for _, p in self.processes.values()], self.host, self.boot_id
        )


def string_table(strings: list[str]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint8]]:
    encoded = [s.encode() for s in strings]
    at = np.zeros(len(encoded) + 1, np.uint32)
    np.cumsum([len(s) for s in encoded], out=at[1:])
    return at, np.frombuffer(b"".join(encoded), np.uint8).copy()


def load(n_traces: int, *, seed: int = 1, start_ns: int = T0, rate: float = 10000.0, first: int = 0) -> SpanBatch:
    """Spans of n_traces requests: client -> nginx -> app (thread per request) -> redis, six spans each, all on one host.

    Sequence numbers join client and server spans; the app's calls carry its threads. Vectorised: for load, not for detail.
    """
    rng = np.random.default_rng(seed)
    n = n_traces
    spans = np.zeros((n, 6), SPAN_DTYPE)
    begin = start_ns + np.sort(rng.integers(0, max(1, int(n / rate * 1e9)), n)).astype(np.int64)
    steps = rng.integers(20_000, 200_000, (n, 10))
    at = begin[:, None] + np.cumsum(steps, axis=1)
    kinds = (CLIENT, SERVER, CLIENT, SERVER, CLIENT, SERVER)
    pids = (100, 200, 200, 300, 300, 400)
    seqs = rng.integers(0, 2**32, (n, 3, 2), dtype=np.uint32)
    connections = rng.integers(0, 32, (n, 3))
    for c in range(6):
        s = spans[:, c]
        hop = c // 2
        s["span_id"] = rng.integers(1, 2**64 - 1, n, dtype=np.uint64)
        s["connection_id"] = connections[:, hop] * 7919 + hop * 104729 + c
        s["start_ns"], s["request_end_ns"] = at[:, c // 1 if c < 6 else 5], at[:, c]
        s["end_ns"] = at[:, 6] + (5 - c) * 30_000
        s["response_start_ns"] = s["end_ns"]
        s["kind"], s["pid"], s["process"] = kinds[c], pids[c], (0, 1, 1, 2, 2, 3)[c]
        s["req_tid"] = s["resp_tid"] = pids[c] if pids[c] != 300 else 1000 + (np.arange(n) + first) % 4096
        s["req_seq"], s["resp_seq"] = seqs[:, hop, 0], seqs[:, hop, 1]
        s["seq_space"], s["weight"], s["netns"] = 1, 1, 4026531840
        s["request_bytes"], s["response_bytes"] = rng.integers(80, 300, n), rng.integers(100, 2000, n)
        client_port, server_port = 40000 + connections[:, hop], (80, 8000, 6379)[hop]
        s["local_port"] = client_port if c % 2 == 0 else server_port
        s["peer_port"] = server_port if c % 2 == 0 else client_port
        s["local_addr"] = s["peer_addr"] = np.frombuffer(v4(1), np.uint8)
        s["protocol"] = 3 if hop == 2 else 1
    http = ["http.request.method", "url.path", "http.response.status_code", "server.address", "user_agent.original"]
    redis = ["db.system.name", "db.operation.name"]
    texts = ["", "GET", "GET /api/items/{id}", "redis", "GET item", "127.0.0.1", "wrk/4.2"]
    paths = [f"/api/items/{first + i}?n={seed}" for i in range(n)]
    attributes = np.zeros((n, 4 * len(http) + 2 * len(redis)), ATTRIBUTE_DTYPE)
    for c in range(4):
        for k, key in enumerate(http):
            a = attributes[:, c * 5 + k]
            a["key"] = KEYS[key][0]
            a["text"] = (1, 7 + np.arange(n), 0, 5, 6)[k]
            a["number"] = 200 if k == 2 else 0
    for c in range(2):
        for k, key in enumerate(redis):
            a = attributes[:, 20 + c * 2 + k]
            a["key"], a["text"] = KEYS[key][0], (3, 1)[k]
    spans["name"] = np.array([1, 1, 1, 1, 4, 4])
    spans["attr_count"] = np.array([5, 5, 5, 5, 2, 2])
    spans["attr_first"] = np.arange(n)[:, None] * 24 + np.array([0, 5, 10, 15, 20, 22])
    processes = [
        ProcessInfo(pid=p, start_ns=T0 - 10**9, comm=s, service=s)
        for p, s in ((100, "wrk"), (200, "nginx"), (300, "app"), (400, "redis"))
    ]
    flat = spans.reshape(-1)
    flat = flat[np.argsort(flat["end_ns"], kind="stable")]
    return SpanBatch(flat, attributes.reshape(-1), *string_table(texts + paths), processes, "h1", "b1")


def shuffled(batch: SpanBatch, seed: int) -> SpanBatch:
    order = list(range(len(batch)))
    random.Random(seed).shuffle(order)
    return SpanBatch(
        batch.spans[order], batch.attributes, batch.string_at, batch.string_bytes, batch.processes, batch.host, batch.boot_id
    )
