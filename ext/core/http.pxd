# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport int32_t, uint8_t, uint32_t

from dt_proto cimport dt_attrs, dt_slice

cdef enum:
    MAX_AGENT = 512  # bytes that are kept of User-Agent
    MAX_ID = 128  # bytes of an id field; a traceparent has 55, the longest b3 69
    MAX_AUTHORITY = 512  # bytes that are looked at of Host; a host name has at most 255 (RFC 1035 2.3.4)

cdef enum:  # slices of a request, offsets from its head; INFO: at = entry of the methods, size = minor version of HTTP/1
    METHOD = 0
    TARGET = 1
    HOST = 2
    AGENT = 3
    TRACEPARENT = 4
    B3 = 5
    REQUEST_ID = 6
    B3_TRACE = 7
    B3_SPAN = 8
    B3_SAMPLED = 9
    B3_FLAGS = 10
    INFO = 11

cdef enum:  # dt_msg.hint: what its request says about a response's body
    HINT_NONE = 0
    HINT_ORDINARY = 1
    HINT_HEAD = 2
    HINT_CONNECT = 3

# The entry of a method; 0 if it is in no table. Methods are case-sensitive, RFC 9110 9.1.
cdef uint32_t method_of(const uint8_t *p, uint32_t n) noexcept nogil
# What the method of an entry says about the response's body: HINT_*.
cdef uint8_t method_hint(uint32_t entry) noexcept nogil
# The attributes of a request, redacted.
cdef void put_request(const uint8_t *head, const dt_slice *s, dt_attrs *out) noexcept nogil
cdef void put_response(int32_t status, dt_attrs *out) noexcept nogil
