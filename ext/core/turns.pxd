# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t

from deeptrace.core.table cimport flow

cdef void turn_broken(flow *f) noexcept nogil
cdef void take_turn(flow *f) noexcept nogil
cdef bint await_turn(flow *f, uint8_t direction) noexcept nogil
