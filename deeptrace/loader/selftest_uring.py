"""The self-test's io_uring requests: known messages sent and received by the plain system calls, and what must be recorded of them.
A kernel or a host without io_uring leaves this out."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import time
from collections import Counter

from .selftest_judge import facts, shown
from .selftest_records import DATA, Record
from .selftest_traffic import EGRESS_DIRECTION, INGRESS_DIRECTION, ROUNDS, Pair, Truth, message

SETUP, ENTER = 425, 426  # system calls; the same on every architecture but alpha
# linux/io_uring.h
OP_SEND, OP_RECV = 26, 27
ENTER_GETEVENTS = 1
OFFSET_SQES = 0x10000000
FEATURE_SINGLE_MMAP = 1
ENTRIES = 4
PARAMS_BYTES, SQE_BYTES, CQE_BYTES = 120, 64, 16
SQ_OFFSETS_AT, CQ_OFFSETS_AT = 40, 80  # in struct io_uring_params
SQE = struct.Struct("=BBHiQQIIQ24x")
FLAG_URING, FLAG_SEQ_VALID, FLAG_SEQ_AMBIGUOUS = 0x0200, 1, 2  # dt_records.h: DT_RECORD_*
FIRST_BYTES = 101  # of the first message

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _system_call(number: int, *arguments: object) -> int:
    n = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if n < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return n


class Ring:
    """One request at a time. Raises OSError where io_uring is not there or switched off."""

    def __init__(self) -> None:
        params = ctypes.create_string_buffer(PARAMS_BYTES)
        self._fd = _system_call(SETUP, ctypes.c_uint(ENTRIES), params)
        try:
            sq_entries, cq_entries, *_flags, features = struct.unpack_from("=6I", params)
            if not features & FEATURE_SINGLE_MMAP:
                raise OSError("this kernel's io_uring is older than 5.4")
            self._sq = struct.unpack_from("=7I", params, SQ_OFFSETS_AT)  # head, tail, mask, entries, flags, dropped, array
            self._cq = struct.unpack_from("=6I", params, CQ_OFFSETS_AT)  # head, tail, mask, entries, overflow, cqes
            size = max(self._sq[6] + 4 * sq_entries, self._cq[5] + CQE_BYTES * cq_entries)
            self._rings = mmap.mmap(self._fd, size)
            self._entries = mmap.mmap(self._fd, SQE_BYTES * sq_entries, offset=OFFSET_SQES)
        except BaseException:
            os.close(self._fd)
            raise

    def do(self, opcode: int, fd: int, buffer: ctypes.Array[ctypes.c_char]) -> int:
        """Submit a request and wait for it; its result. Raises OSError."""
        SQE.pack_into(self._entries, 0, opcode, 0, 0, fd, 0, ctypes.addressof(buffer), len(buffer), 0, opcode)
        tail = self._get(self._sq[1])
        self._put(self._sq[6] + 4 * (tail & self._get(self._sq[2])), 0)
        self._put(self._sq[1], tail + 1)
        _system_call(ENTER, ctypes.c_uint(self._fd), ctypes.c_uint(1), ctypes.c_uint(1), ctypes.c_uint(ENTER_GETEVENTS), None, 0)
        head = self._get(self._cq[0])
        _user_data, result = struct.unpack_from("=Qi", self._rings, self._cq[5] + CQE_BYTES * (head & self._get(self._cq[2])))
        self._put(self._cq[0], head + 1)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return int(result)

    def close(self) -> None:
        self._entries.close()
        self._rings.close()
        os.close(self._fd)

    def _get(self, at: int) -> int:
        return int(struct.unpack_from("=I", self._rings, at)[0])

    def _put(self, at: int, value: int) -> None:
        struct.pack_into("=I", self._rings, at, value & 0xFFFFFFFF)


def move(pair: Pair) -> list[Truth]:
    """Send and receive ROUNDS messages over a stream. Raises OSError where that cannot be done."""
    truths: list[Truth] = []
    ring = Ring()
    try:
        for number in range(ROUNDS):
            data = message(1000 + number, FIRST_BYTES + number)
            out, back = ctypes.create_string_buffer(data, len(data)), ctypes.create_string_buffer(len(data))
            began_ns = time.monotonic_ns()
            _whole(ring.do(OP_SEND, pair.client.fileno(), out), data)
            sent_ns = time.monotonic_ns()
            truths.append(_truth("sendto", EGRESS_DIRECTION, pair, data, began_ns, sent_ns))
            pair.wait_arrived(len(data))
            began_ns = time.monotonic_ns()
            _whole(ring.do(OP_RECV, pair.server.fileno(), back), data)
            truths.append(_truth("recvfrom", INGRESS_DIRECTION, pair, data, began_ns, time.monotonic_ns()))
            pair.sent_bytes += len(data)
    finally:
        ring.close()
    return truths


def _truth(call: str, direction: int, pair: Pair, data: bytes, began_ns: int, ended_ns: int) -> Truth:
    end = pair.client_end if direction == EGRESS_DIRECTION else pair.server_end
    return Truth(call, direction, pair, end, data, len(data), pair.sent_bytes, 0, began_ns, ended_ns)


def _whole(n: int, data: bytes) -> None:
    if n != len(data):
        raise OSError(f"io_uring moved {n} of {len(data)} bytes")


def judge_requests(truths: list[Truth], records: list[Record], netns: int) -> str:
    """The first thing that is wrong; empty when all is right. Payload may be missing, where the kernel does not allow more."""
    found = [record for record in records if record["kind"] == DATA and record["flags"] & FLAG_URING]
    if len(found) != len(truths):
        return f"io_uring: {len(truths)} messages were moved, {len(found)} recorded"
    bases = Counter((found[i].position - truths[i].offset) & 0xFFFFFFFF for i in range(len(truths)))
    for i, record in enumerate(found):
        difference = _difference(truths[i], record, netns, bases.most_common(1)[0][0])
        if difference:
            return f"io_uring {truths[i].call}: {difference}"
    return ""


def _difference(truth: Truth, record: Record, netns: int, base: int) -> str:
    for what, expected, got in facts(truth, record, netns):
        if expected != got and not (what == "payload" and not got):
            return f"wrong {what}: {shown(got)} instead of {shown(expected)}"
    if not truth.began_ns <= record["enter_ns"] <= record["exit_ns"] <= truth.ended_ns:
        return "the times of submission and completion do not lie around the call"
    proven = record["flags"] & (FLAG_SEQ_VALID | FLAG_SEQ_AMBIGUOUS) == FLAG_SEQ_VALID
    if proven and (record.position - truth.offset) & 0xFFFFFFFF != base:
        return "wrong position in the stream"
    return ""
