"""Measures the compiled stages: records already in memory -> span rows, and rings -> batch. Prints one JSON object.

    deeptrace bench pipeline, or python benchmarks/pipeline.py [--messages N] [--rounds N]

A message is one small record (a read or a write); two make a span. 64 connections take turns. CPU time of one core, best round.
"""

import argparse
import json
import os
import platform
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from deeptrace.protocols.http1 import PROTOCOL as HTTP1
from deeptrace.protocols.redis import PROTOCOL as REDIS

from deeptrace.core.batch import Batch
from deeptrace.core.counters import Counters
from deeptrace.core.pipeline import Pipeline
from deeptrace.core.proto import L7Protocol
from deeptrace.core.ring import Rings
from deeptrace.core.wire import RECORD_DTYPE

CONNECTIONS = 64
BATCH = 8192
PAGE = 4096
EXCHANGES = {
    "http1": (
        b"GET /api/items/17?page=2 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{"items":[1, 2]}',
    ),
    "redis": (b"*3\r\n$3\r\nSET\r\n$8\r\nuser:117\r\n$5\r\nvalue\r\n", b"+OK\r\n"),
}
PER_SAMPLE = 16  # records that the probes emit together: 4,096 bytes of such small ones
MESSAGES = 262_144
ROUNDS = 5
TARGET = 1e6  # messages a second of one core


def make_records(kind: str, n: int, connections: int = CONNECTIONS) -> tuple[Any, bytes]:
    """n records of requests and responses in turn, and their payload back to back."""
    ask, answer = EXCHANGES[kind]
    records = np.zeros(n, RECORD_DTYPE)
    i = np.arange(n)
    asks = i % 2 == 0
    exchange = i // 2
    connection, turn = exchange % connections, exchange // connections
    records["exit_ns"] = 10**12 + i * 1000 + 500
    records["enter_ns"] = 10**12 + i * 1000
    records["socket"] = (1 << 47) + connection * 2048
    records["cpu_count"] = i + 1
    records["tuple"]["local_addr"][:, 10:] = records["tuple"]["peer_addr"][:, 10:] = [255, 255, 127, 0, 0, 1]
    records["tuple"]["local_port"] = 8080 if kind == "http1" else 6379
    records["tuple"]["peer_port"] = 1024 + connection % 60000
    records["tuple"]["l4_protocol"] = 6
    records["tgid"], records["tid"], records["kind"], records["netns"] = 77, 77 + connection % 4, 1, 1
    records["direction"] = np.where(asks, 0, 1)
    size = np.where(asks, len(ask), len(answer))
    records["result"] = records["payload_len"] = size
    before = turn * size
    records["seq_enter"], records["seq_exit"] = before, before + size
    records["flags"] = 0x1 | 0x80 | np.where(turn == 0, 0x40, 0)
    return records, (ask + answer) * (n // 2)


def batches_of(records: Any, payload: bytes) -> Iterator[Batch]:
    arena = np.frombuffer(payload, np.uint8)
    sizes = records["payload_len"].astype(np.uint32)
    at = (np.cumsum(sizes) - sizes).astype(np.uint32)
    for first in range(0, len(records), BATCH):
        yield Batch.from_arrays(records[first : first + BATCH], arena, at[first : first + BATCH])


def best_ns(rounds: int, prepare: Callable[[], Callable[[], None]]) -> int:
    """CPU time of the fastest of some rounds; prepare() is not measured."""
    times = []
    for _ in range(rounds):
        work = prepare()
        start = time.process_time_ns()
        work()
        times.append(time.process_time_ns() - start)
    return min(times)


def measure_pipeline(
    kind: str, n: int, rounds: int, *, connections: int = CONNECTIONS, protocols: Sequence[L7Protocol] = (HTTP1, REDIS)
) -> float:
    """Messages a second."""
    records, payload = make_records(kind, n, connections)
    batches = list(batches_of(records, payload))

    def prepare() -> Callable[[], None]:
        counters = Counters()
        pipeline = Pipeline(protocols=protocols, boot_id="bench", counters=counters)

        def work() -> None:
            made = 0
            for batch in batches:
                pipeline.feed(batch, 10**12)
                made += len(pipeline.take(0).spans)
            if made != n // 2:
                raise AssertionError(f"{made} spans of {n // 2}")

        return work

    return n / best_ns(rounds, prepare) * 1e9


def measure_drain(kind: str, n: int, rounds: int, *, per_sample: int = PER_SAMPLE) -> float:
    """Records a second out of a ring that holds n."""
    records, _ = make_records(kind, n)
    ask, answer = EXCHANGES[kind]
    bodies = [records[i].tobytes() + (ask, answer)[i % 2] for i in range(n)]
    parts = []
    for i in range(0, n, per_sample):
        body = b"".join(body + bytes(-len(body) % 8) for body in bodies[i : i + per_sample])
        raw = len(body) + -(4 + len(body)) % 8
        parts.append(struct.pack("<IHHI", 9, 0, 12 + raw, raw) + body + bytes(raw - len(body)))
    data = b"".join(parts)
    size = 1 << max(12, len(data).bit_length())
    memory = bytearray(PAGE + size)
    memory[PAGE : PAGE + len(data)] = data

    def prepare() -> Callable[[], None]:
        struct.pack_into("<QQ", memory, 1024, len(data), 0)
        rings = Rings.from_buffers({0: memory}, Counters())

        def work() -> None:
            left = n
            while left:
                batch = rings.drain(1 << 62, final=True)
                left -= len(batch)
                batch.release()

        return work

    return n / best_ns(rounds, prepare) * 1e9


def run(*, quick: bool, tell: Callable[[str], None], messages: int = MESSAGES, rounds: int = ROUNDS) -> dict[str, Any]:
    """The bench's result. quick: a quarter of the messages, fewer rounds."""
    if quick:
        messages, rounds = messages // 4, min(rounds, 3)
    n = messages // (2 * CONNECTIONS) * 2 * CONNECTIONS
    rows = []
    for kind in EXCHANGES:
        for name, measure in (
            ("records to spans", measure_pipeline),
            ("ring to batch", measure_drain),
            ("ring to batch, one a sample", partial(measure_drain, per_sample=1)),
        ):
            tell(f"{kind}: {name}")
            value = measure(kind, n, rounds)
            row = {"name": f"{kind}: {name}", "value": round(value), "unit": "messages/s"}
            rows.append({**row, "ratio": round(value / TARGET, 2), "reference": TARGET})
    return {"rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    result = run(quick=False, tell=lambda _step: None, messages=options.messages, rounds=options.rounds)
    machine = {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    print(json.dumps({"bench": "pipeline", "machine": machine, **result}))


if __name__ == "__main__":
    main()
