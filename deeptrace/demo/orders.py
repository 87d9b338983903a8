"""The demo's orders service: a thread per connection; asks Redis for the order and the stock service for its item.

An ordinary program that knows nothing of tracing: standard library only, no id in any header. Speaks just the HTTP/1.1 that
the demo needs (GET, no body). Run: orders.py PORT STOCK_PORT REDIS_PORT
"""

import json
import socket
import sys
import threading

ANSWER = b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"


class Connection:
    """A socket with a read buffer, used by one thread."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.buffer = b""

    def read_until(self, end: bytes) -> bytes:
        """Bytes up to `end`, without it. Raises EOFError when the peer has closed."""
        while (at := self.buffer.find(end)) < 0:
            self._fill()
        taken, self.buffer = self.buffer[:at], self.buffer[at + len(end) :]
        return taken

    def read_exactly(self, n_bytes: int) -> bytes:
        while len(self.buffer) < n_bytes:
            self._fill()
        taken, self.buffer = self.buffer[:n_bytes], self.buffer[n_bytes:]
        return taken

    def _fill(self) -> None:
        more = self.sock.recv(16384)
        if not more:
            raise EOFError
        self.buffer += more


def redis_get(redis: Connection, key: bytes) -> bytes | None:
    redis.sock.sendall(b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(key), key))
    size = int(redis.read_until(b"\r\n")[1:])
    return redis.read_exactly(size + 2)[:-2] if size >= 0 else None


def http_get(peer: Connection, path: bytes) -> tuple[int, bytes]:
    peer.sock.sendall(b"GET %b HTTP/1.1\r\nHost: stock\r\n\r\n" % path)
    head = peer.read_until(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    return int(head.split(b" ", 2)[1]), peer.read_exactly(int(fields[b"content-length"]))


def serve(client: Connection, stock_port: int, redis_port: int) -> None:
    """Answer the requests of one connection, over one connection each to Redis and to the stock service."""
    redis = Connection(socket.create_connection(("127.0.0.1", redis_port)))
    stock = Connection(socket.create_connection(("127.0.0.1", stock_port)))
    while True:
        path = client.read_until(b"\r\n\r\n").split(b" ", 2)[1]
        order_id = path.rpartition(b"/")[2]
        order = redis_get(redis, b"order:" + order_id)
        status, item = http_get(stock, b"/stock/" + order_id)
        if order is None or status != 200:
            body, status, reason = b'{"error": "no such order"}', 404, b"Not Found"
        else:
            body, reason = json.dumps({"order": json.loads(order), "stock": json.loads(item)}).encode(), b"OK"
        client.sock.sendall(ANSWER % (status, reason, len(body), body))


def serve_until_closed(sock: socket.socket, stock_port: int, redis_port: int) -> None:
    try:
        serve(Connection(sock), stock_port, redis_port)
    except (EOFError, OSError):
        pass
    finally:
        sock.close()


def main() -> None:
    port, stock_port, redis_port = (int(a) for a in sys.argv[1:4])
    with socket.create_server(("127.0.0.1", port), backlog=256) as listener:
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=serve_until_closed, args=(sock, stock_port, redis_port), daemon=True).start()


if __name__ == "__main__":
    main()
