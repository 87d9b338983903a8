"""`deeptrace bench`: names, the one form of JSON, and limits; with the benchmark that needs no kernel."""

import json
import pathlib
import subprocess
import sys


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deeptrace.cli", "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_without_a_name_the_benchmarks_are_listed() -> None:
    assert bench().stdout.split() == ["overhead", "pipeline"]


def test_an_unknown_name_is_answered_with_those_that_there_are() -> None:
    ran = bench("overheads")
    assert ran.returncode == 2
    assert "overhead, pipeline" in ran.stderr


def test_a_figure_beyond_its_limit_fails_with_a_sentence_after_the_result_was_written(tmp_path: pathlib.Path) -> None:
    limits, output = tmp_path / "limits.json", tmp_path / "new" / "result.json"
    limits.write_text(json.dumps({"pipeline": {"max_ratio": {"redis: ring to batch": 0.001}}}))
    ran = bench("pipeline", "--quick", "--json", "--check", str(limits), "--output", str(output))
    assert ran.returncode == 1
    assert "redis: ring to batch has ratio" in ran.stderr
    assert ran.stderr.count("\n") == 1
    result = json.loads(ran.stdout)
    assert result == json.loads(output.read_text())
    assert result["bench"] == "pipeline"
    assert result["machine"]["cpus"] > 0
    assert all(set(row) >= {"name", "value", "unit", "ratio", "reference"} for row in result["rows"])


def test_a_file_of_limits_that_is_not_there_is_told_before_anything_is_measured() -> None:
    ran = bench("pipeline", "--check", "/nowhere/limits.json")
    assert ran.returncode == 2
    assert "/nowhere/limits.json" in ran.stderr
