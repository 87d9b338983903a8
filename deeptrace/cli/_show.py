"""How spans, traces and services look in a terminal. Prints; asks nobody."""

import datetime
import json
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

Row = dict[str, Any]

WIDE = 160  # columns of a table that is written to a file or a pipe
BAR_COLUMNS = 32  # width of a waterfall's bars
EIGHTHS = " ▏▎▍▌▋▊▉█"
CERTAIN = 0.95  # links below this confidence are marked
STATUS_STYLES = {"error": "bold red"}


def print_lines(rows: Iterable[Any]) -> None:
    """One JSON object a line, flushed each: for scripts."""
    for row in rows:
        sys.stdout.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
        sys.stdout.flush()


def console() -> Console:
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=WIDE)


def duration(ns: float | None) -> str:
    """A duration with three digits: "812 us", "1.20 ms", "3.05 s"."""
    if ns is None:
        return "-"
    for limit, unit_ns, unit in ((1e3, 1, "ns"), (1e6, 1e3, "us"), (1e9, 1e6, "ms")):
        if ns < limit:
            value = ns / unit_ns
            return f"{value:.0f} {unit}" if unit == "ns" or value >= 100 else f"{value:.3g} {unit}"
    return f"{ns / 1e9:.2f} s"


def clock_time(ns: int) -> str:
    """Local time of day with microseconds."""
    moment = datetime.datetime.fromtimestamp(ns // 10**9).astimezone()
    return f"{moment:%H:%M:%S}.{ns % 10**9 // 1000:06d}"


def endpoint(address: str | None, port: int | None) -> str:
    if address is None:
        return "unix"
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def span_columns(span: Row) -> list[Text | str]:
    """What a line of `spans` and `tail` shows of a span."""
    return [
        clock_time(span["start_ns"]),
        span["service"] or (str(span["pid"]) if span["pid"] else "-"),
        span["kind"],
        span["protocol"],
        Text(span["name"]),
        status(span),
        duration(span["end_ns"] - span["start_ns"]),
        endpoint(span["peer_addr"], span["peer_port"]),
        (span["trace_id"] or "-")[:32],
    ]


SPAN_HEADINGS = ("start", "service", "kind", "protocol", "name", "status", "duration", "peer", "trace")


def status(span: Row) -> Text:
    """The protocol's own code where there is one, red for an error."""
    attributes = span.get("attributes", {})
    code = attributes.get("http.response.status_code") or attributes.get("db.response.status_code")
    text = str(code or "") if span["status"] != "error" else str(code or span.get("error_type") or "error")
    return Text(text, style=STATUS_STYLES.get(span["status"], ""))


def table(*headings: str, right: tuple[str, ...] = ("duration",)) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        made.add_column(heading, justify="right" if heading in right else "left", no_wrap=heading != "name", overflow="ellipsis")
    return made


def waterfall(trace: Row) -> Table:
    """A trace as a tree with bars: each span under its parent, in order of start."""
    spans: list[Row] = trace["spans"]
    begin = min(span["start_ns"] for span in spans)
    whole = max(1, max(span["end_ns"] for span in spans) - begin)
    made = table("service", "kind", "name", "status", "duration", "", "linked by")
    for depth, span in tree(spans):
        indent = "  " * (depth - 1) + ("└ " if depth else "")
        made.add_row(
            Text(indent + (span["service"] or str(span["pid"] or "-"))),
            span["kind"],
            Text(span["name"]),
            status(span),
            duration(span["end_ns"] - span["start_ns"]),
            Text(
                bar((span["start_ns"] - begin) / whole, (span["end_ns"] - begin) / whole),
                style="red" if span["status"] == "error" else "cyan",
            ),
            evidence(span),
        )
    return made


def tree(spans: list[Row]) -> list[tuple[int, Row]]:
    """(depth, span) in the order of a walk through the tree. Spans whose parent is not there begin a tree of their own."""
    ids = {span["span_id"] for span in spans}
    children: dict[str | None, list[Row]] = {}
    for span in sorted(spans, key=lambda s: (s["start_ns"], s["span_id"])):
        parent = span["parent_span_id"] if span["parent_span_id"] in ids else None
        children.setdefault(parent, []).append(span)
    found: list[tuple[int, Row]] = []
    waiting = [(0, span) for span in reversed(children.get(None, []))]
    while waiting:
        depth, span = waiting.pop()
        found.append((depth, span))
        waiting += [(depth + 1, child) for child in reversed(children.get(span["span_id"], []))]
    return found


def bar(start: float, end: float) -> str:
    """A bar from start to end (0..1) within BAR_COLUMNS, at least one eighth wide."""
    first = min(int(start * BAR_COLUMNS), BAR_COLUMNS - 1)
    eighths = max(1, round(end * BAR_COLUMNS * 8) - first * 8)
    full, rest = divmod(min(eighths, (BAR_COLUMNS - first) * 8), 8)
    return " " * first + EIGHTHS[8] * full + (EIGHTHS[rest] if rest else "")


def evidence(span: Row) -> Text:
    """Method and confidence of the link to the parent."""
    if span["parent_span_id"] is None:
        return Text("root" if span["trace_id"] else "not linked yet", style="dim")
    confidence = span["link_confidence"] or 0.0
    return Text(f"{span['link_method']} {confidence:.2f}", style="" if confidence >= CERTAIN else "yellow")
