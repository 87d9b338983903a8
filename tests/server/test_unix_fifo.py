"""Joining the two ends of calls over unix sockets."""

import numpy as np
import pytest
from linking import publish
from span_factory import CLIENT, SERVER, Factory

MID_STREAM, AMBIGUOUS = 0x04, 0x10
A, B, C = (bytes([n] * 8 + [0] * 8) for n in (1, 2, 3))


def call(
    factory: Factory, *, at: float, position: int, answer: int | None = None, ends: tuple[bytes, bytes] = (A, B), late: int = 0,
    client_base: int = 0, server_base: int = 0, took: float = 1.0, connection: int = 1, sizes: tuple[int, int] = (30, 7),
    of: tuple[int, ...] = (CLIENT, SERVER),
) -> tuple[int, ...]:  # fmt: skip
    """One call as both ends see it; positions are those of the connection, each end counts from its base."""
    answer = position if answer is None else answer
    made = []
    for kind in of:
        is_client = kind == CLIENT
        base = client_base if is_client else server_base
        margin = 0.0 if is_client else 0.1
        made.append(
            factory.add(
                kind, pid=1 if is_client else 2, start=at + margin, end=at + took - margin, response_start=at + took - margin,
                local_addr=ends[not is_client], peer_addr=ends[is_client], local_port=0, peer_port=0,
                seq_space=3, req_seq=(position - base) % 2**32, resp_seq=(answer - base) % 2**32,
                request_bytes=sizes[0], response_bytes=sizes[1],
                flags=late, connection_id=connection * 10 + kind,
            )
        )  # fmt: skip
    return tuple(made)


def test_equal_positions_of_two_sockets_that_name_each_other_are_one_call() -> None:
    factory = Factory()
    pairs = [call(factory, at=i * 2, position=i * 30) for i in range(5)]
    found = publish(factory.batch())
    for client, server in pairs:
        assert (found.parent[server], found.method[server], found.confidence[server]) == (client, "unix_fifo", 1.0)


def test_the_same_addresses_again_are_another_connection() -> None:
    factory = Factory()
    pairs = [call(factory, at=i * 1.5, position=0, connection=i) for i in range(40)]
    found = publish(factory.batch())
    assert [found.parent[server] for _, server in pairs] == [client for client, _ in pairs]


def test_positions_of_different_pairs_of_sockets_never_meet() -> None:
    factory = Factory()
    (client,) = call(factory, at=0, position=0, ends=(A, B), of=(CLIENT,))
    (server,) = call(factory, at=0, position=0, ends=(A, C), of=(SERVER,))
    found = publish(factory.batch())
    assert (found.parent[client], found.parent[server]) == (0, 0)


def test_other_hosts_have_other_sockets_at_the_same_address() -> None:
    here, there = Factory(host="h1", boot_id="b1"), Factory(host="h2", boot_id="b2")
    call(here, at=0, position=0, of=(CLIENT,))
    call(there, at=0, position=0, of=(SERVER,))
    from deeptrace.server.correlate._window import rows_of

    one, two = rows_of(here.batch(), 1, 0), rows_of(there.batch(), 1, 0)
    assert one["tuple"][0] != two["tuple"][0]


def test_a_connection_joined_under_way_is_joined_in_order() -> None:
    factory = Factory()
    pairs = [
        call(factory, at=i * 2, position=10_000 + i * 30, client_base=10_000, server_base=9_000, late=MID_STREAM) for i in range(9)
    ]
    found = publish(factory.batch())
    for client, server in pairs:
        assert (found.parent[server], found.method[server]) == (client, "unix_fifo")
        assert found.confidence[server] == pytest.approx(0.99)


def test_pipelined_calls_joined_under_way_keep_their_order() -> None:
    factory = Factory()
    pairs, position = [], 5000
    for burst in range(4):
        for _ in range(30):  # all of one burst are written and read at the same time
            pairs.append(call(factory, at=burst * 3, position=position, client_base=5000, server_base=4990, late=MID_STREAM))
            position += 30
    found = publish(factory.batch())
    assert [found.parent[server] for _, server in pairs] == [client for client, _ in pairs]


def test_a_span_that_is_missing_at_one_end_shifts_nothing() -> None:
    factory = Factory()
    pairs = []
    for i in range(20):
        of = (CLIENT,) if i == 3 else (SERVER,) if i == 11 else (CLIENT, SERVER)
        made = call(factory, at=i * 2, position=i * 30, client_base=0, server_base=7, late=MID_STREAM, of=of)
        pairs.append(made if len(made) == 2 else (0, made[0]))
    found = publish(factory.batch())
    for i, (client, server) in enumerate(pairs):
        if i != 3:
            assert found.parent[server] == client


def test_requests_that_never_found_the_connection_idle_are_left_alone() -> None:
    factory = Factory()
    servers = []
    for i in range(30):  # each begins before the one before it has ended, and the first one's server end was not seen
        of = (CLIENT,) if i == 0 else (CLIENT, SERVER)
        made = call(factory, at=i, took=2.5, position=i * 30, server_base=60, late=MID_STREAM, of=of, sizes=(30 + i, 7))
        servers += made[1:]
    found = publish(factory.batch())
    assert not any(found.parent[server] for server in servers)


def test_ambiguous_positions_join_nothing() -> None:
    factory = Factory()
    _, server = call(factory, at=0, position=0, late=AMBIGUOUS)
    assert publish(factory.batch()).parent[server] == 0


def test_a_call_without_a_response_is_joined_by_its_request() -> None:
    factory = Factory()
    (client,) = call(factory, at=0, position=60, of=(CLIENT,), took=5)
    (server,) = call(factory, at=0.1, position=60, of=(SERVER,), took=2)
    factory.rows[1]["response_start_ns"] = 0
    assert publish(factory.batch()).parent[server] == client


def test_a_clock_that_is_read_anew_between_the_two_ends_hides_no_call() -> None:
    factory = Factory()
    pairs = [call(factory, at=i * 5, position=i * 30) for i in range(10)]
    for row in factory.rows:
        if row["kind"] == SERVER:
            for name in ("start_ns", "request_end_ns", "response_start_ns", "end_ns"):
                row[name] -= 300_000
    found = publish(factory.batch())
    assert [found.parent[server] for _, server in pairs] == [client for client, _ in pairs]


@pytest.mark.parametrize("late", [0, MID_STREAM])
def test_random_loads_are_joined_rightly_or_not_at_all(late: int) -> None:
    rng = np.random.default_rng(5)
    factory = Factory()
    truth: dict[int, int] = {}
    for pair in range(20):
        ends = bytes([pair + 1] * 8 + [0] * 8), bytes([pair + 101] * 8 + [0] * 8)
        at, position, answer = float(rng.uniform(0, 5)), 100, 40
        for _ in range(40):
            depth = int(rng.integers(1, 6))
            for _ in range(depth):
                size, got = int(rng.integers(20, 40)), int(rng.integers(5, 9))
                of = tuple(k for k in (CLIENT, SERVER) if rng.random() > 0.03)
                if of:
                    made = call(
                        factory, at=at, position=position, answer=answer, ends=ends, late=late, sizes=(size, got), of=of,
                        client_base=0, server_base=33 if late else 0, connection=pair,
                    )  # fmt: skip
                    if len(made) == 2:
                        truth[made[1]] = made[0]
                    elif of == (SERVER,):
                        truth[made[0]] = 0
                position += size
                answer += got
            at += 1 + float(rng.exponential(1.0))
    found = publish(factory.batch())
    assert all(found.parent[server] in (0, client) for server, client in truth.items())
    joined = sum(found.parent[server] != 0 for server in truth)
    assert joined >= 0.99 * sum(client != 0 for client in truth.values())
