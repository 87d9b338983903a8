"""Questions to the store and their answers as plain JSON values. Knows the tables; knows no HTTP.

A span is shown with the link of the highest revision. Times are Unix ns; ids in answers are lower-case hex.
"""

from collections.abc import Sequence
from typing import Any

from deeptrace.core.wire import SPAN_KINDS, SPAN_STATUSES
from deeptrace.model import ATTRIBUTE_TYPES, NUMBER_FIELDS, PROTOCOL_NAMES, Link, RawSpan, span_json
from deeptrace.server.store.store import Store

MAX_TRACE_SPANS = 10_000  # shown of one trace; more is a loop or a batch job that nobody reads whole
MINUTE_NS = 60 * 10**9
_TEXT_FIELDS = ("name", "error_type", "host", "boot_id", "comm", "service")
_COLUMNS = ", ".join([*NUMBER_FIELDS, *_TEXT_FIELDS, "local_addr", "peer_addr", "process_start_ns", "container_id", "attributes"])
_PROTOCOLS = {name: number for number, name in PROTOCOL_NAMES.items()}
_STATUSES = {name: number for number, name in SPAN_STATUSES.items()}
_KINDS = {name: number for number, name in SPAN_KINDS.items()}

Row = dict[str, Any]


def spans(
    store: Store,
    *,
    since_ns: int,
    service: str = "",
    protocol: str = "",
    status: str = "",
    name: str = "",
    limit: int = 100,
    order: str = "desc",
) -> list[Row]:
    """Spans that began at since_ns or later, newest first (order "desc") or oldest first ("asc")."""
    where, parameters = _conditions(service=service, protocol=protocol, status=status, name=name)
    direction = "ASC" if order == "asc" else "DESC"
    sql = f"""SELECT {_COLUMNS} FROM {{db}}.spans
              WHERE intDiv(start_ns, {MINUTE_NS}) >= intDiv({{since:UInt64}}, {MINUTE_NS}) AND start_ns >= {{since:UInt64}} {where}
              ORDER BY start_ns {direction}, span_id LIMIT {{limit:UInt32}}"""
    found = store.rows(sql, {**parameters, "since": since_ns, "limit": limit})
    links = _links(store, [row["span_id"] for row in found], _minutes(found))
    return [span_json(_raw(row), links.get(row["span_id"])) for row in found]


def traces(
    store: Store,
    *,
    since_ns: int,
    service: str = "",
    name: str = "",
    status: str = "",
    min_duration_ns: int = 0,
    min_spans: int = 1,
    limit: int = 20,
    order: str = "desc",
) -> list[Row]:
    """Traces whose root began at since_ns or later, by start of the root. service, name, status: of the root."""
    where, parameters = _conditions(service=service, status=status, name=name)
    direction = "ASC" if order == "asc" else "DESC"
    recent = f"intDiv(start_ns, {MINUTE_NS}) >= intDiv({{since:UInt64}}, {MINUTE_NS})"
    sql = f"""SELECT r.trace_id AS trace_id, r.n_spans AS n_spans, s.span_id AS span_id, s.start_ns AS start_ns, s.end_ns AS end_ns,
                     s.name AS name, s.service AS service, s.protocol AS protocol, s.status AS status
              FROM (SELECT trace_id, count() AS n_spans, argMin(span_id, parent_id != 0) AS root_id
                    FROM {{db}}.links FINAL WHERE {recent} GROUP BY trace_id
                    HAVING countIf(parent_id = 0) > 0 AND n_spans >= {{min_spans:UInt32}}) AS r
              INNER JOIN (SELECT span_id, start_ns, end_ns, name, service, protocol, status FROM {{db}}.spans
                          WHERE {recent} AND start_ns >= {{since:UInt64}} AND end_ns - start_ns >= {{shortest:UInt64}} {where}) AS s
              ON r.root_id = s.span_id
              ORDER BY start_ns {direction}, span_id LIMIT {{limit:UInt32}}"""
    parameters |= {"since": since_ns, "shortest": min_duration_ns, "min_spans": min_spans, "limit": limit}
    return [
        {
            "trace_id": row["trace_id"].hex(),
            "service": row["service"] or None,
            "name": row["name"],
            "protocol": PROTOCOL_NAMES.get(row["protocol"], "unknown"),
            "status": SPAN_STATUSES.get(row["status"], "unset"),
            "start_ns": row["start_ns"],
            "duration_ns": max(0, row["end_ns"] - row["start_ns"]),
            "n_spans": row["n_spans"],
        }
        for row in store.rows(sql, parameters)
    ]


def trace(store: Store, trace_id: str) -> Row | None:
    """One trace with its spans in the order of their start; None if there is none. An id that a trace had before it was
    joined to an older one finds the joined trace. trace_id: 32 hex digits."""
    spans_of, current = _members(store, bytes.fromhex(trace_id))
    if not spans_of:
        return None
    if not any(link.trace_id == trace_id for link in current.values()):
        trace_id = next(iter(current.values())).trace_id if current else trace_id
        spans_of, current = _members(store, bytes.fromhex(trace_id))
    ids = [span_id for span_id in spans_of if span_id in current and current[span_id].trace_id == trace_id]
    if not ids:
        return None
    minutes = sorted({spans_of[span_id] // MINUTE_NS for span_id in ids})
    sql = f"""SELECT {_COLUMNS} FROM {{db}}.spans
              WHERE intDiv(start_ns, {MINUTE_NS}) IN {{minutes:Array(UInt64)}} AND span_id IN {{ids:Array(UInt64)}}
              ORDER BY start_ns, span_id LIMIT 1 BY span_id"""
    found = store.rows(sql, {"minutes": minutes, "ids": ids})
    return {
        "trace_id": trace_id,
        "n_spans": len(found),
        "truncated": len(spans_of) >= MAX_TRACE_SPANS,
        "spans": [span_json(_raw(row), current[row["span_id"]]) for row in found],
    }


def services(store: Store, *, since_ns: int) -> list[Row]:
    """Requests, errors and latencies of spans since then, by service, kind and protocol."""
    sql = f"""SELECT service, kind, protocol, sum(weight) AS requests, sumIf(weight, status = 1) AS errors,
                     quantilesTDigest(0.5, 0.95, 0.99)(toFloat64(end_ns - start_ns)) AS latencies
              FROM {{db}}.spans
              WHERE intDiv(start_ns, {MINUTE_NS}) >= intDiv({{since:UInt64}}, {MINUTE_NS}) AND start_ns >= {{since:UInt64}}
              GROUP BY service, kind, protocol ORDER BY service, kind, protocol"""
    return [
        {
            "service": row["service"] or None,
            "kind": SPAN_KINDS.get(row["kind"], str(row["kind"])),
            "protocol": PROTOCOL_NAMES.get(row["protocol"], "unknown"),
            "requests": row["requests"],
            "errors": row["errors"],
            "p50_ns": round(row["latencies"][0]),
            "p95_ns": round(row["latencies"][1]),
            "p99_ns": round(row["latencies"][2]),
        }
        for row in store.rows(sql, {"since": since_ns})
    ]


def _conditions(*, service: str = "", protocol: str = "", status: str = "", name: str = "") -> tuple[str, Row]:
    """SQL that begins with AND, and its parameters."""
    parts, parameters = [], Row()
    if service:
        parts.append("service = {service:String}")
        parameters["service"] = service
    if name:
        parts.append("name = {name:String}")
        parameters["name"] = name
    if protocol:
        parts.append("protocol = {protocol:UInt8}")
        parameters["protocol"] = _PROTOCOLS[protocol]
    if status:
        parts.append("status = {status:UInt8}")
        parameters["status"] = _STATUSES[status]
    return "".join(f" AND {part}" for part in parts), parameters


def _minutes(rows: Sequence[Row]) -> list[int]:
    return sorted({row["start_ns"] // MINUTE_NS for row in rows})


def _links(store: Store, ids: list[int], minutes: list[int]) -> dict[int, Link]:
    """Current links of spans; minutes: those of their starts."""
    if not ids:
        return {}
    sql = f"""SELECT span_id, trace_id, parent_id, method, confidence FROM {{db}}.links FINAL
              WHERE intDiv(start_ns, {MINUTE_NS}) IN {{minutes:Array(UInt64)}} AND span_id IN {{ids:Array(UInt64)}}"""
    return {row["span_id"]: _link(row) for row in store.rows(sql, {"minutes": minutes, "ids": ids})}


def _link(row: Row) -> Link:
    has_parent = row["parent_id"] != 0
    return Link(
        trace_id=row["trace_id"].hex(),
        parent_span_id=row["parent_id"] if has_parent else None,
        method=row["method"] if has_parent else None,
        confidence=round(row["confidence"], 4) if has_parent else None,
    )


def _members(store: Store, trace_id: bytes) -> tuple[dict[int, int], dict[int, Link]]:
    """Spans that were ever put into a trace (id -> start) and their current links."""
    sql = """SELECT DISTINCT span_id, start_ns FROM {db}.trace_members WHERE trace_id = unhex({trace:String})
             ORDER BY start_ns LIMIT {limit:UInt32}"""
    rows = store.rows(sql, {"trace": trace_id.hex(), "limit": MAX_TRACE_SPANS})
    spans_of = {row["span_id"]: row["start_ns"] for row in rows}
    return spans_of, _links(store, list(spans_of), _minutes(rows))


def _raw(row: Row) -> RawSpan:
    attributes = {k: int(v) if ATTRIBUTE_TYPES.get(k) == "NUMBER" else v for k, v in row["attributes"]}
    return RawSpan(
        **{name: row[name] for name in NUMBER_FIELDS},
        **{name: row[name] for name in _TEXT_FIELDS},
        local_addr=row["local_addr"],
        peer_addr=row["peer_addr"],
        process_start_ns=row["process_start_ns"] or None,
        container_id=row["container_id"] or None,
        attributes=attributes,
    )
