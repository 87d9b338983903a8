"""SpanBatch to and from the Batch message: one compressed, self-describing column per field.

Knows no transport. A hostile message costs at most MAX_BATCH_BYTES of memory and ends in WireError; unknown columns are skipped
and counted, missing ones are zero, a known column of another type is refused.
"""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import zstandard

from deeptrace.core.wire import ATTRIBUTE_DTYPE, SPAN_DTYPE, layout_hash
from deeptrace.errors import WireError
from deeptrace.model import ProcessInfo, SpanBatch
from deeptrace.wire import deeptrace_pb2 as pb

SHIP_METHOD = "/deeptrace.v1.Collector/Ship"
PROTOCOL_MAJOR = 1
PROTOCOL_MINOR = 0
MINORS_BEHIND = 2  # a server reads agents from two minor versions back to one ahead
MINORS_AHEAD = 1
MAX_MESSAGE_BYTES = 64 << 20  # of one gRPC message; the largest batch (2**20 spans) stays below it
MAX_BATCH_SPANS = 1 << 20  # what ship.batch_spans may be set to
MAX_BATCH_ATTRIBUTES = 1 << 24  # 16 per span of the largest batch; spans of today's protocols have 3 to 10
MAX_BATCH_BYTES = 1 << 29  # decompressed; 2**20 spans with ten attributes and 100 bytes of own text take 400 MB
MAX_STRING_BYTES = 1 << 14  # four times what one message's attributes take together in the core
MAX_PROCESSES = 1 << 16  # distinct processes seen in one batch; a host has fewer
MAX_COLUMNS = 256  # per table, unknown ones included; dt_span has 37 fields
ZSTD_LEVEL = 3  # README.md: level 1 gives 8 % more bytes in the same time, level 6 none less in thrice the time
_PLAIN, _SHUFFLE, _DELTA_SHUFFLE = pb.Encoding.PLAIN, pb.Encoding.SHUFFLE, pb.Encoding.DELTA_SHUFFLE

_ENCODINGS: dict[str, pb.Encoding] = {
    "span_id": _PLAIN, "connection_id": _PLAIN, "local_addr": _PLAIN, "peer_addr": _PLAIN, "req_seq": _PLAIN, "resp_seq": _PLAIN,
    "local_port": _PLAIN, "peer_port": _PLAIN, "byte": _PLAIN,
    "start_ns": _DELTA_SHUFFLE, "request_end_ns": _DELTA_SHUFFLE, "response_start_ns": _DELTA_SHUFFLE, "end_ns": _DELTA_SHUFFLE,
    "attr_first": _DELTA_SHUFFLE, "text": _DELTA_SHUFFLE,
}  # fmt: skip
# By measurement (README.md); a column that is not named here is sent as SHUFFLE.

_STRING_DTYPE = np.dtype([("size", "<u4")])
_BYTE_DTYPE = np.dtype([("byte", "u1")])
_TYPE = re.compile(r"([<|][iu][1248])(?:\[([0-9]{1,4})\])?")


@dataclass(frozen=True)
class Encoded:
    """A batch ready to be sent. raw_bytes, wire_bytes: of its columns before and after compression."""

    message: pb.Batch
    raw_bytes: int
    wire_bytes: int


@dataclass(frozen=True)
class Decoded:
    """A received batch. columns_skipped: columns that this build does not know."""

    batch: SpanBatch
    raw_bytes: int
    wire_bytes: int
    columns_skipped: int


def version() -> pb.Version:
    """The version of the protocol that this build speaks."""
    return pb.Version(major=PROTOCOL_MAJOR, minor=PROTOCOL_MINOR)


def refusal(peer: pb.Version) -> str:
    """Why a server of this build cannot talk to an agent of that version; empty if it can."""
    if peer.major == PROTOCOL_MAJOR and PROTOCOL_MINOR - MINORS_BEHIND <= peer.minor <= PROTOCOL_MINOR + MINORS_AHEAD:
        return ""
    return (
        f"the agent speaks protocol {peer.major}.{peer.minor}, this server {PROTOCOL_MAJOR}.{PROTOCOL_MINOR}; "
        f"install the same version of deeptrace on both"
    )


def encode(batch: SpanBatch, sequence: int) -> Encoded:
    """Make the message of a batch. sequence: 1 and up. The arrays are only read."""
    compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=False)
    sizes = np.diff(batch.string_at).astype(np.uint32).view(_STRING_DTYPE)
    message = pb.Batch(
        sequence=sequence,
        host=batch.host,
        boot_id=batch.boot_id,
        spans=_encode_table(batch.spans, compressor),
        attributes=_encode_table(batch.attributes, compressor),
        strings=_encode_table(sizes, compressor),
        string_bytes=_encode_table(np.ascontiguousarray(batch.string_bytes).view(_BYTE_DTYPE), compressor),
        processes=[_process_message(p) for p in batch.processes],
        layout_hash=layout_hash(SPAN_DTYPE),
    )
    tables = (message.spans, message.attributes, message.strings, message.string_bytes)
    raw_bytes = batch.spans.nbytes + batch.attributes.nbytes + sizes.nbytes + batch.string_bytes.nbytes
    return Encoded(message, raw_bytes, sum(len(c.data) for table in tables for c in table.columns))


def decode(message: pb.Batch) -> Decoded:
    """Read a message from anyone. Raises WireError; the result's references are all in range."""
    reader = _Reader()
    if message.spans.rows > MAX_BATCH_SPANS or message.attributes.rows > MAX_BATCH_ATTRIBUTES:
        raise WireError(f"a batch of {message.spans.rows} spans with {message.attributes.rows} attributes is over the limit")
    if len(message.processes) > MAX_PROCESSES:
        raise WireError(f"a batch names {len(message.processes)} processes; the limit is {MAX_PROCESSES}")
    spans = reader.table(message.spans, SPAN_DTYPE)
    attributes = reader.table(message.attributes, ATTRIBUTE_DTYPE)
    sizes = reader.table(message.strings, _STRING_DTYPE)["size"]
    string_bytes = reader.table(message.string_bytes, _BYTE_DTYPE).view(np.uint8)
    if int(sizes.sum(dtype=np.uint64)) != len(string_bytes) or len(sizes) == 0 or sizes[0] != 0:
        raise WireError("the string table of a batch does not fit its bytes")
    if int(sizes.max()) > MAX_STRING_BYTES:
        raise WireError(f"a batch has a string of {int(sizes.max())} bytes; the limit is {MAX_STRING_BYTES}")
    string_at = np.zeros(len(sizes) + 1, np.uint32)
    np.cumsum(sizes, out=string_at[1:])
    _check_references(spans, attributes, len(sizes), len(message.processes))
    if int(sizes[attributes["text"]].sum(dtype=np.uint64)) > MAX_BATCH_BYTES:
        raise WireError(f"the attributes of a batch are more than {MAX_BATCH_BYTES} bytes of text")
    processes = [_process_info(p) for p in message.processes]
    batch = SpanBatch(spans, attributes, string_at, string_bytes, processes, message.host, message.boot_id)
    return Decoded(batch, reader.raw_bytes, reader.wire_bytes, reader.columns_skipped)


def _process_message(process: ProcessInfo) -> pb.Process:
    return pb.Process(
        pid=process.pid,
        start_ns=process.start_ns or 0,
        comm=process.comm,
        service=process.service,
        container_id=process.container_id or "",
    )


def _process_info(message: pb.Process) -> ProcessInfo:
    return ProcessInfo(
        pid=message.pid,
        start_ns=message.start_ns or None,
        comm=message.comm,
        service=message.service,
        container_id=message.container_id or None,
    )


def _check_references(spans: npt.NDArray[np.void], attributes: npt.NDArray[np.void], n_strings: int, n_processes: int) -> None:
    """Raise WireError when a reference points outside its table."""
    if len(spans):
        last = spans["attr_first"].astype(np.uint64) + spans["attr_count"]
        outside = bool((spans["process"] >= n_processes).any() or (spans["name"] >= n_strings).any())
        outside |= bool((spans["error_type"] >= n_strings).any())
        outside |= bool((last[spans["attr_count"] > 0] > len(attributes)).any())
        # Each attribute row belongs to one span; shared rows would let a small batch unfold to any size.
        outside |= int(spans["attr_count"].sum(dtype=np.uint64)) > len(attributes)
        if outside:
            raise WireError("a span of a batch refers to a row that is not there")
    if len(attributes) and bool((attributes["text"] >= n_strings).any()):
        raise WireError("an attribute of a batch refers to a string that is not there")


def _type_text(dtype: np.dtype[np.generic]) -> str:
    base, shape = dtype.subdtype or (dtype, ())
    text = base.newbyteorder("<").str
    return text + (f"[{shape[0]}]" if shape else "")


def _type_bytes(text: str) -> int:
    """Bytes of one value of a column type. Raises WireError for what is not a type."""
    match = _TYPE.fullmatch(text)
    if match is None:
        raise WireError(f"a batch has a column of type {text[:20]!r}, which no build knows")
    return int(match[1][2]) * int(match[2] or 1)


def _encode_table(rows: npt.NDArray[np.void], compressor: zstandard.ZstdCompressor) -> pb.Table:
    table = pb.Table(rows=len(rows))
    if len(rows) == 0:
        return table
    for name in rows.dtype.names or ():
        dtype: np.dtype[np.generic] = rows.dtype.fields[name][0]  # type: ignore[index]
        encoding = _ENCODINGS.get(name, _SHUFFLE)
        data = compressor.compress(_pack(np.ascontiguousarray(rows[name]), encoding).tobytes())
        table.columns.add(name=name, type=_type_text(dtype), count=len(rows), encoding=encoding, data=data)
    return table


def _pack(values: npt.NDArray[np.generic], encoding: pb.Encoding) -> npt.NDArray[np.uint8]:
    """Column values as the bytes that go to zstd."""
    if encoding == _DELTA_SHUFFLE:
        unsigned = values.view(f"u{values.itemsize}")
        values = np.diff(unsigned, prepend=unsigned.dtype.type(0))
    flat = values.view(np.uint8)
    if encoding == _PLAIN:
        return flat.reshape(-1)
    return np.ascontiguousarray(flat.reshape(len(values), -1).T).reshape(-1)


def _unpack(data: npt.NDArray[np.uint8], dtype: np.dtype[np.generic], count: int, encoding: int) -> npt.NDArray[np.generic]:
    """The reverse of _pack. dtype: of the column, subarray included."""
    if encoding != _PLAIN:
        data = np.ascontiguousarray(data.reshape(dtype.itemsize, count).T).reshape(-1)
    if encoding == _DELTA_SHUFFLE:
        data = np.cumsum(data.view(f"u{dtype.itemsize}"), dtype=f"u{dtype.itemsize}").view(np.uint8)
    base, shape = dtype.subdtype or (dtype, ())
    return data.view(base).reshape((count, *shape))


class _Reader:
    """Decompresses the tables of one message within one bound for all of them."""

    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor()
        self.raw_bytes = 0
        self.wire_bytes = 0
        self.columns_skipped = 0

    def table(self, table: pb.Table, dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
        """All rows of a table. Raises WireError when a column is not what it says or the message is too large."""
        self._take(table.rows * dtype.itemsize)
        if len(table.columns) > MAX_COLUMNS:
            raise WireError(f"a table of a batch has {len(table.columns)} columns; the limit is {MAX_COLUMNS}")
        rows = np.zeros(table.rows, dtype)
        seen: set[str] = set()
        for column in table.columns:
            self.wire_bytes += len(column.data)
            if column.name not in (dtype.names or ()):
                self.columns_skipped += 1
                continue
            if column.name in seen:
                raise WireError(f"a batch has the column {column.name} twice")
            seen.add(column.name)
            rows[column.name] = self._column(column, dtype.fields[column.name][0], table.rows)  # type: ignore[index]
        return rows

    def _column(self, column: pb.Column, dtype: np.dtype[np.generic], rows: int) -> npt.NDArray[np.generic]:
        if column.type != _type_text(dtype):
            _type_bytes(column.type)
            raise WireError(f"the column {column.name} of a batch is {column.type}; this build knows it as {_type_text(dtype)}")
        if column.count != rows or column.encoding not in pb.Encoding.values():
            raise WireError(f"the column {column.name} of a batch has {column.count} values for {rows} rows")
        if column.encoding == _DELTA_SHUFFLE and dtype.itemsize not in (1, 2, 4, 8):
            raise WireError(f"the column {column.name} of a batch is encoded in a way that its type does not have")
        expected = rows * dtype.itemsize
        try:
            if zstandard.frame_content_size(column.data) != expected:
                raise WireError(f"the column {column.name} of a batch does not hold {rows} values")
            data = self._decompressor.decompress(column.data, max_output_size=expected, allow_extra_data=False)
        except zstandard.ZstdError as e:
            raise WireError(f"the column {column.name} of a batch does not decompress: {e}") from e
        return _unpack(np.frombuffer(data, np.uint8), dtype, rows, column.encoding)

    def _take(self, n_bytes: int) -> None:
        self.raw_bytes += n_bytes
        if self.raw_bytes > MAX_BATCH_BYTES:
            raise WireError(f"a batch is larger than {MAX_BATCH_BYTES} bytes when decompressed")
