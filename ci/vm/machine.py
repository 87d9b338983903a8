"""Boots one kernel in an emulated machine and brings its results back. Few machines at a time, at low priority."""

import dataclasses
import io
import json
import lzma
import pathlib
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
import tomllib
from typing import Any

from .debian import Apt, unpack
from .image import Content, write_image
from .turns import held, own_turn, scratch_folder

TABLE = pathlib.Path(__file__).resolve().parent / "kernels.toml"
MEMORY_MB = 1792  # the userland twice (as an archive and unpacked, 350 MB each) and the compiler's 300
MODULES = ("fs/overlayfs/overlay.ko",)  # containers' file system: a test of the filters; nothing else needs one
CPUS = 2  # enough for events to lie in two rings
# panic=-1: restart at once, which -no-reboot turns into an end. mitigations=off: an emulated CPU has nothing to leak.
COMMAND_LINE = "rdinit=/init panic=-1 loglevel=5 mitigations=off random.trust_cpu=on"
EMULATORS = {
    "amd64": ["qemu-system-x86_64", "-M", "pc", "-cpu", "max"],
    "arm64": ["qemu-system-aarch64", "-M", "virt", "-cpu", "max,pauth-impdef=on"],  # else signing pointers takes most of the time
}
CONSOLES = {"amd64": "ttyS0", "arm64": "ttyAMA0"}
# What a kernel prints when our probes, or it, did something wrong.
COMPLAINTS = re.compile(
    r"^.*(?:Kernel panic|BUG:|WARNING:|Oops|rcu:.*stall|INFO: task .* blocked|scheduling while atomic).*$", re.MULTILINE
)
UP = re.compile(r"^kernels: (\S+) is up", re.MULTILINE)  # guest/init


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One table of kernels.toml."""

    name: str
    architecture: str
    metapackage: str
    version: str
    without: tuple[str, ...] = ()  # groups of probes that cannot be there


@dataclasses.dataclass
class Outcome:
    """What a machine left. files: its /results; error: a sentence when it did not come to its end."""

    error: str = ""
    release: str = "?"
    report: dict[str, Any] = dataclasses.field(default_factory=dict)
    files: dict[str, bytes] = dataclasses.field(default_factory=dict)
    complaints: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


def kernels() -> dict[str, Kernel]:
    return {name: Kernel(name, **fields) for name, fields in tomllib.loads(TABLE.read_text()).items()}


def kernel_files(kernel: Kernel, cache: pathlib.Path) -> tuple[pathlib.Path, list[pathlib.Path]]:
    """Debian's newest kernel of that line: the bootable file, and the modules that tests need."""
    apt = Apt(kernel.architecture, cache / f"apt-{kernel.architecture}")
    apt.refresh()
    package = apt.kernel(kernel.metapackage, kernel.version)
    kept = cache / "boot" / package.stem
    if not kept.is_dir():
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            unpack(package, pathlib.Path(scratch), "./boot/vmlinuz-*", *(f"*/kernel/{module}*" for module in MODULES))
            flat = pathlib.Path(scratch, "flat")
            flat.mkdir()
            for file in [*pathlib.Path(scratch).glob("boot/vmlinuz-*"), *pathlib.Path(scratch).rglob("*.ko*")]:
                packed = file.suffix == ".xz"
                (flat / file.name.removesuffix(".xz")).write_bytes(
                    lzma.decompress(file.read_bytes()) if packed else file.read_bytes()
                )
            kept.parent.mkdir(exist_ok=True)
            flat.rename(kept)
    return next(kept.glob("vmlinuz-*")), sorted(kept.glob("*.ko"))


def boot(kernel: Kernel, content: Content, *, cache: pathlib.Path, folder: pathlib.Path, label: str, timeout_s: float) -> Outcome:
    """Carry out a plan under a kernel. folder: console log and results are left there as LABEL.log and LABEL/."""
    console = folder / f"{label}.log"
    with own_turn(folder, label), scratch_folder(folder) as scratch:
        image, line = scratch / "image", scratch / "results"
        began = time.monotonic()
        with held(cache, ["cache"]):
            boots, modules = kernel_files(kernel, cache)
            write_image(image, kernel.architecture, cache, dataclasses.replace(content, modules=tuple(modules)))
        outcome = Outcome(error=emulate(kernel, boots, image, console, line, timeout_s))
        outcome.seconds = round(time.monotonic() - began, 1)
        collect(outcome, line, console)
        kept = folder / label
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir()
        for name, data in outcome.files.items():
            (kept / name).write_bytes(data)
    return outcome


def emulate(
    kernel: Kernel, boots: pathlib.Path, image: pathlib.Path, console: pathlib.Path, line: pathlib.Path, timeout_s: float
) -> str:
    """Run the machine to its end; a sentence when it had to be stopped or could not start."""
    command = ["nice", "-n", "10", *EMULATORS[kernel.architecture], "-accel", "tcg,thread=multi", "-smp", str(CPUS)]
    command += ["-m", str(MEMORY_MB), "-nodefaults", "-display", "none", "-no-reboot", "-kernel", str(boots), "-initrd", str(image)]
    command += ["-append", f"console={CONSOLES[kernel.architecture]} {COMMAND_LINE}", "-serial", f"file:{console}"]
    if kernel.architecture == "arm64":
        command += ["-chardev", f"file,id=results,path={line}", "-device", "pci-serial,chardev=results"]
    else:
        command += ["-serial", f"file:{line}"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            _, said = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return f"it did not end within {timeout_s:g} s"
        except BaseException:
            process.kill()
            raise
    return f"{command[3]} failed: {said.strip()[-300:]}" if process.returncode else ""


def collect(outcome: Outcome, line: pathlib.Path, console: pathlib.Path) -> None:
    """Read what came over the result line; without it, say what the console says."""
    text = console.read_text(errors="replace") if console.exists() else ""
    try:
        with tarfile.open(fileobj=io.BytesIO(line.read_bytes()), mode="r:gz") as archive:
            for member in archive:
                held = archive.extractfile(member)
                if held is not None:
                    outcome.files[pathlib.PurePosixPath(member.name).name] = held.read()
        outcome.report = json.loads(outcome.files["report.json"])
    except (OSError, EOFError, KeyError, tarfile.TarError):
        found = COMPLAINTS.search(text)
        last = next((said for said in reversed(text.splitlines()) if said.strip()), "nothing on its console")
        reason = found.group().strip() if found else f"the last it said: {last.strip()[:160]}"
        outcome.error = f"{outcome.error or 'the machine ended without results'}; {reason}"
    up = UP.search(text)
    outcome.release = up[1] if up else "?"
    said = text + outcome.files.get("dmesg", b"").decode(errors="replace")
    outcome.complaints = sorted({re.sub(r"^\[[ \d.]+\] ", "", found.strip()) for found in COMPLAINTS.findall(said)})
