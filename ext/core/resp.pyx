# SPDX-License-Identifier: Apache-2.0
"""Finds where elements of RESP2 and RESP3 end, however nested, in memory of constant size. Looks at no value."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from dt_proto cimport *


cdef int open_element(uint8_t kind, int64_t value, dt_msg *m) noexcept nogil:
    cdef uint64_t n = 0 if value < 0 else <uint64_t>value
    if kind == c'$' or kind == c'=' or kind == c'!':
        if n > MAX_BULK:
            return DT_BAD
        m.state[PENDING] = 0 if value < 0 else n + 2
        m.state[LEFT] -= 1
        return DT_OK
    if not (kind == c'*' or kind == c'~' or kind == c'>' or kind == c'%' or kind == c'|') or n > MAX_ELEMENTS:
        return DT_BAD
    if kind == c'%' or kind == c'|':
        n *= 2
    if kind == c'|':
        n += 1  # what the attribute belongs to follows it
    if m.state[LEFT] + n > 4 * MAX_ELEMENTS:
        return DT_BAD
    m.state[LEFT] += n - 1
    return DT_OK


cdef int walk(dt_buf *b, uint8_t role, dt_msg *m) noexcept nogil:
    cdef uint8_t kind
    cdef int64_t value
    cdef uint32_t left, start
    cdef int32_t at
    cdef int verdict
    m.skip = 0
    while True:
        left = buf_left(b)
        if m.state[PENDING]:
            if m.state[PENDING] > left:
                m.skip = m.state[PENDING] - left
                m.state[PENDING] = 0
                buf_take(b, left)
                return DT_OK if m.state[LEFT] == 0 else DT_MORE
            buf_take(b, <uint32_t>m.state[PENDING])
            m.state[PENDING] = 0
            continue
        if m.state[IN_LINE]:
            at = buf_find(b, c'\n', left)
            if at < 0:
                buf_take(b, left)
                return DT_MORE
            buf_take(b, <uint32_t>at + 1)
            m.state[IN_LINE] = 0
            continue
        if m.state[LEFT] == 0:
            return DT_OK
        if left == 0:
            return DT_MORE
        kind = buf_peek(b, 1)[0]
        if role == DT_ROLE_REQUEST and kind != c'$':
            return DT_BAD
        if ends_with_line(kind):
            m.state[LEFT] -= 1
            m.state[IN_LINE] = 1
            continue
        start = b.at
        verdict = read_header(b, &value)
        if verdict == DT_OK:
            verdict = open_element(kind, value, m)
        if verdict != DT_OK:
            b.at = start
            return verdict


cdef int finish(dt_buf *b, uint8_t role, dt_msg *m) noexcept nogil:
    cdef int verdict = walk(b, role, m)
    if verdict == DT_OK:
        m.body = DT_BODY_SIZE if m.skip else DT_BODY_NONE
        m.body_size = m.skip
    else:  # DT_BAD too: body() meets it again; the message itself is known
        m.body = DT_BODY_FRAMED
        m.state[PENDING] = m.skip
    m.skip = 0
    return DT_OK


cdef int lose(dt_buf *b, dt_msg *m) noexcept nogil:
    buf_take(b, buf_left(b))
    m.flags |= DT_MSG_CUT | DT_MSG_LOST
    m.body = DT_BODY_NONE
    return DT_OK
