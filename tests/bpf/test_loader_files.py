"""The loader process runs on another Python than the agent, from plain files: what it may import and how it must read."""

import ast
import pathlib
import sys

import pytest

from deeptrace.loader import flatten, headers
from deeptrace.loader.compile import group_hooks

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOADER = ROOT / "deeptrace" / "loader"
AGENT_SIDE = {"bpf_objects.py", "capabilities.py", "client.py", "detach.py", "maps.py", "probes.py", "rules.py"}
CHILD_SIDE = sorted(path for path in LOADER.glob("*.py") if path.name not in AGENT_SIDE)


@pytest.mark.parametrize("path", CHILD_SIDE, ids=lambda path: path.name)
def test_a_file_of_the_loader_process_is_old_python_and_standard_library(path):
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            modules.add(str(node.module).split(".")[0])
    assert modules <= sys.stdlib_module_names | {"bcc"}


@pytest.mark.parametrize(
    ("release", "code"),
    [("6.1.0-25-amd64", 0x060100), ("5.10.223", 0x050ADF), ("4.19.300+", 0x0413FF), ("6.18.44-fc-v669", 0x06122C), ("odd", 0)],
)
def test_the_version_of_a_release(release, code):
    assert f"#define LINUX_VERSION_CODE {code}\n" in headers.version_header(release)


def test_the_header_tree_needs_nothing_of_this_machine(tmp_path):
    headers.write_header_tree(tmp_path, release="6.1.0", machine="aarch64", page_bytes=65536)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert (tmp_path / "arch/arm64/include/asm/page.h").read_text() == "#define PAGE_SIZE 65536UL\n"
    assert not any(path.is_symlink() for path in files)
    assert len(files) == 11


def test_hooks_follow_from_the_functions_names():
    bpf = ROOT / "bpf"
    names = flatten.syscall_names(bpf)
    socket_io = {hook.event for hook in group_hooks(bpf, "socket_io")}
    assert socket_io == {f"sys_{side}_{name}" for name in names for side in ("enter", "exit")}
    assert {hook.event for hook in group_hooks(bpf, "proc")} == {"sched_process_fork", "sched_process_exec", "sched_process_exit"}
    assert "sys_exit_accept4" in {hook.event for hook in group_hooks(bpf, "conn")}
