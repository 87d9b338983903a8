"""Connections opened, duplicated, forked over, reset and closed by the thousand: no record has another connection's addresses,
nothing stays in the maps, the books balance, the reader does not grow.

DEEPTRACE_CHURN_SECONDS=600 makes it the long test.
"""

import json
import os
import pathlib
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from conformance import running

from deeptrace.core.counters import Counters
from deeptrace.core.ring import Rings
from deeptrace.core.wire import KIND_CONN, KIND_DATA, RECORD_DTYPE
from deeptrace.counters import by_name
from deeptrace.loader import maps
from deeptrace.loader.client import ProbeConfig, Probes

pytestmark = pytest.mark.kernel

SECONDS = int(os.environ.get("DEEPTRACE_CHURN_SECONDS", "8"))
PER_SECOND = 5000
LEAST_SHARE = 0.1  # of them on a machine that is busy with other things
MAGIC = b"dtchurn\n"
GREETING = np.dtype(
    [
        ("magic", "S8"), ("local_addr", "V16"), ("peer_addr", "V16"), ("local_port", "<u2"), ("peer_port", "<u2"),
        ("family", "u1"), ("l4_protocol", "u1"), ("pad", "V2"), ("number", "<u4"), ("rest", "V12"),
    ]
)  # fmt: skip
NAMES = ("local_addr", "peer_addr", "local_port", "peer_port", "family", "l4_protocol")
MIRRORED = ("peer_addr", "local_addr", "peer_port", "local_port", "family", "l4_protocol")
EGRESS = 1
CONNECT, ACCEPT, CLOSED = 1, 2, 4  # enum dt_conn_event
ENDS_BYTES = 36  # of dt_quintuple: both addresses and both ports
SHORT_S = 2
QUIET_S = 0.5
MOST_DATAGRAM_SHARE = 0.5  # of them ended by dup2 or by exit; seen 0.03, most of their memory is used again
WARM_UP_S = min(3.0, SECONDS / 3)
MOST_GROWTH_BYTES = 16 << 20  # of the reader between warm-up and end, whatever the length of the run
DRAIN_EVERY_S = 0.02


@dataclass
class Watch:
    """Drains the rings and looks at every greeting."""

    probes: Probes
    greetings: list[int] = field(default_factory=lambda: [0, 0])  # seen, by direction
    decoded: int = 0
    begun: int = 0  # connections
    open: dict[int, bytes] = field(default_factory=dict)  # {socket: its ends} of connections that have not ended
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reader = Counters()
        self.rings = Rings(self.probes.ring_fds, self.probes.ring_bytes, self.reader, batches_fd=self.probes.batches_fd)

    def counters(self) -> dict[str, int]:
        """The kernel's and the reader's counters at a moment at which the rings are empty."""
        while True:
            before = self.probes.counters()
            if not self.drain(final=True) and (self.probes.counters() == before).all():
                return by_name(before) | {"records_saved": by_name(self.reader.values)["records_saved"]}

    def drain(self, *, final: bool = False) -> int:
        """Take what waits, in order of time; final: also what is so young that something older may follow. How many records."""
        n = 0
        while len(batch := self.rings.drain(time.monotonic_ns(), final=final)):
            n += len(batch)
            self.follow(batch.records[batch.order])
            self.look(batch)
            batch.release()
        self.decoded += n
        return n

    def follow(self, records) -> None:
        """All records of a connection, from its beginning to its end, must name the same ends."""
        ends = np.ascontiguousarray(records["tuple"]).view(np.uint8).reshape(-1, RECORD_DTYPE["tuple"].itemsize)[:, :ENDS_BYTES]
        ends = np.ascontiguousarray(ends).view(f"V{ENDS_BYTES}")[:, 0].tolist()
        rows = zip(records["socket"].tolist(), records["kind"].tolist(), records["code"].tolist(), ends, strict=True)
        for socket, kind, code, named in rows:
            if kind == KIND_CONN and code in (CONNECT, ACCEPT):
                self.begun += 1
                self.open[socket] = named
            elif self.open.get(socket, named) != named:
                self.wrong.append(f"kind {kind} code {code}: {named.hex()}, began as {self.open[socket].hex()}")
            if kind == KIND_CONN and code == CLOSED:
                self.open.pop(socket, None)

    def look(self, batch) -> None:
        records = batch.records
        mine = np.flatnonzero((records["kind"] == KIND_DATA) & (records["payload_len"] == GREETING.itemsize))
        if not len(mine):
            return
        at = batch.payload_at[mine].astype(np.int64)[:, None] + np.arange(GREETING.itemsize)
        greetings = np.ascontiguousarray(batch.payload[at]).view(GREETING)[:, 0]
        records = records[mine]
        is_greeting = greetings["magic"] == MAGIC.rstrip(b"\0")
        for direction in (0, 1):
            of = is_greeting & (records["direction"] == direction)
            self.greetings[direction] += int(of.sum())
            right = np.ones(int(of.sum()), bool)
            for name, told in zip(NAMES, NAMES if direction == EGRESS else MIRRORED, strict=True):
                recorded = np.ascontiguousarray(records["tuple"][name][of])
                said = np.ascontiguousarray(greetings[told][of])
                if name.endswith("addr"):
                    said = said.view(np.uint8).reshape(-1, 16)
                    right &= (recorded.view(np.uint8).reshape(-1, 16) == said).all(1)
                else:
                    right &= recorded == said
            if not right.all():
                self.wrong += [f"{r} is of {g}" for r, g in zip(records[of][~right][:3], greetings[of][~right][:3], strict=True)]


def resident_bytes() -> int:
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fill(probes: Probes) -> dict[str, int]:
    """Entries of every map. Of THREADS those of threads that live no more: every thread of the machine that moves bytes has one."""
    entries = {name: n for name, (n, _most) in probes.map_fill().items()}
    threads = maps.map_threads(probes.map_fds["THREADS"])
    known = threads.rows["tid"][threads.rows["tid"] != 0].tolist()
    threads.close()
    return entries | {"THREADS": sum(not pathlib.Path(f"/proc/{tid}").exists() for tid in known)}


def churn(program: pathlib.Path, watch: Watch, seconds: int, *what: str) -> tuple[dict, list[int]]:
    """One run: what the program says of it, and the reader's size after warm-up and at the end."""
    command = [program, str(seconds), str(PER_SECOND), *what]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    watch.probes.pids.set(process.pid, maps.TRACE | maps.FOLLOW)
    process.stdin.close()
    begin, sizes = time.monotonic(), []
    while process.poll() is None:
        watch.drain()
        if not sizes and time.monotonic() - begin > WARM_UP_S:
            sizes.append(resident_bytes())
        assert time.monotonic() - begin < seconds + 60, "the program does not end"
        time.sleep(DRAIN_EVERY_S)
    sizes.append(resident_bytes())
    told = json.loads(process.stdout.read())
    process.stdout.close()
    return told, sizes


def settled_fill(watch: Watch) -> dict[str, int]:
    """The maps' fill when nothing comes any more: connections end some time after their last close."""
    entries, still_since = fill(watch.probes), time.monotonic()
    deadline = still_since + 10
    while time.monotonic() < min(still_since + QUIET_S, deadline):
        if watch.drain() or fill(watch.probes) != entries:
            entries, still_since = fill(watch.probes), time.monotonic()
        time.sleep(0.05)
    return entries


@pytest.fixture(scope="module")
def watch(batching: Probes) -> Iterator[Watch]:
    watch = Watch(batching)
    batching.arm(ProbeConfig())
    yield watch
    batching.disarm()
    watch.rings.close()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return running.build("churn", tmp_path_factory.mktemp("churn"))


def test_tcp_connections_leave_nothing_in_any_map(watch, program):
    before = fill(watch.probes)
    told, _sizes = churn(program, watch, SHORT_S, "tcp")
    assert told["connections"] > PER_SECOND * SHORT_S * LEAST_SHARE
    assert settled_fill(watch) == before
    assert not watch.wrong, watch.wrong[:5]
    assert watch.begun > told["connections"]
    assert watch.open == {} or watch.counters()["ring_full"], "connections that never ended"


def test_no_connection_is_taken_for_another(watch, program):
    before, seen, counted, decoded = fill(watch.probes), list(watch.greetings), watch.counters(), watch.decoded
    told, (small, large) = churn(program, watch, SECONDS)
    left = settled_fill(watch)
    grown = {name: value - counted[name] for name, value in watch.counters().items()}
    greetings = [now - then for now, then in zip(watch.greetings, seen, strict=True)]
    print(told, greetings, left, {name: n for name, n in grown.items() if n}, f"{small >> 20} -> {large >> 20} MB")
    assert not watch.wrong, watch.wrong[:5]
    assert told["mixed"] == 0, "the program itself mixed up its connections"
    assert told["connections"] > PER_SECOND * SECONDS * LEAST_SHARE
    emitted = grown["data_emitted"] + grown["conn_emitted"] + grown["proc_emitted"] + grown["records_saved"]
    assert emitted == watch.decoded - decoded + grown["ring_full"]
    if grown["ring_full"]:
        assert all(seen <= told_of for seen, told_of in zip(greetings, (told["heard"], told["greeted"]), strict=True))
    else:
        assert greetings == [told["heard"], told["greeted"]]
        assert watch.open == {}, "connections that never ended"
    # A datagram socket that ends without close(2) is forgotten when its memory is used again, or as the oldest.
    assert left.pop("SOCKETS") - before.pop("SOCKETS") <= 2 * told["datagrams"] * MOST_DATAGRAM_SHARE
    assert left == before
    assert large - small < MOST_GROWTH_BYTES
