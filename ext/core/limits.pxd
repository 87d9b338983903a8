# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint32_t, uint64_t

from deeptrace.core.table cimport flow, flow_table

cdef void limit_mute(flow_table *t, flow *f, uint64_t now_ns) noexcept nogil
cdef void limit_raise(flow_table *t, flow *f, uint64_t call_bytes, uint64_t now_ns) noexcept nogil
cdef void limit_reset(flow_table *t, flow *f) noexcept nogil
cdef void limits_sweep(flow_table *t, uint64_t now_ns) noexcept nogil
