"""Where the fields of the shared structures lie, read out of dt_records.h itself: for the loader, which has neither the compiled
core nor numpy. Knows what that header allows: fixed-size integers, arrays of them, one level of nested structures."""

from __future__ import annotations

import pathlib
import re
from typing import NamedTuple

COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
DEFINE = re.compile(r"^#define (DT_\w+) (\d+)\s*$", re.MULTILINE)
STRUCT = re.compile(r"^struct (dt_\w+) \{\n(.*?)^\};", re.MULTILINE | re.DOTALL)
FIELD = re.compile(
    r"^\s*(?:struct (?P<struct>\w+)|__(?P<sign>[us])(?P<bits>\d+)) (?P<name>\w+)(?:\[(?P<count>\w+)\])?;", re.MULTILINE
)


class Field(NamedTuple):
    """One field. bytes: of the whole array where it is one; code: how the struct module reads it."""

    name: str
    offset: int
    bytes: int
    code: str


class Layout(NamedTuple):
    """One structure: its fields, those of nested structures in place, and its size."""

    fields: dict[str, Field]
    bytes: int

    def format(self) -> str:
        """For struct.unpack: all fields in their order. Every gap is written out in the header, so none is skipped here."""
        return "=" + "".join(field.code for field in self.fields.values())


def read_layouts(bpf: pathlib.Path) -> dict[str, Layout]:
    """{structure: its layout}; structures whose arrays are longer than a plain number says are left out."""
    text = COMMENT.sub("", (bpf / "include" / "dt_records.h").read_text(encoding="utf-8"))
    numbers = {name: int(value) for name, value in DEFINE.findall(text)}
    layouts: dict[str, Layout] = {}
    for name, body in STRUCT.findall(text):
        layout = _layout(body, numbers, layouts)
        if layout is not None:
            layouts[name] = layout
    return layouts


def read_numbers(bpf: pathlib.Path, *names: str) -> tuple[int, ...]:
    """Values of plain #defines of dt_records.h."""
    text = (bpf / "include" / "dt_records.h").read_text(encoding="utf-8")
    found = dict(re.findall(r"^#define (DT_\w+) (0x[0-9a-f]+|\d+)u?\b", text, re.MULTILINE))
    return tuple(int(found[name], 0) for name in names)


def _layout(body: str, numbers: dict[str, int], known: dict[str, Layout]) -> Layout | None:
    fields: dict[str, Field] = {}
    at, widest = 0, 1
    for line in filter(str.strip, body.splitlines()):
        match = FIELD.match(line)
        if match is None:
            return None  # more than a field: nothing that the loader reads
        name, count = match["name"], match["count"]
        n = 1 if count is None else int(count) if count.isdigit() else numbers.get(count)
        if n is None or (match["struct"] and match["struct"] not in known):
            return None
        if match["struct"]:
            nested = known[match["struct"]]
            fields.update({f.name: f._replace(offset=at + f.offset) for f in nested.fields.values()})
            at, widest = at + nested.bytes, max(widest, 8 if nested.bytes % 8 == 0 else 4)
            continue
        width = int(match["bits"]) // 8
        code = {1: "b", 2: "h", 4: "i", 8: "q"}[width]
        code = code.upper() if match["sign"] == "u" else code
        fields[name] = Field(name, at, width * n, f"{n}s" if count and width == 1 else code if n == 1 else f"{n}{code}")
        at, widest = at + width * n, max(widest, width)
    return Layout(fields, -(-at // widest) * widest)
