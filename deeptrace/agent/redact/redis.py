"""Keeps of RESP2 and RESP3 (redis.io/docs/latest/develop/reference/protocol-spec): types, lengths, the names of known commands,
OK, PONG and QUEUED, and the first word of errors. Keys, values, numbers and all other text are masked."""

import re
from typing import Any

import deeptrace.core.redis_commands as parser

NAME_LISTS = (parser.KEYED, parser.PLAIN, parser.SECRETS, parser.SUBSCRIBES, parser.ANY_TIME, parser.REPLICATES)
CONTAINERS = {
    name.encode(): frozenset(words.encode().split())
    for lists in (parser.CONTAINERS, parser.SECRET_CONTAINERS)
    for name, words in lists.items()
}
COMMANDS = frozenset(word.encode() for words in NAME_LISTS for word in words.split()) | CONTAINERS.keys()
KEPT_TEXT = (b"OK", b"PONG", b"QUEUED")
MAX_LINE = 65536  # bytes of a line: errors and simple strings are short
MAX_DEPTH = 32  # nested aggregates; deeper ones are no reply of a server
MAX_NUMBER = 1 << 32  # bytes or elements; Redis allows 512 MiB

_BEGIN = re.compile(rb"[*$~%>]-?\d{1,10}\r\n|\+(?:OK|PONG|QUEUED)\r\n|-[A-Z]{2,20}[ \r]|:-?\d{1,19}\r\n|_\r\n|#[tf]\r\n")
_TEXT = re.compile(rb"[^ \t\r\n]")
_ERROR_WORD = re.compile(rb"[A-Z]{0,20}(?=[ \r\n]|$)")
_NUMBER = re.compile(rb"-?\d{1,10}")
SIZED, AGGREGATES, NUMBERS = b"$=!", b"*~%>|", b":,("


def begins(data: bytes, *, is_start: bool) -> bool:  # noqa: ARG001 - a type and a length say enough
    return _BEGIN.match(data) is not None


def masker(shared: dict[str, Any]) -> "RedisMasker":  # noqa: ARG001 - replies are masked without knowing their request
    return RedisMasker()


class RedisMasker:
    """One direction. A line is masked piece by piece: what could still become a value is masked at once."""

    def __init__(self) -> None:
        self.is_lost = False
        self._line = b""  # what was seen of the line at hand in earlier calls
        self._bulk_left = 0  # bytes to come of a bulk, with its line end
        self._open: list[int] = []  # elements to come of each open aggregate
        self._word = 0  # place of the next bulk in a command: 1, 2; 0 beyond
        self._name = b""  # the first word of the command

    def feed(self, data: bytes) -> bytes:
        out = bytearray()
        at = 0
        while at < len(data) and not self.is_lost:
            if self._bulk_left:
                piece = data[at : at + self._bulk_left]
                out += self._bulk(piece)
            else:
                end = data.find(b"\n", at)
                piece = data[at : end + 1] if end >= 0 else data[at:]
                out += self._take(piece)
            at += len(piece)
        return bytes(out) + b"x" * (len(data) - len(out))

    def skip(self, n: int) -> None:
        if n > self._bulk_left:
            self.is_lost = True
        else:
            self._word = 0
            self._pass(n)

    def _bulk(self, piece: bytes) -> bytes:
        is_whole = len(piece) == self._bulk_left and piece.endswith(b"\r\n")
        word = piece[:-2].upper() if is_whole and self._word else b""
        is_kept = (self._word == 1 and word in COMMANDS) or (self._word == 2 and word in CONTAINERS.get(self._name, ()))
        self._name = word if self._word == 1 else b""
        self._pass(len(piece))
        return piece if is_kept else _TEXT.sub(b"x", piece)

    def _pass(self, n: int) -> None:
        self._bulk_left -= n
        if self._bulk_left == 0:
            self._word = 2 if self._word == 1 and self._open else 0
            self._element()

    def _element(self) -> None:
        """One element is complete; so are the aggregates that it was the last of."""
        while self._open:
            self._open[-1] -= 1
            if self._open[-1] > 0:
                return
            self._open.pop()
        self._word = 0

    def _take(self, piece: bytes) -> bytes:
        line = self._line + piece
        if len(line) > MAX_LINE:
            self.is_lost = True
        masked = self._mask(line)[len(self._line) :]
        self._line = line
        if line.endswith(b"\n"):
            self._line = b""
            self._end_line(line)
        return b"x" * len(piece) if self.is_lost else masked

    def _mask(self, line: bytes) -> bytes:
        kind, text = line[:1], line[1:]
        if kind in SIZED or kind in AGGREGATES:
            number = _NUMBER.match(text)
            kept = number.end() if number else 0
            return kind + text[:kept] + _TEXT.sub(b"x", text[kept:])
        if kind == b"+" and text.rstrip(b"\r\n") in KEPT_TEXT and line.endswith(b"\n"):
            return line
        if kind == b"-":
            word = _ERROR_WORD.match(text)
            kept = word.end() if word else 0
            return kind + text[:kept] + _TEXT.sub(b"x", text[kept:])
        if kind in NUMBERS:
            return kind + re.sub(rb"[^\r\n]", b"0", text)
        if kind == b"#":
            return kind + re.sub(rb"[^\r\n]", b"t", text)
        return kind + _TEXT.sub(b"x", text) if kind in b"+_" else _TEXT.sub(b"x", line)

    def _end_line(self, line: bytes) -> None:
        kind, text = line[:1], line[1:-2]
        if kind in SIZED or kind in AGGREGATES:
            n = int(text) if _NUMBER.fullmatch(text) else -2
            if n < -1 or n > MAX_NUMBER or not line.endswith(b"\r\n"):
                self.is_lost = True
            elif kind in SIZED and n >= 0:
                self._bulk_left = n + 2
            elif kind in AGGREGATES and n > 0:
                self._aggregate(kind, n)
            else:
                self._element()
        elif kind in b"+-:,(_#":
            self._word = 0
            self._element()
        else:
            self.is_lost = True

    def _aggregate(self, kind: bytes, n: int) -> None:
        self._word = 1 if kind == b"*" and not self._open else 0
        if kind == b"|":  # an attribute stands before the element that it belongs to
            self._open.append(1 if not self._open else self._open.pop() + 1)
        self._open.append(n * 2 if kind in b"%|" else n)
        self.is_lost = self.is_lost or len(self._open) > MAX_DEPTH
