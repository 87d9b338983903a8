"""Builds the program that knows the truth, runs it while it is traced, and reads its log. Standard library only.

`running.py FOLDER [COMPILER]` builds all programs for another machine, which finds them by DEEPTRACE_TEST_PROGRAMS=FOLDER.
"""

import json
import mmap
import os
import pathlib
import struct
import subprocess
import sys
import time
from collections.abc import Callable

HERE = pathlib.Path(__file__).parent
GROUPS = (
    "matrix",
    "errors",
    "datagrams",
    "vectors",
    "streams",
    "numbers",
    "unseen",
    "memory",
    "descriptors",
    "processes",
    "nothing",
)
LOG_HEADER_BYTES = 1 << 20  # log.c
COMPILE = ("-O2", "-g", "-static", "-pthread", "-Wall", "-Wextra", "-Werror")
PROGRAMS = {"conform": sorted(HERE.glob("*.c")), "churn": [HERE.parent / "churn.c"], "uring": [HERE.parent / "uring.c"]}
DRAIN_EVERY_S = 0.002


def build(name: str, folder: pathlib.Path, *, compiler: str = "gcc") -> pathlib.Path:
    """Compile a program; static, so that it runs on a machine that has nothing but a kernel. There it was built before, into the
    folder that DEEPTRACE_TEST_PROGRAMS names."""
    if "DEEPTRACE_TEST_PROGRAMS" in os.environ:
        return pathlib.Path(os.environ["DEEPTRACE_TEST_PROGRAMS"], name)
    subprocess.run([compiler, *COMPILE, "-o", str(folder / name), *map(str, PROGRAMS[name])], check=True)
    return folder / name


def run(command: list[str], trace: Callable[[int], None], drain: Callable[[], None], *, timeout_s: float = 60) -> None:
    """Start a program that waits for the end of its input, have it traced, and drain until it has ended."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        trace(process.pid)
        process.stdin.close()
        deadline = time.monotonic() + timeout_s
        while process.poll() is None:
            drain()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{command} did not end within {timeout_s:g} s")
            time.sleep(DRAIN_EVERY_S)
    finally:
        process.kill()
        errors = process.stderr.read()
        process.wait()
        process.stderr.close()
    drain()
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}: {errors}")


def read_log(path: pathlib.Path) -> tuple[list[dict], dict[str, list]]:
    """The calls in the order of their beginnings, and the facts by name."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as log:
        (used,) = struct.unpack_from("=Q", log)
        lines = [json.loads(line) for line in log[LOG_HEADER_BYTES : LOG_HEADER_BYTES + used].splitlines()]
    facts: dict[str, list] = {}
    for line in lines:
        if "fact" in line:
            facts.setdefault(line["fact"], []).append(line["value"])
    return sorted((line for line in lines if "call" in line), key=lambda call: call["before_ns"]), facts


if __name__ == "__main__":
    for each in PROGRAMS:
        build(each, pathlib.Path(sys.argv[1]), compiler=sys.argv[2] if len(sys.argv) > 2 else "gcc")
