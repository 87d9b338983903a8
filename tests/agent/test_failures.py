"""What cannot work ends in one sentence and an exit code, whoever runs it and wherever."""

import json
import socket
import subprocess
import sys

import pytest
from real import DEEPTRACE, free_port

pytestmark = pytest.mark.kernel

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def run(*command, timeout_s=60):
    ran = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, cwd="/")
    return ran.returncode, ran.stderr


def in_own_mounts(script):
    """A shell script in a mount namespace of its own; DT stands for the tool."""
    return run("unshare", "--mount", "sh", "-c", script.replace("DT", " ".join(DEEPTRACE)))


def assert_one_sentence(result, code, *words):
    assert result[0] == code, result
    assert result[1].startswith("deeptrace"), result
    assert result[1].count("\n") == 1, result[1]
    assert all(word in result[1] for word in words), result[1]


@pytest.mark.parametrize("verb", ["up", "agent"])
def test_without_root(verb):
    readable = run(*NOBODY, sys.executable, "-c", "import deeptrace.cli")[0] == 0
    user = NOBODY if readable else ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"]  # a checkout below /root
    assert_one_sentence(run(*user, *DEEPTRACE, verb), 1, "root")


@pytest.mark.parametrize("verb", [["agent"], ["up", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"]])
def test_without_bcc(verb, tmp_path):
    data = ["--data", str(tmp_path / "data")] if verb[0] == "up" else []
    result = run(*DEEPTRACE, *verb, *data, "--set", f"capture.python={sys.executable}")
    assert_one_sentence(result, 1, "bcc", "apt-get install python3-bpfcc")


def test_without_btf():
    assert_one_sentence(in_own_mounts("mount -t tmpfs none /sys/kernel/btf && DT agent"), 1, "BTF")


def test_without_a_tracefs_that_can_be_mounted():
    script = (
        "umount /sys/kernel/tracing /sys/kernel/debug/tracing 2> /dev/null; "
        "exec setpriv --bounding-set -sys_admin --inh-caps -sys_admin DT agent"
    )
    assert_one_sentence(in_own_mounts(script), 1, "tracefs", "mount -t tracefs")


def test_in_a_container_with_process_ids_of_its_own():
    assert_one_sentence(run("unshare", "--pid", "--fork", "--mount-proc", *DEEPTRACE, "agent"), 1, "--pid=host")


def test_a_process_that_is_not_there():
    assert_one_sentence(run(*DEEPTRACE, "agent", "--pid", str(2**22 + 1)), 2, "there is no process")


def test_a_folder_without_a_server(tmp_path):
    assert_one_sentence(run(*DEEPTRACE, "agent", "--data", str(tmp_path)), 2, "no server runs with the folder")


@pytest.mark.parametrize("option", ["--grpc", "--http"])
def test_a_port_that_is_taken(option, tmp_path):
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        places = {"--grpc": "127.0.0.1:0", "--http": "127.0.0.1:0", option: f"127.0.0.1:{taken.getsockname()[1]}"}
        flat = [part for place in places.items() for part in place]
        assert_one_sentence(run(*DEEPTRACE, "up", "--data", str(tmp_path / "data"), *flat), 1, option)


def test_a_disk_that_is_full_at_the_start(tmp_path):
    script = (
        f"mount -t tmpfs -o size=64k none {tmp_path} && head -c 100k /dev/zero > {tmp_path}/full 2> /dev/null; "
        f"DT up --data {tmp_path}/data --grpc 127.0.0.1:0 --http 127.0.0.1:0"
    )
    assert_one_sentence(in_own_mounts(script), 1, "No space left on device")


def test_the_doctor_says_what_is_missing_and_what_to_do():
    ran = subprocess.run(
        [*DEEPTRACE, "doctor", "--json", "--set", "capture.python=/nowhere/python3"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    report = json.loads(ran.stdout)
    assert report["missing"] == ["bcc"]
    assert "python3-bpfcc" in next(c["advice"] for c in report["machine"] if c["name"] == "bcc")
