# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from deeptrace.core.table cimport call, flow, flow_table, stream

cdef void row_emit(flow_table *t, stream *s) noexcept nogil
cdef void message_begin(flow_table *t, flow *f, stream *s, const uint8_t *head, uint64_t at, uint32_t size,
                        const call *calls, uint32_t n_calls) noexcept nogil
cdef void message_end(flow_table *t, flow *f, stream *s, uint64_t end_at) noexcept nogil
cdef void end_turn(flow_table *t, flow *f, uint8_t direction, uint8_t mode) noexcept nogil
cdef void bad_frame(flow_table *t, flow *f, uint8_t direction) noexcept nogil
cdef void stream_lose(flow_table *t, flow *f, uint8_t direction) noexcept nogil
cdef void stream_end_lost(flow_table *t, flow *f, uint8_t direction) noexcept nogil
cdef void stream_restart(flow_table *t, flow *f, uint8_t direction) noexcept nogil
