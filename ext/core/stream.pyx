# SPDX-License-Identifier: Apache-2.0
"""Cuts one direction's bytes, in stream order, into messages, and writes a row for each of their events.
Works in place on the batch's arena; copies only an incomplete head, bounded. Never guesses the end of a message."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from deeptrace.core.calls cimport call_of, row_extend
from deeptrace.core.carry cimport carry_append, carry_bytes, carry_consume, carry_drop, hint_front
from deeptrace.core.counters cimport *
from deeptrace.core.limits cimport limit_raise
from deeptrace.core.messages cimport bad_frame, end_turn, message_begin, message_end, row_emit, stream_end_lost
from deeptrace.core.table cimport *
from deeptrace.core.turns cimport await_turn
from dt_message cimport *
from dt_proto cimport *

cdef enum:
    CLEAR_REQUEST = 60  # of 100


cdef bint goes_on(flow_table *t, flow *f, uint8_t direction, dt_buf *b) noexcept nogil:
    """More bytes in IN_UNTIL_TURN: whether they are of the message at hand. Those of a request that is being answered may be the next."""
    cdef stream *s = &f.streams[direction]
    cdef int score
    if s.role != DT_ROLE_REQUEST or f.n_hints or b.at:
        return True
    score = f.protocol.probe(b.data, b.size, DT_ROLE_REQUEST)
    if score == 0:
        return True
    if score < CLEAR_REQUEST and s.in_message:
        bad_frame(t, f, direction)
        return False
    end_turn(t, f, direction, AT_HEAD)
    s.mode = AT_HEAD
    return False


# ---- framing

cdef void after_head(flow_table *t, flow *f, uint8_t direction, uint64_t end_at) noexcept nogil:
    """What comes after the head that s.msg describes and that ends before end_at."""
    cdef stream *s = &f.streams[direction]
    s.lost = 0
    s.left = 0
    s.ends_after_left = 0
    s.mode = AT_HEAD
    if s.msg.flags & DT_MSG_LOST:
        t.beyond |= s.msg.flags & DT_MSG_CUT
        if not s.msg.flags & DT_MSG_CUT or not await_turn(f, direction):
            bad_frame(t, f, direction)
    elif s.msg.body == DT_BODY_SIZE and s.msg.body_size:
        s.mode = IN_SIZE
        s.left = s.msg.body_size
    elif s.msg.body == DT_BODY_FRAMED and f.protocol.body != NULL:
        s.mode = IN_FRAMED
    elif s.msg.body == DT_BODY_EOF:
        s.mode = IN_UNTIL_EOF
    else:
        message_end(t, f, s, end_at)


cdef bint frame_head(flow_table *t, flow *f, uint8_t direction, dt_buf *b, uint64_t base_at, const call *calls,
                     uint32_t n_calls) noexcept nogil:
    """Frame one head at the cursor. False: more bytes are needed; the cursor stays where the unfinished head begins."""
    cdef stream *s = &f.streams[direction]
    cdef uint32_t start = b.at
    cdef uint32_t skipped
    cdef int verdict
    if s.mode == SEARCHING:
        skipped = f.protocol.resync(b.data + b.at, b.size - b.at, s.role)
        b.at += skipped
        t.counters[DT_COUNT_BYTES_RESYNC] += skipped
        if skipped and s.in_message:
            row_extend(s, call_of(calls, n_calls, base_at + b.at - 1))
        if b.at == b.size:
            return False
        start = b.at
    memset(&s.msg, 0, sizeof(dt_msg))
    verdict = f.protocol.frame(b, s.role, hint_front(f) if s.role == DT_ROLE_RESPONSE else 0, &s.msg)
    if verdict == DT_OK and b.at > start:
        if s.in_message:  # one whose end was lost ends where this one begins
            s.row.marks |= DT_MARK_CUT
            message_end(t, f, s, base_at + start)
        message_begin(t, f, s, b.data + start, base_at + start, b.at - start, calls, n_calls)
        after_head(t, f, direction, base_at + b.at)
        return True
    b.at = start
    if verdict == DT_MORE and not buf_final(b):
        return False
    if verdict == DT_MORE:  # the rest of this head was not captured
        t.beyond = 1
        t.counters[DT_COUNT_BYTES_RESYNC] += b.size - start
        b.at = b.size
    else:
        t.counters[DT_COUNT_BYTES_RESYNC] += 1
        b.at += 1
    bad_frame(t, f, direction)
    return True


cdef bint others_follow(const flow *f, const stream *s) noexcept nogil:
    """Whether the end of the message at hand is needed to find the next one: otherwise the other end's turn tells it."""
    return f.overlapped or f.n_hints > (s.role == DT_ROLE_REQUEST)


cdef bint walk_body(flow_table *t, flow *f, uint8_t direction, dt_buf *b, uint64_t base_at, const call *calls,
                    uint32_t n_calls) noexcept nogil:
    """Let the protocol find the end of a framed body. False: more bytes are needed."""
    cdef stream *s = &f.streams[direction]
    cdef uint32_t start = b.at
    cdef int verdict
    s.msg.skip = 0
    verdict = f.protocol.body(b, s.role, &s.msg)
    t.counters[DT_COUNT_BYTES_FRAMED] += b.at - start
    if b.at > start:
        row_extend(s, call_of(calls, n_calls, base_at + b.at - 1))
        if base_at + b.at > t.reach and others_follow(f, s):
            t.beyond = 1
    if verdict == DT_BAD:
        bad_frame(t, f, direction)
        return True
    s.left = s.msg.skip
    s.ends_after_left = verdict == DT_OK
    if verdict == DT_OK and s.left == 0:
        s.mode = AT_HEAD
        message_end(t, f, s, base_at + b.at)
        return True
    if verdict == DT_MORE and s.left == 0:
        if buf_final(b):  # the bytes that would tell were not captured
            start = b.size - b.at
            b.at = b.size
            t.beyond |= others_follow(f, s)
            if start and await_turn(f, direction):
                t.counters[DT_COUNT_BYTES_FRAMED] += start
                row_extend(s, call_of(calls, n_calls, base_at + b.at - 1))
            elif start:
                t.counters[DT_COUNT_BYTES_RESYNC] += start
                bad_frame(t, f, direction)
        return False
    return True


cdef void pass_bytes(flow_table *t, flow *f, stream *s, uint64_t n, uint64_t end_at) noexcept nogil:
    """n bytes of a body, ending before end_at, went by; the row's last_* are set."""
    s.left -= n
    if s.left == 0:
        if s.mode == IN_SIZE or s.ends_after_left:
            s.mode = AT_HEAD
            message_end(t, f, s, end_at)


cdef uint32_t parse(flow_table *t, flow *f, uint8_t direction, dt_buf *b, uint64_t base_at, const call *calls,
                    uint32_t n_calls) noexcept nogil:
    """Cut the run into messages; returns the bytes that are done with. Everything is, when nothing contiguous follows."""
    cdef stream *s = &f.streams[direction]
    cdef uint64_t n
    cdef bint fresh_body = False
    cdef bint sized
    while f.state == KNOWN and (b.at < b.size or fresh_body):
        if s.mode == IN_UNTIL_TURN and not goes_on(t, f, direction, b):
            continue
        if s.mode == IN_UNTIL_EOF or s.mode == IN_UNTIL_TURN or ((s.mode == IN_SIZE or s.mode == IN_FRAMED) and s.left):
            n = b.size - b.at
            sized = s.mode == IN_SIZE or s.mode == IN_FRAMED
            if sized and n > s.left:
                n = s.left
            if n:
                b.at += <uint32_t> n
                t.counters[DT_COUNT_BYTES_FRAMED] += n
                row_extend(s, call_of(calls, n_calls, base_at + b.at - 1))
                if sized:
                    pass_bytes(t, f, s, n, base_at + b.at)
            fresh_body = False
        elif s.mode == IN_FRAMED:
            fresh_body = False
            if not walk_body(t, f, direction, b, base_at, calls, n_calls):
                break
        else:
            if not frame_head(t, f, direction, b, base_at, calls, n_calls):
                break
            fresh_body = s.mode == IN_FRAMED and s.left == 0
    if s.in_message and s.row.event & DT_EVENT_BEGIN:
        s.row.size = base_at + b.at - s.row.position
        row_emit(t, s)
        s.row.event = 0
        s.row.blob_size = 0
    return b.at


cdef void pass_hole(flow_table *t, flow *f, uint8_t direction, uint64_t hole, const call *now, bint gap) noexcept nogil:
    """`hole` bytes that nobody has follow next_at. Harmless inside a body whose extent is known."""
    cdef stream *s = &f.streams[direction]
    cdef uint64_t n = hole
    if s.in_message:
        s.row.marks |= DT_MARK_GAP if gap else DT_MARK_CUT
        row_extend(s, now)
    if s.mode == IN_UNTIL_EOF or s.mode == SEARCHING or (s.mode == IN_UNTIL_TURN and not gap):
        return
    if s.left:
        if n > s.left:
            n = s.left
        pass_bytes(t, f, s, n, s.next_at + n)
        hole -= n
    if hole and f.state == KNOWN and not await_turn(f, direction):  # something may begin in it that nobody saw
        t.beyond = 1
        bad_frame(t, f, direction)


cdef void stream_take(flow_table *t, flow *f, uint8_t direction, const uint8_t *p, uint32_t captured, uint64_t hole,
                      call *now, bint gap) noexcept nogil:
    """The next bytes of a direction: `captured` at p, then `hole` that are missing. gap: they were never counted as come in."""
    cdef stream *s = &f.streams[direction]
    cdef dt_buf b
    cdef uint64_t call_bytes = captured + hole
    cdef uint32_t done
    now.at = s.next_at
    t.reach = now.at + t.payload_bytes
    t.beyond = 0
    s.in_gap = gap
    b.at = 0
    b.missing = hole
    b.eof = 0
    if not gap:
        t.counters[DT_COUNT_BYTES_NOT_CAPTURED] += hole
    if f.state == KNOWN and s.carry != NULL:
        if not carry_append(t, s, p, captured, now):
            carry_drop(t, s, DT_COUNT_BYTES_ABANDONED)
            t.counters[DT_COUNT_BYTES_ABANDONED] += captured
            bad_frame(t, f, direction)
            s.next_at += captured + hole
            return
        s.next_at += captured
        b.data = carry_bytes(s.carry)
        b.size = s.carry.size
        done = parse(t, f, direction, &b, s.next_at - b.size, s.carry.calls, s.carry.n_calls)
        carry_consume(t, s, done)
    else:
        b.data = p
        b.size = captured
        done = 0
        if f.state == KNOWN:
            done = parse(t, f, direction, &b, s.next_at, now, 1)
        s.next_at += captured
        if done < captured and f.state == KNOWN:
            now.at += done
            if not carry_append(t, s, p + done, captured - done, now):
                t.counters[DT_COUNT_BYTES_ABANDONED] += captured - done
                bad_frame(t, f, direction)
        elif done < captured:
            t.counters[DT_COUNT_BYTES_UPGRADED if f.state == UPGRADED else DT_COUNT_BYTES_UNKNOWN] += captured - done
    if f.state != KNOWN:
        carry_drop(t, s, DT_COUNT_BYTES_UPGRADED if f.state == UPGRADED else DT_COUNT_BYTES_UNKNOWN)
        carry_drop(t, &f.streams[1 - direction], DT_COUNT_BYTES_UPGRADED if f.state == UPGRADED else DT_COUNT_BYTES_UNKNOWN)
    elif hole:
        carry_drop(t, s, DT_COUNT_BYTES_RESYNC)  # nothing is left there but after a body that wanted more
        pass_hole(t, f, direction, hole, now, gap)
    s.next_at += hole
    if t.beyond and not gap:
        limit_raise(t, f, call_bytes, now.exit_ns)


cdef void stream_finish(flow_table *t, flow *f, uint8_t direction, bint orderly) noexcept nogil:
    """The direction has ended: say what can still be said, and give up what is carried. orderly: its end is the stream's."""
    cdef stream *s = &f.streams[direction]
    cdef dt_buf b
    if f.state == KNOWN:
        if s.carry != NULL:
            b.data = carry_bytes(s.carry)
            b.size = s.carry.size
            b.at = 0
            b.missing = 0
            b.eof = 1
            carry_consume(t, s, parse(t, f, direction, &b, s.next_at - b.size, s.carry.calls, s.carry.n_calls))
        if orderly and s.in_message and s.mode == IN_UNTIL_EOF:
            s.mode = AT_HEAD
            message_end(t, f, s, s.next_at)
        stream_end_lost(t, f, direction)
    carry_drop(t, s, DT_COUNT_BYTES_ABANDONED)
