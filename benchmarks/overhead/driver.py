"""Compiles and runs driver.c, the process whose system calls are timed. Knows no probes."""

import os
import pathlib
import shutil
import subprocess
from dataclasses import dataclass

from deeptrace.errors import DeepTraceError

SOURCE = pathlib.Path(__file__).with_name("driver.c")


def compile_driver(folder: pathlib.Path) -> pathlib.Path:
    """The built program in this private folder. Raises DeepTraceError."""
    if shutil.which("gcc") is None:
        raise DeepTraceError("the benchmark's driver is a C program and there is no gcc here; run 'apt-get install gcc libc6-dev'")
    program = folder / "driver"
    built = subprocess.run(
        ["gcc", "-O2", "-o", str(program), str(SOURCE)], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if built.returncode:
        first = built.stderr.strip().splitlines() or ["gcc said nothing"]
        raise DeepTraceError(f"the benchmark's driver does not compile ({first[0]}); run 'apt-get install gcc libc6-dev'")
    return program


@dataclass(frozen=True)
class Answer:
    """ns of one call; the share of its blocks in which nobody else used the core; messages that were timed."""

    ns: float
    calm: float
    messages: int


class Driver:
    """The running driver on one CPU: ask() a question, wait until `answers` is readable, read answer()."""

    def __init__(self, program: pathlib.Path, cpu: int) -> None:
        self._process = subprocess.Popen(
            [str(program), str(cpu)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.pid = self._process.pid

    @property
    def answers(self) -> int:
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def ask(self, call: str, size: int, count: int) -> None:
        assert self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), f"{call} {size} {count}\n".encode())
        except BrokenPipeError:
            raise self._ended() from None

    def answer(self) -> Answer:
        """Raises DeepTraceError when the driver ended instead."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        ns, calm, messages = line.split()
        return Answer(float(ns), float(calm), int(messages))

    def _ended(self) -> DeepTraceError:
        assert self._process.stderr is not None
        said = self._process.stderr.read().decode(errors="replace").strip()
        return DeepTraceError(f"the benchmark's driver ended: {said or 'without a word'}")

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
