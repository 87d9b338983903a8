# SPDX-License-Identifier: Apache-2.0
"""Joins each request of a flow with its response, in order, and ends those that get none. Never pairs across lost framing.

A request is in exactly one place: open, in a span, or counted as dropped. Pairing by id (multiplexed protocols) branches off
in find_asked(); everything else does not depend on the order.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from deeptrace.core.blocks cimport blocks_free, blocks_init
from deeptrace.core.counters cimport *
from deeptrace.core.exchange cimport *
from deeptrace.core.spans cimport outbox, span_write
from deeptrace.core.table cimport flow, flow_at, flow_table, recycle_parted
from dt_message cimport *
from dt_proto cimport DT_MSG_REQUEST, DT_MSG_RESPONSE
from dt_wire cimport DT_EGRESS, DT_INGRESS

cdef enum:
    MAX_OPEN_PER_FLOW = 4096  # pipelined requests; redis-benchmark -P 1000 is the deepest in use
    MAX_EARLY_PER_FLOW = 64  # responses whose request is still held in its stream

cdef enum:  # flow.pair_state
    PAIRING = 0
    DRAINING = 1  # requests may have been missed: those open keep their order, later ones are not paired
    BLIND = 2  # responses may have been missed: nothing is paired

cdef void pairing_init(pairing *p, flow_table *table, outbox *out, uint64_t pool_bytes) noexcept nogil:
    memset(p, 0, sizeof(pairing))
    p.table = table
    p.out = out
    p.counters = table.counters
    blocks_init(&p.pool, pool_bytes)


cdef void pairing_free(pairing *p) noexcept nogil:
    blocks_free(&p.pool)


# ---- how an exchange ends

cdef void settle(pairing *p, flow *f, exchange *x, uint8_t cause, uint64_t end_ns) noexcept nogil:
    """Write the span of an open exchange. cause, end_ns: for one whose response is not whole."""
    cdef bint answered = x.state & ANSWERED
    span_write(
        p.out, f, &x.request, x.request_blob, &x.response if answered else NULL, x.response_blob, cause,
        not x.state & ANSWERED_WHOLE, end_ns,
    )  # fmt: skip
    p.counters[DT_COUNT_SPANS_PAIRED if answered else DT_COUNT_SPANS_INCOMPLETE] += 1
    p.n_open -= 1
    if answered:
        p.n_answers_open -= 1


cdef void finish(pairing *p, flow *f, exchange *x) noexcept nogil:
    settle(p, f, x, DT_CAUSE_NONE, 0)
    unlink_open(f, x)
    exchange_free(&p.pool, x)


cdef void early_drop(pairing *p, flow *f, int counter) noexcept nogil:
    """The oldest early response gets no request."""
    cdef exchange *x = <exchange *> f.early_first
    f.early_first = x.next
    if x.next == NULL:
        f.early_last = NULL
    if f.answering == x:
        f.answering = NULL
    p.counters[counter] += 1
    p.n_answers_open -= 1
    exchange_free(&p.pool, x)


cdef void end_open(pairing *p, flow *f, uint8_t cause, uint64_t at_ns) noexcept nogil:
    """Nothing more will come for what is open: spans that say why."""
    cdef exchange *x
    while f.open_first != NULL:
        x = <exchange *> f.open_first
        if not x.state & SETTLED:
            settle(p, f, x, cause, at_ns)
        unlink_open(f, x)
        exchange_free(&p.pool, x)
    while f.early_first != NULL:
        early_drop(p, f, DT_COUNT_ORPHAN_RESPONSE)


cdef void drop_unanswered(pairing *p, flow *f) noexcept nogil:
    """Responses may have been missed: no open request can be told its own, but the one that is being answered."""
    cdef exchange *x = <exchange *> f.open_first
    cdef exchange *following
    while x != NULL:
        following = x.next
        if not x.state & ANSWERED:
            if not x.state & SETTLED:
                p.counters[DT_COUNT_REQUEST_UNPAIRED_AFTER_CUT] += 1
                p.n_open -= 1
            unlink_open(f, x)
            exchange_free(&p.pool, x)
        x = following
    while f.early_first != NULL:
        early_drop(p, f, DT_COUNT_RESPONSE_UNPAIRED_AFTER_CUT)


cdef void go_blind(pairing *p, flow *f) noexcept nogil:
    """It is not certain any more which response answers which request: wait until the connection is quiet."""
    f.pair_state = BLIND
    drop_unanswered(p, f)


# ---- requests

cdef bint precedes(const dt_message *request, const dt_message *response) noexcept nogil:
    """Whether a response can answer a request: it did not begin before it."""
    if request.direction == DT_EGRESS:
        return request.first_enter_ns <= response.first_exit_ns
    return request.first_exit_ns <= response.first_enter_ns


cdef bint adopt_early(pairing *p, flow *f, exchange *x) noexcept nogil:
    """Give the request the response that came first; True if the exchange is over."""
    cdef exchange *e
    cdef bint quiet
    while f.early_first != NULL:
        e = <exchange *> f.early_first
        if not precedes(&x.request, &e.response):
            quiet = x.request.first_enter_ns >= e.response.last_exit_ns + p.table.quiet_ns
            early_drop(p, f, DT_COUNT_ORPHAN_RESPONSE)
            if not quiet:  # it may have been meant for this request, or this one's answer came before it
                go_blind(p, f)
                return False
            continue
        f.early_first = e.next
        if e.next == NULL:
            f.early_last = NULL
        x.response = e.response
        x.response_blob = e.response_blob
        x.state |= e.state
        e.response_blob = NULL
        if f.answering == e:
            f.answering = x
        list_remove(x)
        exchange_free(&p.pool, e)
        return x.state & ANSWERED_WHOLE and x.state & ASKED_WHOLE
    return False


cdef void request_begin(pairing *p, flow *f, const dt_message *row) noexcept nogil:
    cdef exchange *x = NULL
    f.reading = NULL
    if f.pair_state != PAIRING:
        p.counters[DT_COUNT_REQUEST_UNPAIRED_AFTER_CUT] += 1
        return
    if f.n_open < MAX_OPEN_PER_FLOW and p.n_open < p.max_open:
        x = exchange_new(&p.pool)
    if x == NULL:
        p.counters[DT_COUNT_REQUEST_OVERFLOW] += 1
        f.pair_state = DRAINING  # its response would be taken for the next one's
        return
    x.state = ASKED
    x.request = row[0]
    x.request_blob = blob_copy(&p.pool, p.table.blob, &x.request)
    if f.open_last != NULL:
        (<exchange *> f.open_last).next = x
    else:
        f.open_first = x
    f.open_last = x
    f.n_open += 1
    p.n_open += 1
    list_add(&p.waiting, x, row.first_exit_ns)
    if row.event & DT_EVENT_END:
        x.state |= ASKED_WHOLE
    else:
        f.reading = x
    if f.early_first != NULL and adopt_early(p, f, x):
        finish(p, f, x)


cdef void message_update(dt_message *known, const dt_message *row) noexcept nogil:
    known.size = row.size
    known.last_enter_ns = row.last_enter_ns
    known.last_exit_ns = row.last_exit_ns
    known.last_tid = row.last_tid
    known.marks |= row.marks
    known.flags |= row.flags


cdef void request_end(pairing *p, flow *f, const dt_message *row) noexcept nogil:
    cdef exchange *x = <exchange *> f.reading
    if x == NULL:
        return
    f.reading = NULL
    x.state |= ASKED_WHOLE
    message_update(&x.request, row)
    if x.state & ANSWERED_WHOLE:
        finish(p, f, x)


# ---- responses

cdef exchange *find_asked(flow *f, const dt_message *row) noexcept nogil:
    """The exchange that a response belongs to: the oldest without one."""
    cdef exchange *x = <exchange *> f.open_first
    while x != NULL and x.state & ANSWERED:
        x = x.next
    if x != NULL and not precedes(&x.request, row):
        return NULL
    return x


cdef void early_add(pairing *p, flow *f, const dt_message *row) noexcept nogil:
    """A response without a request: its request may still be held in its stream."""
    cdef exchange *x = exchange_new(&p.pool)
    if x == NULL:
        p.counters[DT_COUNT_ORPHAN_RESPONSE] += 1
        return
    x.state = ANSWERED | (ANSWERED_WHOLE if row.event & DT_EVENT_END else 0)
    x.response = row[0]
    x.response_blob = blob_copy(&p.pool, p.table.blob, &x.response)
    if f.early_last != NULL:
        (<exchange *> f.early_last).next = x
    else:
        f.early_first = x
    f.early_last = x
    list_add(&p.early, x, row.last_exit_ns)
    p.n_answers_open += 1
    if not row.event & DT_EVENT_END:
        f.answering = x


cdef uint32_t count_early(flow *f) noexcept nogil:
    cdef uint32_t n = 0
    cdef exchange *x = <exchange *> f.early_first
    while x != NULL:
        n += 1
        x = x.next
    return n


cdef void response_begin(pairing *p, flow *f, const dt_message *row) noexcept nogil:
    cdef exchange *x = find_asked(f, row)
    f.answering = NULL
    if f.pair_state == BLIND or (x == NULL and f.pair_state == DRAINING):
        p.counters[DT_COUNT_RESPONSE_UNPAIRED_AFTER_CUT] += 1
        return
    if x == NULL:
        if f.early_first != NULL and count_early(f) >= MAX_EARLY_PER_FLOW:
            early_drop(p, f, DT_COUNT_ORPHAN_RESPONSE)
        early_add(p, f, row)
        return
    if x.state & SETTLED:
        p.counters[DT_COUNT_ORPHAN_RESPONSE] += 1
        unlink_open(f, x)
        exchange_free(&p.pool, x)
        return
    list_remove(x)
    x.state |= ANSWERED
    x.response = row[0]
    p.n_answers_open += 1
    if row.event & DT_EVENT_END:
        x.state |= ANSWERED_WHOLE
        if x.state & ASKED_WHOLE:  # the usual case: no copy of the response's attributes
            x.response_blob = p.table.blob + row.blob_at
            settle(p, f, x, DT_CAUSE_NONE, 0)
            x.response_blob = NULL
            unlink_open(f, x)
            exchange_free(&p.pool, x)
            return
    else:
        f.answering = x
    x.response_blob = blob_copy(&p.pool, p.table.blob, &x.response)


cdef void response_end(pairing *p, flow *f, const dt_message *row) noexcept nogil:
    cdef exchange *x = <exchange *> f.answering
    if x == NULL:
        return
    f.answering = NULL
    x.state |= ANSWERED_WHOLE
    message_update(&x.response, row)
    if x.state & ASKED_WHOLE:
        finish(p, f, x)


# ---- rows and deadlines

cdef void pair_expire(pairing *p, uint64_t now_ns) noexcept nogil:
    """End what has waited too long at now_ns. A response that has begun, or a request that goes on, is no timeout."""
    cdef exchange *x = <exchange *> p.waiting.first
    cdef flow *f
    while x != NULL and x.since_ns + p.timeout_ns <= now_ns:
        f = flow_at(p.table, x.request.flow)
        list_remove(x)
        if not x.state & ASKED_WHOLE:
            list_add(&p.waiting, x, now_ns)
        else:
            settle(p, f, x, DT_CAUSE_TIMEOUT, x.since_ns + p.timeout_ns)
            x.state |= SETTLED
            blobs_free(&p.pool, x)
        x = <exchange *> p.waiting.first
    x = <exchange *> p.early.first
    while x != NULL and x.since_ns + p.early_ns <= now_ns:
        f = flow_at(p.table, x.response.flow)
        early_drop(p, f, DT_COUNT_ORPHAN_RESPONSE)
        go_blind(p, f)
        x = <exchange *> p.early.first


cdef void pair_event(pairing *p, flow *f, const dt_message *row) noexcept nogil:
    """What happens to a connection as a whole."""
    if row.event == DT_EVENT_GAP:
        if row.type == DT_MSG_RESPONSE:
            go_blind(p, f)
        elif f.pair_state == PAIRING:
            f.pair_state = DRAINING
    else:
        end_open(p, f, row.cause, row.last_exit_ns)


cdef void pair_rows(pairing *p) noexcept nogil:
    """Take all rows of the table, in their order."""
    cdef uint32_t i
    cdef dt_message *row
    cdef flow *f
    for i in range(p.table.n_rows):
        row = &p.table.rows[i]
        f = flow_at(p.table, row.flow)
        if row.last_exit_ns > p.clock_ns:
            p.clock_ns = row.last_exit_ns
            pair_expire(p, p.clock_ns)
        if row.event & DT_EVENT_SYNC and f.pair_state != PAIRING:
            drop_unanswered(p, f)
            f.pair_state = PAIRING
        if row.type == DT_MSG_REQUEST and row.event & (DT_EVENT_BEGIN | DT_EVENT_END):
            if row.event & DT_EVENT_BEGIN:
                request_begin(p, f, row)
            else:
                request_end(p, f, row)
        elif row.event & (DT_EVENT_BEGIN | DT_EVENT_END):
            if row.event & DT_EVENT_BEGIN:
                response_begin(p, f, row)
            else:
                response_end(p, f, row)
        else:
            pair_event(p, f, row)
    p.table.n_rows = 0
    p.table.blob_size = 0
    recycle_parted(p.table)
