"""The demo's load generator: a fixed rate of requests over keep-alive connections, each for an order of its own.

Open loop: a request is due at its time whether or not earlier ones were answered, and its latency counts from then. Run as a
process of its own, marked as DeepTrace's, so that it is never traced: load.py PORT RATE SECONDS CONNECTIONS. Writes one JSON
line per half second and one at the end: sent, answered, failed, p50_ms, p99_ms, cpu_s.
"""

import asyncio
import collections
import json
import sys
import time

from deeptrace.procname import mark_own_process

TICK_S = 0.001  # how exactly a request keeps its time
REPORT_S = 0.5
DRAIN_S = 10.0  # how long answers are waited for at the end


def order_id(i: int) -> str:
    """The tag of request i: in every URL and Redis key that the request causes."""
    return f"o-{i:07d}"


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request out."""

    def __init__(self, load: "Load") -> None:
        self.load = load
        self.transport: asyncio.Transport | None = None
        self.buffer = b""
        self.due_s: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.load.idle.append(self)

    def send(self, i: int, due_s: float) -> None:
        assert self.transport is not None
        self.due_s = due_s
        self.transport.write(b"GET /orders/%b HTTP/1.1\r\nHost: shop\r\n\r\n" % order_id(i).encode())

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return
        _, _, size = head.lower().partition(b"content-length: ")
        if len(body) < int(size.split(b"\r\n", 1)[0]):
            return
        self.buffer = b""
        due_s, self.due_s = self.due_s, None
        if due_s is not None:
            self.load.answered(self, due_s, ok=head.split(b" ", 2)[1] == b"200")

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self.due_s is not None:
            self.load.n_lost += 1
        if self in self.load.idle:
            self.load.idle.remove(self)


class Load:
    """Sends rate * seconds requests. Times are of the event loop's clock, in seconds."""

    def __init__(self, rate: float, n_requests: int) -> None:
        self.rate = rate
        self.n_requests = n_requests
        self.n_sent = self.n_answered = self.n_refused = self.n_lost = 0
        self.idle: collections.deque[Connection] = collections.deque()
        self.latencies_ms: list[float] = []

    def answered(self, connection: Connection, due_s: float, *, ok: bool) -> None:
        self.n_answered += 1
        self.n_refused += not ok
        self.latencies_ms.append((time.monotonic() - due_s) * 1000)
        self.idle.append(connection)

    def send_due(self, began_s: float) -> None:
        """Send what is due; what finds no idle connection waits for the next tick."""
        n_due = min(self.n_requests, int((time.monotonic() - began_s) * self.rate) + 1)
        while self.n_sent < n_due and self.idle:
            self.idle.popleft().send(self.n_sent, began_s + self.n_sent / self.rate)
            self.n_sent += 1

    def report(self) -> None:
        times = sorted(self.latencies_ms)
        p50, p99 = (times[int(len(times) * q)] if times else None for q in (0.5, 0.99))
        line = {
            "sent": self.n_sent,
            "answered": self.n_answered,
            "failed": self.n_refused + self.n_lost,
            "p50_ms": p50,
            "p99_ms": p99,
        }
        sys.stdout.write(json.dumps(line | {"cpu_s": time.process_time()}) + "\n")
        sys.stdout.flush()


async def run(port: int, rate: float, seconds: float, n_connections: int) -> None:
    load = Load(rate, round(rate * seconds))
    loop = asyncio.get_running_loop()
    for _ in range(n_connections):
        await loop.create_connection(lambda: Connection(load), "127.0.0.1", port)
    began_s = reported_s = time.monotonic()
    give_up_s = began_s + seconds + DRAIN_S
    while load.n_answered + load.n_lost < load.n_requests and time.monotonic() < give_up_s:
        load.send_due(began_s)
        if time.monotonic() - reported_s > REPORT_S:
            reported_s = time.monotonic()
            load.report()
        await asyncio.sleep(TICK_S)
    load.report()


def main() -> None:
    mark_own_process()
    port, rate, seconds, n_connections = sys.argv[1:5]
    asyncio.run(run(int(port), float(rate), float(seconds), int(n_connections)))


if __name__ == "__main__":
    main()
