"""deeptrace server: receive, store, join and serve spans until told to stop."""

import json
import signal
import threading

from deeptrace.cli._options import JsonOption, settings_options
from deeptrace.config import Settings
from deeptrace.procname import mark_own_process

CHECK_S = 1.0  # how soon a server that is broken inside ends


@settings_options("server.grpc", "server.http", "server.data", "server.settle_s")
def command(settings: Settings, as_json: JsonOption = False) -> None:
    """Receive, store, join and serve spans, until Ctrl-C or SIGTERM.

    With --json one line {"event":"ready","pid":..,"grpc":..,"http":..,"data":..} says that agents and queries are served.

    Example:
        deeptrace server --data /var/lib/deeptrace --grpc 0.0.0.0:4417
    """
    mark_own_process()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    from deeptrace.server.serve import Server  # takes a second: the engine is large

    server = Server(settings)
    server.start()
    try:
        ready = server.ready()
        text = f"serving queries at http://{server.http}, agents at {server.grpc}, data in {server.data}; Ctrl-C stops"
        print(json.dumps(ready) if as_json else text, flush=True)
        while not stop.wait(CHECK_S):
            server.check()
    finally:
        server.stop()
