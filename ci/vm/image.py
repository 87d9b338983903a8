"""Makes the first file system of a virtual machine: Debian's userland of its architecture (kept between runs), and over it
a checkout as it is now."""

import dataclasses
import hashlib
import pathlib
import shutil
import subprocess
import tempfile

from .core import compiled_core, test_programs
from .cpio import Archive
from .debian import Apt, unpack
from .failure import KernelsError
from .wheels import site_packages

GUEST = pathlib.Path(__file__).resolve().parent / "guest"
# What runs in the machine; their dependencies follow. bpftool: to look, and for --command.
PACKAGES = ["python3", "python3-bpfcc", "bpftool", "iproute2", "mount", "util-linux", "dash", "coreutils", "grep", "sed", "procps"]
FORMAT = 1  # of the kept userland: a change here makes it anew
MERGED = ("bin", "sbin", "lib", "lib64")  # links into /usr, as base-files would make them
UNUSED = ("usr/share", "usr/include", "usr/lib/python3.11/test", "usr/lib/python3.11/idlelib", "usr/games", "var/cache")
CHECKOUT = ("bpf", "deeptrace", "tests/conftest.py", "tests/kernel", "pyproject.toml")
SKIPPED = frozenset({"__pycache__", "_data", ".mypy_cache", "node_modules"})
HOME = "deeptrace"  # where the checkout lies in the machine: /deeptrace


def userland(architecture: str, cache: pathlib.Path) -> pathlib.Path:
    """The archive of Debian's userland with Python packages, made unless it is there."""
    apt = Apt(architecture, cache / f"apt-{architecture}")
    apt.refresh()
    packages = apt.with_dependencies(PACKAGES)
    wheels = site_packages(architecture, cache)
    key = hashlib.sha256(repr((FORMAT, [p.name for p in packages], wheels.key)).encode()).hexdigest()[:16]
    archive = cache / f"userland-{architecture}-{key}.cpio"
    if archive.exists():
        return archive
    for old in cache.glob(f"userland-{architecture}-*.cpio"):
        old.unlink()
    tree = cache / f"tree-{architecture}"
    shutil.rmtree(tree, ignore_errors=True)
    try:
        for name in MERGED:
            (tree / "usr" / name).mkdir(parents=True)
            (tree / name).symlink_to(f"usr/{name}")
        for package in packages:
            unpack(package, tree)
        for unused in UNUSED:
            shutil.rmtree(tree / unused, ignore_errors=True)
        wheels.copy_to(tree / "opt" / "site-packages")
        compile_python(tree)
        shell = tree / "usr/bin/sh"
        if not shell.exists():
            shell.symlink_to("dash")
        with archive.with_suffix(".part").open("wb") as out:
            Archive(out).tree(tree, "")
        archive.with_suffix(".part").rename(archive)
    finally:
        shutil.rmtree(tree, ignore_errors=True)
    return archive


def compile_python(tree: pathlib.Path) -> None:
    """Byte code beside every module: packages make it when they are installed, and in an emulated machine it takes long."""
    python = "/usr/bin/python3"
    version = subprocess.run(
        [python, "-c", "import sys; print('python%d.%d' % sys.version_info[:2])"], capture_output=True, text=True
    )
    if not (tree / "usr/lib" / version.stdout.strip()).is_dir():
        raise KernelsError(f"{python} here is {version.stdout.strip()}, and Debian 12 has another: byte code cannot be made for it")
    folders = [tree / "usr/lib" / version.stdout.strip(), tree / "usr/lib/python3/dist-packages", tree / "opt/site-packages"]
    command = [python, "-m", "compileall", "-q", "-s", str(tree), "-p", "/", "--invalidation-mode", "unchecked-hash"]
    subprocess.run([*command, *map(str, folders)], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@dataclasses.dataclass(frozen=True)
class Content:
    """What goes into a machine. checkout: to be /deeptrace; plan: JSON for guest/run.py; with_programs: the tests'
    C programs in /programs; extra: files to put into /extra."""

    checkout: pathlib.Path
    plan: bytes
    with_programs: bool
    extra: list[pathlib.Path]
    modules: tuple[pathlib.Path, ...] = ()


def write_image(out: pathlib.Path, architecture: str, cache: pathlib.Path, content: Content) -> None:
    """The whole file system, ready to boot."""
    kept = userland(architecture, cache)
    with out.open("wb") as sink:
        with kept.open("rb") as source:
            shutil.copyfileobj(source, sink, 1 << 20)
        archive = Archive(sink)
        archive.character_device("dev/console", 5, 1)
        archive.file("init", (GUEST / "init").read_bytes(), executable=True)
        archive.tree(GUEST, "guest")
        archive.file("guest/plan.json", content.plan)
        for name in ("proc", "sys", "tmp", "results", "etc", "extra", "modules"):
            archive.folder(name)
        archive.file("etc/passwd", b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")
        archive.file("etc/group", b"root:x:0:\nnogroup:x:65534:\n")
        archive.file("etc/hosts", b"127.0.0.1 localhost\n::1 localhost\n")
        add_checkout(archive, content.checkout, architecture, cache)
        if content.with_programs:
            with tempfile.TemporaryDirectory() as scratch:
                test_programs(content.checkout, architecture, pathlib.Path(scratch, "programs"))
                archive.tree(pathlib.Path(scratch, "programs"), "programs")
        for path in content.modules:
            archive.tree(path, f"modules/{path.name}")
        for path in content.extra:
            archive.tree(path.resolve(), f"extra/{path.name}")
        archive.end()


def add_checkout(archive: Archive, checkout: pathlib.Path, architecture: str, cache: pathlib.Path) -> None:
    """The checkout in /deeptrace, with the compiled core of the architecture and a .venv as a user has it."""
    compiled = compiled_core(checkout, architecture, cache)
    for name in CHECKOUT:
        source = checkout / name
        if source.is_file():
            archive.tree(source, f"{HOME}/{name}")
            continue
        for path in sorted(source.rglob("*")):
            if path.is_file() and path.suffix != ".so" and not SKIPPED & set(path.relative_to(checkout).parts):
                archive.tree(path, f"{HOME}/{path.relative_to(checkout)}")
    for name, path in compiled.items():
        archive.tree(path, f"{HOME}/{name}")
    # The agent's Python is another than the system's in what it can import: bcc only the one, numpy only the other.
    archive.file(f"{HOME}/.venv/pyvenv.cfg", b"home = /usr/bin\ninclude-system-site-packages = false\n")
    archive.link(f"{HOME}/.venv/bin/python", "/usr/bin/python3")
    archive.link(f"{HOME}/.venv/lib/python3.11/site-packages", "/opt/site-packages")
