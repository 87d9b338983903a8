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
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from deeptrace.core.wire import CONFIG_DTYPE
from deeptrace.errors import ProbeError
from deeptrace.loader import handover, maps
from deeptrace.loader.capabilities import effective_capabilities
from deeptrace.loader.failure import LAYOUT_GUARD
from deeptrace.resources import shipped_folder

LOADER = pathlib.Path(__file__).resolve().parent / "__main__.py"
REQUIRED_GROUP = "socket_io"  # without it there is nothing to trace
DETAIL_BYTES = 4000  # of compiler or verifier output kept with an error: its end, where the reason stands
CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF = 21, 38, 39
LOADER_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}  # nothing of a virtual environment


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """What the probes capture, and the sizes of their maps (preallocated, so they cost memory at once)."""

    all_processes: bool = False
    payload_bytes: int = 1024
    head_bytes: int = 4096
    max_pids: int = 65536  # 64 B each: 4 MB; every process of a busy host
    max_threads: int = 65536  # threads that move bytes, per direction; 230 B each: 15 MB; twice the default pid_max
    max_connecting: int = 8192  # connect(2) calls in flight at one moment
    max_sockets: int = 131072  # 110 B each: 14 MB; the oldest is forgotten first

    def map_sizes(self) -> dict[str, int]:
        return {
            "PIDS": self.max_pids,
            "THREADS": self.max_threads,
            "CONNECTING": self.max_connecting,
            "SOCKETS": self.max_sockets,
        }


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What was loaded. groups: {group: its tracepoints}; disabled: {group: sentence}; seconds: inside the loader."""

    groups: dict[str, list[str]]
    disabled: dict[str, str]
    warnings: list[str]
    kernel: str
    btf: str
    tracefs_mounted: bool
    compile_s: float
    seconds: float


@dataclass(kw_only=True)
class Probes:
    """The loaded probes: all descriptors are owned here, and closing them detaches everything.

    ring_fds: {cpu: perf event}; not mapped yet. map_fds: {name: map}; EVENTS must stay open or the rings are taken out.
    """

    ring_fds: dict[int, int]
    map_fds: dict[str, int]
    program_fds: dict[str, int]
    keep_fds: list[int]
    report: LoadReport
    config: ProbeConfig
    sizeofs: dict[str, int]
    socket_fops: int
    _closed: bool = field(default=False, init=False)

    @property
    def pids(self) -> maps.PidMap:
        return maps.PidMap(self.map_fds["PIDS"])

    def arm(self, config: ProbeConfig | None = None) -> None:
        """Start capturing, or go on with new settings (payload_bytes, head_bytes, all_processes). Set PIDS before."""
        self.config = config or self.config
        self._write_config(self.socket_fops)

    def disarm(self) -> None:
        """Stop capturing; calls in flight are still recorded."""
        self._write_config(0)

    def _write_config(self, socket_fops: int) -> None:
        maps.write_config(
            self.map_fds["CONFIG"],
            socket_fops=socket_fops,
            all_processes=self.config.all_processes,
            payload_bytes=self.config.payload_bytes,
            head_bytes=self.config.head_bytes,
        )

    def counters(self) -> npt.NDArray[np.uint64]:
        """The kernel's counters: uint64 (64,), indexed by the numbers of counters.def."""
        return maps.read_counters(self.map_fds["COUNTERS"])

    def in_flight(self) -> int:
        """Data calls that were entered and have not returned: a term of the ledger's first equation."""
        size = self.sizeofs["dt_inflight"]
        fds = (self.map_fds["ingress"], self.map_fds["egress"])
        return sum(maps.count_in_flight(fd, value_bytes=size, max_entries=self.config.max_threads) for fd in fds)

    def map_fill(self) -> dict[str, tuple[int, int]]:
        """{map: (entries, most entries)} of the hash maps."""
        shapes = {
            "PIDS": (4, 4, self.config.max_pids),
            "ingress": (4, self.sizeofs["dt_inflight"], self.config.max_threads),
            "egress": (4, self.sizeofs["dt_inflight"], self.config.max_threads),
            "SOCKETS": (8, self.sizeofs["dt_socket_info"], self.config.max_sockets),
        }
        return {
            name: (maps.count_entries(self.map_fds[name], key_bytes=key, value_bytes=value, max_entries=most), most)
            for name, (key, value, most) in shapes.items()
        }

    def recursion_misses(self) -> int:
        """Runs of the probes that the kernel skipped because another one was active on that CPU."""
        return sum(maps.recursion_misses(fd) for fd in self.program_fds.values())

    def close(self) -> None:
        """Detach and free everything. Idempotent."""
        if self._closed:
            return
        self._closed = True
        # Attachments first, rings last: no probe may run against rings that are gone and count them as full.
        for fd in [*self.keep_fds, *self.program_fds.values(), *self.map_fds.values(), *self.ring_fds.values()]:
            os.close(fd)


def load_probes(
    *,
    config: ProbeConfig,
    ring_bytes_per_cpu: int,
    sizeofs: dict[str, int],
    python: str = "/usr/bin/python3",
    timeout_s: float = 60,
) -> Probes:
    """Load and attach the probes, unarmed: call Probes.arm() when PIDS is set and the rings are mapped.

    ring_bytes_per_cpu: data area, a power of two of pages; sizeofs: deeptrace.core.wire.SIZEOFS. Mapping more than
    kernel.perf_event_mlock_kb needs CAP_IPC_LOCK: map before dropping capabilities. Raises ProbeError.
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
        ),
        config=config,
        sizeofs=sizeofs,
        socket_fops=report["socket_fops"],
    )
