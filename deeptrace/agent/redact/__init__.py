"""Masks payload before it is stored: what is kept is the frame of known protocols, everything else becomes "x".

Lengths and positions stay, so a redacted recording gives the same spans when it is replayed, but for values. It fails towards
masking: bytes of an unknown protocol, after a hole in a head, or out of order are masked whole. One module per protocol,
found by listing this folder. Python per message: recording with it follows some ten thousand records a second.
"""

import importlib
import pkgutil
from collections import OrderedDict
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from deeptrace.wire.capture import RecordFrame, gather

MASK = b"x"
MAX_FLOWS = 65536  # as the flow table; the one unused for longest is forgotten and then masked until it is recognised
KIND_DATA, KIND_CONN, KIND_PROC, CONN_CLOSED = 1, 2, 3, 4  # enums of dt_records.h
PLACED, PEEK, FIRST_FRESH = 0x0101, 0x0004, 0x00C0  # SEQ_VALID | COUNTED; FIRST | FRESH: stream offset 0 of a connection
IPPROTO_TCP, AF_UNIX = 6, 1
WRAP = 0xFFFFFFFF


class Masker(Protocol):
    """Masks one direction of one connection, bytes in stream order."""

    is_lost: bool  # the frame was lost: the caller masks everything until a masker recognises a beginning

    def feed(self, data: bytes) -> bytes:
        """The same number of bytes with all values masked."""

    def skip(self, n: int) -> None:
        """n bytes of the stream were not captured."""


class MaskerModule(Protocol):
    """What a module of this folder offers. shared: a dict of the connection, for both of its directions."""

    def begins(self, data: bytes, *, is_start: bool) -> bool:
        """Whether these bytes can only be the beginning of a message of this protocol. is_start: they are the first of their
        direction, so that less evidence will do."""

    def masker(self, shared: dict[str, Any]) -> Masker: ...


def modules() -> list[MaskerModule]:
    found: list[Any] = [importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)]
    return found


class _Direction:
    """One direction of a flow: its masker, and the position that its next byte must have."""

    def __init__(self) -> None:
        self.masker: Masker | None = None
        self.expected: int | None = None
        self.is_started = False


class _Flow:
    def __init__(self) -> None:
        self.shared: dict[str, Any] = {}
        self.directions = (_Direction(), _Direction())


class Redactor:
    """Masks the payload of record frames, batch by batch in the order of delivery."""

    def __init__(self) -> None:
        self._modules = modules()
        self._flows: OrderedDict[bytes, _Flow] = OrderedDict()

    def redact(self, frame: RecordFrame, order: npt.NDArray[np.uint32] | None = None) -> RecordFrame:
        """The frame with masked payload; shares no payload memory with the one given. order: rows in the order of time."""
        records = frame.records
        sizes = records["payload_len"].astype(np.int64)
        payload = gather(frame.payload, frame.offsets, sizes)
        stored = bytearray(MASK * len(payload))
        offsets = (np.cumsum(sizes) - sizes).astype(np.uint32)
        kinds, codes, flags = (records[name].tolist() for name in ("kind", "code", "flags"))
        starts, lengths, results = offsets.tolist(), sizes.tolist(), records["result"].tolist()
        enters, exits, sides = (records[name].tolist() for name in ("seq_enter", "seq_exit", "direction"))
        ends = records["tuple"]
        is_unix = (ends["family"] == AF_UNIX) & (ends["l4_protocol"] == 0)
        is_stream = (is_unix | (ends["l4_protocol"] == IPPROTO_TCP)).tolist()
        for i in range(len(records)) if order is None else order.tolist():
            start, end = starts[i], starts[i] + lengths[i]
            if kinds[i] in (KIND_PROC, KIND_CONN):
                stored[start:end] = payload[start:end].tobytes()  # name and start of a process
                if kinds[i] == KIND_CONN and codes[i] == CONN_CLOSED:
                    self._flows.pop(_key(records[i]), None)
            elif kinds[i] == KIND_DATA and is_stream[i] and results[i] > 0 and not flags[i] & PEEK:
                position = (enters[i] if sides[i] == 0 else exits[i] - results[i]) & WRAP if flags[i] & PLACED else None
                key = _key(records[i])
                if flags[i] & FIRST_FRESH == FIRST_FRESH and key in self._flows:
                    self._begin_again(key, sides[i] & 1)
                flow = self._flow(key)
                stored[start:end] = self._mask(flow, sides[i] & 1, payload[start:end].tobytes(), results[i], position)
        return RecordFrame(frame.drained_ns, records, np.frombuffer(stored, np.uint8), offsets)

    def _begin_again(self, key: bytes, side: int) -> None:
        """Another connection on the same socket address, whose predecessor's end was not seen."""
        if self._flows[key].directions[side].is_started:
            del self._flows[key]

    def _flow(self, key: bytes) -> _Flow:
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = _Flow()
            if len(self._flows) > MAX_FLOWS:
                self._flows.popitem(last=False)
        else:
            self._flows.move_to_end(key)
        return flow

    def _mask(self, flow: _Flow, side: int, data: bytes, size: int, position: int | None) -> bytes:
        """One record's payload, `size` bytes of the stream of which `data` was captured."""
        direction = flow.directions[side]
        is_start = not direction.is_started
        direction.is_started = True
        if position is not None:
            if direction.expected is not None and (position - direction.expected) & WRAP >= 1 << 31:
                return MASK * len(data)  # seen before, or late
            if direction.masker is not None and direction.expected not in (None, position):
                direction.masker.skip((position - (direction.expected or 0)) & WRAP)
            direction.expected = (position + size) & WRAP
        if direction.masker is None or direction.masker.is_lost:
            module = next((m for m in self._modules if m.begins(data, is_start=is_start)), None)
            direction.masker = module.masker(flow.shared) if module is not None else None
        if direction.masker is None:
            return MASK * len(data)
        masked = direction.masker.feed(data)
        if size > len(data):
            direction.masker.skip(size - len(data))
        return masked


def _key(record: np.void) -> bytes:
    """Identity of a connection: socket address, addresses and ports; not the state, which changes."""
    ends = record["tuple"]
    return bytes(record["socket"].tobytes() + ends["local_addr"].tobytes() + ends["peer_addr"].tobytes()) + bytes(
        ends["local_port"].tobytes() + ends["peer_port"].tobytes()
    )
