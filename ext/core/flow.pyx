# SPDX-License-Identifier: Apache-2.0
"""Turns records into flows and follows the life of connections and processes. Bytes go through order, then stream."""

from libc.errno cimport ECONNABORTED, ECONNRESET, EPIPE, ETIMEDOUT
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from deeptrace.core.carry cimport hints_clear
from deeptrace.core.counters cimport *
from deeptrace.core.limits cimport limit_mute, limit_reset, limits_sweep
from deeptrace.core.messages cimport stream_end_lost, stream_restart
from deeptrace.core.order cimport expire_hold, force_hold, sequence
from deeptrace.core.stream cimport stream_finish
from deeptrace.core.table cimport *
from dt_message cimport *
from dt_wire cimport *

cdef uint64_t FIN_QUIET_NS = 200_000_000  # after the peer's FIN: bytes still in the socket are read within it


# ---- rows of the flow itself

cdef void emit_event(flow_table *t, flow *f, uint8_t event, uint8_t cause, uint64_t at_ns) noexcept nogil:
    cdef dt_message *row = row_add(t)
    if row != NULL:
        row.event = event
        row.flow = f.slot
        row.cause = cause
        row.last_exit_ns = at_ns


# ---- the life of a flow

cdef void flow_end(flow_table *t, flow *f, uint8_t cause, uint64_t at_ns) noexcept nogil:
    """The flow is over: hand on what is held, say what can be said of what is carried, and forget it."""
    cdef uint8_t d
    for d in range(2):
        while f.streams[d].held != NULL:
            force_hold(t, f, d)
        stream_finish(t, f, d, cause == DT_CAUSE_CLOSED)
    emit_event(t, f, DT_EVENT_CLOSE, cause, at_ns)
    if f.closing:
        unlink_closing(t, f)
    flow_remove(t, f)


cdef void unlink_closing(flow_table *t, flow *f) noexcept nogil:
    cdef uint32_t i = t.closing_first
    cdef uint32_t before = NO_FLOW
    while i != f.slot:
        before = i
        i = flow_at(t, i).closing_next
    if before == NO_FLOW:
        t.closing_first = f.closing_next
    else:
        flow_at(t, before).closing_next = f.closing_next
    if t.closing_last == f.slot:
        t.closing_last = before


cdef void evict_oldest(flow_table *t) noexcept nogil:
    cdef flow *f = flow_at(t, t.lru_first)
    t.counters[DT_COUNT_FLOWS_EVICTED] += 1
    if f.capture == CAPTURE_RAISED:
        limit_reset(t, f)
    flow_end(t, f, DT_CAUSE_NONE, f.last_ns)


cdef flow *open_flow(flow_table *t, const dt_record *r, uint64_t hash) noexcept nogil:
    cdef flow *f
    if t.n_flows >= t.max_flows:
        evict_oldest(t)
        t.drain(t.drain_context)  # so that its slot is free
    f = flow_add(t, hash, r.socket, &r.tuple, r.netns, r.exit_ns)
    if f == NULL:
        t.out_of_memory = 1
        return NULL
    t.counters[DT_COUNT_FLOWS_OPENED] += 1
    return f


cdef bint has_other_peer(const flow *f, const dt_record *r) noexcept nogil:
    """Of a unix socket, whose key is the socket alone: whether this is another connection. Without a peer it cannot be told."""
    cdef uint64_t nobody = 0
    if not is_unix(&r.tuple):
        return False
    if r.kind == DT_KIND_CONN and (f.streams[0].started or f.streams[1].started) and f.last_ns < r.exit_ns:
        return True  # it begins, and bytes have been moved before
    return memcmp(f.tuple.peer_addr, r.tuple.peer_addr, 8) and memcmp(r.tuple.peer_addr, &nobody, 8)


cdef bint is_another(const flow *f, const dt_record *r, uint8_t d) noexcept nogil:
    """Whether the record is of another connection on the same socket address, whose predecessor's end was not seen."""
    if f.streams[d].started == 1 and r.flags & DT_RECORD_FIRST:
        if r.flags & DT_RECORD_FRESH:
            return True
        if r.flags & DT_RECORD_COUNTED and r.seq_exit == <uint32_t> r.result:
            return True  # or the same, but the probes had forgotten it and count from 0 again
    return has_other_peer(f, r)


cdef void supersede(flow_table *t, flow *f) noexcept nogil:
    """The socket's address is another connection's now. For unix sockets that is how an end is seen."""
    cdef uint8_t cause = DT_CAUSE_CLOSED if is_unix(&f.tuple) else DT_CAUSE_NONE
    if is_unix(&f.tuple):
        limit_reset(t, f)  # a wish may have come too late, and then holds for the new connection: it has no ports to tell them apart
    flow_end(t, f, f.cause if f.closing else cause, f.closing_ns if f.closing else f.last_ns)


cdef void take_data(flow_table *t, const dt_record *r, const uint8_t *p) noexcept nogil:
    cdef uint64_t key_ns = r.enter_ns if r.direction == DT_EGRESS else r.exit_ns
    cdef uint64_t hash
    cdef flow *f
    cdef call now
    cdef uint8_t d = r.direction
    if r.result <= 0 or d > 1:
        return
    t.counters[DT_COUNT_BYTES_IN] += <uint32_t> r.result
    if not is_stream(&r.tuple):  # no flow is made: a server of names has more peers than the table has room
        t.counters[DT_COUNT_BYTES_DATAGRAM] += <uint32_t> r.result
        return
    if r.flags & DT_RECORD_PEEK:
        t.counters[DT_COUNT_BYTES_DUPLICATE] += <uint32_t> r.result
        return
    hash = flow_hash(r.socket, &r.tuple, r.netns)
    f = flow_find(t, hash, r.socket, &r.tuple)
    if f != NULL and is_another(f, r, d):
        supersede(t, f)
        f = NULL
    if f == NULL:
        f = open_flow(t, r, hash)
        if f == NULL:
            t.counters[DT_COUNT_BYTES_ABANDONED] += <uint32_t> r.result
            return
        f.mid_stream = not r.flags & DT_RECORD_FRESH
        # Quiet since before the capture began: then no request can be under way that was not seen.
        f.out_of_sync = f.mid_stream and key_ns < t.capture_start_ns + t.quiet_ns
    now.enter_ns = r.enter_ns
    now.exit_ns = r.exit_ns
    now.tid = r.tid
    now.tgid = r.tgid
    now.marks = DT_MARK_AMBIGUOUS if r.flags & (DT_RECORD_SEQ_AMBIGUOUS | DT_RECORD_ENTER_MISSED) else 0
    if not r.flags & (DT_RECORD_SEQ_VALID | DT_RECORD_COUNTED):
        now.marks |= DT_MARK_NO_SEQ
    flow_touch(t, f)
    if f.tgid != r.tgid and r.tgid:
        flow_own(t, f, r.tgid)
    before_bytes(t, f, d, key_ns)
    sequence(t, f, r, p, &now)
    f.last_direction = d
    if r.exit_ns > f.last_ns:
        f.last_ns = r.exit_ns
    if f.state == UNKNOWN or f.state == UPGRADED:
        limit_mute(t, f, r.exit_ns)


cdef void before_bytes(flow_table *t, flow *f, uint8_t d, uint64_t key_ns) noexcept nogil:
    """What time and the other direction say about a flow before new bytes of direction d come in."""
    cdef stream *answers
    if f.streams[0].held != NULL:
        expire_hold(t, f, 0, key_ns)
    if f.streams[1].held != NULL:
        expire_hold(t, f, 1, key_ns)
    if f.state != KNOWN:
        return
    if f.out_of_sync:
        stream_end_lost(t, f, 1 - d)
    answers = &f.streams[1 - f.request_direction]
    if f.last_direction == f.request_direction or key_ns < f.last_ns + t.quiet_ns:
        return
    if (answers.in_message and answers.mode != SEARCHING and answers.mode != IN_UNTIL_TURN) or (
        f.streams[f.request_direction].in_message and f.streams[f.request_direction].mode != IN_UNTIL_TURN
    ):
        return  # a long answer that pauses, or a request that is not all there
    f.quiet = 1
    if f.out_of_sync:
        stream_restart(t, f, 0)
        stream_restart(t, f, 1)
        hints_clear(f)
        f.out_of_sync = 0
        if f.on_trial:
            f.on_trial = f.turns = 0


cdef void take_conn(flow_table *t, const dt_record *r) noexcept nogil:
    cdef uint64_t hash
    cdef flow *f
    if not is_stream(&r.tuple):
        return
    hash = flow_hash(r.socket, &r.tuple, r.netns)
    f = flow_find(t, hash, r.socket, &r.tuple)
    if r.code == DT_CONN_CONNECT or r.code == DT_CONN_ACCEPT:
        if f != NULL and (f.closing or f.role != ROLE_UNSEEN or has_other_peer(f, r)):
            supersede(t, f)
            f = NULL
        if f == NULL:
            f = open_flow(t, r, hash)
            if f == NULL:
                return
        flow_own(t, f, r.tgid)
        if r.code == DT_CONN_CONNECT:
            f.role = ROLE_CLIENT
            f.connect_ns = r.enter_ns
            f.connect_tid = r.tid
        else:
            f.role = ROLE_SERVER
    elif f == NULL:
        return
    elif r.code == DT_CONN_PEER_CLOSED:
        f.fin_seen = 1
        due_add(t, f)
    elif r.code == DT_CONN_CLOSED and not f.closing:
        f.closing = 1
        f.closing_ns = r.exit_ns
        f.cause = DT_CAUSE_CLOSED
        if r.result == -ECONNRESET or r.result == -EPIPE or r.result == -ECONNABORTED or r.result == -ETIMEDOUT:
            f.cause = DT_CAUSE_RESET
        f.closing_next = NO_FLOW
        if t.closing_last != NO_FLOW:
            flow_at(t, t.closing_last).closing_next = f.slot
        else:
            t.closing_first = f.slot
        t.closing_last = f.slot


cdef void take_exit(flow_table *t, const dt_record *r) noexcept nogil:
    """A process ended: so did the requests on the sockets that only it used."""
    cdef uint32_t i
    cdef flow *f
    if r.code != DT_PROC_EXIT or not owned_flows(t, r.tgid):
        return
    for i in range(t.n_slots):
        f = flow_at(t, i)
        if f.in_use and f.tgid == r.tgid and not f.closing:  # a closing one ends by itself, by its own cause
            emit_event(t, f, DT_EVENT_EXIT, DT_CAUSE_EXITED, r.exit_ns)


cdef void end_closing(flow_table *t, uint64_t now_ns) noexcept nogil:
    cdef flow *f
    while t.closing_first != NO_FLOW:
        f = flow_at(t, t.closing_first)
        if f.closing_ns + t.linger_ns > now_ns:
            return
        flow_end(t, f, f.cause, f.closing_ns)


cdef void flow_record(flow_table *t, const dt_record *r, const uint8_t *payload) noexcept nogil:
    """One record, in key order."""
    if t.capture_start_ns == 0:
        t.capture_start_ns = r.enter_ns
    if t.closing_first != NO_FLOW:
        end_closing(t, r.exit_ns)
    if r.kind == DT_KIND_DATA:
        take_data(t, r, payload)
    elif r.kind == DT_KIND_CONN:
        take_conn(t, r)
    elif r.kind == DT_KIND_PROC:
        take_exit(t, r)


cdef void flows_flush(flow_table *t, uint64_t now_ns) noexcept nogil:
    """Do what is due at now_ns: holds, lingering ends, ends of stream, idle flows."""
    cdef uint32_t i = t.due_first
    cdef uint32_t following
    cdef flow *f
    cdef stream *s
    end_closing(t, now_ns)
    while i != NO_FLOW:
        f = flow_at(t, i)
        following = f.due_next
        expire_hold(t, f, 0, now_ns)
        expire_hold(t, f, 1, now_ns)
        s = &f.streams[DT_INGRESS]
        if f.fin_seen and now_ns >= f.last_ns + FIN_QUIET_NS:
            if s.in_message and (s.mode == IN_UNTIL_EOF or s.mode == IN_UNTIL_TURN) and s.held == NULL:
                stream_finish(t, f, DT_INGRESS, True)
            f.fin_seen = 0
        if not f.fin_seen and f.streams[0].held == NULL and f.streams[1].held == NULL:
            due_remove(t, f)
        i = following
    while t.lru_first != NO_FLOW and flow_at(t, t.lru_first).last_ns + t.idle_ns <= now_ns:
        evict_oldest(t)
    limits_sweep(t, now_ns)


cdef void flows_finish(flow_table *t) noexcept nogil:
    """End of the recording: all flows end, without a known cause unless they were closing."""
    cdef flow *f
    while t.lru_first != NO_FLOW:
        f = flow_at(t, t.lru_first)
        flow_end(t, f, f.cause, f.closing_ns if f.closing else f.last_ns)
