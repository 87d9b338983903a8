"""The demo's judgement of traces: complete, incomplete and wrong are told apart."""

from deeptrace.demo import truth
from deeptrace.demo.load import order_id
from deeptrace.demo.truth import EXPECTED, SeenSpan, compare

PIDS = {"nginx": 1, "orders": 2, "stock": 3, "redis": 4}
ROLES = {pid: role for role, pid in PIDS.items()}


def text_of(word: str, i: int) -> dict[str, str]:
    return {"url.path": f"/{word}{order_id(i)}"} if word.endswith("/") else {"db.query.text": f"GET {word}{order_id(i)}"}


def request_spans(i: int) -> dict[str, SeenSpan]:
    """The nine spans of request i, rightly linked."""
    ids = {e.name: f"{i}-{n}" for n, e in enumerate(EXPECTED)}
    return {
        e.name: SeenSpan(
            span_id=ids[e.name],
            kind=e.kind,
            trace_id=f"trace-{i}",
            parent_span_id=ids[e.parent] if e.parent else None,
            pid=PIDS[e.role],
            service=e.role,
            attributes=text_of(e.word, i),
        )
        for e in EXPECTED
    }


def test_a_request_with_all_spans_and_parents_is_complete() -> None:
    found = compare([*request_spans(1).values(), *request_spans(2).values()], ROLES)
    assert (found.requests_captured, found.traces_complete, found.traces_wrong, found.traces_incomplete) == (2, 2, 0, 0)
    assert found.spans_by_service == {"nginx": 4, "orders": 6, "stock": 4, "redis": 4}
    assert found.example_trace_id in ("trace-1", "trace-2")


def test_a_missing_parent_makes_a_trace_incomplete_not_wrong() -> None:
    spans = request_spans(1)
    spans["stock to redis"].parent_span_id = None
    found = compare(spans.values(), ROLES)
    assert (found.traces_complete, found.traces_wrong, found.traces_incomplete) == (0, 0, 1)
    assert found.incomplete_because == {"link: stock > stock to redis": 1}
    assert found.links["stock > stock to redis"] == {"missing": 1}


def test_a_parent_of_another_request_makes_a_trace_wrong() -> None:
    one, two = request_spans(1), request_spans(2)
    one["stock to redis"].parent_span_id = two["stock"].span_id
    found = compare([*one.values(), *two.values()], ROLES)
    assert (found.traces_complete, found.traces_wrong, found.traces_incomplete) == (1, 1, 0)


def test_a_root_with_a_parent_is_wrong() -> None:
    spans = request_spans(1)
    spans["nginx"].parent_span_id = spans["redis for stock"].span_id
    assert compare(spans.values(), ROLES).traces_wrong == 1


def test_a_missing_or_doubled_span_makes_a_trace_incomplete() -> None:
    one, two = request_spans(1), request_spans(2)
    del one["redis for stock"]
    found = compare([*one.values(), *two.values(), two["redis for stock"]], ROLES)
    assert found.traces_incomplete == 2
    assert found.incomplete_because == {"span: redis for stock": 1, "span twice: redis for stock": 1}


def test_a_trace_under_two_ids_is_not_complete() -> None:
    spans = request_spans(1)
    spans["redis for stock"].trace_id = "another"
    assert compare(spans.values(), ROLES).traces_incomplete == 1


def test_a_request_without_its_root_is_not_captured() -> None:
    spans = request_spans(1)
    del spans["nginx"]
    assert compare(spans.values(), ROLES).requests_captured == 0


def test_spans_of_no_request_are_counted_apart() -> None:
    stray = SeenSpan(span_id="x", kind="SERVER", pid=4, service="redis", attributes={"db.query.text": "PING"})
    found = compare([stray], ROLES)
    assert (found.spans_unexpected, found.traces_wrong, found.traces_incomplete) == (1, 0, 0)


def test_a_client_span_may_carry_the_whole_url() -> None:
    span = SeenSpan(span_id="x", kind="CLIENT", pid=2, attributes={"url.full": f"http://stock/stock/{order_id(7)}"})
    assert truth.identify(span, ROLES) == (order_id(7), "orders to stock")
