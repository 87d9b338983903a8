# SPDX-License-Identifier: Apache-2.0
"""Puts the bytes of one direction in stream order: drops what was seen before, holds what came too soon, says what is missing.
Never reorders across a gap once it is declared."""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from deeptrace.core.counters cimport *
from deeptrace.core.hold cimport held_bytes, hold_add, hold_release
from deeptrace.core.infer cimport infer_take
from deeptrace.core.stream cimport stream_take
from deeptrace.core.table cimport *
from dt_wire cimport *

cdef enum:
    FAR = 1 << 26  # bytes: a position further back than any overlap is another stream on the same socket

cdef uint64_t EPOCH = 1ull << 32  # where logical positions start, so that those before the first byte stay positive


cdef void deliver(flow_table *t, flow *f, uint8_t d, const uint8_t *p, uint32_t captured, uint64_t hole, call *now,
                  bint gap) noexcept nogil:
    if f.state == INFERRING:
        infer_take(t, f, d, p, captured, hole, now, gap)
    else:
        stream_take(t, f, d, p, captured, hole, now, gap)


cdef void declare_gap(flow_table *t, flow *f, uint8_t d, uint64_t until, const call *now) noexcept nogil:
    """The bytes from next_at up to `until` will not come."""
    cdef stream *s = &f.streams[d]
    cdef call copy = now[0]
    cdef uint64_t missing = until - s.next_at
    t.counters[DT_COUNT_GAP] += 1
    t.counters[DT_COUNT_GAP_BYTES] += missing
    deliver(t, f, d, NULL, 0, missing, &copy, True)


cdef void place(flow_table *t, flow *f, uint8_t d, uint64_t position, const uint8_t *p, uint32_t captured, uint32_t size,
                call *now) noexcept nogil:
    """Bytes at or before next_at: drop the part that was seen, hand on the rest."""
    cdef stream *s = &f.streams[d]
    cdef uint64_t seen = s.next_at - position
    if seen >= size:
        t.counters[DT_COUNT_BYTES_DUPLICATE] += size
        return
    t.counters[DT_COUNT_BYTES_DUPLICATE] += seen
    size -= <uint32_t> seen
    if captured > seen:
        p += seen
        captured -= <uint32_t> seen
    else:
        captured = 0
    deliver(t, f, d, p, captured, size - captured, now, False)


cdef void release_ready(flow_table *t, flow *f, uint8_t d) noexcept nogil:
    """Hand on held calls that the bytes in front of them have reached."""
    cdef stream *s = &f.streams[d]
    cdef held_call *h = s.held
    while h != NULL and h.meta.at <= s.next_at:
        place(t, f, d, h.meta.at, held_bytes(h), h.captured, h.size, &h.meta)
        hold_release(t, s, h)
        h = s.held


cdef void force_hold(flow_table *t, flow *f, uint8_t d) noexcept nogil:
    """Waiting is over for the first held call: an unproven one may begin here; otherwise what is before it is missing."""
    cdef stream *s = &f.streams[d]
    cdef held_call *h = s.held
    cdef held_call *best = NULL
    while h != NULL:
        if h.earliest <= s.next_at and h.meta.at >= s.next_at and best == NULL and s.started == 1:
            best = h
        h = h.next
    h = s.held
    if best != NULL:
        best.meta.at = s.next_at
        place(t, f, d, s.next_at, held_bytes(best), best.captured, best.size, &best.meta)
        hold_release(t, s, best)
    elif s.started == 2:  # the start of the stream was lost
        s.started = 1
        s.next_at = h.meta.at
        f.mid_stream = 1
        f.out_of_sync = 1
        t.counters[DT_COUNT_GAP] += 1
    else:
        declare_gap(t, f, d, h.meta.at, &h.meta)
    release_ready(t, f, d)


cdef void expire_hold(flow_table *t, flow *f, uint8_t d, uint64_t now_ns) noexcept nogil:
    cdef stream *s = &f.streams[d]
    while s.held != NULL and s.held.meta.exit_ns + t.hold_ns <= now_ns:
        force_hold(t, f, d)


cdef bint after_untraced_body(const flow *f, uint8_t d, uint64_t position) noexcept nogil:
    """Whether exactly the rest of a body of known size is missing on egress: a call that is not traced (splice, io_uring) moved it."""
    cdef const stream *s = &f.streams[d]
    return (
        d == DT_EGRESS
        and f.state == KNOWN
        and s.started == 1
        and s.mode == IN_SIZE
        and s.held == NULL
        and position == s.next_at + s.left
    )


cdef void sequence(flow_table *t, flow *f, const dt_record *r, const uint8_t *p, call *now) noexcept nogil:
    """Put one call's bytes where they belong in their direction."""
    cdef uint8_t d = r.direction
    cdef stream *s = &f.streams[d]
    cdef uint32_t size = <uint32_t> r.result
    cdef uint32_t captured = r.payload_len if r.payload_len < size else size
    cdef uint32_t at32 = r.seq_enter if d == DT_INGRESS and not r.flags & DT_RECORD_ENTER_MISSED else r.seq_exit - size
    cdef bint placed = (r.flags & (DT_RECORD_SEQ_VALID | DT_RECORD_COUNTED)) != 0
    cdef bint proven = not r.flags & DT_RECORD_SEQ_AMBIGUOUS
    cdef bint first = not r.flags & DT_RECORD_FRESH or r.flags & DT_RECORD_FIRST
    cdef bint rings = (r.flags & DT_RECORD_URING) != 0  # what one thread submits runs beside what it calls
    cdef bint alone = r.tid and not rings and not s.many_tids and s.tid == r.tid  # one thread's calls come in order; packets have none
    cdef uint64_t position, earliest
    s.many_tids = s.many_tids or rings or (s.started and s.tid != r.tid)
    s.tid = r.tid
    if not s.started:
        s.started = 1 if first or f.mid_stream else 2
        s.next_at = EPOCH + (at32 if placed else 0)
    position = s.next_at
    if placed:
        position += <uint64_t> <int32_t> (at32 - <uint32_t> s.next_at)
    earliest = position
    if s.started == 2 and first:
        s.started = 1
        s.next_at = position
    if not proven and placed and not r.flags & DT_RECORD_ENTER_MISSED:
        if d == DT_EGRESS:
            earliest = s.next_at + <uint64_t> <int32_t> (r.seq_enter - <uint32_t> s.next_at)
        elif position <= s.next_at and s.next_at <= position + (r.seq_exit - r.seq_enter - size):
            position = s.next_at  # calls that read one socket at the same time come in the order of their exits
    if s.started == 1 and position + FAR < s.next_at:
        declare_gap(t, f, d, s.next_at, now)
        s.next_at = position
    if position > s.next_at and (after_untraced_body(f, d, position) or (alone and proven and s.held == NULL and s.started == 1)):
        declare_gap(t, f, d, position, now)
    if s.started == 1 and position <= s.next_at:
        place(t, f, d, position, p, captured, size, now)
        if s.held != NULL:
            release_ready(t, f, d)
        return
    while not hold_add(t, s, position, earliest, p, captured, size, now):
        if s.held == NULL:  # no memory: what is before it is taken as missing, and it is not copied
            s.started = 1
            declare_gap(t, f, d, position, now)
            place(t, f, d, position, p, captured, size, now)
            return
        force_hold(t, f, d)
        if position <= s.next_at:
            place(t, f, d, position, p, captured, size, now)
            return
    due_add(t, f)
