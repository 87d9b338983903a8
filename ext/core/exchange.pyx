# SPDX-License-Identifier: Apache-2.0
"""One request and its response while they wait for each other: memory, and the lists they stand in. Decides nothing."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from deeptrace.core.blocks cimport block_give, block_pool, block_take
from deeptrace.core.table cimport flow
from dt_message cimport dt_message


cdef void list_add(waiting_list *l, exchange *x, uint64_t since_ns) noexcept nogil:
    x.listed = l
    x.since_ns = since_ns
    x.newer = NULL
    x.older = <exchange *> l.last
    if x.older != NULL:
        x.older.newer = x
    else:
        l.first = x
    l.last = x


cdef void list_remove(exchange *x) noexcept nogil:
    if x.listed == NULL:
        return
    if x.older != NULL:
        x.older.newer = x.newer
    else:
        x.listed.first = x.newer
    if x.newer != NULL:
        x.newer.older = x.older
    else:
        x.listed.last = x.older
    x.listed = NULL


cdef exchange *exchange_new(block_pool *pool) noexcept nogil:
    cdef exchange *x = <exchange *> block_take(pool, sizeof(exchange))
    if x != NULL:
        x.next = NULL
        x.listed = NULL
        x.state = 0
        x.request_blob = x.response_blob = NULL
        x.request.blob_size = x.response.blob_size = 0
    return x


cdef void blobs_free(block_pool *pool, exchange *x) noexcept nogil:
    if x.request_blob != NULL:
        block_give(pool, x.request_blob, x.request.blob_size)
        x.request_blob = NULL
    if x.response_blob != NULL:
        block_give(pool, x.response_blob, x.response.blob_size)
        x.response_blob = NULL


cdef void exchange_free(block_pool *pool, exchange *x) noexcept nogil:
    list_remove(x)
    blobs_free(pool, x)
    block_give(pool, x, sizeof(exchange))


cdef uint8_t *blob_copy(block_pool *pool, const uint8_t *blobs, dt_message *row) noexcept nogil:
    """Keep a row's attributes beyond this pass; without memory they are left out, the message is not."""
    cdef uint8_t *copy = NULL
    if row.blob_size:
        copy = <uint8_t *> block_take(pool, row.blob_size)
        if copy == NULL:
            row.blob_size = 0
        else:
            memcpy(copy, blobs + row.blob_at, row.blob_size)
    return copy


cdef void unlink_open(flow *f, exchange *x) noexcept nogil:
    """Take an exchange out of its flow's open ones; it is nearly always the first."""
    cdef exchange *before = NULL
    cdef exchange *i = <exchange *> f.open_first
    while i != x:
        before = i
        i = i.next
    if before == NULL:
        f.open_first = x.next
    else:
        before.next = x.next
    if f.open_last == x:
        f.open_last = before
    if f.reading == x:
        f.reading = NULL
    if f.answering == x:
        f.answering = NULL
    f.n_open -= 1
