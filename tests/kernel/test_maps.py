"""What the agent writes into the maps holds from the next call on, and what it reads there is what happened."""

import dataclasses
import time

import pytest

from deeptrace.core.counters import Counters
from deeptrace.core.ring import FINAL_AFTER_NS, Rings
from deeptrace.core.wire import KIND_DATA, LIMIT_DEFAULT, LIMIT_EVERY, LIMIT_MUTE
from deeptrace.counters import by_name
from deeptrace.loader.probes import DEADLINE_NS

pytestmark = pytest.mark.kernel

RING_BYTES = 1 << 20  # as in conftest
HEAD_BYTES = 4096


def now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


@pytest.fixture
def connected(kernel, traced):
    traced.do("connect", name="x", family="AF_INET", host="127.0.0.1")
    kernel.rings.drain()
    return traced


def transfer(process, size):
    process.do("transfer", out="x.c", into="x.s", egress="write", ingress="read", data=bytes(size).hex())


def test_what_waits_on_its_cpu_comes_out_though_nobody_emits_it(kernel, connected):
    core = Counters()
    rings = Rings(kernel.probes.ring_fds, RING_BYTES, core, batches_fd=kernel.probes.batches_fd)
    before = kernel.counters()
    kernel.probes.arm(dataclasses.replace(kernel.config, batch_bytes=8192))
    for _ in range(3):
        transfer(connected, 8)
    assert kernel.rings.drain() == []
    emitted = kernel.counters()["data_emitted"] - before["data_emitted"]
    assert emitted == 6
    assert rings.waiting() == emitted
    time.sleep(2 * FINAL_AFTER_NS / 1e9)
    records = rings.drain(now_ns()).records
    assert records["kind"].tolist() == [KIND_DATA] * emitted
    assert rings.waiting() == 0
    kernel.probes.arm(kernel.config)  # each at once: the next record of a CPU takes what waits there with it
    transfer(connected, 8)
    assert len(rings.drain(now_ns(), final=True)) == 2
    assert rings.waiting() == 0
    values = by_name(core.values)
    assert (values["records_decoded"], values["records_saved"], values["bad_record"]) == (emitted + 2, 0, 0)
    rings.close()


def test_one_connection_has_its_own_limit_and_can_be_muted(kernel, connected):
    transfer(connected, HEAD_BYTES)
    # What an earlier test left waiting on another CPU comes out with the next record there.
    head = [r for r in kernel.take() if r.direction == 1 and r.tgid == connected.pid]
    socket, ports = head[0].socket, (head[0].local[1], head[0].peer[1])

    def captured(limit):
        assert kernel.probes.limits.set(socket, limit, *ports)
        assert kernel.probes.limits.get(socket) == (limit, *ports)
        for _ in range(LIMIT_EVERY + 1):
            transfer(connected, 3000)
        kernel.rings.drain()
        transfer(connected, 3000)
        return [len(r.payload) for r in kernel.take() if r.socket == socket]

    assert captured(100) == [100]
    assert captured(2000) == [2000]
    assert captured(0) == [0]
    before = kernel.counters()["muted"]
    assert captured(LIMIT_MUTE) == []
    assert kernel.counters()["muted"] > before
    assert captured(LIMIT_DEFAULT) == [1024]
    assert kernel.probes.limits.set(socket, 100, 1, 2)  # of another connection that had the same address
    assert len(kernel.probes.rules.items("port")) == 0


def test_the_hooks_stop_by_themselves_and_go_on_when_somebody_reads(kernel, connected):
    kernel.probes.arm(now_ns=now_ns())
    transfer(connected, 8)
    assert len(kernel.take()) == 2
    kernel.probes.arm(now_ns=now_ns() - DEADLINE_NS - 1)
    before = kernel.counters()
    transfer(connected, 8)
    transfer(connected, 8)
    after = kernel.counters()
    assert after["lapsed"] == before["lapsed"] + 1
    assert after["data_emitted"] <= before["data_emitted"] + 1  # the call that noticed
    kernel.take()
    kernel.probes.refresh(now_ns())
    transfer(connected, 8)
    assert len(kernel.take()) == 2


def test_a_denial_holds_for_a_thread_that_was_traced(kernel, connected):
    transfer(connected, 8)
    assert len(kernel.take()) == 2
    kernel.probes.pids.set(connected.pid, 2)
    transfer(connected, 8)
    assert kernel.take() == []
    assert kernel.probes.pids.delete(connected.pid)
    assert not kernel.probes.pids.delete(connected.pid)


def test_the_fill_of_the_maps_is_shown(kernel, connected):
    transfer(connected, 8)
    fill = kernel.probes.map_fill()
    assert fill["PIDS"] == (1, kernel.config.max_pids)
    assert fill["SOCKETS"][0] >= 2
    assert 1 <= fill["THREADS"][0] <= fill["THREADS"][1]
    assert fill["LIMITS"][1] == kernel.config.max_limits
