"""Keeps several runs of ci/kernels out of each other's way: few machines at a time, none with another's name, no litter."""

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterator

SLOTS = 2  # machines at a time: a quick look need not wait for a whole suite
POLL_S = 0.5
PREFIX = "run-"


@contextlib.contextmanager
def own_turn(folder: pathlib.Path, label: str) -> Iterator[None]:
    """Wait until no other run has this label and a slot is free."""
    with held(folder, [label]), held(folder, [f"slot{n}" for n in range(SLOTS)]):
        yield


@contextlib.contextmanager
def held(folder: pathlib.Path, names: list[str]) -> Iterator[None]:
    """Hold the first of these locks that is free. They end with the process, however it ends."""
    (folder / "locks").mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context((folder / "locks" / name).open("w")) for name in names]
        while not any(map(try_lock, files)):
            time.sleep(POLL_S)
        yield


def try_lock(file: object) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def scratch_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder that is gone afterwards; those of runs that were killed go as well: each is 400 MB."""
    for left in folder.glob(f"{PREFIX}*"):
        if not pathlib.Path("/proc", left.name.split("-")[1]).exists():
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"{PREFIX}{os.getpid()}-") as scratch:
        yield pathlib.Path(scratch)
