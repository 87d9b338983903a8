# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from dt_wire cimport dt_record

cdef class Batch:
    # Memory: owned by the numpy arrays; the pointers live as long as they do.
    cdef object record_store
    cdef object payload_store
    cdef object payload_at_store
    cdef object order_store
    cdef object key_store
    cdef dt_record *record
    cdef uint8_t *arena
    cdef uint32_t *at
    cdef uint32_t *rank
    cdef uint64_t *key
    cdef uint32_t capacity
    cdef uint32_t n
    cdef uint32_t n_ordered
    cdef uint32_t n_log_records
    cdef uint64_t arena_bytes
    cdef uint64_t used_bytes
    cdef list pool
    cdef void reset(self) noexcept
    cdef int sort(self) except -1

cdef Batch batch_new(uint32_t n_records, uint64_t n_bytes, list pool)
