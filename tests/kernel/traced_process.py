"""Starts driver.py as a process to be traced, and gives it orders over pipes."""

import contextlib
import json
import pathlib
import subprocess

from ring_reader import wait_readable

DRIVER = pathlib.Path(__file__).parent / "driver.py"
PYTHON = "/usr/bin/python3"


class Process:
    """A driver process: takes orders over pipes."""

    def __init__(self, *prefix: str) -> None:
        self.popen = subprocess.Popen(
            [*prefix, PYTHON, "-I", str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.do("mark")

    @property
    def pid(self) -> int:
        return self.popen.pid

    def order(self, what: str, **arguments) -> None:
        self.popen.stdin.write(json.dumps({"do": what, **arguments}) + "\n")

    def answer(self):
        assert wait_readable([self.popen.stdout], 10), "the driver does not answer"
        line = self.popen.stdout.readline()
        assert line, "the driver ended"
        return json.loads(line)

    def do(self, what: str, **arguments):
        self.order(what, **arguments)
        return self.answer()

    def stop(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.popen.stdin.close()
        self.popen.wait(timeout=10)
        self.popen.stdout.close()
