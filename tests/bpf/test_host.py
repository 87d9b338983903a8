"""The probes' own text, compiled for this host: warning-free, and right under the address and undefined sanitizers."""

import os
import pathlib
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from deeptrace.loader import flatten

HERE = pathlib.Path(__file__).parent
BPF = HERE.parents[1] / "bpf"
WARNINGS = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wno-sign-compare", "-Wno-unused-function"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """host.h, the flattened probes and the cases, as one file."""
    text = flatten.flatten_groups(BPF, list(flatten.probe_files(BPF)))
    path = tmp_path_factory.mktemp("host") / "probes.c"
    path.write_text(f'#include "{HERE}/host.h"\n{text}\n#include "{HERE}/cases.c"\n')
    return path


@pytest.mark.parametrize("layout", ["near", "far", "debug"])
def test_the_cases_pass_under_the_sanitizers(source, tmp_path, layout):
    program = tmp_path / "cases"
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"]
    define = {"near": [], "far": ["-DHOST_FAR"], "debug": ["-DDT_DEBUG"]}[layout]
    subprocess.run(["gcc", *WARNINGS, *sanitize, *define, f"-I{BPF}/include", "-o", program, source], check=True)
    ran = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout == "0 failures\n"


COUNTING = re.compile(r"dt_count(?:_call)?\((DT_COUNT_\w+|outcome)[^;]*\);")
OWN_CASES = {"uring"}  # groups whose increments cases of their own hold
IN_NO_EQUATION = {"DT_COUNT_SOCKET_FORGOTTEN", "DT_COUNT_MAP_DELETE_FAILED", "DT_COUNT_READ_FAULT", "DT_COUNT_PAYLOAD_CUT"}


def test_the_cases_fail_when_any_increment_is_removed(tmp_path):
    text = flatten.flatten_groups(BPF, [name for name in flatten.probe_files(BPF) if name not in OWN_CASES])
    removable = [match for match in COUNTING.finditer(text) if match.group(1) not in IN_NO_EQUATION]
    assert len(removable) > 15

    def is_noticed(number, match):
        path = tmp_path / f"{number}.c"
        mutant = f"{text[: match.start()]};{text[match.end() :]}"
        path.write_text(f'#include "{HERE}/host.h"\n{mutant}\n#include "{HERE}/cases.c"\n')
        program = path.with_suffix("")
        subprocess.run(["gcc", "-w", "-O0", "-DDT_DEBUG", f"-I{BPF}/include", "-o", program, path], check=True)
        return subprocess.run([program], capture_output=True, timeout=60, check=False).returncode == 1

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        noticed = list(pool.map(is_noticed, range(len(removable)), removable))
    missed = [match.group(0) for match, was in zip(removable, noticed, strict=True) if not was]
    assert not missed, f"nothing notices that these are missing: {missed}"


def test_clang_has_no_warning(source):
    subprocess.run(["clang", *WARNINGS, "-fsyntax-only", f"-I{BPF}/include", source], check=True)


def test_flattening_leaves_no_quoted_include_and_takes_each_header_once(source):
    text = flatten.flatten_groups(BPF, list(flatten.probe_files(BPF)))
    assert not re.search(r'#\s*include\s*"', text)
    assert text.count("struct dt_scratch {") == 1
    assert source.exists()


def test_a_system_call_can_be_left_out():
    text = flatten.flatten_groups(BPF, ["socket_io"], without=frozenset({"recvmmsg"}))
    assert "DT_SYSCALL(5, recvmmsg" not in text
    assert "DT_SYSCALL(4, recvmsg" in text


def test_no_probe_names_registers_or_the_numbers_of_system_calls():
    text = flatten.flatten_groups(BPF, list(flatten.probe_files(BPF)))
    assert not re.search(r"pt_regs|PT_REGS|__NR_|\bSYS_\w|asm/", text)
