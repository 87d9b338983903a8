# SPDX-License-Identifier: Apache-2.0
"""Finds, makes and forgets flows, and holds the rows that go to pairing. Knows nothing of bytes or protocols.
A removed flow's slot is reused only after the rows that name it were read."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memset

from deeptrace.core.blocks cimport block_give, blocks_free, blocks_init
from deeptrace.core.hashing cimport hash_bytes, hash_finish, hash_step

cdef enum:
    CHUNK_FLOWS = 256  # flows allocated at once; flow_at() knows it
    FIRST_ROWS = 1024
    MAX_ROWS = 1 << 20  # rows of one drain; one record makes at most 16 Ki
    FIRST_BLOB = 1 << 16
    MAX_BLOB = 1 << 30
    FIRST_OWNERS = 1024
    AF_UNIX_NUMBER = 1
    IPPROTO_TCP_NUMBER = 6


cdef bint table_init(flow_table *t, uint32_t max_flows, uint64_t pool_bytes) noexcept nogil:
    cdef uint32_t size = 64
    while size < max_flows * 2:
        size <<= 1
    t.max_flows = max_flows
    t.index_mask = size - 1
    t.max_chunks = (max_flows + CHUNK_FLOWS - 1) // CHUNK_FLOWS
    t.index = <uint32_t *> calloc(size, sizeof(uint32_t))
    t.chunks = <flow **> calloc(t.max_chunks, sizeof(flow *))
    t.owners = <uint32_t *> calloc(FIRST_OWNERS * 2, sizeof(uint32_t))
    t.owner_mask = FIRST_OWNERS - 1
    t.rows = <dt_message *> calloc(FIRST_ROWS, sizeof(dt_message))
    t.row_capacity = FIRST_ROWS
    t.blob = <uint8_t *> calloc(FIRST_BLOB, 1)
    t.blob_capacity = FIRST_BLOB
    t.wishes = <limit_wish *> calloc(MAX_WISHES, sizeof(limit_wish))
    t.free_first = t.parted_first = t.lru_first = t.lru_last = NO_FLOW
    t.due_first = t.closing_first = t.closing_last = NO_FLOW
    blocks_init(&t.pool, pool_bytes)
    return (
        t.index != NULL and t.chunks != NULL and t.owners != NULL and t.rows != NULL and t.blob != NULL and t.wishes != NULL
    )


cdef void table_free(flow_table *t) noexcept nogil:
    cdef uint32_t i
    if t.chunks != NULL:
        for i in range(t.n_chunks):
            free(t.chunks[i])
    free(t.chunks)
    free(t.index)
    free(t.owners)
    free(t.rows)
    free(t.blob)
    free(t.wishes)
    blocks_free(&t.pool)
    t.chunks = NULL
    t.index = NULL
    t.owners = NULL
    t.rows = NULL
    t.blob = NULL
    t.wishes = NULL


cdef bint is_unix(const dt_quintuple *tuple) noexcept nogil:
    return tuple.family == AF_UNIX_NUMBER and tuple.l4_protocol == 0


cdef bint is_stream(const dt_quintuple *tuple) noexcept nogil:
    """Whether its bytes are a stream in each direction; other sockets move datagrams."""
    return tuple.l4_protocol == IPPROTO_TCP_NUMBER or is_unix(tuple)


cdef uint64_t flow_hash(uint64_t socket, const dt_quintuple *tuple, uint32_t netns) noexcept nogil:
    """Hash of (socket, namespace, addresses, ports, protocol); never 0. tcp_state is no part of it. A unix socket's is of the
    socket alone: it has one peer as long as it lives, and nothing else says that its address is another's now."""
    cdef uint64_t h = hash_step(hash_step(0, socket), netns)
    if is_unix(tuple):
        return hash_finish(hash_step(AF_UNIX_NUMBER, socket)) | 1
    h = hash_bytes(h, tuple.local_addr, 32)
    h = hash_step(h, (<uint64_t> tuple.local_port << 32) | (<uint64_t> tuple.peer_port << 16) | tuple.l4_protocol)
    return hash_finish(h) | 1


cdef flow *flow_find(flow_table *t, uint64_t key_hash, uint64_t socket, const dt_quintuple *tuple) noexcept nogil:
    cdef uint32_t i = <uint32_t> (key_hash >> 16) & t.index_mask
    cdef flow *f
    while t.index[i]:
        f = flow_at(t, t.index[i] - 1)
        if (
            f.key_hash == key_hash
            and f.socket == socket
            and f.tuple.local_port == tuple.local_port
            and f.tuple.peer_port == tuple.peer_port
            and (memcmp(f.tuple.local_addr, tuple.local_addr, 32) == 0 or is_unix(tuple))
        ):
            return f
        i = (i + 1) & t.index_mask
    return NULL


cdef flow *take_slot(flow_table *t) noexcept nogil:
    cdef uint32_t slot
    cdef flow *f
    if t.free_first != NO_FLOW:
        f = flow_at(t, t.free_first)
        slot = f.slot
        t.free_first = f.lru_next
    else:
        if t.n_slots == t.n_chunks * CHUNK_FLOWS:
            if t.n_chunks == t.max_chunks:
                return NULL
            t.chunks[t.n_chunks] = <flow *> calloc(CHUNK_FLOWS, sizeof(flow))
            if t.chunks[t.n_chunks] == NULL:
                return NULL
            t.n_chunks += 1
        slot = t.n_slots
        t.n_slots += 1
        f = flow_at(t, slot)
    memset(f, 0, sizeof(flow))
    f.slot = slot
    return f


cdef flow *flow_add(flow_table *t, uint64_t key_hash, uint64_t socket, const dt_quintuple *tuple, uint32_t netns,
                    uint64_t now_ns) noexcept nogil:
    """A new flow, most recently used; NULL when there is no slot (the caller evicts and drains first)."""
    cdef uint32_t i = <uint32_t> (key_hash >> 16) & t.index_mask
    cdef flow *f = take_slot(t)
    if f == NULL:
        return NULL
    while t.index[i]:
        i = (i + 1) & t.index_mask
    t.index[i] = f.slot + 1
    t.n_flows += 1
    f.in_use = 1
    f.key_hash = key_hash
    f.socket = socket
    f.tuple = tuple[0]
    f.netns = netns
    f.opened_ns = f.last_ns = now_ns
    f.last_direction = f.request_direction = UNKNOWN_DIRECTION
    f.connection_id = hash_finish(hash_step(hash_step(t.boot_hash, key_hash), now_ns)) | 1
    f.due_next = f.due_previous = f.closing_next = NO_FLOW
    f.lru_next = NO_FLOW
    f.lru_previous = t.lru_last
    if t.lru_last != NO_FLOW:
        flow_at(t, t.lru_last).lru_next = f.slot
    else:
        t.lru_first = f.slot
    t.lru_last = f.slot
    return f


cdef void lru_unlink(flow_table *t, flow *f) noexcept nogil:
    if f.lru_previous != NO_FLOW:
        flow_at(t, f.lru_previous).lru_next = f.lru_next
    else:
        t.lru_first = f.lru_next
    if f.lru_next != NO_FLOW:
        flow_at(t, f.lru_next).lru_previous = f.lru_previous
    else:
        t.lru_last = f.lru_previous


cdef void flow_touch(flow_table *t, flow *f) noexcept nogil:
    """Make a flow the most recently used one."""
    if t.lru_last == f.slot:
        return
    lru_unlink(t, f)
    f.lru_next = NO_FLOW
    f.lru_previous = t.lru_last
    flow_at(t, t.lru_last).lru_next = f.slot
    t.lru_last = f.slot


cdef void index_remove(flow_table *t, flow *f) noexcept nogil:
    cdef uint32_t i = <uint32_t> (f.key_hash >> 16) & t.index_mask
    cdef uint32_t j, home
    while t.index[i] != f.slot + 1:
        i = (i + 1) & t.index_mask
    j = i
    while True:  # close the hole: no tombstones, so that lookups stay short
        j = (j + 1) & t.index_mask
        if t.index[j] == 0:
            break
        home = <uint32_t> (flow_at(t, t.index[j] - 1).key_hash >> 16) & t.index_mask
        if ((j - home) & t.index_mask) >= ((j - i) & t.index_mask):
            t.index[i] = t.index[j]
            i = j
    t.index[i] = 0


cdef void flow_remove(flow_table *t, flow *f) noexcept nogil:
    """Forget a flow. Its streams hold no memory any more; the pair stage still reads the slot when it sees its CLOSE row."""
    index_remove(t, f)
    lru_unlink(t, f)
    due_remove(t, f)
    flow_own(t, f, 0)
    if f.hints != NULL:
        block_give(&t.pool, f.hints, f.hint_capacity)
        f.hints = NULL
    flow_captured(t, f, CAPTURE_DEFAULT)
    f.in_use = 0
    f.lru_next = t.parted_first
    t.parted_first = f.slot
    t.n_flows -= 1


cdef void flow_captured(flow_table *t, flow *f, uint8_t capture) noexcept nogil:
    """Note what was asked of the probes for a flow, and count how many flows have it."""
    t.n_raised -= f.capture == CAPTURE_RAISED
    t.n_muted -= f.capture == CAPTURE_MUTED
    f.capture = capture
    t.n_raised += capture == CAPTURE_RAISED
    t.n_muted += capture == CAPTURE_MUTED


cdef void recycle_parted(flow_table *t) noexcept nogil:
    """Make the slots of removed flows free. Call when no row names them any more."""
    cdef uint32_t following
    cdef flow *f
    while t.parted_first != NO_FLOW:
        f = flow_at(t, t.parted_first)
        following = f.lru_next
        f.lru_next = t.free_first
        t.free_first = f.slot
        t.parted_first = following


cdef bint owners_grow(flow_table *t) noexcept nogil:
    cdef uint32_t old_mask = t.owner_mask
    cdef uint32_t mask = old_mask
    cdef uint32_t *old = t.owners
    cdef uint32_t *bigger
    cdef uint32_t i, j
    t.n_owners = 0
    for i in range(old_mask + 1):
        t.n_owners += old[2 * i + 1] != 0
    if t.n_owners * 4 > mask:
        mask = mask * 2 + 1
    bigger = <uint32_t *> calloc((<uint64_t> mask + 1) * 2, sizeof(uint32_t))
    if bigger == NULL:
        return False
    t.n_owners = 0
    for i in range(old_mask + 1):
        if old[2 * i] and old[2 * i + 1]:  # owners of nothing are left behind
            j = (old[2 * i] * <uint32_t> 0x9E3779B1) & mask
            while bigger[2 * j]:
                j = (j + 1) & mask
            bigger[2 * j] = old[2 * i]
            bigger[2 * j + 1] = old[2 * i + 1]
            t.n_owners += 1
    t.owners = bigger
    t.owner_mask = mask
    free(old)
    return True


cdef uint32_t *owner_slot(flow_table *t, uint32_t tgid) noexcept nogil:
    """The number of flows of a process, made when it is not there; NULL without memory."""
    cdef uint32_t i
    if t.n_owners * 2 > t.owner_mask and not owners_grow(t):
        return NULL
    i = (tgid * <uint32_t> 0x9E3779B1) & t.owner_mask
    while t.owners[2 * i] and t.owners[2 * i] != tgid:
        i = (i + 1) & t.owner_mask
    if t.owners[2 * i] == 0:
        t.owners[2 * i] = tgid
        t.n_owners += 1
    return &t.owners[2 * i + 1]


cdef uint32_t owned_flows(flow_table *t, uint32_t tgid) noexcept nogil:
    cdef uint32_t i = (tgid * <uint32_t> 0x9E3779B1) & t.owner_mask
    while t.owners[2 * i]:
        if t.owners[2 * i] == tgid:
            return t.owners[2 * i + 1]
        i = (i + 1) & t.owner_mask
    return 0


cdef void flow_own(flow_table *t, flow *f, uint32_t tgid) noexcept nogil:
    """Say whose call moved the flow's last bytes; 0: nobody's any more."""
    cdef uint32_t *n
    if f.tgid == tgid:
        return
    if f.tgid:
        n = owner_slot(t, f.tgid)
        if n != NULL and n[0]:
            n[0] -= 1
        if tgid:
            f.shared = 1
    f.tgid = tgid
    if tgid:
        n = owner_slot(t, tgid)
        if n != NULL:
            n[0] += 1


cdef void due_add(flow_table *t, flow *f) noexcept nogil:
    if f.in_due:
        return
    f.in_due = 1
    f.due_previous = NO_FLOW
    f.due_next = t.due_first
    if t.due_first != NO_FLOW:
        flow_at(t, t.due_first).due_previous = f.slot
    t.due_first = f.slot


cdef void due_remove(flow_table *t, flow *f) noexcept nogil:
    if not f.in_due:
        return
    f.in_due = 0
    if f.due_previous != NO_FLOW:
        flow_at(t, f.due_previous).due_next = f.due_next
    else:
        t.due_first = f.due_next
    if f.due_next != NO_FLOW:
        flow_at(t, f.due_next).due_previous = f.due_previous


cdef dt_message *row_add(flow_table *t) noexcept nogil:
    """A new row, zeroed; NULL without memory (then out_of_memory is set and the pass ends with an exception)."""
    cdef dt_message *rows
    if t.n_rows == t.row_capacity:
        rows = NULL
        if t.row_capacity < MAX_ROWS:
            rows = <dt_message *> realloc(t.rows, (<uint64_t> t.row_capacity) * 2 * sizeof(dt_message))
        if rows == NULL:
            t.out_of_memory = 1
            return NULL
        t.rows = rows
        t.row_capacity *= 2
    memset(&t.rows[t.n_rows], 0, sizeof(dt_message))
    t.n_rows += 1
    return &t.rows[t.n_rows - 1]


cdef uint8_t *blob_room(flow_table *t, uint32_t size) noexcept nogil:
    """Room for `size` bytes at blob[blob_size]; NULL without memory. The caller advances blob_size by what it used."""
    cdef uint32_t capacity = t.blob_capacity
    cdef uint8_t *blob
    if t.blob_size + size > capacity:
        while capacity < t.blob_size + size and capacity < MAX_BLOB:
            capacity *= 2
        blob = <uint8_t *> realloc(t.blob, capacity) if t.blob_size + size <= capacity else NULL
        if blob == NULL:
            t.out_of_memory = 1
            return NULL
        t.blob = blob
        t.blob_capacity = capacity
    return t.blob + t.blob_size
