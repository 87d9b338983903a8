"""A ring of one page that nobody empties: what is lost is counted exactly, shows as jumps of the count, and ends with a drain."""

import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pytest
from conformance import running
from traced_process import Process

from deeptrace.core.counters import Counters
from deeptrace.core.ring import Rings
from deeptrace.core.wire import KIND_DATA, SIZEOFS
from deeptrace.counters import by_name
from deeptrace.loader import maps
from deeptrace.loader.client import ProbeConfig, Probes, load_probes
from deeptrace.loader.rings import cpu_numbers

pytestmark = pytest.mark.kernel


RING_BYTES = os.sysconf("SC_PAGE_SIZE")  # the least that a ring can have


class Loaded:
    """Probes with the smallest rings, and all that ever came out of them."""

    def __init__(self) -> None:
        # The self-test needs a ring that holds its messages.
        self.probes: Probes = load_probes(config=ProbeConfig(), ring_bytes_per_cpu=RING_BYTES, sizeofs=SIZEOFS, selftest=False)
        self.reader = Counters()
        self.rings = Rings(self.probes.ring_fds, RING_BYTES, self.reader, batches_fd=self.probes.batches_fd)
        self.counts: dict[tuple[int, bool], list[int]] = defaultdict(list)

    def drain(self) -> int:
        """Take all that waits; how many records that was."""
        n = 0
        while len(batch := self.rings.drain(time.monotonic_ns(), final=True)):
            n += len(batch)
            for cpu, kind, count in batch.records[["cpu", "kind", "cpu_count"]].tolist():
                self.counts[cpu, kind == KIND_DATA].append(count)  # data records are counted apart from all others
            batch.release()
        return n

    def counters(self) -> dict[str, int]:
        return by_name(self.probes.counters())

    def saved(self) -> int:
        """Records that the probes count as lost, but that were taken from beside the ring before."""
        return by_name(self.reader.values)["records_saved"]

    def close(self) -> None:
        self.rings.close()
        self.probes.close()


@pytest.fixture(scope="module")
def loaded() -> Iterator[Loaded]:
    loaded = Loaded()
    yield loaded
    loaded.close()


def speak_on_every_cpu(process: Process, n: int, name: str) -> None:
    """A connection and n messages on it, on each CPU."""
    for cpu in cpu_numbers("online"):
        os.sched_setaffinity(process.pid, {cpu})
        process.do("connect", name=f"{name}{cpu}", family="AF_INET", host="127.0.0.1")
        process.do("many", out=f"{name}{cpu}.c", into=f"{name}{cpu}.s", n=n)


@pytest.mark.parametrize("batch_bytes", [0, 1500], ids=["at-once", "batches"])  # what is larger than the ring never leaves
def test_what_does_not_fit_is_counted_to_the_last_record(loaded, tmp_path, batch_bytes):
    loaded.probes.arm(ProbeConfig(batch_bytes=batch_bytes))
    lost_before = loaded.counters()["ring_full"]
    process = Process()
    loaded.probes.pids.set(process.pid, maps.TRACE | maps.FOLLOW)
    speak_on_every_cpu(process, 1000, "lost")
    program = running.build("churn", tmp_path)
    crowd = subprocess.Popen([program, "1", "1000"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    loaded.probes.pids.set(crowd.pid, maps.TRACE | maps.FOLLOW)
    crowd.stdin.close()
    assert crowd.wait(timeout=30) == 0
    n_cpus = len(cpu_numbers("online"))
    assert loaded.counters()["ring_full"] - lost_before > 2 * 900 * n_cpus
    assert loaded.drain() > 0
    # Afterwards everything comes again; the last record of each CPU says how many there were.
    before = loaded.counters()
    heard = 0
    for cpu in cpu_numbers("online"):
        os.sched_setaffinity(process.pid, {cpu})
        process.do("connect", name=f"after{cpu}", family="AF_INET", host="127.0.0.1")
        process.do("many", out=f"after{cpu}.c", into=f"after{cpu}.s", n=3)
        heard += loaded.drain()
    process.stop()
    heard += loaded.drain()
    after = loaded.counters()
    assert after["ring_full"] == before["ring_full"]
    assert after["data_emitted"] - before["data_emitted"] == 6 * n_cpus
    emitted = after["data_emitted"] + after["conn_emitted"] + after["proc_emitted"]
    decoded = sum(map(len, loaded.counts.values()))
    assert emitted + loaded.saved() == decoded + after["ring_full"]
    jumps = 0
    for counts in loaded.counts.values():
        assert (np.diff(counts) > 0).all(), "the count went back, or stood still"
        jumps += counts[-1] - len(counts)
    assert jumps == after["ring_full"] - loaded.saved()
