"""The filters' own text, compiled for this host: warning-free, and right under the address and undefined sanitizers."""

import pathlib
import re
import subprocess

import pytest

from deeptrace.loader import flatten

HERE = pathlib.Path(__file__).parent
BPF = HERE.parents[1] / "bpf"
WARNINGS = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wno-sign-compare", "-Wno-unused-function"]
WARNINGS += ["-Wno-unknown-pragmas", "-Wno-unused-variable"]


@pytest.fixture
def source(tmp_path):
    """host.h, the flattened filter with the threads that keep its answers, and the cases, as one file."""
    text = flatten.flatten(BPF / "probes" / "rename.bpf.c", BPF / "include", seen=set())
    path = tmp_path / "filter.c"
    sizes = "".join(
        f"#ifndef {name}\n#define {name} 4\n#endif\n" for name in sorted(set(re.findall(r"\bDT_MAX_[A-Z_]+(?=[,)])", text)))
    )
    path.write_text(f'#include "{HERE}/host.h"\n{sizes}{text}\n#include "{HERE}/filter_cases.c"\n')
    return path


def test_the_cases_of_the_filters_pass_under_the_sanitizers(source, tmp_path):
    program = tmp_path / "cases"
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"]
    subprocess.run(["gcc", *WARNINGS, *sanitize, f"-I{BPF}/include", "-o", program, source], check=True)
    ran = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout == "0 failures\n"


@pytest.mark.parametrize(
    "removed",
    [
        "dt_comm_is_own(&comm)",
        "pid_flags & DT_PID_DENY",
        "rule & DT_RULE_DENY",
        "pid_flags & DT_PID_TRACE",
        "thread->filter_epoch == epoch",
    ],
)
def test_the_cases_fail_when_a_condition_is_gone(source, tmp_path, removed):
    text = source.read_text()
    assert removed in text
    source.write_text(text.replace(removed, "1" if "==" in removed else "0"))
    subprocess.run(["gcc", "-w", "-O0", f"-I{BPF}/include", "-o", tmp_path / "cases", source], check=True)
    assert subprocess.run([tmp_path / "cases"], capture_output=True, timeout=60, check=False).returncode == 1
