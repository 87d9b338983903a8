"""Runs batches through flow, infer, frame and pair, and hands out span rows. One pipeline belongs to one thread."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from deeptrace.core.batch import Batch
from deeptrace.core.counters import Counters
from deeptrace.core.proto import L7Protocol

REQUEST_TIMEOUT_NS: int
HOLD_NS: int
QUIET_NS: int
EARLY_NS: int
LINGER_NS: int
IDLE_NS: int
MAX_FLOWS: int
MAX_OPEN_REQUESTS: int
MAX_RAISED: int
MEMORY_BYTES: int
WISH_DTYPE: np.dtype[np.void]

class SpanRows(NamedTuple):
    spans: npt.NDArray[np.void]
    attributes: npt.NDArray[np.void]
    string_at: npt.NDArray[np.uint32]
    string_bytes: npt.NDArray[np.uint8]
    pids: npt.NDArray[np.uint32]

class Pipeline:
    def __init__(
        self,
        *,
        protocols: Iterable[L7Protocol],
        boot_id: str,
        counters: Counters,
        request_timeout_ns: int = ...,
        hold_ns: int = ...,
        quiet_ns: int = ...,
        early_ns: int = ...,
        linger_ns: int = ...,
        idle_ns: int = ...,
        max_flows: int = ...,
        max_open_requests: int = ...,
        memory_bytes: int = ...,
        capture_start_ns: int = ...,
        payload_bytes: int = ...,
        payload_max_bytes: int = ...,
        max_raised: int = ...,
    ) -> None: ...
    def feed(self, batch: Batch, now_ns: int, first: int = ..., max_spans: int = ...) -> int: ...
    def flush(self, now_ns: int) -> None: ...
    def finish(self, now_ns: int) -> None: ...
    def take(self, clock_offset_ns: int) -> SpanRows: ...
    def set_payload(self, payload_bytes: int, payload_max_bytes: int) -> None: ...
    def take_limits(self) -> npt.NDArray[np.void]: ...
    def gauges(self) -> dict[str, int]: ...
