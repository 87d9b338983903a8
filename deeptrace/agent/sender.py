"""Ships batches to the server over one gRPC stream and keeps each until it is acknowledged. The agent's only user of grpc.

Bounded by spans: what waits to be encoded, sent or acknowledged never exceeds queue_spans; beyond it new batches are dropped
and counted. Threads: one encodes, one keeps the connection (grpc adds its own).
"""

import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc

from deeptrace import __version__, clock
from deeptrace.counters import PythonCounters
from deeptrace.ledger import Balance
from deeptrace.log import event
from deeptrace.model import SpanBatch
from deeptrace.wire import codec
from deeptrace.wire import deeptrace_pb2 as pb

BACKOFF_FIRST_S = 0.1
BACKOFF_MOST_S = 5.0  # a server that comes back is found within this
WELCOME_TIMEOUT_S = 10.0  # a server that accepts but does not answer is given up on
BEAT_CHECK_S = 0.5  # how often an idle connection looks for a new report
CLOSE_TIMEOUT_S = 1.0  # for the last heartbeat and the end of each thread
MAX_UNENCODED = 200_000  # spans of some 300 B; encoded they take 20 to 40 B. The rings hold what comes meanwhile
ENCODE_WAIT_S = 0.2  # well below what the rings can hold back
MAX_UNACKED = 32  # batches on their way; more would only hide a slow store in the network's buffers
MAX_GONE_SHOWN_S = 60.0  # while the server is away, say so again at most this often

logger = logging.getLogger("deeptrace.agent.sender")


@dataclass(frozen=True)
class Identity:
    """Who ships: the fields of Hello."""

    agent_id: str
    epoch_ns: int
    host: str
    boot_id: str
    pid: int


@dataclass(frozen=True)
class Report:
    """What a heartbeat carries."""

    values: dict[str, int]
    balances: list[Balance]
    time_ns: int


@dataclass
class _Parcel:
    """One encoded batch and how often it was sent."""

    sequence: int
    spans: int
    message: bytes
    sent: int = 0


@dataclass
class Delivery:
    """Counters and gauges of shipping, one consistent reading."""

    acked: int
    rejected: int
    dropped: int
    in_flight: int


@dataclass
class _State:
    """Everything below is guarded by Sender._lock."""

    inbox: deque[SpanBatch] = field(default_factory=deque)  # to be encoded
    inbox_spans: int = 0
    parcels: deque[_Parcel] = field(default_factory=deque)  # encoded and not acknowledged, ascending sequence
    next_unsent: int = 0  # index into parcels of the first one not sent on this connection
    held_spans: int = 0  # of inbox, encoding and parcels
    sequence: int = 0
    acked: int = 0
    rejected: int = 0
    dropped: int = 0
    connection: int = 0  # number of the live connection: iterators of older ones end
    welcomed: bool = False
    closing: bool = False


class Sender:
    """submit() from one thread; everything else is its own. on_welcome: called with each Welcome, on the sender's thread."""

    def __init__(
        self,
        address: str,
        identity: Identity,
        *,
        queue_spans: int,
        counters: PythonCounters,
        on_welcome: Callable[[pb.Welcome], None] | None = None,
    ) -> None:
        self.address = address
        self.identity = identity
        self.refused = ""  # why the server will not talk to us; empty while it does
        self._queue_spans = queue_spans
        self._counters = counters
        self._on_welcome = on_welcome
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._state = _State()
        self._report: Report | None = None
        self._stop = threading.Event()
        self._call: Any = None
        self._threads = [
            threading.Thread(target=self._encode_loop, name="encode", daemon=True),
            threading.Thread(target=self._connect_loop, name="ship", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def submit(self, batch: SpanBatch) -> bool:
        """Take a batch over; False when it was dropped because the queue is full. Waits for the encoder at most ENCODE_WAIT_S."""
        with self._changed:
            s = self._state
            if s.held_spans + len(batch) > self._queue_spans or not self._changed.wait_for(self._encoder_keeps_up, ENCODE_WAIT_S):
                s.dropped += len(batch)
                return False
            s.held_spans += len(batch)
            s.inbox_spans += len(batch)
            s.inbox.append(batch)
            self._changed.notify_all()
            return True

    def report(self, report: Report) -> None:
        """What the next heartbeat says."""
        self._report = report

    @property
    def connected(self) -> bool:
        return self._state.welcomed

    def delivery(self) -> Delivery:
        with self._lock:
            s = self._state
            return Delivery(s.acked, s.rejected, s.dropped, s.held_spans)

    def wait_welcome(self, timeout_s: float) -> bool:
        """Wait until the server has answered; False after timeout_s."""
        with self._changed:
            return self._changed.wait_for(lambda: self._state.welcomed or bool(self.refused), timeout_s) and not self.refused

    def flush(self, timeout_s: float) -> int:
        """Wait until everything is acknowledged, at most timeout_s. Returns the spans that were not."""
        with self._changed:
            self._changed.wait_for(lambda: self._state.held_spans == 0, timeout_s)
            return self._state.held_spans

    def close(self) -> None:
        """Send the last heartbeat if the server is there and end. What is not acknowledged is given up."""
        with self._changed:
            self._state.closing = True
            self._changed.notify_all()
        self._stop.set()
        self._threads[1].join(timeout=CLOSE_TIMEOUT_S if self.connected else 0)
        with self._changed:
            self._state.connection += 1
            self._changed.notify_all()
        call = self._call
        if call is not None:
            call.cancel()
        for thread in self._threads:
            thread.join(timeout=CLOSE_TIMEOUT_S)

    # encoding

    def _encoder_keeps_up(self) -> bool:
        return self._state.inbox_spans < MAX_UNENCODED

    def _encode_loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._state.inbox or self._state.closing)
                if self._state.closing:
                    return
                batch = self._state.inbox.popleft()
                self._state.inbox_spans -= len(batch)
                self._changed.notify_all()
                self._state.sequence += 1
                sequence = self._state.sequence
            try:
                encoded = codec.encode(batch, sequence)
                message = pb.AgentMessage(batch=encoded.message).SerializeToString()
            except Exception:
                logger.exception("a batch could not be encoded; this is a defect, its spans are dropped")
                with self._changed:
                    self._state.dropped += len(batch)
                    self._state.held_spans -= len(batch)
                    self._changed.notify_all()
                continue
            self._counters.add("bytes_raw", encoded.raw_bytes)
            self._counters.add("bytes_wire", encoded.wire_bytes)
            with self._changed:
                self._state.parcels.append(_Parcel(sequence, len(batch), message))
                self._changed.notify_all()

    # connection

    def _connect_loop(self) -> None:
        backoff_s = BACKOFF_FIRST_S
        told_ns = -int(MAX_GONE_SHOWN_S * 1e9)
        while not self._stop.is_set():
            try:
                reason, was_welcome = self._talk()
            except Exception as e:  # shipping goes on whatever one connection did
                logger.exception("the connection to the server failed in an unforeseen way; this is a defect")
                reason, was_welcome = f"{type(e).__name__}: {e}", False
            if self._stop.is_set():
                return
            if was_welcome:
                backoff_s = BACKOFF_FIRST_S
            if clock.monotonic_ns() - told_ns > MAX_GONE_SHOWN_S * 1e9 or was_welcome:
                told_ns = clock.monotonic_ns()
                event(logger, logging.WARNING, "the server cannot be reached; trying again", server=self.address, reason=reason)
            # Jitter: agents of one server must not come back all at once.
            self._stop.wait(backoff_s * random.uniform(0.5, 1.5))
            backoff_s = min(backoff_s * 2, BACKOFF_MOST_S)

    def _talk(self) -> tuple[str, bool]:
        """One connection from its start to its end. Returns why it ended and whether the server had welcomed us."""
        with self._changed:
            self._state.connection += 1
            connection = self._state.connection
            self._state.welcomed = False
        channel = grpc.insecure_channel(
            self.address,
            options=[
                ("grpc.max_send_message_length", codec.MAX_MESSAGE_BYTES),
                ("grpc.enable_retries", 0),
                ("grpc.use_local_subchannel_pool", 1),  # a new connection each time: no hidden back-off of grpc's own
                ("grpc.enable_http_proxy", 0),
            ],
        )
        ship = channel.stream_stream(
            codec.SHIP_METHOD,
            request_serializer=lambda message: message,
            response_deserializer=pb.ServerMessage.FromString,
        )
        call = ship(self._messages(connection))
        self._call = call
        watchdog = threading.Timer(WELCOME_TIMEOUT_S, lambda: None if self._state.welcomed else call.cancel())
        watchdog.daemon = True
        watchdog.start()
        reason = "it ended the stream"
        was_welcome = False
        try:
            for message in call:
                kind = message.WhichOneof("kind")
                if kind == "welcome":
                    was_welcome = self._welcome(message.welcome)
                    if not was_welcome:
                        reason = message.welcome.refused
                        break
                elif kind == "ack":
                    self._settle(message.ack.sequence, message.ack.stored_spans, message.ack.rejected_spans, message.ack.reason)
        except grpc.RpcError as e:
            reason = f"{e.code().name.lower()}: {e.details()}" if isinstance(e, grpc.Call) else str(e)
        finally:
            watchdog.cancel()
            with self._changed:
                self._state.welcomed = False
                self._state.connection += 1  # ends the iterator of this connection
                self._state.next_unsent = 0
                self._changed.notify_all()
            call.cancel()
            channel.close()
        return reason, was_welcome

    def _welcome(self, welcome: pb.Welcome) -> bool:
        self.refused = welcome.refused
        if welcome.refused:
            event(logger, logging.ERROR, "the server refuses this agent", server=self.address, reason=welcome.refused)
            with self._changed:
                self._changed.notify_all()
            return False
        if self._on_welcome is not None:
            self._on_welcome(welcome)
        self._settle(welcome.last_sequence, None, 0, "")
        with self._changed:
            self._state.next_unsent = 0
            self._state.welcomed = True
            self._changed.notify_all()
        event(logger, logging.INFO, "connected", server=self.address, last_sequence=welcome.last_sequence)
        return True

    def _settle(self, sequence: int, stored: int | None, rejected: int, reason: str) -> None:
        """Everything up to `sequence` is stored, except `rejected` spans of that one. stored: None if it was not said."""
        with self._changed:
            s = self._state
            while s.parcels and s.parcels[0].sequence <= sequence:
                parcel = s.parcels.popleft()
                s.next_unsent = max(0, s.next_unsent - 1)
                refused = min(rejected, parcel.spans) if parcel.sequence == sequence and stored is not None else 0
                s.acked += parcel.spans - refused
                s.rejected += refused
                s.held_spans -= parcel.spans
            self._changed.notify_all()
        if rejected:
            event(logger, logging.ERROR, "the server refused spans", spans=rejected, reason=reason)

    def _messages(self, connection: int) -> Iterator[bytes]:
        """What this connection sends; runs on a thread of grpc and ends with the connection."""
        identity = self.identity
        yield pb.AgentMessage(
            hello=pb.Hello(
                agent_id=identity.agent_id,
                epoch_ns=identity.epoch_ns,
                version=codec.version(),
                host=identity.host,
                boot_id=identity.boot_id,
                pid=identity.pid,
                tool_version=__version__,
            )
        ).SerializeToString()
        beat_ns = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._over(connection) or self._state.closing or self._sendable(), BEAT_CHECK_S)
                if self._over(connection):
                    return
                closing = self._state.closing
                parcel = None if closing else self._take_parcel()
            if parcel is not None:
                yield parcel.message
            report = self._report
            if report is not None and self._state.welcomed and report.time_ns != beat_ns:
                beat_ns = report.time_ns
                yield heartbeat(report)
            if closing:
                return

    def _over(self, connection: int) -> bool:
        return self._state.connection != connection

    def _sendable(self) -> bool:
        s = self._state
        return s.welcomed and s.next_unsent < min(len(s.parcels), MAX_UNACKED)

    def _take_parcel(self) -> _Parcel | None:
        if not self._sendable():
            return None
        parcel = self._state.parcels[self._state.next_unsent]
        self._state.next_unsent += 1
        parcel.sent += 1
        if parcel.sent > 1:
            self._counters.add("retries")
        return parcel


def heartbeat(report: Report) -> bytes:
    """The Heartbeat message of a report."""
    balances = [pb.Balance(name=b.name, left=b.left, right=b.right, slack=b.slack) for b in report.balances]
    beat = pb.Heartbeat(values=report.values, balances=balances, time_ns=report.time_ns)
    message: bytes = pb.AgentMessage(heartbeat=beat).SerializeToString()
    return message
