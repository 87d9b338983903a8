"""The loader says clearly what is missing, leaves nothing behind, and what it hands over needs no privilege."""

import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.kernel

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]


def load(what, folder, before="true"):
    """Run loading.py in a mount namespace of its own, after a shell command; temporary files go to `folder`."""
    environment = os.environ | {"PYTHONPATH": f"{HERE}:{ROOT}", "TMPDIR": str(folder)}
    command = ["unshare", "-m", "sh", "-c", f'{before} && exec "$@"', "sh", sys.executable, str(HERE / "loading.py"), what]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in ran.stdout + ran.stderr
    return ran.returncode, ran.stdout.strip()


FAILURES = [
    ("as-nobody", "true", "tracing needs root"),
    ("without-bcc", "true", "apt-get install python3-bpfcc"),
    ("without-python", "true", "install Debian's python3"),
    ("with-another-layout", "true", "different versions"),
    ("in-no-time", "true", "did not finish within 0.2 s"),
    ("with-a-strange-ring", "true", "power of two"),
    ("without-tracefs", "mount -t tmpfs none /sys/kernel", "no tracefs at /sys/kernel/tracing and it cannot be mounted"),
    ("without-btf", "mount -t tmpfs none /sys/kernel/btf", "no BTF at /sys/kernel/btf/vmlinux"),
]


@pytest.mark.parametrize(("what", "before", "sentence"), FAILURES, ids=[f[0] for f in FAILURES])
def test_a_failure_is_one_sentence(tmp_path, what, before, sentence):
    code, output = load(what, tmp_path, before)
    assert code == 1
    assert output.startswith("ProbeError: ")
    assert sentence in output
    assert len(output.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_tracefs_is_mounted_and_said(tmp_path):
    code, output = load("plain", tmp_path, "umount -l /sys/kernel/tracing")
    assert (code, output) == (0, "loaded mounted 0")


def test_what_is_handed_over_works_without_any_capability(tmp_path):
    code, output = load("without-capabilities", tmp_path)
    assert code == 0, output
    assert output == "capabilities 0 records 2 counted True fill 0"
