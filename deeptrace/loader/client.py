"""Starts the loader process and takes over what it loaded. Holds descriptors only; compiles nothing, imports no bcc."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

from deeptrace.core.wire import CONFIG_DTYPE
from deeptrace.errors import ProbeError
from deeptrace.loader import handover
from deeptrace.loader.capabilities import effective_capabilities
from deeptrace.loader.failure import LAYOUT_GUARD
from deeptrace.loader.probes import LoadReport, ProbeConfig, Probes
from deeptrace.resources import shipped_folder

__all__ = ["LoadReport", "ProbeConfig", "Probes", "load_probes"]

LOADER = pathlib.Path(__file__).resolve().parent / "__main__.py"
REQUIRED_GROUP = "socket_io"  # without it there is nothing to trace
DETAIL_BYTES = 4000  # of compiler or verifier output kept with an error: its end, where the reason stands
CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF = 21, 38, 39
LOADER_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}  # nothing of a virtual environment


def load_probes(
    *,
    config: ProbeConfig,
    ring_bytes_per_cpu: int,
    sizeofs: dict[str, int],
    python: str = "/usr/bin/python3",
    timeout_s: float = 60,
    debug: bool = False,
    selftest: bool = True,
) -> Probes:
    """Load and attach the probes, unarmed: call Probes.arm() when PIDS is set and the rings are mapped.

    ring_bytes_per_cpu: data area, a power of two of pages; sizeofs: deeptrace.core.wire.SIZEOFS. Mapping more than
    kernel.perf_event_mlock_kb needs CAP_IPC_LOCK: map before dropping capabilities. debug: the build that logs
    (ProbeConfig.log_level); selftest: known messages go through every hook first. Raises ProbeError.
    """
    check_privilege()
    page = os.sysconf("SC_PAGE_SIZE")
    if ring_bytes_per_cpu < page or ring_bytes_per_cpu & (ring_bytes_per_cpu - 1):
        raise ProbeError(f"a ring of {ring_bytes_per_cpu} bytes is not possible; use a power of two of at least {page}")
    with private_folder() as folder:
        request = {
            "bpf": str(shipped_folder("bpf")),
            "folder": str(folder),
            "ring_bytes": ring_bytes_per_cpu,
            "map_sizes": config.map_sizes(),
            "sizeofs": sizeofs,
            "config_fields": {name: [offset, kind.itemsize] for name, (kind, offset, *_) in (CONFIG_DTYPE.fields or {}).items()},
            "config_bytes": CONFIG_DTYPE.itemsize,
            "debug": debug,
            "selftest": selftest,
        }
        report, fds = run_loader(request, folder=folder, python=python, timeout_s=timeout_s)
    probes = take_over(report, fds, config, sizeofs)
    if REQUIRED_GROUP in probes.report.disabled:
        probes.close()
        error = ProbeError(f"the data calls cannot be traced: {probes.report.disabled[REQUIRED_GROUP]}")
        error.add_note(report["output"])
        raise error
    return probes


def check_privilege() -> None:
    """Raises ProbeError when this process may not load BPF programs."""
    held = effective_capabilities()
    if not held >> CAP_SYS_ADMIN & 1 and not (held >> CAP_BPF & 1 and held >> CAP_PERFMON & 1):
        raise ProbeError("tracing needs root (or CAP_BPF and CAP_PERFMON); run it with sudo")


@contextlib.contextmanager
def private_folder() -> Iterator[pathlib.Path]:
    """A folder of mode 0700 that is gone afterwards, however the loader ended."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="deeptrace-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_loader(request: dict[str, Any], *, folder: pathlib.Path, python: str, timeout_s: float) -> tuple[dict[str, Any], list[int]]:
    """One loader process, from start to end: its report and descriptors. Raises ProbeError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    output = folder / "output"  # BCC writes compiler and verifier messages to its standard error, up to megabytes
    with ours, theirs, output.open("wb") as sink:
        try:
            process = subprocess.Popen(
                [python, "-I", str(LOADER), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=LOADER_ENVIRONMENT,
                cwd="/",
                start_new_session=True,  # Ctrl-C is the agent's to handle
            )
        except OSError as e:
            raise ProbeError(f"the loader cannot be started with {python} ({e.strerror}); install Debian's python3") from e
        theirs.close()
        ours.settimeout(timeout_s)
        try:
            handover.send(ours, request, [])
            report, fds = handover.receive(ours)
        except TimeoutError:
            raise ProbeError(f"the loader did not finish within {timeout_s:g} s; try again on a less busy machine") from None
        except (EOFError, OSError) as e:
            raise ProbeError(f"the loader ended without a report: {tail(output) or e}") from e
        finally:
            end(process)
    if not report["ok"]:
        sentence = str(report["error"])
        if LAYOUT_GUARD in tail(output):
            sentence = "the probes and the compiled core are of different versions; run 'make build', or install deeptrace again"
        error = ProbeError(sentence)
        error.add_note((report["detail"] + "\n" + tail(output)).strip()[-DETAIL_BYTES:])
        raise error
    report["output"] = tail(output) if report["disabled"] else ""
    return report, fds


def tail(output: pathlib.Path) -> str:
    return output.read_bytes()[-DETAIL_BYTES:].decode(errors="replace").strip()


def end(process: subprocess.Popen[bytes]) -> None:
    """Wait for the loader, which ends by itself right after its report; stop it otherwise."""
    try:
        process.wait(timeout=2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def take_over(report: dict[str, Any], fds: list[int], config: ProbeConfig, sizeofs: dict[str, int]) -> Probes:
    """Sort the descriptors by their roles."""
    by_role: dict[str, dict[Any, int]] = {"map": {}, "ring": {}, "program": {}, "link": {}}
    for (role, name), fd in zip(report["fds"], fds, strict=True):
        by_role[role][name] = fd
    return Probes(
        ring_fds=by_role["ring"],
        map_fds=by_role["map"],
        program_fds=by_role["program"],
        keep_fds=list(by_role["link"].values()),
        report=LoadReport(
            groups=report["groups"],
            disabled=report["disabled"],
            warnings=report["warnings"],
            kernel=report["kernel"],
            btf="/sys/kernel/btf/vmlinux",
            tracefs_mounted=report["tracefs_mounted"],
            compile_s=report["compile_s"],
            seconds=report["seconds"],
            selftest=report["selftest"],
            debug=report["debug"],
        ),
        config=config,
        sizeofs=sizeofs,
        socket_fops=report["socket_fops"],
        ring_bytes=report["ring_bytes"],
    )
