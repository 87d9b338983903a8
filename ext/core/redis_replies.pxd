# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint32_t

from dt_proto cimport dt_buf, dt_msg

# A reply that is one line, of this kind; its message begins at start.
cdef int frame_line(dt_buf *b, uint8_t kind, uint8_t hint, uint32_t start, dt_msg *out) noexcept nogil
cdef int frame_reply(dt_buf *b, uint8_t hint, dt_msg *out) noexcept nogil
