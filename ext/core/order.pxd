# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint64_t

from deeptrace.core.table cimport call, flow, flow_table
from dt_wire cimport dt_record

cdef void sequence(flow_table *t, flow *f, const dt_record *r, const uint8_t *p, call *now) noexcept nogil
cdef void force_hold(flow_table *t, flow *f, uint8_t d) noexcept nogil
cdef void expire_hold(flow_table *t, flow *f, uint8_t d, uint64_t now_ns) noexcept nogil
