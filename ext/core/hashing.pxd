# SPDX-License-Identifier: Apache-2.0
"""Hashes of fixed words and byte runs: small, seeded, the same on every machine and in every run. Not for secrets.

One step multiplies by an odd constant and folds the high half down (a bijection of 64 bits); the finish does it twice more
with other constants. Text is taken in little-endian words, the last one padded with zeros, then its length.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef inline uint64_t hash_step(uint64_t h, uint64_t word) noexcept nogil:
    h = (h ^ word) * <uint64_t> 0x9E3779B97F4A7C15
    return h ^ (h >> 32)

cdef inline uint64_t hash_finish(uint64_t h) noexcept nogil:
    h = (h ^ (h >> 29)) * <uint64_t> 0xD6E8FEB86659FD93
    h = (h ^ (h >> 32)) * <uint64_t> 0xA0761D6478BD642F
    return h ^ (h >> 29)

cdef inline uint64_t hash_bytes(uint64_t h, const uint8_t *p, uint32_t n) noexcept nogil:
    cdef uint64_t word
    cdef uint32_t left = n
    while left >= 8:
        memcpy(&word, p, 8)
        h = hash_step(h, word)
        p += 8
        left -= 8
    if left:
        word = 0
        memcpy(&word, p, left)
        h = hash_step(h, word)
    return hash_step(h, n)
