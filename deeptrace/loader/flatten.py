"""Joins the probes into one text, since BCC rewrites map calls only in its main file. Follows quoted includes only;
angle-bracket ones stay for the compiler."""

from __future__ import annotations

import pathlib
import re

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"[^\n]*$', re.MULTILINE)
HOOK = re.compile(r"\btracepoint__(?P<category>\w+?)__(?P<event>\w+)\s*\*")
SYSCALL = re.compile(r"^DT_SYSCALL\(\s*(?P<number>\d+),\s*(?P<name>\w+),", re.MULTILINE)


def find_include(name: str, folder: pathlib.Path, include: pathlib.Path) -> pathlib.Path:
    """Where a quoted include lies: beside the including file, else in bpf/include. Raises FileNotFoundError."""
    for candidate in (folder / name, include / name):
        if candidate.is_file():
            return candidate.resolve()
    raise FileNotFoundError(f'"{name}", included from {folder}')


def flatten(source: pathlib.Path, include: pathlib.Path, *, seen: set[pathlib.Path], without: frozenset[str] = frozenset()) -> str:
    """One file with its quoted includes in place. Headers (.h) come once per `seen`, .def lists each time;
    `without`: syscalls whose line is left out of syscalls.def. Raises FileNotFoundError for an include that is nowhere."""
    text = source.read_text(encoding="utf-8").replace("#pragma once\n", "")
    if source.name == "syscalls.def" and without:
        text = "".join(line for line in text.splitlines(keepends=True) if not is_line_of(line, without))

    def insert(match: re.Match[str]) -> str:
        path = find_include(match.group(1), source.parent, include)
        if path.suffix == ".h":
            if path in seen:
                return ""
            seen.add(path)
        return flatten(path, include, seen=seen, without=without)

    return INCLUDE.sub(insert, text)


def is_line_of(line: str, names: frozenset[str]) -> bool:
    match = SYSCALL.match(line)
    return match is not None and match.group("name") in names


def probe_files(bpf: pathlib.Path) -> dict[str, pathlib.Path]:
    """The groups of probes: {name: file}, one per file of bpf/probes, in order of their names."""
    return {path.name.split(".")[0]: path for path in sorted((bpf / "probes").glob("*.bpf.c"))}


def flatten_groups(bpf: pathlib.Path, groups: list[str], *, without: frozenset[str] = frozenset()) -> str:
    """The text that BCC compiles: the named groups with all that they include."""
    files = probe_files(bpf)
    include = bpf / "include"
    seen: set[pathlib.Path] = set()
    return "\n".join(flatten(files[name], include, seen=seen, without=without) for name in groups)


def syscall_names(bpf: pathlib.Path) -> list[str]:
    """Names of the traced data calls, in the order of syscalls.def."""
    return [m.group("name") for m in SYSCALL.finditer((bpf / "include" / "syscalls.def").read_text(encoding="utf-8"))]
