"""The tree keeps its promises: small files, README where a folder is owned, nothing counted that is never incremented."""

import ast
import pathlib
import re
import subprocess

import pytest
from imports import ROOT

from deeptrace import counters, ledger
from deeptrace.core.wire import ATTRIBUTE_ROWS, COUNTER_ROWS, SYSCALL_ROWS

MAX_LINES = 400
MAX_BPF_LINES = 200
# Longer than the rule, each with its reason; a split is the better answer.
LONGER: dict[str, int] = {}
TEXT = {
    ".py",
    ".pyx",
    ".pxd",
    ".pyi",
    ".h",
    ".c",
    ".def",
    ".md",
    ".toml",
    ".sql",
    ".proto",
    ".yaml",
    ".txt",
    ".cfg",
    ".service",
    "",
}
FOLDERS_WITH_README = ("bpf", "ci", "deeptrace/agent", "deeptrace/cli", "deeptrace/demo", "deeptrace/loader", "deeptrace/server",
                       "deeptrace/wire", "docs", "ext", "tests", "benchmarks")  # fmt: skip
MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:home|work|Users)/\w")  # paths of some developer's machine
GAUGE = re.compile(r".*_(in_flight|in_queue|in_ring|open|carried)$")


def tracked() -> list[pathlib.Path]:
    """Files of the project: what git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.split("\0")
    return [p for name in sorted(set(listed)) if name and (p := ROOT / name).is_file()]


def name_of(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


def text_files() -> list[pathlib.Path]:
    return [p for p in tracked() if p.suffix in TEXT and p.name != "LICENSE"]


def is_code(path: pathlib.Path) -> bool:
    return path.suffix in {".py", ".pyx", ".h", ".c"} and not path.stem.endswith("_pb2")


def test_files_are_short() -> None:
    too_long = {}
    for path in filter(is_code, text_files()):
        lines = len(path.read_text().splitlines())
        limit = MAX_BPF_LINES if ".bpf" in path.suffixes else LONGER.get(name_of(path), MAX_LINES)
        if lines > limit:
            too_long[name_of(path)] = lines
    assert not too_long, "split by noun, or name the file and the reason in LONGER"


def test_the_list_of_longer_files_has_no_entry_that_it_needs_no_more() -> None:
    assert not [n for n in LONGER if not (ROOT / n).exists() or len((ROOT / n).read_text().splitlines()) <= MAX_LINES]


def test_every_module_says_its_duty() -> None:
    def docstring(path: pathlib.Path) -> str | None:
        return ast.get_docstring(ast.parse(path.read_text()))

    silent = [name_of(p) for p in text_files() if p.suffix == ".py" and is_code(p) and p.read_text().strip() and not docstring(p)]
    assert not silent


def test_there_is_no_drawer_for_everything() -> None:
    assert not [name_of(p) for p in tracked() if p.stem in {"utils", "util", "helpers", "common", "misc"}]


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    assert not [name_of(p) for p in text_files() if p != pathlib.Path(__file__) and MACHINE_PATHS.search(p.read_text())]


@pytest.mark.parametrize("folder", FOLDERS_WITH_README)
def test_a_folder_says_what_is_here(folder: str) -> None:
    assert (ROOT / folder / "README.md").is_file()


@pytest.mark.parametrize("rows", [COUNTER_ROWS, ATTRIBUTE_ROWS, SYSCALL_ROWS], ids=["counters", "attributes", "syscalls"])
def test_numbers_and_names_of_a_list_are_unique(rows: tuple[tuple[int, str], ...]) -> None:
    assert len({row[0] for row in rows}) == len({row[1] for row in rows}) == len(rows)


def test_counters_stand_in_the_range_of_their_stage() -> None:
    for counter in counters.COUNTERS.values():
        low, high = (
            (1, 63)
            if counter.stage == "kernel"
            else (64, 159)
            if counter.stage in ("ring", "flow", "frame", "pair")
            else (160, 255)
        )
        assert low <= counter.number <= high, counter


def code_that_counts() -> str:
    """All code that may increment a counter; not the places that only name them."""
    only_name = {"bpf/include/counters.def", "ext/core/counters.pxd", "deeptrace/ledger.py", "deeptrace/counters.py"}
    places = ("bpf/", "ext/", "deeptrace/")
    return "\n".join(
        p.read_text() for p in text_files() if name_of(p).startswith(places) and name_of(p) not in only_name and p.suffix != ".md"
    )


def test_every_counter_is_incremented_somewhere() -> None:
    words = set(re.findall(r"\w+", code_that_counts()))
    silent = [c.name for c in counters.COUNTERS.values() if not {c.name, f"DT_COUNT_{c.name.upper()}"} & words]
    assert not silent


def test_the_ledger_names_only_counters_and_gauges() -> None:
    names = {n for e in ledger.EQUATIONS for n in (*e.left, *e.right)}
    assert not {n for n in names if n not in counters.COUNTERS and not GAUGE.match(n)}


def test_every_loss_stands_in_an_equation() -> None:
    named = {n for e in ledger.EQUATIONS for n in (*e.left, *e.right)}
    # These lose no event that an equation counts; what follows from them is counted where it is lost.
    beside = {"bad_frame", "child_not_followed"}
    assert not [c.name for c in counters.COUNTERS.values() if c.is_loss and c.name not in named | beside]
