"""`deeptrace record`: write what the probes see to a file, for `replay` and `dump`. Ends with Ctrl-C or after --seconds."""

import json as jsonlib
import os
import sys
from typing import Annotated

import typer

from deeptrace.cli._options import FILTERS, JsonOption, settings_options
from deeptrace.config import Settings


@settings_options(*FILTERS, "capture.payload_bytes", "agent.service", "agent.host")
def command(
    settings: Settings,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The record file to write; replaced if it is there.")
    ],
    seconds: Annotated[float, typer.Option("--seconds", min=0, metavar="S", help="End after so long; 0: with Ctrl-C.")] = 0,
    redact: Annotated[bool, typer.Option("--redact", help="Mask payload before it is written; see docs/captures.md.")] = False,
    json: JsonOption = False,
) -> None:
    """Record the traffic of this machine's processes to a file.

    The file holds raw payload, and with it whatever secrets the traffic holds: only its owner may read it (mode 0600). With
    --redact values are masked before they are written; replay then shows the same spans but for values.

    Example:
      deeptrace record -o trace.dtcap --pid 1234 --seconds 10
      deeptrace replay trace.dtcap
    """
    from deeptrace.agent.recorder import Recorder, stop_on_signals
    from deeptrace.loader.client import check_privilege

    check_privilege()  # before a file is touched
    recorder = Recorder(output, settings, redact=redact)
    stop_on_signals(recorder)
    try:
        recorder.start()
        tell_start(output, redact, json)
        recorder.run(seconds)
        result = recorder.finish()
    finally:
        recorder.close()
    if json:
        print(jsonlib.dumps({"event": "done", "file": output, "redacted": redact, **result}), flush=True)
    else:
        lost = f", {result['lost']} lost" if result["lost"] else ""
        print(f"{result['records']} records, {result['bytes']} bytes in {output}{lost}. Next: deeptrace replay {output}")


def tell_start(output: str, redact: bool, json: bool) -> None:
    """Say that it runs, and what the file holds."""
    holds = "Values are masked" if redact else "It holds raw payload, secrets included"
    if json:
        print(jsonlib.dumps({"event": "ready", "pid": os.getpid(), "file": output, "redacted": redact}), flush=True)
    print(f"Recording to {output}. {holds}; only you may read it (mode 0600). Ctrl-C ends it.", file=sys.stderr, flush=True)
