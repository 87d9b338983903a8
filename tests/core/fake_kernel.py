"""The kernel's side of the rings over plain memory: what the probes and perf do, on the same layouts. One CPU each; no threads."""

import struct

import numpy as np

from deeptrace.core.wire import BATCH_DTYPE, KIND_CONN, KIND_DATA, RECORD_DTYPE, RECORD_FLAGS

PAGE = 4096
HEAD, TAIL = 1024, 1032  # linux/perf_event.h: data_head, data_tail
LOST, SAMPLE = 2, 9


def padded(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % 8)


class FakeRing:
    """What perf does: writes records at head, wrapping around, while there is room."""

    def __init__(self, size: int = 8192, start: int = 0) -> None:
        self.memory = bytearray(PAGE + size)
        self.size, self.head = size, start
        self.cpu_count = 0
        struct.pack_into("<QQ", self.memory, HEAD, start, start)

    @property
    def tail(self) -> int:
        return struct.unpack_from("<Q", self.memory, TAIL)[0]

    def put(self, kind: int, body: bytes) -> bool:
        raw = struct.pack("<IHH", kind, 0, 8 + len(body)) + body
        if self.head + len(raw) - self.tail >= self.size:
            return False
        at = PAGE + self.head % self.size
        first = min(len(raw), PAGE + self.size - at)
        self.memory[at : at + first] = raw[:first]
        self.memory[PAGE : PAGE + len(raw) - first] = raw[first:]
        self.head += len(raw)
        struct.pack_into("<Q", self.memory, HEAD, self.head)
        return True

    def sample(self, raw: bytes) -> bool:
        padding = -(4 + len(raw)) % 8
        return self.put(SAMPLE, struct.pack("<I", len(raw) + padding) + raw + bytes(padding))

    def row(self, exit_ns: int, payload: bytes = b"", *, count: int = 1, **fields: int) -> bytes:
        """A record; cpu_count goes on by `count`."""
        row = np.zeros((), RECORD_DTYPE)
        self.cpu_count += count
        row["exit_ns"], row["enter_ns"], row["cpu_count"], row["kind"] = exit_ns, exit_ns - 5, self.cpu_count, KIND_DATA
        row["payload_len"], row["result"] = len(payload), len(payload)
        for name, value in fields.items():
            row[name] = value
        return row.tobytes() + payload

    def record(self, exit_ns: int, payload: bytes = b"", *, count: int = 1, **fields: int) -> None:
        assert self.sample(self.row(exit_ns, payload, count=count, **fields))


class FakeCpu:
    """What the probes do on one CPU: data records wait in the batch and leave together, all others at once."""

    def __init__(self, cpu: int, batch: np.ndarray, *, ring_bytes: int = 8192, batch_bytes: int = 1024) -> None:
        """batch: BATCH_DTYPE (), a view of the memory that the reader maps."""
        self.cpu, self.batch, self.batch_bytes = cpu, batch, batch_bytes
        self.ring = FakeRing(ring_bytes)
        self.counts = {KIND_DATA: 0, KIND_CONN: 0}
        self.waiting: list[tuple[int, int, int]] = []
        self.lost: set[tuple[int, int, int]] = set()  # (cpu, kind, count) of what did not fit
        self.n_emitted = self.n_ring_full = 0

    def _row(self, kind: int, exit_ns: int, payload: bytes) -> bytes:
        self.counts[kind] += 1
        self.n_emitted += 1
        row = np.zeros((), RECORD_DTYPE)
        row["exit_ns"], row["cpu_count"], row["cpu"], row["kind"] = exit_ns, self.counts[kind], self.cpu, kind
        row["payload_len"] = len(payload)
        return row.tobytes() + payload

    def data(self, exit_ns: int, n_bytes: int) -> None:
        """A data call returned."""
        raw = padded(self._row(KIND_DATA, exit_ns, content(self.counts[KIND_DATA] + 1, n_bytes)))
        used = int(self.batch["used"])
        self.batch["bytes"][used : used + len(raw)] = np.frombuffer(raw, np.uint8)
        self.waiting.append((self.cpu, KIND_DATA, self.counts[KIND_DATA]))
        self.batch["used"] = used + len(raw)
        if used + len(raw) >= self.batch_bytes:
            self.flush()

    def flush(self) -> None:
        used = int(self.batch["used"])
        if used and not self.ring.sample(self.batch["bytes"][:used].tobytes()):
            self.n_ring_full += len(self.waiting)
            self.lost.update(self.waiting)
        self.waiting = []
        self.batch["used"] = 0
        self.batch["generation"] += 1

    def event(self, exit_ns: int, n_bytes: int) -> None:
        """A connection's event."""
        raw = self._row(KIND_CONN, exit_ns, content(self.counts[KIND_CONN] + 1, n_bytes))
        if not self.ring.sample(raw):
            self.n_ring_full += 1
            self.lost.add((self.cpu, KIND_CONN, self.counts[KIND_CONN]))

    def request(self, exit_ns: int, n_bytes: int) -> None:
        """An io_uring request completed: data, but numbered with the events."""
        self.counts[KIND_CONN] += 1
        self.n_emitted += 1
        row = np.zeros((), RECORD_DTYPE)
        row["exit_ns"], row["cpu_count"], row["cpu"], row["kind"] = exit_ns, self.counts[KIND_CONN], self.cpu, KIND_DATA
        row["payload_len"], row["flags"] = n_bytes, RECORD_FLAGS["uring"]
        if not self.ring.sample(row.tobytes() + content(self.counts[KIND_CONN], n_bytes)):
            self.n_ring_full += 1


def content(count: int, n_bytes: int) -> bytes:
    """Payload that says which record it belongs to."""
    return (struct.pack("<Q", count) * (n_bytes // 8 + 1))[:n_bytes]


def batches_memory(n_cpus: int) -> tuple[bytearray, np.ndarray]:
    """Map BATCHES: its memory, and the same as BATCH_DTYPE (n_cpus,)."""
    memory = bytearray(n_cpus * BATCH_DTYPE.itemsize)
    return memory, np.frombuffer(memory, BATCH_DTYPE)
