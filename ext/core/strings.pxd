# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef struct string_table:
    uint8_t *bytes
    uint32_t n_bytes
    uint32_t byte_capacity
    uint32_t *at  # n_strings + 1 offsets into bytes
    uint32_t n_strings
    uint32_t string_capacity
    uint32_t *index  # open addressing: string + 1, 0 empty
    uint32_t *hashes  # per string: high half of its hash
    uint32_t index_mask

cdef bint strings_init(string_table *s) noexcept nogil
cdef void strings_free(string_table *s) noexcept nogil
cdef void strings_clear(string_table *s) noexcept nogil
cdef uint32_t intern(string_table *s, const uint8_t *p, uint32_t n) noexcept nogil
cdef bint reserve(void **memory, uint32_t *capacity, uint32_t wanted, size_t item_bytes) noexcept nogil
