"""The ring reader over memory that looks like mapped perf rings."""

import struct

import numpy as np
import pytest
from fake_kernel import LOST, PAGE, SAMPLE, FakeRing, padded

from deeptrace.core.counters import Counters
from deeptrace.core.ring import FINAL_AFTER_NS, Rings
from deeptrace.core.wire import KIND_CONN, KIND_LOG, LOG_DTYPE
from deeptrace.counters import by_name

NOW = 10_000_000_000


def rings_of(*fakes: FakeRing) -> tuple[Rings, Counters]:
    counters = Counters()
    return Rings.from_buffers({cpu: fake.memory for cpu, fake in enumerate(fakes)}, counters), counters


def payloads(batch) -> list[bytes]:
    return [
        batch.payload[at : at + size].tobytes() for at, size in zip(batch.payload_at, batch.records["payload_len"], strict=True)
    ]


@pytest.mark.parametrize("start", [0, 8192 - 8, 8192 - 16, 8192 - 64, 8192 - 176, 5 * 8192 - 200])
def test_records_that_wrap_around_come_out_whole(start: int) -> None:
    fake = FakeRing(start=start)
    rings, counters = rings_of(fake)
    fake.record(NOW, b"first payload")
    fake.record(NOW + 1, b"second" * 50)
    batch = rings.drain(NOW + FINAL_AFTER_NS + 1)
    assert payloads(batch) == [b"first payload", b"second" * 50]
    assert batch.records["exit_ns"].tolist() == [NOW, NOW + 1]
    assert fake.tail == fake.head
    assert by_name(counters.values)["records_decoded"] == 2
    assert rings.pending_bytes() == {0: 0}


@pytest.mark.parametrize("start", range(8192 - 1600, 8192, 8 * 23))
def test_several_records_of_one_sample_come_out_one_by_one(start: int) -> None:
    fake = FakeRing(start=start)
    rings, counters = rings_of(fake)
    texts = [bytes([65 + i]) * (i * 29 % 200) for i in range(7)]
    fake.sample(b"".join(padded(fake.row(NOW + i, text)) for i, text in enumerate(texts)))
    fake.record(NOW + 7, b"alone")
    assert rings.waiting() == 8
    batch = rings.drain(NOW + 7, final=True)
    assert payloads(batch) == [*texts, b"alone"]
    assert rings.waiting() == 0
    assert fake.tail == fake.head
    assert by_name(counters.values)["records_decoded"] == 8
    assert by_name(counters.values)["bad_record"] == 0


def test_a_sample_that_is_half_taken_keeps_its_place_in_the_ring() -> None:
    fake = FakeRing()
    rings, counters = rings_of(fake)
    fake.record(NOW)
    first = fake.head
    fake.sample(b"".join(padded(fake.row(NOW + i, b"x")) for i in range(1, 6)))
    assert len(rings.drain(NOW + 5, final=True, max_records=3)) == 3
    assert fake.tail == first
    assert rings.waiting() == 3
    assert len(rings.drain(NOW + FINAL_AFTER_NS + 4)) == 2  # the last one is too young
    assert (fake.tail, rings.waiting()) == (first, 1)
    assert len(rings.drain(NOW + 5, final=True)) == 1
    assert fake.tail == fake.head
    assert by_name(counters.values)["records_decoded"] == 6


def test_data_that_waited_for_its_batch_is_not_held_up_by_a_younger_event() -> None:
    a, b = FakeRing(), FakeRing()
    rings, counters = rings_of(a, b)
    a.sample(a.row(NOW + 8, kind=KIND_CONN, cpu_count=1))
    a.sample(b"".join(padded(a.row(NOW + at)) for at in (1, 2, 9)))
    b.record(NOW + 3)
    batch = rings.drain(NOW + 5, final=True)
    assert (batch.records["exit_ns"] - NOW).tolist() == [1, 2, 3]
    assert a.tail == 0
    batch = rings.drain(NOW + 9, final=True)
    assert (batch.records["exit_ns"] - NOW).tolist() == [8, 9]
    assert a.tail == a.head
    assert by_name(counters.values)["late"] == 0


def test_what_stands_behind_a_size_that_cannot_be_is_counted_with_it() -> None:
    fake = FakeRing()
    rings, counters = rings_of(fake)
    rows = [padded(fake.row(NOW + i, b"good")) for i in range(2)]
    rows.append(fake.row(NOW + 2, payload_len=20000))
    rows += [padded(fake.row(NOW + 3 + i, b"unseen")) for i in range(3)]
    fake.sample(b"".join(rows))
    fake.record(NOW + 7, b"next")
    assert payloads(rings.drain(NOW + 7, final=True)) == [b"good", b"good", b"next"]
    assert by_name(counters.values)["bad_record"] == 4
    assert by_name(counters.values)["records_decoded"] == 3


def test_a_kind_that_cannot_be_costs_only_its_own_record() -> None:
    fake = FakeRing()
    rings, counters = rings_of(fake)
    kinds = (1, 9, 1, KIND_CONN, 1)  # an event has no place among data
    fake.sample(b"".join(padded(fake.row(NOW + i, bytes([i]), kind=kind)) for i, kind in enumerate(kinds)))
    assert payloads(rings.drain(NOW + 5, final=True)) == [b"\0", b"\2", b"\4"]
    assert by_name(counters.values)["bad_record"] == 2


def test_log_records_are_taken_out_of_the_flow() -> None:
    fake = FakeRing()
    rings, _ = rings_of(fake)
    line = np.zeros(1, LOG_DTYPE)
    line["message"], line["level"], line["values"] = 7, 2, [1, 2, 1 << 63]
    fake.record(NOW, b"data")
    fake.record(NOW + 1, line.tobytes(), kind=KIND_LOG, cpu_count=1)
    fake.record(NOW + 2, b"short", kind=KIND_LOG, cpu_count=2)
    batch = rings.drain(NOW + 2, final=True)
    assert batch.n_logs == 2
    records, logs = batch.take_logs()
    assert (records["exit_ns"] - NOW).tolist() == [1, 2]
    assert logs["message"].tolist() == [7, 0]
    assert logs["values"].tolist() == [[1, 2, 1 << 63], [0, 0, 0]]
    assert batch.n_logs == 0
    assert batch.order.tolist() == [0]


def test_young_records_stay_until_they_are_final() -> None:
    fake = FakeRing()
    rings, _ = rings_of(fake)
    fake.record(NOW)
    fake.record(NOW + 100)
    assert len(rings.drain(NOW + FINAL_AFTER_NS)) == 1
    assert rings.waiting() == 1
    assert len(rings.drain(NOW + FINAL_AFTER_NS + 99)) == 0
    assert len(rings.drain(NOW + 100, final=True)) == 1
    assert rings.waiting() == 0


def test_rings_are_merged_by_exit_time_and_ordered_by_enter_of_writes() -> None:
    a, b = FakeRing(), FakeRing()
    rings, _ = rings_of(a, b)
    for exit_ns in (10, 30, 31, 60):
        a.record(NOW + exit_ns)
    for exit_ns in (20, 40, 50):
        b.record(NOW + exit_ns)
    b.record(NOW + 70, direction=1, enter_ns=NOW + 15)
    batch = rings.drain(NOW + 70, final=True)
    assert (batch.records["exit_ns"] - NOW).tolist() == [10, 20, 30, 31, 40, 50, 60, 70]
    assert (batch.records["exit_ns"][batch.order] - NOW).tolist() == [10, 70, 20, 30, 31, 40, 50, 60]


def test_order_is_stable_and_right_for_any_input() -> None:
    chance = np.random.default_rng(5)
    for n in (1, 2, 100, 3000):
        fake = FakeRing(size=1 << 20)
        rings, _ = rings_of(fake)
        for i in range(n):
            fake.record(NOW + i, direction=1, enter_ns=NOW - int(chance.integers(0, n)))
        batch = rings.drain(NOW + n, final=True)
        assert batch.order.tolist() == np.argsort(batch.records["enter_ns"], kind="stable").tolist()


def test_a_bounded_drain_keeps_the_order_across_rings() -> None:
    a, b = FakeRing(size=1 << 16), FakeRing(size=1 << 16)
    rings, _ = rings_of(a, b)
    for i in range(60):
        (a if i % 3 else b).record(NOW + i)
    seen: list[int] = []
    while len(batch := rings.drain(NOW + 60, final=True, max_records=7)):
        assert len(batch) <= 7
        seen += (batch.records["exit_ns"] - NOW).tolist()
        batch.release()
    assert seen == list(range(60))


def test_lost_records_are_reported_and_jumps_of_the_count_are_seen() -> None:
    fake = FakeRing()
    rings, counters = rings_of(fake)
    fake.record(NOW)
    fake.put(LOST, struct.pack("<QQ", 1, 7))
    fake.record(NOW + 1, count=8)
    assert len(rings.drain(NOW + 1, final=True)) == 2
    assert by_name(counters.values)["ring_lost_reported"] == 7
    assert rings.missed_records() == {0: 7}


def test_a_record_after_its_time_was_final_is_late() -> None:
    fake = FakeRing()
    rings, counters = rings_of(fake)
    fake.record(NOW)
    rings.drain(NOW + 10, final=True)
    fake.record(NOW + 5)
    fake.record(NOW + 11)
    assert len(rings.drain(NOW + 20, final=True)) == 2
    assert by_name(counters.values)["late"] == 1


def test_records_that_cannot_be_are_counted_and_skipped() -> None:
    fake = FakeRing()
    rings, counters = rings_of(fake)
    fake.sample(b"short")
    fake.record(NOW, kind=9)
    fake.record(NOW, payload_len=20000)
    fake.record(NOW, b"abc", payload_len=400)
    fake.put(77, b"12345678")
    fake.put(SAMPLE, struct.pack("<I", 4000) + bytes(400))
    fake.record(NOW, b"good")
    batch = rings.drain(NOW, final=True)
    assert payloads(batch) == [b"good"]
    assert by_name(counters.values)["bad_record"] == 6
    assert by_name(counters.values)["records_decoded"] == 1


def test_a_ring_whose_framing_is_broken_goes_on_with_the_next_record() -> None:
    fake = FakeRing()
    rings, counters = rings_of(fake)
    fake.put(SAMPLE, b"")
    struct.pack_into("<H", fake.memory, PAGE + 6, 0)
    assert len(rings.drain(NOW, final=True)) == 0
    fake.record(NOW + 1, b"good")
    assert payloads(rings.drain(NOW + 1, final=True)) == [b"good"]
    assert by_name(counters.values)["bad_record"] == 1


def test_views_share_the_memory_of_the_batch_and_release_reuses_it() -> None:
    fake = FakeRing()
    rings, _ = rings_of(fake)
    fake.record(NOW, b"payload")
    batch = rings.drain(NOW, final=True)
    records, payload = batch.records, batch.payload
    assert np.shares_memory(records, batch.records)
    assert np.shares_memory(records["exit_ns"], batch.records)
    assert np.shares_memory(payload, batch.payload)
    assert records.ctypes.data % 8 == 0
    batch.release()
    fake.record(NOW + 1, b"again")
    again = rings.drain(NOW + 1, final=True)
    assert np.shares_memory(again.payload, payload)
    held = rings.drain(NOW + 2, final=True)
    assert not np.shares_memory(held.payload_at, again.payload_at)


def test_own_processes_are_taken_out_of_the_order() -> None:
    fake = FakeRing()
    rings, _ = rings_of(fake)
    for tgid in (5, 6, 5, 7):
        fake.record(NOW, tgid=tgid)
    batch = rings.drain(NOW, final=True)
    assert batch.exclude_tgids({5}) == 2
    assert batch.records["tgid"][batch.order].tolist() == [6, 7]


def test_a_size_that_is_no_power_of_two_is_refused() -> None:
    with pytest.raises(ValueError, match="power of two"):
        Rings({}, 5000, Counters())
    with pytest.raises(ValueError, match="power of two"):
        Rings.from_buffers({0: bytearray(PAGE + 5000)}, Counters())
