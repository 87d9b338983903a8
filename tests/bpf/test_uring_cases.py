"""The io_uring probes' own text, compiled for this host: warning-free, and right under the address and undefined sanitizers."""

import pathlib
import re
import subprocess

import pytest

from deeptrace.loader import flatten

HERE = pathlib.Path(__file__).parent
BPF = HERE.parents[1] / "bpf"
WARNINGS = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wno-sign-compare", "-Wno-unused-function", "-Wno-unused-variable"]
KERNELS = {"new": 3, "old": 7}  # arguments of io_uring_complete
COUNTING = re.compile(r"dt_(?:uring_)?count\((?:DT_COUNT_\w+|outcome)\);|dt_count_not\(why_not[^;]*;")


def text():
    return flatten.flatten(BPF / "probes" / "uring.bpf.c", BPF / "include", seen=set())


def compile_cases(source, program, body, *options):
    source.write_text(f'#include "{HERE}/host.h"\n{body}\n#include "{HERE}/uring_cases.c"\n')
    subprocess.run(["gcc", *options, f"-I{BPF}/include", "-o", program, source], check=True)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_cases_of_io_uring_pass_under_the_sanitizers(tmp_path, kernel):
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"]
    define = f"-DDT_ARGS_URING_COMPLETE={KERNELS[kernel]}"
    compile_cases(tmp_path / "uring.c", tmp_path / "cases", text(), *WARNINGS, *sanitize, define)
    ran = subprocess.run([tmp_path / "cases"], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout == "0 failures\n"


def test_the_cases_of_io_uring_fail_when_any_increment_is_removed(tmp_path):
    whole = text()
    own = whole.index("#define DT_URING_READV")
    removable = list(COUNTING.finditer(whole, own))
    assert len(removable) > 10
    for match in removable:
        body = f"{whole[: match.start()]};{whole[match.end() :]}"
        compile_cases(tmp_path / "uring.c", tmp_path / "cases", body, "-w", "-O0")
        ran = subprocess.run([tmp_path / "cases"], capture_output=True, timeout=60, check=False)
        assert ran.returncode == 1, f"nothing notices that {match.group(0)} is missing"
