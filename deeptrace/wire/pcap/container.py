"""Cuts pcap and pcapng files into packets with exact times. Looks at no packet's content.

Formats: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-03.html and draft-ietf-opsawg-pcapng-02; the "modified" magic as
in the Wireshark wiki's page on libpcap files. dpkt's own readers give times as floats (200 ns off), hide cut files, and do not
say how long a packet was before the snapshot limit cut it; so the containers are read here and only the packets by dpkt.
"""

import mmap
import os
import pathlib
import struct
from collections.abc import Iterator
from typing import NamedTuple

from deeptrace.errors import CaptureError

PCAP_MAGICS = {  # first four bytes as a little-endian number: (byte order, ns per fraction, size of a record's header)
    0xA1B2C3D4: ("<", 1000, 16),
    0xD4C3B2A1: (">", 1000, 16),
    0xA1B23C4D: ("<", 1, 16),
    0x4D3CB2A1: (">", 1, 16),
    0xA1B2CD34: ("<", 1000, 24),
    0x34CDB2A1: (">", 1000, 24),
}
PCAP_HEADER_BYTES = 24
PCAPNG_MAGIC = b"\x0a\x0d\x0d\x0a"
BYTE_ORDER_MAGIC = 0x1A2B3C4D
SECTION, INTERFACE, OLD_PACKET, SIMPLE_PACKET, ENHANCED_PACKET = 0x0A0D0D0A, 1, 2, 3, 6
OPTION_TSRESOL, OPTION_TSOFFSET = 9, 14
MAX_PACKET_BYTES = 1 << 20  # libpcap's own bound is 256 KiB; a larger size is a damaged one
MAX_INTERFACES = 4096  # per section; a file that names more is hostile
NS_PER_S = 1_000_000_000


class Packet(NamedTuple):
    """One captured packet. time_ns: Unix ns; wire_size: bytes it had on the wire, >= len(data) when the capture cut it."""

    time_ns: int
    link_type: int
    wire_size: int
    data: bytes


class _Interface(NamedTuple):
    link_type: int
    snap_size: int
    units_per_s: int
    offset_s: int


def is_packet_capture(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a pcap or pcapng file."""
    return head[:4] == PCAPNG_MAGIC or int.from_bytes(head[:4], "little") in PCAP_MAGICS


class PacketFile:
    """A pcap or pcapng file, mapped into memory and read from front to back."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        try:
            with pathlib.Path(path).open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as e:
            raise CaptureError(f"cannot read {self.path}: {e.strerror}") from e
        except ValueError as e:  # a map of nothing
            raise CaptureError(f"{self.path} is empty") from e
        if not is_packet_capture(self._map[:4]):
            raise CaptureError(f"{self.path} is neither a pcap nor a pcapng file")

    def packets(self) -> Iterator[Packet]:
        """All packets in the order of the file. Raises CaptureError naming the byte from which it cannot be read."""
        if self._map[:4] == PCAPNG_MAGIC:
            return self._pcapng()
        return self._pcap()

    def close(self) -> None:
        self._map.close()

    def _damaged(self, offset: int, why: str) -> CaptureError:
        return CaptureError(f"{self.path}: damaged at byte {offset}: {why}; everything before it was read")

    def _pcap(self) -> Iterator[Packet]:
        data, end = self._map, len(self._map)
        order, unit_ns, head_size = PCAP_MAGICS[int.from_bytes(data[:4], "little")]
        if end < PCAP_HEADER_BYTES:
            raise self._damaged(0, "the file ends inside its header")
        link_type = struct.unpack_from(order + "I", data, 20)[0] & 0xFFFF  # the upper bits tell of frame check sequences
        head = struct.Struct(order + "IIII")
        at = PCAP_HEADER_BYTES
        while at < end:
            body = at + head_size
            if body > end:
                raise self._damaged(at, "the file ends inside a packet's header")
            seconds, fraction, size, wire_size = head.unpack_from(data, at)
            if size > MAX_PACKET_BYTES:
                raise self._damaged(at, f"a packet of {size} bytes cannot be")
            if body + size > end:
                raise self._damaged(at, "the file ends inside a packet")
            yield Packet(seconds * NS_PER_S + fraction * unit_ns, link_type, max(wire_size, size), data[body : body + size])
            at = body + size

    def _pcapng(self) -> Iterator[Packet]:
        data, end = self._map, len(self._map)
        order, interfaces, last_ns, at = "<", list[_Interface](), 0, 0
        while at < end:
            if at + 12 > end:
                raise self._damaged(at, "the file ends inside a block")
            kind = struct.unpack_from(order + "I", data, at)[0]
            if kind == SECTION:  # its type reads the same in both byte orders
                order = self._section_order(at)
                interfaces = []
            size = struct.unpack_from(order + "I", data, at + 4)[0]
            if size < 12 or size % 4 or at + size > end:
                raise self._damaged(at, "a block's size is wrong or the file ends inside it")
            body = data[at + 8 : at + size - 4]
            try:
                if kind == INTERFACE and len(interfaces) < MAX_INTERFACES:
                    interfaces.append(_interface(body, order))
                elif kind in (ENHANCED_PACKET, OLD_PACKET, SIMPLE_PACKET):
                    packet = _block_packet(kind, body, order, interfaces, last_ns)
                    last_ns = packet.time_ns
                    yield packet
            except (struct.error, IndexError, ValueError) as e:
                raise self._damaged(at, "a block contradicts itself") from e
            at += size

    def _section_order(self, at: int) -> str:
        magic = self._map[at + 8 : at + 12]
        if int.from_bytes(magic, "little") == BYTE_ORDER_MAGIC:
            return "<"
        if int.from_bytes(magic, "big") == BYTE_ORDER_MAGIC:
            return ">"
        raise self._damaged(at, "a section does not tell its byte order")


def _interface(body: bytes, order: str) -> _Interface:
    link_type, _, snap_size = struct.unpack_from(order + "HHI", body, 0)
    units_per_s, offset_s, at = 1_000_000, 0, 8
    while at + 4 <= len(body):
        code, size = struct.unpack_from(order + "HH", body, at)
        value = body[at + 4 : at + 4 + size]
        if code == OPTION_TSRESOL and size == 1:
            units_per_s = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else int(10 ** min(value[0], 20))
        elif code == OPTION_TSOFFSET and size == 8:
            offset_s = struct.unpack(order + "q", value)[0]
        at += 4 + (size + 3) // 4 * 4
    return _Interface(link_type, snap_size, units_per_s, offset_s)


def _block_packet(kind: int, body: bytes, order: str, interfaces: list[_Interface], last_ns: int) -> Packet:
    """Raises struct.error, IndexError or ValueError for a block whose numbers cannot be."""
    if kind == SIMPLE_PACKET:  # has no time: it takes that of the packet before
        interface = interfaces[0]
        (wire_size,) = struct.unpack_from(order + "I", body, 0)
        size = min(wire_size, len(body) - 4, interface.snap_size or wire_size)
        return Packet(last_ns, interface.link_type, wire_size, body[4 : 4 + size])
    if kind == ENHANCED_PACKET:
        number, high, low, size, wire_size = struct.unpack_from(order + "IIIII", body, 0)
    else:
        number, _, high, low, size, wire_size = struct.unpack_from(order + "HHIIII", body, 0)
    if size > len(body) - 20 or size > MAX_PACKET_BYTES:
        raise ValueError(size)
    interface = interfaces[number]
    time_ns = ((high << 32) | low) * NS_PER_S // interface.units_per_s + interface.offset_s * NS_PER_S
    return Packet(max(0, min(time_ns, (1 << 63) - 1)), interface.link_type, max(wire_size, size), body[20 : 20 + size])
