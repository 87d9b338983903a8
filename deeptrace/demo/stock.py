"""The demo's stock service: asyncio, one thread, a pool of Redis connections that all requests share.

An ordinary program that knows nothing of tracing: standard library only, no id in any header. Speaks just the HTTP/1.1 that
the demo needs (GET, no body). Run: stock.py PORT REDIS_PORT
"""

import asyncio
import sys

ANSWER = b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
POOL_SIZE = 8  # connections to Redis; fewer than the callers, so that requests share and sometimes wait

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class RedisPool:
    """Lends connections, oldest first; one command at a time on each."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.n_open = 0
        self.idle: asyncio.Queue[Stream] = asyncio.Queue()

    async def take(self) -> Stream:
        if self.idle.empty() and self.n_open < POOL_SIZE:
            self.n_open += 1
            return await asyncio.open_connection("127.0.0.1", self.port)
        return await self.idle.get()

    async def get(self, key: bytes) -> bytes | None:
        reader, writer = stream = await self.take()
        writer.write(b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(key), key))
        size = int((await reader.readuntil(b"\r\n"))[1:-2])
        value = (await reader.readexactly(size + 2))[:-2] if size >= 0 else None
        self.idle.put_nowait(stream)
        return value


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, redis: RedisPool) -> None:
    """Answer the requests of one connection until it closes."""
    try:
        while True:
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1]
            item = await redis.get(b"stock:" + path.rpartition(b"/")[2])
            status, reason = (200, b"OK") if item is not None else (404, b"Not Found")
            body = item if item is not None else b'{"error": "no such item"}'
            writer.write(ANSWER % (status, reason, len(body), body))
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main() -> None:
    port, redis_port = (int(a) for a in sys.argv[1:3])
    redis = RedisPool(redis_port)
    server = await asyncio.start_server(lambda r, w: serve(r, w, redis), "127.0.0.1", port, backlog=256)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
