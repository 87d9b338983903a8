# SPDX-License-Identifier: Apache-2.0
"""Decides from the first bytes of both directions which protocol a flow speaks and which direction asks.
Sticky once decided; bounded tries; undecided bytes are carried, so that nothing is lost by waiting. Gives up rather than guess."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from deeptrace.core.carry cimport carry_append, carry_bytes, carry_drop
from deeptrace.core.counters cimport *
from deeptrace.core.messages cimport stream_lose
from deeptrace.core.stream cimport stream_take
from deeptrace.core.table cimport *
from dt_message cimport *
from dt_proto cimport *
from dt_wire cimport DT_EGRESS, DT_INGRESS

cdef enum:
    THRESHOLD = 60  # of 100: probes below it are "could be"
    MARGIN = 10  # over the next best hypothesis, or wait for more evidence
    MAX_TRIES = 32  # records looked at; a protocol that is not recognised by then is not one of ours
    MIN_BYTES = 16  # below it, a prefix that no probe likes may still become a message
    ROLE_BONUS = 10  # the end that connected usually asks; breaks ties only
    PORT_BONUS = 4
    BOTH_BONUS = 10  # both directions agree
    JOINED_PENALTY = 30  # joined under way: one direction may be inside a body, the other must be beyond doubt

cdef struct view:
    const uint8_t *p
    uint32_t size

cdef struct verdict:
    const dt_protocol *protocol
    int request_direction
    int score  # 0..100, before bonuses
    int total
    int next_best  # total of the best hypothesis that contradicts it


cdef bint port_matches(const flow_table *t, uint32_t i, const flow *f, int request_direction) noexcept nogil:
    cdef uint16_t port = f.tuple.peer_port if request_direction == DT_EGRESS else f.tuple.local_port
    cdef int k
    for k in range(8):
        if t.ports[i][k] and t.ports[i][k] == port:
            return True
    return False


cdef int score_of(const flow *f, const dt_protocol *protocol, const view *request, const view *response) noexcept nogil:
    cdef int asked = protocol.probe(request.p, request.size, DT_ROLE_REQUEST) if request.size else -1
    cdef int answered = protocol.probe(response.p, response.size, DT_ROLE_RESPONSE) if response.size else -1
    if asked < 0 or answered < 0:
        return asked if answered < 0 else answered
    if asked > 0 and answered > 0:
        return (asked + answered) // 2 + BOTH_BONUS
    if f.mid_stream:
        return (asked if asked > answered else answered) - JOINED_PENALTY
    return 0


cdef verdict weigh(const flow_table *t, const flow *f, const view *views) noexcept nogil:
    cdef verdict best
    cdef uint32_t i
    cdef int d, score, total
    best.protocol = NULL
    best.request_direction = best.score = best.total = 0
    best.next_best = 0
    for i in range(t.n_protocols):
        for d in range(2):
            score = score_of(f, t.protocols[i], &views[d], &views[1 - d])
            if score <= 0:
                continue
            total = score
            if port_matches(t, i, f, d):
                total += PORT_BONUS
            if f.role != ROLE_UNSEEN:
                total += ROLE_BONUS if (d == DT_EGRESS) == (f.role == ROLE_CLIENT) else -ROLE_BONUS
            if total > best.total:
                best.next_best = best.total
                best.protocol = t.protocols[i]
                best.request_direction = d
                best.score = score
                best.total = total
            elif total > best.next_best:
                best.next_best = total
    return best


cdef void pass_over(flow_table *t, flow *f, uint8_t direction, uint32_t n) noexcept nogil:
    """Bytes that no protocol claims: the carried ones of a direction and n more."""
    carry_drop(t, &f.streams[direction], DT_COUNT_BYTES_UNKNOWN)
    t.counters[DT_COUNT_BYTES_UNKNOWN] += n
    f.streams[direction].dropped = 1


cdef void infer_give_up(flow_table *t, flow *f) noexcept nogil:
    f.state = UNKNOWN
    t.counters[DT_COUNT_FLOWS_UNKNOWN] += 1
    carry_drop(t, &f.streams[0], DT_COUNT_BYTES_UNKNOWN)
    carry_drop(t, &f.streams[1], DT_COUNT_BYTES_UNKNOWN)


cdef void settle(flow_table *t, flow *f, const verdict *v, const view *views) noexcept nogil:
    """Make the decision; what was passed over, or joined under way, must first be quiet to be paired."""
    cdef uint8_t asking = <uint8_t> v.request_direction
    cdef uint8_t d
    f.state = KNOWN
    f.protocol = v.protocol
    f.request_direction = asking
    f.streams[asking].role = DT_ROLE_REQUEST
    f.streams[1 - asking].role = DT_ROLE_RESPONSE
    if f.streams[0].dropped or f.streams[1].dropped:
        f.out_of_sync = 1
    if not f.out_of_sync:
        return
    for d in range(2):
        if d != asking or f.streams[d].dropped:
            stream_lose(t, f, d)
            if views[d].size or not f.streams[d].dropped:
                f.streams[d].mode = AT_HEAD


cdef void infer_take(flow_table *t, flow *f, uint8_t direction, const uint8_t *p, uint32_t captured, uint64_t hole,
                     call *now, bint gap) noexcept nogil:
    """The next bytes of a direction of a flow that is not known yet; arguments as of stream_take."""
    cdef stream *s = &f.streams[direction]
    cdef uint8_t other = 1 - direction
    cdef view views[2]
    cdef verdict v
    cdef bint copied = s.carry != NULL
    cdef uint32_t size
    now.at = s.next_at
    f.tries += 1
    if copied and not carry_append(t, s, p, captured, now):
        pass_over(t, f, direction, 0)
        copied = False
    views[direction].p = <const uint8_t *> carry_bytes(s.carry) if copied else p
    views[direction].size = s.carry.size if copied else captured
    views[other].p = NULL
    views[other].size = 0
    if f.streams[other].carry != NULL:
        views[other].p = carry_bytes(f.streams[other].carry)
        views[other].size = f.streams[other].carry.size
    v = weigh(t, f, views)
    if v.total == 0 and copied and views[direction].size >= MIN_BYTES:  # perhaps a message begins with this call
        size = s.carry.size - captured
        t.counters[DT_COUNT_BYTES_UNKNOWN] += size
        t.carried_bytes -= s.carry.size
        s.carry.size = 0
        carry_drop(t, s, DT_COUNT_BYTES_UNKNOWN)
        s.dropped = 1
        copied = False
        views[direction].p = p
        views[direction].size = captured
        v = weigh(t, f, views)
    if v.score >= THRESHOLD and v.total - v.next_best >= MARGIN:
        settle(t, f, &v, views)
        if copied:
            s.next_at += captured
            captured = 0
        if other == f.request_direction and f.streams[other].carry != NULL:
            stream_take(t, f, other, NULL, 0, 0, now, False)
        stream_take(t, f, direction, p, captured, hole, now, gap)
        if other != f.request_direction and f.streams[other].carry != NULL:
            stream_take(t, f, other, NULL, 0, 0, now, False)
        return
    if not gap:
        t.counters[DT_COUNT_BYTES_NOT_CAPTURED] += hole
    if hole or (v.total == 0 and views[direction].size >= MIN_BYTES):
        pass_over(t, f, direction, 0 if copied else captured)
    elif not copied and captured and not carry_append(t, s, p, captured, now):
        pass_over(t, f, direction, captured)
    s.next_at += captured + hole
    if f.tries >= MAX_TRIES:
        infer_give_up(t, f)
