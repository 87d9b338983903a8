"""Holds the records of threads that share a TCP socket to the stream as packets show it. Standard library only."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from conformance import layout as at


@dataclass
class Shares:
    """problems: sentences; bytes, records, flagged: by direction (ingress, egress)."""

    problems: list[str] = field(default_factory=list)
    bytes: list[int] = field(default_factory=lambda: [0, 0])
    records: list[int] = field(default_factory=lambda: [0, 0])
    flagged: list[int] = field(default_factory=lambda: [0, 0])

    def flagged_share(self, direction: int) -> float:
        return self.flagged[direction] / self.records[direction]


def compare_shared(records: Iterable[tuple[dict, bytes]], first: int, stream: bytes) -> Shares:
    """first: sequence number of the stream's first byte. Every record that is not flagged ambiguous stands at its position."""
    shares = Shares()
    for fields, payload in records:
        if fields["kind"] != at.DATA:
            continue
        direction = fields["direction"]
        shares.records[direction] += 1
        shares.bytes[direction] += fields["result"]
        if fields["flags"] & at.SEQ_AMBIGUOUS:
            shares.flagged[direction] += 1
            continue
        number = fields["seq_enter"] if direction == at.INGRESS else fields["seq_exit"] - fields["result"]
        position = (number - first) % 2**32
        if len(payload) != fields["result"] or stream[position : position + len(payload)] != payload:
            advanced = (fields["seq_exit"] - fields["seq_enter"]) % 2**32
            shares.problems.append(f"{payload[:16].hex()} is not at {position} of {len(stream)}, advanced {advanced}: {fields}")
    return shares


def compare_sides(records: Iterable[tuple[dict, bytes]]) -> Shares:
    """A stream that no packet shows: what was sent and what was read at one position must be the same bytes, none of them twice."""
    shares = Shares()
    sides: tuple[dict[int, int], dict[int, int]] = ({}, {})
    for fields, payload in records:
        if fields["kind"] != at.DATA:
            continue
        direction = fields["direction"]
        shares.records[direction] += 1
        shares.bytes[direction] += fields["result"]
        if fields["flags"] & at.SEQ_AMBIGUOUS:
            shares.flagged[direction] += 1
            continue
        position = fields["seq_enter"] if direction == at.INGRESS else (fields["seq_exit"] - fields["result"]) % 2**32
        for i, byte in enumerate(payload):
            if sides[direction].setdefault(position + i, byte) != byte or sides[1 - direction].get(position + i, byte) != byte:
                shares.problems.append(f"byte {i} of {payload[:16].hex()} is not at {position + i}: {fields}")
                break
    return shares
