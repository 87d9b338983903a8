"""Reads what the demo needs from the server's query API. Waits until nothing moves any more before it reads spans."""

import http.client
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from deeptrace.counters import COUNTERS
from deeptrace.demo.truth import SeenSpan
from deeptrace.errors import DeepTraceError, ServerUnreachable

PAGE_SPANS = 20_000  # of one answer; 25 MB of JSON
TIMEOUT_S = 30.0
REST_TIMEOUT_S = 30.0  # everything is stored and counted 1 s after the load ends; a busy machine takes longer
POLL_S = 0.25


class Page(msgspec.Struct):
    """A list of spans as the API answers it, with only the fields that matter."""

    spans: list[SeenSpan]


class PageStarts(msgspec.Struct):
    class Start(msgspec.Struct):
        start_ns: int

    spans: list[Start]


class Api:
    """The query API at one address, such as 127.0.0.1:4480."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, path: str) -> bytes:
        """The body of an answer. Raises ServerUnreachable or DeepTraceError with what the server said."""
        connection = http.client.HTTPConnection(self.address, timeout=TIMEOUT_S)
        try:
            connection.request("GET", "/api/v1/" + path)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as e:
            raise ServerUnreachable(f"the DeepTrace server at {self.address} does not answer: {e}") from e
        finally:
            connection.close()
        if response.status != 200:
            raise DeepTraceError(
                f"the DeepTrace server at {self.address} refused {path.split('?')[0]}: {body[:300].decode(errors='replace')}"
            )
        return body

    def json(self, path: str) -> dict[str, Any]:
        return dict(msgspec.json.decode(self.get(path)))

    def services(self, since_ns: int) -> list[dict[str, Any]]:
        return list(self.json(f"services?since={since_ns}")["services"])

    def trace(self, trace_id: str) -> dict[str, Any]:
        return self.json(f"traces/{trace_id}")

    def spans(self, since_ns: int) -> Iterator[SeenSpan]:
        """All spans that began at since_ns or later, each once, by start."""
        seen_last: set[str] = set()
        while True:
            body = self.get(f"spans?since={since_ns}&order=asc&limit={PAGE_SPANS}")
            page = msgspec.json.decode(body, type=Page).spans
            new = [s for s in page if s.span_id not in seen_last]
            yield from new
            if len(page) < PAGE_SPANS or not new:
                return
            # The next page begins with the last start of this one: spans of that start come twice.
            since_ns = msgspec.json.decode(body, type=PageStarts).spans[-1].start_ns
            seen_last = {s.span_id for s in page}


class Report:
    """What the server says of itself and its agents."""

    def __init__(self, doctor: dict[str, Any]) -> None:
        self.server: dict[str, Any] = doctor["server"]
        self.agents: list[dict[str, Any]] = doctor["agents"]

    @property
    def balanced(self) -> bool:
        return bool(self.agents) and all(part["balanced"] for part in (self.server, *self.agents))

    @property
    def events_lost(self) -> int:
        """Sum of all loss counters of all agents and of the server."""
        values = [self.server["counters"], *(agent["values"] for agent in self.agents)]
        return sum(int(v.get(c.name, 0)) for v in values for c in COUNTERS.values() if c.is_loss)

    @property
    def losses(self) -> dict[str, int]:
        """The loss counters that are not zero."""
        values = [self.server["counters"], *(agent["values"] for agent in self.agents)]
        sums = {c.name: sum(int(v.get(c.name, 0)) for v in values) for c in COUNTERS.values() if c.is_loss}
        return {name: n for name, n in sums.items() if n}

    @property
    def unbalanced(self) -> list[str]:
        """The equations that do not hold, in words."""
        parts = [self.server, *self.agents]
        return [f"{b['name']}: {b['left']} in, {b['right']} out" for part in parts for b in part["balances"] if not b["balanced"]]

    @property
    def progress(self) -> tuple[int, ...]:
        """Numbers that stop moving when all is stored and linked."""
        names = ("spans_paired", "spans_incomplete", "spans_acked")
        stored = (self.server["counters"].get(name, 0) for name in ("spans_stored", "links_made", "links_ambiguous"))
        return (*(agent["values"].get(name, 0) for agent in self.agents for name in names), *stored)

    @property
    def in_flight(self) -> int:
        """Spans that were made and are not stored yet, as far as the agents have reported."""
        names = ("spans_acked", "queue_dropped", "spans_filtered", "spans_rejected")
        made = sum(agent["values"].get(name, 0) for agent in self.agents for name in ("spans_paired", "spans_incomplete"))
        return int(made - sum(agent["values"].get(name, 0) for agent in self.agents for name in names))


def wait_for_rest(read: Callable[[], Report], still_s: float, timeout_s: float = REST_TIMEOUT_S) -> Report:
    """Wait until everything is stored, balances, and has not moved for still_s. Returns the last report, at rest or not."""
    give_up = time.monotonic() + timeout_s
    report, moved = read(), time.monotonic()
    while time.monotonic() < give_up:
        time.sleep(POLL_S)
        before, report = report, read()
        if report.progress != before.progress or not report.balanced or report.in_flight:
            moved = time.monotonic()
        if time.monotonic() - moved > still_s:
            break
    return report
