"""Reads what the probes emitted during the self-test: maps the rings for its duration only, so that they begin empty when the
agent maps them. Plain and slow; the agent has a reader of its own."""

from __future__ import annotations

import mmap
import os
import pathlib
import struct
from collections.abc import Iterator
from typing import Any

from .layouts import read_layouts

DATA, CONN, PROC = 1, 2, 3  # dt_records.h: enum dt_kind
DATA_HEAD, DATA_TAIL = 1024, 1032  # linux/perf_event.h: struct perf_event_mmap_page
PERF_RECORD_SAMPLE = 9
SAMPLE_HEAD = 12  # perf_event_header and the size of the raw data
WANTED_BYTES = 1 << 18  # of a ring: twice what all messages need


class Record:
    """One record: its header by the names of the fields, and its payload."""

    def __init__(self, fields: dict[str, Any], payload: bytes) -> None:
        self.fields = fields
        self.payload = payload

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    @property
    def position(self) -> int:
        """Stream position of the first byte."""
        return int(self["seq_enter"] if self["direction"] == 0 else self["seq_exit"] - self["result"]) & 0xFFFFFFFF


class Reader:
    """Maps the rings ({cpu: descriptor}) at most so large as they will be. Raises OSError when they cannot be mapped."""

    def __init__(self, rings: dict[int, int], ring_bytes: int, bpf: pathlib.Path) -> None:
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._bytes = min(ring_bytes, max(WANTED_BYTES, self._page))
        layout = read_layouts(bpf)["dt_record"]
        self._header = struct.Struct(layout.format())
        self._names = list(layout.fields)
        self._rings: list[mmap.mmap] = []
        try:
            for fd in rings.values():
                self._rings.append(mmap.mmap(fd, self._page + self._bytes))
        except OSError:
            self.close()
            raise

    def take(self) -> list[Record]:
        """All records that wait, by the time of their exit; of one vector call in the order of its messages."""
        records = [record for ring in self._rings for record in self._take_one(ring)]
        return sorted(records, key=lambda record: (record["exit_ns"], record["message_index"]))

    def close(self) -> None:
        for ring in self._rings:
            ring.close()

    def _take_one(self, ring: mmap.mmap) -> Iterator[Record]:
        head = struct.unpack_from("=Q", ring, DATA_HEAD)[0]
        tail = struct.unpack_from("=Q", ring, DATA_TAIL)[0]
        while tail < head:
            kind, _misc, size = struct.unpack("=IHH", self._copy(ring, tail, 8))
            sample = self._copy(ring, tail, size)
            tail += size
            if kind == PERF_RECORD_SAMPLE:
                raw_bytes = struct.unpack_from("=I", sample, 8)[0]
                yield from self._split(sample[SAMPLE_HEAD : SAMPLE_HEAD + raw_bytes])
        struct.pack_into("=Q", ring, DATA_TAIL, tail)

    def _copy(self, ring: mmap.mmap, at: int, n: int) -> bytes:
        start = at % self._bytes
        first = ring[self._page + start : self._page + min(start + n, self._bytes)]
        return first + ring[self._page : self._page + n - len(first)]

    def _split(self, raw: bytes) -> Iterator[Record]:
        """The records of one sample. What is left of it is shorter than a header: padding."""
        at = 0
        while at + self._header.size <= len(raw):
            values = self._header.unpack_from(raw, at)
            fields = dict(zip(self._names, values))  # noqa: B905 - as many of both
            at += self._header.size
            n = fields["payload_len"]
            yield Record(fields, raw[at : at + n])
            at = (at + n + 7) & ~7
            if not fields["kind"]:
                return
