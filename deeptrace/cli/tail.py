"""deeptrace tail: spans as they come."""

import signal
import sys
from typing import Annotated

import typer

from deeptrace.cli._client import Client, DataOption, ServerOption
from deeptrace.cli._options import JsonOption
from deeptrace.cli._show import console, print_lines, span_columns


def command(
    server: ServerOption = "",
    data: DataOption = "",
    service: Annotated[str, typer.Option("--service", help="Only spans of this service.")] = "",
    protocol: Annotated[str, typer.Option("--protocol", help="Only this protocol, such as http1 or redis.")] = "",
    status: Annotated[str, typer.Option("--status", help="unset or error.")] = "",
    name: Annotated[str, typer.Option("--name", help="Only spans of this name.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=0, help="End after so many; 0: until Ctrl-C.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Show spans as the server stores them, until Ctrl-C. With --json one span a line (docs/spans.md); their traces come later,
    see `spans`. A terminal that is too slow misses spans; how many is said on stderr.

    Example:
        deeptrace tail --service nginx --status error
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    client = Client(server, data)
    screen = console()
    shown = 0
    try:
        for span in client.lines("tail", {"service": service, "protocol": protocol, "status": status, "name": name}):
            if "missed" in span:
                print(f"{span['missed']} spans were too fast to show", file=sys.stderr)
                continue
            if as_json:
                print_lines([span])
            else:
                screen.print(*span_columns(span)[:-1], sep="  ", soft_wrap=True)
            shown += 1
            if shown == limit:
                return
    except KeyboardInterrupt:
        return
