"""Sees the packets of a TCP connection on the loopback and builds both of its streams from them: a truth that neither the
probes nor the traced program have a hand in. Standard library only."""

import socket
import struct

ETH_P_IP = 0x0800
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23  # linux/if_packet.h
SO_RCVBUFFORCE = 33
SYN = 0x02
BUFFER_BYTES = 256 << 20  # of packets that wait: a packet of 100 bytes counts as 1 KiB or more


class Witness:
    """Takes every IPv4 packet of the loopback from its beginning on."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
        self.socket.bind(("lo", ETH_P_IP))
        self.socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)  # each packet of the loopback once
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        self.socket.setblocking(False)

    def stream(self, from_port: int, to_port: int) -> tuple[int, bytes]:
        """(sequence number of the first byte, all bytes) that one port sent to the other. Raises ValueError for a hole."""
        first, parts = None, {}
        for source, target, number, flags, data in self._segments():
            if (source, target) != (from_port, to_port):
                continue
            if flags & SYN:
                first = (number + 1) % 2**32
            if data:
                parts[number] = max(parts.get(number, b""), data, key=len)
        if first is None:
            raise ValueError("no packet began the connection")
        whole = b""
        while (part := parts.pop((first + len(whole)) % 2**32, None)) is not None:
            whole += part
        if parts:
            raise ValueError(f"{len(parts)} packets beyond a hole at {len(whole)}")
        return first, whole

    def _segments(self):
        while True:
            try:
                packet = self.socket.recv(1 << 17)
            except BlockingIOError:
                return
            header = 4 * (packet[0] & 15)
            if packet[9] != socket.IPPROTO_TCP or len(packet) < header + 20:
                continue
            source, target, number = struct.unpack_from("!HHI", packet, header)
            data_at, flags = header + 4 * (packet[header + 12] >> 4), packet[header + 13]
            end = struct.unpack_from("!H", packet, 2)[0] or len(packet)  # 0: a packet of more than 64 KiB
            yield source, target, number, flags, packet[data_at:end]

    def close(self) -> None:
        self.socket.close()
