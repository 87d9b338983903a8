"""In CI a test that is skipped is a test that did not pass."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("ci", "exit_code"), [("true", 1), ("", 0)])
def test_a_skipped_test_fails_the_run_in_ci_only(tmp_path: pathlib.Path, ci: str, exit_code: int) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (tmp_path / "test_one.py").write_text("import pytest\ndef test_passes(): pass\ndef test_skips(): pytest.skip('away')\n")
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(tmp_path), str(tmp_path)]
    ran = subprocess.run(command, env=os.environ | {"CI": ci}, capture_output=True, text=True, check=False)
    assert ran.returncode == exit_code, ran.stdout


@pytest.mark.kernel
def test_the_kernel_tests_run_on_this_machine() -> None:
    assert os.geteuid() == 0
