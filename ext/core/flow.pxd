# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from deeptrace.core.table cimport flow, flow_table
from dt_wire cimport dt_record

cdef void flow_record(flow_table *t, const dt_record *r, const uint8_t *payload) noexcept nogil
cdef void flows_flush(flow_table *t, uint64_t now_ns) noexcept nogil
cdef void flows_finish(flow_table *t) noexcept nogil
cdef void flow_end(flow_table *t, flow *f, uint8_t cause, uint64_t at_ns) noexcept nogil
