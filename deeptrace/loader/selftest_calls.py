"""The data calls as the self-test makes them, one function each. Standard library only; every call moves all that it is given or
raises OSError."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable, Sequence

# linux/socket.h
MSG_WAITFORONE = 0x10000

_libc = ctypes.CDLL(None, use_errno=True)


class Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Msghdr(ctypes.Structure):
    """struct msghdr of 64-bit Linux."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iovecs", ctypes.POINTER(Iovec)),
        ("n_iovecs", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class Mmsghdr(ctypes.Structure):
    _fields_ = (("header", Msghdr), ("length", ctypes.c_uint32))


def _vector(buffers: Sequence[ctypes.Array[ctypes.c_char]]) -> tuple[ctypes.Array[Mmsghdr], list[ctypes.Array[Iovec]]]:
    """One message per buffer, each in two segments; and what must stay alive with it."""
    messages, kept = (Mmsghdr * len(buffers))(), []
    for message, buffer in zip(messages, buffers):  # noqa: B905 - Python 3.9 has no strict
        first = (len(buffer) + 1) // 2
        base = ctypes.addressof(buffer)
        segments = (Iovec * 2)(Iovec(base, first), Iovec(base + first, len(buffer) - first))
        message.header.iovecs, message.header.n_iovecs = segments, 2
        kept.append(segments)
    return messages, kept


def _checked(name: str, *arguments: object) -> int:
    n = int(getattr(_libc, name)(*arguments))
    if n < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return n


def _halves(data: bytes) -> list[bytes]:
    middle = (len(data) + 1) // 2
    return [data[:middle], data[middle:]]


def _sendmmsg(sock: socket.socket, parts: Sequence[bytes]) -> None:
    buffers = [ctypes.create_string_buffer(part, len(part)) for part in parts]
    messages, _kept = _vector(buffers)
    _whole(_checked("sendmmsg", sock.fileno(), messages, len(parts), 0), len(parts))


def _recvmmsg(sock: socket.socket, sizes: Sequence[int]) -> list[bytes]:
    buffers = [ctypes.create_string_buffer(size) for size in sizes]
    messages, _kept = _vector(buffers)
    _whole(_checked("recvmmsg", sock.fileno(), messages, len(sizes), MSG_WAITFORONE, None), len(sizes))
    return [buffers[i].raw[: messages[i].length] for i in range(len(buffers))]


def _readv(sock: socket.socket, size: int) -> bytes:
    buffers = [bytearray((size + 1) // 2), bytearray(size // 2)]
    n = os.readv(sock.fileno(), buffers)
    return b"".join(buffers)[:n]


def _recvmsg(sock: socket.socket, size: int) -> bytes:
    buffers = [bytearray((size + 1) // 2), bytearray(size // 2)]
    n = sock.recvmsg_into(buffers)[0]
    return b"".join(buffers)[:n]


def _sendfile(sock: socket.socket, data: bytes) -> int:
    file = os.memfd_create("deeptrace-selftest")
    try:
        os.pwrite(file, data, 0)
        return os.sendfile(sock.fileno(), file, 0, len(data))
    finally:
        os.close(file)


def _splice(sock: socket.socket, data: bytes) -> int:
    source, target = os.pipe()
    try:
        os.write(target, data)
        return _checked("splice", source, None, sock.fileno(), None, ctypes.c_size_t(len(data)), 0)
    finally:
        os.close(source)
        os.close(target)


def _whole(n: int, wanted: int) -> None:
    if n != wanted:
        raise OSError(f"a call moved {n} of {wanted}")


_SEND: dict[str, Callable[[socket.socket, bytes], int]] = {
    "write": lambda sock, data: os.write(sock.fileno(), data),
    "writev": lambda sock, data: os.writev(sock.fileno(), _halves(data)),
    "sendto": lambda sock, data: sock.send(data),
    "sendmsg": lambda sock, data: sock.sendmsg(_halves(data)),
    "sendfile64": _sendfile,
    "splice": _splice,
}
_RECEIVE: dict[str, Callable[[socket.socket, int], bytes]] = {
    "read": lambda sock, size: os.read(sock.fileno(), size),
    "readv": _readv,
    "recvfrom": lambda sock, size: sock.recv(size),
    "recvmsg": _recvmsg,
}
EGRESS = ("write", "writev", "sendto", "sendmsg", "sendmmsg")
INGRESS = ("read", "readv", "recvfrom", "recvmsg", "recvmmsg")
VECTORS = ("sendmmsg", "recvmmsg")  # two messages a call
UNSEEN = ("sendfile64", "splice")  # of streams; the bytes never pass through user memory


def send(call: str, sock: socket.socket, parts: Sequence[bytes]) -> None:
    """Make one call: one message, of the vector calls several."""
    if call == "sendmmsg":
        _sendmmsg(sock, parts)
    else:
        _whole(_SEND[call](sock, parts[0]), len(parts[0]))


def receive(call: str, sock: socket.socket, sizes: Sequence[int]) -> list[bytes]:
    """Make one call with room for one message, of the vector calls for several."""
    parts = _recvmmsg(sock, sizes) if call == "recvmmsg" else [_RECEIVE[call](sock, sizes[0])]
    _whole(sum(map(len, parts)), sum(sizes))
    return parts
