# SPDX-License-Identifier: Apache-2.0
"""Memory for what the stages carry: blocks in size classes of powers of two, recycled, bounded in total.
Never moves memory between classes; gives nothing back to the system before blocks_free."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

cdef enum:
    CHUNK_BYTES = 262144  # taken from the system at once: hides malloc, wastes at most this per class
    CHUNK_HEAD = 64  # first word links the chunks; the rest keeps blocks on cache lines


cdef inline int class_of(uint32_t size) noexcept nogil:
    cdef int k = 0
    cdef uint32_t capacity = MIN_BLOCK_BYTES
    while capacity < size:
        capacity <<= 1
        k += 1
    return k


cdef uint32_t block_capacity(uint32_t size) noexcept nogil:
    """Bytes that a block taken for `size` bytes really has."""
    return (<uint32_t> MIN_BLOCK_BYTES) << class_of(size)


cdef void blocks_init(block_pool *pool, uint64_t limit_bytes) noexcept nogil:
    memset(pool, 0, sizeof(block_pool))
    pool.limit_bytes = limit_bytes


cdef void blocks_free(block_pool *pool) noexcept nogil:
    cdef void *chunk = pool.chunks
    cdef void *following
    while chunk != NULL:
        following = (<void **> chunk)[0]
        free(chunk)
        chunk = following
    memset(pool, 0, sizeof(block_pool))


cdef bint grow(block_pool *pool, int k) noexcept nogil:
    cdef uint64_t size = (<uint64_t> MIN_BLOCK_BYTES) << k
    cdef uint64_t total = CHUNK_BYTES if size < CHUNK_BYTES else size
    cdef uint64_t at = 0
    cdef uint8_t *chunk
    if pool.chunk_bytes + total + CHUNK_HEAD > pool.limit_bytes:
        return False
    chunk = <uint8_t *> malloc(total + CHUNK_HEAD)
    if chunk == NULL:
        return False
    (<void **> chunk)[0] = pool.chunks
    pool.chunks = chunk
    pool.chunk_bytes += total + CHUNK_HEAD
    while at + size <= total:
        block_give(pool, chunk + CHUNK_HEAD + at, <uint32_t> size)
        at += size
    return True


cdef void *block_take(block_pool *pool, uint32_t size) noexcept nogil:
    """A block of at least `size` bytes, not zeroed; NULL when the limit is reached or size > MAX_BLOCK_BYTES."""
    cdef int k
    cdef void *block
    if size > MAX_BLOCK_BYTES:
        return NULL
    k = class_of(size)
    if pool.free[k] == NULL and not grow(pool, k):
        return NULL
    block = pool.free[k]
    pool.free[k] = (<void **> block)[0]
    return block


cdef void block_give(block_pool *pool, void *block, uint32_t size) noexcept nogil:
    """Give back a block with the size that it was taken for."""
    cdef int k = class_of(size)
    (<void **> block)[0] = pool.free[k]
    pool.free[k] = block
