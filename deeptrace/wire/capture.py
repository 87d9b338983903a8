"""The record file (.dtcap): what the rings delivered, so that it can be parsed again later. Parses no payload, reads no clock.

Layout (all numbers little endian; docs/captures.md explains it to users):
  file   = MAGIC, u16 major, u16 minor, u32 size of JSON, u32 crc32 of JSON, JSON (CaptureInfo and the record layout), frame*
  frame  = FRAME header (its crc32 covers the header before it and the stored body), stored body
  bodies = RECORDS: n records, then their payloads one after another; PROCESSES and END: JSON
The layout describes itself by field names, so readers and writers of neighbouring versions understand each other.
"""

import contextlib
import dataclasses
import errno
import os
import pathlib
import stat
import struct
import zlib
from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import zstandard

from deeptrace.core.wire import RECORD_DTYPE, layout_hash
from deeptrace.errors import CaptureError
from deeptrace.model import ProcessInfo
from deeptrace.wire.layout import FieldInfo, convert_records, describe_dtype, stored_dtype

MAGIC = b"DTCAP\r\n\x1a"  # line ends and Ctrl-Z: a transfer that changes text is seen at once
VERSION = (1, 0)  # major: another meaning, refused; minor: read from two back to one ahead
MINOR_BACK, MINOR_AHEAD = 2, 1

HEADER = struct.Struct("<8sHHII")
FRAME = struct.Struct("<4sBBHIIIQ")  # magic, kind, packing, 0, n, raw size, stored size, drained_ns; then u32 crc32
FRAME_MAGIC = b"DTfr"
CRC = struct.Struct("<I")
RECORDS, PROCESSES, END = 1, 2, 3  # frame kinds; readers skip kinds that they do not know
PLAIN, ZSTD = 0, 1  # packing of a body

MAX_METADATA_BYTES = 1 << 20  # the real one has 3 KiB; a larger one is a damaged size field
MAX_FRAME_BYTES = 64 << 20  # bounds the reader's memory; the writer splits what is larger
SPLIT_BYTES = 16 << 20  # of one written frame, give or take one record
MAX_PAYLOAD = 16384  # DT_MAX_PAYLOAD of dt_records.h
ZSTD_LEVEL = 1  # recording competes with what it watches: level 3 packs 4 % better at 1.6 times the time

Records = npt.NDArray[np.void]
Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.uint32]
Row = TypeVar("Row", bound=msgspec.Struct)


@dataclasses.dataclass(frozen=True)
class RecordFrame:
    """What one drain of the rings delivered. records: RECORD_DTYPE (n,); the payload of record i is
    payload[offsets[i] : offsets[i] + records["payload_len"][i]]; drained_ns: clock of the records."""

    drained_ns: int
    records: Records
    payload: Bytes
    offsets: Offsets


class CaptureInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a whole recording. clock_offset_ns: what turns its times into Unix time; created_ns: Unix ns;
    capture_start_ns: clock of the records when the probes were armed (0: not known)."""

    host: str = ""
    boot_id: str = ""
    clock_offset_ns: int = 0
    capture_start_ns: int = 0
    created_ns: int = 0
    redacted: bool = False
    written_by: str = ""


class _Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON of the file header."""

    info: CaptureInfo
    record_size: int
    record_fields: list[FieldInfo]
    layout: str = ""


def is_capture(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a record file."""
    return head.startswith(MAGIC)


class CaptureWriter:
    """Writes a record file. The file belongs to its owner alone (mode 0600): payload is as private as the traffic."""

    def __init__(self, path: str | os.PathLike[str], info: CaptureInfo | None = None) -> None:
        """Create the file, empty until begin(); with `info` that is done at once. Raises CaptureError."""
        self.path = os.fspath(path)
        self.written_bytes = 0
        self.n_records = 0
        self._packer = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        self._file = _create_private(self.path)
        if info is not None:
            self.begin(info)

    def begin(self, info: CaptureInfo) -> None:
        """Write the file's header. Once, before anything else."""
        fields = describe_dtype(RECORD_DTYPE)
        metadata = msgspec.json.encode(
            _Metadata(info=info, record_size=RECORD_DTYPE.itemsize, record_fields=fields, layout=layout_hash(RECORD_DTYPE))
        )
        self._write(HEADER.pack(MAGIC, *VERSION, len(metadata), zlib.crc32(metadata)) + metadata)

    def write(self, frame: RecordFrame) -> None:
        """Append one frame. Raises CaptureError when the disk refuses it; what was written before stays readable."""
        sizes = frame.records["payload_len"].astype(np.int64)
        ends = np.cumsum(sizes + RECORD_DTYPE.itemsize)
        first = 0
        while first < len(frame.records):
            base = int(ends[first - 1]) if first else 0
            last = max(first + 1, int(np.searchsorted(ends, base + SPLIT_BYTES, side="right")))
            records = np.ascontiguousarray(frame.records[first:last])
            payload = gather(frame.payload, frame.offsets[first:last], sizes[first:last])
            self._frame(RECORDS, last - first, frame.drained_ns, records.tobytes() + payload.tobytes())
            first = last
        self.n_records += len(frame.records)

    def write_processes(self, processes: list[ProcessInfo]) -> None:
        """Append what is known of processes; a later row of the same pid replaces an earlier one."""
        if processes:
            self._frame(PROCESSES, len(processes), 0, msgspec.json.encode(processes))

    def close(self, counters: dict[str, int] | None = None) -> None:
        """End the file; counters (of counters.def, by name) say what the recording lost. A second call does nothing."""
        if self._file.closed:
            return
        try:
            self._frame(END, 0, 0, msgspec.json.encode(counters or {}))
        finally:
            self.abandon()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _frame(self, kind: int, n: int, drained_ns: int, body: bytes) -> None:
        packed = self._packer.compress(body)
        packing = ZSTD if len(packed) < len(body) else PLAIN
        stored = packed if packing == ZSTD else body
        head = FRAME.pack(FRAME_MAGIC, kind, packing, 0, n, len(body), len(stored), drained_ns)
        self._write(head + CRC.pack(zlib.crc32(stored, zlib.crc32(head))) + stored)

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
            self._file.flush()  # what a killed recorder wrote is there to be read
        except OSError as e:
            raise self._refused(e) from e
        self.written_bytes += len(data)

    def _refused(self, e: OSError) -> CaptureError:
        return CaptureError(f"cannot write {self.path}: {e.strerror}; what was written before can be replayed")

    def abandon(self) -> None:
        """Close the file without its end. After close() it does nothing."""
        with contextlib.suppress(OSError):  # the descriptor is closed even when the last bytes cannot be written
            self._file.close()


class CaptureReader:
    """Reads a record file from its beginning. Everything before a damaged place is delivered, then CaptureError is raised."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.processes: dict[int, ProcessInfo] = {}  # by pid, filled as frames are read
        self.counters: dict[str, int] = {}  # of the recording, once its end was read
        self.is_complete = False  # whether the end was read: False for a recorder that was killed
        try:
            self._file: BinaryIO = pathlib.Path(path).open("rb")  # noqa: SIM115 - closed by close()
        except OSError as e:
            raise CaptureError(f"cannot read {self.path}: {e.strerror}") from e
        self._at = 0
        self._unpacker = zstandard.ZstdDecompressor()
        metadata = self._metadata()
        self.info = _printable(metadata.info)
        self.fields = metadata.record_fields
        try:
            self._dtype = stored_dtype(metadata.record_fields, metadata.record_size)
            self.skipped_fields, self.missing_fields = convert_records(np.zeros(0, self._dtype), RECORD_DTYPE)[1:]
        except CaptureError as e:
            raise CaptureError(f"{self.path}: {e}") from e

    def frames(self) -> Iterator[RecordFrame]:
        """The frames of records in the order of writing. Raises CaptureError naming the offset of a damaged frame."""
        while True:
            start = self._at
            kind, n, drained_ns, body = self._body()
            if kind is None:
                return
            try:
                if kind == RECORDS:
                    yield self._records(n, drained_ns, body)
                elif kind == PROCESSES:
                    rows = msgspec.json.decode(body, type=list[ProcessInfo])
                    self.processes.update((row.pid, _printable(row)) for row in rows)
                elif kind == END:
                    self.counters = msgspec.json.decode(body, type=dict[str, int])
                    self.is_complete = True
            except (msgspec.DecodeError, ValueError) as e:
                raise CaptureError(f"{self.path}: damaged at byte {start}: {e}; everything before it was read") from e

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _metadata(self) -> _Metadata:
        head = self._file.read(HEADER.size)
        if len(head) < HEADER.size or not is_capture(head):
            raise CaptureError(f"{self.path} is no record file of DeepTrace: it does not begin with its mark")
        _, major, minor, size, crc = HEADER.unpack(head)
        if major != VERSION[0] or not VERSION[1] - MINOR_BACK <= minor <= VERSION[1] + MINOR_AHEAD:
            raise CaptureError(
                f"{self.path} has format {major}.{minor}; this DeepTrace reads {VERSION[0]}.{max(0, VERSION[1] - MINOR_BACK)} "
                f"to {VERSION[0]}.{VERSION[1] + MINOR_AHEAD}: use the version that wrote it, or a neighbouring one"
            )
        text = self._file.read(size) if size <= MAX_METADATA_BYTES else b""
        self._at = HEADER.size + size
        if len(text) < size or zlib.crc32(text) != crc:
            raise CaptureError(f"{self.path}: damaged at byte {HEADER.size}: its description is cut or changed")
        try:
            return msgspec.json.decode(text, type=_Metadata)
        except msgspec.DecodeError as e:
            raise CaptureError(f"{self.path}: damaged at byte {HEADER.size}: {e}") from e

    def _body(self) -> tuple[int | None, int, int, bytes]:
        """The next frame as (kind, n, drained_ns, body); kind is None at the end of the file."""
        start = self._at
        head = self._file.read(FRAME.size + CRC.size)
        if not head:
            return None, 0, 0, b""
        if len(head) < FRAME.size + CRC.size:
            raise self._damaged(start, "the file ends inside a frame")
        magic, kind, packing, _, n, raw_size, stored_size, drained_ns = FRAME.unpack_from(head)
        if magic != FRAME_MAGIC or raw_size > MAX_FRAME_BYTES or stored_size > raw_size or packing not in (PLAIN, ZSTD):
            raise self._damaged(start, "no frame begins here")
        stored = self._file.read(stored_size)
        if len(stored) < stored_size:
            raise self._damaged(start, "the file ends inside a frame")
        if zlib.crc32(stored, zlib.crc32(head[: FRAME.size])) != CRC.unpack_from(head, FRAME.size)[0]:
            raise self._damaged(start, "the checksum of the frame does not match")
        self._at = start + len(head) + stored_size
        try:
            body = self._unpacker.decompress(stored, max_output_size=raw_size) if packing == ZSTD else stored
        except zstandard.ZstdError as e:
            raise self._damaged(start, str(e)) from e
        if len(body) != raw_size:
            raise self._damaged(start, "the frame has another size than it says")
        return kind, n, drained_ns, body

    def _records(self, n: int, drained_ns: int, body: bytes) -> RecordFrame:
        """Raises ValueError for a body that contradicts itself: later stages trust the sizes."""
        size = n * self._dtype.itemsize
        if size > len(body):
            raise ValueError("fewer bytes than records")
        records = convert_records(np.frombuffer(body, self._dtype, n), RECORD_DTYPE)[0]
        sizes = records["payload_len"].astype(np.int64)
        if size + int(sizes.sum()) != len(body) or (n and int(sizes.max()) > MAX_PAYLOAD):
            raise ValueError("the sizes of payloads do not add up")
        payload = np.frombuffer(bytearray(memoryview(body)[size:]), np.uint8)
        return RecordFrame(drained_ns, records, payload, (np.cumsum(sizes) - sizes).astype(np.uint32))

    def _damaged(self, offset: int, why: str) -> CaptureError:
        return CaptureError(f"{self.path}: damaged at byte {offset}: {why}; everything before it was read")


def _printable(row: Row) -> Row:
    """The struct with what is not printable in its texts replaced: a file from elsewhere must not write to a terminal."""
    texts = {name: value for name, value in msgspec.structs.asdict(row).items() if isinstance(value, str)}
    bad = {name: value for name, value in texts.items() if not value.isprintable()}
    clean = {name: "".join(c if c.isprintable() else "\ufffd" for c in value) for name, value in bad.items()}
    return msgspec.structs.replace(row, **clean) if clean else row


def gather(payload: Bytes, offsets: Offsets, sizes: npt.NDArray[np.int64]) -> Bytes:
    """The payloads one after another; a view when they lie so already."""
    if len(sizes) == 0:
        return payload[:0]
    starts = offsets.astype(np.int64)
    if np.array_equal(starts[1:], starts[:-1] + sizes[:-1]):
        return payload[starts[0] : starts[-1] + sizes[-1]]
    packed = np.cumsum(sizes) - sizes
    return payload[np.repeat(starts - packed, sizes) + np.arange(int(sizes.sum()))]


def _create_private(path: str) -> BinaryIO:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)  # non-blocking: never wait on a pipe
    except OSError as e:
        raise CaptureError(f"cannot write {path}: {e.strerror}") from e
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        os.fchmod(fd, 0o600)  # before the first byte, also for a file that was there with a wider mode
        os.ftruncate(fd, 0)
    except OSError as e:
        os.close(fd)
        raise CaptureError(f"cannot write {path}: {e.strerror}") from e
    return os.fdopen(fd, "wb", buffering=1 << 20)
