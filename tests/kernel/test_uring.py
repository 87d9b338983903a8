"""io_uring requests on sockets are told as what they moved: bytes, connection, times, position; and all of them are counted."""

import json
import subprocess
from collections import defaultdict

import pytest
from conformance import running
from ring_reader import CONN, DATA, wait_readable

from deeptrace.core.wire import RECORD_FLAGS, SYSCALL_ROWS
from deeptrace.loader import maps
from deeptrace.loader.client import ProbeConfig

pytestmark = pytest.mark.kernel

CALL_NAMES = {row[0]: row[1] for row in SYSCALL_ROWS}
URING, AMBIGUOUS, VALID, MISSED = (RECORD_FLAGS[name] for name in ("uring", "seq_ambiguous", "seq_valid", "enter_missed"))
OUTCOMES = (
    "data_emitted", "no_data", "other_socket", "interrupted", "map_insert_failed", "syscall_payload_length_invalid",
    "muted", "shed", "port_filtered",
)  # fmt: skip
CONNECT, ACCEPT = 1, 2
MODES = ("plain", "async", "defer", "sqpoll", "fixed")


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    return running.build("uring", tmp_path_factory.mktemp("uring"))


class Said:
    """What the program says that it did. Its rings exist before it is traced, its sockets do not."""

    def __init__(self, program, mode, kernel):
        self.popen = subprocess.Popen([program, mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        first = self.popen.stdout.readline()
        if first.startswith("unavailable"):
            self.popen.communicate()
            pytest.skip(f"io_uring is switched off on this machine ({first.split(None, 1)[1].strip()})")
        kernel.probes.pids.set(self.popen.pid, maps.TRACE)

    def run(self, kernel):
        """(what it said, the records)."""
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()
        records, text = [], ""
        while wait_readable([self.popen.stdout], 10):
            part = self.popen.stdout.readline()
            records += kernel.rings.drain()
            if not part:
                break
            text += part
        assert self.popen.wait(timeout=10) == 0
        records += kernel.rings.drain()
        return [json.loads(line) for line in text.splitlines()], records


@pytest.fixture(scope="module", params=MODES)
def told(request, loaded, program):
    """One run in each mode: what the program said, the records, what the counters grew by."""
    config = ProbeConfig(payload_bytes=16384, head_bytes=0, batch_bytes=0)
    loaded.rings.drain()
    loaded.probes.arm(config)
    before = loaded.counters()
    said, records = Said(program, request.param, loaded).run(loaded)
    loaded.probes.disarm()
    after = loaded.counters()
    return said, records, {name: after[name] - before[name] for name in after}


def by_end(things, key):
    found = defaultdict(list)
    for thing in things:
        found[key(thing)].append(thing)
    return found


def connections(told):
    """[(what was said of one direction of one end, its records)]."""
    said, records, _grown = told
    moved = [line for line in said if "call" in line and line["result"] > 0]
    rings = [r for r in records if r.kind == DATA and r.flags & URING]
    is_egress = lambda call: call in ("write", "writev", "sendto", "sendmsg")  # noqa: E731
    expected = by_end(moved, lambda line: (is_egress(line["call"]), line["local"], line["peer"]))
    found = by_end(rings, lambda r: (r.direction == 1, r.local[1], r.peer[1]))
    assert set(found) == set(expected)
    return [(expected[key], found[key]) for key in expected]


def test_every_request_is_told_with_its_call_its_bytes_and_its_payload(told):
    ends = connections(told)
    assert len(ends) > 20
    for expected, records in ends:
        assert [(CALL_NAMES[r.code], r.result) for r in records] == [(line["call"], line["result"]) for line in expected]
        for record, line in zip(records, expected, strict=True):
            assert record.payload.hex() in ((line["data"], "") if line["name"] == "recv chosen" else (line["data"],))


def test_a_position_that_is_not_flagged_is_right(told):
    flagged = checked = 0
    for _expected, records in connections(told):
        streams = [r for r in records if r.fields["tuple"]["l4_protocol"] == 6]
        at = next((r.position for r in streams), 0)
        for record in streams:
            assert record.flags & VALID
            checked += 1
            if record.flags & AMBIGUOUS:
                flagged += 1
            else:
                assert record.position == at % 2**32
            at += record.result
    assert checked > 60
    assert flagged <= checked * 0.2


def test_both_ends_of_a_stream_give_a_byte_the_same_position(told):
    first = {}
    for _expected, records in connections(told):
        record = records[0]
        if record.fields["tuple"]["l4_protocol"] == 6 and not record.flags & AMBIGUOUS:
            first[record.direction, record.local[1], record.peer[1]] = record.position
    both = [(position, first.get((1, peer, local))) for (direction, local, peer), position in first.items() if direction == 0]
    pairs = [pair for pair in both if pair[1] is not None]
    assert len(pairs) >= 5
    assert all(a == b for a, b in pairs)


def test_a_request_that_waited_before_it_was_traced_is_told_by_its_completion(told):
    early = [records[0] for expected, records in connections(told) if expected[0]["name"] == "recv early"]
    assert [(r.result, r.flags & MISSED != 0, r.enter_ns == r.exit_ns) for r in early] == [(30, True, True)]
    others = [r for expected, records in connections(told) for r in records if expected[0]["name"] != "recv early"]
    assert not any(r.flags & MISSED for r in others)


def test_times_and_processes_are_those_of_the_request(told):
    for _expected, records in connections(told):
        assert all(r.enter_ns < r.exit_ns or r.flags & MISSED for r in records)
        assert len({r.tgid for r in records}) == 1


def test_connections_that_requests_make_are_told_with_their_ends(told):
    said, records, _grown = told
    made = [(line["made"], line["with"]) for line in said if "made" in line]
    begun = [(r.code, r.local[1], r.peer[1]) for r in records if r.kind == CONN and r.code in (CONNECT, ACCEPT)]
    assert len(made) == 2
    for client, server in made:
        assert begun.count((CONNECT, client, server)) == begun.count((ACCEPT, server, client)) == 1
    connects = [r for r in records if r.kind == CONN and r.code == CONNECT and (r.local[1], r.peer[1]) in made]
    assert all(r.enter_ns < r.exit_ns and r.payload_len > 0 for r in connects)


def test_the_books_of_the_requests_balance(told):
    said, records, grown = told
    assert grown["ring_full"] == 0
    assert grown["enter_missed"] == 0
    data = [r for r in records if r.kind == DATA]
    assert grown["data_emitted"] == len(data)
    assert grown["uring_no_payload"] == len([r for r in data if not r.payload]) <= 6
    assert grown["calls"] + grown["uring_calls"] == sum(grown[name] for name in OUTCOMES) + grown["not_socket"]
    assert grown["uring_calls"] >= len([line for line in said if "call" in line]) + 3


@pytest.mark.usefixtures("told")
def test_nothing_stays_in_the_maps_when_the_program_has_ended(loaded):
    assert [maps.fill(loaded.probes.map_fds[name])[0] for name in ("URING", "URING_SHOTS")] == [0, 0]
