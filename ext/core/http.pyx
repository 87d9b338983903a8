# SPDX-License-Identifier: Apache-2.0
"""What an HTTP request or response of any version says as attributes (RFC 9110; OpenTelemetry 1.44). Frames nothing."""

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memchr, memcmp, memcpy

from deeptrace.core.url cimport put_authority, put_path_and_query
from dt_proto cimport *

cdef extern from "dt_proto.h" nogil:
    enum: DT_ATTR_SPAN_NAME, DT_ATTR_ERROR_TYPE, DT_ATTR_HTTP_REQUEST_METHOD, DT_ATTR_HTTP_REQUEST_METHOD_ORIGINAL
    enum: DT_ATTR_HTTP_RESPONSE_STATUS_CODE, DT_ATTR_URL_SCHEME
    enum: DT_ATTR_USER_AGENT_ORIGINAL, DT_ATTR_NETWORK_PROTOCOL_VERSION
    enum: DT_ATTR_TRACEPARENT, DT_ATTR_B3, DT_ATTR_X_REQUEST_ID

cdef enum:
    MAX_SCHEME = 16  # bytes of a target's scheme; only http and https are in use

ctypedef struct Method:
    uint8_t size
    uint8_t known  # 1: shown as it is (RFC 9110, RFC 5789, QUERY), 0: shown as _OTHER
    uint8_t hint
    uint8_t run_size[2]
    uint8_t scheme_size
    uint8_t name[20]
    uint8_t run[2][DT_ATTRS_RUN_BYTES]  # the attributes that every request with this method has, HTTP/1.0 and 1.1

KNOWN_METHODS = "GET POST PUT DELETE HEAD OPTIONS PATCH CONNECT TRACE QUERY"
OTHER_METHODS = """PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK SEARCH REPORT MERGE CHECKOUT CHECKIN BIND REBIND UNBIND ACL
LINK UNLINK MKACTIVITY MKCALENDAR SUBSCRIBE UNSUBSCRIBE NOTIFY M-SEARCH PURGE BAN SOURCE VERSION-CONTROL LABEL UPDATE"""

cdef Method methods[64]  # entry 0: any other token
cdef int n_methods = 1
cdef uint8_t lower[256]
cdef uint8_t in_hex_id[256]


def _fill():
    global n_methods
    cdef int i, minor
    cdef dt_attrs run
    cdef bytes text, shown
    for i in range(256):
        lower[i] = i | 0x20 if c'A' <= i <= c'Z' else i
        in_hex_id[i] = bytes([i]) in b"0123456789abcdefABCDEF-" and i != 0
    for i, text in enumerate([b"_OTHER", *KNOWN_METHODS.encode().split(), *OTHER_METHODS.encode().split()]):
        methods[i].size = len(text)
        memcpy(methods[i].name, <const uint8_t *>text, len(text))
        methods[i].known = 1 <= i <= len(KNOWN_METHODS.split())
        methods[i].hint = HINT_HEAD if text == b"HEAD" else HINT_CONNECT if text == b"CONNECT" else HINT_ORDINARY
        shown = text if methods[i].known else b"_OTHER"
        for minor in range(2):
            run.data = methods[i].run[minor]
            run.size = 0
            run.capacity = DT_ATTRS_RUN_BYTES
            attrs_text(&run, DT_ATTR_SPAN_NAME, shown if methods[i].known else b"HTTP", len(shown) if methods[i].known else 4)
            attrs_text(&run, DT_ATTR_HTTP_REQUEST_METHOD, shown, len(shown))
            attrs_text(&run, DT_ATTR_NETWORK_PROTOCOL_VERSION, b"1.1" if minor else b"1.0", 3)
            methods[i].run_size[minor] = run.size
            attrs_text(&run, DT_ATTR_URL_SCHEME, b"http", 4)  # not counted: see put_start
            methods[i].scheme_size = run.size - methods[i].run_size[minor]
        n_methods = i + 1


_fill()


cdef uint32_t method_of(const uint8_t *p, uint32_t n) noexcept nogil:
    """The entry of a method; 0 if it is in no table. Methods are case-sensitive, RFC 9110 9.1."""
    cdef int i
    for i in range(1, n_methods):
        if methods[i].size == n and methods[i].name[0] == p[0] and memcmp(methods[i].name, p, n) == 0:
            return i
    return 0


cdef uint8_t method_hint(uint32_t entry) noexcept nogil:
    return methods[entry].hint


cdef uint32_t scheme_of(const uint8_t *p, uint32_t n) noexcept nogil:
    """Bytes of the scheme that an absolute-form target begins with; 0 if it has another form."""
    cdef uint32_t i = 0
    if n == 0 or p[0] == c'/' or p[0] == c'*':
        return 0
    while i < n and i < MAX_SCHEME and (c'a' <= lower[p[i]] <= c'z' or c'0' <= p[i] <= c'9' or p[i] == c'+'):
        i += 1
    return i if n >= i + 3 and memcmp(&p[i], b"://", 3) == 0 else 0


cdef void put_absolute(dt_attrs *out, const uint8_t *p, uint32_t n, uint32_t scheme) noexcept nogil:
    cdef uint32_t end = scheme + 3
    attrs_text(out, DT_ATTR_URL_SCHEME, p, scheme)
    while end < n and p[end] != c'/' and p[end] != c'?' and p[end] != c'#':
        end += 1
    put_authority(out, &p[scheme + 3], end - scheme - 3)
    put_path_and_query(out, &p[end], n - end)


cdef void put_start(const uint8_t *head, const dt_slice *s, dt_attrs *out) noexcept nogil:
    """Method, version and target in its four forms, RFC 9112 3.2; an absolute target overrides Host (3.2.2)."""
    cdef const Method *method = &methods[s[INFO].at]
    cdef const uint8_t *p = &head[s[TARGET].at]
    cdef uint32_t n = s[TARGET].size, minor = s[INFO].size, scheme = scheme_of(p, n)
    cdef bint has_scheme = scheme == 0 and method.hint != HINT_CONNECT
    if minor <= 1:
        attrs_run(out, method.run[minor], method.run_size[minor] + (method.scheme_size if has_scheme else 0))
    else:  # HTTP/1.2 to 1.9, or not known: then only what begins the run, and no version
        put_odd_version(method, minor, has_scheme, out)
    if not method.known:
        attrs_text(out, DT_ATTR_HTTP_REQUEST_METHOD_ORIGINAL, &head[s[METHOD].at], s[METHOD].size)
    if method.hint == HINT_CONNECT:
        put_authority(out, p, n)
        return
    if scheme:
        put_absolute(out, p, n, scheme)
        return
    if s[HOST].size:
        put_authority(out, &head[s[HOST].at], s[HOST].size)
    if n and p[0] != c'/' and memchr(p, c'@', n) != NULL:
        return  # no form of the standard; it may hold a password
    put_path_and_query(out, p, n)


cdef void put_odd_version(const Method *method, uint32_t minor, bint has_scheme, dt_attrs *out) noexcept nogil:
    cdef uint8_t text[3]
    attrs_run(out, <const uint8_t *>method.run[1], method.run_size[1] - 4 - 3)
    if minor < 10:
        memcpy(text, b"1.", 2)
        text[2] = <uint8_t>(c'0' + minor)
        attrs_text(out, DT_ATTR_NETWORK_PROTOCOL_VERSION, text, 3)
    if has_scheme:
        attrs_text(out, DT_ATTR_URL_SCHEME, b"http", 4)


cdef bint is_hex_id(const uint8_t *p, uint32_t n) noexcept nogil:
    """Hexadecimal digits and dashes: trace ids, and no room for a secret of another kind."""
    cdef uint32_t i
    for i in range(n):
        if not in_hex_id[p[i]]:
            return False
    return n > 0


cdef void put_b3(const uint8_t *head, const dt_slice *s, dt_attrs *out) noexcept nogil:
    """b3 in one field, or joined from its X-B3-* fields: trace-span[-sampled] (openzipkin/b3-propagation)."""
    if s[B3].size:
        if is_hex_id(&head[s[B3].at], s[B3].size):
            attrs_text(out, DT_ATTR_B3, &head[s[B3].at], s[B3].size)
        return
    if not is_hex_id(&head[s[B3_TRACE].at], s[B3_TRACE].size) or not is_hex_id(&head[s[B3_SPAN].at], s[B3_SPAN].size):
        return
    attrs_open(out, DT_ATTR_B3)
    attrs_put(out, &head[s[B3_TRACE].at], s[B3_TRACE].size)
    attrs_put(out, b"-", 1)
    attrs_put(out, &head[s[B3_SPAN].at], s[B3_SPAN].size)
    if s[B3_FLAGS].size == 1 and head[s[B3_FLAGS].at] == c'1':
        attrs_put(out, b"-d", 2)
    elif s[B3_SAMPLED].size == 1 and is_hex_id(&head[s[B3_SAMPLED].at], 1):
        attrs_put(out, b"-", 1)
        attrs_put(out, &head[s[B3_SAMPLED].at], 1)
    attrs_close(out)


cdef void put_ids(const uint8_t *head, const dt_slice *s, dt_attrs *out) noexcept nogil:
    cdef dt_slice id = s[TRACEPARENT]
    cdef uint32_t i
    if id.size >= 55 and is_hex_id(&head[id.at], id.size):  # W3C Trace Context 3.2.2: version 00 has 55 characters
        attrs_text(out, DT_ATTR_TRACEPARENT, &head[id.at], id.size)
    if s[B3].size or s[B3_TRACE].size:
        put_b3(head, s, out)
    id = s[REQUEST_ID]
    for i in range(id.size):
        if not 0x20 < head[id.at + i] < 0x7f:
            return
    if id.size:
        attrs_text(out, DT_ATTR_X_REQUEST_ID, &head[id.at], id.size)


cdef void put_request(const uint8_t *head, const dt_slice *s, dt_attrs *out) noexcept nogil:
    put_start(head, s, out)
    if s[AGENT].size:
        attrs_text(out, DT_ATTR_USER_AGENT_ORIGINAL, &head[s[AGENT].at], s[AGENT].size)
    put_ids(head, s, out)


cdef void put_response(int32_t status, dt_attrs *out) noexcept nogil:
    """error_type is the status code as text; which kinds of span it concerns, the message's flags say."""
    cdef uint8_t text[3]
    attrs_number(out, DT_ATTR_HTTP_RESPONSE_STATUS_CODE, status)
    if status >= 400:
        text[0] = <uint8_t>(c'0' + status // 100)
        text[1] = <uint8_t>(c'0' + status // 10 % 10)
        text[2] = <uint8_t>(c'0' + status % 10)
        attrs_text(out, DT_ATTR_ERROR_TYPE, text, 3)
