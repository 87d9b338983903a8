# SPDX-License-Identifier: Apache-2.0
"""What a flow keeps between two calls: the bytes of an incomplete head, and the hints of unanswered requests. Both bounded."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from deeptrace.core.blocks cimport MAX_BLOCK_BYTES, block_capacity, block_give, block_take
from deeptrace.core.table cimport *

cdef enum:
    MAX_CARRY_BYTES = 65536  # of one incomplete head: larger than any server's limit for request heads in use (8-64 KiB)
    MAX_HINTS = 4096  # unanswered requests of a flow whose hints are kept; pair gives up there as well
    FIRST_HINTS = 64


# ---- carried bytes

cdef uint8_t *carry_bytes(carry_block *c) noexcept nogil:
    return <uint8_t *> c + sizeof(carry_block)


cdef void carry_free(flow_table *t, stream *s) noexcept nogil:
    if s.carry != NULL:
        block_give(&t.pool, s.carry, s.carry.capacity + <uint32_t> sizeof(carry_block))
        s.carry = NULL


cdef void carry_drop(flow_table *t, stream *s, int counter) noexcept nogil:
    """Give the carried bytes up, counted under `counter`."""
    if s.carry != NULL:
        t.counters[counter] += s.carry.size
        t.carried_bytes -= s.carry.size
        carry_free(t, s)


cdef bint carry_append(flow_table *t, stream *s, const uint8_t *p, uint32_t n, const call *now) noexcept nogil:
    """Copy bytes behind those carried; False (and nothing done) when a bound is reached."""
    cdef carry_block *old = s.carry
    cdef carry_block *c = old
    cdef uint32_t size = n + (old.size if old != NULL else 0)
    cdef uint32_t room
    if n == 0:
        return True
    if size > MAX_CARRY_BYTES:
        return False
    if c == NULL or size > c.capacity:
        room = block_capacity(size + <uint32_t> sizeof(carry_block))
        if room > MAX_BLOCK_BYTES:
            return False
        c = <carry_block *> block_take(&t.pool, room)
        if c == NULL:
            return False
        if old != NULL:
            memcpy(c, old, sizeof(carry_block) + old.size)
        else:
            c.size = c.n_calls = 0
        carry_free(t, s)
        c.capacity = room - <uint32_t> sizeof(carry_block)
        s.carry = c
    memcpy(carry_bytes(c) + c.size, p, n)
    c.size = size
    t.carried_bytes += n
    if c.n_calls < MAX_CALLS:
        c.calls[c.n_calls] = now[0]
        c.n_calls += 1
    else:  # the times of the latest call stand for all beyond; where the message began stays exact
        c.calls[MAX_CALLS - 1].enter_ns = now.enter_ns
        c.calls[MAX_CALLS - 1].exit_ns = now.exit_ns
        c.calls[MAX_CALLS - 1].tid = now.tid
        c.calls[MAX_CALLS - 1].marks |= now.marks
    return True


cdef void carry_consume(flow_table *t, stream *s, uint32_t n) noexcept nogil:
    """Drop the first n carried bytes, which were counted elsewhere."""
    cdef carry_block *c = s.carry
    cdef uint32_t i, first = 0
    t.carried_bytes -= n
    c.size -= n
    if c.size == 0:
        carry_free(t, s)
        return
    memmove(carry_bytes(c), carry_bytes(c) + n, c.size)
    for i in range(c.n_calls):
        if c.calls[i].at <= s.next_at - c.size:
            first = i
    for i in range(first, c.n_calls):
        c.calls[i - first] = c.calls[i]
    c.n_calls -= first


# ---- hints of unanswered requests

cdef void hints_clear(flow *f) noexcept nogil:
    f.hint_first = f.n_hints = 0
    f.hints_broken = 0


cdef void hint_push(flow_table *t, flow *f, uint8_t hint) noexcept nogil:
    cdef uint8_t *bigger
    cdef uint32_t i, capacity
    if f.hints_broken:
        return
    if f.n_hints == f.hint_capacity:
        capacity = f.hint_capacity * 2 if f.hint_capacity else FIRST_HINTS
        bigger = <uint8_t *> block_take(&t.pool, capacity) if capacity <= MAX_HINTS else NULL
        if bigger == NULL:
            f.hints_broken = 1
            return
        for i in range(f.n_hints):
            bigger[i] = f.hints[(f.hint_first + i) & (f.hint_capacity - 1)]
        if f.hints != NULL:
            block_give(&t.pool, f.hints, f.hint_capacity)
        f.hints = bigger
        f.hint_capacity = capacity
        f.hint_first = 0
    f.hints[(f.hint_first + f.n_hints) & (f.hint_capacity - 1)] = hint
    f.n_hints += 1


cdef uint8_t hint_front(const flow *f) noexcept nogil:
    return f.hints[f.hint_first] if f.n_hints and not f.hints_broken else 0


cdef void hint_pop(flow *f) noexcept nogil:
    if f.n_hints:
        f.hint_first = (f.hint_first + 1) & (f.hint_capacity - 1)
        f.n_hints -= 1
