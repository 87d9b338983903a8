# SPDX-License-Identifier: Apache-2.0
"""Finds where an HTTP/1 message ends (RFC 9112 sections 6 and 7). Where the standard says that nobody can tell, it says lost."""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from deeptrace.core.http cimport HINT_CONNECT, HINT_HEAD
from dt_proto cimport *

cdef enum:
    MAX_DIGITS = 18  # of a Content-Length: fits 63 bits
    MAX_CHUNK_DIGITS = 15  # of a chunk size, hexadecimal: fits 60 bits
    LAST_CHUNK = 5  # bytes of "0\r\n\r\n"

cdef enum:  # dt_msg.state of a chunked body
    PHASE = 0
    SIZE = 1
    DIGITS = 2

cdef enum:  # state[PHASE]
    IN_SIZE = 0
    IN_EXTENSION = 1
    AT_TRAILER = 2
    IN_TRAILER = 3

cdef uint8_t lower[256]


def _fill():
    cdef int i
    for i in range(256):
        lower[i] = i | 0x20 if c'A' <= i <= c'Z' else i


_fill()


# ---- what the fields say


cdef bint has_name(const uint8_t *line, uint32_t n, const char *name, uint32_t size) noexcept nogil:
    cdef uint32_t i
    if n <= size or not (line[size] == c':' or line[size] == c' ' or line[size] == c'\t'):
        return False
    for i in range(size):
        if lower[line[i]] != <uint8_t>name[i]:
            return False
    return True


cdef bint find_value(const uint8_t *line, uint32_t n, uint32_t *first, uint32_t *size) noexcept nogil:
    cdef uint32_t i = first[0]
    if line[i] != c':':
        return False  # RFC 9112 5.1: white space before the colon is to be refused
    i += 1
    while i < n and (line[i] == c' ' or line[i] == c'\t'):
        i += 1
    while n > i and (line[n - 1] == c' ' or line[n - 1] == c'\t'):
        n -= 1
    first[0] = i
    size[0] = n - i
    return True


cdef void read_content_length(const uint8_t *line, uint32_t n, Framing *f) noexcept nogil:
    """RFC 9112 6.3, 5: a list or repetition of one number is that number; anything else is an error without recovery."""
    cdef uint32_t i = 14, size, digits
    cdef uint64_t length
    if not find_value(line, n, &i, &size):
        f.faulty = True
        return
    n = i + size
    while True:
        length = digits = 0
        while i < n and c'0' <= line[i] <= c'9' and digits <= MAX_DIGITS:
            length = length * 10 + (line[i] - c'0')
            digits += 1
            i += 1
        if digits == 0 or digits > MAX_DIGITS or (f.has_length and f.length != length):
            f.faulty = True
            return
        f.has_length = True
        f.length = length
        while i < n and (line[i] == c' ' or line[i] == c'\t'):
            i += 1
        if i == n:
            return
        if line[i] != c',':
            f.faulty = True
            return
        i += 1
        while i < n and (line[i] == c' ' or line[i] == c'\t'):
            i += 1


cdef void read_transfer_encoding(const uint8_t *line, uint32_t n, Framing *f) noexcept nogil:
    """RFC 9112 6.3, 4: only the last coding frames the body. Chunked twice is an error (6.1)."""
    cdef uint32_t i = 17, size, first
    if not find_value(line, n, &i, &size) or f.chunked:
        f.faulty = True
        return
    f.has_coding = True
    n = first = i + size
    while first > i and line[first - 1] != c',':
        first -= 1
    while first < n and (line[first] == c' ' or line[first] == c'\t'):
        first += 1
    f.chunked = n - first == 7
    for size in range(7):
        if f.chunked and lower[line[first + size]] != (<const uint8_t *>b"chunked")[size]:
            f.chunked = False


cdef void find_body(uint8_t role, uint8_t hint, uint32_t minor, const Framing *f, dt_msg *out) noexcept nogil:
    """RFC 9112 6.3, in its order."""
    if role == DT_ROLE_RESPONSE:
        if out.status < 200 and out.status != 101:
            out.type = DT_MSG_INTERIM
            return
        if out.status == 101 or (hint == HINT_CONNECT and out.status < 300):
            out.flags |= DT_MSG_UPGRADE
            return
        if hint == HINT_HEAD or out.status == 204 or out.status == 304:
            return
    # 6.1: HTTP/1.0 with Transfer-Encoding has faulty framing; 6.3, 4: a request's last coding must be chunked
    if f.faulty or (f.has_coding and (minor == 0 or (role == DT_ROLE_REQUEST and not f.chunked))):
        out.flags |= DT_MSG_LOST
    elif f.chunked:  # 6.3, 3: overrides Content-Length
        out.body = DT_BODY_FRAMED
    elif f.has_coding or (role == DT_ROLE_RESPONSE and not f.has_length):
        out.body = DT_BODY_EOF
    elif f.has_length and f.length:
        out.body = DT_BODY_SIZE
        out.body_size = f.length


# ---- chunked bodies


cdef enum: GO_ON = 2  # no verdict of a body yet


cdef int end_size_line(dt_buf *b, dt_msg *m) noexcept nogil:
    """A chunk's size is known: pass over its data and the CRLF behind, which is often beyond what was captured."""
    cdef uint64_t n = m.state[SIZE] + 2
    cdef uint32_t left = buf_left(b)
    if m.state[SIZE] == 0:
        m.state[PHASE] = AT_TRAILER
        return GO_ON
    m.state[PHASE] = m.state[SIZE] = m.state[DIGITS] = 0
    if n <= left:
        buf_take(b, <uint32_t>n)
        return GO_ON
    buf_take(b, left)
    m.skip = n - left
    if b.missing == m.skip + LAST_CHUNK:
        return take_last_chunk(m)
    return DT_MORE


cdef int take_last_chunk(dt_msg *m) noexcept nogil:
    """A hole goes on behind a chunk for as long as the shortest end of a chunked body, and no shorter piece exists: it was that.
    Servers that send the last chunk's data and the end in one call would otherwise always lose their frame at the capture limit."""
    m.flags |= DT_MSG_CUT
    m.skip += LAST_CHUNK
    return DT_OK


cdef int read_size(dt_buf *b, dt_msg *m) noexcept nogil:
    """RFC 9112 7.1: hexadecimal digits, then extensions (7.1.1, passed over) or the end of the line."""
    cdef const uint8_t *p
    cdef uint8_t c
    while True:
        p = buf_peek(b, 1)
        if p == NULL:
            return DT_MORE
        c = lower[p[0]]
        if c'0' <= c <= c'9' or c'a' <= c <= c'f':
            m.state[SIZE] = 16 * m.state[SIZE] + (c - c'0' if c <= c'9' else c - c'a' + 10)
            m.state[DIGITS] += 1
            if m.state[DIGITS] > MAX_CHUNK_DIGITS:
                return DT_BAD
            buf_take(b, 1)
            continue
        if m.state[DIGITS] == 0 or not (c == c'\r' or c == c'\n' or c == c';' or c == c' ' or c == c'\t'):
            return DT_BAD
        m.state[PHASE] = IN_EXTENSION
        return DT_OK


cdef int chunked_body(dt_buf *b, uint8_t role, dt_msg *m) noexcept nogil:
    """A chunked body, RFC 9112 7.1."""
    cdef const uint8_t *p
    cdef int32_t at
    cdef int verdict
    m.skip = 0
    if m.state[PHASE] == IN_SIZE and m.state[DIGITS] == 0 and buf_left(b) == 0 and b.missing == LAST_CHUNK:
        return take_last_chunk(m)
    while True:
        if m.state[PHASE] == IN_SIZE:
            verdict = read_size(b, m)
            if verdict != DT_OK:
                return verdict
        if m.state[PHASE] == IN_EXTENSION or m.state[PHASE] == IN_TRAILER:
            at = buf_find(b, c'\n', buf_left(b))
            if at < 0:
                buf_take(b, buf_left(b))
                return DT_MORE
            buf_take(b, <uint32_t>at + 1)
            if m.state[PHASE] == IN_TRAILER:
                m.state[PHASE] = AT_TRAILER
            else:
                verdict = end_size_line(b, m)
                if verdict != GO_ON:
                    return verdict
            continue
        p = buf_take(b, 1)  # AT_TRAILER: an empty line ends the body
        if p == NULL:
            return DT_MORE
        if p[0] == c'\n':
            return DT_OK
        if p[0] != c'\r':
            m.state[PHASE] = IN_TRAILER
