"""Moves the self-test's known messages over loopback connections and notes the truth about each. Every socket is bounded in
time, so nothing hangs on a host whose loopback interface does not work."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
import time
from typing import NamedTuple

from .selftest_calls import EGRESS, INGRESS, UNSEEN, VECTORS, receive, send

ROUNDS = 23  # calls through each hook: a prime, so that nothing that repeats by tens or by powers of two hides behind it
CALL_TIMEOUT_S = 2.0  # of one call; a stopped virtual CPU was seen to take 0.3
RECEIVED_AT = 128  # linux/tcp.h: struct tcp_info, tcpi_bytes_received
INGRESS_DIRECTION, EGRESS_DIRECTION = 0, 1  # dt_records.h: enum dt_direction

# label, address family, kind, address
FAMILIES = (
    ("TCP over IPv4", socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1"),
    ("TCP over IPv6", socket.AF_INET6, socket.SOCK_STREAM, "::1"),
    ("UDP over IPv4", socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1"),
    ("UDP over IPv6", socket.AF_INET6, socket.SOCK_DGRAM, "::1"),
)


class End(NamedTuple):
    """One end of a connection as the sockets tell it: address in 16 bytes and port, its own and its peer's."""

    local: tuple[bytes, int]
    peer: tuple[bytes, int]


class Truth(NamedTuple):
    """What one record has to say. data: None where the bytes never pass through user memory; offset: in its stream, -1 for
    datagrams; began_ns, ended_ns: CLOCK_MONOTONIC around the call."""

    call: str
    direction: int
    pair: Pair
    end: End
    data: bytes | None
    n_bytes: int
    offset: int
    message_index: int
    began_ns: int
    ended_ns: int


def packed(sock_name: tuple[object, ...]) -> tuple[bytes, int]:
    """A socket's name as records hold it: 16 bytes, IPv4 v4-mapped."""
    host, port = str(sock_name[0]), int(str(sock_name[1]))
    if ":" in host:
        return socket.inet_pton(socket.AF_INET6, host), port
    return bytes(10) + b"\xff\xff" + socket.inet_aton(host), port


class Pair:
    """Two connected sockets of this process. Raises OSError where the family is not available."""

    def __init__(self, label: str, family: int, kind: int, host: str) -> None:
        self.label = label
        self.family = family
        self.is_stream = kind == socket.SOCK_STREAM
        self.sent_bytes = 0
        self.began_ns = time.monotonic_ns()
        self.client, self.server = self._connect(family, host) if self.is_stream else self._bind(family, host)
        self.connected_ns = time.monotonic_ns()
        self.client_end = End(packed(self.client.getsockname()), packed(self.client.getpeername()))
        self.server_end = End(packed(self.server.getsockname()), packed(self.server.getpeername()))

    @staticmethod
    def _connect(family: int, host: str) -> tuple[socket.socket, socket.socket]:
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.bind((host, 0))
            listener.listen(1)
            client = bounded(socket.socket(family, socket.SOCK_STREAM))
            try:
                client.connect(listener.getsockname())
                return client, bounded(listener.accept()[0])
            except OSError:
                client.close()
                raise

    @staticmethod
    def _bind(family: int, host: str) -> tuple[socket.socket, socket.socket]:
        a, b = (bounded(socket.socket(family, socket.SOCK_DGRAM)) for _ in range(2))
        try:
            a.bind((host, 0))
            b.bind((host, 0))
            a.connect(b.getsockname())
            b.connect(a.getsockname())
        except OSError:
            a.close()
            b.close()
            raise
        return a, b

    def received_bytes(self) -> int:
        """What the receiving TCP socket says it got (TCP_INFO)."""
        told = self.server.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, RECEIVED_AT + 8)
        return int(struct.unpack_from("=Q", told, RECEIVED_AT)[0]) if len(told) >= RECEIVED_AT + 8 else self.sent_bytes

    def wait_arrived(self, n_bytes: int) -> None:
        """Until so many bytes of the stream wait to be read: a read must not find half of them."""
        end_ns = time.monotonic_ns() + int(CALL_TIMEOUT_S * 1e9)
        while struct.unpack("=i", fcntl.ioctl(self.server, termios.FIONREAD, bytes(4)))[0] < n_bytes:
            if time.monotonic_ns() > end_ns:
                raise OSError(f"{self.label}: bytes that were sent over the loopback interface did not arrive")

    def close(self) -> None:
        self.client.close()
        self.server.close()


def bounded(sock: socket.socket) -> socket.socket:
    """The socket, blocking, with calls that end after CALL_TIMEOUT_S."""
    limit = struct.pack("=qq", int(CALL_TIMEOUT_S), 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    return sock


def open_pairs() -> tuple[list[Pair], list[str]]:
    """A pair of each family that this host has, and a sentence for each that it has not."""
    pairs, skipped = [], []
    for label, family, kind, host in FAMILIES:
        try:
            pairs.append(Pair(label, family, kind, host))
        except OSError as e:
            skipped.append(f"{label} was not tested: {host} cannot be used here ({e.strerror or e})")
    return pairs, skipped


def message(number: int, n_bytes: int) -> bytes:
    """Bytes that differ from those of every other message, and at every place."""
    return bytes((number * 41 + i * 7 + (i >> 5)) & 0xFF for i in range(n_bytes))


class Traffic:
    """Makes the rounds. truths: in the order in which the calls were made; calls: names of those that are to be tested."""

    def __init__(self, pairs: list[Pair], calls: set[str]) -> None:
        self.pairs = pairs
        self.calls = calls
        self.truths: list[Truth] = []
        self._n_messages = 0

    def run(self) -> None:
        """All rounds, each over the next pair. Raises OSError when a call does not do what it must."""
        for number in range(ROUNDS):
            self._round(number, self.pairs[number % len(self.pairs)])

    def _round(self, number: int, pair: Pair) -> None:
        """Send by every call, then receive by every call: what is read first is not all that waits, and what is written does not
        leave at once, so a field beside the right one has another value."""
        at = pair.sent_bytes
        if pair.is_stream:
            pair.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        waiting = self._send_all(number, pair)
        if pair.is_stream:
            pair.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
            pair.wait_arrived(pair.sent_bytes - at)
            n_first = len(UNSEEN) + 1
            waiting[:n_first] = [b"".join(waiting[:n_first])]  # the bytes of several calls, read by one
        for call in (*INGRESS[number % len(INGRESS) :], *INGRESS[: number % len(INGRESS)]):
            n = 2 if call in VECTORS else 1
            parts, waiting = waiting[:n], waiting[n:]
            began_ns = time.monotonic_ns()
            got = receive(call, pair.server, [len(part) for part in parts])
            ended_ns = time.monotonic_ns()
            if got != parts:
                raise OSError(f"{pair.label}: {call} returned other bytes than were sent")
            self._note(call, INGRESS_DIRECTION, pair, parts, at, (began_ns, ended_ns))
            at += sum(map(len, parts))

    def _send_all(self, number: int, pair: Pair) -> list[bytes]:
        sent: list[bytes] = []
        for call in (*UNSEEN, *EGRESS) if pair.is_stream else EGRESS:
            parts = [message(self._n_messages + i, 23 + 5 * number + i) for i in range(2 if call in VECTORS else 1)]
            self._n_messages += len(parts)
            began_ns = time.monotonic_ns()
            send(call, pair.client, parts)
            self._note(call, EGRESS_DIRECTION, pair, parts, pair.sent_bytes, (began_ns, time.monotonic_ns()))
            pair.sent_bytes += sum(map(len, parts))
            sent += parts
        return sent

    def _note(self, call: str, direction: int, pair: Pair, parts: list[bytes], at: int, times_ns: tuple[int, int]) -> None:
        if call not in self.calls:
            return
        end = pair.client_end if direction == EGRESS_DIRECTION else pair.server_end
        for index, part in enumerate(parts):
            data = None if call in UNSEEN else part
            offset = at if pair.is_stream else -1
            self.truths.append(Truth(call, direction, pair, end, data, len(part), offset, index, *times_ns))
            at += len(part)


def own_netns() -> int:
    """Inode number of this process's network namespace."""
    return os.stat("/proc/self/ns/net").st_ino & 0xFFFFFFFF
