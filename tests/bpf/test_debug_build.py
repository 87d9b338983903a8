"""The build of the probes that logs: warning-free, and a release build holds nothing of it."""

import pathlib
import subprocess

from deeptrace.loader import flatten
from deeptrace.resources import shipped_folder

HERE = pathlib.Path(__file__).parent
BPF = shipped_folder("bpf")
WARNINGS = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wno-sign-compare", "-Wno-unused-function", "-Wno-unused-const-variable"]


def write_source(folder: pathlib.Path) -> pathlib.Path:
    source = folder / "probes.c"
    text = flatten.flatten_groups(BPF, list(flatten.probe_files(BPF)))
    source.write_text(f'#include "{HERE}/host.h"\n{text}\n')
    return source


def test_the_debug_build_has_no_warning(tmp_path):
    source = write_source(tmp_path)
    subprocess.run(["clang", *WARNINGS, "-DDT_DEBUG", "-fsyntax-only", f"-I{BPF}/include", source], check=True)


def test_a_release_build_has_neither_the_function_nor_the_arguments_of_a_line(tmp_path):
    source = write_source(tmp_path)
    for flags, expected in (["-DDT_DEBUG"], True), ([], False):
        ran = subprocess.run(["clang", "-w", *flags, "-E", f"-I{BPF}/include", source], capture_output=True, text=True, check=True)
        assert ("dt_log_emit(" in ran.stdout) is expected
