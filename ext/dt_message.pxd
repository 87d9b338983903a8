# SPDX-License-Identifier: Apache-2.0
# Cython's view of ext/include/dt_message.h, where everything here is explained.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "dt_message.h" nogil:
    enum: DT_EVENT_BEGIN, DT_EVENT_END, DT_EVENT_CLOSE, DT_EVENT_GAP, DT_EVENT_SYNC, DT_EVENT_EXIT
    enum: DT_CAUSE_NONE, DT_CAUSE_CLOSED, DT_CAUSE_RESET, DT_CAUSE_EXITED, DT_CAUSE_TIMEOUT
    enum: DT_MARK_AMBIGUOUS, DT_MARK_CUT, DT_MARK_GAP, DT_MARK_NO_SEQ

    ctypedef struct dt_message "struct dt_message":
        uint64_t position
        uint64_t size
        uint64_t first_enter_ns
        uint64_t first_exit_ns
        uint64_t last_enter_ns
        uint64_t last_exit_ns
        uint64_t id
        uint32_t flow
        uint32_t tgid
        uint32_t first_tid
        uint32_t head_tid
        uint32_t last_tid
        uint32_t blob_at
        uint32_t blob_size
        uint8_t event
        uint8_t type
        uint8_t flags
        uint8_t marks
        uint8_t direction
        uint8_t protocol
        uint8_t cause
