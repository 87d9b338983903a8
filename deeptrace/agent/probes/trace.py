"""The probes that tracing needs: system calls on sockets, connections, processes. Loads them unarmed; parses nothing."""

import math
import os

from deeptrace.agent.machine import check_pid_namespace
from deeptrace.config import Capture
from deeptrace.core.wire import SIZEOFS
from deeptrace.errors import ProbeError
from deeptrace.loader.client import ProbeConfig, Probes, load_probes

RING_LEAST_BYTES = 1 << 18  # per CPU: some 1,000 records of the usual size, 2 ms of a saturated CPU


def load(capture: Capture) -> Probes:
    """Load and attach. Raises ProbeError."""
    here = check_pid_namespace()
    if not here.ok:
        raise ProbeError(f"the process ids here are {here.found}, the probes see the host's; {here.advice}")
    config = ProbeConfig(all_processes=not capture.pid, payload_bytes=capture.payload_bytes, head_bytes=capture.head_bytes)
    return load_probes(
        config=config, ring_bytes_per_cpu=ring_bytes_per_cpu(capture.ring_bytes), sizeofs=SIZEOFS, python=capture.python
    )


def ring_bytes_per_cpu(total_bytes: int) -> int:
    """The share of one CPU, rounded down to a power of two as rings need it."""
    share = total_bytes // (os.cpu_count() or 1)
    return max(RING_LEAST_BYTES, 1 << int(math.log2(share)) if share else 0)
