"""deeptrace services: requests, errors and latencies by service."""

from deeptrace.cli._client import Client, DataOption, ServerOption, SinceOption, since_seconds
from deeptrace.cli._options import JsonOption
from deeptrace.cli._show import console, duration, print_lines, table


def command(server: ServerOption = "", data: DataOption = "", since: SinceOption = "15m", as_json: JsonOption = False) -> None:
    """Show requests, errors and latencies by service, kind and protocol. With --json one object a line.

    Example:
        deeptrace services --since 1m
    """
    found = Client(server, data).get("services", {"since": since_seconds(since)})["services"]
    if as_json:
        print_lines(found)
        return
    numbers = ("requests", "errors", "p50", "p95", "p99")
    shown = table("service", "kind", "protocol", *numbers, right=numbers)
    for row in found:
        latencies = [duration(row[f"{p}_ns"]) for p in ("p50", "p95", "p99")]
        shown.add_row(row["service"] or "-", row["kind"], row["protocol"], str(row["requests"]), str(row["errors"]), *latencies)
    console().print(shown if found else f"no spans in the last {since}")
