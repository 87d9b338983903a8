"""Compares what the probes recorded with what the sockets say, and turns differences into one sentence for each call."""

from __future__ import annotations

import os
import socket
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from .selftest_records import DATA, Record
from .selftest_traffic import Pair, Truth

SEQ_VALID, SEQ_AMBIGUOUS = 1, 2  # dt_records.h: DT_RECORD_*
TCP_ESTABLISHED = 1
CAUSE = "the offsets that this kernel's BTF gives may be wrong; please report its version (uname -r)"


def judge_calls(truths: Iterable[Truth], records: list[Record], codes: dict[str, int], netns: int) -> dict[str, str]:
    """{call: what is wrong with it} for the calls whose records differ from the truth; the first difference stands for all."""
    told: dict[str, list[Truth]] = defaultdict(list)
    for truth in truths:
        told[truth.call].append(truth)
    found: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        if record["kind"] == DATA:
            found[record["code"]].append(record)
    bases = stream_bases(told, found, codes)
    wrong: dict[str, str] = {}
    for call, expected in told.items():
        got = found[codes[call]]
        if len(got) != len(expected):
            wrong[call] = f"{call}: {len(expected)} messages were moved, {len(got)} recorded"
            continue
        for truth, record in zip(expected, got):  # noqa: B905 - as many of both
            difference = first_difference(truth, record, netns, bases)
            if difference:
                wrong[call] = f"{call}: {difference} ({truth.pair.label})"
                break
    return wrong


def stream_bases(told: dict[str, list[Truth]], found: dict[int, list[Record]], codes: dict[str, int]) -> dict[Pair, set[int]]:
    """Where the streams begin as the records have it: one number for each pair, or some record is wrong."""
    votes: dict[Pair, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for call, expected in told.items():
        for truth, record in zip(expected, found[codes[call]]):  # noqa: B905 - some may be missing
            if truth.offset >= 0:
                votes[truth.pair][(record.position - truth.offset) & 0xFFFFFFFF] += 1
    return {pair: {max(bases, key=lambda base: bases[base])} for pair, bases in votes.items()}


def first_difference(truth: Truth, record: Record, netns: int, bases: dict[Pair, set[int]]) -> str:
    """Empty when the record says the truth."""
    for what, expected, got in facts(truth, record, netns):
        if expected != got:
            return f"wrong {what}: {shown(got)} instead of {shown(expected)}"
    if not truth.began_ns <= record["enter_ns"] <= record["exit_ns"] <= truth.ended_ns:
        return "the times of entry and exit do not lie around the call"
    if truth.offset >= 0:
        if record["flags"] & (SEQ_VALID | SEQ_AMBIGUOUS) != SEQ_VALID:
            return "its position in the stream is not proven"
        if (record.position - truth.offset) & 0xFFFFFFFF not in bases[truth.pair]:
            return "wrong position in the stream"
    return ""


def facts(truth: Truth, record: Record, netns: int) -> list[tuple[str, Any, Any]]:
    """(what, expected, recorded), those that explain others first."""
    pid = os.getpid()
    return [
        ("process", (pid, pid), (record["tgid"], record["tid"])),
        ("address family", truth.pair.family, record["family"]),
        ("protocol", socket.IPPROTO_TCP if truth.pair.is_stream else socket.IPPROTO_UDP, record["l4_protocol"]),
        ("own address", truth.end.local, (record["local_addr"], record["local_port"])),
        ("peer's address", truth.end.peer, (record["peer_addr"], record["peer_port"])),
        ("state of the socket", TCP_ESTABLISHED, record["tcp_state"] if truth.pair.is_stream else TCP_ESTABLISHED),
        ("network namespace", netns, record["netns"]),
        ("direction", truth.direction, record["direction"]),
        ("number of bytes", truth.n_bytes, record["result"]),
        ("index of the message", truth.message_index, record["message_index"]),
        ("payload", truth.data or b"", record.payload),
    ]


def shown(value: Any) -> str:
    """A fact for people: addresses as text, payload by its length and beginning."""
    if isinstance(value, tuple) and isinstance(value[0], bytes):
        return f"[{socket.inet_ntop(socket.AF_INET6, value[0])}]:{value[1]}"
    if isinstance(value, bytes):
        return f"{len(value)} bytes ({value[:8].hex()}...)"
    return str(value)


def received_differs(pair: Pair) -> str:
    """Whether the receiving socket counts other bytes than were sent: then the test itself went wrong."""
    got = pair.received_bytes() if pair.is_stream else pair.sent_bytes
    return "" if got == pair.sent_bytes else f"{pair.label}: {pair.sent_bytes} bytes were sent, the socket counts {got}"
