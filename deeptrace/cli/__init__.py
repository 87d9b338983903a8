"""The command line: finds the verbs of this folder and turns every failure into one line and an exit code. Knows no verb.

A verb is a module here whose name does not begin with "_"; its `command` function carries typer annotations. Only the verb
that was asked for is imported, so that help and each verb start fast.
"""

import ast
import functools
import inspect
import logging
import os
import pathlib
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from deeptrace import __version__
from deeptrace.errors import DeepTraceError
from deeptrace.procname import mark_own_process

FOLDER = pathlib.Path(__file__).parent
EXIT_DEFECT = 70  # EX_SOFTWARE of sysexits.h
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells say it

LIBRARIES = (  # settings that libraries read when they are imported
    ("OPENBLAS_NUM_THREADS", "1"),  # nothing here multiplies matrices; idle threads would cost memory
    ("GRPC_VERBOSITY", "NONE"),  # it writes its own lines to stderr beside our sentence
)

HELP = """Distributed tracing for Linux services without touching their code.

Try `deeptrace up` in one terminal and `deeptrace tail` in another. `deeptrace doctor` says what is missing on this machine.
"""


def verbs() -> dict[str, pathlib.Path]:
    """Verb -> the file that holds it, in alphabetical order."""
    return {p.stem.replace("_", "-"): p for p in sorted(FOLDER.glob("*.py")) if not p.stem.startswith("_")}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `deeptrace`. Always ends with SystemExit."""
    for name, value in LIBRARIES:
        os.environ.setdefault(name, value)
    mark_own_process()
    sys.exit(run(list(sys.argv[1:] if argv is None else argv)))


def run(argv: list[str]) -> int:
    """Run one command line; returns its exit code. Errors are told on stderr."""
    argv = hoist_verbosity(argv)
    verb = next((a for a in argv if not a.startswith("-")), "")
    prefix = f"deeptrace {verb}" if verb in verbs() else "deeptrace"
    try:
        result = application(verb)(args=argv, prog_name="deeptrace", standalone_mode=False)
    except DeepTraceError as e:
        return tell(f"deeptrace: {e}", e.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader has gone; the interpreter flushes stdout at exit
        return 1
    except Exception as e:  # noqa: BLE001 - the last frame of the program: anything else is a defect of ours
        if hasattr(e, "format_message"):  # typer's usage errors; their class moved between its versions
            return tell(f"{prefix}: {e.format_message().rstrip('.')}; see '{prefix} --help'", getattr(e, "exit_code", 2))
        return tell_defect(e)
    return result if isinstance(result, int) else 0


def tell(line: str, exit_code: int) -> int:
    print(line, file=sys.stderr)
    return exit_code


def tell_defect(error: Exception) -> int:
    """Save the traceback to a file and say so in one line."""
    text = "".join(traceback.format_exception(error))
    name = type(error).__name__
    try:
        with tempfile.NamedTemporaryFile("w", prefix="deeptrace-", suffix=".traceback", delete=False) as f:
            f.write(text)
        place = f"its traceback is in {f.name}"
    except OSError as e:  # a full disk must not hide the defect
        place = f"its traceback could not be saved ({e.strerror})"
    logging.getLogger("deeptrace.cli").debug("traceback", exc_info=error)
    return tell(f"deeptrace: {name}: {error}: this is a defect of DeepTrace, {place}", EXIT_DEFECT)


def hoist_verbosity(argv: list[str]) -> list[str]:
    """Move -v, -vv, ... before the verb: they mean the same wherever they stand."""
    end = argv.index("--") if "--" in argv else len(argv)
    found = [a for a in argv[:end] if a == "--verbose" or (a.startswith("-v") and set(a[1:]) == {"v"})]
    return found + [a for a in argv[:end] if a not in found] + argv[end:]


def application(verb: str) -> typer.Typer:
    """The typer application with `verb` loaded; the others are there by name and help only."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, help=HELP)
    app.callback(invoke_without_command=True)(root)
    for name, path in verbs().items():
        function = load_verb(path.stem) if name == verb else _placeholder(path)
        app.command(name)(function)
    return app


def root(
    context: typer.Context,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Log more; twice: everything.", show_default=False)
    ] = 0,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log as JSON objects, one a line.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    from deeptrace.log import setup_logging

    setup_logging(verbose, as_json=log_json)
    if version:
        print(f"deeptrace {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit


def load_verb(module: str) -> Callable[..., Any]:
    """Import a verb's module and return its command, help laid out as written."""
    import importlib

    command = importlib.import_module(f"{__name__}.{module}").command

    @functools.wraps(command)
    def verb(*args: Any, **kwargs: Any) -> Any:
        return command(*args, **kwargs)

    verb.__doc__ = keep_example(inspect.getdoc(command) or "")
    return verb


def _placeholder(path: pathlib.Path) -> Callable[[], None]:
    """A command that only has its help: the docstring of `command`, read without importing the module."""

    def nothing() -> None:
        raise AssertionError(f"{path.stem} was not loaded")

    tree = ast.parse(path.read_text())
    found = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "command")
    nothing.__doc__ = next((ast.get_docstring(n) for n in found), None) or ""
    return nothing


def keep_example(help_text: str) -> str:
    """Mark paragraphs that begin with "Example" so that help does not rewrap them ("\\b", as click reads it)."""
    paragraphs = help_text.split("\n\n")
    return "\n\n".join("\b\n" + p if p.startswith("Example") else p for p in paragraphs)
