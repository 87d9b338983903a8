# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from dt_proto cimport dt_buf, dt_msg

ctypedef struct Framing:
    uint64_t length
    bint has_length
    bint has_coding
    bint chunked
    bint faulty  # no recipient can tell where this message ends

# Field names are case-insensitive; what follows must be ":" (or, wrongly, white space).
cdef bint has_name(const uint8_t *line, uint32_t n, const char *name, uint32_t size) noexcept nogil
# The value of a field whose name ends at *first, without the white space around it.
cdef bint find_value(const uint8_t *line, uint32_t n, uint32_t *first, uint32_t *size) noexcept nogil
# A line that has these names.
cdef void read_content_length(const uint8_t *line, uint32_t n, Framing *f) noexcept nogil
cdef void read_transfer_encoding(const uint8_t *line, uint32_t n, Framing *f) noexcept nogil
# What kind of message out is, and what body it has. minor: of its HTTP version.
cdef void find_body(uint8_t role, uint8_t hint, uint32_t minor, const Framing *f, dt_msg *out) noexcept nogil
# A chunked body; as dt_protocol.body.
cdef int chunked_body(dt_buf *b, uint8_t role, dt_msg *m) noexcept nogil
