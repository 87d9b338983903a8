# SPDX-License-Identifier: Apache-2.0
# Cython's view of ext/include/dt_proto.h, where everything here is explained. A protocol file declares the attribute
# keys that it writes itself (`cdef extern from "dt_proto.h": enum: DT_ATTR_...`), so there is no second list of them.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "dt_proto.h" nogil:
    enum: DT_BAD, DT_MORE, DT_OK
    enum: DT_ROLE_REQUEST, DT_ROLE_RESPONSE
    enum: DT_PAIR_IN_ORDER, DT_PAIR_BY_ID
    enum: DT_MSG_REQUEST, DT_MSG_RESPONSE, DT_MSG_INTERIM, DT_MSG_ONE_WAY
    enum: DT_MSG_CUT, DT_MSG_ERROR_CLIENT, DT_MSG_ERROR_SERVER, DT_MSG_LOST, DT_MSG_UPGRADE
    enum: DT_BODY_NONE, DT_BODY_SIZE, DT_BODY_FRAMED, DT_BODY_EOF
    enum: DT_MSG_SLICES, DT_ATTR_MAX_TEXT, DT_ATTRS_MAX_BYTES, DT_ATTRS_RUN_BYTES

    ctypedef struct dt_buf:
        const uint8_t *data
        uint32_t size
        uint32_t at
        uint64_t missing
        uint8_t eof

    uint32_t buf_left(const dt_buf *b) noexcept
    bint buf_final(const dt_buf *b) noexcept
    const uint8_t *buf_take(dt_buf *b, uint32_t n) noexcept
    const uint8_t *buf_peek(const dt_buf *b, uint32_t n) noexcept
    int32_t buf_find(const dt_buf *b, uint8_t byte, uint32_t limit) noexcept
    const uint8_t *buf_line(dt_buf *b, uint32_t *n) noexcept

    ctypedef struct dt_slice:
        uint32_t at
        uint32_t size

    ctypedef struct dt_msg:
        uint8_t type
        uint8_t flags
        uint8_t body
        uint8_t hint
        int32_t status
        uint64_t body_size
        uint64_t id
        uint64_t state[4]
        uint64_t skip
        dt_slice slices[16]

    ctypedef struct dt_attrs:
        uint8_t *data
        uint32_t size
        uint32_t capacity
        uint32_t open
        uint32_t end

    void attrs_open(dt_attrs *a, uint16_t key) noexcept
    void attrs_put(dt_attrs *a, const uint8_t *text, uint32_t n) noexcept
    void attrs_close(dt_attrs *a) noexcept
    void attrs_text(dt_attrs *a, uint16_t key, const uint8_t *text, uint32_t n) noexcept
    void attrs_number(dt_attrs *a, uint16_t key, int64_t value) noexcept
    void attrs_reopen(dt_attrs *a, uint32_t n) noexcept
    bint attrs_run(dt_attrs *a, const uint8_t *run, uint32_t n) noexcept

    ctypedef struct dt_protocol:
        uint8_t id
        uint8_t pairing
        uint8_t evident
        int (*probe)(const uint8_t *p, uint32_t n, uint8_t role) noexcept nogil
        int (*frame)(dt_buf *b, uint8_t role, uint8_t hint, dt_msg *out) noexcept nogil
        int (*body)(dt_buf *b, uint8_t role, dt_msg *m) noexcept nogil
        uint32_t (*resync)(const uint8_t *p, uint32_t n, uint8_t role) noexcept nogil
        void (*attributes)(const uint8_t *head, const dt_msg *m, uint8_t role, dt_attrs *out) noexcept nogil
