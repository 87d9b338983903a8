"""The query API under /api/v1: checks parameters, asks query.py, answers JSON. Knows no SQL.

Every wrong parameter is answered with status 400 and {"error": one sentence}. Lists of spans stream as one object a line.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from deeptrace import clock
from deeptrace.core.wire import SPAN_STATUSES
from deeptrace.errors import DeepTraceError, StoreError, UsageError
from deeptrace.model import PROTOCOL_NAMES, span_json
from deeptrace.server import query
from deeptrace.server.live import Filter, Live
from deeptrace.server.store.store import Store

MAX_LIMIT = 100_000  # rows of one answer; 150 MB of JSON
MAX_TEXT = 1024  # characters of a service or name to look for
N_QUERIES = 4  # at the same time; each has a client of its own and two threads in the engine
TAIL_WAKE_S = 0.5  # how soon a quiet tail notices that its reader has gone
DEFAULT_SINCE_S = 900.0

Handler = Callable[[Request], Awaitable[Response]]


class Api:
    """The routes over one store. doctor: what the server says of itself and of its agents."""

    def __init__(self, store: Store, live: Live, doctor: Callable[[], Mapping[str, Any]]) -> None:
        self._store, self._live, self._doctor = store, live, doctor
        self._pool = ThreadPoolExecutor(N_QUERIES, thread_name_prefix="dt-query")
        self._tails = ThreadPoolExecutor(16, thread_name_prefix="dt-tail")
        routes = [
            ("spans", self.spans), ("traces", self.traces), ("traces/{id}", self.trace), ("services", self.services),
            ("tail", self.tail), ("doctor", self.doctor), ("health", self.health),
        ]  # fmt: skip
        self.app = Starlette(routes=[Route(f"/api/v1/{path}", _guarded(handler)) for path, handler in routes])

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._tails.shutdown(wait=True, cancel_futures=True)

    async def spans(self, request: Request) -> Response:
        p = Parameters(request, "since", "service", "protocol", "status", "name", "limit", "order")
        found = await self._ask(
            query.spans, since_ns=p.since_ns(), service=p.text("service"), protocol=p.one_of("protocol", PROTOCOLS),
            status=p.one_of("status", STATUSES), name=p.text("name"), limit=p.limit(100), order=p.one_of("order", ORDERS),
        )  # fmt: skip
        return _json({"spans": found})

    async def traces(self, request: Request) -> Response:
        p = Parameters(request, "since", "service", "status", "name", "limit", "order", "min_duration_ms", "min_spans")
        found = await self._ask(
            query.traces, since_ns=p.since_ns(), service=p.text("service"), status=p.one_of("status", STATUSES),
            name=p.text("name"), limit=p.limit(20), order=p.one_of("order", ORDERS),
            min_duration_ns=round(p.number("min_duration_ms", 0.0) * 1e6), min_spans=int(p.number("min_spans", 1.0)),
        )  # fmt: skip
        return _json({"traces": found})

    async def trace(self, request: Request) -> Response:
        Parameters(request)
        trace_id = str(request.path_params["id"]).lower()
        if not re.fullmatch(r"[0-9a-f]{32}", trace_id):
            raise UsageError(f"{trace_id[:64]!r} is not a trace id; it has 32 hexadecimal digits")
        found = await self._ask(query.trace, trace_id)
        return _json(found) if found else _json({"error": f"there is no trace {trace_id}"}, 404)

    async def services(self, request: Request) -> Response:
        found = await self._ask(query.services, since_ns=Parameters(request, "since").since_ns())
        return _json({"services": found})

    async def doctor(self, request: Request) -> Response:
        Parameters(request)
        return _json(await asyncio.get_running_loop().run_in_executor(self._pool, self._doctor))

    async def health(self, request: Request) -> Response:
        Parameters(request)
        return _json({"status": "ok"})

    async def tail(self, request: Request) -> Response:
        """Spans as they are stored, one JSON object a line; {"missed": n} when the reader is too slow."""
        p = Parameters(request, "service", "protocol", "status", "name")
        wanted = Filter(
            service=p.text("service"),
            protocol=p.one_of("protocol", PROTOCOLS),
            status=p.one_of("status", STATUSES),
            name=p.text("name"),
        )
        watcher = self._live.watch(wanted)
        if watcher is None:
            return _json({"error": "too many watch already; end another tail first"}, 503)
        loop = asyncio.get_running_loop()

        def lines() -> bytes | None:
            found = watcher.spans(TAIL_WAKE_S)
            if found is None:
                return None
            encoded = [msgspec.json.encode(span_json(span)) + b"\n" for span in found]
            missed = watcher.take_missed()
            if missed:
                encoded.append(msgspec.json.encode({"missed": missed}) + b"\n")
            return b"".join(encoded)

        async def stream() -> AsyncIterator[bytes]:
            try:
                yield b"\n"  # the reader sees that the tail has begun
                while (chunk := await loop.run_in_executor(self._tails, lines)) is not None:
                    if chunk:
                        yield chunk
                    elif await request.is_disconnected():
                        return
            finally:
                self._live.unwatch(watcher)

        return StreamingResponse(stream(), media_type="application/x-ndjson")

    async def _ask(self, question: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: question(self._store, *args, **kwargs))


PROTOCOLS = tuple(PROTOCOL_NAMES.values())
STATUSES = tuple(SPAN_STATUSES.values())
ORDERS = ("desc", "asc")


class Parameters:
    """The query parameters of one request. Raises UsageError for what cannot be used."""

    def __init__(self, request: Request, *known: str) -> None:
        self._values = dict(request.query_params)
        for name in self._values:
            if name not in known:
                raise UsageError(f"there is no parameter {name[:64]!r} here; known are: {', '.join(known) or 'none'}")

    def text(self, name: str) -> str:
        value = self._values.get(name, "")
        if len(value) > MAX_TEXT:
            raise UsageError(f"{name} is longer than {MAX_TEXT} characters")
        return value

    def one_of(self, name: str, choices: tuple[str, ...]) -> str:
        value = self._values.get(name, "")
        if value and value not in choices:
            raise UsageError(f"{name} is {value[:64]!r}; it must be one of {', '.join(choices)}")
        return value

    def number(self, name: str, default: float) -> float:
        text = self._values.get(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1e9:
            raise UsageError(f"{name} is {text[:64]!r}; it must be a number from 0 to 1000000000")
        return value

    def limit(self, default: int) -> int:
        value = self.number("limit", default)
        if value != int(value) or not 1 <= value <= MAX_LIMIT:
            raise UsageError(f"limit must be a whole number from 1 to {MAX_LIMIT}")
        return int(value)

    def since_ns(self) -> int:
        """Unix ns of the earliest start wanted. since: seconds before now, or Unix ns."""
        value = self._values.get("since")
        if value is not None and re.fullmatch(r"[0-9]{16,19}", value):
            return int(value)
        return max(0, clock.unix_ns() - round(self.number("since", DEFAULT_SINCE_S) * 1e9))


def _guarded(handler: Handler) -> Handler:
    """Turn our errors into answers."""

    async def guarded(request: Request) -> Response:
        started = time.perf_counter()
        try:
            response = await handler(request)
        except UsageError as e:
            response = _json({"error": str(e)}, 400)
        except StoreError as e:
            response = _json({"error": str(e)}, 503)
        except DeepTraceError as e:
            response = _json({"error": str(e)}, 500)
        response.headers["Server-Timing"] = f"total;dur={(time.perf_counter() - started) * 1e3:.1f}"
        return response

    return guarded


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value) + b"\n", status, media_type="application/json")
