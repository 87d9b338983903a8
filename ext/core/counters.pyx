# SPDX-License-Identifier: Apache-2.0
"""The counters of the compiled stages: one array indexed by the numbers of counters.def. Never resets."""

import numpy as np


cdef class Counters:
    """Counters of one pipeline. Written by the compiled stages without a lock: one pipeline, one thread at a time."""

    @property
    def values(self):
        """A view, shape (256,), uint64, index: number in counters.def. Shares memory; keeps this object alive."""
        return np.frombuffer(self, dtype=np.uint64)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        cdef Py_ssize_t size = DT_N_COUNTERS * sizeof(uint64_t)
        buffer.buf = self.slots
        buffer.obj = self
        buffer.len = size
        buffer.itemsize = 1
        buffer.ndim = 1
        buffer.format = NULL
        buffer.shape = NULL
        buffer.strides = NULL
        buffer.suboffsets = NULL
        buffer.readonly = 1
        buffer.internal = NULL

    def __releasebuffer__(self, Py_buffer *buffer):
        pass
