"""Every data call, on every transport, in every way that it can go: the records say exactly what user space knows."""

import pathlib
import time
from collections.abc import Iterator

import pytest
from conformance import compare, layout, rings, running, shared, witness

from deeptrace.core.counters import Counters
from deeptrace.core.ring import Rings
from deeptrace.counters import by_name
from deeptrace.loader import maps
from deeptrace.loader.client import ProbeConfig, Probes

pytestmark = pytest.mark.kernel

MOST_FLAGGED = 0.3  # of the records of a direction; 7 % of the reads and 4 % of the writes were measured
DEFAULT = {"payload_bytes": 1024, "head_bytes": 4096}
LIMITS = {"none": (0, 0), "most": (16384, 16384), "small": (256, 300)}
Record = tuple[dict, bytes]


class CoreReader:
    """The agent's own reader, as the comparison wants it: with what waits beside the rings."""

    def __init__(self, probes: Probes) -> None:
        self.rings = Rings(probes.ring_fds, probes.ring_bytes, Counters(), batches_fd=probes.batches_fd)
        self.taken: list[tuple] = []

    def drain(self) -> None:
        """Copy what waits; it is looked at later, for that takes longer than filling a ring."""
        while len(batch := self.rings.drain(time.monotonic_ns(), final=True)):
            self.taken.append((batch.records.copy(), batch.payload.tobytes(), batch.payload_at.tolist()))
            batch.release()

    def records(self) -> list[Record]:
        taken, self.taken = self.taken, []
        return [
            (fields, payload[begin : begin + fields["payload_len"]])
            for rows, payload, at in taken
            for fields, begin in zip(map(plain, rows), at, strict=True)
        ]


def plain(record) -> dict:
    """A numpy record as layout.py gives one."""
    fields = {name: record[name] for name in record.dtype.names if name != "tuple"}
    inner = {name: record["tuple"][name] for name in record["tuple"].dtype.names}
    return {name: value.tobytes() if value.ndim else int(value) for name, value in (fields | inner).items()}


class Bench:
    """Probes, the program that knows the truth, and a reader of either kind."""

    def __init__(self, probes: Probes, reader, program: pathlib.Path, records_of: layout.Layout, log: pathlib.Path) -> None:
        self.probes, self.reader, self.program, self.layout, self.log = probes, reader, program, records_of, log

    def run(self, groups, **settings) -> tuple[list[dict], list[Record], dict[str, int], dict]:
        """Run groups of cases while they are traced: their calls, the records, what the counters grew by, and the facts."""
        self.probes.arm(ProbeConfig(**settings, unix_sockets=True))
        self.reader.drain()
        self.reader.records()
        before = by_name(self.probes.counters())
        trace = lambda pid: self.probes.pids.set(pid, maps.TRACE | maps.FOLLOW)  # noqa: E731
        running.run([str(self.program), str(self.log), *groups], trace, self.reader.drain)
        after = by_name(self.probes.counters())
        calls, facts = running.read_log(self.log)
        return calls, self.reader.records(), {name: after[name] - before[name] for name in after}, facts

    def compare(self, groups, *, payload_bytes: int, head_bytes: int, **settings) -> tuple[compare.Verdict, dict[str, int]]:
        limits = {"payload_bytes": payload_bytes, "head_bytes": head_bytes}
        calls, records, grown, facts = self.run(groups, **limits, **settings)
        assert grown["ring_full"] == 0, "the reader was too slow: a ring was full"
        verdict = compare.compare(calls, records, self.layout, compare.Settings(**limits, unix_sockets=True))
        verdict.outcomes.update(dict.fromkeys(("calls", "no_data"), len(facts.get("ended_inside", []))))
        return verdict, grown


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return running.build("conform", tmp_path_factory.mktemp("conformance"))


@pytest.fixture
def bench(kernel, program, tmp_path) -> Bench:
    """Each record is emitted at once and read in the plainest way."""
    records_of = layout.read_layout()
    reader = rings.PlainRings(kernel.rings.maps, kernel.rings.ring_bytes, records_of)
    return Bench(kernel.probes, reader, program, records_of, tmp_path / "log")


@pytest.fixture
def batching_bench(batching: Probes, program, tmp_path) -> Iterator[Bench]:
    """As the agent does it: records wait on their CPU, and the compiled reader takes them there."""
    reader = CoreReader(batching)
    yield Bench(batching, reader, program, layout.read_layout(), tmp_path / "log")
    batching.disarm()
    reader.rings.close()


def sentences(problems: list[str]) -> str:
    return "\n".join([f"{len(problems)} problems", *problems[:20]])


def assert_all_is_true(verdict: compare.Verdict, grown: dict[str, int]) -> None:
    assert not verdict.problems, sentences(verdict.problems)
    assert {name: grown[name] for name in compare.OUTCOMES} == {name: verdict.outcomes[name] for name in compare.OUTCOMES}


@pytest.mark.parametrize("group", running.GROUPS)
def test_the_probes_say_what_user_space_knows(bench, group):
    verdict, grown = bench.compare([group], **DEFAULT, batch_bytes=0)
    assert_all_is_true(verdict, grown)
    assert (verdict.compared > 0) == (group != "nothing")


def test_records_that_wait_beside_the_rings_say_the_same(batching_bench):
    verdict, grown = batching_bench.compare(running.GROUPS, **DEFAULT)
    assert_all_is_true(verdict, grown)


@pytest.mark.parametrize("limits", LIMITS)
def test_no_more_and_no_less_is_captured_than_was_asked_for(bench, limits):
    payload_bytes, head_bytes = LIMITS[limits]
    verdict, grown = bench.compare(["matrix", "vectors"], payload_bytes=payload_bytes, head_bytes=head_bytes, batch_bytes=0)
    assert_all_is_true(verdict, grown)


@pytest.mark.parametrize(("which", "batch_bytes"), [("bench", 0), ("batching_bench", 4096)], ids=["at-once", "batches"])
def test_positions_of_threads_that_share_a_socket_are_true_or_flagged(request, which, batch_bytes):
    """Two threads write, two read: the packets on the loopback are the truth."""
    bench: Bench = request.getfixturevalue(which)
    limits = {"payload_bytes": 1024, "head_bytes": 0}
    seen = witness.Witness()
    calls, records, grown, facts = bench.run(["storm"], **limits, batch_bytes=batch_bytes)
    assert grown["ring_full"] == 0
    (ports,) = facts["ports"]
    first, stream = seen.stream(*ports)
    seen.close()
    # Where a call stood in the stream none of the four threads can know.
    calls = [call | {"position": None} for call in calls]
    verdict = compare.compare(calls, records, bench.layout, compare.Settings(**limits))
    assert not verdict.problems, sentences(verdict.problems)
    shares = shared.compare_shared(records, first, stream)
    assert not shares.problems, sentences(shares.problems)
    assert shares.bytes == [len(stream), len(stream)]
    assert all(shares.flagged_share(direction) < MOST_FLAGGED for direction in (layout.INGRESS, layout.EGRESS)), shares


def test_counted_positions_of_threads_that_share_a_unix_socket_are_true_or_flagged(bench):
    calls, records, grown, _facts = bench.run(["unix-storm"], payload_bytes=1024, head_bytes=0, batch_bytes=0)
    assert grown["ring_full"] == 0
    shares = shared.compare_sides(records)
    assert not shares.problems, sentences(shares.problems)
    moved = [sum(m["bytes"] for call in calls if call["direction"] == d for m in call["messages"]) for d in (0, 1)]
    assert shares.bytes == moved
    assert shares.bytes[0] == shares.bytes[1]
    assert all(shares.flagged_share(direction) < 1 for direction in (layout.INGRESS, layout.EGRESS)), shares


MUTATIONS = {
    "result": lambda f: f | {"result": f["result"] + 1},
    "peer_port": lambda f: f | {"peer_port": f["peer_port"] ^ 1},
    "local_addr": lambda f: f | {"local_addr": bytes(16)},
    "seq_enter": lambda f: f | {"seq_enter": (f["seq_enter"] + 1) % 2**32, "seq_exit": (f["seq_exit"] + 1) % 2**32},
    "ambiguous": lambda f: f | {"flags": f["flags"] | layout.SEQ_AMBIGUOUS},
    "peek": lambda f: f | {"flags": f["flags"] ^ layout.PEEK},
    "first": lambda f: f | {"flags": f["flags"] ^ layout.FIRST},
    "early": lambda f: f | {"enter_ns": f["enter_ns"] - 10_000_000_000},
    "late": lambda f: f | {"exit_ns": f["exit_ns"] + 10_000_000_000},
    "tid": lambda f: f | {"tid": f["tid"] + 1},
    "socket": lambda f: f | {"socket": f["socket"] + 64},
    "netns": lambda f: f | {"netns": f["netns"] + 1},
    "code": lambda f: f | {"code": f["code"] + 1},
}


def test_a_record_that_is_wrong_in_anything_is_found(bench):
    """The comparison itself: one record in the middle is changed, lost, doubled or shifted."""
    calls, records, _grown, _facts = bench.run(["errors"], **DEFAULT, batch_bytes=0)
    settings = compare.Settings(**DEFAULT, unix_sockets=True)
    problems = lambda changed: compare.compare(calls, changed, bench.layout, settings).problems  # noqa: E731
    assert not problems(records)
    data = [i for i, (fields, _payload) in enumerate(records) if fields["kind"] == layout.DATA and fields["l4_protocol"] == 6]
    middle = data[len(data) // 2]
    before, (fields, payload), after = records[:middle], records[middle], records[middle + 1 :]
    for name, change in MUTATIONS.items():
        assert problems([*before, (change(dict(fields)), payload), *after]), name
    assert problems([*before, *after])
    assert problems([*before, records[middle], records[middle], *after])
    assert problems([*before, (fields, payload[:-1] + bytes([payload[-1] ^ 1])), *after])
    assert problems([*before, (fields, payload[:-1]), *after])
