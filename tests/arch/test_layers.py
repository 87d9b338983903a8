"""The arrows of the architecture: cli -> agent | server -> wire -> foundation, and who alone may touch the world."""

import ast
import pathlib
from collections.abc import Iterator

import pytest
from imports import PACKAGE, ROOT, Import, cython_files, imports, python_files, tree, unit_imported, unit_of

FOUNDATION = {"errors", "model", "config", "registry", "log", "counters", "ledger", "clock", "procname", "resources", "__version__"}
COMPILED = {"core", "protocols"}

# What each part of deeptrace/ may import of the others. A new arrow is a decision: draw it in the architecture first.
MAY_IMPORT = {
    "core": set(),
    "protocols": {"core"},
    "errors": set(),
    "clock": set(),
    "procname": set(),
    "resources": {"errors"},
    "log": set(),
    "registry": {"errors", "core", "protocols"},
    "config": {"errors"},
    "model": {"core"},
    "counters": {"core"},
    "ledger": set(),
    "loader": {"errors", "resources", "core", "counters", "clock", "log"},
    "wire": FOUNDATION | COMPILED,
    "agent": FOUNDATION | COMPILED | {"wire", "loader"},
    "server": FOUNDATION | COMPILED | {"wire"},
    "demo": FOUNDATION,
    "cli": FOUNDATION | COMPILED | {"wire", "agent", "server", "demo", "loader"},  # loader: its checks of this machine
}

ONLY_IN = {
    "bcc": ("loader/",),
    "grpc": ("agent/sender", "server/ingest"),
    "clickhouse_connect": ("server/store/",),
    "chdb": ("server/store/",),
    "pyarrow": ("server/",),
    "starlette": ("server/",),
    "uvicorn": ("server/",),
    "typer": ("cli/",),
    "click": ("cli/",),
    "rich": ("cli/", "demo/"),
    "dpkt": ("wire/", "agent/"),
    "ctypes": ("procname", "loader/", "agent/", "demo/services", "cli/_children", "server/memory"),
}

# Stages that get the time as an argument and never see a file or a socket, so that a replay is exact.
WORLDLESS_FOLDERS = ("server/correlate/", "server/assemble")
CLOCKS = ("time", "datetime", "deeptrace.clock", "random", "secrets")
FILES = ("os", "io", "pathlib", "shutil", "tempfile", "mmap")
OTHERS = ("socket", "ssl", "select", "selectors", "asyncio", "subprocess", "threading")
WORLD = (*CLOCKS, *FILES, *OTHERS)
CYTHON_WORLD = ("time", "datetime", "socket", "os", "io", "pathlib", "random", "libc.time", "posix", "libc.stdio", "mmap")
FOUNDATION_FILES = [p for p in python_files() if p.parent == PACKAGE]


def name_of(path: pathlib.Path) -> str:
    return str(path.relative_to(PACKAGE))


def all_imports() -> Iterator[Import]:
    for path in python_files():
        yield from imports(path)


def test_every_part_has_its_arrows_drawn() -> None:
    assert {unit_of(p) for p in python_files()} - {"__init__"} <= set(MAY_IMPORT)


@pytest.mark.parametrize("path", python_files(), ids=name_of)
def test_a_file_imports_only_along_the_arrows(path: pathlib.Path) -> None:
    unit = unit_of(path)
    allowed = MAY_IMPORT.get(unit, set()) | {unit, "__version__"}
    wrong = [str(i) for i in imports(path) if (target := unit_imported(i)) is not None and target not in allowed]
    assert not wrong, f"{unit} may import {sorted(allowed)}"


def test_compiled_core_and_protocols_import_only_along_the_arrows() -> None:
    wrong = [
        str(i)
        for path in cython_files()
        for i in imports(path)
        if i.name.startswith("deeptrace.")
        and not i.of("deeptrace.core")
        and not (path.parent.name == "core" and i.of("deeptrace.protocols"))
    ]
    assert not wrong


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_is_imported_only_in_its_place(library: str) -> None:
    wrong = [str(i) for i in all_imports() if i.of(library) and not name_of(i.file).startswith(ONLY_IN[library])]
    assert not wrong, f"{library} belongs in {ONLY_IN[library]}"


def test_the_agent_needs_none_of_the_servers_packages() -> None:
    servers_own = ("chdb", "clickhouse_connect", "pyarrow", "starlette", "uvicorn")
    wrong = [str(i) for i in all_imports() if unit_of(i.file) in ("agent", "loader", "wire") and any(i.of(p) for p in servers_own)]
    assert not wrong


def test_correlation_and_assembly_see_no_clock_socket_or_file() -> None:
    # server/correlate/__init__.py lists its folder to find the kinds of evidence.
    allowed = {("server/correlate/__init__.py", "pathlib")}
    wrong = [
        str(i)
        for i in all_imports()
        if name_of(i.file).startswith(WORLDLESS_FOLDERS)
        and any(i.of(w) for w in WORLD)
        and (name_of(i.file), i.name) not in allowed
    ]
    assert not wrong


def test_the_compiled_core_sees_no_clock_socket_or_file() -> None:
    # The ring is memory that the kernel shares: it maps a descriptor that it is given, and opens nothing.
    allowed = {("ring", "posix.mman"), ("ring", "posix.unistd")}
    wrong = [
        str(i)
        for path in cython_files()
        for i in imports(path)
        if any(i.of(w) for w in CYTHON_WORLD) and (path.stem, ".".join(i.name.split(".")[:2])) not in allowed
    ]
    wrong += [f"{path.relative_to(ROOT)} opens a file" for path in cython_files() if " open(" in path.read_text()]
    assert not wrong


def test_the_time_is_read_in_one_place_of_the_foundation() -> None:
    wrong = [
        str(i) for p in FOUNDATION_FILES if p.stem not in ("clock", "log") for i in imports(p) if i.of("time") or i.of("datetime")
    ]
    assert not wrong


def test_the_environment_is_read_only_by_config() -> None:
    def reads_environment(path: pathlib.Path) -> bool:
        return any(isinstance(n, ast.Attribute) and n.attr in ("environ", "getenv") for n in ast.walk(tree(path)))

    # The command line sets one variable before numpy is loaded and passes the rest on to children; the loader sets BCC's.
    allowed = {"config.py", "cli/__init__.py", "loader/__main__.py", "loader/child.py", "cli/_children.py"}
    assert {name_of(p) for p in python_files() if reads_environment(p)} <= allowed


def test_only_the_command_line_prints() -> None:
    def prints(path: pathlib.Path) -> bool:
        calls = (n.func for n in ast.walk(tree(path)) if isinstance(n, ast.Call))
        return any(isinstance(f, ast.Name) and f.id == "print" for f in calls)

    wrong = [name_of(p) for p in python_files() if prints(p) and unit_of(p) != "cli" and name_of(p) != "loader/__main__.py"]
    assert not wrong


def test_no_exception_is_swallowed_by_a_bare_except() -> None:
    def bare(path: pathlib.Path) -> bool:
        return any(isinstance(n, ast.ExceptHandler) and n.type is None for n in ast.walk(tree(path)))

    assert not [name_of(p) for p in python_files() if bare(p)]
