"""`deeptrace replay`: spans from a recording or a packet capture, by the same parsers that the agent runs."""

import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from deeptrace.cli._options import JsonOption, settings_options
from deeptrace.cli._show import SPAN_HEADINGS, console, print_lines, span_columns, table
from deeptrace.config import Settings


@settings_options("agent.request_timeout_s")
def command(
    settings: Settings,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A .dtcap, .pcap or .pcapng file.")],
    protocol: Annotated[str, typer.Option("--protocol", help="Only this protocol, such as http1 or redis.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=0, metavar="N", help="End after N spans; 0: all.")] = 0,
    json: JsonOption = False,
) -> None:
    """Show the spans of a recording, linked among themselves as far as the file tells.

    The same file gives the same spans, ids included, every time. In a packet capture each exchange is one CLIENT span without a
    process. What is wrong with a damaged file is told after the spans of its sound part, with exit code 1.

    Example:
      deeptrace replay trace.dtcap
      deeptrace replay traffic.pcap --json --protocol http1
    """
    from deeptrace.agent.replay import replay_all

    replay, batches, damage = replay_all(file, settings.agent)
    left = limit or sys.maxsize
    n_spans = 0
    for spans in linked_spans(batches, protocol):
        n_spans += len(spans)
        show(spans[:left], json)
        left -= min(left, len(spans))
    tell_summary(replay, n_spans)
    if damage is not None:
        raise damage


def show(spans: list[dict[str, Any]], json: bool) -> None:
    if json:
        print_lines(spans)
    elif spans:
        made = table(*SPAN_HEADINGS)
        for span in spans:
            made.add_row(*span_columns(span))
        console().print(made)


def linked_spans(batches: list[Any], protocol: str = "") -> Iterator[list[dict[str, Any]]]:
    """Batch by batch, the spans as JSON objects in the order of their starts, linked by all evidence that the file holds.
    Only one batch of objects exists at a time: a large file has millions."""
    from deeptrace.model import raw_spans, span_json
    from deeptrace.server.assemble import link_all

    links = link_all(batches)
    for batch in batches:
        spans = [span_json(raw, links.get(raw.span_id)) for raw in raw_spans(batch)]
        chosen = [span for span in spans if protocol in ("", span["protocol"])]
        yield sorted(chosen, key=lambda span: (span["start_ns"], span["span_id"]))


def tell_summary(replay: Any, n_spans: int) -> None:
    """What went in and what came out, on stderr: stdout holds spans only."""
    recording = replay.recording
    stats = getattr(recording, "stats", None)
    source = f"{stats.packets} packets, " if stats else ""
    parts = [f"{source}{replay.n_records} records, {n_spans} spans"]
    if stats:
        parts += [f"{n} packets skipped ({cause})" for cause, n in sorted(stats.skipped.items())]
    parts += [f"{n} {what}" for what, n in replay.losses.items()]
    if recording.info.redacted:
        parts.append("values were masked when it was recorded")
    if replay.lost_before:
        parts.append(f"{replay.lost_before} events were lost while it was recorded")
    if getattr(recording, "is_complete", True) is False:
        parts.append("the recording was not ended")
    print("deeptrace: " + "; ".join(parts), file=sys.stderr)
