# SPDX-License-Identifier: Apache-2.0
"""Takes records out of the kernel's per-CPU perf rings, and out of what waits beside them, into a Batch: the only copy of their bytes.
Reads mapped memory and nothing else: descriptors are opened by the loader and waited for by the agent.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap
from posix.unistd cimport _SC_PAGESIZE, sysconf

from deeptrace.core.batch cimport Batch, batch_new
from deeptrace.core.counters cimport *
from deeptrace.core.lane cimport (
    DATA_LANE, LANES, cpu_records, lane, lane_peek, lane_take, records_refresh, records_waiting
)
from deeptrace.core.leftovers cimport DT_BATCH_ROOM
from deeptrace.core.perf_ring cimport dt_ring_head, dt_ring_set_tail, dt_ring_tail
from dt_wire cimport DT_MAX_PAYLOAD, dt_batch

FINAL_AFTER_NS = 2_000_000  # another CPU's record may come so much later than its exit time says
MAX_RECORDS = 8192  # of one batch: about 1 MB of headers, a few ms of work
MAX_BYTES = 8 << 20  # of payload of one batch

cdef struct heap_row:
    uint64_t exit_ns  # of the next record of this lane
    uint32_t lane  # CPU * LANES + lane


cdef inline void heap_sink(heap_row *heap, uint32_t n, uint32_t at) noexcept nogil:
    """Put the row at `at` where it belongs among those below it; the smallest stands first."""
    cdef heap_row moving = heap[at]
    cdef uint32_t child = 2 * at + 1
    while child < n:
        if child + 1 < n and heap[child + 1].exit_ns < heap[child].exit_ns:
            child += 1
        if moving.exit_ns <= heap[child].exit_ns:
            break
        heap[at] = heap[child]
        at = child
        child = 2 * at + 1
    heap[at] = moving


cdef class Rings:
    """The rings of all CPUs. fds: {cpu: descriptor of a PERF_COUNT_SW_BPF_OUTPUT event}, not closed here; bytes_per_cpu: a
    power of two of pages, as the kernel wants it; counters: of the pipeline; batches_fd: map BATCHES, mapped here and not closed,
    None: no record waits anywhere but in the rings. Raises ValueError, OSError."""

    cdef cpu_records *cpus
    cdef heap_row *heap
    cdef uint8_t *copies  # of what waits: DT_BATCH_ROOM bytes for each CPU, touched where something does
    cdef uint32_t n_cpus
    cdef uint64_t final_ns  # all up to there was taken
    cdef Counters counters
    cdef list pool
    cdef list keep
    cdef tuple descriptors
    cdef size_t map_bytes
    cdef void *batches
    cdef size_t batches_bytes

    def __cinit__(self, fds, size_t bytes_per_cpu, Counters counters not None, *, batches_fd=None):
        self.start(len(fds), bytes_per_cpu, counters)
        self.descriptors = tuple(fds.values())
        for cpu, fd in sorted(fds.items()):
            self.map_ring(cpu, fd, bytes_per_cpu)
        if batches_fd is not None and fds:
            self.map_batches(batches_fd, max(fds) + 1)

    @staticmethod
    def from_buffers(buffers, Counters counters not None, batches=None):
        """Rings over writable memory that looks like a mapped ring (one page, then a power of two of bytes), for tests.
        buffers: {cpu: buffer}; batches: one struct dt_batch per CPU, back to back."""
        cdef Rings made = Rings({}, sysconf(_SC_PAGESIZE), counters)
        cdef uint8_t[::1] view
        made.free_all()
        made.start(len(buffers), 4096, counters)
        for cpu, buffer in sorted(buffers.items()):
            view = buffer
            made.keep.append(view)
            made.add_ring(cpu, &view[0], view.shape[0] - sysconf(_SC_PAGESIZE))
        if batches is not None:
            view = batches
            made.keep.append(view)
            made.add_batches(<const dt_batch *> &view[0], view.shape[0] // sizeof(dt_batch))
        return made

    cdef int start(self, size_t n, size_t bytes_per_cpu, Counters counters) except -1:
        if bytes_per_cpu == 0 or bytes_per_cpu & (bytes_per_cpu - 1):
            raise ValueError(f"a ring of {bytes_per_cpu} bytes: its size must be a power of two")
        self.counters = counters
        self.pool = []
        self.keep = []
        self.map_bytes = bytes_per_cpu + sysconf(_SC_PAGESIZE)
        self.n_cpus = 0
        self.cpus = <cpu_records *> calloc(n + 1, sizeof(cpu_records))
        self.heap = <heap_row *> calloc(LANES * (n + 1), sizeof(heap_row))
        self.copies = <uint8_t *> malloc((n + 1) * DT_BATCH_ROOM)
        if self.cpus == NULL or self.heap == NULL or self.copies == NULL:
            raise MemoryError
        return 0

    cdef int add_ring(self, uint32_t cpu, void *page, size_t data_bytes) except -1:
        cdef cpu_records *c = &self.cpus[self.n_cpus]
        cdef int which
        if data_bytes == 0 or data_bytes & (data_bytes - 1):
            raise ValueError(f"a ring of {data_bytes} bytes: its size must be a power of two")
        c.ring.page = page
        c.ring.data = <const uint8_t *> page + sysconf(_SC_PAGESIZE)
        c.ring.mask = data_bytes - 1
        c.ring.head = dt_ring_tail(page)
        for which in range(LANES):
            c.lanes[which].at = c.ring.head
        c.left.bytes = self.copies + self.n_cpus * DT_BATCH_ROOM
        c.loose_first = 1
        c.cpu = cpu
        self.n_cpus += 1
        return 0

    cdef int map_ring(self, uint32_t cpu, int fd, size_t bytes_per_cpu) except -1:
        cdef void *page = mmap(NULL, self.map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
        if page == MAP_FAILED:
            raise OSError(f"the ring of CPU {cpu} cannot be mapped; try a smaller ring size")
        self.cpus[self.n_cpus].mapped = 1
        return self.add_ring(cpu, page, bytes_per_cpu)

    cdef int map_batches(self, int fd, size_t n) except -1:
        cdef size_t page = sysconf(_SC_PAGESIZE)
        self.batches_bytes = (n * sizeof(dt_batch) + page - 1) // page * page
        self.batches = mmap(NULL, self.batches_bytes, PROT_READ, MAP_SHARED, fd, 0)
        if self.batches == MAP_FAILED:
            self.batches = NULL
            raise OSError("the records that wait on their CPU cannot be mapped")
        self.add_batches(<const dt_batch *> self.batches, n)
        return 0

    cdef void add_batches(self, const dt_batch *batches, size_t n) noexcept:
        cdef uint32_t i
        for i in range(self.n_cpus):
            if self.cpus[i].cpu < n:
                self.cpus[i].left.batch = &batches[self.cpus[i].cpu]

    def close(self) -> None:
        """Unmap. Batches stay valid."""
        cdef uint32_t i
        for i in range(self.n_cpus):
            if self.cpus[i].mapped:
                munmap(self.cpus[i].ring.page, self.map_bytes)
        if self.batches != NULL:
            munmap(self.batches, self.batches_bytes)
            self.batches = NULL
        self.n_cpus = 0
        self.keep = []

    cdef void free_all(self) noexcept:
        free(self.cpus)
        free(self.heap)
        free(self.copies)

    def __dealloc__(self):
        self.close()
        self.free_all()

    cdef void fill(self, Batch batch, uint64_t final_before_ns, uint64_t *counters) noexcept nogil:
        """Merge the lanes by exit time until a bound or final_before_ns is reached."""
        cdef heap_row *heap = self.heap
        cdef uint32_t n = 0, i
        cdef int which
        cdef lane *l
        cdef cpu_records *c
        cdef uint64_t limit_ns
        for i in range(self.n_cpus * LANES):
            l = &self.cpus[i // LANES].lanes[i % LANES]
            if l.ready and l.next_exit_ns <= final_before_ns:
                heap[n].exit_ns = l.next_exit_ns
                heap[n].lane = i
                n += 1
        for i in range(n // 2, 0, -1):
            heap_sink(heap, n, i - 1)
        while n:
            c = &self.cpus[heap[0].lane // LANES]
            which = heap[0].lane % LANES
            l = &c.lanes[which]
            limit_ns = final_before_ns
            for i in range(1, 3):
                if i < n and heap[i].exit_ns < limit_ns:
                    limit_ns = heap[i].exit_ns
            while l.ready and l.next_exit_ns <= limit_ns:  # a run of one lane: no need to look at the others
                if batch.n >= batch.capacity or batch.used_bytes + DT_MAX_PAYLOAD > batch.arena_bytes:
                    return
                counters[DT_COUNT_LATE] += l.next_exit_ns <= self.final_ns
                batch.at[batch.n] = <uint32_t> batch.used_bytes
                batch.used_bytes += l.next_payload
                lane_take(c, which, &batch.record[batch.n], batch.arena + batch.at[batch.n], counters)
                batch.n += 1
                lane_peek(c, which, counters)
            if l.ready and l.next_exit_ns <= final_before_ns:
                heap[0].exit_ns = l.next_exit_ns
            else:
                n -= 1
                heap[0] = heap[n]
            heap_sink(heap, n, 0)

    cdef void let_go(self, uint64_t final_before_ns) noexcept nogil:
        """Give the kernel the room of the samples that both lanes have left behind."""
        cdef uint32_t i
        cdef int which
        cdef lane *l
        cdef uint64_t tail
        cdef bint all_taken = True
        for i in range(self.n_cpus):
            tail = self.cpus[i].ring.head
            for which in range(LANES):
                l = &self.cpus[i].lanes[which]
                tail = l.at if l.at < tail else tail
                if l.ready and l.next_exit_ns <= final_before_ns:
                    all_taken = False
            dt_ring_set_tail(self.cpus[i].ring.page, tail)
        if all_taken and final_before_ns > self.final_ns:
            self.final_ns = final_before_ns

    def drain(self, uint64_t now_ns, *, bint final=False, uint32_t max_records=MAX_RECORDS,
              uint32_t max_bytes=MAX_BYTES) -> Batch:
        """Take the records that are FINAL_AFTER_NS old at now_ns (CLOCK_MONOTONIC, read before the call), oldest first, at most
        so many; younger ones stay where they are, but for final=True: then all up to now_ns are taken, as nothing will follow.
        While batches are not empty, drain again. Call release() on a batch when nothing of it is needed any more."""
        cdef uint64_t final_before_ns = now_ns if final else now_ns - min(now_ns, <uint64_t> FINAL_AFTER_NS)
        cdef Batch batch = None
        cdef uint64_t *counters = self.counters.slots
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
            self.let_go(final_before_ns)
        batch.sort()
        return batch

    cdef void refresh(self, uint64_t *counters) noexcept nogil:
        cdef uint32_t i
        for i in range(self.n_cpus):
            records_refresh(&self.cpus[i], counters)

    @property
    def fds(self):
        """The descriptors, for poll: readable when the kernel's wakeup threshold is reached."""
        return list(self.descriptors)

    def pending_bytes(self) -> dict:
        """{cpu: bytes that stand in its ring now}."""
        cdef uint32_t i
        return {
            self.cpus[i].cpu: dt_ring_head(self.cpus[i].ring.page) - dt_ring_tail(self.cpus[i].ring.page)
            for i in range(self.n_cpus)
        }

    def waiting(self) -> int:
        """Records that were emitted and not taken yet: the ledger's records_in_ring. Walks them."""
        cdef uint32_t i
        cdef uint64_t n = 0
        with nogil:
            self.refresh(self.counters.slots)
            for i in range(self.n_cpus):
                n += records_waiting(&self.cpus[i])
        return n

    def missed_records(self) -> dict:
        """{cpu: records that the probes emitted and that never came}, from jumps of cpu_count."""
        cdef uint32_t i
        cdef int which
        missed = {}
        for i in range(self.n_cpus):
            missed[self.cpus[i].cpu] = 0
            for which in range(LANES):
                missed[self.cpus[i].cpu] += self.cpus[i].lanes[which].missed
        return missed
