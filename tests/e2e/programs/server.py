"""A small threaded HTTP server whose paths misbehave: server.py PORT.

/ok answers; /slow never does; /late answers after a second; /big answers with 100 MB; /reset resets the connection; /leave
closes it without an answer; /die kills this process.
"""

import contextlib
import os
import signal
import socket
import struct
import sys
import threading
import time

BIG_BYTES = 100 << 20


def answer(sock: socket.socket, body: bytes) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def act(sock: socket.socket, path: str) -> bool:
    """Do what the path says. Returns whether the connection stays open."""
    if path == "/slow":
        time.sleep(60)
    elif path == "/late":
        time.sleep(1)
        answer(sock, b"late")
    elif path == "/big":
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG_BYTES)
        block = b"x" * (1 << 20)
        for _ in range(BIG_BYTES // len(block)):
            sock.sendall(block)
    elif path == "/reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False
    elif path == "/leave":
        return False
    elif path == "/die":
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        answer(sock, b"ok")
    return True


def serve(sock: socket.socket) -> None:
    buffer = b""
    with sock:
        while True:
            while b"\r\n\r\n" not in buffer:
                more = sock.recv(65536)
                if not more:
                    return
                buffer += more
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            parts = head.split(b"\r\n", 1)[0].split(b" ")
            if len(parts) != 3 or not parts[2].startswith(b"HTTP/"):
                sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            if not act(sock, parts[1].decode("latin-1").split("?")[0]) or b"connection: close" in head.lower():
                return


def serve_quietly(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        serve(sock)


def main() -> None:
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=256) as listener:
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=serve_quietly, args=(sock,), daemon=True).start()


if __name__ == "__main__":
    main()
