"""Builds the compiled core: every ext/core/*.pyx as deeptrace.core.X and every ext/protocols/*.pyx as deeptrace.protocols.X.

Metadata stands in pyproject.toml; bpf/, benchmarks/ and the extension sources' C headers travel as package data.
"""

import os
import pathlib
import shutil

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_py import build_py

ROOT = pathlib.Path(__file__).parent.resolve()
PACKAGES = ("core", "protocols")  # folders of ext/ that become packages of deeptrace
SHIPPED = ("bpf", "benchmarks")  # top-level folders that an installed tool reads: deeptrace/_data/<name>


def link_declarations() -> str:
    """Make ext/'s folders importable to Cython under their package names; returns the include folder."""
    os.chdir(ROOT)
    names = pathlib.Path("build/pxd/deeptrace")
    names.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        link = names / package
        if not link.exists():
            link.symlink_to(pathlib.Path("../../../ext") / package)
    return "build/pxd"


def remove_stale_modules() -> None:
    """Compiled modules in the tree whose source has gone: they would still be found as protocols."""
    for package in PACKAGES:
        for module in pathlib.Path("deeptrace", package).glob("*.so"):
            if not pathlib.Path("ext", package, module.name.split(".")[0] + ".pyx").exists():
                module.unlink()


def extensions() -> list[Extension]:
    flags = ["-O2", "-g", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers"]
    if os.environ.get("DEEPTRACE_SANITIZE"):
        flags += ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
    headers = sorted(str(p) for d in ("bpf/include", "ext/include") for p in pathlib.Path(d).glob("*"))
    return [
        Extension(
            f"deeptrace.{package}.{source.stem}",
            [str(source)],
            include_dirs=["bpf/include", "ext/include"],
            depends=headers,
            extra_compile_args=flags,
            extra_link_args=[f for f in flags if f.startswith("-fsanitize")],
        )
        for package in PACKAGES
        for source in sorted(pathlib.Path("ext", package).glob("*.pyx"))
    ]


class BuildPy(build_py):
    """Copies the shipped folders into the built package, so that an installed tool needs no checkout."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)  # else a module that is gone would still be packed
        super().run()
        if self.editable_mode:
            return
        for name in SHIPPED:
            target = pathlib.Path(self.build_lib, "deeptrace", "_data", name)
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))


include = link_declarations()
remove_stale_modules()
PREBUILT = bool(os.environ.get("DEEPTRACE_PREBUILT"))  # the Makefile has built in place; only the command is installed
setup(
    cmdclass={"build_py": BuildPy},
    ext_modules=cythonize(
        [] if PREBUILT else extensions(),
        include_path=[include, "ext"],
        build_dir="build/cython",
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "freethreading_compatible": False,
        },
    ),
)
