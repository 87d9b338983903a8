# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    N_BLOCK_CLASSES = 12  # 64 B << k: 64 B .. 128 KiB
    MIN_BLOCK_BYTES = 64
    MAX_BLOCK_BYTES = 131072

cdef struct block_pool:
    void *free[12]       # per class: blocks given back, linked through their first word
    void *chunks         # all memory taken from the system, linked through its first word
    uint64_t chunk_bytes
    uint64_t limit_bytes

cdef void blocks_init(block_pool *pool, uint64_t limit_bytes) noexcept nogil
cdef void blocks_free(block_pool *pool) noexcept nogil
cdef void *block_take(block_pool *pool, uint32_t size) noexcept nogil
cdef void block_give(block_pool *pool, void *block, uint32_t size) noexcept nogil
cdef uint32_t block_capacity(uint32_t size) noexcept nogil
