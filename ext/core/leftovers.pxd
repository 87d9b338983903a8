# SPDX-License-Identifier: Apache-2.0
"""A copy of the records that wait on one CPU (dt_records.h: struct dt_batch), taken while the probes go on writing there."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from dt_wire cimport dt_batch

cdef extern from *:
    """
    #include "dt_records.h"
    static inline unsigned long long dt_batch_generation(const struct dt_batch *batch)
    {
    	return __atomic_load_n(&batch->generation, __ATOMIC_ACQUIRE);
    }
    static inline unsigned long long dt_batch_used(const struct dt_batch *batch)
    {
    	return __atomic_load_n(&batch->used, __ATOMIC_ACQUIRE);
    }
    static inline void dt_batch_was_read(void)
    {
    	__atomic_thread_fence(__ATOMIC_ACQUIRE);
    }
    """
    uint64_t dt_batch_generation(const dt_batch *batch) nogil
    uint64_t dt_batch_used(const dt_batch *batch) nogil
    void dt_batch_was_read() nogil
    enum: DT_BATCH_ROOM "sizeof(((struct dt_batch *)0)->bytes)"

cdef enum:
    LOOKS = 4  # a batch is emitted every 10 us at most: more often than twice during a copy of 1 us is a CPU that stands still

cdef struct leftovers:
    const dt_batch *batch  # the probes' memory; NULL: none
    uint8_t *bytes  # the copy; owned by Rings
    uint64_t generation
    uint64_t used  # bytes of the copy that hold
    uint64_t at  # of the next record in it


cdef inline void leftovers_look(leftovers *l) noexcept nogil:
    """Bring the copy up to date. What is emitted from the batch meanwhile is not in it: it stands in the ring. What was not taken
    is copied again, so that no record is taken from a copy that was made while it was being written."""
    cdef uint64_t generation = l.generation, used, known
    cdef int i
    for i in range(LOOKS):
        generation = dt_batch_generation(l.batch)
        used = dt_batch_used(l.batch)
        known = l.at if generation == l.generation else 0
        if known == used:
            l.generation = generation
            l.used = l.at = used
            return
        if known < used <= DT_BATCH_ROOM:
            memcpy(l.bytes + known, l.batch.bytes + known, used - known)
        dt_batch_was_read()
        if dt_batch_generation(l.batch) != generation:
            continue
        if known > used or used > DT_BATCH_ROOM:  # it is being emitted at this moment
            break
        l.generation = generation
        l.used = used
        l.at = known
        return
    l.generation = generation
    l.used = l.at = 0
