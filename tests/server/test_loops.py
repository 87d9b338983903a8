"""Simulated servers with known parents: a wrong link is never published for good; what can be known is linked."""

import loops
import numpy as np
import pytest
from linking import publish
from loops import Action, World
from span_factory import Factory

PROGRAMS: dict[str, list[list[Action]]] = {
    "one call": [[("call", 500)]],
    "mixed": [[("call", 500)], [("call", 300), ("call", 800)], [], [("call", 2000)]],
    "sleeps": [
        [("call", 500)],
        [("sleep", 3000)],
        [("sleep", 1000), ("call", 400)],
        [("call", 400), ("sleep", 500), ("call", 300)],
        [],
    ],
    "sequences": [[("call", 300), ("call", 300)], [("call", 500)], [("call", 300), ("call", 300), ("call", 300)]],
    "fan-out": [[("gather", 300)], [("call", 300)], []],
    "waits": [[("sleep", 5000)], [("call", 300)]],
}


def judge(world: World, *, seed: int = 0, kept: float = 1.0) -> tuple[int, int, int]:
    """(calls, linked rightly, linked wrongly). kept: share of the spans that arrive at all."""
    factory = Factory()
    truth = world.spans(factory)
    batch = factory.batch()
    rng = np.random.default_rng(seed)
    arrives = rng.random(len(batch)) < kept
    found = publish(batch, delays_ns=rng.integers(0, 250_000_000, len(batch)), kept=arrives)
    seen = [c for c in truth if c in found.parent]
    right = sum(found.parent[c] == truth[c] for c in seen)
    wrong = sum(found.parent[c] not in (0, truth[c]) for c in seen)
    return len(seen), right, wrong


@pytest.mark.parametrize("rate", [20, 1500])
@pytest.mark.parametrize("programs", ["one call", "mixed", "sequences"])
def test_every_call_of_an_nginx_like_loop_is_linked_rightly(programs: str, rate: float) -> None:
    n, right, wrong = judge(loops.nginx(1, n=600, rate=rate, programs=PROGRAMS[programs]))
    assert (right, wrong) == (n, 0)


def test_lost_spans_cost_links_but_make_no_wrong_ones() -> None:
    n, right, wrong = judge(loops.nginx(2, n=1500, rate=800, programs=PROGRAMS["mixed"]), kept=0.995)
    assert wrong == 0
    assert right > 0.9 * n


@pytest.mark.parametrize("background_us", [0, 5e3, 500e3])
@pytest.mark.parametrize("rate", [5, 100, 1500])
@pytest.mark.parametrize("programs", PROGRAMS)
def test_an_asyncio_service_gets_no_wrong_link(programs: str, rate: float, background_us: float) -> None:
    n = 100 if rate < 10 else 500
    _, _, wrong = judge(loops.asyncio_loop(3, n=n, rate=rate, programs=PROGRAMS[programs], background_us=background_us), seed=3)
    assert wrong == 0


@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_an_asyncio_service_with_lost_spans_gets_no_wrong_link(kept: float) -> None:
    for seed in range(4):
        _, _, wrong = judge(loops.asyncio_loop(seed, n=400, rate=400, programs=PROGRAMS["sleeps"]), seed=seed, kept=kept)
        assert wrong == 0


@pytest.mark.parametrize("rate", [20, 1000])
def test_every_call_of_a_threaded_service_is_linked_rightly(rate: float) -> None:
    n, right, wrong = judge(loops.threads(4, n=600, rate=rate, programs=PROGRAMS["sleeps"]))
    assert (right, wrong) == (n, 0)
