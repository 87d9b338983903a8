"""From a captured packet to one TCP segment or UDP datagram, by dpkt. Keeps no state but what the defragmenter holds."""

import struct
from typing import Any, NamedTuple

import dpkt

from deeptrace.wire.pcap.container import Packet
from deeptrace.wire.pcap.defragment import Defragmenter

TCP, UDP = 6, 17
V4_PREFIX = b"\0" * 10 + b"\xff\xff"  # RFC 4291 2.5.5.2
LINK_ETHERNET, LINK_SLL, LINK_SLL2 = 1, 113, 276
LINK_NULL = (0, 108)  # four bytes of address family, then IP: the family's numbers differ by system, IP's version does not
LINK_RAW = (12, 14, 101, 228, 229)
LINKS = frozenset((LINK_ETHERNET, LINK_SLL, LINK_SLL2, *LINK_NULL, *LINK_RAW))
# What dpkt lets out on hostile bytes, besides its own error.
DPKT_ERRORS = (dpkt.UnpackError, struct.error, IndexError, ValueError, AttributeError, TypeError, KeyError, UnboundLocalError)

SYN, RST, FIN, ACK = dpkt.tcp.TH_SYN, dpkt.tcp.TH_RST, dpkt.tcp.TH_FIN, dpkt.tcp.TH_ACK


class Segment(NamedTuple):
    """One TCP segment or UDP datagram. Addresses: 16 bytes; size: bytes of payload it had on the wire, >= len(payload)."""

    time_ns: int
    l4_protocol: int
    is_v6: bool
    source: tuple[bytes, int]
    target: tuple[bytes, int]
    seq: int
    ack: int
    flags: int
    size: int
    payload: bytes


class PacketDecoder:
    """Turns packets into segments; counts in `skipped` (cause -> packets) what is none."""

    def __init__(self) -> None:
        self.skipped: dict[str, int] = {}
        self.n_foreign = 0  # packets of link types that are not read
        self._defragmenter = Defragmenter()

    def decode(self, packet: Packet) -> Segment | None:
        """The segment of a packet, or of the datagram that this packet completes; None if there is none."""
        if packet.link_type not in LINKS:
            self.n_foreign += 1
            self._skip(f"link type {packet.link_type} is not read")
            return None
        try:
            ip = _ip_layer(packet)
            if ip is None:
                self._skip("not IP")
                return None
            if _is_fragment(ip):
                ip = self._defragmenter.add(ip)
                if ip is None:
                    return None
                packet = packet._replace(wire_size=len(packet.data))  # rebuilt whole
            return self._segment(packet, ip)
        except DPKT_ERRORS:
            self._skip("malformed")
            return None

    def finish(self) -> None:
        """Count what the defragmenter still held or dropped."""
        for cause, n in self._defragmenter.finish().items():
            self.skipped[cause] = self.skipped.get(cause, 0) + n

    def _skip(self, cause: str) -> None:
        self.skipped[cause] = self.skipped.get(cause, 0) + 1

    def _segment(self, packet: Packet, ip: Any) -> Segment | None:
        layer = ip.data
        is_v6 = isinstance(ip, dpkt.ip6.IP6)
        if isinstance(layer, dpkt.tcp.TCP):
            protocol, head, seq, ack, flags = TCP, layer.off * 4, layer.seq, layer.ack, layer.flags
        elif isinstance(layer, dpkt.udp.UDP):
            protocol, head, seq, ack, flags = UDP, 8, 0, 0, 0
        else:
            self._skip("malformed" if ip.p in (TCP, UDP) else "neither TCP nor UDP")
            return None
        payload = bytes(layer.data)
        size = _ip_payload_size(ip, is_v6) - head
        if size < len(payload):  # no length in the header: the sender's network card cut the packet after it was captured
            size = len(payload) + packet.wire_size - len(packet.data)
        source, target = (ip.src, ip.dst) if is_v6 else (V4_PREFIX + ip.src, V4_PREFIX + ip.dst)
        return Segment(
            packet.time_ns, protocol, is_v6, (source, layer.sport), (target, layer.dport), seq, ack, flags, size, payload
        )


def _ip_layer(packet: Packet) -> Any:
    """dpkt's IP or IP6 object of a packet; None when it carries something else."""
    link, data = packet.link_type, packet.data
    if link == LINK_ETHERNET:
        layer = dpkt.ethernet.Ethernet(data).data
    elif link == LINK_SLL:
        layer = dpkt.sll.SLL(data).data
    elif link == LINK_SLL2:
        layer = dpkt.sll2.SLL2(data).data
    else:
        data = data[4:] if link in LINK_NULL else data
        version = data[0] >> 4 if data else 0
        layer = dpkt.ip.IP(data) if version == 4 else dpkt.ip6.IP6(data) if version == 6 else None
    return layer if isinstance(layer, dpkt.ip.IP | dpkt.ip6.IP6) else None


def _is_fragment(ip: Any) -> bool:
    if isinstance(ip, dpkt.ip.IP):
        return bool(ip.mf or ip.offset)
    fragment = ip.extension_hdrs.get(dpkt.ip.IP_PROTO_FRAGMENT)
    return fragment is not None and bool(fragment.m_flag or fragment.frag_off)


def _ip_payload_size(ip: Any, is_v6: bool) -> int:
    """Bytes after the IP headers as the headers say; negative or 0 when they do not."""
    if is_v6:
        return int(ip.plen - sum(extension.length for extension in ip.all_extension_headers))
    size: int = ip.len - ip.hl * 4
    return size
