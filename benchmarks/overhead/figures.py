"""Makes rows of measurements: paired differences to `none` of the same round, trimmed. Measures nothing."""

import statistics
from typing import Any

from .plan import ALONE, EXTRACT, SMALL, Cell, reference_of, states_of
from .rounds import Measured
from .states import MEASURED, SETTINGS

LEAST_CALM = 0.25  # of the blocks on both sides: a pair counts that was measured while nobody else used the core ...
LEAST_PAIRS = 2  # ... and no other tool traced, unless fewer than these are left
TRIM = 0.1  # of the pairs, at either end

Row = dict[str, Any]


def paired(measured: Measured, state: str, cell: Cell, base: str = "none") -> list[float]:
    """ns that a state adds to `base`, one figure per round, ascending and trimmed."""
    ours, theirs = measured.found[state, cell], measured.found[base, cell]
    pairs = [(ours[n], theirs[n]) for n in sorted(ours.keys() & theirs.keys())]
    least = measured.least_foreign()
    for is_fit in (lambda m: m.foreign == least, lambda m: m.calm >= LEAST_CALM):
        fit = [pair for pair in pairs if all(is_fit(m) for m in pair)]
        pairs = fit if len(fit) >= LEAST_PAIRS else pairs
    added = sorted(a.ns - b.ns for a, b in pairs)
    cut = int(len(added) * TRIM)
    return added[cut : len(added) - cut]


def make_row(name: str, added: list[float], *, floor_ns: float | None = None, unit: str = "ns") -> Row:
    """One row. added: figures of single rounds; ratio: to the floor, or where there is none to the reference."""
    q1, value, q3 = statistics.quantiles(added, n=4, method="inclusive") if len(added) > 1 else added * 3
    reference = reference_of(name)
    ratio = None
    if floor_ns is not None:
        ratio = value / floor_ns if floor_ns > 0 else None
    elif reference is not None:
        ratio = value / reference.figure
    return {
        "name": name,
        "value": round(value, 1),
        "unit": unit,
        "ratio": None if ratio is None else round(ratio, 3),
        "reference": reference.figure if reference else None,
        "reference_means": reference.meaning() if reference else None,
        "n_rounds": len(added),
        "q1": round(q1, 1),
        "q3": round(q3, 1),
    }


def rows_of(measured: Measured) -> list[Row]:
    """All rows that compare states, in the order of the cells, then those over all ten calls."""
    rows: list[Row] = []
    found: dict[tuple[str, str, int], Row] = {}
    for cell in [cell for state, cell in measured.found if state == "none"]:
        floor = paired(measured, "floor", cell)
        floor_ns = statistics.median(floor)
        for state in ("floor", *states_of(cell)):
            row = make_row(cell.row(state), paired(measured, state, cell), floor_ns=floor_ns)
            found[state, cell.call, cell.size] = row
            rows.append(row)
    for state in ("floor", *SETTINGS):
        rows.append(over_ten(f"ten.{state}", [found[state, call, SMALL] for call in MEASURED]))
    rows.append(over_ten("interception", [found["traced0", call, SMALL] for call in MEASURED]))
    return [*rows, extract_row(measured)]


def over_ten(name: str, rows: list[Row]) -> Row:
    """The median of the ten calls, of value and of ratio; the quartiles are theirs."""
    row = make_row(name, [row["value"] for row in rows], floor_ns=1.0)
    ratios = [row["ratio"] for row in rows if row["ratio"] is not None]
    row["ratio"] = round(statistics.median(ratios), 3) if ratios else None
    row["n_rounds"] = min(row["n_rounds"] for row in rows)
    return row


def extract_row(measured: Measured) -> Row:
    """What 256 B of payload add to a record without any, read and write alike."""
    added = [paired(measured, "traced256", Cell(call, EXTRACT), base="traced0") for call in ("read", "write")]
    return make_row("extract.256", sorted(ns for figures in added for ns in figures))


def base_ns(measured: Measured) -> dict[str, float]:
    """What the calls cost by themselves: {"write": ns, "write.1024": ns, ...}, the calmer half of the rounds."""
    found = {}
    for (state, cell), rounds in measured.found.items():
        if state == "none":
            least = min(m.foreign for m in rounds.values())
            figures = sorted(m.ns for m in rounds.values() if m.foreign == least)
            name = cell.call if cell.size == SMALL or cell.call in ALONE else f"{cell.call}.{cell.size}"
            found[name] = round(statistics.median(figures[: (len(figures) + 1) // 2]), 1)
    return found
