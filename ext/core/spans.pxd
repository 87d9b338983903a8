# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from deeptrace.core.strings cimport string_table
from deeptrace.core.table cimport flow
from dt_message cimport dt_message
from dt_wire cimport dt_attribute, dt_span

cdef struct outbox:  # what take() hands out
    dt_span *spans
    uint32_t n_spans
    uint32_t span_capacity
    dt_attribute *attributes
    uint32_t n_attributes
    uint32_t attribute_capacity
    string_table strings
    uint32_t *pids
    uint32_t n_pids
    uint32_t pid_capacity
    uint32_t *pid_index  # open addressing: row + 1, 0 empty
    uint32_t pid_mask
    uint64_t boot_hash
    uint8_t out_of_memory

cdef bint outbox_init(outbox *o, uint64_t boot_hash) noexcept nogil
cdef void outbox_free(outbox *o) noexcept nogil
cdef void outbox_clear(outbox *o) noexcept nogil
cdef void span_write(outbox *o, flow *f, const dt_message *request, const uint8_t *request_blob,
                     const dt_message *response, const uint8_t *response_blob, uint8_t cause, bint incomplete,
                     uint64_t end_ns) noexcept nogil
