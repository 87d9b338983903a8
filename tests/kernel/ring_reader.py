"""A plain reader of perf rings for the kernel tests: every record as a Python object, in the order of each ring. What waits beside
the rings it does not see: tests load with batch_bytes=0, or wait for what is emitted."""

import mmap
import os
import select
import struct
import time
from dataclasses import dataclass

import numpy as np

from deeptrace.core.wire import KIND_CONN, KIND_DATA, KIND_LOG, KIND_PROC, RECORD_DTYPE

DATA, CONN, PROC, LOG = KIND_DATA, KIND_CONN, KIND_PROC, KIND_LOG
PAGE = os.sysconf("SC_PAGE_SIZE")
DATA_HEAD, DATA_TAIL = 1024, 1032  # struct perf_event_mmap_page
PERF_RECORD_LOST, PERF_RECORD_SAMPLE = 2, 9


@dataclass
class Record:
    """One record: its header's fields as attributes, and its payload."""

    fields: dict
    payload: bytes

    def __getattr__(self, name):
        try:
            return self.fields[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def local(self):
        return bytes(self.fields["tuple"]["local_addr"]), int(self.fields["tuple"]["local_port"])

    @property
    def peer(self):
        return bytes(self.fields["tuple"]["peer_addr"]), int(self.fields["tuple"]["peer_port"])

    @property
    def position(self):
        """Stream position of the first byte."""
        return self.seq_enter if self.direction == 0 else (self.seq_exit - self.result) % 2**32


class Rings:
    """All rings of a Probes. Maps them; unmaps at close."""

    def __init__(self, probes, ring_bytes):
        self.ring_bytes = ring_bytes
        self.maps = {cpu: mmap.mmap(fd, PAGE + ring_bytes) for cpu, fd in probes.ring_fds.items()}
        self.lost_reported = 0

    def drain(self):
        """All records that wait now, by time of exit."""
        records = [record for ring in self.maps.values() for record in self._drain_one(ring)]
        records.sort(key=lambda record: record.exit_ns)
        return records

    def _drain_one(self, ring):
        head = struct.unpack_from("=Q", ring, DATA_HEAD)[0]
        tail = struct.unpack_from("=Q", ring, DATA_TAIL)[0]
        while tail < head:
            kind, _misc, size = struct.unpack("=IHH", self._take(ring, tail, 8))
            body = self._take(ring, tail + 8, size - 8)
            tail += size
            if kind == PERF_RECORD_LOST:
                self.lost_reported += struct.unpack_from("=QQ", body)[1]
            if kind != PERF_RECORD_SAMPLE:
                continue
            yield from parse(body[4 : 4 + struct.unpack_from("=I", body)[0]])
        struct.pack_into("=Q", ring, DATA_TAIL, tail)

    def _take(self, ring, position, n):
        start = position % self.ring_bytes
        first = ring[PAGE + start : PAGE + min(start + n, self.ring_bytes)]
        return first + ring[PAGE : PAGE + n - len(first)]

    def close(self):
        for ring in self.maps.values():
            ring.close()


def parse(raw):
    """The records of one sample."""
    size = RECORD_DTYPE.itemsize
    while len(raw) >= size:
        header = np.frombuffer(raw, RECORD_DTYPE, 1)[0]
        fields = {name: header[name] if name == "tuple" else int(header[name]) for name in RECORD_DTYPE.names}
        payload_len = fields["payload_len"]
        assert payload_len <= len(raw) - size
        yield Record(fields, raw[size : size + payload_len])
        raw = raw[(size + payload_len + 7) // 8 * 8 :]
    assert len(raw) < 8


def wait_readable(fds, timeout_s):
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    return poller.poll(timeout_s * 1000)


def wait_until(condition, timeout_s=5.0):
    """Poll a condition that another process makes true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)
