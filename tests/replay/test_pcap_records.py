"""Packets as records: one client per connection, positions from sequence numbers, beginnings and ends."""

import errno

import numpy as np
import pytest

from deeptrace.wire.capture import MAX_PAYLOAD
from deeptrace.wire.pcap import PacketCaptureReader
from deeptrace.wire.pcap.records import CONN_CLOSED, CONN_CONNECT, CONN_PEER_CLOSED, FIRST, FRESH, KIND_CONN, KIND_DATA, SEQ_VALID

INGRESS, EGRESS = 0, 1


def rows_of(path):
    """All records of a capture as (record, payload)."""
    found = []
    for frame in PacketCaptureReader(path).frames():
        for record, at in zip(frame.records, frame.offsets.tolist(), strict=True):
            found.append((record, frame.payload[at : at + int(record["payload_len"])].tobytes()))
    return found


def story(rows):
    """What happened, in short."""
    names = {CONN_CONNECT: "connect", CONN_PEER_CLOSED: "peer closed", CONN_CLOSED: "closed"}
    return [
        (
            int(r["socket"]),
            names[int(r["code"])] if r["kind"] == KIND_CONN else ("<" if r["direction"] == INGRESS else ">") + p.decode(),
        )
        for r, p in rows
    ]


def test_a_connection_is_told_from_the_side_of_its_client(make, pcap_file):
    talk = make.Script().connect().ask(b"ask").answer(b"reply").finish()
    rows = rows_of(pcap_file(talk.packets))
    assert story(rows) == [(1, "connect"), (1, ">ask"), (1, "<reply"), (1, "peer closed"), (1, "closed")] or story(rows) == [
        (1, "connect"), (1, ">ask"), (1, "<reply"), (1, "closed"),
    ]  # fmt: skip
    record = rows[1][0]
    assert record["tuple"]["local_port"] == 40000
    assert record["tuple"]["peer_port"] == 80
    assert record["tuple"]["local_addr"].tobytes() == b"\0" * 10 + b"\xff\xff\x0a\0\0\x01"
    assert record["tgid"] == record["tid"] == 0
    assert record["enter_ns"] == record["exit_ns"] == talk.packets[3][0]


def test_positions_are_the_sequence_numbers_of_the_first_bytes(make, pcap_file):
    talk = make.Script(isn=(0xFFFFFFFE, 9000)).connect().ask(b"abcd").ask(b"ef").answer(b"reply")
    data = [r for r, _ in rows_of(pcap_file(talk.packets)) if r["kind"] == KIND_DATA]
    assert [int(r["seq_enter"]) for r in data] == [0xFFFFFFFF, 3, 9001]  # with the wrap of 32 bits
    egress = [(int(r["seq_exit"]) - int(r["result"])) & 0xFFFFFFFF for r in data if r["direction"] == EGRESS]
    assert egress == [0xFFFFFFFF, 3]
    assert all(r["flags"] & SEQ_VALID for r in data)
    assert [bool(r["flags"] & FIRST) for r in data] == [True, False, True]
    assert all(r["flags"] & FRESH for r in data)


def test_a_connection_joined_under_way_is_not_called_fresh_and_its_server_is_the_well_known_port(make, pcap_file):
    talk = make.Script().answer(b"reply").ask(b"ask")
    rows = rows_of(pcap_file(talk.packets))
    assert story(rows) == [(1, "<reply"), (1, ">ask")]
    assert not any(r["flags"] & FRESH for r, _ in rows)
    assert all(r["flags"] & FIRST for r, _ in rows)


@pytest.mark.parametrize(("source", "target", "client_is_source"), [
    (40000, 80, True), (80, 40000, False), (31090, 40000, False), (5000, 6000, False), (6000, 5000, True), (7000, 7000, True),
])  # fmt: skip
def test_without_a_handshake_the_ports_tell_the_client(make, pcap_file, source, target, client_is_source):
    packet = make.tcp_packet(("10.0.0.1", source), ("10.0.0.2", target), 5, b"x")
    ((record, _),) = rows_of(pcap_file([(1, packet)]))
    assert (record["direction"] == EGRESS) == client_is_source


def test_only_the_answer_to_a_connect_was_captured(make, pcap_file):
    talk = make.Script().connect().ask(b"ask").answer(b"reply")
    rows = rows_of(pcap_file(talk.packets[1:]))
    assert story(rows) == [(1, "connect"), (1, ">ask"), (1, "<reply")]
    assert rows[1][0]["flags"] & FRESH


def test_a_repeated_handshake_is_one_connection(make, pcap_file):
    talk = make.Script().connect()
    talk.packets += talk.packets[:2]
    talk.ask(b"ask")
    assert story(rows_of(pcap_file(talk.packets))) == [(1, "connect"), (1, ">ask")]


def test_the_same_ports_used_again_are_another_connection(make, pcap_file):
    first = make.Script().connect().ask(b"one")
    second = make.Script(isn=(5000, 6000), start_ns=first.now_ns).connect().ask(b"two")
    rows = story(rows_of(pcap_file(first.packets + second.packets)))
    assert rows == [(1, "connect"), (1, ">one"), (1, "closed"), (2, "connect"), (2, ">two")]


def test_a_retransmission_is_there_twice_at_the_same_position(make, pcap_file):
    talk = make.Script().connect().ask(b"ask")
    talk.packets.append((talk.now_ns, talk.packets[-1][1]))
    data = [r for r, _ in rows_of(pcap_file(talk.packets)) if r["kind"] == KIND_DATA]
    assert [int(r["seq_enter"]) for r in data] == [1001, 1001]
    assert [bool(r["flags"] & FIRST) for r in data] == [True, False]


def test_a_reset_says_so(make, pcap_file):
    talk = make.Script().connect().ask(b"ask").reset()
    rows = rows_of(pcap_file(talk.packets))
    assert story(rows)[-1] == (1, "closed")
    assert rows[-1][0]["result"] == -errno.ECONNRESET


def test_an_end_that_overtakes_the_last_bytes_waits_for_them(make, pcap_file):
    talk = make.Script().connect().ask(b"ask").answer(b"one ").answer(b"two").finish()
    talk.swap(5, 7)  # the server's FIN and its last bytes
    last = story(rows_of(pcap_file(talk.packets)))
    assert last.index((1, "<two")) < last.index((1, "closed"))
    assert last.count((1, "closed")) == 1


def test_an_end_is_told_although_bytes_before_it_were_lost(make, pcap_file):
    talk = make.Script().connect().ask(b"ask").answer(b"lost").finish()
    del talk.packets[4]
    assert story(rows_of(pcap_file(talk.packets)))[-1] == (1, "closed")


def test_a_lost_segment_does_not_slow_down_what_follows(make, pcap_file):
    from deeptrace.wire.pcap.connections import Half, advance

    half = Half()
    for position in (10, 30, 40, 50, 70, 80):
        advance(half, position, 10)
    assert (half.expected, half.runs) == (20, {30: 60, 70: 90})
    advance(half, 20, 10)
    assert (half.expected, half.runs) == (60, {70: 90})
    advance(half, 55, 20)
    assert (half.expected, half.runs) == (90, {})
    talk = make.Script().connect()
    for i in range(50):
        talk.ask(b"%02d" % i)
    del talk.packets[10]
    assert len(rows_of(pcap_file(talk.packets))) == 50


def test_the_true_first_byte_is_marked_wherever_it_comes(make, pcap_file):
    talk = make.Script().connect().ask(b"one ").ask(b"two")
    talk.swap(3, 4)
    rows = rows_of(pcap_file(talk.packets))
    assert story(rows) == [(1, "connect"), (1, ">two"), (1, ">one ")]
    assert all(r["flags"] & FRESH for r, _ in rows)
    assert [bool(r["flags"] & FIRST) for r, _ in rows] == [False, False, True]


def test_a_connection_whose_first_bytes_never_come_has_no_first_byte(make, pcap_file):
    talk = make.Script().connect().ask(b"lost").ask(b"two").ask(b"three")
    del talk.packets[3]
    rows = rows_of(pcap_file(talk.packets))
    assert story(rows) == [(1, "connect"), (1, ">two"), (1, ">three")]
    assert not any(r["flags"] & FIRST for r, _ in rows)


def test_bytes_repeated_after_the_end_are_counted_and_new_ones_begin_another_connection(make, pcap_file):
    talk = make.Script().connect().ask(b"ask").answer(b"reply").finish()
    talk.packets.append((talk.now_ns, talk.packets[3][1]))
    talk.ask(b"more")
    reader = PacketCaptureReader(pcap_file(talk.packets))
    rows = [r for frame in reader.frames() for r in frame.records]
    assert reader.stats.skipped == {"repeated after the connection's end": 1}
    assert [int(r["socket"]) for r in rows][-1] == 2


def test_a_packet_cut_by_the_snapshot_limit_keeps_its_length(make, pcap_file):
    packet = make.tcp_packet(make.CLIENT, make.SERVER, 5, b"0123456789")
    ((record, payload),) = rows_of(pcap_file([(1, packet)], snap_size=44))
    assert (record["result"], record["payload_len"], payload) == (10, 4, b"0123")


def test_a_segment_larger_than_a_record_becomes_several(make, pcap_file):
    body = np.random.default_rng(1).bytes(40000)
    rows = rows_of(pcap_file([(1, make.tcp_packet(make.CLIENT, make.SERVER, 5, body))]))
    assert b"".join(payload for _, payload in rows) == body
    assert [int(r["result"]) for r, _ in rows] == [MAX_PAYLOAD, MAX_PAYLOAD, 40000 - 2 * MAX_PAYLOAD]
    assert [int(r["seq_enter"]) for r, _ in rows] == [5, 5 + MAX_PAYLOAD, 5 + 2 * MAX_PAYLOAD]
    assert [bool(r["flags"] & FIRST) for r, _ in rows] == [True, False, False]


def test_datagrams_have_no_position(make, pcap_file):
    packets = [
        make.udp_packet(("10.0.0.1", 5353), ("10.0.0.2", 53), b"q"),
        make.udp_packet(("10.0.0.2", 53), ("10.0.0.1", 5353), b"a"),
    ]
    rows = rows_of(pcap_file([(i, p) for i, p in enumerate(packets)]))
    assert story(rows) == [(1, ">q"), (1, "<a")]
    assert not any(r["flags"] & SEQ_VALID for r, _ in rows)


def test_fragments_are_put_together_in_any_order(pcap_file):
    inet, inet6 = pytest.importorskip("scapy.layers.inet"), pytest.importorskip("scapy.layers.inet6")
    body = np.random.default_rng(1).bytes(5000)
    v4 = inet.fragment(inet.IP(src="10.0.0.1", dst="10.0.0.2", id=7) / inet.TCP(sport=40000, dport=80, seq=5) / body, 1400)
    whole = (
        inet6.IPv6(src="fe80::1", dst="fe80::2") / inet6.IPv6ExtHdrFragment(id=9) / inet.TCP(sport=40000, dport=80, seq=5) / body
    )
    v6 = inet6.fragment6(whole, 1400)
    for packets in (v4, v6):
        data = [bytes(p) for p in packets]
        for order in (data, data[::-1], data[1:] + data[:1]):
            rows = rows_of(pcap_file([(1, p) for p in order]))
            assert b"".join(payload for _, payload in rows) == body, len(packets)


def test_fragments_that_stay_incomplete_are_counted(pcap_file):
    inet = pytest.importorskip("scapy.layers.inet")
    parts = inet.fragment(inet.IP(src="10.0.0.1", dst="10.0.0.2", id=7) / inet.UDP(sport=1, dport=2) / (b"x" * 5000), 1400)
    reader = PacketCaptureReader(pcap_file([(1, bytes(p)) for p in parts[:-1]]))
    assert list(reader.frames()) == []
    assert reader.stats.skipped == {"IP fragments of incomplete datagrams": len(parts) - 1}


def test_every_capture_is_read_and_every_packet_accounted_for(captures):
    paths = sorted(captures.rglob("*.pcap"))
    assert len(paths) == 87
    for path in paths:
        reader = PacketCaptureReader(path)
        for frame in reader.frames():
            assert (frame.offsets + frame.records["payload_len"] <= len(frame.payload)).all()
            assert (frame.records["payload_len"] <= np.maximum(frame.records["result"], 0)).all()
        assert reader.stats.packets > 0
        assert reader.stats.skipped == {}, path


def test_bytes_of_every_stream_equal_those_that_tshark_reassembles(captures, tshark):
    """tcp.len per packet in both directions, for captures of several shapes."""
    for name in ("http/sw8.pcap", "redis/redis.pcap", "thrift/tt.pcap", "mysql/171-mysql.pcap", "nats/nats-err.pcap"):
        rows = tshark(captures / name, ["tcp.seq_raw", "tcp.len"], "tcp.len>0")
        sizes = [(int(seq), int(size)) for seq, size in rows]
        expected = sorted((seq + at, min(MAX_PAYLOAD, size - at)) for seq, size in sizes for at in range(0, size, MAX_PAYLOAD))
        found = []
        for frame in PacketCaptureReader(captures / name).frames():
            data = frame.records[(frame.records["kind"] == KIND_DATA) & (frame.records["tuple"]["l4_protocol"] == 6)]
            found += zip(data["seq_enter"].tolist(), data["result"].tolist(), strict=True)
        assert sorted(found) == expected, name
