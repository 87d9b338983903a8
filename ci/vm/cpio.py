"""Writes what a kernel unpacks as its first file system: cpio, format "newc" (Documentation/driver-api/early-userspace/
buffer-format.rst). Uncompressed: unpacking it in an emulated machine would take longer than reading it."""

import os
import pathlib
import stat
from typing import BinaryIO

ALIGN = 4


class Archive:
    """One archive, written to an open file. Archives may stand one after the other; later files replace earlier ones."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._inode = 0
        self._made: set[str] = set()

    def _entry(self, name: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        encoded = name.encode() + b"\0"
        numbers = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % number for number in numbers) + encoded
        self._out.write(header + b"\0" * (-len(header) % ALIGN))
        self._out.write(data)
        self._out.write(b"\0" * (-len(data) % ALIGN))

    def folder(self, name: str) -> None:
        """A folder and those above it."""
        for parent in reversed([name, *(str(p) for p in pathlib.PurePosixPath(name).parents)]):
            if parent not in (".", "") and parent not in self._made:
                self._made.add(parent)
                self._entry(parent, stat.S_IFDIR | 0o755, b"")

    def file(self, name: str, data: bytes, *, executable: bool = False) -> None:
        self.folder(str(pathlib.PurePosixPath(name).parent))
        self._entry(name, stat.S_IFREG | (0o755 if executable else 0o644), data)

    def link(self, name: str, target: str) -> None:
        self.folder(str(pathlib.PurePosixPath(name).parent))
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, name: str, major: int, minor: int) -> None:
        self.folder(str(pathlib.PurePosixPath(name).parent))
        self._entry(name, stat.S_IFCHR | 0o600, b"", (major, minor))

    def tree(self, source: pathlib.Path, name: str, *, skip: frozenset[str] = frozenset()) -> None:
        """A folder or file of this machine, without the names in `skip` at any depth."""
        if source.is_symlink():
            self.link(name, os.readlink(source))
        elif source.is_dir():
            if name:
                self.folder(name)
            for child in sorted(source.iterdir()):
                if child.name not in skip:
                    self.tree(child, f"{name}/{child.name}".lstrip("/"), skip=skip)
        elif source.is_file():
            self.file(name, source.read_bytes(), executable=os.access(source, os.X_OK))

    def end(self) -> None:
        self._entry("TRAILER!!!", 0, b"")
        self._out.write(b"\0" * (-self._out.tell() % 512))
