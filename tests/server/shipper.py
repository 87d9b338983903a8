"""A minimal agent for tests: ships batches over a real stream and collects the answers."""

import queue
import time
from collections.abc import Iterator

import grpc

from deeptrace.model import SpanBatch
from deeptrace.wire import codec
from deeptrace.wire import deeptrace_pb2 as pb


class Shipper:
    """One stream. send() does not wait; acks() waits for that many answers."""

    def __init__(self, address: str, agent_id: str = "a1", epoch_ns: int = 7, version: pb.Version | None = None) -> None:
        self.channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        ship = self.channel.stream_stream(
            codec.SHIP_METHOD,
            request_serializer=pb.AgentMessage.SerializeToString,
            response_deserializer=pb.ServerMessage.FromString,
        )
        self._out: queue.Queue[pb.AgentMessage | None] = queue.Queue()
        self.call = ship(self._messages())
        self._out.put(
            pb.AgentMessage(
                hello=pb.Hello(agent_id=agent_id, epoch_ns=epoch_ns, version=version or codec.version(), host="h1", boot_id="b1")
            )
        )
        self.welcome = next(self.call).welcome

    def _messages(self) -> Iterator[pb.AgentMessage]:
        while (message := self._out.get()) is not None:
            yield message

    def send(self, batch: SpanBatch, sequence: int) -> None:
        self.send_message(codec.encode(batch, sequence).message)

    def send_message(self, message: pb.Batch) -> None:
        self._out.put(pb.AgentMessage(batch=message))

    def heartbeat(self, values: dict[str, int]) -> None:
        self._out.put(pb.AgentMessage(heartbeat=pb.Heartbeat(values=values, time_ns=time.time_ns())))

    def acks(self, n: int) -> list[pb.Ack]:
        return [next(self.call).ack for _ in range(n)]

    def close(self) -> None:
        self._out.put(None)
        self.call.cancel()
        self.channel.close()
