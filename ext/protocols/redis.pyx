# SPDX-License-Identifier: Apache-2.0
"""Redis: RESP2 and RESP3 requests, replies and pushes (redis.io/docs/latest/develop/reference/protocol-spec).
Replies come in request order. Keeps no value: of a request the command, when it is a known one, and its first key;
of a reply its type and the first word of an error.

Not understood: streamed RESP3 types ($?, *?), which no server sends; what follows CLIENT REPLY OFF, as it has no reply.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memset

from deeptrace.core.proto cimport L7Protocol, l7_protocol
from deeptrace.core.redis_commands cimport *
from deeptrace.core.redis_replies cimport frame_line, frame_reply
from deeptrace.core.resp cimport *
from dt_proto cimport *

cdef extern from "dt_proto.h" nogil:
    enum: DT_ATTR_ERROR_TYPE, DT_ATTR_DB_RESPONSE_STATUS_CODE

cdef enum:
    MAX_KEY = 128  # bytes of a key that are kept: enough to tell what it names, and bounds what frame() waits for
    MAX_INLINE = 1024  # bytes of an inline command; people type them, Redis itself allows 64 KiB
    MAX_PLACEHOLDERS = 8  # "?" written out; the rest is a number


cdef uint32_t CLIENT_REPLY = command_of_two(command_of(b"CLIENT", 6), b"REPLY", 5)


# ---- requests -------------------------------------------------------------------------------------------------------


cdef int frame_inline(dt_buf *b, dt_msg *out) noexcept nogil:
    """A line of words. Only a known command counts: any other line is taken for bytes that are no request."""
    cdef uint32_t n = 0, word = 0, command
    cdef const uint8_t *line
    if buf_left(b) > MAX_INLINE and buf_find(b, c'\n', MAX_INLINE) < 0:
        return DT_BAD
    line = buf_line(b, &n)
    if line == NULL:
        return DT_MORE
    if n == 0:  # Redis passes over empty lines
        out.type = DT_MSG_ONE_WAY
        out.slices[INFO].size = 0
        return DT_OK
    while word < n and line[word] != c' ':
        word += 1
    command = command_of(line, word)
    if command == 0:
        return DT_BAD
    out.slices[INFO].at = command
    out.slices[INFO].size = word < n  # how many does not matter: arguments of a line may be quoted
    out.hint = command_at(command).hint
    return DT_OK


cdef int frame_second(dt_buf *b, uint32_t start, dt_msg *out) noexcept nogil:
    """Take the argument that says more: a container's second word, or the key. DT_BAD: body() shall meet it."""
    cdef uint32_t command = out.slices[INFO].at, want
    cdef const uint8_t *p = buf_peek(b, 1)
    cdef const uint8_t *name
    cdef int64_t value
    cdef uint64_t size
    cdef int verdict
    if p == NULL:
        return DT_MORE
    if p[0] != c'$':
        return DT_BAD
    verdict = read_header(b, &value)
    if verdict != DT_OK:
        return verdict
    if value < 0 or <uint64_t>value > MAX_BULK:
        return DT_BAD
    size = <uint64_t>value
    want = MAX_KEY if size > MAX_KEY else <uint32_t>size
    if want > buf_left(b):
        if not buf_final(b):
            return DT_MORE
        out.flags |= DT_MSG_CUT
        want = buf_left(b)
    if command_at(command).kind & CONTAINER:
        name = buf_peek(b, want)
        if want == size:
            out.slices[INFO].at = command_of_two(command, name, want)
            out.hint = command_at(out.slices[INFO].at).hint
        out.slices[INFO].size -= 1
    else:
        out.slices[KEY].at = b.at - start
        out.slices[KEY].size = want
        out.slices[NAME].size = size > want  # 1: the key goes on
    buf_take(b, want)
    out.state[PENDING] = size - want + 2
    out.state[LEFT] -= 1
    return DT_OK


cdef int frame_client_reply(dt_buf *b, dt_msg *out) noexcept nogil:
    """CLIENT REPLY OFF ends the exchange of requests and replies; after SKIP it is not known which reply answers what."""
    cdef const uint8_t *p = buf_peek(b, 9)  # behind REPLY: CRLF, "$3" or "$4", CRLF, the word
    if p == NULL:
        return DT_OK if buf_final(b) else DT_MORE
    if p[6] | 0x20 == c'o' and p[7] | 0x20 == c'f':
        out.type = DT_MSG_ONE_WAY
        out.flags |= DT_MSG_UPGRADE
    elif p[6] | 0x20 == c's':
        out.type = DT_MSG_ONE_WAY
        out.flags |= DT_MSG_LOST
    return DT_OK


cdef int frame_request(dt_buf *b, dt_msg *out) noexcept nogil:
    """An array of bulk strings. Waits for the command and what else names the operation: at most about 230 bytes."""
    cdef uint32_t start = b.at, want, command, cursor
    cdef int64_t value
    cdef const uint8_t *p = buf_peek(b, 1)
    cdef int verdict
    if p[0] != c'*':
        return frame_inline(b, out)
    verdict = read_header(b, &value)
    if verdict != DT_OK:
        return verdict
    if value <= 0:  # Redis passes over empty arrays
        out.type = DT_MSG_ONE_WAY
        return DT_OK
    if <uint64_t>value > MAX_ELEMENTS:
        return DT_BAD
    out.state[LEFT] = <uint64_t>value - 1
    out.slices[INFO].size = <uint32_t>value - 1
    p = buf_peek(b, 1)
    if p == NULL:
        return DT_MORE
    if p[0] != c'$':
        return DT_BAD
    verdict = read_header(b, &value)
    if verdict != DT_OK:
        return verdict
    if value <= 0 or <uint64_t>value > MAX_BULK:
        return DT_BAD
    if value > MAX_NAME:  # not a known command
        out.state[PENDING] = <uint64_t>value + 2
        out.hint = HINT_COMMAND
        return finish(b, DT_ROLE_REQUEST, out)
    want = <uint32_t>value
    p = buf_take(b, want + 2)
    if p == NULL:
        return DT_MORE
    if p[want] != c'\r' or p[want + 1] != c'\n':
        return DT_BAD
    command = command_of(p, want)
    out.slices[INFO].at = command
    out.hint = command_at(command).hint
    if command_at(command).kind & (HAS_KEY | CONTAINER) and out.state[LEFT]:
        cursor = b.at
        verdict = frame_second(b, start, out)
        if verdict == DT_MORE:
            return lose(b, out) if buf_final(b) else DT_MORE
        if verdict == DT_BAD:
            b.at = cursor
        elif out.slices[INFO].at == CLIENT_REPLY and out.state[LEFT] and frame_client_reply(b, out) == DT_MORE:
            return DT_MORE
    return finish(b, DT_ROLE_REQUEST, out)


# ---- the table of functions -----------------------------------------------------------------------------------------


cdef int redis_frame(dt_buf *b, uint8_t role, uint8_t hint, dt_msg *out) noexcept nogil:
    cdef uint32_t start = b.at
    cdef int verdict
    if buf_left(b) == 0:
        return DT_MORE
    out.type = DT_MSG_REQUEST if role == DT_ROLE_REQUEST else DT_MSG_RESPONSE
    verdict = frame_request(b, out) if role == DT_ROLE_REQUEST else frame_reply(b, hint, out)
    if verdict != DT_OK:
        b.at = start
    return verdict


cdef void redis_attributes(const uint8_t *head, const dt_msg *m, uint8_t role, dt_attrs *out) noexcept nogil:
    cdef const Command *c
    cdef uint32_t left, shown
    if role == DT_ROLE_RESPONSE:
        if m.flags & DT_MSG_ERROR_CLIENT:
            put_error(head, m, out)
        return
    if m.type == DT_MSG_ONE_WAY:
        return
    c = command_at(m.slices[INFO].at)
    left = m.slices[INFO].size
    if not attrs_run(out, c.run, c.run_size) or left == 0 or c.kind & SECRET:
        return
    attrs_reopen(out, c.size)
    if m.slices[KEY].at:
        attrs_put(out, b" ", 1)
        attrs_put(out, &head[m.slices[KEY].at], m.slices[KEY].size)
        if m.slices[NAME].size:
            attrs_put(out, b"...", 3)
        left -= 1
    shown = left if left < MAX_PLACEHOLDERS else MAX_PLACEHOLDERS
    attrs_put(out, b" ? ? ? ? ? ? ? ?", 2 * shown)
    if left > shown:
        put_rest(out, left - shown)
    attrs_close(out)


cdef void put_rest(dt_attrs *out, uint32_t n) noexcept nogil:
    cdef uint8_t digits[10]
    cdef uint32_t i = 10
    while n:
        i -= 1
        digits[i] = c'0' + n % 10
        n //= 10
    attrs_put(out, b" ... ", 5)
    attrs_put(out, &digits[i], 10 - i)
    attrs_put(out, b" more", 5)


cdef void put_error(const uint8_t *head, const dt_msg *m, dt_attrs *out) noexcept nogil:
    cdef const uint8_t *word = b"ERR"
    cdef uint32_t n = 3
    if m.slices[NAME].size:
        word = &head[m.slices[NAME].at]
        n = m.slices[NAME].size
    attrs_text(out, DT_ATTR_ERROR_TYPE, word, n)
    attrs_text(out, DT_ATTR_DB_RESPONSE_STATUS_CODE, word, n)


cdef int probe_request(dt_buf *b) noexcept nogil:
    """An array whose first bulk is a known command. Lines alone never decide: too many protocols have a PING, GET or QUIT."""
    cdef int64_t value
    cdef const uint8_t *p
    cdef dt_msg m
    cdef int verdict
    if buf_peek(b, 1)[0] != c'*':
        memset(&m, 0, sizeof(m))
        return 30 if frame_inline(b, &m) == DT_OK and m.slices[INFO].at else 0
    verdict = read_header(b, &value)
    if verdict != DT_OK or value < 1 or <uint64_t>value > MAX_ELEMENTS:
        return 20 if verdict == DT_MORE else 0
    p = buf_peek(b, 1)
    if p == NULL:
        return 30
    if p[0] != c'$':
        return 0
    verdict = read_header(b, &value)
    if verdict != DT_OK or value < 1 or value > MAX_NAME:
        return 40 if verdict == DT_MORE else 0
    p = buf_peek(b, <uint32_t>value + 2)
    if p == NULL:
        return 50
    if p[value] != c'\r' or p[value + 1] != c'\n':
        return 0
    return 95 if command_of(p, <uint32_t>value) else 55


cdef int probe_reply(dt_buf *b) noexcept nogil:
    cdef uint8_t kind = buf_peek(b, 1)[0]
    cdef uint32_t n = buf_left(b)
    cdef const uint8_t *p = buf_peek(b, n)
    cdef dt_msg m
    cdef int64_t value
    cdef int32_t end
    memset(&m, 0, sizeof(m))
    if ends_with_line(kind):
        end = buf_find(b, c'\n', 256)
        if end < 2 or p[end - 1] != c'\r' or frame_line(b, kind, HINT_NONE, 0, &m) != DT_OK:
            return 10 if end < 0 else 0
        if kind == c'+':  # POP3 and NATS say +OK too
            return 65 if end == 4 and memcmp(p, b"+OK", 3) == 0 else 95 if end == 6 and memcmp(p, b"+PONG", 5) == 0 else 30
        if kind == c'-':
            return 65 if m.slices[NAME].size > 1 else 30
        while end > 2 and (c'0' <= p[end - 2] <= c'9' or p[end - 2] == c'-'):
            end -= 1
        return 70 if end == 2 or kind == c'_' or (kind == c'#' and end == 3) else 30
    if kind == c'|' or read_header(b, &value) != DT_OK:
        return 0
    m.state[LEFT] = 1
    if open_element(kind, value, &m) != DT_OK:
        return 0
    if value < 0:
        return 85 if kind == c'$' or kind == c'*' else 0
    if m.state[PENDING]:
        p = buf_peek(b, <uint32_t>value + 2) if m.state[PENDING] <= buf_left(b) else NULL
        return 70 if p == NULL else 85 if p[value] == c'\r' and p[value + 1] == c'\n' else 0
    p = buf_peek(b, 1)
    if p == NULL or value == 0:
        return 65 if value == 0 else 40
    if kind == c'*' and p[0] == c'$':  # so do requests look; the other direction has to tell
        return 50
    return 75 if ends_with_line(p[0]) or p[0] == c'$' or p[0] == c'*' or p[0] == c'%' or p[0] == c'~' else 0


cdef int redis_probe(const uint8_t *p, uint32_t n, uint8_t role) noexcept nogil:
    cdef dt_buf b
    if n == 0:
        return 0
    memset(&b, 0, sizeof(b))
    b.data = p
    b.size = n
    return probe_request(&b) if role == DT_ROLE_REQUEST else probe_reply(&b)


cdef uint32_t redis_resync(const uint8_t *p, uint32_t n, uint8_t role) noexcept nogil:
    """Messages begin at the run's start or after a line: the next such place that a probe takes for one, or may yet."""
    cdef dt_buf b
    cdef uint32_t at
    cdef int32_t next_line
    cdef int score
    memset(&b, 0, sizeof(b))
    b.data = p
    b.size = n
    while b.at < n:
        at = b.at
        score = redis_probe(&p[at], n - at, role)
        if score >= 60 or (n - at < MAX_HEADER and score > 0):
            return at
        next_line = buf_find(&b, c'\n', n)
        if next_line < 0:
            return n
        buf_take(&b, <uint32_t>next_line + 1)
    return n


cdef dt_protocol TABLE
TABLE.id = 3
TABLE.pairing = DT_PAIR_IN_ORDER
TABLE.probe = redis_probe
TABLE.frame = redis_frame
TABLE.body = walk
TABLE.resync = redis_resync
TABLE.attributes = redis_attributes

PROTOCOL = l7_protocol(&TABLE, "redis", (6379,))
