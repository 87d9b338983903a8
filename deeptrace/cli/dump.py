"""`deeptrace dump`: the records of a recording or a packet capture as they are, for looking at what was captured."""

import collections
import datetime
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from deeptrace.cli._options import JsonOption
from deeptrace.cli._show import print_lines

HEX_COLUMNS = 16


def command(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A .dtcap, .pcap or .pcapng file.")],
    payload: Annotated[bool, typer.Option("--payload", help="Show the captured bytes as hex and text, too.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=0, metavar="N", help="End after N records; 0: all.")] = 0,
    json: JsonOption = False,
) -> None:
    """Show the records of a recording: who moved how many bytes on which connection, when.

    One line per record; with --json one object per record. What is wrong with a damaged file is told after what could be read.

    Example:
      deeptrace dump trace.dtcap --limit 20
      deeptrace dump trace.dtcap --payload --json
    """
    from deeptrace.agent.replay import open_recording

    recording = open_recording(file)
    try:
        if not json:
            print_info(recording)
        for n, row in enumerate(rows(recording, payload), 1):
            if json:
                print_lines([row])
            else:
                print(line(row))
                if payload and row["payload"]:
                    print(hex_text(bytes.fromhex(row["payload"])))
            if n == limit:
                return
        if not json:
            print_end(recording)
    finally:
        recording.close()


def rows(recording: Any, with_payload: bool) -> Iterator[dict[str, Any]]:
    """Each record as a dict: numbers by name, addresses and enums as text, payload as hex."""
    from deeptrace.agent.records import record_dict

    for frame in recording.frames():
        for record, at in zip(frame.records, frame.offsets.tolist(), strict=True):
            row = record_dict(record, recording.info.clock_offset_ns)
            if with_payload:
                row["payload"] = frame.payload[at : at + int(record["payload_len"])].tobytes().hex()
            yield row


def line(row: dict[str, Any]) -> str:
    """One record for people."""
    moment = datetime.datetime.fromtimestamp(row["time_ns"] // 10**9, datetime.UTC)
    who = f"{row['tgid']}/{row['tid']}" if row["tgid"] else "-"
    start = f"{moment:%H:%M:%S}.{row['time_ns'] % 10**9:09d} {row['kind']:4} {row['event']:11} {who:>13}"
    if row["kind"] == "proc":
        return f"{start} result {row['result']}" + (f" parent {row['parent_tgid']}" if row["parent_tgid"] else "")
    arrow = {"egress": "->", "ingress": "<-", None: "--"}[row["direction"]]
    ends = f"{row['local']} {arrow} {row['peer']}"
    if row["kind"] == "conn":
        return f"{start} {ends} result {row['result']}"
    cut = "" if row["payload_len"] == row["result"] else f" ({row['payload_len']} captured)"
    flags = " " + ",".join(row["flags"]) if row["flags"] else ""
    return f"{start} {ends} {row['result']} bytes{cut} seq {row['seq_enter']}..{row['seq_exit']}{flags}"


def hex_text(data: bytes) -> str:
    """16 bytes a line: offset, hex, and what is printable ASCII."""
    lines = []
    for at in range(0, len(data), HEX_COLUMNS):
        part = data[at : at + HEX_COLUMNS]
        text = "".join(chr(b) if 32 <= b < 127 else "." for b in part)
        lines.append(f"    {at:06x}  {part.hex(' '):<{HEX_COLUMNS * 3 - 1}}  {text}")
    return "\n".join(lines)


def print_info(recording: Any) -> None:
    info = recording.info
    known = {"host": info.host, "boot": info.boot_id, "written by": info.written_by}
    parts = [f"{name} {value}" for name, value in known.items() if value]
    if parts:
        print("# " + ", ".join(parts) + (", payload redacted" if info.redacted else ""))


def print_end(recording: Any) -> None:
    """What else the file says, on stderr: it is no record."""
    notes: collections.Counter[str] = collections.Counter(getattr(getattr(recording, "stats", None), "skipped", {}))
    for cause, n in notes.items():
        print(f"deeptrace: {n} packets without a record: {cause}", file=sys.stderr)
    if getattr(recording, "is_complete", True) is False:
        print("deeptrace: the recording was not ended; what was written is shown", file=sys.stderr)
