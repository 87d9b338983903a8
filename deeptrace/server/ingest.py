"""Takes agents' streams: greets, hands batches to the writer, sends its acknowledgements. The server's only importer of grpc.

Runs an event loop in a thread of its own. Back-pressure: at most MAX_QUEUED_BYTES wait for the writer; beyond that streams are
not read, and agents see no acknowledgements.
"""

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator

import grpc

from deeptrace import clock, log
from deeptrace.errors import DeepTraceError
from deeptrace.server.agents import Agents
from deeptrace.server.writer import Received, Writer
from deeptrace.wire import codec
from deeptrace.wire import deeptrace_pb2 as pb

logger = logging.getLogger("deeptrace.server.ingest")

MAX_QUEUED_BYTES = 64 << 20  # compressed, of all agents together: two million spans
HELLO_TIMEOUT_S = 10.0  # a stream that says nothing for this long is closed
MAX_TEXT = 256  # characters of an agent's id, host and version
STOP_GRACE_S = 2.0
OPTIONS = (
    ("grpc.max_receive_message_length", codec.MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # a taken port must be an error, not shared
    ("grpc.keepalive_time_ms", 20_000),  # a host that vanished is noticed within half a minute
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)


class Ingest:
    """The gRPC side of the server."""

    def __init__(self, writer: Writer, agents: Agents, boot_id: str) -> None:
        self._writer, self._agents, self._boot_id = writer, agents, boot_id
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dt-ingest", daemon=True)
        self._server: grpc.aio.Server | None = None
        self._room: asyncio.Condition | None = None
        self._queued_bytes = 0

    def bind(self, address: str) -> str:
        """Take the port. Returns the address with the port that was taken. Raises DeepTraceError when it cannot be had."""
        self._thread.start()
        return self._call(self._bind(address))

    def start(self) -> None:
        """Begin to accept agents."""
        assert self._server is not None
        self._call(self._server.start())

    def stop(self) -> None:
        """Close all streams and end the thread."""
        if self._thread.is_alive():
            if self._server is not None:
                self._call(self._server.stop(STOP_GRACE_S))
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=10)

    def _call(self, coroutine: object) -> str:
        result: str = asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()  # type: ignore[arg-type]
        return result

    async def _bind(self, address: str) -> str:
        self._room = asyncio.Condition()
        self._server = grpc.aio.server(options=OPTIONS)
        handler = grpc.stream_stream_rpc_method_handler(
            self._ship,
            request_deserializer=pb.AgentMessage.FromString,
            response_serializer=pb.ServerMessage.SerializeToString,
        )
        service, method = codec.SHIP_METHOD.strip("/").split("/")
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as e:
            reason = str(e).partition(";")[0]  # what follows is advice about grpc's own log
            raise DeepTraceError(f"the address {address} for agents cannot be used: {reason}; choose another with --grpc") from e
        if port == 0:
            raise DeepTraceError(
                f"the address {address} for agents cannot be used; is another server running? Choose one with --grpc"
            )
        return f"{address.rpartition(':')[0]}:{port}"

    async def _ship(self, messages: AsyncIterator[pb.AgentMessage], context: grpc.aio.ServicerContext) -> None:
        """One agent's stream, from its Hello to its end."""
        hello = await self._greet(messages, context)
        if hello is None:
            return
        answers: asyncio.Queue[pb.Ack] = asyncio.Queue()
        sender = asyncio.create_task(_send(answers, context))
        try:
            async for message in messages:
                kind = message.WhichOneof("kind")
                if kind == "batch":
                    await self._hand_over(hello, message.batch, answers)
                elif kind == "heartbeat":
                    self._agents.heartbeat(hello.agent_id, message.heartbeat)
            await self._wait_for_answers(answers)
        finally:
            sender.cancel()
            self._agents.gone(hello.agent_id, hello.epoch_ns)
            log.event(logger, logging.INFO, "an agent's stream ended", agent=hello.agent_id)

    async def _greet(self, messages: AsyncIterator[pb.AgentMessage], context: grpc.aio.ServicerContext) -> pb.Hello | None:
        try:
            first = await asyncio.wait_for(anext(aiter(messages)), HELLO_TIMEOUT_S)
        except (TimeoutError, StopAsyncIteration):
            return None
        hello = first.hello
        refused = "the first message is not a Hello" if first.WhichOneof("kind") != "hello" else codec.refusal(hello.version)
        if not refused and (not hello.agent_id or max(map(len, (hello.agent_id, hello.host, hello.tool_version))) > MAX_TEXT):
            refused = f"the agent's id is empty or a text of its Hello is longer than {MAX_TEXT} characters"
        welcome = pb.Welcome(
            version=codec.version(),
            pid=os.getpid(),
            boot_id=self._boot_id,
            last_sequence=0 if refused else self._writer.last_sequence(hello.agent_id, hello.epoch_ns),
            refused=refused,
        )
        await context.write(pb.ServerMessage(welcome=welcome))
        if refused:
            log.event(logger, logging.WARNING, "an agent was refused", reason=refused)
            return None
        self._agents.hello(hello, clock.unix_ns())
        log.event(logger, logging.INFO, "an agent's stream began", agent=hello.agent_id, host=hello.host)
        return hello

    async def _hand_over(self, hello: pb.Hello, batch: pb.Batch, answers: "asyncio.Queue[pb.Ack]") -> None:
        """Give a batch to the writer once there is room; its answer comes back to `answers` on this loop."""
        size = batch.ByteSize()
        assert self._room is not None
        async with self._room:
            await self._room.wait_for(lambda: self._queued_bytes == 0 or self._queued_bytes + size <= MAX_QUEUED_BYTES)
            self._queued_bytes += size

        def answer(ack: pb.Ack) -> None:
            self._loop.call_soon_threadsafe(self._answered, answers, ack, size)

        self._writer.submit(Received(hello.agent_id, hello.epoch_ns, batch, answer))

    def _answered(self, answers: "asyncio.Queue[pb.Ack]", ack: pb.Ack, size: int) -> None:
        answers.put_nowait(ack)
        self._loop.create_task(self._release(size))

    async def _release(self, size: int) -> None:
        assert self._room is not None
        async with self._room:
            self._queued_bytes -= size
            self._room.notify_all()

    async def _wait_for_answers(self, answers: "asyncio.Queue[pb.Ack]") -> None:
        """The agent has half-closed: let what it sent be answered before the stream ends."""
        for _ in range(100):
            if self._queued_bytes == 0 and answers.empty():
                return
            await asyncio.sleep(0.05)


async def _send(answers: "asyncio.Queue[pb.Ack]", context: grpc.aio.ServicerContext) -> None:
    while True:
        await context.write(pb.ServerMessage(ack=await answers.get()))
