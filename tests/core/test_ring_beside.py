"""The ring reader beside a process that writes at the same time, as fast as it can."""

import mmap
import pathlib
import subprocess
import time

import numpy as np
import pytest

from deeptrace.core.counters import Counters
from deeptrace.core.ring import Rings
from deeptrace.core.wire import BATCH_DTYPE, KIND_CONN, KIND_DATA
from deeptrace.counters import by_name

HERE = pathlib.Path(__file__).parent
PAGE = 4096


@pytest.fixture(scope="module")
def append(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    program = tmp_path_factory.mktemp("append") / "append"
    include = HERE.parents[1] / "bpf/include"
    command = ["gcc", "-O2", "-Wall", "-Werror", f"-I{include}", "-o", str(program), str(HERE / "append.c")]
    subprocess.run(command, check=True)
    return program


class Taken:
    """cpu_count of all that was taken, by kind."""

    def __init__(self, rings: Rings) -> None:
        self.rings = rings
        self.counts: dict[int, list[np.ndarray]] = {KIND_DATA: [], KIND_CONN: []}

    def drain(self, *, final: bool) -> int:
        batch = self.rings.drain(time.monotonic_ns(), final=final)
        records = batch.records
        for kind, counts in self.counts.items():
            counts.append(records["cpu_count"][records["kind"] == kind])
        long = np.flatnonzero(records["payload_len"] > 0)
        first = batch.payload_at[long].astype(np.int64)
        last = first + records["payload_len"][long] - 1
        for at in (first, last):
            assert (batch.payload[at] == records["cpu_count"][long].astype(np.uint8)).all()
        n = len(batch)
        batch.release()
        return n


@pytest.mark.parametrize(
    ("ring_bytes", "batch_bytes", "eager"),
    [(1 << 20, 4096, False), (1 << 14, 4096, False), (1 << 16, 0, False), (1 << 20, 8192, True), (1 << 14, 8192, True)],
)
def test_no_record_is_lost_or_taken_twice_while_the_probes_write(append, tmp_path, ring_bytes, batch_bytes, eager) -> None:
    """eager: what waits is taken as soon as it stands there."""
    path = tmp_path / "memory"
    path.write_bytes(bytes(PAGE + ring_bytes + BATCH_DTYPE.itemsize))
    counters = Counters()
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        view = memoryview(memory)
        ring, batch = view[: PAGE + ring_bytes], view[PAGE + ring_bytes :]
        rings = Rings.from_buffers({0: ring}, counters, batch)
        taken = Taken(rings)
        command = [str(append), str(path), str(ring_bytes), str(batch_bytes), "400"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            while process.poll() is None:
                if not taken.drain(final=eager):
                    time.sleep(0.001)
            data, events, ring_full = map(int, process.stdout.read().split())
        while taken.drain(final=True):
            pass
        values = by_name(counters.values)
        missed = rings.missed_records()[0]
        rings.close()
        del rings, taken.rings
        for part in (ring, batch, view):
            part.release()
    found = {kind: np.concatenate(counts) for kind, counts in taken.counts.items()}
    for counts in found.values():
        assert (np.diff(counts.astype(np.int64)) > 0).all()
    n_taken = sum(map(len, found.values()))
    assert n_taken > 100
    assert values["bad_record"] == 0
    assert n_taken == values["records_decoded"]
    assert data + events + values["records_saved"] == n_taken + ring_full
    assert missed <= ring_full - values["records_saved"]  # but for those that nothing followed
