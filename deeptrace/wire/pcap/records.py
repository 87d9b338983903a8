"""Turns a packet capture into frames of records, as if probes on every client had seen it. Reorders nothing.

A record's position is its sequence number, its time the packet's; retransmissions become duplicates by position and lost
segments gaps, which the flow stage knows how to treat. Process and thread are 0: not known.
"""

import dataclasses
import errno
import os
from collections.abc import Iterator

import numpy as np

from deeptrace.core.wire import RECORD_DTYPE
from deeptrace.errors import CaptureError
from deeptrace.wire.capture import MAX_PAYLOAD, RecordFrame
from deeptrace.wire.pcap import connections as c
from deeptrace.wire.pcap.container import PacketFile
from deeptrace.wire.pcap.packets import ACK, FIN, RST, SYN, TCP, PacketDecoder, Segment

# enums of dt_records.h
KIND_DATA, KIND_CONN = 1, 2
CONN_CONNECT, CONN_PEER_CLOSED, CONN_CLOSED = 1, 3, 4
SEQ_VALID, FIRST, FRESH = 0x0001, 0x0040, 0x0080
AF_INET, AF_INET6 = 2, 10
STATE_ESTABLISHED, STATE_SYN_SENT, STATE_CLOSE, STATE_CLOSE_WAIT = 1, 2, 7, 8  # include/net/tcp_states.h
CONN_STATES = {CONN_CONNECT: STATE_SYN_SENT, CONN_PEER_CLOSED: STATE_CLOSE_WAIT, CONN_CLOSED: STATE_CLOSE}

FRAME_PACKETS = 8192  # per frame: some MiB at most, and enough rows to spread numpy's cost per call
AFTER_CLOSE = "repeated after the connection's end"


@dataclasses.dataclass
class PacketStats:
    """What a capture held. skipped: cause -> packets that became no record."""

    packets: int = 0
    connections: int = 0
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(slots=True)
class _Row:
    """One record to be: what differs between the records of one connection and direction."""

    template: bytes
    time_ns: int
    result: int
    seq: int
    payload: bytes
    flags: int


class PacketCaptureReader:
    """Reads a pcap or pcapng file as record frames; times are Unix ns. Raises CaptureError as PacketFile does, after
    everything before the damaged place was delivered.

    swapped: (client, server) of connections joined under way whose ends were guessed wrong, as an earlier pass has shown."""

    def __init__(self, path: str | os.PathLike[str], *, swapped: frozenset[tuple[c.Endpoint, c.Endpoint]] = frozenset()) -> None:
        self._file = PacketFile(path)
        self._decoder = PacketDecoder()
        self._table = c.ConnectionTable()
        self._templates: dict[tuple[int, int, int], bytes] = {}
        self._rows: list[_Row] = []
        self._n_records = 0
        self._swapped = swapped
        self.stats = PacketStats(skipped=self._decoder.skipped)

    def frames(self) -> Iterator[RecordFrame]:
        """The records in the order of the packets, some thousand at a time. drained_ns: latest packet so far."""
        last_ns, damage = 0, None
        try:
            for packet in self._file.packets():
                self.stats.packets += 1
                last_ns = max(last_ns, packet.time_ns)
                segment = self._decoder.decode(packet)
                if segment is not None:
                    self._take(segment)
                if self.stats.packets % FRAME_PACKETS == 0 and self._rows:
                    yield self._frame(last_ns)
        except CaptureError as e:
            damage = e  # what came before it is delivered first
        self._finish()
        if self._rows:
            yield self._frame(last_ns)
        if damage is not None:
            raise damage
        if self._decoder.n_foreign and self._decoder.n_foreign == self.stats.packets:
            causes = " and ".join(self.stats.skipped)
            raise CaptureError(f"{self._file.path}: {causes}, only Ethernet, Linux cooked, raw IP and loopback")

    def close(self) -> None:
        self._file.close()

    def _take(self, segment: Segment) -> None:
        found = self._table.find(segment)
        if not c.is_tcp(segment):
            connection, direction = found or self._open(segment, self._is_client_source(segment))
            self._data(connection, direction, segment, 0)
            return
        if segment.flags & SYN:
            connection, direction = self._begin(segment, found)
            position = (segment.seq + 1) & c.WRAP  # data may come with a SYN (RFC 7413)
        else:
            position = segment.seq
            if found is None or found[0].is_closed:
                if segment.size == 0:
                    return  # an acknowledgement of something not in the capture
                if found is not None and c.is_seen(found[0].halves[found[1]], position, segment.size):
                    self._decoder.skipped[AFTER_CLOSE] = self._decoder.skipped.get(AFTER_CLOSE, 0) + 1
                    return
                found = self._open(segment, found[1] == c.EGRESS if found else self._is_client_source(segment))
            connection, direction = found
        if segment.size:
            self._data(connection, direction, segment, position)
        self._endings(connection, direction, segment, (position + segment.size) & c.WRAP)

    def _is_client_source(self, segment: Segment) -> bool:
        """Which end is the client of a connection whose beginning is not in the capture."""
        guess = c.is_client_source(segment)
        ends = (segment.source, segment.target) if guess else (segment.target, segment.source)
        return guess != (ends in self._swapped)

    def _open(self, segment: Segment, client_is_source: bool) -> tuple[c.Connection, int]:
        connection = self._table.open(segment, client_is_source=client_is_source)
        self.stats.connections += 1
        oldest = self._table.pop_oldest()
        if oldest is not None:
            self._release(oldest, segment.time_ns)
        return connection, c.EGRESS if client_is_source else c.INGRESS

    def _begin(self, segment: Segment, found: tuple[c.Connection, int] | None) -> tuple[c.Connection, int]:
        """A SYN: the connection that it belongs to, a new one unless it repeats what is known."""
        is_answer = bool(segment.flags & ACK)
        isn = (segment.ack - 1) & c.WRAP if is_answer else segment.seq
        if found is None or found[0].client_isn != isn or found[0].is_closed:
            if found is not None:
                self._close(found[0], segment.time_ns, 0)  # its ports are in use again
            found = self._open(segment, not is_answer)
            found[0].client_isn = isn
            found[0].is_fresh = True
            c.begin(found[0].halves[c.EGRESS], isn)
            self._event(found[0], CONN_CONNECT, segment.time_ns, 0)
        half = found[0].halves[c.INGRESS]
        if is_answer and half.expected is None:
            c.begin(half, segment.seq)
        return found

    def _data(self, connection: c.Connection, direction: int, segment: Segment, position: int) -> None:
        """Rows of a segment's bytes. FIRST marks the true first byte of a fresh connection, wherever in the file it comes:
        the flow stage waits for it; of a connection joined under way, the first that is there."""
        half = connection.halves[direction]
        is_tcp = connection.protocol == TCP
        knows_start = connection.is_fresh and half.start is not None
        is_first = not half.is_started and (position == half.start or not knows_start)  # a repeated one is not first again
        half.is_started = half.is_started or is_first
        flags = (SEQ_VALID if is_tcp else 0) | (FRESH if knows_start else 0)
        rows = self._pieces(connection, direction, segment, position, flags)
        if is_first:
            rows[0].flags |= FIRST
        if is_tcp:
            c.advance(half, position, segment.size)
        self._rows += rows

    def _pieces(self, connection: c.Connection, direction: int, segment: Segment, position: int, flags: int) -> list[_Row]:
        """One row per DT_MAX_PAYLOAD bytes: network cards hand over segments of up to 64 KiB."""
        template = self._template(connection, KIND_DATA, 0, direction)
        return [
            _Row(
                template,
                segment.time_ns,
                min(MAX_PAYLOAD, segment.size - at),
                (position + at) & c.WRAP,
                segment.payload[at : at + MAX_PAYLOAD],
                flags,
            )
            for at in range(0, max(segment.size, 1), MAX_PAYLOAD)
        ]

    def _endings(self, connection: c.Connection, direction: int, segment: Segment, end: int) -> None:
        """FIN and RST. A FIN counts once every byte before it was seen, or its receiver acknowledged it."""
        if segment.flags & RST:
            self._close(connection, segment.time_ns, -errno.ECONNRESET)
            return
        half, other = connection.halves[direction], connection.halves[1 - direction]
        if segment.flags & FIN and half.fin_at is None:
            half.fin_at, half.fin_ns = end, segment.time_ns
        if half.fin_at is not None and not half.is_ended and half.expected in (None, half.fin_at):
            self._ended(connection, direction, segment.time_ns)
        if other.fin_at is not None and not other.is_ended and segment.ack == (other.fin_at + 1) & c.WRAP:
            self._ended(connection, 1 - direction, segment.time_ns)

    def _ended(self, connection: c.Connection, direction: int, time_ns: int) -> None:
        half = connection.halves[direction]
        half.is_ended = True
        if connection.halves[1 - direction].is_ended:
            self._close(connection, time_ns, 0)
        elif direction == c.INGRESS:
            self._event(connection, CONN_PEER_CLOSED, time_ns, 0)

    def _close(self, connection: c.Connection, time_ns: int, result: int) -> None:
        if connection.is_closed or connection.protocol != TCP:
            return
        connection.is_closed = True
        self._event(connection, CONN_CLOSED, time_ns, result)

    def _release(self, connection: c.Connection, time_ns: int) -> None:
        """What is still to be said of a connection that will not be looked at again."""
        if connection.is_closed:
            return
        for direction in (c.INGRESS, c.EGRESS):
            half = connection.halves[direction]
            if half.fin_at is not None and not half.is_ended:
                self._ended(connection, direction, max(time_ns, half.fin_ns))

    def _finish(self) -> None:
        for connection in self._table.connections():
            self._release(connection, 0)
        self._decoder.finish()

    def _event(self, connection: c.Connection, code: int, time_ns: int, result: int) -> None:
        flags = FRESH if connection.is_fresh else 0
        self._rows.append(_Row(self._template(connection, KIND_CONN, code, 0), time_ns, result, 0, b"", flags))

    def _template(self, connection: c.Connection, kind: int, code: int, direction: int) -> bytes:
        """The bytes of a record of this connection with all that does not change."""
        key = (connection.number, code, direction)
        template = self._templates.get(key)
        if template is None:
            record = np.zeros(1, RECORD_DTYPE)
            record["socket"], record["kind"], record["code"], record["direction"] = connection.number, kind, code, direction
            ends = record["tuple"]
            ends["local_addr"], ends["local_port"] = np.frombuffer(connection.client[0], np.uint8), connection.client[1]
            ends["peer_addr"], ends["peer_port"] = np.frombuffer(connection.server[0], np.uint8), connection.server[1]
            ends["family"], ends["l4_protocol"] = AF_INET6 if connection.is_v6 else AF_INET, connection.protocol
            ends["tcp_state"] = CONN_STATES.get(code, STATE_ESTABLISHED) if connection.protocol == TCP else 0
            if len(self._templates) >= 4 * c.MAX_CONNECTIONS:
                self._templates.clear()  # made again when needed
            template = self._templates[key] = record.tobytes()
        return template

    def _frame(self, drained_ns: int) -> RecordFrame:
        rows, self._rows = self._rows, []
        records = np.frombuffer(bytearray(b"".join([row.template for row in rows])), RECORD_DTYPE)
        sizes = np.array([len(row.payload) for row in rows], np.uint32)
        seq = np.array([row.seq for row in rows], np.uint32)
        result = np.array([row.result for row in rows], np.int32)
        records["enter_ns"] = records["exit_ns"] = [row.time_ns for row in rows]
        records["result"], records["payload_len"] = result, sizes
        is_stream = (records["kind"] == KIND_DATA) & (records["tuple"]["l4_protocol"] == TCP)
        records["seq_enter"] = seq
        records["seq_exit"] = np.where(is_stream, seq + result.astype(np.uint32), 0)
        records["flags"] = [row.flags for row in rows]
        records["cpu_count"] = np.arange(self._n_records + 1, self._n_records + len(rows) + 1)
        self._n_records += len(rows)
        payload = np.frombuffer(bytearray(b"".join([row.payload for row in rows])), np.uint8)
        return RecordFrame(drained_ns, records, payload, np.cumsum(sizes, dtype=np.uint32) - sizes)
