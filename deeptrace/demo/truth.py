"""What each request of the demo should have left behind, and how much of it is there. Sees spans only as the API gives them.

The id in the URL or Redis key says which request a span belongs to; the process, the kind and the word before the id say which
of the nine spans it is. Nothing that makes links knows these ids.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

ORDER = re.compile(r"(orders/|stock/|order:|stock:)(o-\d{7})")
TEXT_ATTRIBUTES = ("url.path", "url.full", "db.query.text")


class SeenSpan(msgspec.Struct):
    """The fields of a span that matter here."""

    span_id: str
    kind: str
    trace_id: str | None = None
    parent_span_id: str | None = None
    pid: int | None = None
    service: str | None = None
    attributes: dict[str, Any] = {}


@dataclass(frozen=True)
class Expected:
    """One of the nine spans: who makes it, what it says, and which other one is its parent."""

    name: str
    role: str
    kind: str
    word: str
    parent: str | None


EXPECTED = (
    Expected("nginx", "nginx", "SERVER", "orders/", None),
    Expected("nginx to orders", "nginx", "CLIENT", "orders/", "nginx"),
    Expected("orders", "orders", "SERVER", "orders/", "nginx to orders"),
    Expected("orders to redis", "orders", "CLIENT", "order:", "orders"),
    Expected("redis for orders", "redis", "SERVER", "order:", "orders to redis"),
    Expected("orders to stock", "orders", "CLIENT", "stock/", "orders"),
    Expected("stock", "stock", "SERVER", "stock/", "orders to stock"),
    Expected("stock to redis", "stock", "CLIENT", "stock:", "stock"),
    Expected("redis for stock", "redis", "SERVER", "stock:", "stock to redis"),
)
# The two ends of one call are joined by stream positions, and a thread that serves one request at a time makes that request's
# calls: these links need no guess. The other two are made where many requests meet in one event loop.
CERTAIN_LINKS = tuple(f"{e.parent} > {e.name}" for e in EXPECTED if e.parent and (e.kind == "SERVER" or e.role == "orders"))
NAME_OF = {(e.role, e.kind, e.word): e.name for e in EXPECTED}


@dataclass
class Findings:
    """What the comparison found."""

    requests_captured: int = 0
    spans_by_service: Counter[str] = field(default_factory=Counter)
    spans_unexpected: int = 0
    traces_complete: int = 0
    traces_incomplete: int = 0
    traces_wrong: int = 0
    incomplete_because: Counter[str] = field(default_factory=Counter)
    links: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    example_trace_id: str | None = None  # a complete trace, or the one with the most spans


Request = dict[str, list[SeenSpan]]  # spans by the name of Expected


def compare(spans: Iterable[SeenSpan], role_of_pid: Mapping[int, str]) -> Findings:
    """Sort spans into requests and judge each. role_of_pid: nginx, orders, stock, redis by process id."""
    found = Findings()
    requests: dict[str, Request] = defaultdict(lambda: defaultdict(list))
    for span in spans:
        found.spans_by_service[span.service or "unknown"] += 1
        order_id, name = identify(span, role_of_pid)
        if order_id is None or name is None:
            found.spans_unexpected += 1
        else:
            requests[order_id][name].append(span)
    best = 0
    for request in requests.values():
        found.requests_captured += "nginx" in request
        complete = judge(request, found)
        root = request.get("nginx", [None])[0]
        if root is not None and root.trace_id:
            joined = sum(s.trace_id == root.trace_id for spans in request.values() for s in spans)
            if joined + complete > best:
                best, found.example_trace_id = joined + complete, root.trace_id
    return found


def identify(span: SeenSpan, role_of_pid: Mapping[int, str]) -> tuple[str | None, str | None]:
    """(order id, name of Expected) of a span; None for what cannot be told."""
    role = role_of_pid.get(span.pid or 0, "")
    for attribute in TEXT_ATTRIBUTES:
        if match := ORDER.search(str(span.attributes.get(attribute, ""))):
            return match[2], NAME_OF.get((role, span.kind, match[1]))
    return None, None


def judge(request: Request, found: Findings) -> bool:
    """Judge one request's spans and parents, and count it. Returns whether its trace is complete."""
    missing: list[str] = []
    wrong = False
    for expected in EXPECTED:
        spans = request.get(expected.name, [])
        if len(spans) != 1:
            missing.append(f"span: {expected.name}" if not spans else f"span twice: {expected.name}")
        for span in spans:
            verdict = judge_parent(span, expected, request)
            if expected.parent is not None:
                found.links[f"{expected.parent} > {expected.name}"][verdict] += 1
            wrong |= verdict == "wrong"
            if verdict == "missing":
                missing.append(f"link: {expected.parent} > {expected.name}")
    if not wrong and not missing and len({s.trace_id for spans in request.values() for s in spans}) != 1:
        missing.append("one trace id for all spans")
    found.traces_wrong += wrong
    found.traces_incomplete += not wrong and bool(missing)
    found.traces_complete += not wrong and not missing
    found.incomplete_because.update(missing if not wrong else ())
    return not wrong and not missing


def judge_parent(span: SeenSpan, expected: Expected, request: Request) -> str:
    """right, wrong or missing."""
    if expected.parent is None:
        return "right" if span.parent_span_id is None else "wrong"
    if span.parent_span_id is None:
        return "missing"
    return "right" if span.parent_span_id in {s.span_id for s in request.get(expected.parent, [])} else "wrong"
