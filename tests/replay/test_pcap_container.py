"""pcap and pcapng files: every magic, exact times, every link type, and one sentence for what is damaged."""

import contextlib
import re
import shutil
import struct
import subprocess

import numpy as np
import pytest

from deeptrace.errors import CaptureError
from deeptrace.wire.pcap import PacketCaptureReader, is_packet_capture
from deeptrace.wire.pcap.container import PacketFile

TIMES = [1_700_000_000_123_456_789, 1_700_000_001_000_000_001]


def packets_of(path):
    file = PacketFile(path)
    try:
        return list(file.packets())
    finally:
        file.close()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "unit_ns"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1), (0xA1B2CD34, 1000)])
def test_every_magic_in_both_byte_orders_gives_exact_times(make, pcap_file, order, magic, unit_ns):
    sent = [(t, make.tcp_packet(make.CLIENT, make.SERVER, 5, b"x" * 9)) for t in TIMES]
    path = pcap_file(sent, order=order, magic=magic)
    assert is_packet_capture(path.read_bytes()[:8])
    found = packets_of(path)
    assert [p.time_ns for p in found] == [t // unit_ns * unit_ns for t in TIMES]
    assert [p.data for p in found] == [data for _, data in sent]


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += b"\0" * (-len(body) % 4)
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(link_type: int, options: bytes = b"", order: str = "<", snap_size: int = 0) -> bytes:
    return block(1, struct.pack(order + "HHI", link_type, 0, snap_size) + options, order)


def enhanced(number: int, units: int, data: bytes, order: str = "<") -> bytes:
    head = struct.pack(order + "IIIII", number, units >> 32, units & 0xFFFFFFFF, len(data), len(data) + 7)
    return block(6, head + data, order)


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_blocks_give_packets_with_their_interface_and_resolution(tmp_path, order):
    nanoseconds = struct.pack(order + "HHBxxxHH", 9, 1, 9, 0, 0)
    binary = struct.pack(order + "HHBxxx", 9, 1, 0x80 | 10) + struct.pack(order + "HHq", 14, 8, 100)
    data = (
        section(order)
        + interface(101, nanoseconds, order)
        + interface(1, binary, order)
        + interface(113, b"", order)
        + block(5, b"statistics, skipped", order)
        + enhanced(0, TIMES[0], b"first", order)
        + enhanced(1, 5 << 9, b"second", order)
        + block(2, struct.pack(order + "HHIIII", 2, 0, 0, 1_000_001, 3, 3) + b"old", order)
        + block(3, struct.pack(order + "I", 6) + b"simple", order)
    )
    (tmp_path / "a.pcapng").write_bytes(data)
    found = packets_of(tmp_path / "a.pcapng")
    assert [p.data for p in found] == [b"first", b"second", b"old", b"simple"]
    assert [p.link_type for p in found] == [101, 1, 113, 101]
    assert [p.time_ns for p in found] == [TIMES[0], 102_500_000_000, 1_000_001_000, 1_000_001_000]
    assert found[0].wire_size == 12


def test_a_second_section_has_its_own_byte_order_and_interfaces(tmp_path):
    data = section("<") + interface(101) + enhanced(0, 1, b"a") + section(">") + interface(1, order=">")
    (tmp_path / "a.pcapng").write_bytes(data + enhanced(0, 2, b"b", ">"))
    assert [(p.link_type, p.data) for p in packets_of(tmp_path / "a.pcapng")] == [(101, b"a"), (1, b"b")]


def test_editcap_makes_pcapng_that_reads_as_the_pcap_it_came_from(tmp_path, captures):
    if shutil.which("editcap") is None:
        pytest.skip("editcap is not installed")
    for name in ("http/sw8.pcap", "mysql/mysql.pcap", "nats/nats-err.pcap"):
        target = tmp_path / "b.pcapng"
        subprocess.run(["editcap", "-F", "pcapng", captures / name, target], check=True, capture_output=True, timeout=30)
        a, b = packets_of(captures / name), packets_of(target)
        assert [(p.time_ns, p.data, p.link_type) for p in a] == [(p.time_ns, p.data, p.link_type) for p in b]


def link_headers(make):
    """(link type, header and IPv4 packet)."""
    ip = make.tcp_packet(make.CLIENT, make.SERVER, 5, b"hello")
    vlan = make.ethernet(struct.pack(">HH", 5, 0x0800) + ip, 0x8100)
    double = make.ethernet(struct.pack(">HHHH", 5, 0x8100, 6, 0x0800) + ip, 0x88A8)
    sll = struct.pack(">HHH8sH", 0, 1, 6, b"", 0x0800) + ip
    sll2 = struct.pack(">HHIHBB8s", 0x0800, 0, 1, 1, 0, 6, b"") + ip
    return [(1, make.ethernet(ip)), (1, vlan), (1, double), (113, sll), (276, sll2), (101, ip), (12, ip), (228, ip),
            (0, struct.pack("<I", 2) + ip), (0, struct.pack(">I", 2) + ip), (108, struct.pack(">I", 2) + ip)]  # fmt: skip


def test_every_link_type_gives_the_same_record(make, pcap_file):
    seen = set()
    for link_type, data in link_headers(make):
        reader = PacketCaptureReader(pcap_file([(TIMES[0], data)], link_type=link_type))
        (frame,) = reader.frames()
        assert frame.payload.tobytes() == b"hello"
        seen.add(frame.records.tobytes())
    assert len(seen) == 1


def test_ethernet_padding_is_no_payload(make, pcap_file):
    data = make.ethernet(make.tcp_packet(make.CLIENT, make.SERVER, 5, b"a")) + b"\0" * 10
    (frame,) = PacketCaptureReader(pcap_file([(1, data)], link_type=1)).frames()
    assert frame.payload.tobytes() == b"a"


def test_a_link_type_that_is_not_read_is_named(pcap_file):
    reader = PacketCaptureReader(pcap_file([(1, b"usb")], link_type=189))
    with pytest.raises(CaptureError, match="link type 189 is not read, only Ethernet"):
        list(reader.frames())


def test_packets_of_another_interface_are_read_beside_those_that_cannot_be(make, tmp_path):
    ip = make.tcp_packet(make.CLIENT, make.SERVER, 5, b"x")
    data = section() + interface(189) + interface(101) + enhanced(0, 1, b"usb") + enhanced(1, 2, ip)
    (tmp_path / "a.pcapng").write_bytes(data)
    reader = PacketCaptureReader(tmp_path / "a.pcapng")
    assert [len(frame.records) for frame in reader.frames()] == [1]
    assert reader.stats.skipped == {"link type 189 is not read": 1}


def test_packets_that_are_no_segments_are_counted_by_cause(make, pcap_file):
    icmp = bytearray(make.tcp_packet(make.CLIENT, make.SERVER, 5))
    icmp[9] = 1
    good = make.ethernet(make.tcp_packet(make.CLIENT, make.SERVER, 5, b"x"))
    arp, cut = make.ethernet(b"\0" * 28, 0x0806), make.ethernet(bytes(good[14:40]))
    reader = PacketCaptureReader(pcap_file([(1, p) for p in (arp, make.ethernet(bytes(icmp)), cut, b"", good)], link_type=1))
    assert sum(len(frame.records) for frame in reader.frames()) == 1
    assert reader.stats.packets == 5
    assert reader.stats.skipped == {"not IP": 1, "neither TCP nor UDP": 1, "malformed": 2}


def test_a_capture_cut_anywhere_gives_all_whole_packets_and_names_the_place(make, pcap_file, tmp_path):
    sent = [(1000 * i, make.tcp_packet(make.CLIENT, make.SERVER, 5 + 4 * i, b"abcd")) for i in range(5)]
    data = pcap_file(sent).read_bytes()
    (tmp_path / "a.pcapng").write_bytes(section() + interface(101) + b"".join(enhanced(0, t, d) for t, d in sent))
    for whole in (data, (tmp_path / "a.pcapng").read_bytes()):
        for size in range(24, len(whole), 7):
            (tmp_path / "cut").write_bytes(whole[:size])
            reader = PacketCaptureReader(tmp_path / "cut")
            found, error = 0, None
            try:
                for frame in reader.frames():
                    found += len(frame.records)
            except CaptureError as e:
                error = e
            assert found == reader.stats.packets <= 5
            assert error is None or re.search(r"damaged at byte \d+: ", str(error))


@pytest.mark.parametrize(("content", "said"), [(b"", "is empty"), (b"x" * 40, "neither a pcap nor a pcapng")])
def test_another_file_is_refused_in_one_sentence(tmp_path, content, said):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(CaptureError, match=said):
        PacketCaptureReader(tmp_path / "x")


def test_no_bytes_whatever_raise_anything_but_a_capture_error(make, pcap_file, tmp_path):
    rng = np.random.default_rng(5)
    talk = make.Script().connect().ask(b"GET / HTTP/1.1\r\n\r\n").answer(b"HTTP/1.1 200 OK\r\n\r\n").finish()
    data = pcap_file([(t, make.ethernet(p)) for t, p in talk.packets], link_type=1).read_bytes()
    for _ in range(400):
        changed = bytearray(data)
        for at in rng.integers(24, len(data), 3).tolist():
            changed[at] = int(rng.integers(0, 256))
        (tmp_path / "changed").write_bytes(changed)
        with contextlib.suppress(CaptureError):
            for frame in PacketCaptureReader(tmp_path / "changed").frames():
                assert (frame.offsets + frame.records["payload_len"] <= len(frame.payload)).all()
