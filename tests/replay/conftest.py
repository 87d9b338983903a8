"""Fixtures of the replay tests: packets made by dpkt, and the folder of captures that others recorded, where there is one."""

import pathlib
import shutil
import struct
import subprocess
import types
from collections.abc import Callable

import dpkt
import pytest

REPOSITORY = pathlib.Path(__file__).parents[2]
CAPTURES = REPOSITORY.parent / "shared" / "data" / "pcap"

SYN, ACK, FIN, RST, PUSH = 2, 16, 1, 4, 8
CLIENT, SERVER = ("10.0.0.1", 40000), ("10.0.0.2", 80)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that read the folder of captures where it is not: it is no part of the repository. The same is tested
    with captures that the tests make themselves."""
    if CAPTURES.is_dir():
        return
    without = [item for item in items if "captures" in getattr(item, "fixturenames", ())]
    items[:] = [item for item in items if item not in without]
    config.hook.pytest_deselected(items=without)


@pytest.fixture
def captures() -> pathlib.Path:
    """The folder of captures that others recorded."""
    return CAPTURES


@pytest.fixture
def tshark() -> Callable[..., list[list[str]]]:
    """Run tshark: (file, fields, filter) -> one list of field values per packet; repeated values joined by newlines."""
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")

    def run(path: pathlib.Path, fields: list[str], only: str, *options: str) -> list[list[str]]:
        command = ["tshark", "-r", str(path), "-Y", only, "-T", "fields", "-E", "aggregator=\x1f", *options]
        for field in fields:
            command += ["-e", field]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return [line.split("\t") for line in done.stdout.splitlines()]

    return run


def address(text: str) -> bytes:
    return bytes(int(part) for part in text.split("."))


def tcp_packet(source, target, seq, payload=b"", flags=ACK, ack=0) -> bytes:
    """One IPv4 packet."""
    tcp = dpkt.tcp.TCP(sport=source[1], dport=target[1], seq=seq & 0xFFFFFFFF, ack=ack & 0xFFFFFFFF, flags=flags, data=payload)
    ip = dpkt.ip.IP(src=address(source[0]), dst=address(target[0]), p=6, id=1, data=tcp)
    ip.len = 20 + 20 + len(payload)
    return bytes(ip)


def udp_packet(source, target, payload: bytes) -> bytes:
    udp = dpkt.udp.UDP(sport=source[1], dport=target[1], ulen=8 + len(payload), data=payload)
    ip = dpkt.ip.IP(src=address(source[0]), dst=address(target[0]), p=17, data=udp)
    ip.len = 28 + len(payload)
    return bytes(ip)


def ethernet(packet: bytes, kind: int = 0x0800) -> bytes:
    return b"\x02" * 6 + b"\x04" * 6 + struct.pack(">H", kind) + packet


class Script:
    """A conversation as packets with times: each method appends one; client's and server's numbers are kept."""

    def __init__(self, client=CLIENT, server=SERVER, isn=(1000, 9000), start_ns=1_700_000_000_000_000_000) -> None:
        self.client, self.server = client, server
        self.next = [isn[0], isn[1]]
        self.now_ns = start_ns
        self.packets: list[tuple[int, bytes]] = []

    def _add(self, from_client: bool, payload=b"", flags=ACK, seq=None) -> "Script":
        side = 0 if from_client else 1
        ends = (self.client, self.server) if from_client else (self.server, self.client)
        position = self.next[side] if seq is None else seq
        self.packets.append((self.now_ns, tcp_packet(*ends, position, payload, flags, self.next[1 - side])))
        if seq is None:
            self.next[side] += len(payload) + bool(flags & SYN) + bool(flags & FIN)
        self.now_ns += 1_000_000
        return self

    def connect(self) -> "Script":
        self._add(True, flags=SYN)
        self._add(False, flags=SYN | ACK)
        return self._add(True)

    def ask(self, payload: bytes, **more) -> "Script":
        return self._add(True, payload, **more)

    def answer(self, payload: bytes, **more) -> "Script":
        return self._add(False, payload, **more)

    def finish(self) -> "Script":
        self._add(True, flags=FIN | ACK)
        self._add(False, flags=FIN | ACK)
        return self._add(True)

    def reset(self, *, by_client: bool = False) -> "Script":
        return self._add(by_client, flags=RST)

    def swap(self, i: int, j: int) -> "Script":
        """Let packets i and j change places; times stay in order."""
        a, b = self.packets[i], self.packets[j]
        self.packets[i], self.packets[j] = (a[0], b[1]), (b[0], a[1])
        return self


def pcap_bytes(packets, *, order="<", magic=0xA1B23C4D, link_type=101, snap_size=1 << 18) -> bytes:
    """A classic pcap file. packets: (time_ns, bytes)."""
    fraction = 1 if magic == 0xA1B23C4D else 1000
    parts = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snap_size, link_type)]
    for time_ns, data in packets:
        kept = data[:snap_size]
        seconds, rest = divmod(time_ns, 1_000_000_000)
        parts.append(struct.pack(order + "IIII", seconds, rest // fraction, len(kept), len(data)))
        if magic == 0xA1B2CD34:
            parts.append(struct.pack(order + "IHBB", 1, 0x0800, 0, 0))
        parts.append(kept)
    return b"".join(parts)


@pytest.fixture
def pcap_file(tmp_path: pathlib.Path) -> Callable[..., pathlib.Path]:
    """Write (time_ns, bytes) packets as a pcap file and return its path."""

    def write(packets, **options) -> pathlib.Path:
        path = tmp_path / "made.pcap"
        path.write_bytes(pcap_bytes(packets, **options))
        return path

    return write


@pytest.fixture
def make() -> types.SimpleNamespace:
    """The makers of packets and files of this module: tests are imported one by one and cannot import it."""
    return types.SimpleNamespace(
        Script=Script,
        tcp_packet=tcp_packet,
        udp_packet=udp_packet,
        ethernet=ethernet,
        pcap_bytes=pcap_bytes,
        CLIENT=CLIENT,
        SERVER=SERVER,
    )
