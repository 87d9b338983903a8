"""Packet captures as records: pcap and pcapng files seen from the client's side of each connection. Parses no L7 protocol."""

from deeptrace.wire.pcap.container import is_packet_capture
from deeptrace.wire.pcap.records import PacketCaptureReader, PacketStats

__all__ = ["PacketCaptureReader", "PacketStats", "is_packet_capture"]
