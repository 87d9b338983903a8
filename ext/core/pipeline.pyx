# SPDX-License-Identifier: Apache-2.0
"""Runs batches through flow, infer, frame and pair, and hands out span rows. One pipeline belongs to one thread.
Reads no clock: the same batches with the same times give the same rows."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from deeptrace.core.wire import ATTRIBUTE_DTYPE, SPAN_DTYPE

from deeptrace.core.batch cimport Batch
from deeptrace.core.counters cimport DT_COUNT_RECORDS_TAKEN, Counters
from deeptrace.core.flow cimport flow_record, flows_finish, flows_flush
from deeptrace.core.hashing cimport hash_bytes, hash_finish
from deeptrace.core.pair cimport pair_expire, pair_rows, pairing, pairing_free, pairing_init
from deeptrace.core.proto cimport L7Protocol
from deeptrace.core.spans cimport outbox, outbox_clear, outbox_free, outbox_init
from deeptrace.core.table cimport MAX_PROTOCOLS, flow_table, table_free, table_init

cdef enum:
    ROWS_PER_DRAIN = 512  # message rows between two passes of pairing: they stay in the cache
    PORTS_PER_PROTOCOL = 8

MS = 1_000_000  # ns
REQUEST_TIMEOUT_NS = 30_000 * MS  # a request without any response byte by then is a span with error_type timeout
HOLD_NS = 50 * MS  # waiting for bytes that come out of order: many times the 2 ms after which records are final
QUIET_NS = 10 * MS  # without a byte after a response: whatever was missed before is over
EARLY_NS = 100 * MS  # a response waits so long for a request that is held in its stream: HOLD_NS and some more
LINGER_NS = 20 * MS  # a closed connection's last reads may be seen after its end
IDLE_NS = 900_000 * MS  # a flow without a byte: keepalives of servers are shorter
MAX_FLOWS = 32_768  # about 1.5 KB each
MAX_OPEN_REQUESTS = 65_536  # over all flows; about 700 B each with attributes
MAX_RAISED = 1024  # flows with a raised payload limit: one call of each at 16 KiB is a quarter of the rings
MEMORY_BYTES = 256 << 20  # carried bytes and held calls; open requests have half as much of their own


# What is asked of the probes for one connection: bytes per call, or one of DT_LIMIT_* of dt_records.h.
WISH_DTYPE = np.dtype([("socket", "<u8"), ("limit", "<u4"), ("local_port", "<u2"), ("peer_port", "<u2")])


class SpanRows(NamedTuple):
    """What take() gives. spans SPAN_DTYPE (n,), attributes ATTRIBUTE_DTYPE (m,), string i is
    string_bytes[string_at[i]:string_at[i+1]] in UTF-8 (uint32, uint8), pids uint32: span.process is a row of it."""

    spans: npt.NDArray[np.void]
    attributes: npt.NDArray[np.void]
    string_at: npt.NDArray[np.uint32]
    string_bytes: npt.NDArray[np.uint8]
    pids: npt.NDArray[np.uint32]


cdef void drain(void *context) noexcept nogil:
    pair_rows(<pairing *> context)


cdef object copied(const void *source, size_t n, object dtype):
    """A new array of n items."""
    array = np.empty(n, dtype)
    if n:
        memcpy(<void *> <size_t> array.ctypes.data, source, <size_t> array.nbytes)
    return array


cdef class Pipeline:
    """protocols: those to look for; boot_id: enters span ids; counters: where all stages count. Limits and times as named
    above. capture_start_ns: when the probes were armed (0: the first record); a connection that was quiet for quiet_ns
    after it has no unseen request under way. payload_bytes, payload_max_bytes: what the probes capture of a call by default and
    at the most; 0: no limits are asked for. Raises MemoryError; then the pipeline is not to be used any more."""

    cdef flow_table table
    cdef pairing pairs
    cdef outbox out
    cdef Counters counters
    cdef tuple protocols

    def __cinit__(self, *, protocols, str boot_id, Counters counters not None, uint64_t request_timeout_ns=REQUEST_TIMEOUT_NS,
                  uint64_t hold_ns=HOLD_NS, uint64_t quiet_ns=QUIET_NS, uint64_t early_ns=EARLY_NS,
                  uint64_t linger_ns=LINGER_NS, uint64_t idle_ns=IDLE_NS, uint32_t max_flows=MAX_FLOWS,
                  uint32_t max_open_requests=MAX_OPEN_REQUESTS, uint64_t memory_bytes=MEMORY_BYTES,
                  uint64_t capture_start_ns=0, uint32_t payload_bytes=0, uint32_t payload_max_bytes=0,
                  uint32_t max_raised=MAX_RAISED):
        cdef bytes boot = boot_id.encode()
        cdef uint64_t boot_hash = hash_finish(hash_bytes(0, <const uint8_t *> <const char *> boot, <uint32_t> len(boot)))
        memset(&self.table, 0, sizeof(flow_table))
        memset(&self.out, 0, sizeof(outbox))
        self.counters = counters
        self.protocols = tuple(protocols)
        if not table_init(&self.table, max(max_flows, 16), memory_bytes) or not outbox_init(&self.out, boot_hash):
            raise MemoryError
        self.table.counters = counters.slots
        self.table.boot_hash = boot_hash
        self.table.hold_ns = hold_ns
        self.table.quiet_ns = quiet_ns
        self.table.linger_ns = linger_ns
        self.table.idle_ns = idle_ns
        self.table.capture_start_ns = capture_start_ns
        self.set_payload(payload_bytes, payload_max_bytes)
        self.table.max_raised = max_raised
        self.table.drain = drain
        self.table.drain_context = &self.pairs
        pairing_init(&self.pairs, &self.table, &self.out, memory_bytes // 2)
        self.pairs.timeout_ns = request_timeout_ns
        self.pairs.early_ns = early_ns
        self.pairs.max_open = max_open_requests
        for protocol in self.protocols:
            self.register(protocol)

    def __dealloc__(self):
        table_free(&self.table)
        pairing_free(&self.pairs)
        outbox_free(&self.out)

    cdef int register(self, L7Protocol protocol) except -1:
        cdef uint32_t i = self.table.n_protocols
        if i == MAX_PROTOCOLS:
            raise ValueError(f"more than {MAX_PROTOCOLS} protocols")
        self.table.protocols[i] = protocol.table
        for k, port in enumerate(protocol.ports[:PORTS_PER_PROTOCOL]):
            self.table.ports[i][<int> k] = port
        self.table.n_protocols += 1
        return 0

    cdef int check(self) except -1:
        if self.table.out_of_memory or self.out.out_of_memory:
            raise MemoryError("no memory for messages and spans")
        return 0

    def feed(self, Batch batch not None, uint64_t now_ns, uint32_t first=0, uint32_t max_spans=0):
        """Take a batch in its order, from row `first` of that on; its memory is not needed afterwards. now_ns: CLOCK_MONOTONIC, at
        least the time up to which the batch is final; what is due by then is done. Returns the rows taken so far: all, or fewer
        when max_spans wait for take(): then it must be called again, from there on. (A batch may hold half a million messages.)"""
        cdef uint32_t k, i = first
        with nogil:
            while i < batch.n_ordered:
                k = batch.rank[i]
                flow_record(&self.table, &batch.record[k], batch.arena + batch.at[k])
                i += 1
                if self.table.n_rows >= ROWS_PER_DRAIN:
                    pair_rows(&self.pairs)
                    if max_spans and self.out.n_spans >= max_spans:
                        break
            pair_rows(&self.pairs)
        self.table.counters[DT_COUNT_RECORDS_TAKEN] += i - first
        if i < batch.n_ordered:
            self.check()
        else:
            self.flush(now_ns)
        return i

    def flush(self, uint64_t now_ns):
        """Do what is due at now_ns: bytes held too long, timeouts, closed and idle connections."""
        with nogil:
            flows_flush(&self.table, now_ns)
            pair_rows(&self.pairs)
            if now_ns > self.pairs.clock_ns:
                self.pairs.clock_ns = now_ns
            pair_expire(&self.pairs, now_ns)
        self.check()

    def finish(self, uint64_t now_ns):
        """The recording ends: everything open becomes a row."""
        self.flush(now_ns)
        with nogil:
            flows_finish(&self.table)
            pair_rows(&self.pairs)
        self.check()

    def take(self, int64_t clock_offset_ns):
        """The spans made since the last take, as SpanRows. clock_offset_ns: added to all times (Unix minus monotonic)."""
        offset = np.int64(clock_offset_ns).astype(np.uint64)
        strings = &self.out.strings
        rows = SpanRows(
            copied(self.out.spans, self.out.n_spans, SPAN_DTYPE),
            copied(self.out.attributes, self.out.n_attributes, ATTRIBUTE_DTYPE),
            copied(strings.at, strings.n_strings + 1, np.uint32),
            copied(strings.bytes, strings.n_bytes, np.uint8),
            copied(self.out.pids, self.out.n_pids, np.uint32),
        )
        for name in ("start_ns", "request_end_ns", "response_start_ns", "end_ns", "connect_ns"):
            column = rows.spans[name]
            np.add(column, offset, out=column, where=column != 0)
        outbox_clear(&self.out)
        return rows

    def set_payload(self, uint32_t payload_bytes, uint32_t payload_max_bytes):
        """Follow other settings of what the probes capture; as the arguments of the constructor."""
        self.table.payload_bytes = payload_bytes
        self.table.payload_max_bytes = payload_max_bytes

    def take_limits(self):
        """What is asked of the probes since the last call, WISH_DTYPE (n,), in this order. Later ones of a socket count."""
        wishes = copied(self.table.wishes, self.table.n_wishes, WISH_DTYPE)
        self.table.n_wishes = 0
        return wishes

    def gauges(self) -> dict:
        """What is under way now: the ledger's bytes_carried, requests_open, responses_open; flows, those of them that are muted and
        raised; spans_waiting for take(); memory_bytes of carried bytes and open requests."""
        return {
            "bytes_carried": self.table.carried_bytes,
            "requests_open": self.pairs.n_open,
            "responses_open": self.pairs.n_answers_open,
            "flows": self.table.n_flows,
            "flows_muted": self.table.n_muted,
            "flows_raised": self.table.n_raised,
            "spans_waiting": self.out.n_spans,
            "memory_bytes": self.table.pool.chunk_bytes + self.pairs.pool.chunk_bytes,
        }
