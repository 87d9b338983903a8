"""A server that speaks the protocol and stores nothing: what a test needs to see of the agent's side."""

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc

from deeptrace.model import SpanBatch
from deeptrace.wire import codec
from deeptrace.wire import deeptrace_pb2 as pb


class FakeServer:
    """Welcomes agents, decodes batches, acknowledges while `acking`. on_batch may return a rejected count."""

    def __init__(self, port: int = 0, *, refused: str = "", boot_id: str = "", pid: int = 0) -> None:
        self.refused, self.boot_id, self.pid = refused, boot_id, pid
        self.hellos: list[pb.Hello] = []
        self.batches: list[tuple[int, SpanBatch]] = []
        self.heartbeats: list[pb.Heartbeat] = []
        self.stored = 0
        self.acking = True
        self.rejected: Callable[[int], int] = lambda _sequence: 0
        self.changed = threading.Condition()
        self._server = grpc.server(
            futures.ThreadPoolExecutor(4),
            options=[("grpc.max_receive_message_length", codec.MAX_MESSAGE_BYTES), ("grpc.so_reuseport", 0)],
        )
        handler = grpc.stream_stream_rpc_method_handler(self._ship, pb.AgentMessage.FromString, pb.ServerMessage.SerializeToString)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("deeptrace.v1.Collector", {"Ship": handler}),))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self.address = f"127.0.0.1:{self.port}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
        with self.changed:
            return self.changed.wait_for(condition, timeout_s)

    def _ship(self, messages: Iterator[pb.AgentMessage], _context: Any) -> Iterator[pb.ServerMessage]:
        for message in messages:
            kind = message.WhichOneof("kind")
            answer = None
            with self.changed:
                if kind == "hello":
                    self.hellos.append(message.hello)
                    answer = pb.ServerMessage(
                        welcome=pb.Welcome(
                            version=codec.version(),
                            pid=self.pid,
                            boot_id=self.boot_id,
                            last_sequence=self.stored,
                            refused=self.refused,
                        )
                    )
                elif kind == "batch":
                    batch = codec.decode(message.batch).batch
                    self.batches.append((message.batch.sequence, batch))
                    if self.acking:
                        self.stored = max(self.stored, message.batch.sequence)
                        rejected = self.rejected(message.batch.sequence)
                        answer = pb.ServerMessage(
                            ack=pb.Ack(
                                sequence=message.batch.sequence,
                                stored_spans=len(batch) - rejected,
                                rejected_spans=rejected,
                                reason="it said so" if rejected else "",
                            )
                        )
                else:
                    self.heartbeats.append(message.heartbeat)
                self.changed.notify_all()
            if answer is not None:
                yield answer
            if self.refused:
                return


def batch_of(n: int) -> SpanBatch:
    import numpy as np

    from deeptrace.core.wire import ATTRIBUTE_DTYPE, SPAN_DTYPE
    from deeptrace.model import ProcessInfo

    spans = np.zeros(n, SPAN_DTYPE)
    spans["span_id"] = np.arange(n)
    return SpanBatch(
        spans,
        np.zeros(0, ATTRIBUTE_DTYPE),
        np.zeros(2, np.uint32),
        np.zeros(0, np.uint8),
        [ProcessInfo(pid=1)],
        "host",
        "boot",
    )
