"""What tracing adds to a system call, in ns, against the same call untouched and against empty tracepoints.

Runs rounds in which every state of the machine is measured (states.py, rounds.py), and the design's own figures. Ends
within FULL_S, or QUICK_S; a slow machine makes fewer rounds of it.
"""

import sys
from collections.abc import Callable
from typing import Any

from deeptrace import clock
from deeptrace.errors import DeepTraceError

from . import figures, inference, map_op
from .plan import SMALL
from .rounds import Measured, Rounds
from .states import Machine, opened
from .tables import tables

FULL_S, QUICK_S = 180.0, 30.0
RESERVE_S = 9.0  # loading, closing and the design's own figures
FULL_PATIENCE_S, QUICK_PATIENCE_S = 40.0, 4.0  # of that, for waiting until other tools end
FULL_ROUNDS, QUICK_ROUNDS = 15, 6
LEAST_ROUNDS = 3  # for figures that may fail a build
PACE_EVENTS = 100_000  # a second, for wakeups_per_s


def run(
    *, quick: bool, tell: Callable[[str], None], n_rounds: int | None = None, patience_s: float | None = None
) -> dict[str, Any]:
    """The bench's result. n_rounds, patience_s: other numbers than usual. Raises DeepTraceError."""
    started = clock.monotonic_ns()
    deadline = started + int(((QUICK_S if quick else FULL_S) - RESERVE_S) * 1e9)
    wanted = n_rounds or (QUICK_ROUNDS if quick else FULL_ROUNDS)
    if sys.byteorder != "little":
        raise DeepTraceError("this benchmark assembles its programs for little-endian machines only")
    with opened() as machine:
        tell("driver and probes are ready")
        if patience_s is None:
            patience_s = QUICK_PATIENCE_S if quick else FULL_PATIENCE_S
        rounds = Rounds(machine, quick=quick, tell=tell, patience_s=patience_s)
        measured, n_made = rounds.run(n_rounds=wanted, deadline_ns=deadline)
        wakeups = wakeups_per_s(machine)
    rows = figures.rows_of(measured)
    rows.append(figures.make_row("inference", inference.inference_ns(quick=quick)))
    rows.append(figures.make_row("map.op", map_op.map_op_ns(wanted)))
    rows.append(figures.make_row("wakeups_per_s", [wakeups], unit="1/s"))
    return {
        "rows": rows,
        "calibration": figures.base_ns(measured),
        "n_rounds": n_made,
        "n_rounds_kept": len(measured.undisturbed()),
        "foreign_programs": measured.least_foreign(),
        "unfit": why_unfit(measured),
    }


def why_unfit(measured: Measured) -> str | None:
    """Why no limit can be held against these figures, if so."""
    if measured.least_foreign():
        return "other tools were tracing meanwhile"
    kept = len(measured.undisturbed())
    return None if kept >= LEAST_ROUNDS else f"only {kept} undisturbed rounds fitted into the time"


def wakeups_per_s(machine: Machine) -> float:
    """How often who drains the rings is woken while a process makes 100,000 events a second, by rings and by time."""
    machine.armed("traced1024")
    machine.wakeups = 0
    emitted, lost, began = machine.emitted(), machine.lost(), clock.monotonic_ns()
    machine.time("pace", SMALL, PACE_EVENTS)
    took_s = (clock.monotonic_ns() - began) / 1e9
    made = machine.emitted() - emitted
    if made < PACE_EVENTS or machine.lost() > lost:
        raise DeepTraceError(f"{made} of {PACE_EVENTS} events were recorded and {machine.lost() - lost} lost at an even pace")
    return machine.wakeups / took_s


__all__ = ["run", "tables"]
