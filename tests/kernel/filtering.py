"""What the tests of filters share: drivers under other names and files, filters on loaded probes, cgroups of their own."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Iterator

from ring_reader import DATA, wait_until
from traced_process import DRIVER, Process

from deeptrace.agent.cgroups import mounted_hierarchies
from deeptrace.agent.filters import Filters
from deeptrace.agent.pidfilter import PidFilter
from deeptrace.agent.procs import ProcFiles
from deeptrace.config import Capture
from deeptrace.loader.maps import DENY

PYTHON = os.path.realpath("/usr/bin/python3")


class Program(Process):
    """A driver that is started from a given path, whose file name is its comm."""

    def __init__(self, path: str | pathlib.Path) -> None:
        self.popen = subprocess.Popen(
            [str(path), "-I", str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.do("mark")

    def talk(self) -> None:
        """One write and one read over a connection of its own."""
        self.do("connect", name="t", family="AF_INET", host="127.0.0.1")
        self.do("transfer", out="t.c", into="t.s", egress="write", ingress="read", data=b"hello".hex())

    def become(self, path: pathlib.Path) -> None:
        """Execute another program in the same process."""
        self.order("become", path=str(path))
        wait_until(lambda: pathlib.Path(f"/proc/{self.pid}/comm").read_text().strip() == path.name)
        self.do("mark")


def named(folder: pathlib.Path, name: str) -> pathlib.Path:
    """A path of that file name to the one Python."""
    path = folder / name
    path.symlink_to(PYTHON)
    return path


def copied(folder: pathlib.Path, name: str) -> pathlib.Path:
    """A Python with a file of its own."""
    path = folder / name
    shutil.copy(PYTHON, path)
    return path


class Filtered:
    """The loaded probes under filters, as the agent puts them there."""

    def __init__(self, kernel, *, server: str = "", **settings) -> None:
        self.kernel = kernel
        self.files = ProcFiles()
        self.pids = PidFilter(kernel.probes.pids, self.files)
        self.filters = Filters(Capture(**settings), self.files, server=server)
        self.filters.install(kernel.probes, self.pids)
        kernel.probes.pids.set(os.getpid(), DENY)  # the test itself
        self.filters.armed()

    def apply(self, **settings) -> int:
        """Returns the time from which on they hold."""
        self.filters.apply(Capture(**settings))
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    def refresh(self) -> None:
        self.filters.refresh(time.clock_gettime_ns(time.CLOCK_MONOTONIC))

    def heard(self, *programs: Program) -> list[bool]:
        """Let every one talk; whose bytes were recorded."""
        self.kernel.take()
        for program in programs:
            program.talk()
        tgids = {record.tgid for record in self.kernel.take(DATA)}
        return [program.pid in tgids for program in programs]

    def close(self) -> None:
        self.filters.close()
        self.kernel.probes.exchange(self.kernel.config, {})


@contextlib.contextmanager
def cgroup(*, unified: bool, name: str) -> Iterator[pathlib.Path]:
    """A cgroup with one below it, both gone afterwards. Processes in them have ended by then."""
    root = next(h.root for h in mounted_hierarchies() if h.unified == unified and not h.root.endswith("cpuset"))
    top = pathlib.Path(root, f"{name}-{os.getpid()}")
    (top / "inner").mkdir(parents=True)
    try:
        yield top
    finally:
        for folder in (top / "inner", top):
            folder.rmdir()


def stream(program: Program, n: int) -> int:
    """Let it send itself the numbers below n, each in a message of its own, while the test goes on. Returns the server's port."""
    _client, server = program.do("connect", name="s", family="AF_INET", host="127.0.0.1")
    program.order("many", out="s.c", into="s.s", n=n, pause_s=0.0005)
    return int(server[1])


def move(program: Process, folder: pathlib.Path) -> None:
    (folder / "cgroup.procs").write_text(str(program.pid))
