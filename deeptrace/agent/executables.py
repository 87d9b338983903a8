"""Which file a path names to the kernel, now and after it was replaced on disk. Follows symbolic links; never runs or maps a file.

A process is known by the file that it executes, not by the path: after an upgrade the old file has no name any more while its
processes still run. Each file that a path named is held open (O_PATH), so that its number cannot become another file's.
"""

import logging
import os
import pathlib
import stat

from deeptrace.errors import UsageError
from deeptrace.log import event

KEPT_FILES = 4  # that one path named, newest last: processes that outlived three upgrades are old enough
SCRIPT_MARK = b"#!"
KERNEL_MINOR_BITS = 20  # linux/kdev_t.h: MINORBITS

FileId = tuple[int, int]  # (inode, device) as the kernel has them

logger = logging.getLogger("deeptrace.agent.executables")


class Executable:
    """One path and the files that it named since this was made. Close it."""

    def __init__(self, path: str) -> None:
        """Raises UsageError when there is no such file, or when nothing can execute it."""
        self.path = path
        self._held: list[tuple[FileId, int]] = []  # (id, descriptor), newest last
        try:
            self._hold()
        except OSError as e:
            raise UsageError(
                f"there is no executable {path} ({e.strerror}); give the path of its file, as 'command -v' shows it"
            ) from e
        if _is_script(path):
            self.close()
            name = os.path.basename(path)[:15]
            raise UsageError(f"{path} is a script, which its interpreter executes; filter by its name instead: --comm {name}")

    def ids(self) -> list[FileId]:
        return [file_id for file_id, _descriptor in self._held]

    def refresh(self) -> bool:
        """Look at the path again; whether it names another file now. What is gone or cannot be seen stays as it was."""
        try:
            now, held = os.stat(self.path), os.fstat(self._held[-1][1])
        except OSError:
            return False
        if (now.st_dev, now.st_ino) == (held.st_dev, held.st_ino):
            return False
        try:
            self._hold()
        except (OSError, UsageError) as e:
            event(logger, logging.DEBUG, "an executable was replaced by what is none", path=self.path, reason=str(e))
            return False
        event(logger, logging.INFO, "an executable was replaced", path=self.path)
        return True

    def close(self) -> None:
        """Let go of all files. Idempotent."""
        while self._held:
            os.close(self._held.pop()[1])

    def _hold(self) -> None:
        descriptor = os.open(self.path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UsageError(f"{self.path} is no file that can be executed; give the path of a program's file")
            file_id = _file_id(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._held.append((file_id, descriptor))
        if len(self._held) > KEPT_FILES:
            os.close(self._held.pop(0)[1])


def _file_id(descriptor: int) -> FileId:
    """Number and device of an open file in the kernel. stat(2) shows others on some file systems (btrfs, overlayfs); what the
    kernel says of descriptors and mounts comes from the same fields that the probes read."""
    fields = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines())
    status = os.fstat(descriptor)
    inode = int(fields.get("ino", status.st_ino))  # "ino": since Linux 5.14
    device = _mount_device(fields["mnt_id"].strip()) if "mnt_id" in fields else None
    if device is None:
        device = os.major(status.st_dev) << KERNEL_MINOR_BITS | os.minor(status.st_dev)
    return inode, device


def _mount_device(mount_id: str) -> int | None:
    """Device of a mount of this mount namespace; None when it is not there."""
    for line in pathlib.Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields = line.split(" ", 3)
        if fields[0] == mount_id:
            major, minor = fields[2].split(":")
            return int(major) << KERNEL_MINOR_BITS | int(minor)
    return None


def _is_script(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(SCRIPT_MARK)) == SCRIPT_MARK
    except OSError:  # it may be executed without being readable
        return False
