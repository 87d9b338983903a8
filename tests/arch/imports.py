"""Who imports whom in deeptrace/, read from the source. Imports nothing of deeptrace itself."""

import ast
import functools
import pathlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "deeptrace"
CYTHON_IMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+c?import\s+(.*)|c?import\s+([\w.]+))")


@dataclass(frozen=True)
class Import:
    """One import: of a module, or of a name in one."""

    file: pathlib.Path
    line: int
    name: str  # dotted: the module, and the name taken from it if any

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.name}"

    def of(self, module: str) -> bool:
        """Whether it is `module` or something within it."""
        return self.name == module or self.name.startswith(module + ".")


@functools.cache
def python_files() -> tuple[pathlib.Path, ...]:
    """Our Python sources, without what is generated or built."""
    return tuple(sorted(p for p in PACKAGE.rglob("*.py") if "_data" not in p.parts and not p.stem.endswith("_pb2")))


@functools.cache
def cython_files() -> tuple[pathlib.Path, ...]:
    return tuple(sorted(p for p in (ROOT / "ext").rglob("*") if p.suffix in (".pyx", ".pxd")))


@functools.cache
def tree(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(path: pathlib.Path) -> Iterator[Import]:
    return _cython_imports(path) if path.suffix in (".pyx", ".pxd") else _python_imports(path)


def _python_imports(path: pathlib.Path) -> Iterator[Import]:
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (Import(path, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) + "." if node.level else ""
            module = base + (node.module or "")
            yield from (Import(path, node.lineno, f"{module.rstrip('.')}.{alias.name}") for alias in node.names)


def _cython_imports(path: pathlib.Path) -> Iterator[Import]:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if found := CYTHON_IMPORT.match(line):
            module, names, whole = found.groups()
            if whole:
                yield Import(path, number, whole)
            else:
                yield from (Import(path, number, f"{module}.{name.strip(' ()')}") for name in names.split(","))


def unit_of(path: pathlib.Path) -> str:
    """The part of deeptrace/ that a file belongs to: a folder's name, or a top-level module's."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def unit_imported(i: Import) -> str | None:
    """The part of deeptrace that an import reaches, or None for other packages."""
    parts = i.name.split(".")
    return parts[1] if parts[0] == "deeptrace" and len(parts) > 1 else None
