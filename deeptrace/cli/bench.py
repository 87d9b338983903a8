"""`deeptrace bench`: measures the tool on this machine, and holds the figures against limits."""

import importlib
import json as jsonlib
import os
import pathlib
import platform
import signal
import sys
import types
from typing import Annotated, Any

import typer

from deeptrace.cli._options import JsonOption
from deeptrace.errors import DeepTraceError, UsageError

PACKAGE = "deeptrace_benchmarks"  # name under which the shipped folder is imported

Name = Annotated[str, typer.Argument(metavar="NAME", help="Which benchmark; without a name they are listed.", show_default=False)]
Quick = Annotated[bool, typer.Option("--quick", help="Fewer rounds: rougher figures, much sooner.")]
Check = Annotated[
    pathlib.Path | None,
    typer.Option("--check", metavar="FILE", help="Exit 1 when a figure is beyond its limit in this file.", show_default=False),
]
Output = Annotated[
    pathlib.Path | None, typer.Option("--output", metavar="FILE", help="Also write the JSON here.", show_default=False)
]


def command(name: Name = "", quick: Quick = False, check: Check = None, output: Output = None, json: JsonOption = False) -> int:
    """Measure what DeepTrace costs on this machine.

    overhead: what tracing adds to the system calls of a traced process (needs root and gcc); pipeline: messages a second through
    the compiled core. JSON has one form: bench, machine, rows of name, value, unit, ratio and reference.

    Example:
      deeptrace bench overhead            about three minutes, alone on the machine at best
      deeptrace bench overhead --quick    30 seconds
      deeptrace bench pipeline --json
    """
    from deeptrace.resources import shipped_folder

    folder = shipped_folder("benchmarks")
    names = bench_names(folder)
    if not name:
        print("\n".join(names))
        return 0
    if name not in names:
        raise UsageError(f"there is no benchmark {name!r}; there are {', '.join(names)}")
    limits = load_limits(check, name) if check else {}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was attached is detached again
    module = load_bench(folder, name)
    result = {"bench": name, "machine": machine(), "quick": quick, **module.run(quick=quick, tell=tell)}
    if output:
        write(output, result)
    if json:
        print(jsonlib.dumps(result))
    else:
        show(module, result)
    if limits and result.get("unfit"):
        print(f"deeptrace: {check} was not held against these figures: {result['unfit']}", file=sys.stderr)
    elif beyond := complaints(result, limits):
        raise DeepTraceError("; ".join(beyond))
    return 0


def bench_names(folder: pathlib.Path) -> list[str]:
    """A benchmark is a Python file or package of the folder."""
    found = [path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")]
    return sorted(found + [path.parent.name for path in folder.glob("*/__init__.py")])


def load_bench(folder: pathlib.Path, name: str) -> Any:
    package = types.ModuleType(PACKAGE)
    package.__path__ = [str(folder)]
    sys.modules[PACKAGE] = package
    return importlib.import_module(f"{PACKAGE}.{name}")


def machine() -> dict[str, Any]:
    """What a figure depends on."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    load = round(os.getloadavg()[0], 2)
    return {
        "cpus": os.cpu_count(),
        "cpu": model,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_1min": load,
    }


def tell(step: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{step}", end="", file=sys.stderr, flush=True)


def write(path: pathlib.Path, result: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(jsonlib.dumps(result, indent=1) + "\n")
    except OSError as e:
        raise DeepTraceError(f"{path} cannot be written: {e.strerror}") from e


def show(module: Any, result: dict[str, Any]) -> None:
    """The benchmark's own tables where it has some, else one line a row."""
    from rich.table import Table

    from deeptrace.cli import _show

    console = _show.console()
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    if hasattr(module, "tables"):
        for table in module.tables(result):
            console.print(table)
        return
    table = Table("name", "value", "unit", "ratio", "reference", title=result["bench"], title_justify="left")
    for row in result["rows"]:
        table.add_row(row["name"], _number(row["value"]), row["unit"], _number(row["ratio"]), _number(row["reference"]))
    console.print(table)


def _number(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:,}"


def load_limits(path: pathlib.Path, name: str) -> dict[str, float]:
    """{row: highest ratio} of one benchmark. Raises UsageError."""
    try:
        limits = jsonlib.loads(path.read_text())[name]
        return {row: float(limit) for row, limit in limits["max_ratio"].items()}
    except OSError as e:
        raise UsageError(f"--check {path}: {e.strerror}") from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise UsageError(f'--check {path}: write {{"{name}": {{"max_ratio": {{"row": number}}}}}}') from e


def complaints(result: dict[str, Any], limits: dict[str, float]) -> list[str]:
    """A sentence for each row whose ratio is beyond its limit, or that is not there."""
    ratios = {row["name"]: row["ratio"] for row in result["rows"]}
    found = []
    for name, limit in limits.items():
        ratio = ratios.get(name)
        if ratio is None:
            found.append(f"{result['bench']} has no figure {name}, which must not be beyond {limit:g}")
        elif ratio > limit:
            found.append(f"{name} has ratio {ratio:g}, beyond its limit of {limit:g}")
    return found
