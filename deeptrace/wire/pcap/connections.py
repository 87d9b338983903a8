"""Decides whose connection a segment belongs to, which end is the client, and when it begins and ends. Keeps no payload.

Everything is seen from the client's side, so that one exchange in a capture is one CLIENT span: the synthetic socket of a
connection is the client's, what the client sends is egress. Bytes are not put in order here: that is the flow stage's work.
"""

import dataclasses

from deeptrace.wire.pcap.packets import TCP, Segment

Endpoint = tuple[bytes, int]
Key = tuple[int, Endpoint, Endpoint]

INGRESS, EGRESS = 0, 1  # as enum dt_direction
HALF = 1 << 31  # RFC 9293 3.4: a difference of sequence numbers below this is forward
WRAP = 0xFFFFFFFF

MAX_CONNECTIONS = 65536  # as the flow table; the oldest is forgotten beyond it
MAX_HOLES = 256  # runs after a hole remembered per direction; beyond it the hole is taken as lost by the capture
EPHEMERAL_MIN = 32768  # net.ipv4.ip_local_port_range of Linux begins here: ports above are clients', if only one is


@dataclasses.dataclass(slots=True)
class Half:
    """One direction's progress: enough to know when all bytes before a FIN were seen."""

    start: int | None = None  # sequence number of the first byte, when the handshake was seen
    expected: int | None = None  # next sequence number without a hole before it
    runs: dict[int, int] = dataclasses.field(default_factory=dict)  # start -> end of runs after a hole
    last_run: int = 0  # start of the run that grew last: most segments follow the one before
    fin_at: int | None = None  # sequence number of the FIN
    fin_ns: int = 0
    is_ended: bool = False
    is_started: bool = False  # its first byte was marked


@dataclasses.dataclass(slots=True)
class Connection:
    """A TCP connection or a UDP exchange. halves: by direction as the client sees it."""

    number: int  # the synthetic socket: 1, 2, 3 ...
    protocol: int
    client: Endpoint
    server: Endpoint
    is_v6: bool
    client_isn: int | None = None  # initial sequence number, when its SYN or the answer was seen
    is_fresh: bool = False  # begun within the capture
    is_closed: bool = False
    halves: tuple[Half, Half] = dataclasses.field(default_factory=lambda: (Half(), Half()))


class ConnectionTable:
    """All connections by the addresses of a packet."""

    def __init__(self) -> None:
        self._table: dict[Key, tuple[Connection, int]] = {}
        self.n_opened = 0

    def find(self, segment: Segment) -> tuple[Connection, int] | None:
        """(connection, direction as the client sees it) that a segment's addresses name, or None."""
        return self._table.get((segment.l4_protocol, segment.source, segment.target))

    def open(self, segment: Segment, *, client_is_source: bool) -> Connection:
        """A new connection in place of whatever had these addresses."""
        self.n_opened += 1
        ends = (segment.source, segment.target) if client_is_source else (segment.target, segment.source)
        connection = Connection(self.n_opened, segment.l4_protocol, *ends, segment.is_v6)
        for key, direction in zip(table_keys(connection), (EGRESS, INGRESS), strict=True):
            self._table.pop(key, None)  # its place in the order of age is the new one's
            self._table[key] = (connection, direction)
        return connection

    def pop_oldest(self) -> Connection | None:
        """Forget and return the connection that was opened first, when there are too many; else None."""
        if len(self._table) <= 2 * MAX_CONNECTIONS:
            return None
        connection = next(iter(self._table.values()))[0]
        for key in table_keys(connection):
            self._table.pop(key, None)
        return connection

    def connections(self) -> list[Connection]:
        """Each connection once, in the order of opening."""
        return [connection for connection, direction in self._table.values() if direction == EGRESS]


def is_client_source(segment: Segment) -> bool:
    """Which end is the client when no SYN was seen: the one on an ephemeral port, else the one on the higher port; between
    equal ports, the first to speak."""
    source, target = segment.source[1], segment.target[1]
    if (source >= EPHEMERAL_MIN) != (target >= EPHEMERAL_MIN):
        return source >= EPHEMERAL_MIN
    return source >= target


def begin(half: Half, isn: int) -> None:
    """Note the initial sequence number of a direction: its first byte has the next one."""
    half.start = half.expected = (isn + 1) & WRAP


def advance(half: Half, start: int, size: int) -> None:
    """Note that bytes [start, start + size) were seen."""
    if half.expected is None:
        half.expected = start
    end = (start + size) & WRAP
    if start == half.expected:
        half.expected = end
    elif (start - half.expected) & WRAP < HALF:
        if half.runs.get(half.last_run) != start:
            half.last_run = start
        half.runs[half.last_run] = end
    elif (end - half.expected) & WRAP < HALF:  # overlaps what is known and goes on
        half.expected = end
    if half.runs:
        _join_runs(half)


def _join_runs(half: Half) -> None:
    """Move `expected` over the runs that it has reached."""
    assert half.expected is not None
    for start in sorted(half.runs, key=lambda s: (s - (half.expected or 0) + HALF) & WRAP):
        if (start - half.expected) & WRAP < HALF and start != half.expected and len(half.runs) <= MAX_HOLES:
            break
        end = half.runs.pop(start)
        if (end - half.expected) & WRAP < HALF:
            half.expected = end


def is_seen(half: Half, start: int, size: int) -> bool:
    """Whether all of these bytes lie before what is known to be complete: a retransmission."""
    return half.expected is not None and (half.expected - (start + size)) & WRAP < HALF


def is_tcp(segment: Segment) -> bool:
    return segment.l4_protocol == TCP


def table_keys(connection: Connection) -> tuple[Key, Key]:
    """What packets of the client and of the server are found by."""
    protocol, client, server = connection.protocol, connection.client, connection.server
    return (protocol, client, server), (protocol, server, client)
