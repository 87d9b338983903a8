"""deeptrace trace ID: one trace as a waterfall."""

from typing import Annotated

import typer

from deeptrace.cli._client import Client, DataOption, ServerOption
from deeptrace.cli._options import JsonOption
from deeptrace.cli._show import clock_time, console, duration, print_lines, waterfall


def command(
    trace_id: Annotated[str, typer.Argument(metavar="ID", help="The trace: 32 hexadecimal digits, as `traces` shows them.")],
    server: ServerOption = "",
    data: DataOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show one trace: its spans under their parents, how long each took and what links it. With --json one span a line.

    Example:
        deeptrace trace 0af7651916cd43dd8448eb211c80319c
    """
    found = Client(server, data).get(f"traces/{trace_id}")
    if as_json:
        print_lines(found["spans"])
        return
    spans = found["spans"]
    whole = max(s["end_ns"] for s in spans) - min(s["start_ns"] for s in spans)
    screen = console()
    screen.print(f"trace {found['trace_id']}  {clock_time(spans[0]['start_ns'])}  {len(spans)} spans  {duration(whole)}")
    screen.print(waterfall(found))
    if found["truncated"]:
        screen.print("the trace has more spans than are shown")
