"""Finds the files that travel with the tool: bpf/ and benchmarks/, in a checkout or in an installed wheel."""

import pathlib

from deeptrace.errors import DeepTraceError

PACKAGE = pathlib.Path(__file__).resolve().parent


def shipped_folder(name: str) -> pathlib.Path:
    """The folder `bpf` or `benchmarks`. Raises DeepTraceError when the installation is incomplete."""
    for folder in (PACKAGE / "_data" / name, PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise DeepTraceError(f"the folder '{name}' is missing beside {PACKAGE}; install deeptrace again")
