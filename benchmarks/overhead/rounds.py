"""Measures every cell in every state, round by round. Keeps what was measured; judges nothing.

A round passes through the agent's settings, nothing, and the floor; every second one in the opposite order, since only
going to `nothing` costs time. So a cell's states are seconds apart, and its `none` lies between the others.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from deeptrace import clock
from deeptrace.errors import DeepTraceError
from deeptrace.loader.maps import TRACE

from .plan import AGENT, ALONE, BUDGET_NS, QUICK_BUDGET, Cell, cells, states_of
from .states import LEAST_RECORDED, SETTINGS, Machine

LEAST_CALM = 0.5  # of the blocks of a measurement, else it is made again
TRIES = 3  # a neighbour on this core stays for seconds
MIN_CALLS, MAX_CALLS = 256, 200_000
WAIT_S = 0.05  # between two looks whether another tool has ended
UNDISTURBED = 0.9  # of the measurements of a round, for it to count as one


@dataclass(frozen=True)
class Measurement:
    """ns of a call; share of calm blocks; tracing programs that other tools had loaded meanwhile."""

    ns: float
    calm: float
    foreign: int


@dataclass
class Measured:
    """(state, cell): {round: measurement}."""

    found: dict[tuple[str, Cell], dict[int, Measurement]] = field(default_factory=dict)

    def add(self, state: str, cell: Cell, number: int, measurement: Measurement) -> None:
        self.found.setdefault((state, cell), {})[number] = measurement

    def least_foreign(self) -> int:
        """What other tools had loaded when they had least."""
        return min(m.foreign for rounds in self.found.values() for m in rounds.values())

    def undisturbed(self) -> list[int]:
        """The rounds in which next to nothing was measured while other tools had more loaded than that."""
        least = self.least_foreign() if self.found else 0
        foreign: dict[int, list[bool]] = {}
        for rounds in self.found.values():
            for number, measurement in rounds.items():
                foreign.setdefault(number, []).append(measurement.foreign == least)
        return [number for number, is_least in sorted(foreign.items()) if sum(is_least) >= UNDISTURBED * len(is_least)]


class Rounds:
    """run() until n_rounds were not disturbed by other tools, or as many as fit before deadline_ns, at least one."""

    def __init__(self, machine: Machine, *, quick: bool, tell: Callable[[str], None], patience_s: float) -> None:
        self._machine = machine
        self._cells = cells(quick=quick)
        self._budget = QUICK_BUDGET if quick else 1.0
        self._tell = tell
        self._patience_s = patience_s  # what is left for waiting until other tools end
        self._least_foreign = machine.foreign.now()
        self._deadline_ns = 0
        self._counts: dict[Cell, int] = {}
        self.measured = Measured()

    def run(self, *, n_rounds: int, deadline_ns: int) -> tuple[Measured, int]:
        """What was measured, and in how many rounds."""
        self._deadline_ns = deadline_ns
        self._calibrate()
        number = took_ns = 0
        while len(self.measured.undisturbed()) < n_rounds:
            started = clock.monotonic_ns()
            if number and started + took_ns > deadline_ns:
                break
            self._tell(f"round {number + 1} of {n_rounds}")
            self._round(number)
            number += 1
            took_ns = clock.monotonic_ns() - started
        return self.measured, number

    def _calibrate(self) -> None:
        """How many calls fit into the budget of each cell, what fills and empties the other end included."""
        for cell in self._cells:
            n = MIN_CALLS
            started = clock.monotonic_ns()
            self._machine.time(cell.call, cell.size, n)
            per_call = max((clock.monotonic_ns() - started) / n, 1.0)
            self._counts[cell] = int(min(max(BUDGET_NS[cell.size] * self._budget / per_call, MIN_CALLS), MAX_CALLS))

    def _round(self, number: int) -> None:
        steps = [self._agent_states, self._nothing, self._floor]
        for step in reversed(steps) if number % 2 else steps:
            step(number)

    def _agent_states(self, number: int) -> None:
        first = number % len(AGENT)
        for name in AGENT[first:] + AGENT[:first]:
            self._machine.armed(name)
            self._sweep(name, number, [cell for cell in self._cells if name in states_of(cell)])
        if self._machine.lost():
            raise DeepTraceError("a ring was full while calls were timed, so the figures mean nothing; try on a less busy machine")

    def _nothing(self, number: int) -> None:
        self._machine.none()
        self._sweep("none", number, self._cells)

    def _floor(self, number: int) -> None:
        self._machine.empty()
        self._sweep("floor", number, self._cells)

    def _sweep(self, state: str, number: int, todo: Iterable[Cell]) -> None:
        """Every cell once; again at the end, where somebody else used the core or traced."""
        todo = list(todo)
        emitted, timed = self._machine.emitted(), 0
        for left in reversed(range(TRIES)):
            again = []
            before = self._wait()
            left = left if clock.monotonic_ns() < self._deadline_ns else 0  # late: take it as it is
            for cell in reversed(todo) if number % 2 else todo:
                answer = self._machine.time(cell.call, cell.size, self._counts[cell])
                after = self._machine.foreign.now()
                timed += answer.messages if cell.call not in ALONE else 0
                if left and (answer.calm < LEAST_CALM or max(before, after) > self._least_foreign):
                    again.append(cell)
                else:
                    self.measured.add(state, cell, number, Measurement(answer.ns, answer.calm, max(before, after)))
                before = after
            todo = again
        if state in SETTINGS and SETTINGS[state].flags == TRACE:
            self._check_recorded(state, self._machine.emitted() - emitted, timed)

    def _wait(self) -> int:
        """Wait until other tools have no more loaded than they had at least, while there is patience; returns what they have."""
        while (foreign := self._machine.foreign.now()) > self._least_foreign and self._patience_s > 0:
            time.sleep(WAIT_S)
            self._patience_s -= WAIT_S
        self._least_foreign = min(foreign, self._least_foreign)
        return foreign

    @staticmethod
    def _check_recorded(state: str, recorded: int, timed: int) -> None:
        """A call that was not recorded is cheap, and its figure a lie."""
        if recorded < LEAST_RECORDED * timed:
            raise DeepTraceError(f"in state {state} the probes recorded {recorded} of {timed} messages; see 'deeptrace doctor'")
