"""Loads the probes in a process of its own, as the tests of failures and capabilities need it: `loading.py WHAT`.

Prints what happened as one line. Never a traceback for a failure that a user can meet.
"""

import os
import sys

from ring_reader import DATA, Rings

from deeptrace.core.wire import SIZEOFS
from deeptrace.errors import ProbeError
from deeptrace.loader import capabilities, maps
from deeptrace.loader.client import ProbeConfig, load_probes

RING_BYTES = 8 << 20  # per CPU: more than kernel.perf_event_mlock_kb allows without CAP_IPC_LOCK


def load(**changes):
    arguments = {"config": ProbeConfig(batch_bytes=0), "ring_bytes_per_cpu": RING_BYTES, "sizeofs": SIZEOFS, **changes}
    return load_probes(**arguments)


def without_capabilities():
    """Map the rings, give everything up, and go on: maps are written, rings are read."""
    import socket

    probes = load()
    rings = Rings(probes, RING_BYTES)
    capabilities.drop_capabilities()
    print("capabilities", capabilities.effective_capabilities(), end=" ")
    child_in, child_out = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(child_in, 1)
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
            accepted = listener.accept()[0]
            client.send(b"after")
            accepted.recv(10)
        os._exit(0)
    probes.pids.set(pid, maps.TRACE)
    probes.arm()
    os.write(child_out, b"x")
    os.waitpid(pid, 0)
    payloads = [r.payload for r in rings.drain() if r.kind == DATA]
    print("records", len(payloads), "counted", bool(probes.counters()[6] >= 2), "fill", probes.map_fill()["PIDS"][0])
    probes.close()


def main(what):
    try:
        if what == "without-capabilities":
            without_capabilities()
            return 0
        if what == "as-nobody":
            os.setuid(65534)
        changes = {
            "without-bcc": {"python": sys.executable},
            "without-python": {"python": "/nonexistent/python3"},
            "with-another-layout": {"sizeofs": {**SIZEOFS, "dt_record": 120}},
            "in-no-time": {"timeout_s": 0.2},
            "with-a-strange-ring": {"ring_bytes_per_cpu": 5000},
        }
        probes = load(**changes.get(what, {}))
        print("loaded", "mounted" if probes.report.tracefs_mounted else "was mounted", len(probes.report.disabled))
        probes.close()
    except ProbeError as e:
        print("ProbeError:", e)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
