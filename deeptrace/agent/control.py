"""The agent's control socket, by which `doctor` and `off` on this host speak to it: one JSON line asked, one answered.

It has a thread of its own, so that it answers while the agent's loop is busy. Root and the agent's own user are heard, nobody else.
"""

import contextlib
import json
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from typing import Any

from deeptrace.log import event

NAME = "deeptrace-agent-{pid}"  # abstract: it is gone with the process, and needs no folder
MAX_REQUEST_BYTES = 4096
ANSWER_TIMEOUT_S = 2.0  # for one that asks and does not read
BACKLOG = 8

Handler = Callable[[], dict[str, Any]]
logger = logging.getLogger("deeptrace.agent.control")


def address(pid: int) -> str:
    """Of the socket of that agent."""
    return "\0" + NAME.format(pid=pid)


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """(process id, user id) of the other end."""
    pid, uid, _gid = struct.unpack("=iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid


def trusted(uid: int) -> bool:
    """Whether that user may tell us something."""
    return uid in (0, os.geteuid())


def read_line(connection: socket.socket, most_bytes: int) -> dict[str, Any]:
    """One JSON object. Raises OSError, ValueError."""
    data = bytearray()
    while not data.endswith(b"\n"):
        part = connection.recv(65536)
        data += part
        if not part or len(data) > most_bytes:
            break
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found


class Control:
    """start() when everything that the handlers use is there, stop() before it goes. handlers: by the name of what is asked."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)
        self._listener: socket.socket | None = None

    def start(self) -> None:
        """Without it the agent runs, too; `off` finds it by its probes."""
        try:
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._listener.bind(address(os.getpid()))
            self._listener.listen(BACKLOG)
        except OSError as e:
            self._close()
            event(logger, logging.WARNING, "no control socket: 'doctor' cannot ask this agent", reason=e.strerror)
            return
        self._thread.start()

    def stop(self) -> None:
        """Idempotent. Waits for an answer that is being given."""
        self._stopped.set()
        if self._listener is not None and self._thread.is_alive() and self._thread is not threading.current_thread():
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # ends accept()
            self._thread.join(ANSWER_TIMEOUT_S)
        self._close()

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _serve(self) -> None:
        listener = self._listener
        assert listener is not None
        while not self._stopped.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError, ValueError):
                connection.settimeout(ANSWER_TIMEOUT_S)
                if trusted(peer_of(connection)[1]):
                    self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        asked = str(read_line(connection, MAX_REQUEST_BYTES).get("do"))
        handler = self._handlers.get(asked)
        try:
            answer = handler() if handler else {"error": f"this agent does not know {asked!r}"}
        except Exception as e:  # the agent must not end because of a question
            logger.debug("a question could not be answered", exc_info=e)
            answer = {"error": f"{type(e).__name__}: {e}"}
        connection.sendall(json.dumps(answer).encode() + b"\n")
