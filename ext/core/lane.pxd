# SPDX-License-Identifier: Apache-2.0
"""Records of one CPU in the order of their time: its ring and what waits beside it. Data records of calls are one lane, all others
(those of io_uring, too) another: they leave the kernel by different ways, so that only within a lane the ring's order is that of time.

Both lanes walk the same ring, each stepping over the other's samples. The data lane goes on with what waits on the CPU when it
has come to the ring's head; it knows by cpu_count what it has had already.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from deeptrace.core.counters cimport *
from deeptrace.core.leftovers cimport leftovers, leftovers_look
from deeptrace.core.perf_ring cimport (
    PERF_HEADER, PERF_RECORD_LOST, PERF_RECORD_SAMPLE, SAMPLE_HEAD, dt_ring_head, perf_head, perf_ring, ring_at, ring_copy
)
from dt_wire cimport DT_KIND_DATA, DT_KIND_LOG, DT_MAX_PAYLOAD, DT_RECORD_URING, dt_record

cdef extern from *:
    """
    #define DT_FIELD(name) offsetof(struct dt_record, name)
    """
    enum: AT_EXIT_NS "DT_FIELD(exit_ns)"
    enum: AT_CPU_COUNT "DT_FIELD(cpu_count)"
    enum: AT_PAYLOAD_LEN "DT_FIELD(payload_len)"
    enum: AT_FLAGS "DT_FIELD(flags)"
    enum: AT_KIND "DT_FIELD(kind)"

cdef enum:
    DATA_LANE = 0
    EVENT_LANE = 1
    LANES = 2

cdef struct lane:
    uint64_t at  # ring position of the sample in which it stands
    uint64_t next_exit_ns  # of the record that comes next, if `ready`
    uint64_t next_count
    uint64_t last_count  # cpu_count of the last record taken
    uint64_t missed
    uint64_t spoiled  # counted as bad since then
    uint32_t sample_bytes  # perf size of its sample; 0: it is at a sample's beginning and has not looked
    uint32_t raw_bytes
    uint32_t inside  # offset of the next record in the raw bytes
    uint32_t next_payload
    uint16_t next_flags
    uint8_t next_kind
    uint8_t ready
    uint8_t waits  # the next record is a leftover

cdef struct cpu_records:
    perf_ring ring
    leftovers left
    lane lanes[LANES]
    uint64_t loose_first  # cpu_count of leftovers that were taken and have not come through the ring; first > last: none
    uint64_t loose_last
    uint64_t loose_generation
    uint32_t cpu
    uint8_t mapped


cdef inline uint32_t record_step(uint32_t payload_bytes) noexcept nogil:
    return (<uint32_t> sizeof(dt_record) + payload_bytes + 7) & ~<uint32_t> 7


cdef inline int lane_of(uint8_t kind, uint16_t flags) noexcept nogil:
    """The lane of a record: by which way it left the kernel."""
    return DATA_LANE if kind == DT_KIND_DATA and not flags & DT_RECORD_URING else EVENT_LANE


cdef inline void lane_spoil(lane *l, uint64_t *counters) noexcept nogil:
    counters[DT_COUNT_BAD_RECORD] += 1
    l.spoiled += 1


cdef inline void lane_leave_sample(lane *l) noexcept nogil:
    l.at += l.sample_bytes
    l.sample_bytes = 0


cdef inline void loose_save(cpu_records *c, uint64_t *counters) noexcept nogil:
    """Leftovers that never came through the ring: the kernel counts them as ring_full, but they were taken before."""
    if c.loose_first <= c.loose_last:
        counters[DT_COUNT_RECORDS_SAVED] += c.loose_last - c.loose_first + 1
        c.loose_first = c.loose_last + 1


cdef inline bint lane_enter_sample(cpu_records *c, int which, uint64_t *counters) noexcept nogil:
    """Find the next sample of this lane, stepping over all else; the data lane counts what belongs to none."""
    cdef lane *l = &c.lanes[which]
    cdef perf_head head
    cdef uint64_t lost[2]
    cdef uint16_t flags
    cdef uint8_t kind
    while l.at < c.ring.head:
        ring_copy(&c.ring, l.at, &head, sizeof(head))
        if head.size < PERF_HEADER or head.size > c.ring.head - l.at:
            if which == DATA_LANE:
                lane_spoil(l, counters)
            l.at = c.ring.head  # the framing of this ring is lost; what comes next is whole again
            return False
        if head.type == PERF_RECORD_SAMPLE:
            if head.raw_bytes >= sizeof(dt_record) and head.raw_bytes + SAMPLE_HEAD <= head.size:
                kind = c.ring.data[(l.at + SAMPLE_HEAD + AT_KIND) & c.ring.mask]
                ring_copy(&c.ring, l.at + SAMPLE_HEAD + AT_FLAGS, &flags, sizeof(flags))
                if lane_of(kind, flags) == which:
                    l.sample_bytes = head.size
                    l.raw_bytes = head.raw_bytes
                    l.inside = 0
                    return True
            elif which == DATA_LANE:
                lane_spoil(l, counters)
        elif which == DATA_LANE:
            if head.type == PERF_RECORD_LOST and head.size >= PERF_HEADER + sizeof(lost):
                ring_copy(&c.ring, l.at + PERF_HEADER, lost, sizeof(lost))
                counters[DT_COUNT_RING_LOST_REPORTED] += lost[1]
            else:
                lane_spoil(l, counters)
        l.at += head.size
    return False


cdef inline bint lane_read_head(lane *l, const uint8_t *p, uint64_t left_bytes) noexcept nogil:
    """Take over what is needed of the record at p; False if its size or kind cannot be. left_bytes: from p on, a header or more."""
    memcpy(&l.next_exit_ns, p + AT_EXIT_NS, 8)
    memcpy(&l.next_count, p + AT_CPU_COUNT, 8)
    memcpy(&l.next_payload, p + AT_PAYLOAD_LEN, 4)
    memcpy(&l.next_flags, p + AT_FLAGS, 2)
    l.next_kind = p[AT_KIND]
    return l.next_payload <= DT_MAX_PAYLOAD and sizeof(dt_record) + l.next_payload <= left_bytes


cdef inline bint lane_peek_ring(cpu_records *c, int which, uint64_t *counters) noexcept nogil:
    cdef lane *l = &c.lanes[which]
    cdef dt_record room
    cdef const uint8_t *p
    while l.sample_bytes or lane_enter_sample(c, which, counters):
        if l.inside + sizeof(dt_record) > l.raw_bytes:
            if l.inside + 8 <= l.raw_bytes:  # more than the padding that perf adds
                lane_spoil(l, counters)
            lane_leave_sample(l)
            continue
        p = ring_at(&c.ring, l.at + SAMPLE_HEAD + l.inside, sizeof(dt_record), <uint8_t *> &room)
        if not lane_read_head(l, p, l.raw_bytes - l.inside):
            lane_spoil(l, counters)
            lane_leave_sample(l)  # where the next record begins is not known
            continue
        if lane_of(l.next_kind, l.next_flags) != which or l.next_kind < DT_KIND_DATA or l.next_kind > DT_KIND_LOG:
            lane_spoil(l, counters)
            l.inside += record_step(l.next_payload)
            continue
        if which == DATA_LANE and c.left.batch != NULL:
            if l.next_count <= l.last_count:  # it was a leftover
                if l.next_count >= c.loose_first:
                    c.loose_first = l.next_count + 1
                l.inside += record_step(l.next_payload)
                continue
            loose_save(c, counters)
        return True
    return False


cdef inline bint lane_peek_leftovers(cpu_records *c, uint64_t *counters) noexcept nogil:
    cdef lane *l = &c.lanes[DATA_LANE]
    if c.left.generation != c.loose_generation:  # read before the ring's head: that batch is in the ring, or never will be
        loose_save(c, counters)
    while c.left.at + sizeof(dt_record) <= c.left.used:
        if not lane_read_head(l, c.left.bytes + c.left.at, c.left.used - c.left.at):
            c.left.at = c.left.used  # it will be counted when it comes through the ring
            return False
        if l.next_count > l.last_count:
            return True
        c.left.at += record_step(l.next_payload)
    return False


cdef inline bint lane_peek(cpu_records *c, int which, uint64_t *counters) noexcept nogil:
    """Whether a record stands there, with what next_* say of it."""
    cdef lane *l = &c.lanes[which]
    l.waits = 0
    l.ready = lane_peek_ring(c, which, counters)
    if not l.ready and which == DATA_LANE and c.left.batch != NULL:
        l.ready = l.waits = lane_peek_leftovers(c, counters)
    return l.ready


cdef inline void lane_step(cpu_records *c, int which) noexcept nogil:
    """Step over the record that stands there."""
    cdef lane *l = &c.lanes[which]
    if l.waits:
        c.left.at += record_step(l.next_payload)
    else:
        l.inside += record_step(l.next_payload)
    if l.next_count > l.last_count:
        l.last_count = l.next_count
    l.ready = 0


cdef inline void lane_take(cpu_records *c, int which, dt_record *record, uint8_t *payload, uint64_t *counters) noexcept nogil:
    """Copy the record that stands there and step over it."""
    cdef lane *l = &c.lanes[which]
    cdef uint64_t at, jump
    if l.waits:
        memcpy(record, c.left.bytes + c.left.at, sizeof(dt_record))
        memcpy(payload, c.left.bytes + c.left.at + sizeof(dt_record), l.next_payload)
        if c.loose_first > c.loose_last:
            c.loose_first = l.next_count
        c.loose_last = l.next_count
        c.loose_generation = c.left.generation
    else:
        at = l.at + SAMPLE_HEAD + l.inside
        ring_copy(&c.ring, at, record, sizeof(dt_record))
        ring_copy(&c.ring, at + sizeof(dt_record), payload, l.next_payload)
    counters[DT_COUNT_RECORDS_DECODED] += 1
    if l.next_count > l.last_count:
        jump = l.next_count - l.last_count - 1
        if l.spoiled and jump > l.spoiled:  # behind a record of a size that cannot be stood others
            counters[DT_COUNT_BAD_RECORD] += jump - l.spoiled
        l.missed += jump
    elif l.missed and l.next_count < l.last_count:
        l.missed -= 1  # an event that was interrupted by another one came after it
    l.spoiled = 0
    lane_step(c, which)


cdef inline void records_refresh(cpu_records *c, uint64_t *counters) noexcept nogil:
    """See what is new on this CPU. The batch before the ring: what is emitted in between is then found in the ring."""
    cdef int which
    if c.left.batch != NULL:
        leftovers_look(&c.left)
    c.ring.head = dt_ring_head(c.ring.page)
    for which in range(LANES):
        if c.lanes[which].waits or not c.lanes[which].ready:
            lane_peek(c, which, counters)


cdef inline uint64_t records_waiting(cpu_records *c) noexcept nogil:
    """Records on this CPU that were not taken, as of the last refresh."""
    cdef cpu_records walker = c[0]
    cdef uint64_t ignored[256]
    cdef uint64_t n = 0
    cdef int which
    ignored[DT_COUNT_BAD_RECORD] = 0
    for which in range(LANES):
        while walker.lanes[which].ready:
            n += 1
            lane_step(&walker, which)
            lane_peek(&walker, which, ignored)
    return n + ignored[DT_COUNT_BAD_RECORD]
