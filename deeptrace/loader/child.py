"""What the loader process does, from request to handover. Reads one request, sends one report with descriptors, and
ends with os._exit, since BCC's own exit would detach everything."""

from __future__ import annotations

import ctypes
import os
import pathlib
import platform
import re
import shutil
import socket
import struct
import sys
import time
import traceback
from typing import Any

from . import handover, selftest
from .btf import kernel_offsets, kernel_types, tracepoint_arguments
from .failure import LAYOUT_GUARD, LoadFailure
from .headers import write_header_tree
from .map_calls import map_lookup, map_update
from .rings import cpu_numbers, open_rings
from .tracefs import ready_tracefs

OWN_COMM = b"deeptrace"  # what agents recognise DeepTrace's own processes by
PR_SET_NAME = 15  # linux/prctl.h
LEARN_TRIES = 20  # a probe is skipped in the rare moment in which another one is interrupted
TABLE = re.compile(r"^BPF_(?:(?:F_)?TABLE\(\"\w+\",[^,]+,[^,]+,\s*|PERF_OUTPUT\()(\w+)", re.MULTILINE)


def check_bcc() -> None:
    try:
        import bcc  # noqa: F401
    except ImportError as e:
        raise LoadFailure(
            f"{sys.executable} cannot import bcc ({e}); run 'apt-get install python3-bpfcc' (the PyPI package bcc is another thing)"
        ) from None


def compiler_flags(bpf: pathlib.Path, map_sizes: dict[str, int], *, debug: bool) -> list[str]:
    """Offsets of the kernel's fields and sizes of the maps, as -D flags. -w: BCC's own headers warn."""
    # Names of fields and lines take a quarter of the time to compile.
    flags = ["-w", "-DDT_DEBUG"] if debug else ["-w", "-g0"]
    flags += [f"-DDT_OFF_{name}={offset}" for name, offset in kernel_offsets(bpf).items()]
    flags += [f"-DDT_ARGS_{name}={number}" for name, number in tracepoint_arguments(bpf).items()]
    most_threads = highest_tid()
    sizes = {**map_sizes, "THREADS": min(map_sizes["THREADS"], 1 << (most_threads - 1).bit_length())}  # no entry that none can have
    flags += [f"-DDT_MAX_{name}={entries}" for name, entries in sizes.items()]
    flags += [f"-DDT_MAX_CPUS={max(cpu_numbers('possible')) + 1}"]
    if most_threads <= sizes["THREADS"]:
        flags.append("-DDT_THREADS_EXACT")  # each thread has an index of its own
    return flags


def highest_tid() -> int:
    """No thread has a larger number, or the kernel does not say. Who raises kernel.pid_max later has to load the probes again."""
    try:
        return int(pathlib.Path("/proc/sys/kernel/pid_max").read_text())
    except (OSError, ValueError):
        return 1 << 22  # linux/threads.h: PID_MAX_LIMIT


def layout_guards(sizeofs: dict[str, int]) -> str:
    """Assertions that the agent's compiled core and the probes mean the same structures."""
    return "\n" + "".join(
        f'_Static_assert(sizeof(struct {name}) == {size}, "{LAYOUT_GUARD} struct {name}");\n'
        for name, size in sorted(sizeofs.items())
    )


def map_names(bpf: pathlib.Path) -> list[str]:
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((bpf / "lib").glob("*.bpf.h")))
    return TABLE.findall(text)


def learn_socket_operations(config_fd: int, request: dict[str, Any]) -> int:
    """Teach the probes by a sendto of ours where sockets keep their file operations; returns the address.
    CONFIG is left unarmed. Raises LoadFailure."""
    fields: dict[str, list[int]] = request["config_fields"]
    size = int(request["config_bytes"])
    key = struct.pack("=i", 0)
    ours, other = socket.socketpair()
    config = bytearray(size)
    for name, value in (("learn_tgid", os.getpid()), ("learn_fd", ours.fileno())):
        offset, width = fields[name]
        config[offset : offset + width] = value.to_bytes(width, sys.byteorder)
    map_update(config_fd, key, bytes(config))
    offset, width = fields["socket_fops"]
    learned = 0
    for _ in range(LEARN_TRIES):
        ours.send(b"x")  # sendto(2)
        held = map_lookup(config_fd, key, size) or bytes(size)
        learned = int.from_bytes(held[offset : offset + width], sys.byteorder)
        if learned:
            break
    map_update(config_fd, key, bytes(size))
    ours.close()
    other.close()
    if not learned:
        raise LoadFailure("the probes were attached but did not see the loader's own sendto; another tool may block BPF programs")
    return learned


def load(request: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    """Everything up to the handover: (report, descriptors in the order of report["fds"]). Raises LoadFailure.

    request: bpf, folder (private, for the header tree), ring_bytes, map_sizes, sizeofs, config_fields, config_bytes;
    debug: the build that logs; selftest: false leaves it out."""
    started = time.monotonic()
    bpf = pathlib.Path(request["bpf"])
    tracefs, mounted = ready_tracefs()
    check_bcc()
    tree = pathlib.Path(request["folder"], "headers")
    write_header_tree(tree, release=platform.release(), machine=platform.machine(), page_bytes=os.sysconf("SC_PAGE_SIZE"))
    os.environ["BCC_KERNEL_SOURCE"] = str(tree)
    from .compile import ProbeGroups

    flags = compiler_flags(bpf, request["map_sizes"], debug=bool(request.get("debug")))
    groups = ProbeGroups(bpf, tracefs, flags, layout_guards(request["sizeofs"]), kernel_types(bpf))
    groups.compile()
    compiled = time.monotonic()
    groups.attach()
    maps = groups.maps(map_names(bpf))
    rings = open_rings(maps["EVENTS"], int(request["ring_bytes"]))
    learned = learn_socket_operations(maps["CONFIG"], request) if "socket_io" in groups.attached else 0
    tested = selftest.check(groups, maps, rings, learned, request)
    programs = groups.programs()
    links = groups.attachments()
    roles = [["map", name] for name in maps] + [["ring", cpu] for cpu in rings]
    roles += [["program", name] for name in programs] + [["link", i] for i in range(len(links))]
    report = {
        "ok": True,
        "groups": groups.attached,
        "disabled": groups.disabled,
        "warnings": groups.warnings,
        "kernel": platform.release(),
        "tracefs_mounted": mounted,
        "compile_s": round(compiled - started, 3),
        "seconds": round(time.monotonic() - started, 3),
        "socket_fops": learned,
        "selftest": tested,
        "debug": bool(request.get("debug")),
        "ring_bytes": request["ring_bytes"],
        "fds": roles,
    }
    return report, [*maps.values(), *rings.values(), *programs.values(), *links]


def main(fd: int) -> None:
    """Serve one request on an inherited Unix socket, then end at once."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, OWN_COMM, 0, 0, 0)
    connection = socket.socket(fileno=fd)
    request: dict[str, Any] = {}
    try:
        request, _fds = handover.receive(connection)
        try:
            report, fds = load(request)
        except LoadFailure as e:
            report, fds = {"ok": False, "error": str(e), "detail": e.detail}, []
        except Exception as e:  # noqa: BLE001 the agent must get a sentence whatever happened here
            sentence = f"the loader failed: {type(e).__name__}: {e}"
            report, fds = {"ok": False, "error": sentence, "detail": traceback.format_exc()}, []
        handover.send(connection, report, fds)
    except (EOFError, OSError):
        # The agent is gone and, if it was killed, has left its private folder behind.
        if request:
            shutil.rmtree(request["folder"], ignore_errors=True)
        os._exit(1)
    os._exit(0)
