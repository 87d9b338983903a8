"""Fixtures of the kernel tests: one load of the probes for the whole run, a traced driver process, and what it recorded."""

import pathlib
import sys
from collections.abc import Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from ring_reader import DATA, Rings, wait_until
from traced_process import Process

from deeptrace.core.wire import SIZEOFS
from deeptrace.counters import by_name
from deeptrace.loader import maps
from deeptrace.loader.client import ProbeConfig, Probes, load_probes

RING_BYTES = 1 << 20
BATCHING_RING_BYTES = 8 << 20


class Kernel:
    """The loaded probes with mapped rings, and drivers that are traced."""

    def __init__(self) -> None:
        self.config = ProbeConfig(payload_bytes=1024, head_bytes=4096, batch_bytes=0)
        self.probes = load_probes(config=self.config, ring_bytes_per_cpu=RING_BYTES, sizeofs=SIZEOFS)
        self.rings = Rings(self.probes, RING_BYTES)

    def counters(self) -> dict[str, int]:
        return by_name(self.probes.counters())

    def quiet_counters(self) -> dict[str, int]:
        """The counters at a moment at which the rings are empty."""
        while True:
            before = self.counters()
            self.rings.drain()
            if self.counters() == before:
                return before

    def take(self, kind: int = DATA):
        return [record for record in self.rings.drain() if record.kind == kind]

    def wait_for(self, kind: int, n: int, sockets: set[int] | None = None):
        """At least n records of a kind, of some sockets: what a softirq tells may come after the call that caused it,
        even after the test whose processes caused it."""
        records = []

        def enough() -> bool:
            records.extend(r for r in self.take(kind) if sockets is None or r.socket in sockets)
            return len(records) >= n

        wait_until(enough)
        return records


@pytest.fixture(scope="session")
def loaded() -> Iterator[Kernel]:
    kernel = Kernel()
    yield kernel
    kernel.rings.close()
    kernel.probes.close()


@pytest.fixture(scope="session")
def batching() -> Iterator[Probes]:
    """A load of its own for the tests in which records wait on their CPU: what waits there would come out in another test."""
    probes = load_probes(config=ProbeConfig(), ring_bytes_per_cpu=BATCHING_RING_BYTES, sizeofs=SIZEOFS)
    yield probes
    probes.close()


@pytest.fixture
def kernel(loaded: Kernel) -> Iterator[Kernel]:
    """Armed with the default settings, nothing traced yet, empty rings."""
    loaded.rings.drain()
    loaded.probes.arm(loaded.config, now_ns=0)
    yield loaded
    loaded.probes.disarm()
    for pid, _flags in list(loaded.probes.pids.items()):
        loaded.probes.pids.delete(pid)


@pytest.fixture
def traced(kernel: Kernel) -> Iterator[Process]:
    """A driver process that is traced, with its children."""
    process = Process()
    kernel.probes.pids.set(process.pid, maps.TRACE | maps.FOLLOW)
    yield process
    process.stop()


@pytest.fixture
def untraced() -> Iterator[Process]:
    process = Process()
    yield process
    process.stop()
