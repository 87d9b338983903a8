"""deeptrace traces: list traces by their roots."""

from typing import Annotated

import typer

from deeptrace.cli._client import Client, DataOption, ServerOption, SinceOption, since_seconds
from deeptrace.cli._options import JsonOption
from deeptrace.cli._show import clock_time, console, duration, print_lines, status, table


def command(
    server: ServerOption = "",
    data: DataOption = "",
    since: SinceOption = "15m",
    service: Annotated[str, typer.Option("--service", help="Only traces that begin in this service.")] = "",
    name: Annotated[str, typer.Option("--name", help="Only traces whose first span has this name.")] = "",
    status_: Annotated[str, typer.Option("--status", help="unset or error, of the first span.")] = "",
    min_duration_ms: Annotated[float, typer.Option("--min-duration-ms", min=0.0, help="Only traces that took so long.")] = 0.0,
    min_spans: Annotated[int, typer.Option("--min-spans", min=1, help="Only traces of at least so many spans.")] = 1,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List traces, newest first. With --json one object a line: trace_id, service, name, protocol, status (of the first span),
    start_ns, duration_ns, n_spans.

    Example:
        deeptrace traces --since 5m --min-duration-ms 100
    """
    parameters = {
        "since": since_seconds(since), "service": service, "name": name, "status": status_, "min_duration_ms": min_duration_ms,
        "min_spans": min_spans, "limit": limit,
    }  # fmt: skip
    found = Client(server, data).get("traces", parameters)["traces"]
    if as_json:
        print_lines(found)
        return
    shown = table("start", "trace", "service", "name", "status", "duration", "spans", right=("duration", "spans"))
    for row in found:
        shown.add_row(
            clock_time(row["start_ns"]), row["trace_id"], row["service"] or "-", row["name"], status(row),
            duration(row["duration_ns"]), str(row["n_spans"]),
        )  # fmt: skip
    console().print(shown if found else f"no traces in the last {since}")
