"""Puts IP fragments together again by scapy, which is loaded at the first fragment only. Bounded in datagrams and bytes.

scapy (GPL-2.0, the extra `pcap`) is the one well-kept Python library that rebuilds IPv4 and IPv6 datagrams rightly; it wants
all fragments of a datagram at hand and in order, so they are collected here until no byte is missing.
"""

import dataclasses
from typing import Any

import dpkt

MAX_DATAGRAMS = 256  # incomplete at a time; the kernel's own default keeps 4 MiB
MAX_FRAGMENTS = 512  # of one datagram: 64 KiB in the smallest pieces that networks make (128 bytes)

NEEDS_SCAPY = "IP fragments, which need scapy (pip install 'deeptrace[pcap]')"
INCOMPLETE = "IP fragments of incomplete datagrams"


@dataclasses.dataclass
class _Datagram:
    """The fragments seen of one datagram, by offset in bytes."""

    fragments: dict[int, tuple[int, bytes]] = dataclasses.field(default_factory=dict)  # offset -> (size, whole IP packet)
    total: int | None = None


class Defragmenter:
    """Collects fragments; add() gives the datagram that a fragment completes."""

    def __init__(self) -> None:
        self._open: dict[tuple[object, ...], _Datagram] = {}
        self._lost: dict[str, int] = {}

    def add(self, ip: Any) -> Any:
        """ip: dpkt's IP or IP6 of a fragment. Returns the rebuilt packet as the same kind of object, or None."""
        is_v6 = isinstance(ip, dpkt.ip6.IP6)
        key, offset, size, more, captured = _describe_v6(ip) if is_v6 else _describe_v4(ip)
        if captured < size or size <= 0:  # cut by the snapshot limit: its bytes cannot be had
            self._lose(INCOMPLETE, 1)
            return None
        datagram = self._open.setdefault(key, _Datagram())
        datagram.fragments.setdefault(offset, (size, bytes(ip)))
        if not more:
            datagram.total = offset + size
        if _is_whole(datagram):
            del self._open[key]
            return self._rebuild([packet for _, (_, packet) in sorted(datagram.fragments.items())], is_v6)
        if len(datagram.fragments) > MAX_FRAGMENTS:
            self._lose(INCOMPLETE, len(self._open.pop(key).fragments))
        elif len(self._open) > MAX_DATAGRAMS:
            oldest = next(iter(self._open))
            self._lose(INCOMPLETE, len(self._open.pop(oldest).fragments))
        return None

    def finish(self) -> dict[str, int]:
        """Forget what is incomplete. Returns fragments lost by cause."""
        for datagram in self._open.values():
            self._lose(INCOMPLETE, len(datagram.fragments))
        self._open.clear()
        return self._lost

    def _lose(self, cause: str, n: int) -> None:
        self._lost[cause] = self._lost.get(cause, 0) + n

    def _rebuild(self, packets: list[bytes], is_v6: bool) -> Any:
        try:
            from scapy.layers.inet import IP, defragment
            from scapy.layers.inet6 import IPv6, defragment6
        except ImportError:
            self._lose(NEEDS_SCAPY, len(packets))
            return None
        rebuild_v4: Any = defragment  # scapy's own types are partial
        rebuild_v6: Any = defragment6
        if is_v6:
            return dpkt.ip6.IP6(bytes(rebuild_v6([IPv6(packet) for packet in packets])))
        return dpkt.ip.IP(bytes(rebuild_v4([IP(packet) for packet in packets])[0]))


def _describe_v4(ip: Any) -> tuple[tuple[object, ...], int, int, bool, int]:
    """(identity of the datagram, offset, size, more follow, bytes captured), sizes in bytes. RFC 791 3.2."""
    size = ip.len - ip.hl * 4
    captured = len(bytes(ip)) - ip.hl * 4
    return (4, ip.src, ip.dst, ip.p, ip.id), ip.offset * 8, size, bool(ip.mf), captured


def _describe_v6(ip: Any) -> tuple[tuple[object, ...], int, int, bool, int]:
    """The same for IPv6. RFC 8200 4.5: the fragment header ends the part that each fragment repeats."""
    fragment = ip.extension_hdrs[dpkt.ip.IP_PROTO_FRAGMENT]
    headers = 0
    for extension in ip.all_extension_headers:
        headers += extension.length
        if extension is fragment:
            break
    size = ip.plen - headers
    captured = len(bytes(ip)) - 40 - headers
    return (6, ip.src, ip.dst, fragment.id), fragment.frag_off * 8, size, bool(fragment.m_flag), captured


def _is_whole(datagram: _Datagram) -> bool:
    reach = 0
    for offset, (size, _) in sorted(datagram.fragments.items()):
        if offset != reach:  # a hole, or an overlap: RFC 5722 says to drop those
            return False
        reach += size
    return reach == datagram.total
