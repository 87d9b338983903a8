# SPDX-License-Identifier: Apache-2.0
"""Takes records out of the kernel's per-CPU perf rings into a Batch: the only copy of their bytes.
Reads mapped memory and nothing else: descriptors are opened by the loader and waited for by the agent.

A ring (linux/perf_event.h): one page of control data, then a power of two of bytes; perf_event_header records, 8-aligned,
that may wrap around. With PERF_SAMPLE_RAW alone a sample is {header, u32 size, bytes}: ours begin at 4 mod 8.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap
from posix.unistd cimport _SC_PAGESIZE, sysconf

from deeptrace.core.batch cimport Batch, batch_new
from deeptrace.core.counters cimport *
from dt_wire cimport DT_KIND_DATA, DT_KIND_PROC, DT_MAX_PAYLOAD, dt_record

cdef extern from *:
    """
    #include <linux/perf_event.h>
    #include <stddef.h>
    static inline unsigned long long dt_ring_head(const void *page)
    {
    	return __atomic_load_n(&((const struct perf_event_mmap_page *)page)->data_head, __ATOMIC_ACQUIRE);
    }
    static inline unsigned long long dt_ring_tail(const void *page)
    {
    	return ((const struct perf_event_mmap_page *)page)->data_tail;
    }
    static inline void dt_ring_set_tail(void *page, unsigned long long tail)
    {
    	__atomic_store_n(&((struct perf_event_mmap_page *)page)->data_tail, tail, __ATOMIC_RELEASE);
    }
    """
    ctypedef struct perf_event_header "struct perf_event_header":
        uint32_t type
        uint16_t misc
        uint16_t size
    enum: PERF_RECORD_LOST, PERF_RECORD_SAMPLE
    uint64_t dt_ring_head(const void *page) nogil
    uint64_t dt_ring_tail(const void *page) nogil
    void dt_ring_set_tail(void *page, uint64_t tail) nogil

FINAL_AFTER_NS = 2_000_000  # another CPU's record may come so much later than its exit time says
MAX_RECORDS = 8192  # of one batch: about 1.2 MB of headers, a few ms of work
MAX_BYTES = 8 << 20  # of payload of one batch

cdef enum:
    SAMPLE_HEAD = 12  # perf_event_header and the u32 size

cdef struct ring:
    void *page
    const uint8_t *data
    uint64_t mask
    uint64_t head  # as of this drain
    uint64_t tail
    uint64_t next_exit_ns  # of the record at tail
    uint64_t last_count  # cpu_count of the last record taken
    uint64_t missed
    uint64_t final_ns  # the latest final_before_ns that emptied it up to there
    uint32_t sample_bytes  # of the record at tail: its perf size
    uint32_t raw_bytes
    uint32_t cpu
    uint8_t ready  # next_* describe the record at tail
    uint8_t mapped


cdef void ring_copy(const ring *r, uint64_t at, void *target, uint64_t n) noexcept nogil:
    cdef uint64_t offset = at & r.mask
    cdef uint64_t first = r.mask + 1 - offset
    if first > n:
        first = n
    memcpy(target, r.data + offset, first)
    if n > first:
        memcpy(<uint8_t *> target + first, r.data, n - first)


cdef bint ring_peek(ring *r, uint64_t *counters) noexcept nogil:
    """Step over everything that is no sample of ours; whether one stands at tail now, with its exit time read."""
    cdef perf_event_header header
    cdef uint64_t lost[2]
    while not r.ready and r.tail < r.head:
        ring_copy(r, r.tail, &header, sizeof(header))
        if header.size < sizeof(header) or header.size > r.head - r.tail:
            counters[DT_COUNT_BAD_RECORD] += 1
            r.tail = r.head  # the framing of this ring is lost; what comes next is whole again
            break
        if header.type == PERF_RECORD_SAMPLE and header.size >= SAMPLE_HEAD + sizeof(dt_record):
            ring_copy(r, r.tail + sizeof(header), &r.raw_bytes, 4)
            if r.raw_bytes >= sizeof(dt_record) and r.raw_bytes + SAMPLE_HEAD <= header.size:
                ring_copy(r, r.tail + SAMPLE_HEAD + 8, &r.next_exit_ns, 8)  # dt_record.exit_ns
                r.sample_bytes = header.size
                r.ready = 1
                break
            counters[DT_COUNT_BAD_RECORD] += 1
        elif header.type == PERF_RECORD_LOST and header.size >= sizeof(header) + sizeof(lost):
            ring_copy(r, r.tail + sizeof(header), lost, sizeof(lost))
            counters[DT_COUNT_RING_LOST_REPORTED] += lost[1]
        else:
            counters[DT_COUNT_BAD_RECORD] += 1
        r.tail += header.size
    return r.ready


cdef bint ring_take(ring *r, dt_record *record, uint8_t *payload, uint64_t *counters) noexcept nogil:
    """Copy the sample at tail and step over it; False if it cannot be a record."""
    cdef uint64_t at = r.tail + SAMPLE_HEAD
    ring_copy(r, at, record, sizeof(dt_record))
    r.tail += r.sample_bytes
    r.ready = 0
    if (
        record.payload_len > DT_MAX_PAYLOAD
        or sizeof(dt_record) + record.payload_len > r.raw_bytes
        or record.kind < DT_KIND_DATA
        or record.kind > DT_KIND_PROC
    ):
        counters[DT_COUNT_BAD_RECORD] += 1
        return False
    ring_copy(r, at + sizeof(dt_record), payload, record.payload_len)
    counters[DT_COUNT_RECORDS_DECODED] += 1
    if record.cpu_count > r.last_count:
        r.missed += record.cpu_count - r.last_count - 1
        r.last_count = record.cpu_count
    if record.exit_ns <= r.final_ns:
        counters[DT_COUNT_LATE] += 1
    return True


cdef class Rings:
    """The rings of all CPUs. fds: {cpu: descriptor of a PERF_COUNT_SW_BPF_OUTPUT event}, not closed here; bytes_per_cpu: a
    power of two of pages, as the kernel wants it; counters: of the pipeline. Raises ValueError, OSError."""

    cdef ring *rings
    cdef uint32_t n_rings
    cdef Counters counters
    cdef list pool
    cdef list keep
    cdef tuple descriptors
    cdef size_t map_bytes

    def __cinit__(self, fds, size_t bytes_per_cpu, Counters counters not None):
        self.start(len(fds), bytes_per_cpu, counters)
        self.descriptors = tuple(fds.values())
        for cpu, fd in sorted(fds.items()):
            self.map_ring(cpu, fd, bytes_per_cpu)

    @staticmethod
    def from_buffers(buffers, Counters counters not None):
        """Rings over writable memory that looks like a mapped ring (one page, then a power of two of bytes), for tests.
        buffers: {cpu: buffer}."""
        cdef Rings made = Rings({}, sysconf(_SC_PAGESIZE), counters)
        cdef uint8_t[::1] view
        free(made.rings)
        made.start(len(buffers), 4096, counters)
        for cpu, buffer in sorted(buffers.items()):
            view = buffer
            made.keep.append(view)
            made.add_ring(cpu, &view[0], view.shape[0] - sysconf(_SC_PAGESIZE))
        return made

    cdef int start(self, size_t n, size_t bytes_per_cpu, Counters counters) except -1:
        if bytes_per_cpu == 0 or bytes_per_cpu & (bytes_per_cpu - 1):
            raise ValueError(f"a ring of {bytes_per_cpu} bytes: its size must be a power of two")
        self.counters = counters
        self.pool = []
        self.keep = []
        self.map_bytes = bytes_per_cpu + sysconf(_SC_PAGESIZE)
        self.n_rings = 0
        self.rings = <ring *> calloc(n + 1, sizeof(ring))
        if self.rings == NULL:
            raise MemoryError
        return 0

    cdef int add_ring(self, uint32_t cpu, void *page, size_t data_bytes) except -1:
        cdef ring *r = &self.rings[self.n_rings]
        if data_bytes == 0 or data_bytes & (data_bytes - 1):
            raise ValueError(f"a ring of {data_bytes} bytes: its size must be a power of two")
        r.page = page
        r.data = <const uint8_t *> page + sysconf(_SC_PAGESIZE)
        r.mask = data_bytes - 1
        r.cpu = cpu
        self.n_rings += 1
        return 0

    cdef int map_ring(self, uint32_t cpu, int fd, size_t bytes_per_cpu) except -1:
        cdef void *page = mmap(NULL, self.map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
        if page == MAP_FAILED:
            raise OSError(f"the ring of CPU {cpu} cannot be mapped; try a smaller ring size")
        self.rings[self.n_rings].mapped = 1
        return self.add_ring(cpu, page, bytes_per_cpu)

    def close(self) -> None:
        """Unmap. Batches stay valid."""
        cdef uint32_t i
        for i in range(self.n_rings):
            if self.rings[i].mapped:
                munmap(self.rings[i].page, self.map_bytes)
        self.n_rings = 0
        self.keep = []

    def __dealloc__(self):
        cdef uint32_t i
        if self.rings != NULL:
            for i in range(self.n_rings):
                if self.rings[i].mapped:
                    munmap(self.rings[i].page, self.map_bytes)
            free(self.rings)

    cdef void refresh(self, uint64_t *counters) noexcept nogil:
        cdef uint32_t i
        cdef ring *r
        for i in range(self.n_rings):
            r = &self.rings[i]
            r.tail = dt_ring_tail(r.page)
            r.head = dt_ring_head(r.page)
            r.ready = 0
            ring_peek(r, counters)

    cdef void fill(self, Batch batch, uint64_t final_before_ns, uint64_t *counters) noexcept nogil:
        """Merge the rings by exit time until a bound or final_before_ns is reached."""
        cdef uint32_t i
        cdef ring *r
        cdef ring *first
        cdef uint64_t limit_ns
        while True:
            first = NULL
            limit_ns = final_before_ns
            for i in range(self.n_rings):
                r = &self.rings[i]
                if not r.ready or r.next_exit_ns > final_before_ns:
                    continue
                if first == NULL or r.next_exit_ns < first.next_exit_ns:
                    if first != NULL and first.next_exit_ns < limit_ns:
                        limit_ns = first.next_exit_ns
                    first = r
                elif r.next_exit_ns < limit_ns:
                    limit_ns = r.next_exit_ns
            if first == NULL:
                return
            while first.ready and first.next_exit_ns <= limit_ns:  # a run of one ring: no need to look at the others
                if batch.n >= batch.capacity or batch.used_bytes + DT_MAX_PAYLOAD > batch.arena_bytes:
                    return
                if ring_take(first, &batch.record[batch.n], batch.arena + batch.used_bytes, counters):
                    batch.at[batch.n] = <uint32_t> batch.used_bytes
                    batch.used_bytes += batch.record[batch.n].payload_len
                    batch.n += 1
                ring_peek(first, counters)

    def drain(self, uint64_t now_ns, *, bint final=False, uint32_t max_records=MAX_RECORDS,
              uint32_t max_bytes=MAX_BYTES) -> Batch:
        """Take the records that are FINAL_AFTER_NS old at now_ns (CLOCK_MONOTONIC, read before the call), oldest first, at most
        so many; younger ones stay in the rings, but for final=True: then all up to now_ns are taken, as nothing will follow.
        While batches are not empty, drain again. Call release() on a batch when nothing of it is needed any more."""
        cdef uint64_t final_before_ns = now_ns if final else now_ns - min(now_ns, <uint64_t> FINAL_AFTER_NS)
        cdef Batch batch = None
        cdef uint32_t i
        cdef uint64_t *counters = self.counters.slots
        cdef bint all_taken = True
        if max_bytes < DT_MAX_PAYLOAD:
            raise ValueError(f"max_bytes must be {DT_MAX_PAYLOAD} at least")
        while self.pool and batch is None:
            batch = self.pool.pop()
            if batch.capacity != max_records or batch.arena_bytes != max_bytes:
                batch = None
        if batch is None:
            batch = batch_new(max_records, max_bytes, self.pool)
        batch.reset()
        batch.pool = self.pool
        with nogil:
            self.refresh(counters)
            self.fill(batch, final_before_ns, counters)
            for i in range(self.n_rings):
                dt_ring_set_tail(self.rings[i].page, self.rings[i].tail)
                if self.rings[i].ready and self.rings[i].next_exit_ns <= final_before_ns:
                    all_taken = False
            if all_taken:
                for i in range(self.n_rings):
                    self.rings[i].final_ns = final_before_ns
        batch.sort()
        return batch

    @property
    def fds(self):
        """The descriptors, for poll: readable when the kernel's wakeup threshold is reached."""
        return list(self.descriptors)

    def pending_bytes(self) -> dict:
        """{cpu: bytes that stand in its ring now}."""
        return {
            self.rings[i].cpu: dt_ring_head(self.rings[i].page) - dt_ring_tail(self.rings[i].page) for i in range(self.n_rings)
        }

    def waiting(self) -> int:
        """Samples that stand in the rings now: the ledger's records_in_ring. Walks them."""
        cdef uint32_t i
        cdef uint64_t n = 0, at, head
        cdef perf_event_header header
        for i in range(self.n_rings):
            at = dt_ring_tail(self.rings[i].page)
            head = dt_ring_head(self.rings[i].page)
            while at < head:
                ring_copy(&self.rings[i], at, &header, sizeof(header))
                if header.size < sizeof(header):
                    break
                n += header.type == PERF_RECORD_SAMPLE
                at += header.size
        return n

    def missed_records(self) -> dict:
        """{cpu: records that the probes emitted and that never came}, from jumps of cpu_count."""
        return {self.rings[i].cpu: self.rings[i].missed for i in range(self.n_rings)}
