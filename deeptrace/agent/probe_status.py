"""What a process knows of the probes that it holds, as plain data: for `deeptrace doctor`. Reads; needs no privilege."""

import os
import pathlib
import re
from typing import Any

import msgspec

from deeptrace.loader import bpf_objects
from deeptrace.loader.client import Probes

MEMORY = re.compile(r"^memlock:\s*(\d+)", re.MULTILINE)  # of fdinfo: what a map costs, as the kernel counts it


def probe_status(probes: Probes) -> dict[str, Any]:
    """groups: {group: tracepoints}; disabled: {group: sentence}; programs: runs and times, which the kernel counts while statistics
    are on; maps: {map: entries, most entries (null: it cannot be full), bytes}."""
    report = probes.report
    fill = probes.map_fill()
    return {
        "kernel": report.kernel,
        "debug": report.debug,
        "load_s": report.seconds,
        "groups": {group: len(events) for group, events in report.groups.items()},
        "disabled": report.disabled,
        "warnings": report.warnings,
        "selftest": report.selftest,
        "rings": {"cpus": len(probes.ring_fds), "bytes": probes.ring_bytes},
        "programs": [msgspec.structs.asdict(bpf_objects.program(fd, name)) for name, fd in sorted(probes.program_fds.items())],
        "maps": {
            name: {"entries": fill.get(name, (None, None))[0], "most": fill.get(name, (None, None))[1], "bytes": map_bytes(fd)}
            for name, fd in sorted(probes.map_fds.items())
        },
    }


def map_bytes(fd: int) -> int:
    """Memory of a map as the kernel tells it; 0 when it does not."""
    found = MEMORY.search(pathlib.Path(f"/proc/{os.getpid()}/fdinfo/{fd}").read_text())
    return int(found[1]) if found else 0
