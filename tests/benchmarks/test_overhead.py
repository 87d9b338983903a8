"""The overhead benchmark on the real kernel: one round, every row, nothing left behind; and what it says where it cannot run."""

import math
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import pytest

from deeptrace.cli import bench
from deeptrace.resources import shipped_folder

FOLDER = shipped_folder("benchmarks")
TEN = ("read", "readv", "recvfrom", "recvmsg", "recvmmsg", "write", "writev", "sendto", "sendmsg", "sendmmsg")
PROMISED = {
    f"{call}.{state}" for call in (*TEN, "recvmmsg8") for state in ("floor", "filtered", "traced0", "traced256", "traced1024")
}
PROMISED |= {"write.traced1024.16384", "devnull.traced", "pipe.traced", "eagain.traced", "getppid.any"}
PROMISED |= {"interception", "extract.256", "inference", "map.op", "wakeups_per_s"}


def tool(*arguments: str, prelude: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    start = f"{prelude}\nimport deeptrace.cli as c; c.main({list(arguments)!r})"
    return subprocess.run(
        [sys.executable, "-c", start], capture_output=True, text=True, timeout=60, env=os.environ | environment, check=False
    )


def held() -> list[str]:
    """The BPF objects and perf events that this process holds."""
    links = []
    for fd in pathlib.Path("/proc/self/fd").iterdir():
        try:
            links.append(str(fd.readlink()))
        except OSError:
            continue  # the descriptor of this listing
    return sorted(link for link in links if "bpf" in link or "perf_event" in link)


@pytest.fixture(scope="module")
def held_before() -> list[str]:
    return held()


@pytest.fixture(scope="module")
def result(held_before: list[str]) -> dict[str, Any]:
    assert held_before is not None  # looked at first
    return bench.load_bench(FOLDER, "overhead").run(quick=True, tell=lambda _step: None, n_rounds=1)


@pytest.mark.kernel
def test_every_promised_row_has_a_finite_value(result: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in result["rows"]}
    assert set(rows) >= PROMISED
    assert len(rows) == len(result["rows"])
    for row in rows.values():
        assert math.isfinite(row["value"]), row
        assert row["ratio"] is None or math.isfinite(row["ratio"]), row
        assert set(row) >= {"name", "value", "unit", "ratio", "reference"}


@pytest.mark.kernel
def test_the_calls_by_themselves_and_the_rounds_are_told(result: dict[str, Any]) -> None:
    assert result["n_rounds"] >= 1  # a round that another program disturbed is made again
    assert set(result["calibration"]) >= {*TEN, "getppid"}
    assert all(ns > 0 for ns in result["calibration"].values())


@pytest.mark.kernel
def test_a_traced_call_costs_more_than_one_of_a_process_that_is_not_traced(result: dict[str, Any]) -> None:
    value = {row["name"]: row["value"] for row in result["rows"]}
    assert value["ten.traced256"] > value["ten.filtered"]
    if not result["foreign_programs"]:  # else `none` is not untouched
        assert value["ten.filtered"] > 0


@pytest.mark.kernel
def test_the_result_is_shown_as_tables(result: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    bench.show(bench.load_bench(FOLDER, "overhead"), {"bench": "overhead", **result})
    shown = capsys.readouterr().out
    assert "recvmmsg8" in shown
    assert "wakeups_per_s" in shown


@pytest.mark.kernel
@pytest.mark.usefixtures("result")
def test_nothing_stays_attached(held_before: list[str]) -> None:
    assert held() == held_before


@pytest.mark.kernel
def test_without_gcc_it_says_what_to_install() -> None:
    ran = tool("bench", "overhead", "--quick", PATH="/nowhere")
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1), ran.stderr
    assert "apt-get install gcc" in ran.stderr


def test_without_privilege_it_says_so() -> None:
    ran = tool("bench", "overhead", prelude="from deeptrace.loader.capabilities import drop_capabilities; drop_capabilities()")
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1), ran.stderr
    assert "root" in ran.stderr


def test_the_driver_has_no_warnings_and_refuses_what_it_does_not_know(tmp_path: pathlib.Path) -> None:
    compiler = shutil.which("gcc")
    assert compiler is not None
    program = tmp_path / "driver"
    command = [compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(FOLDER / "overhead/driver.c")]
    subprocess.run(command, check=True, timeout=60)
    for line, told in (("read 64\n", "not a command"), ("read 99999 10\n", "not a command"), ("fork 64 10\n", "no such call")):
        ran = subprocess.run([str(program), "0"], input=line, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 2
        assert told in ran.stderr
