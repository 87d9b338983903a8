# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.0 and 1.1 (RFC 9110, RFC 9112). Responses come in request order. Reads heads only: bodies are measured, never kept.

Of the fields only those that frame a message, name the server or the client program, or carry trace ids are looked at.
Not understood: HTTP/0.9; the body of a response whose request was not seen to be a HEAD.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, memset

from deeptrace.core.http cimport *
from deeptrace.core.http1_framing cimport *
from deeptrace.core.proto cimport L7Protocol, l7_protocol
from deeptrace.core.url cimport size_before
from dt_proto cimport *

cdef enum:
    MAX_HEAD = 65536  # bytes of a start line and its fields; Envoy allows 60 KiB, nginx 32, Node 16, Tomcat 8
    MAX_FIELDS = 512  # lines of a head; Apache allows 100. Bounds what one more byte of an unfinished head can cost
    MAX_METHOD = 32  # bytes; the longest registered is UPDATEREDIRECTREF, 17
    MAX_EMPTY_LINES = 4  # before a request; RFC 9112 2.2: at least one is to be ignored
    PROBE_BYTES = 2048  # what probe() looks at

cdef uint8_t is_token[256]  # RFC 9110 5.6.2


def _fill():
    cdef int i
    for i in range(256):
        is_token[i] = 0x20 < i < 0x7F and bytes([i]) not in b'"(),/:;<=>?@[\\]{}'


_fill()


# ---- start lines ----------------------------------------------------------------------------------------------------


cdef uint32_t token_size(const uint8_t *p, uint32_t n, uint32_t limit) noexcept nogil:
    cdef uint32_t i = 0
    if n > limit:
        n = limit
    while i < n and is_token[p[i]]:
        i += 1
    return i


cdef bint is_version(const uint8_t *p) noexcept nogil:
    """Eight bytes: "HTTP/1." and a digit."""
    return memcmp(p, b"HTTP/1.", 7) == 0 and c'0' <= p[7] <= c'9'


cdef int read_request_line(dt_buf *b, uint32_t start, dt_msg *out) noexcept nogil:
    """RFC 9112 3. A target cut at the end of a final run is taken as far as it goes."""
    cdef uint32_t n = buf_left(b), at = b.at - start, size
    cdef const uint8_t *line = buf_peek(b, n)
    cdef bint cut = False
    size = token_size(line, n, MAX_METHOD + 1)
    if size > MAX_METHOD or (size < n and (size == 0 or line[size] != c' ')):
        return DT_BAD
    if buf_line(b, &n) == NULL:
        if n < MAX_HEAD and not buf_final(b):
            return DT_MORE
        if n < size + 2:
            return DT_MORE if n < MAX_HEAD else DT_BAD
        buf_take(b, n)
        cut = True
    elif n < size + 11 or line[n - 9] != c' ' or not is_version(&line[n - 8]):
        return DT_BAD
    out.slices[METHOD].at = at
    out.slices[METHOD].size = size
    out.slices[TARGET].at = at + size + 1
    out.slices[TARGET].size = n - size - 1 if cut else n - size - 10
    out.slices[INFO].at = method_of(line, size)
    out.slices[INFO].size = 10 if cut else line[n - 1] - c'0'
    out.hint = method_hint(out.slices[INFO].at)
    if cut:
        out.flags |= DT_MSG_CUT | DT_MSG_LOST
    return DT_OK


cdef int read_status_line(dt_buf *b, dt_msg *out) noexcept nogil:
    """RFC 9112 4: "HTTP/1.1 200 OK"; many servers leave the reason out, some the space before it too."""
    cdef uint32_t n = buf_left(b), i
    cdef const uint8_t *line = buf_peek(b, n)
    cdef bint cut = False
    if memcmp(line, b"HTTP/1.", n if n < 7 else 7) != 0:
        return DT_BAD
    if buf_line(b, &n) == NULL:
        if n < MAX_HEAD and not buf_final(b):
            return DT_MORE
        if n < 13:
            return DT_MORE
        buf_take(b, n)
        cut = True
    if n < 12 or not is_version(line) or line[8] != c' ' or (n > 12 and line[12] != c' ' and line[12] != c'\r'):
        return DT_BAD
    for i in range(9, 12):
        if not c'0' <= line[i] <= c'9':
            return DT_BAD
        out.status = 10 * out.status + (line[i] - c'0')
    if out.status < 100:
        return DT_BAD
    out.slices[INFO].size = line[7] - c'0'
    if cut:
        out.flags |= DT_MSG_CUT | DT_MSG_LOST
    return DT_OK


# ---- fields ---------------------------------------------------------------------------------------------------------


cdef void keep(const uint8_t *line, uint32_t n, uint32_t at, uint32_t name_size, uint32_t limit, dt_slice *to) noexcept nogil:
    """Remember a field's value; the first one counts."""
    cdef uint32_t first = name_size, size
    if to.size == 0 and find_value(line, n, &first, &size):
        to.at = at + first
        to.size = size if size < limit else limit


cdef void read_x_field(const uint8_t *line, uint32_t n, uint32_t at, dt_msg *out) noexcept nogil:
    if has_name(line, n, "x-request-id", 12):
        keep(line, n, at, 12, MAX_ID, &out.slices[REQUEST_ID])
    elif has_name(line, n, "x-b3-traceid", 12):
        keep(line, n, at, 12, MAX_ID, &out.slices[B3_TRACE])
    elif has_name(line, n, "x-b3-spanid", 11):
        keep(line, n, at, 11, MAX_ID, &out.slices[B3_SPAN])
    elif has_name(line, n, "x-b3-sampled", 12):
        keep(line, n, at, 12, MAX_ID, &out.slices[B3_SAMPLED])
    elif has_name(line, n, "x-b3-flags", 10):
        keep(line, n, at, 10, MAX_ID, &out.slices[B3_FLAGS])


cdef void read_field(const uint8_t *line, uint32_t n, uint32_t at, uint8_t role, dt_msg *out, Framing *f) noexcept nogil:
    cdef uint8_t c = line[0] | 0x20
    if c == c'c':
        if has_name(line, n, "content-length", 14):
            read_content_length(line, n, f)
    elif c == c't':
        if has_name(line, n, "transfer-encoding", 17):
            read_transfer_encoding(line, n, f)
        elif has_name(line, n, "traceparent", 11):
            keep(line, n, at, 11, MAX_ID, &out.slices[TRACEPARENT])
    elif role == DT_ROLE_RESPONSE:
        return
    elif c == c'h':
        if has_name(line, n, "host", 4):
            keep(line, n, at, 4, MAX_AUTHORITY, &out.slices[HOST])
    elif c == c'u':
        if has_name(line, n, "user-agent", 10):
            keep(line, n, at, 10, MAX_AGENT, &out.slices[AGENT])
    elif c == c'b':
        if has_name(line, n, "b3", 2):
            keep(line, n, at, 2, MAX_ID, &out.slices[B3])
    elif c == c'x':
        read_x_field(line, n, at, out)


# ---- one message ----------------------------------------------------------------------------------------------------


cdef int http1_frame(dt_buf *b, uint8_t role, uint8_t hint, dt_msg *out) noexcept nogil:
    cdef uint32_t start = b.at, n = 0, at = 0
    cdef const uint8_t *line
    cdef Framing framing
    cdef int verdict, i
    if role == DT_ROLE_REQUEST:
        for i in range(MAX_EMPTY_LINES):
            line = buf_peek(b, 1)
            if line == NULL or (line[0] != c'\r' and line[0] != c'\n'):
                break
            line = buf_line(b, &n)
            if line == NULL or n != 0:
                n = b.size - start
                b.at = start
                return DT_MORE if line == NULL and n <= 2 * MAX_EMPTY_LINES else DT_BAD
    if buf_left(b) == 0:
        b.at = start
        return DT_MORE
    out.type = DT_MSG_REQUEST if role == DT_ROLE_REQUEST else DT_MSG_RESPONSE
    verdict = read_request_line(b, start, out) if role == DT_ROLE_REQUEST else read_status_line(b, out)
    if verdict != DT_OK:
        b.at = start
        return verdict
    memset(&framing, 0, sizeof(framing))
    for i in range(MAX_FIELDS):
        at = b.at - start
        line = buf_line(b, &n)
        if line == NULL or n == 0:
            break
        read_field(line, n, at, role, out, &framing)
    if line == NULL and at + buf_left(b) < MAX_HEAD and not buf_final(b):
        b.at = start
        return DT_MORE
    if role == DT_ROLE_RESPONSE and out.status >= 400:
        out.flags |= DT_MSG_ERROR_CLIENT | (DT_MSG_ERROR_SERVER if out.status >= 500 else 0)
    if line == NULL or n != 0:  # where the head ends is not known, and so is where the body does
        buf_take(b, buf_left(b))
        out.flags |= DT_MSG_CUT | DT_MSG_LOST
        if role == DT_ROLE_RESPONSE and out.status < 200 and out.status != 101:
            out.type = DT_MSG_INTERIM
    else:
        find_body(role, hint, out.slices[INFO].size, &framing, out)
    return DT_OK


cdef void http1_attributes(const uint8_t *head, const dt_msg *m, uint8_t role, dt_attrs *out) noexcept nogil:
    if role == DT_ROLE_REQUEST:
        put_request(head, <const dt_slice *>m.slices, out)
    elif m.type != DT_MSG_INTERIM:
        put_response(m.status, out)


# ---- the table of functions -----------------------------------------------------------------------------------------


cdef int probe_request(const uint8_t *p, uint32_t n) noexcept nogil:
    """A known method and a target, or any token with a target and a version behind."""
    cdef uint32_t size = token_size(p, n, MAX_METHOD + 1), end
    cdef bint known
    if size == 0 or size > MAX_METHOD:
        return 0
    if size == n:
        return 10
    if p[size] != c' ':
        return 0
    known = method_of(p, size) != 0
    if size + 1 == n:
        return 40 if known else 10
    end = size_before(p, n if n < PROBE_BYTES else PROBE_BYTES, c'\n')
    if end < n and p[end] == c'\n':
        if end and p[end - 1] == c'\r':
            end -= 1
        return 100 if end >= size + 11 and p[end - 9] == c' ' and is_version(&p[end - 8]) else 0
    if p[size + 1] == c'/' or (n >= size + 8 and memcmp(&p[size + 1], b"http://", 7) == 0):
        return 85 if known else 30
    return 30 if known else 10


cdef int probe_response(const uint8_t *p, uint32_t n) noexcept nogil:
    cdef uint32_t i
    if memcmp(p, b"HTTP/1.", n if n < 7 else 7) != 0:
        return 0
    if n < 12:
        return 10 if n < 7 else 50
    for i in range(9, 12):
        if not c'0' <= p[i] <= c'9':
            return 0
    return 100 if is_version(p) and p[8] == c' ' else 0


cdef int http1_probe(const uint8_t *p, uint32_t n, uint8_t role) noexcept nogil:
    if n == 0:
        return 0
    return probe_request(p, n) if role == DT_ROLE_REQUEST else probe_response(p, n)


cdef uint32_t resync_response(const uint8_t *p, uint32_t n) noexcept nogil:
    cdef uint32_t i = 0
    while True:
        i += size_before(&p[i], n - i, c'H')
        if i == n or probe_response(&p[i], n - i) > 0:
            return i
        i += 1


cdef bint may_begin(const uint8_t *p, uint32_t n) noexcept nogil:
    """Whether a request begins here: surely, or perhaps and nothing more is there yet to tell."""
    cdef int score = probe_request(p, n)
    return score >= 60 or (score > 0 and n <= MAX_METHOD)


cdef uint32_t http1_resync(const uint8_t *p, uint32_t n, uint8_t role) noexcept nogil:
    """A request begins at the run's start, after a line, or right behind a body: a line that ends with a version shows it."""
    cdef uint32_t i = 0, line, end, k
    if role == DT_ROLE_RESPONSE:
        return resync_response(p, n)
    if n and may_begin(p, n):
        return 0
    while i < n:
        line = i
        i += size_before(&p[i], n - i, c'\n')
        end = i - 1 if i > line and p[i - 1] == c'\r' else i
        if i == n:
            return line if line and may_begin(&p[line], n - line) else n
        if end - line > 10 and is_version(&p[end - 8]):
            k = line if end - line <= PROBE_BYTES else end - PROBE_BYTES
            while k < end - 10:
                if starts_request(&p[k], end - k):
                    return k
                k += 1
        i += 1
    return n


cdef bint starts_request(const uint8_t *p, uint32_t n) noexcept nogil:
    """A known method with a target behind it. Body bytes may stand right before."""
    cdef uint32_t size = token_size(p, n, MAX_METHOD)
    if size == 0 or size + 1 >= n or p[size] != c' ':
        return False
    return (p[size + 1] == c'/' or p[size + 1] == c'h' or p[size + 1] == c'*') and method_of(p, size) != 0


cdef dt_protocol TABLE
TABLE.id = 1
TABLE.pairing = DT_PAIR_IN_ORDER
TABLE.evident = True
TABLE.probe = http1_probe
TABLE.frame = http1_frame
TABLE.body = chunked_body
TABLE.resync = http1_resync
TABLE.attributes = http1_attributes

PROTOCOL = l7_protocol(&TABLE, "http1", (80, 8000, 8080, 8888, 3000, 5000, 9090, 9200))
