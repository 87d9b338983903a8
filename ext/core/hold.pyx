# SPDX-License-Identifier: Apache-2.0
"""Keeps calls whose bytes stand behind bytes not seen yet, sorted by position, copied, bounded. Decides nothing."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from deeptrace.core.blocks cimport block_give, block_take
from deeptrace.core.table cimport *

cdef enum:
    MAX_HELD_CALLS = 64  # per direction: threads that write one socket at the same time
    MAX_HELD_BYTES = 1 << 20  # captured bytes per direction


cdef uint8_t *held_bytes(held_call *h) noexcept nogil:
    return <uint8_t *> h + sizeof(held_call)


cdef bint hold_add(flow_table *t, stream *s, uint64_t position, uint64_t earliest, const uint8_t *p, uint32_t captured,
                   uint32_t size, const call *now) noexcept nogil:
    """Hold one call; False when a bound is reached."""
    cdef held_call **link = &s.held
    cdef held_call *h
    if s.n_held >= MAX_HELD_CALLS or s.held_bytes + captured > MAX_HELD_BYTES:
        return False
    h = <held_call *> block_take(&t.pool, <uint32_t> sizeof(held_call) + captured)
    if h == NULL:
        return False
    h.meta = now[0]
    h.meta.at = position
    h.earliest = earliest
    h.size = size
    h.captured = captured
    memcpy(held_bytes(h), p, captured)
    while link[0] != NULL and link[0].meta.at <= position:
        link = &link[0].next
    h.next = link[0]
    link[0] = h
    s.n_held += 1
    s.held_bytes += captured
    t.carried_bytes += size
    return True


cdef void hold_release(flow_table *t, stream *s, held_call *h) noexcept nogil:
    """Take a call out of the hold and free it."""
    cdef held_call **link = &s.held
    while link[0] != h:
        link = &link[0].next
    link[0] = h.next
    s.n_held -= 1
    s.held_bytes -= h.captured
    t.carried_bytes -= h.size
    block_give(&t.pool, h, <uint32_t> sizeof(held_call) + h.captured)
