"""A client that can be traced: client.py PORT START_FILE PATH... Waits until START_FILE exists, then asks for each path on one
keep-alive connection and reads the answer; ends when the connection does."""

import contextlib
import pathlib
import socket
import sys
import time


def read_answer(sock: socket.socket, buffer: bytes) -> bytes | None:
    """Read one answer; what is left over, or None when the connection ended."""
    while b"\r\n\r\n" not in buffer:
        more = sock.recv(1 << 20)
        if not more:
            return None
        buffer += more
    head, _, rest = buffer.partition(b"\r\n\r\n")
    left = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]) - len(rest)
    while left > 0:
        more = sock.recv(1 << 20)
        if not more:
            return None
        left -= len(more)
    return b""


def main() -> None:
    port, start, *paths = sys.argv[1:]
    while not pathlib.Path(start).exists():
        time.sleep(0.05)
    with socket.create_connection(("127.0.0.1", int(port))) as sock:
        for path in paths:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            if read_answer(sock, b"") is None:
                return


if __name__ == "__main__":
    with contextlib.suppress(ConnectionError):
        main()
