# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint32_t

from deeptrace.core.table cimport call, carry_block, flow, flow_table, stream

cdef uint8_t *carry_bytes(carry_block *c) noexcept nogil
cdef void carry_drop(flow_table *t, stream *s, int counter) noexcept nogil
cdef bint carry_append(flow_table *t, stream *s, const uint8_t *p, uint32_t n, const call *now) noexcept nogil
cdef void carry_consume(flow_table *t, stream *s, uint32_t n) noexcept nogil
cdef void hints_clear(flow *f) noexcept nogil
cdef void hint_push(flow_table *t, flow *f, uint8_t hint) noexcept nogil
cdef uint8_t hint_front(const flow *f) noexcept nogil
cdef void hint_pop(flow *f) noexcept nogil
