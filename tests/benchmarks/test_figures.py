"""What becomes of measurements: pairs, trimming, limits. Nothing is measured here."""

import importlib
import json
import pathlib
from typing import Any

import pytest

from deeptrace.cli import bench
from deeptrace.errors import UsageError
from deeptrace.resources import shipped_folder

overhead = bench.load_bench(shipped_folder("benchmarks"), "overhead")
figures = importlib.import_module(overhead.__name__ + ".figures")
plan = importlib.import_module(overhead.__name__ + ".plan")
rounds = importlib.import_module(overhead.__name__ + ".rounds")

READ = plan.Cell("read", 64)


def measured(
    none: list[float], floor: list[float], *, calm: dict[int, float] | None = None, foreign: list[int] | None = None
) -> Any:
    found = rounds.Measured()
    for n, (a, b) in enumerate(zip(none, floor, strict=True)):
        found.add("none", READ, n, rounds.Measurement(a, 1.0, 0))
        found.add("floor", READ, n, rounds.Measurement(b, (calm or {}).get(n, 1.0), foreign[n] if foreign else 0))
    return found


def test_a_state_is_compared_with_nothing_in_the_same_round() -> None:
    assert figures.paired(measured([100, 200, 300], [190, 291, 392]), "floor", READ) == [90, 91, 92]


def test_the_farthest_tenth_of_the_pairs_at_either_end_is_left_out() -> None:
    added = figures.paired(measured([0] * 10, [9, 1, 2, 3, 4, 5, 6, 7, 8, 1000]), "floor", READ)
    assert added == [2, 3, 4, 5, 6, 7, 8, 9]


def test_a_pair_measured_beside_a_neighbour_does_not_count() -> None:
    assert figures.paired(measured([0, 0, 0], [10, 99, 11], calm={1: 0.1}), "floor", READ) == [10, 11]


def test_where_every_pair_had_a_neighbour_they_all_count() -> None:
    assert figures.paired(measured([0, 0], [10, 12], calm={0: 0.0, 1: 0.1}), "floor", READ) == [10, 12]


def test_a_pair_measured_while_another_tool_traced_does_not_count() -> None:
    found = measured([0, 0, 0], [10, 99, 11], foreign=[0, 24, 0])
    assert figures.paired(found, "floor", READ) == [10, 11]
    assert found.undisturbed() == [0, 2]


def test_the_calls_by_themselves_are_the_calmer_half_of_the_rounds() -> None:
    assert figures.base_ns(measured([102, 100, 300, 400], [0] * 4)) == {"read": 101}


def test_the_quick_plan_holds_every_row_that_has_a_name_of_its_own() -> None:
    quick = {cell.row(state) for cell in plan.cells(quick=True) for state in ("floor", *plan.states_of(cell))}
    full = {cell.row(state) for cell in plan.cells(quick=False) for state in ("floor", *plan.states_of(cell))}
    assert quick < full
    assert {row.rpartition(".")[0] for row in full - quick} <= {row for row in quick if row.count(".") == 1}


def test_a_ratio_beyond_its_limit_is_a_complaint() -> None:
    result = {"bench": "overhead", "rows": [{"name": "a", "ratio": 2.5}, {"name": "b", "ratio": 1.0}, {"name": "d", "ratio": None}]}
    complaints = bench.complaints(result, {"a": 2.0, "b": 1.5, "c": 1.0, "d": 1.0})
    assert complaints == [
        "a has ratio 2.5, beyond its limit of 2",
        "overhead has no figure c, which must not be beyond 1",
        "overhead has no figure d, which must not be beyond 1",
    ]


def test_the_limits_of_ci_name_rows_that_there_are() -> None:
    names = {cell.row(state) for cell in plan.cells(quick=True) for state in ("floor", *plan.states_of(cell))} | set(plan.DESIGN)
    limits = bench.load_limits(shipped_folder("benchmarks") / "baseline.json", "overhead")
    assert limits
    assert set(limits) <= names


def test_a_file_of_limits_that_has_none_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "limits.json"
    path.write_text(json.dumps({"pipeline": {}}))
    with pytest.raises(UsageError, match="max_ratio"):
        bench.load_limits(path, "overhead")
