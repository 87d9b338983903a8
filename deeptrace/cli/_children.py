"""Runs verbs as child processes and reads their ready lines. Children end when their starter is gone; knows no verb."""

import contextlib
import ctypes
import json
import os
import pathlib
import select
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import deeptrace
from deeptrace.errors import DeepTraceError

PR_SET_PDEATHSIG = 1  # linux/prctl.h
MAX_READY_BYTES = 65536  # of the ready line
STOP_TIMEOUT_S = 15.0  # a server writes its store to the end; longer than any flush that was seen


def start_verb(arguments: Sequence[str], *, group: int = 0) -> subprocess.Popen[bytes]:
    """Start `deeptrace ARGUMENTS` with this interpreter and this installation; stdout is a pipe. group: process group to
    join, 0: a new one, so that Ctrl-C in the terminal reaches only the starter, which stops its children in order."""
    package = pathlib.Path(deeptrace.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))}
    starter = os.getpid()

    def before_exec() -> None:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != starter:  # it died before the line above
            os._exit(1)

    # -P: a folder named deeptrace in the working directory must not take our place.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "deeptrace.cli", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=environment,
        process_group=group,
        preexec_fn=before_exec,
    )


class Signals:
    """SIGTERM, SIGINT and SIGHUP as a wish to end, SIGCHLD as news. Main thread only; one per process."""

    def __init__(self) -> None:
        self.end_asked = False
        self._read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._ask)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def fileno(self) -> int:
        return self._read_fd

    def wait(self, timeout_s: float | None = None) -> None:
        """Sleep until a signal comes, at most timeout_s."""
        if select.select([self._read_fd], [], [], timeout_s)[0]:
            self.drain()

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._read_fd, 4096)

    def _ask(self, *_: Any) -> None:
        self.end_asked = True


def read_ready(child: subprocess.Popen[bytes], timeout_s: float, signals: Signals) -> dict[str, Any] | None:
    """The ready line of a child; None if it ended before (it has said why on stderr) or if we are to end.
    Raises DeepTraceError after timeout_s."""
    assert child.stdout is not None
    end = time.monotonic() + timeout_s
    data = b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        selector.register(signals, selectors.EVENT_READ)
        while len(data) < MAX_READY_BYTES:
            if signals.end_asked:
                return None
            found_fds = [key.fileobj for key, _ in selector.select(max(0.0, end - time.monotonic()))]
            if not found_fds:
                raise DeepTraceError(f"{_verb(child)} did not get ready within {timeout_s:g} s; its log may say why (-v)")
            signals.drain()
            if child.stdout not in found_fds:
                continue
            part = os.read(child.stdout.fileno(), 4096)
            if not part:
                return None
            data += part
            for line in data.split(b"\n")[:-1]:
                found = _ready(line)
                if found is not None:
                    return found
    raise DeepTraceError(f"{_verb(child)} printed no ready line")


def stop(child: subprocess.Popen[bytes], timeout_s: float = STOP_TIMEOUT_S) -> int:
    """SIGTERM, wait, and SIGKILL if that was not enough. Returns the exit code."""
    if child.poll() is None:
        child.terminate()
    try:
        return child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def describe_end(code: int) -> str:
    """An exit code as words: "was killed by SIGKILL"."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _ready(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("event") == "ready" else None


def _verb(child: subprocess.Popen[bytes]) -> str:
    assert isinstance(child.args, list)
    arguments = [str(a) for a in child.args]
    return "deeptrace " + next((a for a in arguments[4:] if not a.startswith("-")), "")
