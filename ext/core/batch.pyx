# SPDX-License-Identifier: Apache-2.0
"""Records of one drain: headers in one aligned array, payload in one arena, and the order in which they count.
Views share the batch's memory and hold what they held only until release(), when the memory is used again."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

import numpy as np

from deeptrace.core.wire import LOG_DTYPE, RECORD_DTYPE

from dt_wire cimport DT_EGRESS, DT_KIND_DATA, DT_KIND_LOG, dt_record

cdef enum:
    MOVES_PER_RECORD = 16  # records are nearly sorted; beyond this many moves a merge sort is cheaper


cdef void sort_by_merging(uint32_t *rank, const uint64_t *key, uint32_t *scratch, uint32_t n) noexcept nogil:
    """Stable, bottom up. rank: permutation of 0..n-1, sorted by key."""
    cdef uint64_t width = 1
    cdef uint64_t left, middle, right, i, j, k
    cdef uint32_t *source = rank
    cdef uint32_t *target = scratch
    cdef uint32_t *swap
    while width < n:
        left = 0
        while left < n:
            middle = left + width if left + width < n else n
            right = left + 2 * width if left + 2 * width < n else n
            i = left
            j = middle
            for k in range(left, right):
                if i < middle and (j >= right or key[source[i]] <= key[source[j]]):
                    target[k] = source[i]
                    i += 1
                else:
                    target[k] = source[j]
                    j += 1
            left += 2 * width
        swap = source
        source = target
        target = swap
        width *= 2
    if source != rank:
        memcpy(rank, source, n * sizeof(uint32_t))


cdef bint sort_by_inserting(uint32_t *rank, const uint64_t *key, uint32_t n) noexcept nogil:
    """Stable; False when it would take too many moves (rank is then still a permutation)."""
    cdef uint64_t budget = <uint64_t> n * MOVES_PER_RECORD
    cdef uint32_t i, j, moving
    for i in range(1, n):
        moving = rank[i]
        j = i
        while j and key[rank[j - 1]] > key[moving]:
            rank[j] = rank[j - 1]
            j -= 1
        rank[j] = moving
        if i - j > budget:
            return False
        budget -= i - j
    return True


cdef class Batch:
    """Records that are final: `records` RECORD_DTYPE (n,), `payload` uint8, `payload_at` uint32 (n,) offsets into it, `order`
    uint32 permutation by time (enter of egress data, exit of all else; stable). Made by Rings.drain or from_arrays."""

    def __init__(self):
        raise TypeError("use Rings.drain() or Batch.from_arrays()")

    @staticmethod
    def from_arrays(records, payload, payload_at):
        """A batch over arrays that exist (a recording, a test); they are not copied when contiguous.
        records: RECORD_DTYPE (n,); payload: uint8; payload_at: uint32 (n,). Raises ValueError if a payload lies outside."""
        cdef Batch batch = Batch.__new__(Batch)
        cdef const uint8_t[::1] view
        records = np.ascontiguousarray(records, dtype=RECORD_DTYPE)
        payload = np.ascontiguousarray(payload, dtype=np.uint8)
        payload_at = np.ascontiguousarray(payload_at, dtype=np.uint32)
        if len(payload_at) != len(records):
            raise ValueError("payload_at and records differ in length")
        if len(records) and int((payload_at.astype(np.uint64) + records["payload_len"]).max()) > len(payload):
            raise ValueError("a payload lies outside of the arena")
        batch.record_store = records
        batch.payload_store = payload
        batch.payload_at_store = payload_at
        batch.order_store = np.empty(len(records), np.uint32)
        batch.key_store = np.empty(len(records), np.uint64)
        batch.capacity = batch.n = len(records)
        batch.arena_bytes = batch.used_bytes = len(payload)
        batch.point()
        batch.sort()
        return batch

    cdef void reset(self) noexcept:
        self.n = self.n_ordered = self.n_log_records = 0
        self.used_bytes = 0

    def point(self):
        """Take the addresses of the arrays."""
        self.record = <dt_record *> <size_t> self.record_store.ctypes.data
        self.arena = <uint8_t *> <size_t> self.payload_store.ctypes.data
        self.at = <uint32_t *> <size_t> self.payload_at_store.ctypes.data
        self.rank = <uint32_t *> <size_t> self.order_store.ctypes.data
        self.key = <uint64_t *> <size_t> self.key_store.ctypes.data

    cdef int sort(self) except -1:
        """Fill `order`."""
        cdef uint32_t i
        cdef uint32_t *scratch
        cdef dt_record *r
        self.n_log_records = 0
        with nogil:
            for i in range(self.n):
                r = &self.record[i]
                self.n_log_records += r.kind == DT_KIND_LOG
                self.key[i] = r.enter_ns if r.kind == DT_KIND_DATA and r.direction == DT_EGRESS else r.exit_ns
                self.rank[i] = i
            if not sort_by_inserting(self.rank, self.key, self.n):
                for i in range(self.n):
                    self.rank[i] = i
                scratch = <uint32_t *> malloc(self.n * sizeof(uint32_t))
                if scratch == NULL:
                    with gil:
                        raise MemoryError
                sort_by_merging(self.rank, self.key, scratch, self.n)
                free(scratch)
        self.n_ordered = self.n
        return 0

    @property
    def records(self):
        return self.record_store[: self.n]

    @property
    def payload(self):
        return self.payload_store[: self.used_bytes]

    @property
    def payload_at(self):
        return self.payload_at_store[: self.n]

    @property
    def order(self):
        return self.order_store[: self.n_ordered]

    def __len__(self) -> int:
        return self.n

    @property
    def n_logs(self) -> int:
        """Log records, as long as they are in `order`."""
        return self.n_log_records

    def take_logs(self):
        """Take the log records out of `order`, so that no later stage sees them. Returns (RECORD_DTYPE (n,), LOG_DTYPE (n,)),
        by time, copied."""
        order = self.order
        is_log = self.records["kind"][order] == DT_KIND_LOG
        rows = order[is_log]
        records = self.records[rows]
        logs = np.zeros(len(rows), LOG_DTYPE)
        for i, (at, size) in enumerate(zip(self.payload_at[rows].tolist(), records["payload_len"].tolist(), strict=True)):
            if size >= LOG_DTYPE.itemsize:
                logs[i : i + 1] = self.payload[at : at + LOG_DTYPE.itemsize].view(LOG_DTYPE)
        kept = order[~is_log]
        self.order_store[: len(kept)] = kept
        self.n_ordered = len(kept)
        self.n_log_records = 0
        return records, logs

    def exclude_tgids(self, tgids) -> int:
        """Take the records of these processes out of `order`, so that no later stage sees them; returns how many."""
        cdef uint32_t before = self.n_ordered
        order = self.order
        kept = order[~np.isin(self.records["tgid"][order], np.asarray(list(tgids), dtype=np.uint32))]
        self.order_store[: len(kept)] = kept
        self.n_ordered = len(kept)
        return before - self.n_ordered

    def release(self) -> None:
        """Give the memory back for the next drain. What was taken out of this batch must not be read any more."""
        if self.pool is not None:
            pool, self.pool = self.pool, None
            pool.append(self)


cdef Batch batch_new(uint32_t n_records, uint64_t n_bytes, list pool):
    """An empty batch with room for so many records and payload bytes, returned to `pool` by release()."""
    cdef Batch batch = Batch.__new__(Batch)
    batch.record_store = np.empty(n_records, RECORD_DTYPE)
    batch.payload_store = np.empty(n_bytes, np.uint8)
    batch.payload_at_store = np.empty(n_records, np.uint32)
    batch.order_store = np.empty(n_records, np.uint32)
    batch.key_store = np.empty(n_records, np.uint64)
    batch.capacity = n_records
    batch.arena_bytes = n_bytes
    batch.pool = pool
    batch.point()
    batch.reset()
    return batch
