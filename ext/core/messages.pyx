# SPDX-License-Identifier: Apache-2.0
"""Begins, ends and loses the messages of a direction, and writes a row for each of these events. Looks at no bytes."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from deeptrace.core.calls cimport call_of, row_start
from deeptrace.core.carry cimport carry_drop, hint_pop, hint_push
from deeptrace.core.counters cimport *
from deeptrace.core.table cimport *
from deeptrace.core.turns cimport take_turn, turn_broken
from dt_message cimport *
from dt_proto cimport *

cdef enum:
    MAX_ERRORS = 8  # places in a row that do not parse, before any that does, until a flow is given up as misread


# ---- rows

cdef void row_emit(flow_table *t, stream *s) noexcept nogil:
    cdef dt_message *row
    if s.row.type == DT_MSG_REQUEST or s.row.type == DT_MSG_RESPONSE:
        row = row_add(t)
        if row != NULL:
            row[0] = s.row


cdef bint is_half(const stream *s) noexcept nogil:
    """Whether a message of known extent has begun and not ended."""
    return s.in_message and s.mode != SEARCHING and s.mode != IN_UNTIL_TURN


cdef void message_begin(flow_table *t, flow *f, stream *s, const uint8_t *head, uint64_t at, uint32_t size,
                        const call *calls, uint32_t n_calls) noexcept nogil:
    """The head at logical position `at` was framed into s.msg: describe it; its row goes out at its end or with its run."""
    cdef dt_message *row = &s.row
    cdef const call *first = call_of(calls, n_calls, at)
    cdef const call *last = call_of(calls, n_calls, at + size - 1)
    cdef dt_attrs attrs
    if at + size > t.reach:
        t.beyond = 1
    row_start(row, at, size, first, last)
    row.id = s.msg.id
    row.flow = f.slot
    row.event = DT_EVENT_BEGIN
    row.type = s.msg.type
    row.flags = s.msg.flags
    row.marks |= DT_MARK_CUT if s.msg.flags & DT_MSG_CUT else 0
    row.direction = f.request_direction if s.role == DT_ROLE_REQUEST else 1 - f.request_direction
    row.protocol = f.protocol.id
    s.in_message = 1
    f.n_messages += 1
    f.errors = 0
    t.counters[DT_COUNT_BYTES_FRAMED] += size
    if row.type == DT_MSG_REQUEST:
        t.counters[DT_COUNT_REQUESTS] += 1
        end_turn(t, f, 1 - f.request_direction, AT_HEAD)
        if f.last_type == DT_MSG_RESPONSE:
            take_turn(f)
        f.burst += 1
        hint_push(t, f, s.msg.hint)
    elif row.type == DT_MSG_RESPONSE:
        t.counters[DT_COUNT_RESPONSES] += 1
        f.split = is_half(&f.streams[f.request_direction])
        if f.n_hints == 0:
            turn_broken(f)
        hint_pop(f)
    else:
        t.counters[DT_COUNT_ONE_WAY] += 1
        return
    f.last_type = row.type
    if f.quiet:
        f.quiet = 0
        row.event |= DT_EVENT_SYNC
    attrs.data = blob_room(t, DT_ATTRS_MAX_BYTES)
    if attrs.data != NULL:
        attrs.size = attrs.open = attrs.end = 0
        attrs.capacity = DT_ATTRS_MAX_BYTES
        f.protocol.attributes(head, &s.msg, s.role, &attrs)
        row.blob_at = t.blob_size
        row.blob_size = attrs.size
        t.blob_size += attrs.size


cdef void message_end(flow_table *t, flow *f, stream *s, uint64_t end_at) noexcept nogil:
    """The message at hand ends before logical position end_at; the row's last_* are of the call that moved its last byte."""
    s.row.size = end_at - s.row.position
    s.row.event |= DT_EVENT_END
    if s.row.marks & DT_MARK_CUT:
        t.counters[DT_COUNT_CUT_MESSAGE] += 1
    row_emit(t, s)
    s.in_message = 0
    s.row.event = 0
    if s.msg.type == DT_MSG_RESPONSE and f.n_hints == 0:
        end_turn(t, f, f.request_direction, IN_UNTIL_TURN)  # the rest of an upload may follow its answer
    if s.msg.flags & DT_MSG_UPGRADE:
        f.state = UPGRADED


cdef void end_turn(flow_table *t, flow *f, uint8_t direction, uint8_t mode) noexcept nogil:
    """It is the other end's turn: what went on until then in this direction is over."""
    cdef stream *s = &f.streams[direction]
    if s.in_message and s.mode == IN_UNTIL_TURN:
        s.mode = mode
        message_end(t, f, s, s.next_at)


# ---- losing and finding the frame

cdef void stream_lose(flow_table *t, flow *f, uint8_t direction) noexcept nogil:
    """Framing is lost in this direction: look for the next message, and say that what follows cannot be paired."""
    cdef stream *s = &f.streams[direction]
    cdef dt_message *row
    s.mode = SEARCHING
    if s.lost:
        return
    s.lost = 1
    f.out_of_sync = 1
    f.hints_broken = 1
    if s.in_message and s.row.event & DT_EVENT_BEGIN:
        row_emit(t, s)
        s.row.event = 0
        s.row.blob_size = 0
    row = row_add(t)
    if row != NULL:
        row.event = DT_EVENT_GAP
        row.flow = f.slot
        row.direction = direction
        row.type = DT_MSG_REQUEST if s.role == DT_ROLE_REQUEST else DT_MSG_RESPONSE
        row.last_exit_ns = f.last_ns


cdef void bad_frame(flow_table *t, flow *f, uint8_t direction) noexcept nogil:
    """Bytes did not parse. Joining a connection under way is no loss; a flow that never parses was misread."""
    if not f.streams[direction].lost and not (f.mid_stream and f.n_messages == 0):
        t.counters[DT_COUNT_BAD_FRAME] += 1
    if f.n_messages == 0:
        f.errors += 1
    stream_lose(t, f, direction)
    if f.errors >= MAX_ERRORS:
        t.counters[DT_COUNT_FLOWS_UNKNOWN] += 1
        f.state = UNKNOWN


cdef void stream_end_lost(flow_table *t, flow *f, uint8_t direction) noexcept nogil:
    """A message whose end could not be found ends with the last byte that was seen of it."""
    cdef stream *s = &f.streams[direction]
    if s.in_message and (s.mode == SEARCHING or s.mode == IN_UNTIL_TURN):
        if s.mode == IN_UNTIL_TURN:
            s.mode = AT_HEAD
        s.row.marks |= DT_MARK_CUT
        message_end(t, f, s, s.next_at)


cdef void stream_restart(flow_table *t, flow *f, uint8_t direction) noexcept nogil:
    """The connection is quiet: the next byte of this direction begins a message."""
    cdef stream *s = &f.streams[direction]
    stream_end_lost(t, f, direction)
    carry_drop(t, s, DT_COUNT_BYTES_RESYNC)
    s.mode = AT_HEAD
    s.in_message = s.lost = 0
    s.left = 0
