"""The result as tables for people: per size one of calls by states, and one of the design's own figures."""

from typing import Any

from rich.table import Table

from .plan import ALONE, BIG, DESIGN, SMALL, VECTORS, Cell
from .states import MEASURED, SETTINGS

Row = dict[str, Any]
HEADS = {"floor": "floor", "filtered": "filtered", "traced0": "no payload", "traced256": "256 B", "traced1024": "as shipped"}


def tables(result: dict[str, Any]) -> list[Table]:
    rows = {row["name"]: row for row in result["rows"]}
    base = result["calibration"]
    found = [table for size in (SMALL, *BIG) if (table := table_of(size, rows, base)).row_count]
    return [*found, design_table(rows, result)]


def table_of(size: int, rows: dict[str, Row], base: dict[str, float]) -> Table:
    """ns added to each call with messages of one size."""
    title = f"\nns added to a call of {size} B, its quartiles below; x: ratio to the floor"
    table = Table(title=title, title_justify="left", padding=(0, 1))
    table.add_column("call")
    table.add_column("by itself", justify="right")
    for state in ("floor", *SETTINGS):
        table.add_column(HEADS[state], justify="right")
    for call in (*MEASURED, *VECTORS, *(ALONE if size == SMALL else ())):
        cell = Cell(call, size)
        name = call if size == SMALL else f"{call}.{size}"
        if name in base:
            figures = [rows.get(cell.row(state)) for state in ("floor", *SETTINGS)]
            if call == "getppid":
                figures[1:-1] = [None] * (len(figures) - 2)
            table.add_row(call, f"{base[name]:,.0f}", *(figure(row) for row in figures))
    if size == SMALL:
        table.add_section()
        table.add_row("median of ten", "", *(figure(rows.get(f"ten.{state}")) for state in ("floor", *SETTINGS)))
    return table


def figure(row: Row | None) -> str:
    """value, ratio, and the quartiles in a second line."""
    if row is None:
        return "-"
    ratio = "" if row["ratio"] is None or row["name"].partition(".")[2].startswith("floor") else f"  x{row['ratio']:.2f}"
    return f"{row['value']:,.0f}{ratio}\n[dim]{row['q1']:,.0f} .. {row['q3']:,.0f}[/dim]"


def design_table(rows: dict[str, Row], result: dict[str, Any]) -> Table:
    """What was promised or published, beside what was measured."""
    table = Table(title="\nheld against what was promised or published", title_justify="left", padding=(0, 1))
    for name in ("figure", "value", "ratio", "reference", "means", "met"):
        table.add_column(name, justify="left" if name in ("figure", "means", "met") else "right")
    for name in DESIGN:
        row = rows[name]
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
        verdict = "yes" if met(row) else "no"
        table.add_row(name, f"{row['value']:,.1f} {row['unit']}", ratio, f"{row['reference']:g}", row["reference_means"], verdict)
    kept, made, getppid_ns = result["n_rounds_kept"], result["n_rounds"], result["calibration"]["getppid"]
    table.caption = f"{made} rounds, {kept} of them undisturbed; a getppid by itself takes {getppid_ns:.0f} ns here"
    if result["foreign_programs"]:
        table.caption += f"; other tools had {result['foreign_programs']} tracing programs loaded, so all figures are rough"
    table.caption_justify = "left"
    return table


def met(row: Row) -> bool:
    measured = row["ratio"] if row["reference_means"].startswith("ratio") else row["value"]
    return measured is not None and measured <= row["reference"]
