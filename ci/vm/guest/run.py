"""Carries out the plan in the virtual machine: each step's command with a time limit, its output kept, and everything handed
out at the end over the machine's second serial line. Never fails for a step that fails."""

import ctypes
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import tarfile
import termios
import time

GUEST = pathlib.Path("/guest")
MODULES = pathlib.Path("/modules")
FINIT_MODULE = {"x86_64": 313, "aarch64": 273}  # system call numbers
RESULTS = pathlib.Path("/results")
SHOWN_BYTES = 6000  # of a step's output shown on the console: its end
RESULT_LINES = {"x86_64": "/dev/ttyS1", "aarch64": "/dev/ttyS0"}  # beside the console; arm64's is a card
SIGN_OF_LIFE_S = 10  # the last line of a running step's output is shown this often
KEPT_BYTES = 4 << 20  # of a step's output that is handed out
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/",
    "CI": "true",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONPATH": "/deeptrace:/guest",
    "DEEPTRACE_TEST_PROGRAMS": "/programs",
    "RESULTS": str(RESULTS),
}


def load_modules() -> None:
    """Load the kernel's modules that the image holds. A failure is said; the test that needs one will tell."""
    libc = ctypes.CDLL(None, use_errno=True)
    for path in sorted(MODULES.iterdir()):
        with path.open("rb") as file:
            if libc.syscall(FINIT_MODULE[os.uname().machine], file.fileno(), b"", 0):
                print(f"kernels: {path.name}: {os.strerror(ctypes.get_errno())}", flush=True)


def run(step: dict) -> dict:
    """One step. Its output goes to /results/NAME.out."""
    began = time.monotonic()
    output = RESULTS / f"{step['name']}.out"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            step["command"], stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, cwd="/deeptrace", env=ENVIRONMENT,
            start_new_session=True,
        )  # fmt: skip
        late = not wait(process, output, step["timeout_s"])
    seconds = round(time.monotonic() - began, 1)
    text = output.read_bytes()
    output.write_bytes(text[-KEPT_BYTES:])
    print(text[-SHOWN_BYTES:].decode(errors="replace"))
    said = "too late" if late else f"exit {process.returncode}"
    print(f"kernels: step {step['name']}: {said} after {seconds} s", flush=True)
    return {"name": step["name"], "exit": process.returncode, "late": late, "seconds": seconds}


def wait(process: subprocess.Popen, output: pathlib.Path, timeout_s: float) -> bool:
    """Wait for a step, showing now and then that it lives. Kills it, with what it started, after its time: then False."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            process.wait(SIGN_OF_LIFE_S)
            return True
        except subprocess.TimeoutExpired:
            lines = output.read_bytes()[-400:].decode(errors="replace").split("\n")
            print(f"kernels: {time.monotonic():.0f} s: {lines[-1] or lines[-2:][0]}", flush=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return False


def hand_out(line: str) -> None:
    """Write /results as a tar file to a serial line."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        archive.add(RESULTS, "results")
    fd = os.open(line, os.O_WRONLY | os.O_NOCTTY)
    attributes = termios.tcgetattr(fd)
    attributes[1] &= ~termios.OPOST  # bytes as they are
    termios.tcsetattr(fd, termios.TCSANOW, attributes)
    view = memoryview(packed.getvalue())
    while view:
        view = view[os.write(fd, view) :]
    termios.tcdrain(fd)
    os.close(fd)


def main() -> None:
    plan = json.loads((GUEST / "plan.json").read_text())
    report = {"release": os.uname().release, "version": os.uname().version, "steps": []}
    load_modules()
    for step in plan["steps"]:
        print(f"kernels: step {step['name']} ...", flush=True)
        report["steps"].append(run(step))
        (RESULTS / "report.json").write_text(json.dumps(report))
    (RESULTS / "dmesg").write_bytes(subprocess.run(["dmesg"], capture_output=True, check=False).stdout)
    hand_out(RESULT_LINES[os.uname().machine])
    sys.stdout.flush()


if __name__ == "__main__":
    main()
