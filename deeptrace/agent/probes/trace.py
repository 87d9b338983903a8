"""The probes that tracing needs: system calls on sockets, connections, processes. Loads them unarmed; parses nothing."""

import dataclasses
import logging
import math
import os

from deeptrace.agent.machine import check_pid_namespace
from deeptrace.config import Capture
from deeptrace.core.wire import LOG_DEBUG, SIZEOFS
from deeptrace.errors import ProbeError
from deeptrace.loader.client import ProbeConfig, Probes, load_probes

RING_LEAST_BYTES = 1 << 18  # per CPU: some 1,000 records of the usual size, 2 ms of a saturated CPU


def load(capture: Capture) -> Probes:
    """Load and attach. Raises ProbeError."""
    here = check_pid_namespace()
    if not here.ok:
        raise ProbeError(f"the process ids here are {here.found}, the probes see the host's; {here.advice}")
    debug = logging.getLogger("deeptrace.probes").isEnabledFor(logging.DEBUG)  # -vv
    return load_probes(
        config=probe_config(capture, sized(capture, debug=debug)),
        debug=debug,
        ring_bytes_per_cpu=ring_bytes_per_cpu(capture.ring_bytes),
        sizeofs=SIZEOFS,
        python=capture.python,
    )


def sized(capture: Capture, *, debug: bool) -> ProbeConfig:
    """Defaults with the sizes of the maps, and how much the probes of a debug build say."""
    return ProbeConfig(
        max_pids=capture.max_pids,
        max_threads=capture.max_threads,
        max_sockets=capture.max_sockets,
        log_level=LOG_DEBUG if debug else 0,
    )


def probe_config(capture: Capture, base: ProbeConfig) -> ProbeConfig:
    """What the settings say of capturing. base: gives the sizes of maps, which never change while the probes are loaded; all that
    is set here does, at every reload."""
    is_some = capture.pid or capture.comm or capture.exe or capture.cgroup
    return dataclasses.replace(
        base,
        all_processes=not is_some,
        payload_bytes=capture.payload_bytes,
        head_bytes=capture.head_bytes,
        events_per_s=capture.events_per_s,
        bytes_per_s=capture.bytes_per_s,
        unix_sockets=capture.unix_sockets == "on",
    )


def ring_bytes_per_cpu(total_bytes: int) -> int:
    """The share of one CPU, rounded down to a power of two as rings need it."""
    share = total_bytes // (os.cpu_count() or 1)
    return max(RING_LEAST_BYTES, 1 << int(math.log2(share)) if share else 0)
