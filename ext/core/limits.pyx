# SPDX-License-Identifier: Apache-2.0
"""Decides how much the probes are to capture of each connection, and keeps these wishes for the agent to write. Bounded; a wish
that finds no room is made again later. Right without any answer: nobody waits for a wish to come true.

Muted: a connection whose protocol was given up, or left. Raised: one whose messages begin or end behind the default limit, so that
a cut loses whole messages (pipelining, long heads). A connection joined under way may have been inside a body when it was judged,
so it is heard again after a while; one that was seen from its first byte is not.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from deeptrace.core.counters cimport *
from deeptrace.core.table cimport *
from dt_wire cimport DT_LIMIT_DEFAULT, DT_LIMIT_MUTE

cdef enum:
    FIRST_STEP = 4096  # bytes: holds the pipelines of 16 small commands, and all but rare heads; the next step is the most allowed
    MAX_DOUBLINGS = 6  # of the time until a muted connection is heard again: an hour in the end

cdef uint64_t KEEP_RAISED_NS = 60_000_000_000  # without a message that needs it; a connection that needs it now and then keeps it
cdef uint64_t HEAR_AGAIN_NS = 60_000_000_000  # costs MAX_TRIES records each time, so at first about one every two seconds
cdef uint64_t REPEAT_NS = 5_000_000_000  # a muted connection that still sends records was not muted: the wish was lost
cdef uint64_t SWEEP_NS = 1_000_000_000


cdef bint wish(flow_table *t, flow *f, uint32_t limit) noexcept nogil:
    """False: no room."""
    cdef limit_wish *w
    if t.n_wishes == MAX_WISHES:
        return False
    w = &t.wishes[t.n_wishes]
    t.n_wishes += 1
    w.socket = f.socket
    w.limit = limit
    w.local_port = f.tuple.local_port
    w.peer_port = f.tuple.peer_port
    return True


cdef void limit_mute(flow_table *t, flow *f, uint64_t now_ns) noexcept nogil:
    """Nothing more can be learned from this flow. Cheap to call for each of its records."""
    if t.payload_bytes == 0 or (f.capture == CAPTURE_MUTED and now_ns < f.limit_ns + REPEAT_NS):
        return
    if not wish(t, f, DT_LIMIT_MUTE):
        return
    f.limit_ns = now_ns
    if f.capture == CAPTURE_MUTED:
        return
    flow_captured(t, f, CAPTURE_MUTED)
    t.counters[DT_COUNT_FLOWS_MUTED] += 1
    if f.n_muted <= MAX_DOUBLINGS:
        f.n_muted += 1


cdef void limit_raise(flow_table *t, flow *f, uint64_t call_bytes, uint64_t now_ns) noexcept nogil:
    """Framing needs bytes of a call of call_bytes that are captured by luck (a connection's head) or not at all."""
    cdef uint32_t limit = FIRST_STEP
    if t.payload_bytes == 0 or call_bytes > t.payload_max_bytes or f.state != KNOWN:
        return  # of a longer call the end is missing whatever is asked for
    if call_bytes > FIRST_STEP or limit > t.payload_max_bytes:
        limit = t.payload_max_bytes
    if f.capture == CAPTURE_RAISED:
        f.limit_ns = now_ns
        if f.limit >= limit:
            return
    elif t.n_raised >= t.max_raised:
        t.counters[DT_COUNT_LIMITS_REFUSED] += not f.refused
        f.refused = 1
        return
    if not wish(t, f, limit):
        return
    if f.capture != CAPTURE_RAISED:
        flow_captured(t, f, CAPTURE_RAISED)
        t.counters[DT_COUNT_LIMITS_RAISED] += 1
    f.limit = limit
    f.limit_ns = now_ns


cdef void limit_reset(flow_table *t, flow *f) noexcept nogil:
    """Back to the default, if it is not that."""
    if f.capture != CAPTURE_DEFAULT and wish(t, f, DT_LIMIT_DEFAULT):
        flow_captured(t, f, CAPTURE_DEFAULT)


cdef void hear_again(flow_table *t, flow *f) noexcept nogil:
    """Take a muted flow for one that is joined under way now."""
    cdef int d
    limit_reset(t, f)
    if f.capture != CAPTURE_DEFAULT:
        return
    f.state = INFERRING
    f.protocol = NULL
    f.tries = f.errors = 0
    f.request_direction = f.last_direction = UNKNOWN_DIRECTION
    f.out_of_sync = 1
    f.quiet = f.turns = f.on_trial = 0
    for d in range(2):  # nothing is carried in a flow that is not known
        memset(&f.streams[d], 0, sizeof(stream))


cdef void limits_sweep(flow_table *t, uint64_t now_ns) noexcept nogil:
    """Once a second: lower what is not needed any more, hear again what was muted long ago."""
    cdef uint32_t i
    cdef flow *f
    if now_ns < t.swept_ns + SWEEP_NS or t.n_raised + t.n_muted == 0:
        return
    t.swept_ns = now_ns
    for i in range(t.n_slots):
        f = flow_at(t, i)
        if not f.in_use or f.capture == CAPTURE_DEFAULT:
            continue
        if f.capture == CAPTURE_RAISED:
            if now_ns >= f.limit_ns + KEEP_RAISED_NS:
                limit_reset(t, f)
        elif f.state == UNKNOWN and f.mid_stream and not f.closing and f.streams[0].held == NULL and f.streams[1].held == NULL:
            if now_ns >= f.limit_ns + (HEAR_AGAIN_NS << (f.n_muted - 1)):
                hear_again(t, f)
