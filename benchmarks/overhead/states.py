"""The states of the machine that are compared: nothing attached, empty tracepoints, and the agent's probes in several settings.

Drains the rings while the driver works, as the agent does: when a ring asks for it, or when it is time.
"""

import contextlib
import os
import pathlib
import select
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from deeptrace import clock
from deeptrace.agent.probes.trace import ring_bytes_per_cpu
from deeptrace.config import Agent, Capture
from deeptrace.core.counters import Counters
from deeptrace.core.ring import MAX_BYTES, MAX_RECORDS, Rings
from deeptrace.core.wire import COUNTER_ROWS, SIZEOFS
from deeptrace.errors import DeepTraceError
from deeptrace.loader.client import ProbeConfig, Probes, check_privilege, load_probes
from deeptrace.loader.maps import DENY, TRACE

from .driver import Answer, Driver, compile_driver
from .foreign import ForeignPrograms
from .tracepoints import Attachable, empty_set

MEASURED = ("read", "readv", "recvfrom", "recvmsg", "recvmmsg", "write", "writev", "sendto", "sendmsg", "sendmmsg")
DEFAULT = Capture()  # the shipped default
DRAIN_S = Agent().drain_ms / 1e3
BOUNDS = {
    "events_per_s": 10**7,
    "bytes_per_s": 10**11,
}  # of one CPU: looked at on every record, as in the shipped default, never met
FULL_BYTES = MAX_BYTES - 16384  # with more payload a batch may have stopped for want of room
PATIENCE_S = 30.0  # the longest measurement takes a second
COUNTERS = {name.lower(): number for number, name, *_ in COUNTER_ROWS}
LEAST_RECORDED = 0.99  # of the messages timed; the rest was skipped while an interrupt's probe ran


@dataclass(frozen=True)
class Setting:
    """What the agent's probes do in one state. flags: the driver's entry in PIDS."""

    flags: int
    payload_bytes: int = 0
    head_bytes: int = 0


SETTINGS = {
    "filtered": Setting(DENY),
    "traced0": Setting(TRACE),
    "traced256": Setting(TRACE, 256),
    "traced1024": Setting(TRACE, DEFAULT.payload_bytes, DEFAULT.head_bytes),
}


class Machine:
    """The driver, the probes and the empty programs. Detached at the end of opened()."""

    def __init__(self, driver: Driver, probes: Probes) -> None:
        self.driver = driver
        self.probes = probes
        self.rings = Rings(probes.ring_fds, ring_bytes_per_cpu(DEFAULT.ring_bytes), Counters(), batches_fd=probes.batches_fd)
        self.agent = Attachable(probes.program_fds.items())
        self.agent.adopt(probes.keep_fds)
        probes.keep_fds = []
        self.floor = empty_set(MEASURED)
        self.foreign = ForeignPrograms([*probes.program_fds.values(), *self.floor.owned])
        self.wakeups = 0
        self._ring_fds = set(self.rings.fds)
        self._epoll = select.epoll()
        for fd in (*self._ring_fds, driver.answers):
            self._epoll.register(fd, select.EPOLLIN)

    def none(self) -> None:
        self.floor.detach()
        self.agent.detach()

    def empty(self) -> None:
        self.agent.detach()
        self.floor.attach()

    def armed(self, name: str) -> None:
        """The agent's probes, attached and in this setting."""
        setting = SETTINGS[name]
        self.floor.detach()
        self.agent.attach()
        self.probes.pids.set(self.driver.pid, setting.flags)
        self.probes.arm(
            ProbeConfig(payload_bytes=setting.payload_bytes, head_bytes=setting.head_bytes, **BOUNDS), now_ns=clock.monotonic_ns()
        )

    def time(self, call: str, size: int, count: int) -> Answer:
        """One answer of the driver, in the state that the machine is in."""
        self.probes.refresh(clock.monotonic_ns())
        self.driver.ask(call, size, count)
        deadline = clock.monotonic_ns() + int(PATIENCE_S * 1e9)
        while clock.monotonic_ns() < deadline:
            ready = {fd for fd, _events in self._epoll.poll(DRAIN_S)}
            self.drain()
            if self.driver.answers in ready:
                return self.driver.answer()
            self.wakeups += 1
        raise DeepTraceError(f"the benchmark's driver gave no answer within {PATIENCE_S:g} s; try again on a less busy machine")

    def drain(self) -> None:
        """Take what is old enough, as the agent does."""
        n, n_bytes = MAX_RECORDS, 0
        while n >= MAX_RECORDS or n_bytes >= FULL_BYTES:
            batch = self.rings.drain(clock.monotonic_ns())
            n, n_bytes = len(batch), len(batch.payload)
            batch.release()

    def lost(self) -> int:
        """Records that did not fit into a ring so far."""
        return int(self.probes.counters()[COUNTERS["ring_full"]])

    def emitted(self) -> int:
        return int(self.probes.counters()[COUNTERS["data_emitted"]])

    def close(self) -> None:
        self._epoll.close()
        self.none()
        self.floor.close()
        self.rings.close()
        self.probes.close()


@contextlib.contextmanager
def opened() -> Iterator[Machine]:
    """Compile and start the driver, load the probes. Raises DeepTraceError."""
    check_privilege()
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise DeepTraceError("the benchmark needs two CPUs: one for the calls, one for who reads the rings")
    with contextlib.ExitStack() as stack:
        with tempfile.TemporaryDirectory(prefix="deeptrace-bench-") as folder:  # a program that runs needs its file no more
            driver = Driver(compile_driver(pathlib.Path(folder)), cpus[-1])
        stack.callback(driver.close)
        os.sched_setaffinity(0, cpus[:-1])
        stack.callback(os.sched_setaffinity, 0, cpus)
        probes = load_probes(
            config=ProbeConfig(),
            ring_bytes_per_cpu=ring_bytes_per_cpu(DEFAULT.ring_bytes),
            sizeofs=SIZEOFS,
            python=DEFAULT.python,
            selftest=False,  # takes seconds; rounds.py looks whether records come
        )
        try:
            machine = Machine(driver, probes)
        except BaseException:
            probes.close()
            raise
        stack.callback(machine.close)
        yield machine
