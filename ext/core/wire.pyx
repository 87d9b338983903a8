"""The shared layouts as numpy dtypes, and the tables of counters, syscalls and attribute names. Holds no state."""

import hashlib

import numpy as np

cimport dt_wire as w

cdef extern from *:
    """
    #include "dt_records.h"
    #include "dt_span.h"
    #include <stddef.h>

    typedef struct { int number; const char *name, *stage, *kind, *help; } dt_counter_row;
    static const dt_counter_row dt_counter_rows[] = {
    #define DT_COUNTER(number, name, stage, kind, help) { number, #name, #stage, #kind, help },
    #include "counters.def"
    #undef DT_COUNTER
        { 0, 0, 0, 0, 0 },
    };

    typedef struct { int number; const char *id, *name, *type; } dt_attribute_row;
    static const dt_attribute_row dt_attribute_rows[] = {
    #define DT_ATTRIBUTE(number, id, name, type) { number, #id, name, #type },
    #include "attributes.def"
    #undef DT_ATTRIBUTE
        { 0, 0, 0, 0 },
    };

    typedef struct { int number; const char *name; int direction; } dt_syscall_row;
    static const dt_syscall_row dt_syscall_rows[] = {
    #define DT_SYSCALL(number, name, direction, ...) { number, #name, DT_##direction },
    #include "syscalls.def"
    #undef DT_SYSCALL
        { 0, 0, 0 },
    };
    """
    enum: THREAD_TID "offsetof(struct dt_thread, tid)"
    enum: THREAD_ENTER_NS "offsetof(struct dt_thread, call.enter_ns)"
    enum: THREAD_CALL_FLAGS "offsetof(struct dt_thread, call.flags)"
    enum: BATCH_GENERATION "offsetof(struct dt_batch, generation)"
    enum: BATCH_USED "offsetof(struct dt_batch, used)"
    enum: BATCH_AT "offsetof(struct dt_batch, bytes)"
    enum: BATCH_ROOM "sizeof(((struct dt_batch *)0)->bytes)"
    ctypedef struct dt_counter_row:
        int number
        const char *name
        const char *stage
        const char *kind
        const char *help
    ctypedef struct dt_attribute_row:
        int number
        const char *id
        const char *name
        const char *type
    ctypedef struct dt_syscall_row:
        int number
        const char *name
        int direction
    dt_counter_row dt_counter_rows[]
    dt_attribute_row dt_attribute_rows[]
    dt_syscall_row dt_syscall_rows[]


def _dtypes():
    cdef w.dt_record record
    cdef w.dt_span span
    cdef w.dt_attribute attribute
    cdef w.dt_config config
    cdef w.dt_limit limit
    cdef w.dt_process process
    cdef w.dt_log log
    cdef w.dt_counts counts
    cdef w.dt_file_id file_id
    cdef w.dt_endpoint endpoint
    return {
        "dt_record": np.asarray(<w.dt_record[:1]> &record).dtype,
        "dt_span": np.asarray(<w.dt_span[:1]> &span).dtype,
        "dt_attribute": np.asarray(<w.dt_attribute[:1]> &attribute).dtype,
        "dt_config": np.asarray(<w.dt_config[:1]> &config).dtype,
        "dt_limit": np.asarray(<w.dt_limit[:1]> &limit).dtype,
        "dt_process": np.asarray(<w.dt_process[:1]> &process).dtype,
        "dt_log": np.asarray(<w.dt_log[:1]> &log).dtype,
        "dt_counts": np.asarray(<w.dt_counts[:1]> &counts).dtype,
        "dt_file_id": np.asarray(<w.dt_file_id[:1]> &file_id).dtype,
        "dt_endpoint": np.asarray(<w.dt_endpoint[:1]> &endpoint).dtype,
    }


def _part(size, fields):
    """A dtype of some fields of a struct, {name: (type, offset)}."""
    return np.dtype({
        "names": list(fields),
        "formats": [kind for kind, _ in fields.values()],
        "offsets": [offset for _, offset in fields.values()],
        "itemsize": size,
    })


DTYPES = _dtypes()  # by the struct's name in C
RECORD_DTYPE = DTYPES["dt_record"]
SPAN_DTYPE = DTYPES["dt_span"]
ATTRIBUTE_DTYPE = DTYPES["dt_attribute"]
CONFIG_DTYPE = DTYPES["dt_config"]
LIMIT_DTYPE = DTYPES["dt_limit"]
THREAD_DTYPE = _part(
    sizeof(w.dt_thread), {"tid": ("=u4", THREAD_TID), "enter_ns": ("=u8", THREAD_ENTER_NS), "call_flags": ("=u2", THREAD_CALL_FLAGS)}
)
PROCESS_DTYPE = DTYPES["dt_process"]
LOG_DTYPE = DTYPES["dt_log"]
BATCH_DTYPE = _part(
    sizeof(w.dt_batch), {"generation": ("=u8", BATCH_GENERATION), "used": ("=u8", BATCH_USED), "bytes": (("u1", BATCH_ROOM), BATCH_AT)}
)
COUNTS_DTYPE = DTYPES["dt_counts"]
FILE_ID_DTYPE = DTYPES["dt_file_id"]

# What the C compiler says; the loader passes these to the probes, which assert them.
SIZEOFS = {
    "dt_quintuple": sizeof(w.dt_quintuple),
    "dt_record": sizeof(w.dt_record),
    "dt_socket_info": sizeof(w.dt_socket_info),
    "dt_limit": sizeof(w.dt_limit),
    "dt_inflight": sizeof(w.dt_inflight),
    "dt_thread": sizeof(w.dt_thread),
    "dt_process": sizeof(w.dt_process),
    "dt_log": sizeof(w.dt_log),
    "dt_batch": sizeof(w.dt_batch),
    "dt_counts": sizeof(w.dt_counts),
    "dt_config": sizeof(w.dt_config),
    "dt_file_id": sizeof(w.dt_file_id),
    "dt_endpoint": sizeof(w.dt_endpoint),
}


# Enumerations of dt_records.h that Python code needs, under their names there.
KIND_DATA, KIND_CONN, KIND_PROC, KIND_LOG = w.DT_KIND_DATA, w.DT_KIND_CONN, w.DT_KIND_PROC, w.DT_KIND_LOG
PID_TRACE, PID_DENY, PID_FOLLOW = w.DT_PID_TRACE, w.DT_PID_DENY, w.DT_PID_FOLLOW
LIMIT_EVERY, LIMIT_DEFAULT, LIMIT_MUTE = w.DT_LIMIT_EVERY, <unsigned int> w.DT_LIMIT_DEFAULT, <unsigned int> w.DT_LIMIT_MUTE
RULES_COMM, RULES_EXE, RULES_CGROUP, RULES_PORT = w.DT_RULES_COMM, w.DT_RULES_EXE, w.DT_RULES_CGROUP, w.DT_RULES_PORT
RULES_ALLOW_PROCESS, RULES_ALLOW_PORT = w.DT_RULES_ALLOW_PROCESS, w.DT_RULES_ALLOW_PORT
RULE_ALLOW, RULE_DENY = w.DT_RULE_ALLOW, w.DT_RULE_DENY
CALL_BLOCKED = w.DT_CALL_BLOCKED
LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG = w.DT_LOG_ERROR, w.DT_LOG_WARNING, w.DT_LOG_INFO, w.DT_LOG_DEBUG
MAX_PAYLOAD, BATCH_BYTES = w.DT_MAX_PAYLOAD, w.DT_BATCH_BYTES
RECORD_FLAGS = {
    "seq_valid": w.DT_RECORD_SEQ_VALID,
    "seq_ambiguous": w.DT_RECORD_SEQ_AMBIGUOUS,
    "peek": w.DT_RECORD_PEEK,
    "truncated": w.DT_RECORD_TRUNCATED,
    "read_fault": w.DT_RECORD_READ_FAULT,
    "enter_missed": w.DT_RECORD_ENTER_MISSED,
    "first": w.DT_RECORD_FIRST,
    "fresh": w.DT_RECORD_FRESH,
    "counted": w.DT_RECORD_COUNTED,
    "uring": w.DT_RECORD_URING,
}


def _rows():
    cdef int i = 0
    counters, attributes, syscalls = [], [], []
    while dt_counter_rows[i].name != NULL:
        r = dt_counter_rows[i]
        counters.append((r.number, r.name.decode().lower(), r.stage.decode(), r.kind.decode(), r.help.decode()))
        i += 1
    i = 0
    while dt_attribute_rows[i].name != NULL:
        a = dt_attribute_rows[i]
        attributes.append((a.number, a.id.decode(), a.name.decode(), a.type.decode()))
        i += 1
    i = 0
    while dt_syscall_rows[i].name != NULL:
        s = dt_syscall_rows[i]
        syscalls.append((s.number, s.name.decode(), "egress" if s.direction == w.DT_EGRESS else "ingress"))
        i += 1
    return tuple(counters), tuple(attributes), tuple(syscalls)


COUNTER_ROWS, ATTRIBUTE_ROWS, SYSCALL_ROWS = _rows()

SPAN_FLAGS = {
    "cut": w.DT_SPAN_CUT,
    "gap": w.DT_SPAN_GAP,
    "mid_stream": w.DT_SPAN_MID_STREAM,
    "incomplete": w.DT_SPAN_INCOMPLETE,
    "seq_ambiguous": w.DT_SPAN_SEQ_AMBIGUOUS,
    "clock_uncertain": w.DT_SPAN_CLOCK_UNCERTAIN,
}
SPAN_KINDS = {w.DT_SPAN_SERVER: "SERVER", w.DT_SPAN_CLIENT: "CLIENT", w.DT_SPAN_PRODUCER: "PRODUCER", w.DT_SPAN_CONSUMER: "CONSUMER"}
SPAN_STATUSES = {w.DT_STATUS_UNSET: "unset", w.DT_STATUS_ERROR: "error"}
SEQ_SPACES = {w.DT_SEQ_NONE: "none", w.DT_SEQ_TCP: "tcp", w.DT_SEQ_TLS: "tls", w.DT_SEQ_UNIX: "unix"}


def layout_hash(dtype) -> str:
    """16 hex digits over names, types and offsets of a dtype: equal only for equal layouts."""
    text = repr(sorted((name, str(field[0]), field[1]) for name, field in dtype.fields.items())) + str(dtype.itemsize)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
