"""Whatever happens to descriptors, a record names the connection that the bytes went over; streams without a tracepoint of their
end are begun and forgotten all the same."""

import pytest
from ring_reader import CONN, DATA, wait_until

from deeptrace.core.wire import RECORD_FLAGS, SIZEOFS
from deeptrace.loader import map_calls
from deeptrace.loader.client import ProbeConfig

pytestmark = pytest.mark.kernel

CONNECT, ACCEPT, CLOSED = 1, 2, 4
FIRST, FRESH = RECORD_FLAGS["first"], RECORD_FLAGS["fresh"]
UNIX = 1  # AF_UNIX


@pytest.fixture
def pair(kernel, traced):
    """A TCP connection x, and what a record of its client's end says of itself."""
    client, server = traced.do("connect", name="x", family="AF_INET", host="127.0.0.1")
    kernel.rings.drain()
    return client[1], server[1]


def sent(kernel, process, name, data=b"bytes"):
    """The record of one message."""
    process.do("send", name=name, data=data.hex())
    return next(r for r in kernel.take() if r.direction == 1)


def ports(record):
    return record.local[1], record.peer[1]


@pytest.mark.parametrize("by", ["dup", "dup2", "dup3"])
def test_a_duplicate_is_the_same_connection(kernel, traced, pair, by):
    original = sent(kernel, traced, "x.c")
    traced.do("duplicate", name="x.c", as_name="d", by=by)
    copy = sent(kernel, traced, "d")
    assert (ports(copy), copy.socket) == (pair, original.socket)
    assert (copy.position - original.position) % 2**32 == 5


def test_a_descriptor_that_was_passed_on_is_the_same_connection(kernel, traced, pair):
    original = sent(kernel, traced, "x.c")
    traced.do("pass_on", name="x.c", as_name="p")
    traced.do("close", name="x.c")
    copy = sent(kernel, traced, "p")
    assert (ports(copy), copy.socket) == (pair, original.socket)
    assert (copy.position - original.position) % 2**32 == 5
    assert [r for r in kernel.take(CONN) if r.code == CLOSED] == []


def test_a_child_uses_the_connection_of_its_parent(kernel, traced, pair):
    original = sent(kernel, traced, "x.c")
    child, _result = traced.do("fork_and", request={"do": "send", "name": "x.c", "data": b"child".hex()})
    copy = next(r for r in kernel.take() if r.direction == 1)
    assert (ports(copy), copy.socket, copy.tgid) == (pair, original.socket, child)
    assert (copy.position - original.position) % 2**32 == 5
    later = sent(kernel, traced, "x.c")
    assert (later.position - copy.position) % 2**32 == 5


@pytest.mark.usefixtures("pair")
def test_a_number_that_is_used_again_names_the_new_connection(kernel, traced):
    sent(kernel, traced, "x.c")
    number = traced.do("descriptor", name="x.c")
    traced.do("close", name="x.c")
    client, server = traced.do("connect", name="y", family="AF_INET", host="127.0.0.1")
    kernel.rings.drain()
    names = [name for name in ("y.c", "y.s") if traced.do("descriptor", name=name) == number]
    assert names == ["y.c"]
    record = sent(kernel, traced, "y.c")
    assert ports(record) == (client[1], server[1])
    assert record.flags & FIRST
    assert record.flags & FRESH


@pytest.mark.usefixtures("pair")
def test_a_descriptor_that_is_replaced_under_its_number_names_the_other_connection(kernel, traced):
    client, server = traced.do("connect", name="y", family="AF_INET", host="127.0.0.1")
    kernel.rings.drain()
    traced.do("replace", name="x.c", by="y.c")
    record = sent(kernel, traced, "x.c")
    assert ports(record) == (client[1], server[1])


@pytest.fixture
def unix(kernel, traced):
    """Unix streams are followed."""
    kernel.probes.arm(ProbeConfig(batch_bytes=0, unix_sockets=True))
    return traced


def remembered(kernel, socket):
    """What the probes remember of a socket; None: nothing."""
    return map_calls.map_lookup(kernel.probes.map_fds["SOCKETS"], socket.to_bytes(8, "little"), SIZEOFS["dt_socket_info"])


def ends_of(record):
    """The two sockets in a unix stream's addresses."""
    return tuple(int.from_bytes(address[:8], "little") for address in (record.local[0], record.peer[0]))


def test_a_unix_stream_tells_its_beginning_and_its_end(kernel, unix, tmp_path):
    unix.do("unix", name="u", path=str(tmp_path / "socket"))
    begins = {r.code: r for r in kernel.take(CONN) if r.tgid == unix.pid}
    assert set(begins) == {CONNECT, ACCEPT}
    assert all(r.fields["tuple"]["family"] == UNIX for r in begins.values())
    assert ends_of(begins[CONNECT]) == ends_of(begins[ACCEPT])[::-1]
    first = sent(kernel, unix, "u.c")
    assert first.socket == begins[CONNECT].socket
    assert first.flags & FIRST
    assert first.flags & FRESH
    unix.do("close", name="u.c")
    unix.do("close", name="u.s")
    closed = [r for r in kernel.take(CONN) if r.code == CLOSED]
    assert {r.socket for r in closed} == {r.socket for r in begins.values()}
    assert all(remembered(kernel, r.socket) is None for r in closed)


def test_the_ends_of_a_socketpair_are_begun_and_each_others_peer(kernel, unix):
    unix.do("unix", name="u")
    there, back = sent(kernel, unix, "u.c"), sent(kernel, unix, "u.s")
    assert ends_of(there) == ends_of(back)[::-1]
    for record in (there, back):
        assert record.flags & FIRST
        assert record.flags & FRESH


def test_a_unix_stream_lives_until_its_last_descriptor_is_closed(kernel, unix):
    unix.do("unix", name="u")
    first = sent(kernel, unix, "u.c")
    unix.do("duplicate", name="u.c", as_name="d")
    unix.do("close", name="u.c")
    second = sent(kernel, unix, "d")
    assert second.socket == first.socket
    assert not second.flags & FIRST
    assert [r for r in kernel.take(CONN) if r.code == CLOSED] == []
    unix.do("close", name="d")
    wait_until(lambda: remembered(kernel, first.socket) is None)


def test_unix_streams_are_left_alone_unless_they_are_wanted(kernel, traced, tmp_path):
    traced.do("unix", name="u", path=str(tmp_path / "socket"))
    traced.do("send", name="u.c", data=b"x".hex())
    assert [r for r in kernel.rings.drain() if r.kind in (DATA, CONN)] == []


def test_a_datagram_socket_is_forgotten_with_its_last_descriptor(kernel, traced):
    traced.do("udp", name="u", host="127.0.0.1")
    first = sent(kernel, traced, "u.c")
    traced.do("duplicate", name="u.c", as_name="d")
    traced.do("close", name="u.c")
    assert remembered(kernel, first.socket) is not None
    traced.do("close", name="d")
    assert remembered(kernel, first.socket) is None
