"""What this machine offers for tracing, one check each: found or missing, and what to do. Changes nothing on the machine."""

import importlib.util
import os
import pathlib
import platform
import re
import resource
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import msgspec

from deeptrace.config import Settings

OLDEST_KERNEL = (5, 8)  # CAP_BPF, batched map reads and ring-less perf output as the probes use them
HOST_PID_NAMESPACE = 0xEFFFFFFC  # linux/proc_ns.h: PROC_PID_INIT_INO, the same on every kernel
BCC_TIMEOUT_S = 20.0  # importing bcc on a cold disk
DISK_LEAST_BYTES = 1 << 30  # a day of a quiet host; the store refuses earlier only when nothing is left
AGENT_PACKAGES = ("numpy", "zstandard", "grpc", "google.protobuf", "msgspec", "typer", "rich")
SERVER_PACKAGES = ("chdb", "clickhouse_connect", "pyarrow", "starlette", "uvicorn")


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that tracing needs or profits from. advice: what to do when it is not ok."""

    name: str
    ok: bool
    needed: bool
    found: str
    advice: str = ""


def check_machine(settings: Settings) -> list[Check]:
    """All checks, in the order in which one would repair them."""
    checks: tuple[Callable[[Settings], Check], ...] = (
        check_privilege,
        check_kernel,
        check_pid_namespace,
        check_btf,
        check_tracefs,
        check_bcc,
        check_bpf,
        check_lockdown,
        check_perf_memory,
        check_agent_packages,
        check_server_packages,
        check_disk,
    )
    return [check(settings) for check in checks]


def check_privilege(_settings: Settings) -> Check:
    from deeptrace.errors import ProbeError
    from deeptrace.loader import client

    try:
        client.check_privilege()
    except ProbeError as e:
        return Check(name="privilege", ok=False, needed=True, found=f"user id {os.geteuid()}", advice=str(e))
    return Check(name="privilege", ok=True, needed=True, found="root" if os.geteuid() == 0 else "capabilities")


def check_kernel(_settings: Settings) -> Check:
    release = platform.release()
    numbers = re.match(r"(\d+)\.(\d+)", release)
    known = numbers is not None and (int(numbers[1]), int(numbers[2])) >= OLDEST_KERNEL
    oldest = ".".join(map(str, OLDEST_KERNEL))
    advice = "" if known else f"use a kernel of at least {oldest}"
    return Check(name="kernel", ok=known, needed=True, found=f"{platform.system()} {release} {platform.machine()}", advice=advice)


def check_pid_namespace(_settings: Settings | None = None) -> Check:
    """The probes see the host's process ids; names, --pid and the agent's own exclusion need the same ones in /proc."""
    try:
        ok = os.stat("/proc/self/ns/pid").st_ino == HOST_PID_NAMESPACE
    except OSError:
        ok = False
    advice = "" if ok else "run it in the host's process namespace (docker run --pid=host, hostPID: true)"
    return Check(name="process ids", ok=ok, needed=True, found="the host's" if ok else "of a container", advice=advice)


def check_btf(_settings: Settings) -> Check:
    from deeptrace.loader.btf import BTF_FILE

    ok = os.path.exists(BTF_FILE)
    advice = "" if ok else "use a kernel built with CONFIG_DEBUG_INFO_BTF=y (distribution kernels since 2020 are)"
    return Check(name="btf", ok=ok, needed=True, found=BTF_FILE if ok else f"no {BTF_FILE}", advice=advice)


def check_tracefs(_settings: Settings) -> Check:
    for place in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing"):
        if os.path.isdir(place + "/events/syscalls"):
            return Check(name="tracefs", ok=True, needed=True, found=place)
    if os.path.isdir("/sys/kernel/tracing/events"):
        advice = "use a kernel built with CONFIG_FTRACE_SYSCALLS=y"
        return Check(name="tracefs", ok=False, needed=True, found="no system call tracepoints", advice=advice)
    mounts = [line.split() for line in _read("/proc/mounts").splitlines()]
    mounted = next((fields[1] for fields in mounts if fields[2] == "tracefs"), None)
    if mounted is not None:
        return Check(name="tracefs", ok=True, needed=True, found=f"{mounted}, which only root can read")
    offered = "tracefs" in _read("/proc/filesystems").split()
    if offered and os.geteuid() == 0:
        return Check(name="tracefs", ok=True, needed=True, found="not mounted; mounted when tracing starts")
    advice = "run 'mount -t tracefs tracefs /sys/kernel/tracing' as root"
    return Check(name="tracefs", ok=False, needed=True, found="not mounted", advice=advice)


def check_bcc(settings: Settings) -> Check:
    python = settings.capture.python
    advice = "run 'apt-get install python3-bpfcc' (the PyPI package bcc is another thing)"
    try:
        done = subprocess.run(
            [python, "-I", "-c", "import bcc; print(bcc.__version__)"],
            capture_output=True,
            text=True,
            timeout=BCC_TIMEOUT_S,
            check=False,
            cwd="/",
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        return Check(
            name="bcc", ok=False, needed=True, found=f"{python} cannot be run: {e}", advice="install python3 and python3-bpfcc"
        )
    if done.returncode != 0:
        reason = done.stderr.strip().rsplit("\n", 1)[-1]
        return Check(name="bcc", ok=False, needed=True, found=f"{python}: {reason}", advice=advice)
    return Check(name="bcc", ok=True, needed=True, found=f"bcc {done.stdout.strip()} of {python}")


def check_bpf(_settings: Settings) -> Check:
    """Whether bpf(2) makes a map."""
    import ctypes

    from deeptrace.loader.sys_numbers import bpf

    class MapCreate(ctypes.Structure):
        _fields_ = tuple((name, ctypes.c_uint32) for name in ("type", "key_bytes", "value_bytes", "max_entries", "flags"))

    try:
        os.close(bpf(0, MapCreate(type=2, key_bytes=4, value_bytes=8, max_entries=1)))  # BPF_MAP_CREATE of an array
    except OSError as e:
        advice = "run as root; in a container, give it --privileged or CAP_BPF, CAP_PERFMON and no seccomp filter on bpf(2)"
        return Check(name="bpf", ok=False, needed=True, found=f"bpf(2) fails: {e.strerror or e}", advice=advice)
    jit = _read("/proc/sys/net/core/bpf_jit_enable").strip()
    return Check(name="bpf", ok=True, needed=True, found="usable" + (", not compiled to machine code" if jit == "0" else ""))


def check_lockdown(_settings: Settings) -> Check:
    modes = re.search(r"\[(\w+)\]", _read("/sys/kernel/security/lockdown"))
    mode = modes[1] if modes else "none"
    ok = mode != "confidentiality"
    advice = "" if ok else "this lockdown mode forbids BPF to read memory; boot with lockdown=integrity or none"
    return Check(name="lockdown", ok=ok, needed=True, found=mode, advice=advice)


def check_perf_memory(settings: Settings) -> Check:
    """Rings are locked memory: root passes, others within two limits."""
    limit_kb = int(_read("/proc/sys/kernel/perf_event_mlock_kb").strip() or 0)
    memlock, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    shown = "unlimited" if memlock == resource.RLIM_INFINITY else f"{memlock >> 20} MB"
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    ok = settings.capture.ring_bytes < available
    advice = "" if ok else "set capture.ring_bytes to less than the memory that is free"
    found = f"rings of {settings.capture.ring_bytes >> 20} MB, {available >> 20} MB free; perf {limit_kb} KB, memlock {shown}"
    return Check(name="memory", ok=ok, needed=True, found=found, advice=advice)


def check_agent_packages(_settings: Settings) -> Check:
    return _packages("packages", AGENT_PACKAGES, needed=True, advice="run 'pip install deeptrace' again")


def check_server_packages(_settings: Settings) -> Check:
    advice = "run 'pip install deeptrace[server]' (an agent alone does not need it)"
    return _packages("server packages", SERVER_PACKAGES, needed=False, advice=advice)


def check_disk(settings: Settings) -> Check:
    folder = pathlib.Path(settings.server.data)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    ok = free >= DISK_LEAST_BYTES
    advice = "" if ok else f"free some space or choose another folder with --data; less than {DISK_LEAST_BYTES >> 30} GB is left"
    return Check(
        name="disk", ok=ok, needed=False, found=f"{free / (1 << 30):.1f} GB free for {settings.server.data}", advice=advice
    )


def _packages(name: str, modules: tuple[str, ...], *, needed: bool, advice: str) -> Check:
    missing = [module for module in modules if not _importable(module)]
    found = f"missing: {', '.join(missing)}" if missing else "all there"
    return Check(name=name, ok=not missing, needed=needed, found=found, advice=advice if missing else "")


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _read(path: str) -> str:
    try:
        return pathlib.Path(path).read_text()
    except OSError:
        return ""


def as_dicts(checks: list[Check]) -> list[dict[str, Any]]:
    return [msgspec.structs.asdict(check) for check in checks]
