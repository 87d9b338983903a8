# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from deeptrace.core.table cimport call, flow, flow_table

cdef void stream_take(flow_table *t, flow *f, uint8_t direction, const uint8_t *p, uint32_t captured, uint64_t hole,
                      call *now, bint gap) noexcept nogil
cdef void stream_finish(flow_table *t, flow *f, uint8_t direction, bint orderly) noexcept nogil
