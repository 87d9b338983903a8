"""deeptrace spans: list stored spans."""

from typing import Annotated

import typer

from deeptrace.cli._client import Client, DataOption, ServerOption, SinceOption, since_seconds
from deeptrace.cli._options import JsonOption
from deeptrace.cli._show import SPAN_HEADINGS, console, print_lines, span_columns, table


def command(
    server: ServerOption = "",
    data: DataOption = "",
    since: SinceOption = "15m",
    service: Annotated[str, typer.Option("--service", help="Only spans of this service.")] = "",
    protocol: Annotated[str, typer.Option("--protocol", help="Only this protocol, such as http1 or redis.")] = "",
    status: Annotated[str, typer.Option("--status", help="unset or error.")] = "",
    name: Annotated[str, typer.Option("--name", help="Only spans of this name.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 100,
    order: Annotated[str, typer.Option("--order", help="desc: newest first; asc: oldest first.")] = "desc",
    as_json: JsonOption = False,
) -> None:
    """List stored spans, newest first. With --json one span a line (docs/spans.md).

    Example:
        deeptrace spans --since 5m --service nginx --status error
    """
    parameters = {
        "since": since_seconds(since), "service": service, "protocol": protocol, "status": status, "name": name,
        "limit": limit, "order": order,
    }  # fmt: skip
    found = Client(server, data).get("spans", parameters)["spans"]
    if as_json:
        print_lines(found)
        return
    shown = table(*SPAN_HEADINGS)
    for span in found:
        shown.add_row(*span_columns(span))
    console().print(shown if found else f"no spans in the last {since}")
