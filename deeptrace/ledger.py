"""The equations that must hold between counters. Reads counters; never changes them.

While events are on their way, the two sides of an equation are read at slightly different moments. Therefore a check reads
what moves on its own twice: a balanced ledger lies between the two readings, and a quiet one balances exactly.
"""

from collections.abc import Mapping
from dataclasses import dataclass

Values = Mapping[str, int]


@dataclass(frozen=True)
class Equation:
    """left = right, each a sum of counters and gauges; what comes in on the left, where it went on the right."""

    name: str
    left: tuple[str, ...]
    right: tuple[str, ...]


@dataclass(frozen=True)
class Balance:
    """One equation with its values. slack: how far the sides moved on while they were read."""

    name: str
    left: int
    right: int
    slack: int

    @property
    def balanced(self) -> bool:
        return 0 <= self.left - self.right <= self.slack


KERNEL_DROPS = (
    "map_insert_failed", "map_get_failed", "invalid_direction", "syscall_payload_length_invalid", "message_cut",
)  # fmt: skip

EQUATIONS = (
    Equation(
        "calls",
        ("calls", "extra_messages", "uring_calls"),
        (
            "data_emitted",
            "not_socket",
            "other_socket",
            "no_data",
            "interrupted",
            "shed",
            "muted",
            "port_filtered",
            *KERNEL_DROPS,
            "calls_in_flight",
        ),
    ),
    Equation(
        "records",
        # The last: taken in time, though the ring was then too full for them.
        ("data_emitted", "conn_emitted", "proc_emitted", "log_emitted", "records_saved"),
        ("records_decoded", "bad_record", "ring_full", "records_in_ring"),
    ),
    Equation("decoded", ("records_decoded",), ("records_taken", "records_filtered")),
    Equation(
        "bytes",
        ("bytes_in",),
        (
            "bytes_framed",
            "bytes_not_captured",
            "bytes_unknown",
            "bytes_resync",
            "bytes_duplicate",
            "bytes_abandoned",
            "bytes_upgraded",
            "bytes_datagram",
            "bytes_carried",
        ),
    ),
    Equation(
        "requests",
        ("requests",),
        ("spans_paired", "spans_incomplete", "request_unpaired_after_cut", "request_overflow", "requests_open"),
    ),
    Equation(
        "responses",
        ("responses",),
        ("spans_paired", "orphan_response", "response_unpaired_after_cut", "responses_open"),
    ),
    Equation(
        "spans",
        ("spans_paired", "spans_incomplete"),
        ("spans_acked", "queue_dropped", "spans_filtered", "spans_rejected", "spans_in_flight"),
    ),
    Equation(
        "ingest",
        ("spans_received",),
        ("spans_stored", "spans_duplicate", "spans_rejected", "spans_in_queue"),
    ),
)  # `*_in_flight`, `*_in_queue`, `*_in_ring`, `*_open`, `*_carried` are gauges; all others are in counters.def


def check(values: Values, later: Values | None = None) -> list[Balance]:
    """Check every equation whose left side is present. values: counters and gauges, one consistent reading; later: a second
    reading of those that move on their own, taken after `values`. What either side grew by meanwhile is allowed as slack: a
    call that was entered or has returned between the two readings stands on one side only."""
    later = values if later is None else later
    balances = []
    for equation in EQUATIONS:
        if not all(name in values for name in equation.left):
            continue
        left = sum(later.get(name, values[name]) for name in equation.left)
        right = sum(values.get(name, 0) for name in equation.right)
        moved = sum(later.get(name, values[name]) - values[name] for name in equation.left)
        moved += sum(later[name] - values.get(name, 0) for name in equation.right if name in later)
        balances.append(Balance(equation.name, left, right, moved))
    return balances


def is_balanced(balances: list[Balance]) -> bool:
    return bool(balances) and all(b.balanced for b in balances)
