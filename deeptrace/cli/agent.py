"""`deeptrace agent`: trace this host and ship its spans to a server. Long-running; ends with SIGTERM or Ctrl-C and exit code 0."""

import json as jsonlib
import os
import pathlib
import signal
import sys
from collections.abc import Callable
from typing import Annotated

import msgspec
import typer

from deeptrace.cli._options import FILTERS, JsonOption, settings_options
from deeptrace.config import Settings
from deeptrace.errors import UsageError

CONNECT_WAIT_S = 3.0  # before the ready line, for a server that is there; the agent runs without one, too


@settings_options(
    *FILTERS, "capture.payload_bytes", "ship.server", "agent.service", "agent.host", "ship.batch_ms", "ship.queue_spans"
)
def command(
    settings: Settings,
    grpc: Annotated[str | None, typer.Option("--grpc", metavar="ADDRESS", help="The same as --server.")] = None,
    http: Annotated[
        str | None, typer.Option("--http", metavar="ADDRESS", help="The server's query API, for the ready line.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", metavar="DIR", help="Find the server that runs with this folder.")] = None,
    json: JsonOption = False,
    read_settings: Callable[[], Settings] | None = None,
) -> None:
    """Trace this host and ship its spans to a server, which may be another host.

    The agent runs without a server, too: it holds spans up to --queue-spans, tries again and counts what it drops. With --config,
    SIGHUP makes it read that file again: filters, limits and the log level change while it runs.

    Example:
      deeptrace agent --server 10.0.0.5:4417           trace every process
      deeptrace agent --pid 1234 --data /tmp/try       trace one, for the server of that folder
      deeptrace agent --comm nginx --deny-port 9090    trace all of one name, but not what they say on one port
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until the agent takes over; nothing is attached yet
    from deeptrace.agent.manager import Agent, StopAsked, follow_signals

    place = server_of(data) if data else {}
    address = grpc or place.get("grpc") or settings.ship.server
    settings = with_server(settings, address)
    agent = Agent(settings)
    if read_settings is not None:
        agent.reload_from(lambda: with_server(read_settings(), address))
    follow_signals(agent)
    try:
        agent.start()
        connected = agent.wait_connected(CONNECT_WAIT_S)
        ready = {
            "event": "ready",
            "pid": os.getpid(),
            "grpc": address,
            "http": http or place.get("http"),
            "data": data,
            "connected": connected,
            "probes": agent.probes(),
        }
        if json:
            print(jsonlib.dumps(ready), flush=True)
        else:
            there = "connected to" if connected else "waiting for"
            print(f"Tracing; {there} the server at {address}. Ctrl-C ends it.", flush=True)
        agent.run()
        agent.finish()
    except StopAsked:
        return
    finally:
        agent.close()


def with_server(settings: Settings, address: str) -> Settings:
    return msgspec.structs.replace(settings, ship=msgspec.structs.replace(settings.ship, server=address))


def server_of(data: str) -> dict[str, str]:
    """Addresses of the server that runs with this data folder. Raises UsageError."""
    path = pathlib.Path(data, "server.json")
    try:
        found = jsonlib.loads(path.read_text())
        return {"grpc": str(found["grpc"]), "http": str(found["http"])}
    except (OSError, ValueError, KeyError) as e:
        raise UsageError(f"no server runs with the folder {data} ({path} says nothing); start one with 'deeptrace server'") from e
