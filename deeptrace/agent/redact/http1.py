"""Keeps of HTTP/1 (RFC 9112): method, path, version, status, header names, and the values of headers that frame, route or join.
Query names stay, their values do not; bodies, other values and the reason phrase are masked. Any split of the bytes is fine."""

import re
from collections import deque
from typing import Any

METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"CONNECT")
FRAMING = b"content-length transfer-encoding connection upgrade expect"
ROUTING = b"host"
JOINING = b"traceparent b3 x-b3-traceid x-b3-spanid x-b3-sampled x-b3-flags x-request-id"  # ids that travel
KEPT = frozenset(b" ".join((FRAMING, ROUTING, JOINING)).split())  # headers whose values are kept
MAX_TOKEN = 16384  # bytes of one line without its end; servers refuse longer ones
MAX_METHODS = 4096  # unanswered requests of a connection, as the flow stage's hints

_BEGIN = re.compile(
    rb"(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH|TRACE) [/*][^\s\x00-\x20\x7f]* HTTP/1\.[01]\r?\n|HTTP/1\.[01] [1-5]\d\d[ \r\n]"
)
_START_PART = re.compile(rb"(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH|TRACE) [/*]|HTTP/1\.[01] ")
_START = re.compile(rb"([A-Z]{1,20}) [^ ]+ HTTP/1\.[01]|HTTP/1\.[01] (\d{3})(?: .*)?")
_STATUS_PART = re.compile(rb"HTTP/1\.[01]? ?\d{0,3} ?")
_VERSION_PART = re.compile(rb"HTTP/1\.[01](?=\r?\n?$)|H?T?T?P?/?1?\.?")
_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{0,16}[ \t]*;?")
_NAME_PART = re.compile(rb"[A-Za-z0-9_-]{1,64}")
_TEXT = re.compile(rb"[^ \t\r\n]")  # spaces say where words end, which is no secret, and keep lines what they are

HEAD, LENGTH, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER, FOREVER = range(7)


def begins(data: bytes, *, is_start: bool) -> bool:
    return (_START_PART if is_start else _BEGIN).match(data) is not None


def masker(shared: dict[str, Any]) -> "Http1Masker":
    return Http1Masker(shared)


class Http1Masker:
    """One direction. Heads are kept back only as state: a line is masked when it is whole, or byte for byte when it is not."""

    def __init__(self, shared: dict[str, Any]) -> None:
        self.is_lost = False
        self._methods: deque[bytes] = shared.setdefault("http1 methods", deque(maxlen=MAX_METHODS))
        self._mode = HEAD
        self._line = b""  # what was seen of the line at hand in earlier calls
        self._left = 0
        self._begin_head()

    def _begin_head(self) -> None:
        self._mode = HEAD
        self._is_first_line = True
        self._is_request = False
        self._status = 0
        self._length: int | None = None
        self._is_chunked = self._is_upgrade = False

    def feed(self, data: bytes) -> bytes:
        out = bytearray()
        at = 0
        while at < len(data):
            if self.is_lost or self._mode == FOREVER:
                out += b"x" * (len(data) - at)
                break
            if self._mode in (LENGTH, CHUNK):
                n = min(self._left, len(data) - at)
                out += b"x" * n
                self._pass(n)
                at += n
                continue
            end = data.find(b"\n", at)
            piece = data[at : end + 1] if end >= 0 else data[at:]
            out += self._take(piece)
            at += len(piece)
        return bytes(out)

    def skip(self, n: int) -> None:
        if self._mode in (LENGTH, CHUNK) and n <= self._left and not self.is_lost:
            self._pass(n)
        elif self._mode != FOREVER:
            self.is_lost = True

    def _pass(self, n: int) -> None:
        self._left -= n
        if self._left == 0:
            if self._mode == CHUNK:
                self._mode, self._line = CHUNK_END, b""
            else:
                self._begin_head()

    def _take(self, piece: bytes) -> bytes:
        """A piece of a line, perhaps its last. What is kept of a whole line is known only at its end; of a piece, only what
        no later byte can turn into a value."""
        line = self._line + piece
        if len(line) > MAX_TOKEN:
            self.is_lost = True
            return b"x" * len(piece)
        masked = self._mask(line)[len(self._line) :]
        self._line = line
        if line.endswith(b"\n"):
            self._line = b""
            self._end_line(line.rstrip(b"\r\n"))
            if self.is_lost:
                return b"x" * len(piece)
        return masked

    def _mask(self, line: bytes) -> bytes:
        if self._mode == CHUNK_SIZE:
            return _mask_after(_CHUNK_SIZE, line)
        if self._mode == CHUNK_END:
            return _TEXT.sub(b"x", line)
        if self._mode == HEAD and self._is_first_line:
            return _mask_start(line)
        name, colon, value = line.partition(b":")
        if not colon:  # a name whose rest is to come, or a folded value (RFC 9112 5.2), or nothing of HTTP
            return line if _NAME_PART.fullmatch(line) or not line.strip() else _TEXT.sub(b"x", line)
        return line if name.lower() in KEPT else name + colon + _TEXT.sub(b"x", value)

    def _end_line(self, line: bytes) -> None:
        if self._mode == CHUNK_SIZE:
            size = re.match(rb"[0-9a-fA-F]{1,16}", line)
            self.is_lost = size is None
            self._left = int(size[0], 16) if size else 0
            self._mode = CHUNK if self._left else TRAILER
        elif self._mode == CHUNK_END:
            self.is_lost = line != b""
            self._mode = CHUNK_SIZE
        elif self._mode == HEAD and self._is_first_line:
            self._start_line(line)
        elif line == b"":
            if self._mode == TRAILER:
                self._begin_head()
            else:
                self._end_head()
        elif self._mode == HEAD:
            self._header(line)

    def _start_line(self, line: bytes) -> None:
        start = _START.fullmatch(line)
        if start is None:
            self.is_lost = line != b""  # RFC 9112 2.2: an empty line before a request is let pass
            return
        self._is_first_line = False
        self._is_request = start[1] is not None
        if self._is_request:
            self._methods.append(start[1])
        else:
            self._status = int(start[2])

    def _header(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        name, value = name.strip().lower(), value.strip()
        if name == b"content-length" and value.isdigit() and len(value) < 19:
            self._length = int(value)
        elif name == b"transfer-encoding" and b"chunked" in value.lower():
            self._is_chunked = True

    def _end_head(self) -> None:
        method = b""
        if not self._is_request and (self._status >= 200 or self._status == 101):
            method = self._methods.popleft() if self._methods else b"GET"
        has_no_body = method == b"HEAD" or self._status in (204, 304) or 100 <= self._status < 200
        if self._status == 101 or (method == b"CONNECT" and 200 <= self._status < 300):
            self._mode = FOREVER
        elif has_no_body:
            self._begin_head()
        elif self._is_chunked:
            self._mode = CHUNK_SIZE
        elif self._length:
            self._mode, self._left = LENGTH, self._length
        elif self._length == 0 or self._is_request:
            self._begin_head()
        else:
            self._mode = FOREVER


def _mask_start(line: bytes) -> bytes:
    """A request or status line, or the first part of one."""
    if line.startswith(b"HTTP/1."):
        return _mask_after(_STATUS_PART, line)
    method, space, rest = line.partition(b" ")
    if not any(known.startswith(method) for known in METHODS) or not line.strip():
        return _TEXT.sub(b"x", line)
    target, second, version = rest.partition(b" ")
    if target[:1] not in (b"/", b"*", b""):  # the absolute form may hold a password
        target = b"x" * len(target)
    path, mark, query = target.partition(b"?")
    return method + space + path + mark + _mask_query(query) + second + _mask_after(_VERSION_PART, version)


def _mask_query(query: bytes) -> bytes:
    """Names are kept, values not; what has no "=" may be a value."""
    parts = [part.partition(b"=") for part in query.split(b"&")]
    return b"&".join((name if equals else _TEXT.sub(b"x", name)) + equals + _TEXT.sub(b"x", value) for name, equals, value in parts)


def _mask_after(kept: re.Pattern[bytes], text: bytes) -> bytes:
    found = kept.match(text)
    n = found.end() if found else 0
    return text[:n] + _TEXT.sub(b"x", text[n:])
