# SPDX-License-Identifier: Apache-2.0
# What the elements of RESP look like, and where a message keeps its place among them.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from dt_proto cimport *

cdef extern from *:
    """
    #define RESP_MAX_BULK (1ull << 32)
    #define RESP_MAX_ELEMENTS ((1ull << 31) - 1)
    """
    uint64_t MAX_BULK "RESP_MAX_BULK"  # bytes of a bulk; Redis allows 512 MiB unless told otherwise
    uint64_t MAX_ELEMENTS "RESP_MAX_ELEMENTS"  # Redis: INT_MAX elements in an array

cdef enum:
    MAX_HEADER = 21  # bytes of "$<number>\r\n": 18 digits fit an int64

cdef enum:  # dt_msg.state
    LEFT = 0  # elements still to come
    PENDING = 1  # bytes still to come of the bulk at hand, with its CRLF
    IN_LINE = 2  # 1: inside an element that ends with its line

cdef enum:  # dt_msg.slices; INFO: at = entry of the command table, size = number of arguments
    NAME = 0
    KEY = 1
    INFO = 2


cdef inline int read_header(dt_buf *b, int64_t *value) noexcept nogil:
    """Take "<type><number>CRLF" at the cursor. A negative number is -1 (null), nothing else."""
    cdef uint32_t n = buf_left(b), i = 1, first = 1
    cdef const uint8_t *p = buf_peek(b, n)
    cdef int64_t v = 0
    if n >= 4 and p[2] == c'\r' and p[3] == c'\n' and c'0' <= p[1] <= c'9':  # most headers have one digit
        value[0] = p[1] - c'0'
        buf_take(b, 4)
        return DT_OK
    if n > MAX_HEADER:
        n = MAX_HEADER
    if n > 1 and p[1] == c'-':
        first = i = 2
    while i < n and c'0' <= p[i] <= c'9':
        v = v * 10 + (p[i] - c'0')
        i += 1
    if i + 1 < n:
        if i == first or p[i] != c'\r' or p[i + 1] != c'\n' or (first == 2 and v != 1):
            return DT_BAD
        value[0] = -1 if first == 2 else v
        buf_take(b, i + 2)
        return DT_OK
    if n == MAX_HEADER or (i < n and (i == first or p[i] != c'\r')):
        return DT_BAD
    return DT_MORE


cdef inline bint ends_with_line(uint8_t kind) noexcept nogil:
    return kind == c'+' or kind == c'-' or kind == c':' or kind == c'_' or kind == c'#' or kind == c',' or kind == c'('


# Account for the element whose header was just taken: one of LEFT less, its bytes pending, its own elements more.
# DT_BAD: nothing changed.
cdef int open_element(uint8_t kind, int64_t value, dt_msg *m) noexcept nogil
# Pass over the elements that are left, however nested: only their number matters. As dt_protocol.body.
cdef int walk(dt_buf *b, uint8_t role, dt_msg *m) noexcept nogil
# End frame(): go as far as the run reaches, leave the rest to body().
cdef int finish(dt_buf *b, uint8_t role, dt_msg *m) noexcept nogil
# End frame() where the run was cut inside the message's lines, so that its end is not known.
cdef int lose(dt_buf *b, dt_msg *m) noexcept nogil
