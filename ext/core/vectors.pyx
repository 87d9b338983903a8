# SPDX-License-Identifier: Apache-2.0
"""Runs one protocol over chunks of a connection and tells its messages as dicts: for tests and showing, never for traffic.

Does what the flow stage does with a protocol's functions, in the plainest way; one Python object per message and more.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

import struct

from deeptrace.core.proto cimport L7Protocol
from dt_proto cimport *

from deeptrace.core.wire import ATTRIBUTE_ROWS

NAMES = {number: (name, kind) for number, _, name, kind in ATTRIBUTE_ROWS}
TYPES = {DT_MSG_REQUEST: "request", DT_MSG_RESPONSE: "response", DT_MSG_INTERIM: "interim", DT_MSG_ONE_WAY: "one_way"}
FLAGS = {
    DT_MSG_CUT: "cut",
    DT_MSG_ERROR_CLIENT: "error_client",
    DT_MSG_ERROR_SERVER: "error_server",
    DT_MSG_LOST: "lost",
    DT_MSG_UPGRADE: "upgrade",
}
ROLES = ("request", "response")


def attribute_dict(bytes blob) -> dict:
    """{u16 key, u16 size, bytes} runs as {name: text or number}. Raises ValueError for a run that is not whole."""
    found = {}
    at = 0
    while at < len(blob):
        key, size = struct.unpack_from("=HH", blob, at)
        value = blob[at + 4 : at + 4 + size]
        if len(value) != size:
            raise ValueError(f"attribute {key} is cut")
        name, kind = NAMES[key]
        found[name] = struct.unpack("=q", value)[0] if kind == "NUMBER" else value.decode("utf-8", "strict")
        at += 4 + size
    return found


cdef class _Exact:
    """A copy of bytes in memory of exactly their size: a sanitizer then sees reads beyond, which Python's own NUL would hide."""

    cdef uint8_t *data
    cdef uint32_t size

    def __cinit__(self, bytes data):
        self.size = <uint32_t>len(data)
        self.data = <uint8_t *>malloc(self.size if self.size else 1)
        if self.data == NULL:
            raise MemoryError
        memcpy(self.data, <const uint8_t *>data, self.size)

    def __dealloc__(self):
        free(self.data)


cdef class _Direction:
    """One direction of the connection. carry: bytes not understood yet."""

    cdef L7Protocol protocol
    cdef int role
    cdef bytearray carry
    cdef dt_msg m
    cdef object message  # the dict of the message whose body is being passed over
    cdef object left  # bytes to pass over; None: until the end
    cdef bint ends  # the message ends behind them
    cdef list hints
    cdef list messages
    cdef dict connection
    cdef bint lost  # where the next message begins is not known; nothing more is told of this direction

    def __cinit__(self, L7Protocol protocol, int role, list hints, list messages, dict connection):
        self.connection = connection
        self.protocol = protocol
        self.role = role
        self.carry = bytearray()
        self.message = None
        self.left = 0
        self.hints = hints
        self.messages = messages

    cdef feed(self, bytes data, missing, bint eof):
        """Take data; missing: bytes that follow and were not captured."""
        if self.connection["upgraded"] or self.lost:
            return
        self.carry += data
        while True:
            if self.left is None or self.left:
                n = len(self.carry) if self.left is None else min(self.left, len(self.carry))
                self.count(n)
                del self.carry[:n]
                hole = missing if self.left is None else min(self.left, missing)
                if not self.carry and hole:
                    self.count(hole)
                    missing -= hole
                if self.left is None and eof:
                    self.left = 0
                    self.end()
                if self.left is None or self.left:
                    return
            if self.message is not None and self.ends:
                self.end()
            if self.connection["upgraded"] or not self.step(missing, eof):
                break
        if missing:  # nobody can tell what the hole hid
            self.lose()

    cdef count(self, n):
        if self.message is not None:
            self.message["bytes"] += n
        if self.left is not None:
            self.left -= n

    cdef end(self):
        self.message = None
        if self.m.flags & DT_MSG_UPGRADE:
            self.connection["upgraded"] = True

    cdef lose(self):
        self.lost = True
        if self.message is not None and not self.ends:
            self.message["flags"] = sorted({*self.message["flags"], "lost"})
        self.message = None
        self.left = 0
        self.carry.clear()

    cdef bint step(self, missing, bint eof) except -1:
        """Frame one message or continue a body; whether there may be more to do."""
        cdef _Exact run = _Exact(bytes(self.carry))
        cdef dt_buf b
        cdef int verdict
        b.data = run.data
        b.size = run.size
        b.at = 0
        b.missing = missing
        b.eof = eof
        if self.message is None:
            return run.size > 0 and self.frame(&b)
        self.m.skip = 0
        verdict = self.protocol.table.body(&b, self.role, &self.m)
        self.count_taken(b.at)
        if verdict == DT_BAD:
            self.lose()
            return False
        if self.m.flags & DT_MSG_CUT and "cut" not in self.message["flags"]:
            self.message["flags"] = sorted({*self.message["flags"], "cut"})
        self.left = self.m.skip
        self.ends = verdict == DT_OK
        if self.ends and not self.left:
            self.end()
        return verdict == DT_OK or self.m.skip > 0

    cdef count_taken(self, n):
        self.message["bytes"] += n
        del self.carry[:n]

    cdef bint frame(self, dt_buf *b) except -1:
        cdef int verdict
        cdef dt_attrs attrs
        cdef bytearray blob = bytearray(DT_ATTRS_MAX_BYTES)
        memset(&self.m, 0, sizeof(self.m))
        hint = self.hints[0] if self.role == DT_ROLE_RESPONSE and self.hints else 0
        verdict = self.protocol.table.frame(b, self.role, hint, &self.m)
        if verdict != DT_OK:
            if b.at != 0:
                raise AssertionError("frame() moved the cursor without a message")
            if verdict == DT_BAD:
                self.messages.append({"role": ROLES[self.role], "type": "bad", "bytes": 0, "flags": [], "attributes": {}})
                self.lose()
            return False
        attrs.data = blob
        attrs.size = 0
        attrs.capacity = DT_ATTRS_MAX_BYTES
        self.protocol.table.attributes(b.data, &self.m, self.role, &attrs)
        self.message = {
            "role": ROLES[self.role],
            "type": TYPES[self.m.type],
            "bytes": b.at,
            "status": self.m.status,
            "flags": sorted(name for bit, name in FLAGS.items() if self.m.flags & bit),
            "attributes": attribute_dict(bytes(blob[: attrs.size])),
        }
        self.messages.append(self.message)
        del self.carry[: b.at]
        if self.m.type == DT_MSG_REQUEST:
            self.hints.append(self.m.hint)
        elif self.m.type == DT_MSG_RESPONSE and self.hints:
            self.hints.pop(0)
        self.ends = self.m.body != DT_BODY_FRAMED
        self.left = None if self.m.body == DT_BODY_EOF else self.m.body_size if self.m.body == DT_BODY_SIZE else 0
        if self.m.flags & DT_MSG_LOST:
            self.lose()
            return False
        if self.ends and self.left == 0:
            self.end()
        return not self.connection["upgraded"]


def run_protocol(L7Protocol protocol, chunks) -> list:
    """Messages of one connection. chunks: (role, data, missing) in order, role "request" or "response", missing: bytes not
    captured behind data; both directions end after the last. A "bad" message stands where bytes did not parse; the rest of a
    direction that is lost, or of a connection that was upgraded, is not told."""
    cdef list hints = []
    cdef list messages = []
    cdef dict connection = {"upgraded": False}
    cdef _Direction requests = _Direction(protocol, DT_ROLE_REQUEST, hints, messages, connection)
    cdef _Direction responses = _Direction(protocol, DT_ROLE_RESPONSE, hints, messages, connection)
    for role, data, missing in chunks:
        (requests if role == "request" else responses).feed(data, missing, False)
    requests.feed(b"", 0, True)
    responses.feed(b"", 0, True)
    return messages


def attributes_in(L7Protocol protocol, bytes data, str role, int capacity) -> dict:
    """The attributes of the first message of data with room for capacity bytes of them. Raises ValueError if there is none."""
    cdef _Exact run = _Exact(data)
    cdef _Exact room = _Exact(bytes(capacity))
    cdef dt_buf b
    cdef dt_msg m
    cdef dt_attrs attrs
    memset(&m, 0, sizeof(m))
    memset(&b, 0, sizeof(b))
    b.data = run.data
    b.size = run.size
    if protocol.table.frame(&b, ROLES.index(role), 0, &m) != DT_OK:
        raise ValueError("no message")
    attrs.data = room.data
    attrs.size = 0
    attrs.capacity = room.size
    protocol.table.attributes(run.data, &m, ROLES.index(role), &attrs)
    return attribute_dict(room.data[: attrs.size])


def probe(L7Protocol protocol, bytes data, str role) -> int:
    """0..100: how sure these first bytes of a direction are a message of the protocol in this role."""
    cdef _Exact run = _Exact(data)
    return protocol.table.probe(run.data, run.size, ROLES.index(role))


def resync(L7Protocol protocol, bytes data, str role) -> int:
    """Offset of the next likely message, or len(data)."""
    cdef _Exact run = _Exact(data)
    return protocol.table.resync(run.data, run.size, ROLES.index(role))


def time_protocol(L7Protocol protocol, bytes data, str role, int hint, int rounds) -> int:
    """Frame data (whole messages) rounds times, with attributes; the number of messages. For benchmarks."""
    cdef dt_buf b
    cdef dt_msg m
    cdef dt_attrs attrs
    cdef uint8_t blob[DT_ATTRS_MAX_BYTES]
    cdef uint8_t r = ROLES.index(role)
    cdef uint8_t h = hint
    cdef uint32_t start
    cdef int i, n = 0
    b.data = data
    b.size = len(data)
    b.missing = 0
    b.eof = 0
    attrs.data = blob
    attrs.capacity = DT_ATTRS_MAX_BYTES
    with nogil:
        for i in range(rounds):
            b.at = 0
            while b.at < b.size:
                memset(&m, 0, sizeof(m))
                attrs.size = 0
                start = b.at
                if protocol.table.frame(&b, r, h, &m) != DT_OK:
                    break
                protocol.table.attributes(&b.data[start], &m, r, &attrs)
                n += 1
                if m.body == DT_BODY_SIZE:
                    buf_take(&b, <uint32_t>m.body_size)
                elif m.body == DT_BODY_FRAMED and protocol.table.body(&b, r, &m) != DT_OK:
                    break
    return n
