"""Simulated servers whose true parents are known: event loops that finish what they begin, asyncio, threads. Seeded.

Each model runs on a virtual clock (us) and adds SERVER and CLIENT spans with the times and threads that the probes would see.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from span_factory import CLIENT, SERVER, Factory

Action = tuple[str, float]  # ("call", latency_us) | ("sleep", us) | ("gather", latency_us)


@dataclass
class Served:
    """One request being served."""

    program: list[Action]
    tid: int = 1
    read_us: float = 0.0
    body_us: float = 0.0
    write_us: float = 0.0
    write_tid: int = 0
    at: int = 0
    waiting: int = 0


@dataclass
class Call:
    """One call being made. of: None for a background task."""

    of: Served | None
    latency_us: float
    tid: int = 1
    connect_us: float = 0.0
    start_us: float = 0.0
    answer_us: float = 0.0
    end_us: float = 0.0


@dataclass
class World:
    """What happened, for the factory."""

    pid: int
    served: list[Served] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    def spans(self, factory: Factory) -> dict[int, int | None]:
        """Add all finished spans; returns the true parent of each call."""
        ids: dict[int, int] = {}
        for s in self.served:
            if s.write_us:
                ids[id(s)] = factory.add(
                    SERVER, pid=self.pid, start=s.read_us / 1e3, request_end=(s.body_us or s.read_us) / 1e3,
                    response_start=s.write_us / 1e3, end=(s.write_us + 3) / 1e3, req_tid=s.tid, resp_tid=s.write_tid or s.tid,
                    seq_space=0,
                )  # fmt: skip
        truth: dict[int, int | None] = {}
        for n, c in enumerate(self.calls):
            if c.end_us:
                connect: dict[str, Any] = {
                    "connect_ns": round(c.connect_us * 1e3) + 1_800_000_000_000_000_000,
                    "connect_tid": c.tid,
                }
                span = factory.add(
                    CLIENT, pid=self.pid, start=c.start_us / 1e3, response_start=c.answer_us / 1e3, end=c.end_us / 1e3,
                    req_tid=c.tid, resp_tid=c.tid, seq_space=0, connection_id=n, **(connect if c.connect_us else {}),
                )  # fmt: skip
                truth[span] = ids.get(id(c.of)) if c.of else None
        return truth


class Loop:
    """A virtual clock and the events that become ready on it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.ready: list[tuple[float, int, Callable[[], None]]] = []
        self.n = 0

    def tick(self) -> float:
        """A system call happens; no two happen at once."""
        self.now += self.random.uniform(2, 15)
        return self.now

    def at(self, when_us: float, what: Callable[[], None]) -> None:
        self.n += 1
        heapq.heappush(self.ready, (when_us, self.n, what))


def arrivals(rng: random.Random, n: int, rate: float, programs: list[list[Action]]) -> Iterator[tuple[float, list[Action]]]:
    when = 1000.0
    for _ in range(n):
        when += rng.expovariate(rate) * 1e6
        yield when, rng.choice(programs)


def latency(rng: random.Random, us: float) -> float:
    return us * rng.lognormvariate(0, 0.7)


def nginx(seed: int, *, n: int, rate: float, programs: list[list[Action]], pid: int = 10, body: float = 0.1) -> World:
    """One worker: every event is handled to its end at once."""
    loop, world = Loop(seed), World(pid)
    rng = loop.random

    def proceed(s: Served) -> None:
        if s.at == len(s.program):
            s.write_us = loop.tick()
            return
        call = Call(s, latency(rng, s.program[s.at][1]))
        s.at += 1
        world.calls.append(call)
        if rng.random() < 0.3:
            call.connect_us = loop.tick()
            loop.at(loop.now + rng.uniform(30, 200), lambda: send(call))
        else:
            send(call)

    def send(call: Call) -> None:
        call.start_us = loop.tick()
        loop.at(loop.now + call.latency_us, lambda: answered(call))

    def answered(call: Call) -> None:
        call.answer_us = call.end_us = loop.tick()
        if rng.random() < 0.2:
            call.end_us = loop.tick()
        assert call.of is not None
        proceed(call.of)

    def read(s: Served) -> None:
        s.read_us = loop.tick()
        if rng.random() < body:
            loop.at(loop.now + rng.uniform(50, 3000), lambda: read_body(s))
        else:
            proceed(s)

    def read_body(s: Served) -> None:
        s.body_us = loop.tick()
        proceed(s)

    for when, program in arrivals(rng, n, rate, programs):
        s = Served(program)
        world.served.append(s)
        loop.at(when, lambda s=s: read(s))  # type: ignore[misc]
    while loop.ready:
        when, _, what = heapq.heappop(loop.ready)
        loop.now = max(loop.now, when)
        what()
    return world


def asyncio_loop(
    seed: int, *, n: int, rate: float, programs: list[list[Action]], pid: int = 20, background_us: float = 0.0
) -> World:
    """Reads of all ready sockets first, then the tasks that they woke, in order; background_us: period of a task of its own."""
    loop, world = Loop(seed), World(pid)
    rng = loop.random
    tasks: deque[Callable[[], None]] = deque()

    def step(s: Served) -> None:
        if s.at == len(s.program):
            s.write_us = loop.tick()
            return
        kind, us = s.program[s.at]
        s.at += 1
        if kind == "sleep":
            loop.at(loop.now + latency(rng, us), lambda: tasks.append(lambda: step(s)))
            return
        s.waiting = 2 if kind == "gather" else 1
        for _ in range(s.waiting):
            call(s, us)

    def call(s: Served | None, us: float) -> None:
        c = Call(s, latency(rng, us))
        world.calls.append(c)
        if rng.random() < 0.2:
            c.connect_us = loop.tick()
            loop.at(loop.now + rng.uniform(30, 200), lambda: tasks.append(lambda: send(c)))
        else:
            send(c)

    def send(c: Call) -> None:
        c.start_us = loop.tick()
        loop.at(loop.now + c.latency_us, lambda: answered(c))

    def answered(c: Call) -> None:
        c.answer_us = c.end_us = loop.tick()
        if c.of is not None:
            c.of.waiting -= 1
            if c.of.waiting == 0:
                of = c.of
                tasks.append(lambda: step(of))

    def read(s: Served) -> None:
        s.read_us = loop.tick()
        tasks.append(lambda: step(s))

    last = 0.0
    for when, program in arrivals(rng, n, rate, programs):
        s, last = Served(program), when
        world.served.append(s)
        loop.at(when, lambda s=s: read(s))  # type: ignore[misc]
    at = background_us
    while background_us and at < last:
        loop.at(at, lambda: call(None, 300))
        at += background_us * rng.uniform(0.8, 1.2)
    while loop.ready or tasks:
        if not tasks:
            loop.now = max(loop.now, loop.ready[0][0])
        poll = loop.now
        while loop.ready and loop.ready[0][0] <= poll:
            heapq.heappop(loop.ready)[2]()
        for _ in range(len(tasks)):
            tasks.popleft()()
    return world


def threads(seed: int, *, n: int, rate: float, programs: list[list[Action]], pid: int = 30, n_threads: int = 8) -> World:
    """One thread per request, from a pool."""
    rng, world = random.Random(seed), World(pid)
    free = [0.0] * n_threads
    for when, program in arrivals(rng, n, rate, programs):
        tid = min(range(n_threads), key=lambda t: free[t])
        now = max(when, free[tid]) + rng.uniform(5, 20)
        s = Served(program, tid=tid + 1, read_us=now)
        for kind, us in program:
            now += rng.uniform(5, 200)
            if kind == "sleep":
                now += latency(rng, us)
                continue
            call = Call(s, 0.0, tid=tid + 1, start_us=now)
            now += latency(rng, us)
            call.answer_us = call.end_us = now
            world.calls.append(call)
        s.write_us = now + rng.uniform(5, 200)
        free[tid] = s.write_us + 10
        world.served.append(s)
    return world
