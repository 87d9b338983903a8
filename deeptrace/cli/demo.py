"""deeptrace demo: real services under load, traced, and every trace compared with what was really sent."""

import json as jsonlib
import pathlib
import signal
import tempfile
import time
from typing import Annotated, Any

import typer

from deeptrace.cli._options import JsonOption
from deeptrace.errors import DeepTraceError, UsageError

Seconds = Annotated[float, typer.Option("--seconds", min=0.5, max=600, help="How long requests are sent.")]
Rate = Annotated[float, typer.Option("--rate", min=1, max=10_000, help="Requests per second.")]
Connections = Annotated[int, typer.Option("--connections", min=1, max=64, help="Concurrent connections to nginx.")]
Keep = Annotated[bool, typer.Option("--keep", help="Keep DeepTrace and the services running at the end, until Ctrl-C.")]


def command(
    seconds: Seconds = 20.0, rate: Rate = 1000.0, connections: Connections = 32, keep: Keep = False, json: JsonOption = False
) -> int:
    """Run nginx, two Python services and Redis under load, trace them, and compare the traces with what was sent.

    The services are ordinary processes on loopback that know nothing of tracing. The exit code is 0 when every request was
    captured, nothing was lost, the ledger balances and no parent is wrong. With --json the summary is the last line as JSON too.

    Example:
      deeptrace demo                        1,000 requests a second for 20 seconds
      deeptrace demo --seconds 5 --keep     a shorter one; then look around with deeptrace traces
    """
    from deeptrace.demo.play import Play, complaints
    from deeptrace.loader.client import check_privilege

    if seconds * rate > 2_000_000:
        raise UsageError("--seconds times --rate is more than 2,000,000 requests; the demo keeps them all in memory")
    check_privilege()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    screen = _Screen(round(seconds * rate), seconds)
    with tempfile.TemporaryDirectory(prefix="deeptrace-demo-") as folder:
        with Play(pathlib.Path(folder), seconds=seconds, rate=rate, n_connections=connections, tell=screen.tell) as play:
            api = play.prepare()
            with screen.live() as look:
                load = play.load(api, look)
            summary, found = play.finish(api, load)
            screen.trace(api.trace(found.example_trace_id) if found.example_trace_id else None)
            screen.summary(summary)
            if keep:
                screen.tell(f"still running; try: deeptrace traces --server {api.address}   (Ctrl-C ends it)")
                _wait_for_interrupt()
    if json:
        print(jsonlib.dumps(summary), flush=True)
    if complaints(summary):
        raise DeepTraceError("the demo did not come out right: " + "; ".join(complaints(summary)))
    return 0


def _wait_for_interrupt() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        pass


class _Screen:
    """Draws on stdout: in place on a terminal, as plain lines elsewhere."""

    def __init__(self, n_requests: int, seconds: float) -> None:
        from deeptrace.cli import _show

        self.console = _show.console()
        self.n_requests, self.seconds = n_requests, seconds
        self.rows: list[dict[str, Any]] = []
        self.began = time.monotonic()

    def tell(self, step: str) -> None:
        self.console.print(f"[dim]{time.monotonic() - self.began:5.1f} s[/dim]  {step}")

    def live(self) -> "_LiveTable":
        return _LiveTable(self)

    def trace(self, trace: dict[str, Any] | None) -> None:
        """One trace as a waterfall."""
        from deeptrace.cli import _show

        if trace is not None:
            self.console.print(f"\n[bold]one of the traces[/bold]  {trace['trace_id']}")
            self.console.print(_show.waterfall(trace))

    def summary(self, summary: dict[str, Any]) -> None:
        from deeptrace.demo import show

        self.console.print("\n[bold]captured, compared with what was sent[/bold]")
        self.console.print(show.summary_table(summary))


class _LiveTable:
    """The table of services, refreshed while the load runs; where there is no terminal, only its last state."""

    def __init__(self, screen: _Screen) -> None:
        from rich.live import Live

        self.screen = screen
        self.widget = Live(console=screen.console, auto_refresh=False)

    def __enter__(self) -> "Any":
        self.widget.start()
        return self.look

    def look(self, rows: list[dict[str, Any]], between_s: float, load: dict[str, Any]) -> None:
        from deeptrace.demo import show

        if between_s == 0:  # the last look: rates over the whole load
            self.screen.rows, between_s = [], self.screen.seconds
        table = show.service_table(rows, self.screen.rows, between_s, load, self.screen.n_requests)
        self.screen.rows = rows
        self.widget.update(table, refresh=True)

    def __exit__(self, *_: object) -> None:
        self.widget.stop()
        if not self.screen.console.is_terminal:
            self.screen.console.print()
