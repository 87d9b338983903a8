# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from deeptrace.core.blocks cimport block_pool
from deeptrace.core.table cimport flow
from dt_message cimport dt_message

cdef enum:  # exchange.state, bits
    ASKED = 1  # the request is there
    ASKED_WHOLE = 2
    ANSWERED = 4  # its response has begun
    ANSWERED_WHOLE = 8
    SETTLED = 16  # in a span already (timeout): waits for its late response only to keep the order

cdef struct waiting_list:  # exchanges by the time they began to wait
    exchange *first
    exchange *last

cdef struct exchange:
    exchange *next  # in its flow
    exchange *newer  # in waiting or early
    exchange *older
    waiting_list *listed
    uint64_t since_ns
    uint8_t state
    dt_message request
    dt_message response
    uint8_t *request_blob
    uint8_t *response_blob

cdef void list_add(waiting_list *l, exchange *x, uint64_t since_ns) noexcept nogil
cdef void list_remove(exchange *x) noexcept nogil
cdef exchange *exchange_new(block_pool *pool) noexcept nogil
cdef void blobs_free(block_pool *pool, exchange *x) noexcept nogil
cdef void exchange_free(block_pool *pool, exchange *x) noexcept nogil
cdef uint8_t *blob_copy(block_pool *pool, const uint8_t *blobs, dt_message *row) noexcept nogil
cdef void unlink_open(flow *f, exchange *x) noexcept nogil
