"""The span as correlation sees it: one row of numbers, text and addresses hashed. Made from a batch without a loop over spans."""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from deeptrace.model import ATTRIBUTE_NAMES, SpanBatch

U64 = npt.NDArray[np.uint64]

SERVER, CLIENT, PRODUCER, CONSUMER = 1, 2, 3, 4
SEQ_AMBIGUOUS = 0x10  # dt_span.h DT_SPAN_SEQ_AMBIGUOUS
INCOMPLETE = 0x08  # dt_span.h DT_SPAN_INCOMPLETE
MID_STREAM = 0x04  # dt_span.h DT_SPAN_MID_STREAM
SEQ_UNIX = 3  # dt_span.h DT_SEQ_UNIX

WINDOW_DTYPE = np.dtype(
    [
        ("span_id", "<u8"),
        ("start_ns", "<i8"),
        ("request_end_ns", "<i8"),
        ("response_start_ns", "<i8"),  # 0: no response
        ("end_ns", "<i8"),
        ("connect_ns", "<i8"),
        ("process", "<u8"),  # host's boot and pid, hashed; 0: not known
        ("connection", "<u8"),
        ("tuple", "<u8"),  # client and server address and port, hashed: equal at both ends unless addresses were translated
        ("traceparent_trace", "<u8"),  # hashes of ids that travel; 0: none
        ("traceparent_hop", "<u8"),
        ("b3_trace", "<u8"),
        ("b3_hop", "<u8"),
        ("request_id", "<u8"),
        ("arrived_ns", "<i8"),
        ("group_id", "<u8"),
        ("req_tid", "<u4"),
        ("resp_tid", "<u4"),
        ("connect_tid", "<u4"),
        ("req_seq", "<u4"),
        ("resp_seq", "<u4"),
        ("stream_id", "<u4"),
        ("request_bytes", "<u4"),
        ("response_bytes", "<u4"),
        ("flags", "<u2"),
        ("kind", "u1"),
        ("seq_space", "u1"),
        # what the assembler has made of it
        ("parent_id", "<u8"),
        ("root_id", "<u8"),
        ("confidence", "<f4"),
        ("method", "u1"),
        ("published", "u1"),
        ("settled", "u1"),
        ("root_is_call", "u1"),  # 1: at the top of its trace stands a call whose caller is not known
    ]
)
_COPIED = ("span_id", "req_tid", "resp_tid", "connect_tid", "req_seq", "resp_seq", "stream_id", "flags", "kind", "seq_space")
_TIMES = ("start_ns", "request_end_ns", "response_start_ns", "end_ns", "connect_ns")
_KEYS = {name: key for key, name in ATTRIBUTE_NAMES.items()}
_MAPPED = np.frombuffer(bytes(10) + b"\xff\xff", np.uint8)
_MAX_HASHED = 2048  # bytes of one id; longer than any that the core lets through


class Columns:
    """A window's rows by column, each copied to contiguous memory when first asked for: rows are 180 bytes wide, and passing over
    one column of them again and again took most of the time. Read only."""

    def __init__(self, rows: npt.NDArray[np.void]) -> None:
        self._rows = rows
        self._columns: dict[str, npt.NDArray[Any]] = {}

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        column = self._columns.get(name)
        if column is None:
            column = self._columns[name] = np.ascontiguousarray(self._rows[name])
        return column

    def __len__(self) -> int:
        return len(self._rows)


def rows_of(batch: SpanBatch, group_id: int, now_ns: int) -> npt.NDArray[np.void]:
    """Rows of a batch, WINDOW_DTYPE (n,), in its order."""
    spans = batch.spans
    rows = np.zeros(len(spans), WINDOW_DTYPE)
    for name in _COPIED:
        rows[name] = spans[name]
    for name in _TIMES:
        rows[name] = spans[name].astype(np.int64)
    boot = text_hash(batch.boot_id or batch.host)
    processes = np.array([text_hash(f"{boot}/{p.pid}") if p.pid else 0 for p in batch.processes] or [0], np.uint64)
    rows["process"] = np.where(spans["pid"] > 0, processes[spans["process"]], 0) if len(spans) else 0
    rows["connection"] = mix(spans["connection_id"].astype(np.uint64), np.uint64(boot))
    for name in ("request_bytes", "response_bytes"):
        rows[name] = spans[name].astype(np.uint32)  # mod 2^32: only compared
    rows["tuple"] = _tuple_hash(spans, boot)
    rows["arrived_ns"] = now_ns
    rows["group_id"] = group_id
    _add_ids(rows, batch)
    return rows


def text_hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def mix(a: U64, b: U64 | np.uint64) -> U64:
    """Hash pairs of numbers (the finaliser of splitmix64)."""
    with np.errstate(over="ignore"):
        z = a * np.uint64(0x9E3779B97F4A7C15) + b
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        result: U64 = z ^ (z >> np.uint64(31))
    return result


_WEIGHTS: U64 = mix(np.arange(_MAX_HASHED, dtype=np.uint64), np.uint64(0x5851F42D4C957F2D)) | np.uint64(1)


def _tuple_hash(spans: npt.NDArray[np.void], boot: int) -> U64:
    """Client end and server end, hashed. A loopback address means something only within its network namespace, a unix socket
    only on its host."""
    local, peer = _end_hash(spans, "local"), _end_hash(spans, "peer")
    is_server = (spans["kind"] == SERVER) | (spans["kind"] == CONSUMER)
    result = mix(np.where(is_server, peer, local), np.where(is_server, local, peer))
    here = mix(spans["netns"].astype(np.uint64), np.uint64(boot))
    result = np.where(_is_loopback(spans["peer_addr"]), mix(result, here), result)
    return np.where(spans["seq_space"] == SEQ_UNIX, mix(result, np.uint64(boot)), result)


def _end_hash(spans: npt.NDArray[np.void], side: str) -> U64:
    halves = np.ascontiguousarray(spans[f"{side}_addr"]).view("<u8").reshape(-1, 2)
    return mix(mix(halves[:, 0], halves[:, 1]), spans[f"{side}_port"].astype(np.uint64))


def _is_loopback(addresses: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    v4 = (addresses[:, :12] == _MAPPED).all(axis=1) & (addresses[:, 12] == 127)
    v6 = (addresses[:, :15] == 0).all(axis=1) & (addresses[:, 15] == 1)
    result: npt.NDArray[np.bool_] = v4 | v6
    return result


def _add_ids(rows: npt.NDArray[np.void], batch: SpanBatch) -> None:
    """Fill the columns of ids that travel."""
    keys = batch.attributes["key"]
    wanted = np.isin(keys, [_KEYS["traceparent"], _KEYS["b3"], _KEYS["x-request-id"]])
    if not wanted.any():
        return
    counts = batch.spans["attr_count"].astype(np.int64)
    first = batch.spans["attr_first"].astype(np.int64)
    ends = np.cumsum(counts)
    attribute = np.repeat(first - (ends - counts), counts) + np.arange(int(ends[-1]) if len(ends) else 0)
    owner = np.repeat(np.arange(len(rows)), counts)
    chosen = wanted[attribute]
    attribute, owner = attribute[chosen], owner[chosen]
    key, text = keys[attribute], batch.attributes["text"][attribute]
    at = batch.string_at.astype(np.int64)
    sizes = at[1:] - at[:-1]
    for name, prefix, offset in (("traceparent", "traceparent", 3), ("b3", "b3", 0)):
        mine = key == _KEYS[name]
        trace_size = _trace_size(batch, text[mine], offset, sizes)
        ok = trace_size > 0
        who, what, size = owner[mine][ok], text[mine][ok], trace_size[ok]
        rows[f"{prefix}_trace"][who] = _hash_text(batch, what, offset, size)
        rows[f"{prefix}_hop"][who] = _hash_text(batch, what, offset, size + 17)  # "-" and the 16 digits of the span
    mine = (key == _KEYS["x-request-id"]) & (sizes[text] > 0)
    rows["request_id"][owner[mine]] = _hash_text(batch, text[mine], 0, np.minimum(sizes[text[mine]], _MAX_HASHED))


def _trace_size(batch: SpanBatch, text: npt.NDArray[np.uint32], offset: int, sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Digits of the trace id in "<trace>-<span>..." from `offset` on: 32 or (b3 only) 16; 0 if the text is something else."""
    at = batch.string_at.astype(np.int64)[text] + offset
    left = sizes[text] - offset
    data = batch.string_bytes
    result = np.zeros(len(text), np.int64)
    for digits in (32,) if offset else (32, 16):
        fits = (left >= digits + 17) & (result == 0)
        fits[fits] = data[at[fits] + digits] == ord("-")
        result[fits] = digits
    return result


def _hash_text(batch: SpanBatch, text: npt.NDArray[np.uint32], offset: int, size: npt.NDArray[np.int64]) -> U64:
    """Hash of `size` bytes from `offset` on of each string; size > 0. Never 0."""
    if len(text) == 0:
        return np.zeros(0, np.uint64)
    ends = np.cumsum(size)
    begins = ends - size
    position = np.arange(int(ends[-1])) - np.repeat(begins, size)
    at = np.repeat(batch.string_at.astype(np.int64)[text] + offset, size) + position
    with np.errstate(over="ignore"):
        terms = (batch.string_bytes[at].astype(np.uint64) + np.uint64(1)) * _WEIGHTS[position]
        sums = np.add.reduceat(terms, begins)
    return mix(sums, size.astype(np.uint64)) | np.uint64(1)
