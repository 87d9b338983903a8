# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from deeptrace.core.blocks cimport block_pool
from deeptrace.core.exchange cimport waiting_list
from deeptrace.core.spans cimport outbox
from deeptrace.core.table cimport flow_table
from dt_message cimport dt_message

cdef struct pairing:
    flow_table *table
    outbox *out
    block_pool pool
    uint64_t *counters
    waiting_list waiting  # requests without a response
    waiting_list early  # responses without a request
    uint64_t clock_ns  # the latest time that a row named: deadlines do not depend on how batches are cut
    uint64_t timeout_ns
    uint64_t early_ns
    uint32_t max_open
    uint32_t n_open  # requests that are neither in a span nor counted as dropped
    uint32_t n_answers_open  # the same for responses

cdef void pairing_init(pairing *p, flow_table *table, outbox *out, uint64_t pool_bytes) noexcept nogil
cdef void pairing_free(pairing *p) noexcept nogil
cdef void pair_rows(pairing *p) noexcept nogil
cdef void pair_expire(pairing *p, uint64_t now_ns) noexcept nogil
