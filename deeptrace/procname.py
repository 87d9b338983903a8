"""Names this process, so that agents recognise DeepTrace's own processes and never trace them."""

import ctypes
import pathlib

OWN_COMM = "deeptrace"
PR_SET_NAME = 15  # linux/prctl.h


def mark_own_process() -> None:
    """Set the main thread's comm to OWN_COMM. Must run on the main thread, before any socket is used."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_NAME, OWN_COMM.encode(), 0, 0, 0)


def is_own_process(pid: int) -> bool:
    """Whether a process of this host says that it is DeepTrace's; False when it is gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().rstrip("\n") == OWN_COMM
    except OSError:
        return False
