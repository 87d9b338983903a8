"""The compiled core for the architecture of a machine: for this one what `make build` made, for another the same C text
(from Cython) through a cross compiler. Never writes into the checkout."""

import concurrent.futures
import hashlib
import pathlib
import platform
import subprocess

from .debian import Apt, unpack
from .failure import KernelsError

HOST = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
TRIPLETS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
FLAGS = ("-O1", "-fPIC", "-shared", "-w", "-Ibpf/include", "-Iext/include")
JOBS = 2  # a machine that others use as well
C_TEXT = pathlib.Path("build/cython/ext")  # where setup.py leaves what Cython made


def compiled_core(checkout: pathlib.Path, architecture: str, cache: pathlib.Path) -> dict[str, pathlib.Path]:
    """{path in the checkout: file} of every module."""
    built = sorted(checkout.glob("deeptrace/core/*.so")) + sorted(checkout.glob("deeptrace/protocols/*.so"))
    if not built:
        raise KernelsError(f"the compiled core is not built in {checkout}; run 'make build' first")
    if architecture == HOST:
        return {str(path.relative_to(checkout)): path for path in built}
    modules = [(path.parent.name, path.name.split(".")[0]) for path in built]
    cross = CrossCompiler(checkout, architecture, cache)
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        made = list(pool.map(lambda module: cross.module(*module), modules))
    suffix = f"cpython-311-{TRIPLETS[architecture]}.so"
    return {f"deeptrace/{package}/{name}.{suffix}": path for (package, name), path in zip(modules, made, strict=True)}


class CrossCompiler:
    """Compiles modules for another architecture; keeps what it made under a hash of all that went in."""

    def __init__(self, checkout: pathlib.Path, architecture: str, cache: pathlib.Path) -> None:
        self._checkout = checkout
        self._gcc = f"{TRIPLETS[architecture]}-gcc"
        self._cache = cache / f"core-{architecture}"
        self._cache.mkdir(parents=True, exist_ok=True)
        self._include = python_headers(architecture, cache)
        headers = sorted((*checkout.glob("bpf/include/*"), *checkout.glob("ext/include/*")))
        self._headers = b"".join(path.read_bytes() for path in headers)

    def module(self, package: str, name: str) -> pathlib.Path:
        source = self._checkout / C_TEXT / package / f"{name}.c"
        if not source.exists():
            raise KernelsError(f"{source} is missing; run 'make build' first")
        key = hashlib.sha256(repr((FLAGS, self._include)).encode() + self._headers + source.read_bytes()).hexdigest()[:16]
        made = self._cache / f"{package}-{name}-{key}.so"
        if made.exists():
            return made
        for old in self._cache.glob(f"{package}-{name}-*.so"):
            old.unlink()
        unfinished = made.with_suffix(".part")
        command = ["nice", self._gcc, *FLAGS, *(f"-I{folder}" for folder in self._include), "-o", str(unfinished), str(source)]
        ran = subprocess.run(command, cwd=self._checkout, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise KernelsError(f"{name} does not compile with {self._gcc}: {ran.stderr.strip()[-600:]}")
        unfinished.rename(made)
        return made


def test_programs(checkout: pathlib.Path, architecture: str, folder: pathlib.Path) -> None:
    """Build the C programs of the kernel tests, which the machine has no compiler for, into a folder."""
    folder.mkdir()
    builder = checkout / "tests/kernel/conformance/running.py"
    if not builder.exists():
        return  # an older checkout
    compiler = f"{TRIPLETS[architecture]}-gcc"
    command = ["nice", "/usr/bin/python3", str(builder), str(folder), compiler]
    ran = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise KernelsError(f"the test programs do not compile with {compiler}: {ran.stderr.strip()[-600:]}")


def python_headers(architecture: str, cache: pathlib.Path) -> list[str]:
    """Include folders of Python.h for an architecture; its pyconfig.h is another on each."""
    folder = cache / f"python-headers-{architecture}"
    if not folder.is_dir():
        apt = Apt(architecture, cache / f"apt-{architecture}")
        apt.refresh()
        package = next(p for p in apt.with_dependencies(["libpython3.11-dev"]) if p.name.startswith("libpython3.11-dev"))
        unfinished = folder.with_suffix(".part")
        unfinished.mkdir(parents=True, exist_ok=True)
        unpack(package, unfinished, "./usr/include/*")
        unfinished.rename(folder)
    return [str(folder / "usr/include/python3.11"), str(folder / "usr/include")]
