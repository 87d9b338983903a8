"""Finds cgroups by path, name or container id. Reads directory names and process lists only; knows no container engine.

The kernel tells the cgroup of a process in the unified hierarchy (version 2), with all that it lies in. Where a container has a
cgroup in hierarchies of version 1 alone its processes are listed instead.
"""

import fnmatch
import os
import pathlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from deeptrace.errors import UsageError

MAX_CGROUPS = 50_000  # directories looked at for one name: 0.3 s; a full node has some 3,000 per hierarchy
MIN_ID_DIGITS = 12  # of a container's 64 hex digits: what engines show as its short id
MAX_NAME = 255  # NAME_MAX: no cgroup has a longer one

_ID = re.compile(r"(?:^|[-:])([0-9a-f]{64})(?:\.scope)?$")
_UNIT = re.compile(r"\.(?:service|scope|slice)$")
_HEX = re.compile(rf"[0-9a-f]{{{MIN_ID_DIGITS},64}}")


@dataclass(frozen=True)
class Hierarchy:
    """One mounted tree of cgroups."""

    root: str
    unified: bool


@dataclass(frozen=True)
class Found:
    """What a filter stands for now: ids in the unified hierarchy, or folders of version 1."""

    ids: frozenset[int] = frozenset()
    folders: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.ids or self.folders)


@dataclass
class Cgroups:
    """The trees of this host."""

    hierarchies: list[Hierarchy] = field(default_factory=lambda: mounted_hierarchies())

    def find(self, wanted: str) -> Found:
        """wanted: a path ("/sys/fs/cgroup/shop.slice", "/shop.slice"), a name (of a unit, container or pod; * and ? stand for
        any text), or at least 12 digits of a container's id. Finding nothing is no error."""
        folders = list(self._at(wanted) if wanted.startswith("/") else self._named(wanted))
        unified = [path for path, hierarchy in folders if hierarchy.unified]
        if unified:
            return Found(ids=frozenset(_ids(unified)))
        return Found(folders=tuple(path for path, _hierarchy in folders))

    def require(self, wanted: str) -> Found:
        """The same. Raises UsageError when nothing is found, unless it is a pattern, whose containers may come later."""
        if not self.hierarchies:
            raise UsageError(f"the cgroup {wanted!r} cannot be found: no cgroup file system is mounted here; mount /sys/fs/cgroup")
        found = self.find(wanted)
        if found or is_pattern(wanted):
            return found
        if wanted.startswith("/"):
            raise UsageError(f"there is no cgroup {wanted}; 'systemd-cgls' shows what there is")
        hint = f"; of an id at least {MIN_ID_DIGITS} digits are needed" if re.fullmatch("[0-9a-f]{1,11}", wanted) else ""
        raise UsageError(
            f"no container, unit or cgroup {wanted!r} runs here{hint}; 'systemd-cgls' and 'docker ps' show what there is"
        )

    def _at(self, path: str) -> Iterator[tuple[str, Hierarchy]]:
        """A path under a mounted tree, or as /proc/PID/cgroup shows it."""
        path = os.path.normpath(path)
        inside = [h for h in self.hierarchies if path == h.root or path.startswith(h.root + "/")]
        if inside:
            if os.path.isdir(path):
                yield path, max(inside, key=lambda h: len(h.root))
            return
        for hierarchy in self.hierarchies:
            folder = hierarchy.root + path.rstrip("/")
            if os.path.isdir(folder):
                yield folder, hierarchy

    def _named(self, wanted: str) -> Iterator[tuple[str, Hierarchy]]:
        for hierarchy in self.hierarchies:
            for folder, name in _walk(hierarchy.root):
                if names(name, wanted):
                    yield folder, hierarchy


def is_pattern(wanted: str) -> bool:
    return not wanted.startswith("/") and any(c in wanted for c in "*?[")


def names(name: str, wanted: str) -> bool:
    """Whether a directory name is meant by `wanted`: itself, without its unit's suffix, or by its container's id."""
    if is_pattern(wanted):
        return fnmatch.fnmatchcase(name, wanted) or fnmatch.fnmatchcase(_UNIT.sub("", name), wanted)
    if wanted in (name, _UNIT.sub("", name)):
        return True
    container = _ID.search(name)
    return container is not None and _HEX.fullmatch(wanted) is not None and container[1].startswith(wanted)


def members(folders: Iterable[str]) -> set[int]:
    """The processes in these cgroups and all below them, by cgroup.procs. Folders that are gone have none."""
    found: set[int] = set()
    for top in folders:
        for folder in (top, *(path for path, _name in _walk(top))):
            try:
                text = pathlib.Path(folder, "cgroup.procs").read_text()
            except OSError:  # gone, or threaded: its processes stand further up
                continue
            found.update(int(line) for line in text.split())
    found.discard(0)  # a process of another pid namespace
    return found


def mounted_hierarchies(mountinfo: str = "/proc/self/mountinfo") -> list[Hierarchy]:
    """All trees of cgroups, the unified one first."""
    found = {}
    for line in pathlib.Path(mountinfo).read_text(errors="surrogateescape").splitlines():
        place, _dash, source = line.partition(" - ")
        kind = source.split(" ", 1)[0]
        if kind in ("cgroup", "cgroup2"):
            root = place.split(" ")[4].encode(errors="surrogateescape").decode("unicode_escape")  # a space is written \040
            found[root] = Hierarchy(root, kind == "cgroup2")
    return sorted(found.values(), key=lambda h: not h.unified)


def _walk(top: str) -> Iterator[tuple[str, str]]:
    """(path, name) of every directory below; at most MAX_CGROUPS."""
    todo, n_seen = [top], 0
    while todo and n_seen < MAX_CGROUPS:
        folder = todo.pop()
        try:
            with os.scandir(folder) as entries:
                below = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:  # it ended meanwhile
            continue
        n_seen += len(below)
        for entry in below:
            yield entry.path, entry.name
            todo.append(entry.path)


def _ids(folders: Iterable[str]) -> Iterator[int]:
    """The kernel's id of a cgroup is the inode number of its directory (64-bit kernels)."""
    for folder in folders:
        try:
            yield os.stat(folder).st_ino
        except OSError:
            continue
