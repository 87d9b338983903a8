# SPDX-License-Identifier: Apache-2.0
"""What it says about a flow that its ends take turns: which messages are over, and which are answered. Changes no stream but its mode.

A client that sends only when all its requests are answered makes two things certain that bytes alone do not tell: a message whose
end was not captured ends where the other end's turn begins; and after a loss, the next turn starts with nothing open.
"""

from libc.stdint cimport uint8_t, uint32_t

from deeptrace.core.carry cimport hints_clear
from deeptrace.core.table cimport *
from dt_message cimport *
from dt_proto cimport *

cdef enum:
    LEARNED = 32  # even steps of one request, from a known start without an exception: the connection is taken to be used in turns
    TRIAL = 200  # the same without a known start: requests kept one ahead would need as many even steps to look alike
    MOST_OF_A_STEP = 5


cdef void turn_broken(flow *f) noexcept nogil:
    """A response too many, or too few: on trial, it starts again."""
    if f.on_trial:
        f.hints_broken = 1


cdef uint8_t worth(uint32_t burst) noexcept nogil:
    """Of an even step of so many requests: one more whenever they double. Were some left unanswered all the time, a step would be
    even by chance, the less likely the more there are in it."""
    cdef uint8_t bits = 1
    while burst > 1 and bits < MOST_OF_A_STEP:
        burst >>= 1
        bits += 1
    return bits


cdef void take_turn(flow *f) noexcept nogil:
    """A request begins after a response. Where both ends have always taken turns, everything before it is answered then:
    such a flow needs no quiet after a loss, which it may never have under load."""
    cdef const stream *answers = &f.streams[1 - f.request_direction]
    cdef uint8_t enough = TRIAL if f.on_trial and f.mid_stream else LEARNED
    cdef uint8_t step = worth(f.burst)
    if f.split and (f.n_hints == 1 or f.hints_broken):
        return  # a burst that is read in parts: what is not answered could not be, and the whole of it will tell
    f.burst = 0
    if (f.n_hints and not f.hints_broken) or (answers.in_message and answers.mode != SEARCHING):
        turn_broken(f)
        f.overlapped = f.overlapped or not f.on_trial
    if f.overlapped:
        return
    if f.hints_broken and f.turns < enough:
        f.on_trial = 1
        f.turns = 0
        hints_clear(f)
        return
    if f.turns < enough:
        f.turns += step
        return
    f.quiet = 1
    if f.hints_broken or f.on_trial:
        hints_clear(f)
        f.on_trial = 0
        f.out_of_sync = f.streams[0].lost or f.streams[1].lost


cdef bint await_turn(flow *f, uint8_t direction) noexcept nogil:
    """The end of the message at hand was not captured. True if no other can begin in this direction before the other end has
    its turn: the requests are all known, and this is the response to the last one, or the last one itself."""
    cdef stream *s = &f.streams[direction]
    cdef const stream *other = &f.streams[1 - direction]
    if not s.in_message or s.in_gap or s.lost or other.lost or f.out_of_sync or f.hints_broken or other.held != NULL:
        return False
    if f.overlapped and not f.protocol.evident:
        return False  # its ends do not take turns, and the rest of a long response could pass for the next one
    if s.role == DT_ROLE_RESPONSE:
        if s.msg.type != DT_MSG_RESPONSE or f.n_hints or other.carry != NULL:
            return False
    elif s.msg.type != DT_MSG_REQUEST or f.n_hints > 1 or (f.n_hints and other.in_message):
        return False
    s.mode = IN_UNTIL_TURN
    s.row.marks |= DT_MARK_CUT
    return True
