"""Compares what the probes recorded with what user space knows, call by call and byte for byte. Says every difference; never
decides what is allowed to differ beyond what stands in Settings. Standard library only."""

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from conformance import layout as at
from conformance.layout import Layout

MSG_PEEK, MSG_TRUNC, MSG_ERRQUEUE = 0x2, 0x20, 0x2000  # linux/socket.h
L4 = {"tcp": 6, "udp": 17, "unix": 0}
TCP_CLOSE = 7
UNSEEN = {"sendfile64", "splice"}  # bytes that never pass through user memory
VECTORS = {"recvmmsg", "sendmmsg"}
# Counters that every call moves exactly as far as the log says.
OUTCOMES = (
    "calls", "extra_messages", "data_emitted", "not_socket", "other_socket", "no_data", "message_cut", "payload_cut", "read_fault",
    "ring_full", "interrupted", "enter_missed", "map_insert_failed", "map_get_failed", "invalid_direction",
    "syscall_payload_length_invalid",
)  # fmt: skip
NOBODY = {2: bytes(10) + b"\xff\xff" + bytes(4), 10: bytes(16)}  # the unknown peer, by family


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the probes were told, and which of their abilities are on."""

    payload_bytes: int
    head_bytes: int
    unix_sockets: bool = False  # unix stream sockets yield records


@dataclass
class Verdict:
    """problems: sentences, empty when all is right; outcomes: what the kernel's counters must have grown by."""

    problems: list[str] = field(default_factory=list)
    outcomes: Counter = field(default_factory=Counter)
    compared: int = 0
    flagged: int = 0


@dataclass
class Stream:
    """What is remembered of one end and direction between its calls."""

    head_left: int
    base: int | None = None
    seen: bool = False
    cut: bool = False  # a vector was longer than what is read: of a counted stream no later position is known


def compare(calls: Iterable[dict], records: Iterable[tuple[dict, bytes]], layout: Layout, settings: Settings) -> Verdict:
    """calls: of read_log, in time order; records: fields and payload of every record that came, in any order."""
    return Comparison(layout, settings).run(list(calls), [r for r in records if r[0]["kind"] == at.DATA])


class Comparison:
    """One run's calls against its records."""

    def __init__(self, layout: Layout, settings: Settings) -> None:
        self.layout, self.settings = layout, settings
        self.verdict = Verdict()
        self.streams: dict[tuple[int, int], Stream] = defaultdict(lambda: Stream(settings.head_bytes))
        self.sockets: dict[int, int] = {}

    def run(self, calls: list[dict], records: list[tuple[dict, bytes]]) -> Verdict:
        found = self.assign(calls, records)
        for i, call in enumerate(calls):
            self.call(call, sorted(found[i], key=lambda record: record[0]["message_index"]))
        return self.verdict

    def problem(self, call: dict, what: str) -> None:
        self.verdict.problems.append(f"{call['case']}: {call['call']} = {call['result']}: {what}")

    def assign(self, calls: list[dict], records: list[tuple[dict, bytes]]) -> dict[int, list[tuple[dict, bytes]]]:
        """The records of each call: the same thread's, made while the call ran."""
        by_thread: dict[int, list[int]] = defaultdict(list)
        for i, call in enumerate(calls):
            by_thread[call["tid"]].append(i)
        found: dict[int, list[tuple[dict, bytes]]] = defaultdict(list)
        begins = {tid: [calls[i]["before_ns"] for i in mine] for tid, mine in by_thread.items()}
        for record in records:
            fields = record[0]
            mine = by_thread.get(fields["tid"], [])
            n = bisect.bisect_right(begins.get(fields["tid"], []), fields["enter_ns"])
            if n and fields["enter_ns"] <= fields["exit_ns"] <= calls[mine[n - 1]]["after_ns"]:
                found[mine[n - 1]].append(record)
            else:
                self.verdict.problems.append(f"a record of no call: {fields}")
        return found

    def call(self, call: dict, records: list[tuple[dict, bytes]]) -> None:
        if call["call"] not in self.layout.syscalls:
            expected = []
        else:
            outcome = self.outcome(call)
            self.verdict.outcomes["calls"] += 1 + call["restarts"]
            self.verdict.outcomes["no_data" if outcome == "data" else outcome] += call["restarts"]
            if outcome == "data":
                expected = self.messages(call)
            else:
                self.verdict.outcomes[outcome] += 1
                expected = []
        if len(records) != len(expected):
            self.problem(call, f"{len(expected)} records expected, {len(records)} came")
            return
        for (index, message, position), (fields, payload) in zip(expected, records, strict=True):
            self.message(call, index, message, position, fields, payload)

    def outcome(self, call: dict) -> str:
        """Where the ledger puts this call: a counter's name, or "data"."""
        if call["kind"] == "none":
            return "not_socket"
        if call["kind"] == "other" or (call["kind"] == "unix" and not self.settings.unix_sockets):
            return "other_socket"
        if call["result"] <= 0 or call["flags"] & MSG_ERRQUEUE:
            return "no_data"
        return "data"

    def messages(self, call: dict) -> list[tuple[int, dict, int | None]]:
        """The messages that yield a record: index, message, position in the stream (None: the call does not know it)."""
        expected, position, most = [], call["position"], self.layout.limits["MAX_MESSAGES"]
        messages = call["messages"]
        self.verdict.outcomes["extra_messages"] += len(messages) - 1
        self.verdict.outcomes["message_cut"] += max(0, len(messages) - most)
        for i, message in enumerate(messages[:most]):
            if message["bytes"]:
                expected.append((i, message, position))
                position = None if position is None else position + message["bytes"]
            else:
                self.verdict.outcomes["no_data"] += 1
        self.verdict.outcomes["data_emitted"] += len(expected)
        return expected

    def message(self, call: dict, index: int, message: dict, position: int | None, fields: dict, payload: bytes) -> None:
        self.verdict.compared += 1
        stream = self.streams[call["end"], call["direction"]]
        expected = self.payload(call, message, stream)
        if len(expected) < message["bytes"]:
            self.verdict.outcomes["payload_cut"] += 1
        wrong = {
            name: (fields[name], value) for name, value in self.plain_fields(call, index, message).items() if fields[name] != value
        }
        if wrong:
            self.problem(call, f"message {index}: (recorded, true): {wrong}")
        if payload != expected:
            self.problem(call, f"message {index}: {len(payload)} bytes of payload, {len(expected)} expected: {payload[:40]!r}")
        self.peer(call, message, fields)
        self.flags(call, stream, fields)
        self.position(call, stream, position, message["bytes"], fields)
        self.identity(call, fields)

    def plain_fields(self, call: dict, index: int, message: dict) -> dict:
        expected = {
            "code": self.layout.syscalls[call["call"]],
            "direction": call["direction"],
            "result": message["bytes"],
            "message_index": index,
            "tgid": call["pid"],
            "tid": call["tid"],
            "netns": call["netns"],
            "family": call["family"],
            "l4_protocol": L4[call["kind"]],
            "parent_tgid": 0,
        }
        if call["kind"] != "unix":
            expected |= {"local_addr": bytes.fromhex(call["local"][0]), "local_port": call["local"][1]}
        return expected

    def payload(self, call: dict, message: dict, stream: Stream) -> bytes:
        """The bytes that are captured of a message: of the stream's head all, then up to the limit."""
        limit = max(self.settings.payload_bytes, stream.head_left)
        if not call["flags"] & MSG_PEEK or call["call"] == "splice":
            stream.head_left = max(0, stream.head_left - message["bytes"])
        if call["call"] in UNSEEN or self.is_truncated(call):
            return b""
        room = sum(message["segments"][: self.layout.limits["MAX_IOVECS"]])
        return bytes.fromhex(message["data"])[: min(limit, room, self.layout.limits["MAX_PAYLOAD"])]

    def is_truncated(self, call: dict) -> bool:
        return call["kind"] == "tcp" and call["direction"] == at.INGRESS and bool(call["flags"] & MSG_TRUNC)

    def peer(self, call: dict, message: dict, fields: dict) -> None:
        if call["kind"] == "unix":
            return
        address, port = bytes.fromhex(call["peer"][0]), call["peer"][1]
        if call["kind"] == "udp" and "name" in message:
            address, port = bytes.fromhex(message["name"][0]), message["name"][1]
        if not port:
            address = NOBODY[call["family"]]
        if "sender" in message and fields["peer_port"]:  # it need not be known, but must not be another
            address, port = bytes.fromhex(message["sender"][0]), message["sender"][1]
        if (fields["peer_addr"], fields["peer_port"]) != (address, port):
            self.problem(call, f"peer {fields['peer_addr'].hex()} {fields['peer_port']}, in truth {address.hex()} {port}")

    def flags(self, call: dict, stream: Stream, fields: dict) -> None:
        flags, is_peek = fields["flags"], bool(call["flags"] & MSG_PEEK and call["call"] not in UNSEEN)
        expected = at.PEEK * is_peek | at.TRUNCATED * self.is_truncated(call) | at.SEQ_VALID * (call["kind"] == "tcp")
        expected |= at.COUNTED * (call["kind"] == "unix")
        told = at.PEEK | at.TRUNCATED | at.SEQ_VALID | at.READ_FAULT | at.ENTER_MISSED | at.COUNTED | at.URING
        if flags & told != expected:
            self.problem(call, f"flags {flags & told:#x}, in truth {expected:#x}")
        first = 0 if stream.seen else at.FIRST | (at.FRESH if call["fresh"] else 0)
        if not is_peek:
            stream.seen = True
        # Of a connection that has ended already nothing is remembered; a datagram socket's memory ends with any close.
        lenient = call["kind"] == "udp" or fields["tcp_state"] == TCP_CLOSE or not call["sure"]
        # A reset may come during the call: then it is not known any more that a record is the first.
        lenient |= first != 0 and not flags & (at.FIRST | at.FRESH) and call["case"].endswith("/errors-2")
        if flags & (at.FIRST | at.FRESH) != first and not lenient:
            self.problem(call, f"flags {flags:#x} tell of a first record, in truth {first:#x}")

    def position(self, call: dict, stream: Stream, position: int | None, n: int, fields: dict) -> None:
        """An unflagged position must be the true one; a position that can be proven must not be flagged."""
        if call["kind"] == "udp":
            return
        stream.cut = len(call["messages"]) > self.layout.limits["MAX_MESSAGES"] or (stream.cut and call["kind"] == "unix")
        if call["kind"] == "unix":
            stream.base = 0  # its bytes are counted from the first that the probes saw
        if fields["flags"] & at.SEQ_AMBIGUOUS:
            self.verdict.flagged += 1
            if call["sure"] and not stream.cut:
                self.problem(call, "its position is flagged ambiguous")
            return
        recorded = fields["seq_enter"] if call["direction"] == at.INGRESS else (fields["seq_exit"] - n) % 2**32
        if stream.base is None and position is not None:
            stream.base = call.get("base", (recorded - position) % 2**32)
        if position is not None and recorded != (stream.base + position) % 2**32:
            self.problem(call, f"position {(recorded - stream.base) % 2**32} of the stream, in truth {position}")
        advanced = (fields["seq_exit"] - fields["seq_enter"]) % 2**32
        if not call["flags"] & MSG_PEEK and advanced not in (n, n + (call["direction"] == at.INGRESS)):
            self.problem(call, f"unflagged, but {n} bytes moved the position by {advanced}")

    def identity(self, call: dict, fields: dict) -> None:
        """One end is one socket, and not its peer."""
        own = self.sockets.setdefault(call["end"], fields["socket"])
        if own != fields["socket"]:
            self.problem(call, "its end had another socket before")
        if self.sockets.get(call["other"]) == own:
            self.problem(call, "both ends have one socket")
        if call["kind"] != "unix":
            return
        if fields["local_addr"][:8] != own.to_bytes(8, "little"):
            self.problem(call, "the local address is not the socket's own")
        theirs = self.sockets.setdefault(call["other"], int.from_bytes(fields["peer_addr"][:8], "little"))
        if fields["peer_addr"][:8] != theirs.to_bytes(8, "little"):
            self.problem(call, "the peer's address is not the other end's")
