# SPDX-License-Identifier: Apache-2.0
"""Writes span rows, their attributes and strings into the output. Times stay CLOCK_MONOTONIC until take().

Meaning of the times and threads (a CLIENT asks on egress, a SERVER is asked on ingress):
    CLIENT start = enter of the write with the request's first byte, request_end = exit of the write with its last,
           response_start and end = exit of the reads with the response's first and last byte; req_tid: first writer.
    SERVER start = exit of the read with the request's first byte, request_end = exit of the read with its last,
           response_start = enter of the write with the response's first byte, end = exit of the write with its last;
           req_tid: the reader that completed the request's head.
    resp_tid is the thread that moved the response's first byte, on both sides.
Without a whole response, end is when that became certain: the close, the deadline, the exit, or the last byte seen.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset, strlen

from deeptrace.core.hashing cimport hash_bytes, hash_finish, hash_step
from deeptrace.core.strings cimport intern, reserve, strings_clear, strings_free, strings_init
from deeptrace.core.table cimport *
from dt_message cimport *
from dt_proto cimport DT_MSG_ERROR_CLIENT, DT_MSG_ERROR_SERVER
from dt_wire cimport *

cdef extern from *:
    """
    #include <stdint.h>
    enum {
    #define DT_ATTRIBUTE(number, NAME, text, type) DT_KEY_##NAME = number,
    #include "attributes.def"
    #undef DT_ATTRIBUTE
    };
    enum { DT_TYPE_TEXT, DT_TYPE_NUMBER, DT_TYPE_ID };
    static inline int dt_attribute_is_number(uint16_t key)
    {
    	switch (key) {
    #define DT_ATTRIBUTE(number, NAME, text, type) case number: return DT_TYPE_##type == DT_TYPE_NUMBER;
    #include "attributes.def"
    #undef DT_ATTRIBUTE
    	}
    	return 0;
    }
    """
    enum: DT_KEY_SPAN_NAME, DT_KEY_ERROR_TYPE, DT_KEY_NETWORK_TRANSPORT
    bint dt_attribute_is_number(uint16_t key) nogil

cdef enum:
    MAX_ATTRIBUTES = 128  # per span: OTLP's limit
    FIRST_PIDS = 256

cdef const char **CAUSES = ["", "connection_closed", "connection_reset", "process_exited", "timeout"]


cdef bint outbox_init(outbox *o, uint64_t boot_hash) noexcept nogil:
    memset(o, 0, sizeof(outbox))
    o.boot_hash = boot_hash
    o.pid_mask = FIRST_PIDS * 2 - 1
    o.pid_index = <uint32_t *> calloc(o.pid_mask + 1, sizeof(uint32_t))
    return strings_init(&o.strings) and o.pid_index != NULL


cdef void outbox_free(outbox *o) noexcept nogil:
    strings_free(&o.strings)
    free(o.spans)
    free(o.attributes)
    free(o.pids)
    free(o.pid_index)
    memset(o, 0, sizeof(outbox))


cdef void outbox_clear(outbox *o) noexcept nogil:
    strings_clear(&o.strings)
    memset(o.pid_index, 0, (<uint64_t> o.pid_mask + 1) * sizeof(uint32_t))
    o.n_spans = o.n_attributes = o.n_pids = 0


cdef bint pids_grow(outbox *o) noexcept nogil:
    cdef uint32_t mask = o.pid_mask * 2 + 1
    cdef uint32_t *index = <uint32_t *> calloc(<uint64_t> mask + 1, sizeof(uint32_t))
    cdef uint32_t i, j
    if index == NULL:
        return False
    for i in range(o.n_pids):
        j = (o.pids[i] * <uint32_t> 0x9E3779B1) & mask
        while index[j]:
            j = (j + 1) & mask
        index[j] = i + 1
    free(o.pid_index)
    o.pid_index = index
    o.pid_mask = mask
    return True


cdef uint32_t process_row(outbox *o, uint32_t pid) noexcept nogil:
    """Row of a process in this output's table of pids."""
    cdef uint32_t i = (pid * <uint32_t> 0x9E3779B1) & o.pid_mask
    while o.pid_index[i]:
        if o.pids[o.pid_index[i] - 1] == pid:
            return o.pid_index[i] - 1
        i = (i + 1) & o.pid_mask
    if not reserve(<void **> &o.pids, &o.pid_capacity, o.n_pids + 1, sizeof(uint32_t)):
        o.out_of_memory = 1
        return 0
    o.pids[o.n_pids] = pid
    o.n_pids += 1
    o.pid_index[i] = o.n_pids
    if o.n_pids * 2 > o.pid_mask and not pids_grow(o):
        o.out_of_memory = 1
    return o.n_pids - 1


cdef void attributes_write(outbox *o, dt_span *span, const uint8_t *blob, uint32_t size) noexcept nogil:
    """Turn a run of {u16 key, u16 size, bytes} into attribute rows; keys below 16 are columns of the span."""
    cdef uint32_t at = 0
    cdef uint16_t head[2]
    cdef dt_attribute *row
    while at + 4 <= size:
        memcpy(head, blob + at, 4)
        at += 4
        if head[0] == DT_KEY_SPAN_NAME:
            span.name = intern(&o.strings, blob + at, head[1])
        elif head[0] == DT_KEY_ERROR_TYPE:
            if span.status == DT_STATUS_ERROR:
                span.error_type = intern(&o.strings, blob + at, head[1])
        elif span.attr_count < MAX_ATTRIBUTES and o.n_attributes < o.attribute_capacity:
            row = &o.attributes[o.n_attributes]
            row.key = head[0]
            row.text = 0
            row.number = 0
            if dt_attribute_is_number(head[0]):
                if head[1] == 8:
                    memcpy(&row.number, blob + at, 8)
            else:
                row.text = intern(&o.strings, blob + at, head[1])
            o.n_attributes += 1
            span.attr_count += 1
        at += head[1]


cdef void attribute_add(outbox *o, dt_span *span, uint16_t key, const char *text) noexcept nogil:
    """One attribute that no message names; there is room for MAX_ATTRIBUTES of a span."""
    cdef dt_attribute *row = &o.attributes[o.n_attributes]
    row.key = key
    row.text = intern(&o.strings, <const uint8_t *> text, <uint32_t> strlen(text))
    row.number = 0
    o.n_attributes += 1
    span.attr_count += 1


cdef void fill_ends(outbox *o, dt_span *span, const flow *f) noexcept nogil:
    """Who talks to whom. Of unix sockets only that two ends are each other's: addresses of the kernel are nobody's business."""
    cdef uint64_t ends[2]
    span.netns = f.netns
    span.connection_id = f.connection_id
    span.local_port = f.tuple.local_port
    span.peer_port = f.tuple.peer_port
    if not is_unix(&f.tuple):
        memcpy(span.local_addr, f.tuple.local_addr, 16)
        memcpy(span.peer_addr, f.tuple.peer_addr, 16)
        return
    memcpy(&ends[0], f.tuple.local_addr, 8)
    memcpy(&ends[1], f.tuple.peer_addr, 8)
    ends[0] = hash_finish(hash_step(o.boot_hash, ends[0]))
    ends[1] = hash_finish(hash_step(o.boot_hash, ends[1]))
    memcpy(span.local_addr, &ends[0], 8)
    memcpy(span.peer_addr, &ends[1], 8)


cdef uint64_t span_hash(const outbox *o, const dt_span *span) noexcept nogil:
    """hash64(boot id, netns, tuple, request position, stream id, kind, request start), as dt_span.h says; never 0."""
    cdef uint64_t h = hash_step(o.boot_hash, span.netns)
    h = hash_bytes(h, span.local_addr, 32)  # and peer_addr, which follows
    h = hash_step(h, (<uint64_t> span.local_port << 16) | span.peer_port)
    h = hash_step(h, (<uint64_t> span.req_seq << 32) | span.stream_id)
    h = hash_finish(hash_step(hash_step(h, span.kind), span.start_ns))
    return h if h else 1


cdef void fill_times(dt_span *span, const dt_message *request, const dt_message *response, bint incomplete,
                     uint64_t end_ns) noexcept nogil:
    cdef bint server = span.kind == DT_SPAN_SERVER
    span.start_ns = request.first_exit_ns if server else request.first_enter_ns
    span.request_end_ns = request.last_exit_ns
    span.req_tid = request.head_tid if server else request.first_tid
    span.end_ns = end_ns
    if response != NULL:
        span.response_start_ns = response.first_enter_ns if server else response.first_exit_ns
        if not incomplete:
            span.end_ns = response.last_exit_ns
        span.resp_tid = response.first_tid
        span.resp_seq = <uint32_t> response.position
        span.response_bytes = response.size
    if span.end_ns < span.start_ns:
        span.end_ns = span.start_ns


cdef void fill_flags(dt_span *span, flow *f, const dt_message *request, const dt_message *response,
                     bint incomplete) noexcept nogil:
    cdef uint8_t marks = request.marks | (response.marks if response != NULL else 0)
    span.seq_space = DT_SEQ_NONE if marks & DT_MARK_NO_SEQ else DT_SEQ_TCP
    if is_unix(&f.tuple):
        span.seq_space = DT_SEQ_UNIX
        marks |= DT_MARK_AMBIGUOUS if marks & DT_MARK_NO_SEQ else 0
    if marks & DT_MARK_AMBIGUOUS:
        span.flags |= DT_SPAN_SEQ_AMBIGUOUS
    if marks & DT_MARK_CUT:
        span.flags |= DT_SPAN_CUT
    if marks & DT_MARK_GAP:
        span.flags |= DT_SPAN_GAP
    if f.mid_stream:
        span.flags |= DT_SPAN_MID_STREAM
    if incomplete:
        span.flags |= DT_SPAN_INCOMPLETE


cdef void span_write(outbox *o, flow *f, const dt_message *request, const uint8_t *request_blob,
                     const dt_message *response, const uint8_t *response_blob, uint8_t cause, bint incomplete,
                     uint64_t end_ns) noexcept nogil:
    """One span. response: NULL if none was seen; cause and end_ns: why and when it ended, if incomplete."""
    cdef dt_span *span
    cdef uint8_t errors = (request.flags | (response.flags if response != NULL else 0))
    if not (
        reserve(<void **> &o.spans, &o.span_capacity, o.n_spans + 1, sizeof(dt_span))
        and reserve(<void **> &o.attributes, &o.attribute_capacity, o.n_attributes + MAX_ATTRIBUTES, sizeof(dt_attribute))
    ):
        o.out_of_memory = 1
        return
    span = &o.spans[o.n_spans]
    memset(span, 0, sizeof(dt_span))
    span.kind = DT_SPAN_SERVER if request.direction == DT_INGRESS else DT_SPAN_CLIENT
    span.protocol = request.protocol
    fill_ends(o, span, f)
    span.pid = request.tgid
    span.req_seq = <uint32_t> request.position
    span.request_bytes = request.size
    span.weight = 1
    fill_times(span, request, response, incomplete, end_ns)
    fill_flags(span, f, request, response, incomplete)
    if not f.first_done:
        f.first_done = 1
        span.connect_ns = f.connect_ns
        span.connect_tid = f.connect_tid
    span.span_id = span_hash(o, span)
    if errors & (DT_MSG_ERROR_SERVER if span.kind == DT_SPAN_SERVER else DT_MSG_ERROR_CLIENT):
        span.status = DT_STATUS_ERROR
    span.attr_first = o.n_attributes
    if span.seq_space == DT_SEQ_UNIX:
        attribute_add(o, span, DT_KEY_NETWORK_TRANSPORT, "unix")
    attributes_write(o, span, request_blob, request.blob_size)
    if response != NULL:
        attributes_write(o, span, response_blob, response.blob_size)
    if incomplete and cause != DT_CAUSE_NONE:
        span.status = DT_STATUS_ERROR
        span.error_type = intern(&o.strings, <const uint8_t *> CAUSES[cause], <uint32_t> strlen(CAUSES[cause]))
    span.process = process_row(o, span.pid)
    o.n_spans += 1
