# SPDX-License-Identifier: Apache-2.0
# Which call moved which bytes, and what a message's row says of its calls. No state.
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from deeptrace.core.table cimport call, stream
from dt_message cimport dt_message


cdef inline const call *call_of(const call *calls, uint32_t n, uint64_t at) noexcept nogil:
    """The call that moved the byte at a logical position."""
    cdef uint32_t i = n - 1
    while i and calls[i].at > at:
        i -= 1
    return &calls[i]


cdef inline void row_start(dt_message *row, uint64_t at, uint32_t size, const call *first, const call *last) noexcept nogil:
    """The row of a message whose head has `size` bytes at logical position `at`."""
    memset(row, 0, sizeof(dt_message))
    row.position = at
    row.size = size
    row.first_enter_ns = first.enter_ns
    row.first_exit_ns = first.exit_ns
    row.first_tid = first.tid
    row.tgid = first.tgid
    row.last_enter_ns = last.enter_ns
    row.last_exit_ns = last.exit_ns
    row.head_tid = row.last_tid = last.tid
    row.marks = first.marks | last.marks


cdef inline void row_extend(stream *s, const call *now) noexcept nogil:
    s.row.last_enter_ns = now.enter_ns
    s.row.last_exit_ns = now.exit_ns
    s.row.last_tid = now.tid
    s.row.marks |= now.marks
