# SPDX-License-Identifier: Apache-2.0
"""The string table of one output batch: equal texts stand in it once. String 0 is "". Never shrinks while it fills."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset

from deeptrace.core.hashing cimport hash_bytes, hash_finish

cdef enum:
    FIRST_STRINGS = 1024
    MAX_TEXT_BYTES = 1 << 30  # of one output batch, which is taken many times a second; beyond it texts become ""


cdef bint reserve(void **memory, uint32_t *capacity, uint32_t wanted, size_t item_bytes) noexcept nogil:
    """Make room for `wanted` items, growing by doubling; False without memory (nothing changed)."""
    cdef uint64_t n = capacity[0] if capacity[0] else 256
    cdef void *bigger
    if wanted <= capacity[0]:
        return True
    while n < wanted:
        n *= 2
    bigger = realloc(memory[0], n * item_bytes)
    if bigger == NULL:
        return False
    memory[0] = bigger
    capacity[0] = <uint32_t> n
    return True


cdef bint strings_init(string_table *s) noexcept nogil:
    memset(s, 0, sizeof(string_table))
    s.index_mask = FIRST_STRINGS * 2 - 1
    s.index = <uint32_t *> calloc(s.index_mask + 1, sizeof(uint32_t))
    s.string_capacity = FIRST_STRINGS
    s.at = <uint32_t *> calloc(FIRST_STRINGS + 1, sizeof(uint32_t))
    s.hashes = <uint32_t *> calloc(FIRST_STRINGS, sizeof(uint32_t))
    s.n_strings = 1
    return s.index != NULL and s.at != NULL and s.hashes != NULL


cdef void strings_free(string_table *s) noexcept nogil:
    free(s.bytes)
    free(s.at)
    free(s.index)
    free(s.hashes)
    memset(s, 0, sizeof(string_table))


cdef void strings_clear(string_table *s) noexcept nogil:
    """Empty the table, keep its memory."""
    memset(s.index, 0, (<uint64_t> s.index_mask + 1) * sizeof(uint32_t))
    s.n_strings = 1
    s.n_bytes = 0
    s.at[0] = s.at[1] = 0


cdef bint strings_grow(string_table *s) noexcept nogil:
    cdef uint32_t capacity = s.string_capacity * 2
    cdef uint32_t mask = capacity * 2 - 1
    cdef uint32_t *index = <uint32_t *> calloc(<uint64_t> mask + 1, sizeof(uint32_t))
    cdef uint32_t *at = <uint32_t *> realloc(s.at, (<uint64_t> capacity + 1) * sizeof(uint32_t))
    cdef uint32_t *hashes
    cdef uint32_t i, j
    if at != NULL:
        s.at = at
    hashes = <uint32_t *> realloc(s.hashes, <uint64_t> capacity * sizeof(uint32_t))
    if hashes != NULL:
        s.hashes = hashes
    if index == NULL or at == NULL or hashes == NULL:
        free(index)
        return False
    for i in range(1, s.n_strings):
        j = s.hashes[i] & mask
        while index[j]:
            j = (j + 1) & mask
        index[j] = i + 1
    free(s.index)
    s.index = index
    s.index_mask = mask
    s.string_capacity = capacity
    return True


cdef uint32_t intern(string_table *s, const uint8_t *p, uint32_t n) noexcept nogil:
    """The number of a text, added when it is new; 0 for an empty one or without memory."""
    cdef uint32_t h, i, k
    if n == 0:
        return 0
    h = <uint32_t> (hash_finish(hash_bytes(0, p, n)) >> 32)
    i = h & s.index_mask
    while s.index[i]:
        k = s.index[i] - 1
        if s.hashes[k] == h and s.at[k + 1] - s.at[k] == n and memcmp(s.bytes + s.at[k], p, n) == 0:
            return k
        i = (i + 1) & s.index_mask
    if s.n_strings == s.string_capacity:
        if not strings_grow(s):
            return 0
        i = h & s.index_mask
        while s.index[i]:
            i = (i + 1) & s.index_mask
    if s.n_bytes + n > MAX_TEXT_BYTES or not reserve(<void **> &s.bytes, &s.byte_capacity, s.n_bytes + n, 1):
        return 0
    k = s.n_strings
    memcpy(s.bytes + s.n_bytes, p, n)
    s.n_bytes += n
    s.at[k + 1] = s.n_bytes
    s.hashes[k] = h
    s.index[i] = k + 1
    s.n_strings = k + 1
    return k
