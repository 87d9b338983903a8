"""The ledger: balanced at rest only when every equation holds exactly, and one missing increment shows."""

import pytest

from deeptrace import ledger
from deeptrace.counters import COUNTERS, PythonCounters, events_lost

TERMS = [(e, name) for e in ledger.EQUATIONS for name in (*e.left, *e.right)]


def balanced_values() -> dict[str, int]:
    """Values in which every equation holds and no term is zero. A term of several equations makes them depend on each other,
    so each equation is evened out by a gauge of its own."""
    values = {name: 10 for e in ledger.EQUATIONS for name in (*e.left, *e.right)}
    for e in ledger.EQUATIONS:
        own = next(n for n in reversed(e.right) if sum(n in (*o.left, *o.right) for o in ledger.EQUATIONS) == 1)
        values[own] += sum(values[n] for n in e.left) - sum(values[n] for n in e.right)
    return values


def test_even_values_balance() -> None:
    assert ledger.is_balanced(ledger.check(balanced_values()))


@pytest.mark.parametrize(("equation", "name"), TERMS, ids=[f"{e.name}-{n}" for e, n in TERMS])
def test_one_increment_missing_from_any_term_shows(equation: ledger.Equation, name: str) -> None:
    values = balanced_values()
    values[name] -= 1
    wrong = {b.name for b in ledger.check(values) if not b.balanced}
    assert equation.name in wrong


def test_what_came_in_while_the_rest_was_read_is_allowed_for() -> None:
    earlier = {"requests": 10, "spans_paired": 10, "spans_acked": 10}
    later = earlier | {"requests": 13}
    assert all(b.balanced for b in ledger.check(earlier, later) if b.name == "requests")


def test_more_coming_out_than_went_in_is_never_balanced() -> None:
    values = {"requests": 10, "spans_paired": 11}
    assert not next(b for b in ledger.check(values) if b.name == "requests").balanced


def test_nothing_to_check_is_not_balanced() -> None:
    assert not ledger.is_balanced(ledger.check({}))


def test_events_lost_sums_losses_only() -> None:
    loss = next(c.name for c in COUNTERS.values() if c.is_loss)
    note = next(c.name for c in COUNTERS.values() if c.kind == "NOTE")
    assert events_lost({loss: 3, note: 5}) == 3


def test_a_counter_that_is_not_in_the_list_is_refused() -> None:
    counters = PythonCounters()
    with pytest.raises(KeyError):
        counters.add("no_such_counter")
    with pytest.raises(KeyError, match="compiled stage"):
        counters.add("bytes_in")
    counters.add("queue_dropped", 2)
    counters.add("queue_dropped")
    assert counters.snapshot() == {"queue_dropped": 3}
