"""Takes records out of mapped perf rings, as plain as it can be done. Standard library only."""

import mmap
import os
import struct
from collections.abc import Iterator

from conformance.layout import Layout

PAGE = os.sysconf("SC_PAGE_SIZE")
DATA_HEAD, DATA_TAIL = 1024, 1032  # struct perf_event_mmap_page
PERF_RECORD_LOST, PERF_RECORD_SAMPLE = 2, 9


class PlainRings:
    """maps: {cpu: mapped ring}; ring_bytes: of its data. Whoever mapped them unmaps them."""

    def __init__(self, maps: dict[int, mmap.mmap], ring_bytes: int, layout: Layout) -> None:
        self.maps, self.ring_bytes, self.layout = maps, ring_bytes, layout
        self.taken: list[bytes] = []
        self.lost_reported = 0
        self.strange = 0  # perf records of other kinds

    def drain(self) -> None:
        """Copy what waits in the rings and free its room; nothing is parsed yet, for that takes longer than filling a ring."""
        for ring in self.maps.values():
            (head,), (tail,) = struct.unpack_from("=Q", ring, DATA_HEAD), struct.unpack_from("=Q", ring, DATA_TAIL)
            if tail < head:
                start, n = tail % self.ring_bytes, head - tail
                first = ring[PAGE + start : PAGE + min(start + n, self.ring_bytes)]
                self.taken.append(first + ring[PAGE : PAGE + n - len(first)])
                struct.pack_into("=Q", ring, DATA_TAIL, head)

    def records(self) -> list[tuple[dict, bytes]]:
        """Everything that was drained since the last time: the records of one CPU in the order in which they were made."""
        taken, self.taken = self.taken, []
        return [record for piece in taken for record in self._parse(piece)]

    def _parse(self, piece: bytes) -> Iterator[tuple[dict, bytes]]:
        at = 0
        while at < len(piece):
            kind, _misc, size = struct.unpack_from("=IHH", piece, at)
            body = at + 8
            at += size
            if kind == PERF_RECORD_SAMPLE:
                (raw_bytes,) = struct.unpack_from("=I", piece, body)
                yield from self.layout.parse(piece[body + 4 : body + 4 + raw_bytes])
            elif kind == PERF_RECORD_LOST:
                self.lost_reported += struct.unpack_from("=QQ", piece, body)[1]
            else:
                self.strange += 1
