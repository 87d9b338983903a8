"""Python packages for the machine: those of .venv, except that compiled ones come from their wheels for another architecture."""

import hashlib
import pathlib
import shutil
import subprocess
import zipfile

from .core import HOST
from .failure import KernelsError

ROOT = pathlib.Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
PURE = ("pytest", "_pytest", "py.py", "pluggy", "iniconfig", "packaging", "pygments")  # what pytest is made of, plain Python all
COMPILED = {"numpy": ("numpy", "numpy.libs"), "msgspec": ("msgspec",)}  # what the agent's side imports: project and its folders
PLATFORMS = {"arm64": [f"manylinux_2_{minor}_aarch64" for minor in (28, 27, 17)]}  # Debian 12 has glibc 2.36
SKIPPED = shutil.ignore_patterns("__pycache__", "tests", "*.pyi", "*.a", "f2py", "include")


class Packages:
    """Folders and files to copy. key: changes whenever their content does."""

    def __init__(self, sources: list[pathlib.Path], key: str) -> None:
        self._sources = sources
        self.key = key

    def copy_to(self, target: pathlib.Path) -> None:
        for source in self._sources:
            if source.is_dir():
                shutil.copytree(source, target / source.name, ignore=SKIPPED)
            else:
                shutil.copy(source, target / source.name)


def site_packages(architecture: str, cache: pathlib.Path) -> Packages:
    """pytest and what the agent's side needs. Raises KernelsError when .venv is not made or a wheel is not there."""
    installed = next(VENV.glob("lib/python3.*/site-packages"), None)
    versions = {}
    for info in installed.glob("*.dist-info") if installed else ():
        name, version = info.name.removesuffix(".dist-info").split("-", 1)
        versions[name] = version
    if installed is None or not {*COMPILED, "pytest"} <= set(versions):
        raise KernelsError(f".venv lacks pytest or one of {', '.join(COMPILED)}; run 'make test' once")
    sources = [installed / name for name in PURE if (installed / name).exists()]
    for project, folders in COMPILED.items():
        source = installed if architecture == HOST else wheel(project, versions[project], architecture, cache)
        sources += [source / folder for folder in folders if (source / folder).exists()]
    wanted = {name: version for name, version in versions.items() if name in (*PURE, *COMPILED)}
    return Packages(sources, hashlib.sha256(repr((sorted(wanted.items()), PURE, COMPILED)).encode()).hexdigest())


def wheel(project: str, version: str, architecture: str, cache: pathlib.Path) -> pathlib.Path:
    """An unpacked wheel, fetched by pip, which checks its hash."""
    folder = cache / f"{project}-{version}-{architecture}"
    if (folder / project).is_dir():
        return folder
    command = [str(VENV / "bin/python"), "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp", "-d", str(cache / "wheels")]
    command += [part for platform in PLATFORMS[architecture] for part in ("--platform", platform)]
    ran = subprocess.run([*command, f"{project}=={version}"], capture_output=True, text=True, check=False)
    fetched = next((cache / "wheels").glob(f"{project}-{version}-cp311-*aarch64.whl"), None)
    if ran.returncode or fetched is None:
        raise KernelsError(f"pip could not fetch {project} {version} for {architecture}: {ran.stderr.strip()[-300:]}")
    unfinished = folder.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    with zipfile.ZipFile(fetched) as archive:
        archive.extractall(unfinished)
    unfinished.rename(folder)
    return folder
