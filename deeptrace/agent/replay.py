"""Runs a recording or a packet capture through the pipeline that the agent runs. Reads no clock: the same file, the same spans."""

import os
import pathlib
from collections.abc import Iterator
from typing import Protocol

from deeptrace.config import Agent as AgentSettings
from deeptrace.core.batch import Batch
from deeptrace.core.counters import Counters
from deeptrace.core.pipeline import HOLD_NS, Pipeline, SpanRows
from deeptrace.core.wire import SPAN_KINDS
from deeptrace.counters import COUNTERS, by_name, events_lost
from deeptrace.errors import CaptureError
from deeptrace.model import ProcessInfo, SpanBatch
from deeptrace.registry import load_protocols
from deeptrace.wire.capture import CaptureInfo, CaptureReader, RecordFrame, is_capture
from deeptrace.wire.pcap import PacketCaptureReader, PacketStats, is_packet_capture

HEAD_BYTES = 16  # enough to tell the kinds of files apart
SPANS_PER_BATCH = 20000  # as the agent ships them
# In a packet capture a lost segment comes again after the sender's timeout: RFC 6298 starts at 1 s and doubles.
PACKET_HOLD_NS = 3_000_000_000
# Whatever was said before a packet capture began is taken as answered: the first request that it holds is the first.
PACKET_CAPTURE_START_NS = 1
SERVER = next(number for number, name in SPAN_KINDS.items() if name == "SERVER")

Ends = tuple[tuple[bytes, int], tuple[bytes, int]]


class Recording(Protocol):
    """A file that gives records: CaptureReader, or a packet capture in its clothes."""

    info: CaptureInfo
    processes: dict[int, ProcessInfo]
    counters: dict[str, int]

    def frames(self) -> Iterator[RecordFrame]: ...
    def close(self) -> None: ...


class PacketRecording:
    """A packet capture as a recording of unknown processes on an unknown host; its times are Unix ns already."""

    def __init__(self, path: str, swapped: frozenset[Ends] = frozenset()) -> None:
        self._reader = PacketCaptureReader(path, swapped=swapped)
        self.info = CaptureInfo(capture_start_ns=PACKET_CAPTURE_START_NS)
        self.processes: dict[int, ProcessInfo] = {}
        self.counters: dict[str, int] = {}

    @property
    def stats(self) -> PacketStats:
        return self._reader.stats

    def frames(self) -> Iterator[RecordFrame]:
        return self._reader.frames()

    def close(self) -> None:
        self._reader.close()


def open_recording(path: str | os.PathLike[str], swapped: frozenset[Ends] = frozenset()) -> CaptureReader | PacketRecording:
    """A .dtcap, .pcap or .pcapng file, told by its first bytes. Raises CaptureError."""
    try:
        with pathlib.Path(path).open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as e:
        raise CaptureError(f"cannot read {os.fspath(path)}: {e.strerror}") from e
    if is_packet_capture(head):
        return PacketRecording(os.fspath(path), swapped)
    if is_capture(head):
        return CaptureReader(path)
    what = "is empty" if not head else "is none of .dtcap, .pcap and .pcapng"
    if head.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ")):
        what = "is compressed; unpack it first"
    raise CaptureError(f"{os.fspath(path)} {what}")


class Replay:
    """Spans of one recording. After batches() has ended: n_records, counters (of the parsing stages, by name)."""

    def __init__(self, recording: Recording, settings: AgentSettings) -> None:
        self.recording = recording
        self.n_records = 0
        self._counters = Counters()
        self._pipeline = Pipeline(
            protocols=load_protocols(),
            boot_id=recording.info.boot_id,
            counters=self._counters,
            request_timeout_ns=int(settings.request_timeout_s * 1e9),
            hold_ns=PACKET_HOLD_NS if isinstance(recording, PacketRecording) else HOLD_NS,
            idle_ns=int(settings.flow_idle_s * 1e9),
            max_flows=settings.max_flows,
            capture_start_ns=recording.info.capture_start_ns,
        )

    def batches(self) -> Iterator[SpanBatch]:
        """Spans in the order in which they ended. A damaged file gives those before the damage, then raises CaptureError."""
        damage: CaptureError | None = None
        now_ns = 0
        try:
            for frame in self.recording.frames():
                self.n_records += len(frame.records)
                now_ns = max(now_ns, frame.drained_ns)
                self._pipeline.feed(Batch.from_arrays(frame.records, frame.payload, frame.offsets), now_ns)
                if self._pipeline.gauges()["spans_waiting"] >= SPANS_PER_BATCH:
                    yield self._take()
        except CaptureError as e:
            damage = e
        self._pipeline.finish(now_ns)
        yield self._take()
        if damage is not None:
            raise damage

    @property
    def counters(self) -> dict[str, int]:
        """Of the parsing stages, and the records that came from the file, which stands for the rings."""
        return by_name(self._counters.values) | {"records_decoded": self.n_records}

    @property
    def gauges(self) -> dict[str, int]:
        """What the stages hold, for the ledger."""
        return self._pipeline.gauges()

    @property
    def losses(self) -> dict[str, int]:
        """What these stages lost, by the sentence of its counter."""
        return {COUNTERS[name].help: n for name, n in self.counters.items() if n and COUNTERS[name].is_loss}

    @property
    def lost_before(self) -> int:
        """What was lost before the file was written, as the file says at its end."""
        return events_lost(self.recording.counters)

    def _take(self) -> SpanBatch:
        info = self.recording.info
        rows: SpanRows = self._pipeline.take(info.clock_offset_ns)
        known = self.recording.processes
        processes = [known.get(int(pid)) or ProcessInfo(pid=int(pid)) for pid in rows.pids]
        return SpanBatch(*rows[:4], processes=processes, host=info.host, boot_id=info.boot_id)


def served(batches: list[SpanBatch]) -> frozenset[Ends]:
    """(local, peer) of the spans that look like a server's. In a packet capture every connection is told from the client's
    side: where the beginning was not captured and the ends were guessed wrong, these are to be swapped."""
    found: set[Ends] = set()
    for batch in batches:
        for row in batch.spans[batch.spans["kind"] == SERVER]:
            local = (row["local_addr"].tobytes(), int(row["local_port"]))
            found.add((local, (row["peer_addr"].tobytes(), int(row["peer_port"]))))
    return frozenset(found)


def replay_all(path: str | os.PathLike[str], settings: AgentSettings) -> tuple[Replay, list[SpanBatch], CaptureError | None]:
    """Everything that a file gives, and what is wrong with it. A packet capture is read again when ends were guessed wrong."""
    replay, batches, damage = _replay_once(path, settings, frozenset())
    wrong = served(batches) if isinstance(replay.recording, PacketRecording) else frozenset()
    if wrong:
        replay, batches, damage = _replay_once(path, settings, wrong)
    return replay, batches, damage


def _replay_once(
    path: str | os.PathLike[str], settings: AgentSettings, swapped: frozenset[Ends]
) -> tuple[Replay, list[SpanBatch], CaptureError | None]:
    recording = open_recording(path, swapped)
    try:
        replay = Replay(recording, settings)
        batches: list[SpanBatch] = []
        try:
            for batch in replay.batches():
                batches.append(batch)
        except CaptureError as e:
            return replay, batches, e
        return replay, batches, None
    finally:
        recording.close()
