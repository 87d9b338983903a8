# SPDX-License-Identifier: Apache-2.0
"""The memory of one perf ring (linux/perf_event.h): one page of control data, then a power of two of bytes in which 8-aligned
records follow each other and may wrap around. With PERF_SAMPLE_RAW alone a sample is {header, u32 size, bytes}."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #include <linux/perf_event.h>
    #include <stddef.h>
    static inline unsigned long long dt_ring_head(const void *page)
    {
    	return __atomic_load_n(&((const struct perf_event_mmap_page *)page)->data_head, __ATOMIC_ACQUIRE);
    }
    static inline unsigned long long dt_ring_tail(const void *page)
    {
    	return ((const struct perf_event_mmap_page *)page)->data_tail;
    }
    static inline void dt_ring_set_tail(void *page, unsigned long long tail)
    {
    	__atomic_store_n(&((struct perf_event_mmap_page *)page)->data_tail, tail, __ATOMIC_RELEASE);
    }
    """
    enum: PERF_RECORD_LOST, PERF_RECORD_SAMPLE
    uint64_t dt_ring_head(const void *page) nogil
    uint64_t dt_ring_tail(const void *page) nogil
    void dt_ring_set_tail(void *page, uint64_t tail) nogil

cdef struct perf_head:  # perf_event_header, and the size that follows it in a sample
    uint32_t type
    uint16_t misc
    uint16_t size
    uint32_t raw_bytes

cdef enum:
    PERF_HEADER = 8
    SAMPLE_HEAD = 12  # raw bytes begin here, at 4 mod 8

cdef struct perf_ring:
    void *page
    const uint8_t *data
    uint64_t mask
    uint64_t head  # as of this pass


cdef inline void ring_copy(const perf_ring *r, uint64_t at, void *target, uint64_t n) noexcept nogil:
    cdef uint64_t offset = at & r.mask
    cdef uint64_t first = r.mask + 1 - offset
    if n <= first:
        memcpy(target, r.data + offset, n)
        return
    memcpy(target, r.data + offset, first)
    memcpy(<uint8_t *> target + first, r.data, n - first)


cdef inline const uint8_t *ring_at(const perf_ring *r, uint64_t at, uint64_t n, uint8_t *room) noexcept nogil:
    """n bytes in one piece: where they stand, or in `room` when they wrap around."""
    cdef uint64_t offset = at & r.mask
    if offset + n <= r.mask + 1:
        return r.data + offset
    ring_copy(r, at, room, n)
    return room
