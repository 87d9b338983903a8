"""Errors, logs, clock, process name, shipped files: the modules that all others stand on."""

import json
import logging
import os
import pathlib
import subprocess
import sys

import pytest

from deeptrace import clock, errors, log, procname, registry, resources


def test_errors_carry_their_exit_code() -> None:
    assert (errors.DeepTraceError.exit_code, errors.UsageError.exit_code) == (1, 2)
    assert issubclass(errors.StoreError, errors.DeepTraceError)


def test_logs_are_lines_with_fields_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("deeptrace.agent.test")
    log.setup_logging(1)
    log.event(logger, logging.INFO, "started", port=80)
    log.event(logger, logging.DEBUG, "not shown")
    log.setup_logging(0, as_json=True)
    log.event(logger, logging.WARNING, "lost", n_spans=3)
    plain, line = capsys.readouterr().err.splitlines()
    assert plain.endswith("agent.test: started port=80")
    assert json.loads(line)["n_spans"] == 3


def test_the_offset_turns_monotonic_into_unix_time() -> None:
    offset_ns = clock.monotonic_to_unix_offset_ns()
    assert abs(clock.monotonic_ns() + offset_ns - clock.unix_ns()) < 50_000_000


def test_own_processes_are_known_by_their_name() -> None:
    code = "import os, sys; from deeptrace import procname as p; p.mark_own_process(); print(p.is_own_process(os.getpid()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"
    assert not procname.is_own_process(1)
    assert not procname.is_own_process(1 << 22)


def test_shipped_folders_are_found_and_missing_ones_named() -> None:
    assert (resources.shipped_folder("bpf") / "include/dt_records.h").is_file()
    with pytest.raises(errors.DeepTraceError, match="no_such_folder"):
        resources.shipped_folder("no_such_folder")


def test_protocols_are_found_by_listing_the_folder() -> None:
    names = {p.name for p in registry.load_protocols()}
    files = {p.stem for p in (pathlib.Path(__file__).parents[2] / "ext/protocols").glob("*.pyx")}
    assert names == files


def test_importing_the_foundation_imports_nothing_of_the_server() -> None:
    code = "import sys, deeptrace.model, deeptrace.config; print(sorted({'chdb', 'grpc', 'pyarrow'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ).stdout
    assert shown == "[]\n"
