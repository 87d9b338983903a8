"""Reads the record layout, limits and system call numbers from bpf/include, and records by them. Standard library only: it
also runs where neither numpy nor the compiled core is."""

import pathlib
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

INCLUDE = pathlib.Path(__file__).resolve().parents[3] / "bpf" / "include"
CODES = {"__u8": "B", "__u16": "H", "__u32": "I", "__u64": "Q", "__s32": "i", "__s64": "q"}
FIELD = re.compile(r"^\s*(?:struct\s+)?(\w+)\s+(\w+)(?:\[(\w+)\])?;", re.MULTILINE)
DATA, CONN, PROC = 1, 2, 3  # enum dt_kind
INGRESS, EGRESS = 0, 1  # enum dt_direction
SEQ_VALID, SEQ_AMBIGUOUS, PEEK, TRUNCATED, READ_FAULT, ENTER_MISSED, FIRST, FRESH, COUNTED, URING = (1 << i for i in range(10))


@dataclass(frozen=True)
class Layout:
    """struct dt_record with the fields of its nested struct in place; limits by name; system call numbers by name."""

    names: tuple[str, ...]
    form: struct.Struct
    limits: dict[str, int]
    syscalls: dict[str, int]

    def parse(self, raw: bytes) -> Iterator[tuple[dict, bytes]]:
        """The records of one sample: each its fields by name, and its payload. They begin at multiples of 8."""
        at = 0
        while len(raw) - at >= self.form.size:
            fields = dict(zip(self.names, self.form.unpack_from(raw, at), strict=True))
            begin, at = at + self.form.size, at + self.form.size + fields["payload_len"]
            if at > len(raw):
                raise ValueError(
                    f"a record at {begin - self.form.size} of {len(raw)} bytes says that it has {fields['payload_len']}"
                )
            yield fields, raw[begin:at]
            at += -at % 8


def read_layout(include: pathlib.Path = INCLUDE) -> Layout:
    """The layout that the probes are compiled with. Padding is written out there, so `=` and the fields' order are enough."""
    header = re.sub(r"/\*.*?\*/", "", (include / "dt_records.h").read_text(), flags=re.DOTALL)
    limits = {
        name: int(value, 0) for name, value in re.findall(r"^#define DT_(\w+) (0x[0-9a-fA-F]+|\d+)u?\s*$", header, re.MULTILINE)
    }
    names, codes = _fields(header, "dt_record", limits)
    rows = re.findall(r"^DT_SYSCALL\w*\((\d+), (\w+),", (include / "syscalls.def").read_text(), re.MULTILINE)
    return Layout(tuple(names), struct.Struct("=" + codes), limits, {name: int(number) for number, name in rows})


def _fields(header: str, name: str, limits: dict[str, int]) -> tuple[list[str], str]:
    body = re.search(rf"struct {name} \{{(.*?)\n\}};", header, re.DOTALL).group(1)
    names, codes = [], ""
    for kind, field, count in FIELD.findall(body):
        if kind in CODES:
            length = int(limits.get(count.removeprefix("DT_"), count or 0)) if count else 0
            names.append(field)
            codes += f"{length}s" if length else CODES[kind]
        else:
            inner_names, inner_codes = _fields(header, kind, limits)
            names += inner_names
            codes += inner_codes
    return names, codes
