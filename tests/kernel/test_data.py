"""Every data call yields exactly its bytes, its addresses and its position in the stream."""

import ipaddress
import random

import pytest
from ring_reader import wait_until

from deeptrace.loader.client import ProbeConfig

pytestmark = pytest.mark.kernel

FAMILIES = {"AF_INET": ("127.0.0.1", 2), "AF_INET6": ("::1", 10)}
PAIRS = [("write", "read"), ("writev", "readv"), ("sendto", "recvfrom"), ("sendmsg", "recvmsg"), ("sendmmsg", "recvmmsg")]
CODES = {name: i for i, name in enumerate(("", "read", "readv", "recvfrom", "recvmsg", "recvmmsg"))}
CODES |= {name: i for i, name in enumerate(("write", "writev", "sendto", "sendmsg", "sendmmsg"), 6)}
SEQ_VALID, SEQ_AMBIGUOUS, PEEK, TRUNCATED, READ_FAULT, FIRST, FRESH = 1, 2, 4, 8, 0x10, 0x40, 0x80
MSG_PEEK, MSG_TRUNC = 2, 0x20


def address(text):
    ip = ipaddress.ip_address(text)
    return ip.packed if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed


def split(records):
    """(egress, ingress), each in order of position."""
    egress, ingress = ([r for r in records if r.direction == d] for d in (1, 0))
    return egress, ingress


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("egress_call", "ingress_call"), PAIRS)
@pytest.mark.parametrize("size", [1, 700, 4000])
def test_a_call_yields_its_bytes_its_tuple_and_its_position(kernel, traced, family, egress_call, ingress_call, size):
    host, number = FAMILIES[family]
    (client, server) = traced.do("connect", name="x", family=family, host=host)
    kernel.take()
    data = random.Random(size).randbytes(size)
    _sent, got = traced.do("transfer", out="x.c", into="x.s", egress=egress_call, ingress=ingress_call, data=data.hex())
    assert bytes.fromhex(got) == data
    egress, ingress = split(kernel.take())
    for records, call, ours, theirs in ((egress, egress_call, client, server), (ingress, ingress_call, server, client)):
        assert b"".join(r.payload for r in records) == data
        assert sum(r.result for r in records) == size
        assert {r.code for r in records} == {CODES[call]}
        assert {(r.local, r.peer) for r in records} == {((address(ours[0]), ours[1]), (address(theirs[0]), theirs[1]))}
        assert {(int(r.tuple["family"]), int(r.tuple["l4_protocol"])) for r in records} == {(number, 6)}
        assert {r.tgid for r in records} == {traced.pid}
        assert all(r.flags & SEQ_VALID and not r.flags & SEQ_AMBIGUOUS for r in records)
        assert all(r.enter_ns < r.exit_ns for r in records)
    positions = {direction: set() for direction in ("egress", "ingress")}
    for name, records in (("egress", egress), ("ingress", ingress)):
        at = records[0].position
        positions[name].add(at)
        for record in records:
            assert record.position == at
            at = (at + record.result) % 2**32
    assert positions["egress"] == positions["ingress"]
    if egress_call == "sendmmsg" and size > 2:
        assert [r.message_index for r in egress] == [0, 1, 2]


def test_as_many_records_as_calls(kernel, traced):
    traced.do("connect", name="x", family="AF_INET", host="127.0.0.1")
    kernel.take()
    traced.do("many", out="x.c", into="x.s", n=23)
    egress, ingress = split(kernel.take())
    assert (len(egress), len(ingress)) == (23, 23)
    assert [int.from_bytes(r.payload, "little") for r in ingress] == list(range(23))


def test_files_pipes_eventfds_and_unix_sockets_yield_nothing(kernel, traced, tmp_path):
    kernel.take()
    before = kernel.counters()
    traced.do("no_sockets", path=str(tmp_path / "file"))
    after = kernel.counters()
    assert kernel.take() == []
    assert after["not_socket"] - before["not_socket"] >= 6
    assert after["other_socket"] - before["other_socket"] >= 2


def test_the_head_of_each_direction_is_whole_and_the_rest_is_cut(kernel, traced):
    traced.do("connect", name="x", family="AF_INET", host="127.0.0.1")
    kernel.take()
    data = random.Random(1).randbytes(3000)
    for _ in range(3):
        traced.do("transfer", out="x.c", into="x.s", egress="write", ingress="read", data=data.hex())
    for records in split(kernel.take()):
        assert [len(r.payload) for r in records] == [3000, 1096, 1024]
        assert [r.payload for r in records] == [data[:3000], data[:1096], data[:1024]]
        assert [r.flags & (FIRST | FRESH) for r in records] == [FIRST | FRESH, 0, 0]


def test_a_peek_is_flagged_and_takes_nothing(kernel, traced):
    traced.do("connect", name="x", family="AF_INET", host="127.0.0.1")
    traced.do("send", name="x.c", data=b"peeked".hex())
    kernel.take()
    assert traced.do("recv_flags", name="x.s", n=10, flags=MSG_PEEK) == b"peeked".hex()
    traced.do("recv_flags", name="x.s", n=10, flags=0)
    peek, read = kernel.take()
    assert (peek.flags & PEEK, read.flags & PEEK) == (PEEK, 0)
    assert peek.position == read.position
    assert not (peek.flags | read.flags) & SEQ_AMBIGUOUS
    assert (peek.payload, read.payload) == (b"peeked", b"peeked")


def test_truncated_bytes_of_a_stream_are_moved_but_not_read(kernel, traced):
    traced.do("connect", name="x", family="AF_INET", host="127.0.0.1")
    traced.do("send", name="x.c", data=b"thrown away".hex())
    kernel.take()
    traced.do("recv_flags", name="x.s", n=6, flags=MSG_TRUNC)
    traced.do("recv_flags", name="x.s", n=10, flags=0)
    thrown, read = kernel.take()
    assert thrown.flags & TRUNCATED
    assert (thrown.result, thrown.payload) == (6, b"")
    assert read.payload == b" away"
    assert read.position == thrown.position + 6


def test_a_sent_file_has_length_position_and_no_payload(kernel, traced, tmp_path):
    data = random.Random(2).randbytes(2300)
    (tmp_path / "file").write_bytes(data)
    traced.do("connect", name="x", family="AF_INET", host="127.0.0.1")
    kernel.take()
    assert traced.do("sendfile", name="x.c", path=str(tmp_path / "file"), n=2300) == 2300
    traced.do("transfer", out="x.c", into="x.s", egress="write", ingress="read", data=b"after".hex())
    (sent, after), _ingress = split(kernel.take())
    assert (sent.result, sent.payload) == (2300, b"")
    assert not sent.flags & (SEQ_AMBIGUOUS | READ_FAULT)
    assert after.position == (sent.position + 2300) % 2**32


def test_datagrams_have_bytes_and_addresses_and_no_position(kernel, traced):
    a, b = traced.do("udp", name="u", host="127.0.0.1")
    kernel.take()
    assert traced.do("sendmmsg", name="u.c", parts=[b"one".hex(), b"three".hex()]) == 2
    assert traced.do("recvmmsg", name="u.s", sizes=[100, 100]) == [b"one".hex(), b"three".hex()]
    egress, ingress = split(kernel.take())
    for records, ours, theirs in ((egress, a, b), (ingress, b, a)):
        assert [(r.message_index, r.payload) for r in records] == [(0, b"one"), (1, b"three")]
        assert {(r.local[1], r.peer[1]) for r in records} == {(ours[1], theirs[1])}
        assert not any(r.flags & SEQ_VALID for r in records)


def test_a_call_that_blocks_keeps_its_socket_and_its_time(kernel, traced):
    _client, server = traced.do("connect", name="x", family="AF_INET", host="127.0.0.1")
    kernel.take()
    tid = traced.do("block", name="x.s")
    wait_until(lambda: kernel.probes.in_flight() >= 1)
    traced.do("send", name="x.c", data=b"late".hex())
    traced.do("join")
    read = next(r for r in kernel.take() if r.direction == 0)
    assert (read.tid, read.payload, read.local[1]) == (tid, b"late", server[1])


def test_ipv4_over_an_ipv6_socket_stands_v4_mapped(kernel, traced):
    client, server = traced.do("connect", name="x", family="AF_INET6", host="::ffff:127.0.0.1")
    kernel.take()
    traced.do("transfer", out="x.c", into="x.s", egress="write", ingress="read", data=b"mapped".hex())
    sent, read = kernel.take()
    assert (sent.local, sent.peer) == ((address("127.0.0.1"), client[1]), (address("127.0.0.1"), server[1]))
    assert (read.local, read.peer) == (sent.peer, sent.local)
    assert int(sent.tuple["family"]) == 10


def test_bytes_read_after_a_reset_keep_their_addresses(kernel, traced):
    client, server = traced.do("connect", name="x", family="AF_INET", host="127.0.0.1")
    kernel.take()
    assert traced.do("last_words", name="x", data=b"bye".hex()) == b"bye".hex()
    read = next(r for r in kernel.take() if r.direction == 0)
    assert (read.payload, read.local[1], read.peer[1]) == (b"bye", client[1], server[1])


def test_positions_are_right_or_flagged_when_threads_share_a_socket(kernel, traced):
    traced.do("connect", name="x", family="AF_INET", host="127.0.0.1")
    kernel.take()
    traced.do("storm", out="x.c", into="x.s", n=1000)
    egress, ingress = split(kernel.take())
    proven = [[r for r in records if not r.flags & SEQ_AMBIGUOUS] for records in (egress, ingress)]
    assert all(len(certain) > len(records) / 2 for certain, records in zip(proven, (egress, ingress), strict=True))
    read = {(r.position + i) % 2**32: byte for r in proven[1] for i, byte in enumerate(r.payload)}
    wrong = [r for r in proven[0] for i, byte in enumerate(r.payload) if read.get((r.position + i) % 2**32, byte) != byte]
    assert wrong == []


def test_other_settings_hold_from_the_next_call_on(kernel, traced):
    traced.do("connect", name="x", family="AF_INET", host="127.0.0.1")
    kernel.probes.arm(ProbeConfig(payload_bytes=10, head_bytes=0, batch_bytes=0))
    traced.do("connect", name="y", family="AF_INET", host="127.0.0.1")
    kernel.take()
    traced.do("transfer", out="y.c", into="y.s", egress="sendmsg", ingress="recvmsg", data=bytes(30).hex())
    assert [(r.result, len(r.payload)) for r in kernel.take()] == [(30, 10), (30, 10)]
    kernel.probes.arm(ProbeConfig(payload_bytes=16384, batch_bytes=0))
    traced.do("transfer", out="y.c", into="y.s", egress="write", ingress="read", data=bytes(20000).hex())
    assert next(len(r.payload) for r in kernel.take()) == 16384


def test_more_messages_than_are_read_are_counted(kernel, traced):
    traced.do("udp", name="u", host="127.0.0.1")
    kernel.take()
    before = kernel.counters()
    assert traced.do("sendmmsg", name="u.c", parts=[b"x".hex()] * 19) == 19
    after = kernel.counters()
    assert len(kernel.take()) == 16
    assert after["message_cut"] - before["message_cut"] == 3
    assert after["extra_messages"] - before["extra_messages"] == 18
