# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from deeptrace.core.table cimport call, flow_table, held_call, stream

cdef bint hold_add(flow_table *t, stream *s, uint64_t position, uint64_t earliest, const uint8_t *p, uint32_t captured,
                   uint32_t size, const call *now) noexcept nogil
cdef void hold_release(flow_table *t, stream *s, held_call *h) noexcept nogil
cdef uint8_t *held_bytes(held_call *h) noexcept nogil
