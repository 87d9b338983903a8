"""Passes one JSON object and many descriptors over a Unix stream socket. Runs in both processes, standard library only."""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from typing import Any

FDS_PER_MESSAGE = 64  # SCM_MAX_FD is 253; fewer keep the ancillary data small
LENGTH = struct.Struct("=I")
MAX_JSON_BYTES = 16 << 20  # a report is some 10 KB; more is no report


def send(connection: socket.socket, message: dict[str, Any], fds: list[int]) -> None:
    """Send an object, then the descriptors in order; they stay open here."""
    data = json.dumps({**message, "n_fds": len(fds)}).encode()
    connection.sendall(LENGTH.pack(len(data)) + data)
    for start in range(0, len(fds), FDS_PER_MESSAGE):
        chunk = array.array("i", fds[start : start + FDS_PER_MESSAGE])
        connection.sendmsg([b"F"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, chunk)])


def _receive_exactly(connection: socket.socket, n: int) -> bytes:
    data = bytearray()
    while len(data) < n:
        part = connection.recv(n - len(data))
        if not part:
            raise EOFError("the other process ended")
        data += part
    return bytes(data)


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The object and its descriptors, closed on exec. Raises EOFError if the sender ends before it is complete."""
    (length,) = LENGTH.unpack(_receive_exactly(connection, LENGTH.size))
    if length > MAX_JSON_BYTES:
        raise EOFError("the other process sent no report")
    message: dict[str, Any] = json.loads(_receive_exactly(connection, length))
    fds = array.array("i")
    wanted = int(message.pop("n_fds"))
    space = socket.CMSG_SPACE(FDS_PER_MESSAGE * fds.itemsize)
    try:
        while len(fds) < wanted:
            # One byte at a time: a longer read could run into the next message's byte and drop its descriptors.
            data, ancillary, _flags, _address = connection.recvmsg(1, space, socket.MSG_CMSG_CLOEXEC)
            if not data:
                raise EOFError("the other process ended")
            for level, kind, payload in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return message, list(fds)
