# SPDX-License-Identifier: Apache-2.0
"""Writes the parts of a URL as attributes, without the secrets in them. The one place where URLs are redacted."""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memchr, memcmp, memcpy

from dt_proto cimport *

cdef extern from "dt_proto.h" nogil:
    enum: DT_ATTR_URL_PATH, DT_ATTR_URL_QUERY, DT_ATTR_SERVER_ADDRESS, DT_ATTR_SERVER_PORT

cdef enum:
    MAX_HOST = 255  # bytes of a host name; RFC 1035 2.3.4
    MAX_SECRET = 64  # bytes of a parameter's name; a longer one is taken for a secret's

ctypedef struct Word:
    uint8_t size
    uint8_t text[23]

# Parameters whose values are never kept, as lower-case letters and digits of their names (access_token = accessToken).
SECRET_NAMES = """auth authorization authcode authorizationcode code codeverifier key pwd pass pin otp sig sid sign session bearer
jwt token secret password ticket samlresponse samlrequest assertion idtokenhint csrf xsrf awsaccesskeyid login"""
SECRET_ENDINGS = """token secret password passwd passphrase apikey accesskey accesskeyid secretkey privatekey signature sessionid
sessid credential credentials"""

cdef Word secret_names[48]
cdef int n_secret_names = 0
cdef Word secret_endings[24]
cdef int n_secret_endings = 0
cdef uint8_t lower[256]
cdef uint8_t is_mark[256]  # what the redaction of a target stops at
cdef uint32_t secret_sizes[256]  # by first letter: bit n set if a name of n bytes begins with it


def _fill():
    global n_secret_names, n_secret_endings
    cdef int i
    cdef bytes text
    for i in range(256):
        lower[i] = i | 0x20 if c'A' <= i <= c'Z' else i
        is_mark[i] = i != 0 and bytes([i]) in b"%?&;/=@"
    for i, text in enumerate(SECRET_NAMES.encode().split()):
        secret_names[i].size = len(text)
        memcpy(secret_names[i].text, <const uint8_t *>text, len(text))
        secret_sizes[text[0]] |= <uint32_t>1 << len(text)
        n_secret_names = i + 1
    for i, text in enumerate(SECRET_ENDINGS.encode().split()):
        secret_endings[i].size = len(text)
        memcpy(secret_endings[i].text, <const uint8_t *>text, len(text))
        n_secret_endings = i + 1


_fill()


cdef int hex_digit(uint8_t c) noexcept nogil:
    c = lower[c]
    return c - c'0' if c'0' <= c <= c'9' else c - c'a' + 10 if c'a' <= c <= c'f' else -1


cdef uint8_t decode(const uint8_t *p, uint32_t n, uint32_t *size) noexcept nogil:
    """The character at p, %XX read as one; size: the bytes it takes."""
    size[0] = 1
    if p[0] != c'%' or n < 3 or hex_digit(p[1]) < 0 or hex_digit(p[2]) < 0:
        return p[0]
    size[0] = 3
    return <uint8_t>(16 * hex_digit(p[1]) + hex_digit(p[2]))


cdef bint is_secret(const uint8_t *name, uint32_t n) noexcept nogil:
    """Whether a parameter of this name may hold a secret: by letters and digits alone, escapes decoded, case ignored."""
    cdef uint8_t text[MAX_SECRET]
    cdef uint32_t i = 0, size = 0, step
    cdef uint8_t c
    cdef int k
    while i < n:
        c = lower[decode(&name[i], n - i, &step)]
        i += step
        if c'a' <= c <= c'z' or c'0' <= c <= c'9':
            if size == MAX_SECRET:
                return True
            text[size] = c
            size += 1
    if size == 0:
        return False
    if size < 32 and secret_sizes[text[0]] >> size & 1:
        for k in range(n_secret_names):
            if secret_names[k].size == size and memcmp(secret_names[k].text, text, size) == 0:
                return True
    for k in range(n_secret_endings):
        i = secret_endings[k].size
        if i <= size and secret_endings[k].text[i - 1] == text[size - 1]:
            if memcmp(secret_endings[k].text, &text[size - i], i) == 0:
                return True
    return False


cdef uint32_t value_end(const uint8_t *p, uint32_t i, uint32_t n, uint8_t slash, bint nested) noexcept nogil:
    """Where a parameter's value ends: at & or ; (in a path / too); nested: its "=" was escaped, so these may be as well."""
    cdef uint32_t step = 1
    cdef uint8_t c
    while i < n:
        c = decode(&p[i], n - i, &step) if nested else p[i]
        if c == c'&' or c == c';' or (c == slash and slash):
            break
        i += step if nested else 1
    return i


cdef void put_redacted(dt_attrs *out, const uint8_t *p, uint32_t n, uint8_t slash) noexcept nogil:
    """Write a path (slash = "/") or a query (slash = 0) without the values of secret parameters and without user:password@.

    Escaped characters count as themselves, so that a URL inside a parameter is cleaned too.
    """
    cdef uint32_t i = 0, done = 0, name = 0, user = 0, step, end
    cdef bint after_slash = False, has_user = False
    cdef uint8_t c
    while i < n:
        if not is_mark[p[i]]:
            after_slash = False
            i += 1
            continue
        c = decode(&p[i], n - i, &step)
        if c == c'=':
            if is_secret(&p[name], i - name):
                end = value_end(p, i + step, n, slash, step == 3)
                if end > i + step:
                    attrs_put(out, &p[done], i + step - done)
                    attrs_put(out, b"REDACTED", 8)
                    done = end
                has_user = False
                i = end
                continue
            name = i + step
        elif c == c'@' and has_user:
            attrs_put(out, &p[done], user - done)
            attrs_put(out, b"REDACTED", 8)
            done = i
            has_user = False
        elif c == c'/':
            user = i + step
            has_user = after_slash
            name = i + step
        elif c == c'?' or c == c'&' or c == c';':
            name = i + step
            has_user = has_user and c == c';'
        after_slash = c == c'/'
        i += step
    attrs_put(out, &p[done], n - done)


cdef uint32_t size_before(const uint8_t *p, uint32_t n, uint8_t c) noexcept nogil:
    """Bytes before the first c, or n."""
    cdef const uint8_t *hit = <const uint8_t *>memchr(p, c, n) if n else NULL
    return <uint32_t>(hit - p) if hit != NULL else n


cdef void put_authority(dt_attrs *out, const uint8_t *p, uint32_t n) noexcept nogil:
    """[user@]host[:port], RFC 3986 3.2: address without brackets, port if it is a number."""
    cdef uint32_t first = 0, i, host_end
    cdef int64_t port = 0
    for i in range(n):
        if p[i] == c'@':
            first = i + 1
    host_end = n
    if first < n and p[first] == c'[':
        i = first + size_before(&p[first], n - first, c']')
        first += 1
        host_end = i
        i += 1
    else:
        i = first + size_before(&p[first], n - first, c':')
        host_end = i
    if first < host_end and host_end - first <= MAX_HOST:
        attrs_text(out, DT_ATTR_SERVER_ADDRESS, &p[first], host_end - first)
    if i + 1 < n and p[i] == c':' and n - i <= 6:
        i += 1
        while i < n and c'0' <= p[i] <= c'9':
            port = port * 10 + (p[i] - c'0')
            i += 1
        if i == n and 0 < port < 65536:
            attrs_number(out, DT_ATTR_SERVER_PORT, port)


cdef void put_path_and_query(dt_attrs *out, const uint8_t *p, uint32_t n) noexcept nogil:
    cdef uint32_t path, i = 0
    n = size_before(p, n, c'#')  # a fragment is none of the server's business, and may hold tokens
    path = size_before(p, n, c'?')
    while i < path and not (is_mark[p[i]] and p[i] != c'/'):
        i += 1
    attrs_open(out, DT_ATTR_URL_PATH)
    if path == 0:
        attrs_put(out, b"/", 1)
    elif i == path and not (path > 1 and p[0] == c'/' and p[1] == c'/'):
        attrs_put(out, p, path)
    else:
        put_redacted(out, p, path, c'/')
    attrs_close(out)
    if path + 1 < n:
        attrs_open(out, DT_ATTR_URL_QUERY)
        put_redacted(out, &p[path + 1], n - path - 1, 0)
        attrs_close(out)
