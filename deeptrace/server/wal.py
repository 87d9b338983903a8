"""The write-ahead log: the group of batches that is being stored, and how far each agent has come. One file, replaced whole.

Written before the store sees the group; after a crash the group is stored again under the same token, which stores nothing if
it was there. Not synced to the disk: it holds against a killed process, not against a power cut, as the engine's own files do.
"""

import os
import pathlib
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import msgspec

from deeptrace.errors import StoreError

MAGIC = b"DTWAL001"
MAX_EPOCHS = 4  # runs of one agent that are remembered: an old run's stream can outlive the start of the next
MAX_AGENTS = 100_000  # marks are 60 bytes each and rewritten with every group
_HEAD = struct.Struct("<8sII")  # magic, bytes of the header, CRC-32 of all that follows


class Header(msgspec.Struct, kw_only=True):
    """What stands before the batches."""

    group_id: int
    marks: list[tuple[str, int, int]]  # agent id, start epoch, highest sequence, this group included
    sizes: list[int]  # bytes of each batch


@dataclass
class Marks:
    """Highest settled sequence by agent and epoch. Not for several threads at once."""

    by_agent: dict[str, dict[int, int]] = field(default_factory=dict)

    def get(self, agent_id: str, epoch_ns: int) -> int:
        return self.by_agent.get(agent_id, {}).get(epoch_ns, 0)

    def advance(self, agent_id: str, epoch_ns: int, sequence: int) -> None:
        """Remember a sequence; the oldest epochs of an agent and the agents unseen for longest are forgotten."""
        epochs = self.by_agent.pop(agent_id, {})
        epochs[epoch_ns] = max(sequence, epochs.get(epoch_ns, 0))
        while len(epochs) > MAX_EPOCHS:
            del epochs[min(epochs)]
        self.by_agent[agent_id] = epochs
        while len(self.by_agent) > MAX_AGENTS:
            del self.by_agent[next(iter(self.by_agent))]

    def rows(self) -> list[tuple[str, int, int]]:
        return [(agent, epoch, sequence) for agent, epochs in self.by_agent.items() for epoch, sequence in epochs.items()]

    def copy(self) -> "Marks":
        return Marks({agent: dict(epochs) for agent, epochs in self.by_agent.items()})


@dataclass(frozen=True)
class Logged:
    """What the log held at start. batches: serialised Batch messages of the last group."""

    group_id: int
    marks: Marks
    batches: list[bytes]


class WriteAheadLog:
    """The log file of one data folder."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._path = folder / "ingest.wal"

    def write(self, group_id: int, marks: Marks, batches: Sequence[bytes]) -> None:
        """Replace the log by this group; marks: as they will be once it is stored. Raises OSError; then the old log stands."""
        header = msgspec.msgpack.encode(Header(group_id=group_id, marks=marks.rows(), sizes=[len(b) for b in batches]))
        checksum = zlib.crc32(header)
        for batch in batches:
            checksum = zlib.crc32(batch, checksum)
        fresh = self._path.with_suffix(".new")
        with _open_private(fresh) as f:
            f.write(_HEAD.pack(MAGIC, len(header), checksum))
            f.write(header)
            f.writelines(batches)
        fresh.replace(self._path)

    def read(self) -> Logged | None:
        """The last group, or None if there is no log. Raises StoreError when the file is damaged."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            magic, size, checksum = _HEAD.unpack_from(data)
            if magic != MAGIC or zlib.crc32(data[_HEAD.size :]) != checksum:
                raise ValueError("its checksum is wrong")
            header = msgspec.msgpack.decode(data[_HEAD.size : _HEAD.size + size], type=Header)
        except (struct.error, ValueError, msgspec.MsgspecError) as e:
            raise StoreError(f"the log {self._path} is damaged ({e}); move it away to start without it") from e
        batches, at = [], _HEAD.size + size
        for size in header.sizes:
            batches.append(data[at : at + size])
            at += size
        marks = Marks()
        for agent_id, epoch_ns, sequence in header.marks:
            marks.advance(agent_id, epoch_ns, sequence)
        return Logged(header.group_id, marks, batches)


def replace_file(path: pathlib.Path, data: bytes) -> None:
    """Write a small file so that a reader sees the old or the new content, whole."""
    fresh = path.with_name(path.name + ".new")
    with _open_private(fresh) as f:
        f.write(data)
    fresh.replace(path)


def _open_private(path: pathlib.Path) -> BinaryIO:
    """A new file for its owner alone: spans hold paths and queries. What was left over is replaced, with its mode."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb")
