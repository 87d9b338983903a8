# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint32_t

from dt_proto cimport dt_attrs

# The digit's value, or -1.
cdef int hex_digit(uint8_t c) noexcept nogil
# Bytes before the first c, or n.
cdef uint32_t size_before(const uint8_t *p, uint32_t n, uint8_t c) noexcept nogil
# [user@]host[:port] as server.address and server.port; the user is dropped.
cdef void put_authority(dt_attrs *out, const uint8_t *p, uint32_t n) noexcept nogil
# /path[?query][#fragment] as url.path and url.query, redacted; the fragment is dropped.
cdef void put_path_and_query(dt_attrs *out, const uint8_t *p, uint32_t n) noexcept nogil
