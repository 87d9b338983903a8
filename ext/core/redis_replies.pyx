# SPDX-License-Identifier: Apache-2.0
"""Frames what a Redis server sends: replies, pushes, messages to subscribers. Keeps of it only the first word of an error."""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcmp, memset

from deeptrace.core.redis_commands cimport *
from deeptrace.core.resp cimport *
from dt_proto cimport *

cdef enum:
    MAX_ERROR = 32  # bytes of an error's first word; the longest in use is CLUSTERDOWN
    MAX_ATTRIBUTE = 4096  # bytes of a RESP3 attribute that frame() waits for to see the reply behind it
    NO_LIMIT = 0x7fffffff  # the word of an error that is a line may be followed by any length


cdef int find_error_word(dt_buf *b, uint32_t limit, uint32_t start, dt_msg *out) noexcept nogil:
    """The error's first word within limit bytes, if it is one: [A-Z0-9_]+ up to MAX_ERROR. Anything else might be a value."""
    cdef uint32_t n = buf_left(b), i = 0
    cdef const uint8_t *p = buf_peek(b, n)
    out.flags |= DT_MSG_ERROR_CLIENT | DT_MSG_ERROR_SERVER
    if n > limit:
        n = limit
    while i < n and i <= MAX_ERROR and (c'A' <= p[i] <= c'Z' or c'0' <= p[i] <= c'9' or p[i] == c'_'):
        i += 1
    if i == n and i < limit and i <= MAX_ERROR:
        if not buf_final(b):
            return DT_MORE
        out.flags |= DT_MSG_CUT
        return DT_OK
    if 0 < i <= MAX_ERROR and (i == limit or p[i] == c' ' or p[i] == c'\r'):
        out.slices[NAME].at = b.at - start
        out.slices[NAME].size = i
    return DT_OK


cdef enum: WORD_NONE = 10, WORD_MESSAGE, WORD_CONFIRM


cdef int push_word(dt_buf b) noexcept nogil:
    """What the first element at the cursor says: a message to a subscriber, a confirmation, or nothing; or DT_MORE."""
    cdef const uint8_t *p = buf_peek(&b, 1)
    cdef int64_t value
    cdef int verdict
    cdef uint32_t n
    if p == NULL:
        return WORD_NONE if buf_final(&b) else DT_MORE
    if p[0] != c'$':
        return WORD_NONE
    verdict = read_header(&b, &value)
    if verdict == DT_BAD or (verdict == DT_OK and (value < 7 or value > 12)):
        return WORD_NONE
    p = NULL
    if verdict == DT_OK:
        n = <uint32_t>value
        p = buf_peek(&b, n)
    if p == NULL:
        return WORD_NONE if buf_final(&b) else DT_MORE
    if n == 7:
        return WORD_MESSAGE if memcmp(p, b"message", 7) == 0 else WORD_NONE
    if n == 8:
        return WORD_MESSAGE if memcmp(p, b"pmessage", 8) == 0 or memcmp(p, b"smessage", 8) == 0 else WORD_NONE
    if n == 9:
        return WORD_CONFIRM if memcmp(p, b"subscribe", 9) == 0 else WORD_NONE
    if n == 11:
        return WORD_CONFIRM if memcmp(p, b"unsubscribe", 11) == 0 else WORD_NONE
    if p[0] != c'p' and p[0] != c's':
        return WORD_NONE
    if n == 10:
        return WORD_CONFIRM if memcmp(&p[1], b"subscribe", 9) == 0 else WORD_NONE
    return WORD_CONFIRM if memcmp(&p[1], b"unsubscribe", 11) == 0 else WORD_NONE


cdef int frame_line(dt_buf *b, uint8_t kind, uint8_t hint, uint32_t start, dt_msg *out) noexcept nogil:
    """A reply that is one line. Its second byte is checked so that a stray byte is not taken for a reply."""
    cdef const uint8_t *p = buf_peek(b, 2)
    cdef uint8_t c
    cdef int verdict
    if p == NULL:
        return DT_MORE
    c = p[1]
    if kind == c'+':
        if hint == HINT_NONE and c'0' <= c <= c'9':  # "+1700000000.1 [0 ...": a line of MONITOR, which nobody asked for
            out.type = DT_MSG_ONE_WAY
    elif kind == c'-':
        if c < c' ':
            return DT_BAD
        buf_take(b, 1)
        verdict = find_error_word(b, NO_LIMIT, start, out)
        if verdict != DT_OK:
            return verdict
        out.state[IN_LINE] = 1
        return finish(b, DT_ROLE_RESPONSE, out)
    elif kind == c'_':
        if c != c'\r':
            return DT_BAD
    elif kind == c'#':
        if c != c't' and c != c'f':
            return DT_BAD
    elif not (c'0' <= c <= c'9' or c == c'-' or c == c'+' or (kind == c',' and (c == c'i' or c == c'n' or c == c'.'))):
        return DT_BAD
    out.state[LEFT] = 1
    return finish(b, DT_ROLE_RESPONSE, out)


cdef int frame_aggregate(dt_buf *b, uint8_t kind, uint8_t hint, dt_msg *out) noexcept nogil:
    """Decide whether an array or push, whose header was taken, answers the oldest request. Pub/sub says it in its first word."""
    cdef int word
    if kind == c'>':
        out.type = DT_MSG_ONE_WAY
        if hint != HINT_SUBSCRIBE:
            return DT_OK
    elif kind != c'*' or hint == HINT_COMMAND or out.state[LEFT] < 3:
        return DT_OK
    word = push_word(b[0])
    if word == DT_MORE:
        return DT_MORE
    if word == WORD_MESSAGE:
        out.type = DT_MSG_ONE_WAY
    elif word == WORD_CONFIRM:  # a SUBSCRIBE of several channels is answered by the first of its confirmations
        out.type = DT_MSG_RESPONSE if hint == HINT_SUBSCRIBE else DT_MSG_ONE_WAY
    return DT_OK


cdef int pass_attribute(dt_buf *b) noexcept nogil:
    """Pass over a RESP3 attribute whose reply follows. DT_BAD: it is too long to wait for (or not one)."""
    cdef dt_buf ahead = b[0]
    cdef dt_msg m
    cdef int64_t value
    cdef int verdict = read_header(&ahead, &value)
    if verdict == DT_OK and 0 <= value <= MAX_ATTRIBUTE:
        memset(&m, 0, sizeof(m))
        m.state[LEFT] = 2 * <uint64_t>value
        verdict = walk(&ahead, DT_ROLE_RESPONSE, &m)
        if verdict == DT_OK and m.skip:
            verdict = DT_MORE
    elif verdict == DT_OK:
        verdict = DT_BAD
    if verdict == DT_OK and ahead.at - b.at <= MAX_ATTRIBUTE:
        b.at = ahead.at
        return DT_OK
    return DT_BAD if verdict != DT_MORE or buf_left(b) > MAX_ATTRIBUTE or buf_final(b) else DT_MORE


cdef int frame_reply(dt_buf *b, uint8_t hint, dt_msg *out) noexcept nogil:
    cdef uint32_t start = b.at
    cdef int64_t value
    cdef uint8_t kind = buf_peek(b, 1)[0]
    cdef int verdict = DT_OK
    while kind == c'|':
        verdict = pass_attribute(b)
        if verdict == DT_MORE:
            return DT_MORE
        if verdict == DT_BAD:
            break
        if buf_left(b) == 0:
            return DT_MORE
        kind = buf_peek(b, 1)[0]
    if ends_with_line(kind):
        verdict = frame_line(b, kind, hint, start, out)
    else:
        verdict = read_header(b, &value)
        if verdict == DT_OK:
            out.state[LEFT] = 1
            verdict = open_element(kind, value, out)
        if verdict == DT_OK and kind == c'!':
            verdict = find_error_word(b, <uint32_t>value if value > 0 else 0, start, out)
        elif verdict == DT_OK:
            verdict = frame_aggregate(b, kind, hint, out)
        if verdict != DT_OK:
            return verdict
        if hint != HINT_REPLICATE:
            return finish(b, DT_ROLE_RESPONSE, out)
        out.body = DT_BODY_NONE  # the file that follows has no CRLF
    if verdict == DT_OK and hint == HINT_REPLICATE and not out.flags & DT_MSG_ERROR_CLIENT:
        out.flags |= DT_MSG_UPGRADE
    return verdict
