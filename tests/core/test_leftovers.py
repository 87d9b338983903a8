"""Records that wait on their CPU: taken once, in order, and every one accounted for, whatever the probes do meanwhile."""

import numpy as np
from fake_kernel import FakeCpu, batches_memory, content
from hypothesis import given, settings
from hypothesis import strategies as st

from deeptrace.core.counters import Counters
from deeptrace.core.ring import FINAL_AFTER_NS, Rings
from deeptrace.core.wire import KIND_CONN, KIND_DATA
from deeptrace.counters import by_name

NOW = 10_000_000_000
MS = 1_000_000


class Machine:
    """Some CPUs and their reader; remembers what was taken."""

    def __init__(self, n_cpus: int = 1, *, ring_bytes: int = 8192, batch_bytes: int = 1024) -> None:
        memory, batches = batches_memory(n_cpus)
        self.cpus = [FakeCpu(i, batches[i : i + 1][0], ring_bytes=ring_bytes, batch_bytes=batch_bytes) for i in range(n_cpus)]
        self.batches = batches
        self.core = Counters()
        self.rings = Rings.from_buffers({cpu.cpu: cpu.ring.memory for cpu in self.cpus}, self.core, memory)
        self.taken: list[tuple[int, int, int]] = []  # (cpu, kind, cpu_count)
        self.now = NOW

    def drain(self, *, final: bool = False, max_records: int = 8192) -> int:
        batch = self.rings.drain(self.now, final=final, max_records=max_records)
        for row, at in zip(batch.records, batch.payload_at.tolist(), strict=True):
            payload = batch.payload[at : at + int(row["payload_len"])].tobytes()
            assert payload == content(int(row["cpu_count"]), len(payload))
            self.taken.append((int(row["cpu"]), int(row["kind"]), int(row["cpu_count"])))
        n = len(batch)
        batch.release()
        return n

    def count(self, name: str) -> int:
        return by_name(self.core.values)[name]

    def assert_balanced(self) -> None:
        """The ledger's second equation."""
        waiting = self.rings.waiting()
        emitted = sum(cpu.n_emitted for cpu in self.cpus)
        ring_full = sum(cpu.n_ring_full for cpu in self.cpus)
        values = by_name(self.core.values)
        assert emitted + values["records_saved"] == values["records_decoded"] + values["bad_record"] + ring_full + waiting
        assert values["records_decoded"] == len(self.taken)


def test_what_has_waited_long_enough_is_taken_before_it_is_emitted_and_not_again() -> None:
    machine = Machine()
    cpu = machine.cpus[0]
    cpu.data(NOW, 20)
    cpu.data(NOW + MS, 0)
    machine.now = NOW + FINAL_AFTER_NS
    assert machine.rings.waiting() == 2
    assert machine.drain() == 1  # the other one is too young
    machine.assert_balanced()
    cpu.data(NOW + 2 * MS, 300)
    cpu.flush()
    machine.now = NOW + 10 * MS
    assert machine.rings.waiting() == 2
    assert machine.drain() == 2
    assert cpu.ring.tail == cpu.ring.head
    assert [count for _cpu, _kind, count in machine.taken] == [1, 2, 3]
    assert machine.rings.missed_records() == {0: 0}
    machine.assert_balanced()


def test_a_ring_that_is_full_after_its_records_were_taken_loses_only_the_others() -> None:
    machine = Machine(ring_bytes=4096, batch_bytes=1 << 20)
    cpu = machine.cpus[0]
    for _ in range(3):
        cpu.data(NOW, 8)
    machine.now = NOW + 5 * MS
    assert machine.drain() == 3
    cpu.data(machine.now, 5000)  # makes the batch larger than the ring
    cpu.flush()
    assert cpu.n_ring_full == 4
    machine.assert_balanced()  # also while nothing follows
    assert machine.count("records_saved") == 3
    cpu.data(machine.now + 1, 8)
    machine.now += 5 * MS
    assert machine.drain() == 1
    assert machine.rings.missed_records() == {0: 1}
    machine.assert_balanced()


def test_records_behind_those_that_did_not_fit_prove_that_they_never_come() -> None:
    machine = Machine(ring_bytes=4096, batch_bytes=1 << 20)
    cpu = machine.cpus[0]
    cpu.data(NOW, 8)
    machine.now = NOW + 5 * MS
    assert machine.drain() == 1
    cpu.data(machine.now, 5000)
    cpu.flush()
    for _ in range(2):
        cpu.data(machine.now, 8)
    cpu.flush()
    machine.assert_balanced()
    assert machine.count("records_saved") == 1
    assert machine.drain(final=True, max_records=1) == 1
    machine.assert_balanced()


def test_a_batch_that_is_in_the_ring_already_is_not_taken_a_second_time() -> None:
    machine = Machine(batch_bytes=1 << 20)
    cpu = machine.cpus[0]
    for _ in range(3):
        cpu.data(NOW, 8)
    assert cpu.ring.sample(machine.batches[0]["bytes"][: int(machine.batches[0]["used"])].tobytes())  # and `used` not yet 0
    machine.now = NOW + 5 * MS
    assert machine.rings.waiting() == 3
    assert machine.drain(max_records=2) == 2
    assert machine.drain() == 1
    assert machine.drain() == 0
    machine.assert_balanced()


def test_leftovers_of_two_batches_are_told_apart() -> None:
    machine = Machine(batch_bytes=1 << 20)
    cpu = machine.cpus[0]
    for generation in range(5):
        for i in range(3):
            cpu.data(machine.now + i, 8)
        machine.now += 5 * MS
        assert machine.drain() == 3
        if generation % 2:
            cpu.flush()
    machine.assert_balanced()
    assert [count for _cpu, _kind, count in machine.taken] == list(range(1, 16))


def test_a_batch_that_is_being_emitted_is_read_from_the_ring() -> None:
    machine = Machine()
    cpu = machine.cpus[0]
    cpu.data(NOW, 8)
    machine.now += 5 * MS
    assert machine.drain() == 1
    cpu.data(machine.now, 8)
    cpu.flush()
    machine.batches["generation"] -= 1  # as it is between `used = 0` and the new generation
    machine.now += 5 * MS
    assert machine.drain() == 1
    machine.batches["generation"] += 1
    assert machine.drain() == 0
    machine.assert_balanced()


def test_the_last_records_come_out_however_young_they_are() -> None:
    machine = Machine(2)
    for i, cpu in enumerate(machine.cpus):
        cpu.data(NOW + 10 * i, 33)
        cpu.event(NOW + 10 * i + 5, 9)
    machine.now = NOW + 20
    assert machine.drain() == 0
    assert machine.drain(final=True) == 4
    assert machine.rings.waiting() == 0
    machine.assert_balanced()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["data", "data", "data", "data", "event", "flush", "drain", "drain", "some", "look"]),
        st.integers(0, 2),  # CPU
        st.integers(0, 3 * MS),  # ns since the step before
        st.one_of(st.integers(0, 40), st.integers(0, 1500)),  # bytes, or the bound of a drain
    ),
    max_size=120,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, ring_bytes=st.sampled_from([4096, 8192]), batch_bytes=st.sampled_from([0, 300, 1000, 3000]))
def test_every_record_comes_out_once_and_in_order_or_is_counted(steps, ring_bytes, batch_bytes) -> None:
    machine = Machine(3, ring_bytes=ring_bytes, batch_bytes=batch_bytes)
    for what, which, later_ns, size in steps:
        machine.now += later_ns
        cpu = machine.cpus[which]
        if what == "data":
            cpu.data(machine.now, size)
        elif what == "event":
            cpu.event(machine.now, size)
        elif what == "flush":
            cpu.flush()
        elif what == "drain":
            machine.drain()
        elif what == "some":
            machine.drain(max_records=1 + size % 5)
        machine.assert_balanced()
    machine.now += 1
    while machine.drain(final=True):
        machine.assert_balanced()
    machine.assert_balanced()
    assert machine.count("late") == 0
    assert machine.count("bad_record") == 0
    assert machine.rings.waiting() == 0
    check_taken(machine)


def check_taken(machine: Machine) -> None:
    emitted = {(cpu.cpu, kind, count) for cpu in machine.cpus for kind, n in cpu.counts.items() for count in range(1, n + 1)}
    lost = set().union(*(cpu.lost for cpu in machine.cpus))
    taken = set(machine.taken)
    assert len(taken) == len(machine.taken)
    assert taken | lost == emitted
    saved = taken & lost
    assert len(saved) == machine.count("records_saved")
    assert all(kind == KIND_DATA for _cpu, kind, _count in saved)
    for cpu in machine.cpus:
        for kind in cpu.counts:
            counts = [count for where, what, count in machine.taken if (where, what) == (cpu.cpu, kind)]
            assert counts == sorted(counts)
    missed = machine.rings.missed_records()
    for cpu in machine.cpus:
        gone = {record for record in lost - taken if record[0] == cpu.cpu}
        last = {kind: max((c for w, k, c in taken if (w, k) == (cpu.cpu, kind)), default=0) for kind in cpu.counts}
        assert missed[cpu.cpu] == sum(count < last[kind] for _cpu, kind, count in gone)


def test_a_look_at_batches_reads_no_more_than_their_memory() -> None:
    memory, batches = batches_memory(1)
    cpu = FakeCpu(0, batches[0])
    rings = Rings.from_buffers({0: cpu.ring.memory}, Counters(), memory)
    batches["used"] = np.uint64(1 << 40)
    assert len(rings.drain(NOW, final=True)) == 0
    batches["used"] = 50  # no whole record
    assert len(rings.drain(NOW, final=True)) == 0
    assert rings.waiting() == 0


def test_requests_of_io_uring_are_numbered_with_the_events_and_not_taken_for_leftovers() -> None:
    machine = Machine()
    cpu = machine.cpus[0]
    for i in range(3):
        cpu.data(NOW + i, 8)
    machine.now = NOW + FINAL_AFTER_NS + MS
    assert machine.drain() == 3  # as leftovers
    cpu.event(machine.now, 8)
    cpu.request(machine.now + 1, 8)
    cpu.flush()
    cpu.data(machine.now + 2, 8)
    cpu.flush()
    machine.now += FINAL_AFTER_NS + MS
    assert machine.drain() == 3
    assert machine.taken[3:] == [(0, KIND_CONN, 1), (0, KIND_DATA, 2), (0, KIND_DATA, 4)]
    assert machine.rings.missed_records() == {0: 0}
    machine.assert_balanced()
