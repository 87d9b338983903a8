"""Spans as arrays between stages, and the span as JSON: the one place that says its fields. Knows no transport and no store."""

import ipaddress
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from deeptrace.core.wire import (
    ATTRIBUTE_DTYPE,
    ATTRIBUTE_ROWS,
    SEQ_SPACES,
    SPAN_DTYPE,
    SPAN_FLAGS,
    SPAN_KINDS,
    SPAN_STATUSES,
)

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"

ATTRIBUTE_NAMES: dict[int, str] = {row[0]: row[2] for row in ATTRIBUTE_ROWS}
ATTRIBUTE_TYPES: dict[str, str] = {row[2]: row[3] for row in ATTRIBUTE_ROWS}  # TEXT | NUMBER | ID

PROTOCOL_NAMES: dict[int, str] = {
    0: "unknown", 1: "http1", 2: "http2", 3: "redis", 4: "grpc", 5: "mysql", 6: "postgresql", 7: "mongodb", 8: "kafka",
    9: "memcached", 10: "dns", 11: "thrift", 12: "amqp", 13: "mqtt", 14: "nats", 15: "dubbo", 16: "cassandra", 17: "rocketmq",
    18: "clickhouse", 19: "zookeeper", 20: "tls",
}  # fmt: skip
# Every protocol a span may name, whether or not this build parses it: readers outlive writers.


class ProcessInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one process when its span was made. Times are Unix ns; None is "not known"."""

    pid: int
    start_ns: int | None = None
    comm: str = ""
    service: str = ""
    container_id: str | None = None
    cgroup_id: int | None = None  # stays with the agent and in recordings


@dataclass(frozen=True)
class SpanBatch:
    """Spans of one host with the tables that their references point into.

    spans: SPAN_DTYPE (n,), times Unix ns; attributes: ATTRIBUTE_DTYPE (m,); string i is
    string_bytes[string_at[i]:string_at[i + 1]], string 0 is "". processes: rows for spans["process"].
    """

    spans: npt.NDArray[np.void]
    attributes: npt.NDArray[np.void]
    string_at: npt.NDArray[np.uint32]
    string_bytes: npt.NDArray[np.uint8]
    processes: list[ProcessInfo]
    host: str
    boot_id: str

    def __len__(self) -> int:
        return len(self.spans)

    def string(self, reference: int) -> str:
        """The text behind a string reference; bytes that are not UTF-8 show as U+FFFD."""
        return bytes(self.string_bytes[self.string_at[reference] : self.string_at[reference + 1]]).decode("utf-8", "replace")

    def strings(self) -> list[str]:
        """All strings in order: for whole batches, cheaper than one at a time."""
        data = self.string_bytes.tobytes()
        at = self.string_at.tolist()
        return [data[a:b].decode("utf-8", "replace") for a, b in itertools.pairwise(at)]


def empty_batch(host: str = "", boot_id: str = "") -> SpanBatch:
    return SpanBatch(
        np.zeros(0, SPAN_DTYPE),
        np.zeros(0, ATTRIBUTE_DTYPE),
        np.zeros(2, np.uint32),
        np.zeros(0, np.uint8),
        [],
        host,
        boot_id,
    )


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """Why a span has its parent. method: the correlator's name for its evidence; confidence: 0..1."""

    trace_id: str  # 32 hex digits
    parent_span_id: int | None = None
    method: str | None = None
    confidence: float | None = None


class RawSpan(msgspec.Struct, kw_only=True):
    """One span with numbers as stored and text resolved; what a batch row and a store row have in common."""

    span_id: int
    connection_id: int
    start_ns: int
    request_end_ns: int
    response_start_ns: int
    end_ns: int
    connect_ns: int
    request_bytes: int
    response_bytes: int
    local_addr: bytes
    peer_addr: bytes
    netns: int
    pid: int
    req_tid: int
    resp_tid: int
    connect_tid: int
    req_seq: int
    resp_seq: int
    stream_id: int
    weight: int
    local_port: int
    peer_port: int
    flags: int
    kind: int
    protocol: int
    status: int
    seq_space: int
    name: str
    error_type: str
    host: str
    boot_id: str
    process_start_ns: int | None
    container_id: str | None
    comm: str
    service: str
    attributes: dict[str, Any]  # by name; NUMBER as int, TEXT and ID as str


NUMBER_FIELDS = (
    "span_id", "connection_id", "start_ns", "request_end_ns", "response_start_ns", "end_ns", "connect_ns", "request_bytes",
    "response_bytes", "netns", "pid", "req_tid", "resp_tid", "connect_tid", "req_seq", "resp_seq", "stream_id", "weight",
    "local_port", "peer_port", "flags", "kind", "protocol", "status", "seq_space",
)  # fmt: skip
# columns of SPAN_DTYPE that go on as numbers


def raw_spans(batch: SpanBatch) -> Iterator[RawSpan]:
    """The spans of a batch one by one: for showing some, not for moving many."""
    strings = batch.strings()
    columns = {name: batch.spans[name].tolist() for name in NUMBER_FIELDS}
    keys, texts, numbers = (batch.attributes[name].tolist() for name in ("key", "text", "number"))
    for i, row in enumerate(batch.spans):
        process = batch.processes[row["process"]]
        attributes: dict[str, Any] = {}
        for a in range(int(row["attr_first"]), int(row["attr_first"]) + int(row["attr_count"])):
            name = ATTRIBUTE_NAMES.get(keys[a], f"deeptrace.attribute.{keys[a]}")
            attributes[name] = numbers[a] if ATTRIBUTE_TYPES.get(name) == "NUMBER" else strings[texts[a]]
        yield RawSpan(
            **{name: column[i] for name, column in columns.items()},
            local_addr=row["local_addr"].tobytes(),
            peer_addr=row["peer_addr"].tobytes(),
            name=strings[row["name"]],
            error_type=strings[row["error_type"]],
            host=batch.host,
            boot_id=batch.boot_id,
            process_start_ns=process.start_ns,
            container_id=process.container_id,
            comm=process.comm,
            service=process.service,
            attributes=attributes,
        )


def format_address(address: bytes) -> str:
    """16 bytes as text; v4-mapped addresses as dotted IPv4."""
    ip = ipaddress.IPv6Address(address)
    return str(ip.ipv4_mapped or ip)


def span_json(raw: RawSpan, link: Link | None = None) -> dict[str, Any]:
    """The span as users see it (docs/spans.md). Ids are lower-case hex, what is absent is null, times are Unix ns."""
    has_response = raw.response_start_ns > 0
    has_seq = SEQ_SPACES.get(raw.seq_space, "none") != "none"
    known = raw.pid > 0
    is_inet = SEQ_SPACES.get(raw.seq_space) != "unix"
    return {
        "trace_id": link.trace_id if link else None,
        "span_id": f"{raw.span_id:016x}",
        "parent_span_id": f"{link.parent_span_id:016x}" if link and link.parent_span_id is not None else None,
        "link_method": link.method if link else None,
        "link_confidence": link.confidence if link else None,
        "kind": SPAN_KINDS.get(raw.kind, str(raw.kind)),
        "name": raw.name,
        "protocol": PROTOCOL_NAMES.get(raw.protocol, "unknown"),
        "status": SPAN_STATUSES.get(raw.status, "unset"),
        "start_ns": raw.start_ns,
        "request_end_ns": raw.request_end_ns,
        "response_start_ns": raw.response_start_ns if has_response else None,
        "end_ns": raw.end_ns,
        "host": raw.host or None,
        "boot_id": raw.boot_id or None,
        "netns": raw.netns or None,
        "pid": raw.pid if known else None,
        "process_start_ns": raw.process_start_ns,
        "container_id": raw.container_id,
        "req_tid": raw.req_tid if known else None,
        "resp_tid": raw.resp_tid if known and has_response else None,
        "comm": raw.comm or None,
        "service": raw.service or None,
        "local_addr": format_address(raw.local_addr) if is_inet else None,
        "local_port": raw.local_port if is_inet else None,
        "peer_addr": format_address(raw.peer_addr) if is_inet else None,
        "peer_port": raw.peer_port if is_inet else None,
        "connection_id": f"{raw.connection_id:016x}",
        "stream_id": raw.stream_id or None,
        "req_seq": raw.req_seq if has_seq else None,
        "resp_seq": raw.resp_seq if has_seq and has_response else None,
        "seq_space": SEQ_SPACES.get(raw.seq_space, "none"),
        "request_bytes": raw.request_bytes,
        "response_bytes": raw.response_bytes,
        "weight": raw.weight,
        "error_type": raw.error_type or None,
        "flags": [name for name, bit in SPAN_FLAGS.items() if raw.flags & bit],
        "ids": {k: v for k, v in raw.attributes.items() if ATTRIBUTE_TYPES.get(k) == "ID"},
        "attributes": {k: v for k, v in raw.attributes.items() if ATTRIBUTE_TYPES.get(k) != "ID"},
    }
