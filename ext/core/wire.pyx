"""The shared layouts as numpy dtypes, and the tables of counters, syscalls and attribute names. Holds no state."""

import hashlib

import numpy as np

cimport dt_wire as w

cdef extern from *:
    """
    #include "dt_records.h"
    #include "dt_span.h"

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
    cdef w.dt_socket_info socket_info
    return (
        np.asarray(<w.dt_record[:1]> &record).dtype,
        np.asarray(<w.dt_span[:1]> &span).dtype,
        np.asarray(<w.dt_attribute[:1]> &attribute).dtype,
        np.asarray(<w.dt_config[:1]> &config).dtype,
        np.asarray(<w.dt_socket_info[:1]> &socket_info).dtype,
    )


RECORD_DTYPE, SPAN_DTYPE, ATTRIBUTE_DTYPE, CONFIG_DTYPE, SOCKET_INFO_DTYPE = _dtypes()

# What the C compiler says; the loader passes these to the probes, which assert them.
SIZEOFS = {
    "dt_quintuple": sizeof(w.dt_quintuple),
    "dt_record": sizeof(w.dt_record),
    "dt_socket_info": sizeof(w.dt_socket_info),
    "dt_inflight": sizeof(w.dt_inflight),
    "dt_config": sizeof(w.dt_config),
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
SEQ_SPACES = {w.DT_SEQ_NONE: "none", w.DT_SEQ_TCP: "tcp", w.DT_SEQ_TLS: "tls"}


def layout_hash(dtype) -> str:
    """16 hex digits over names, types and offsets of a dtype: equal only for equal layouts."""
    text = repr(sorted((name, str(field[0]), field[1]) for name, field in dtype.fields.items())) + str(dtype.itemsize)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
