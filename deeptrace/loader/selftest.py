"""The known-answer test after each load: known messages go through every hook on loopback, and what is recorded is compared
with what the sockets say. Sees its own process only; afterwards the maps are as if nothing had happened."""

from __future__ import annotations

import os
import pathlib
import struct
import sys
import time
from typing import Any

from .flatten import SYSCALL
from .layouts import Layout, read_layouts, read_numbers
from .map_calls import map_update
from .map_reset import reset_maps
from .rings import cpu_numbers
from .selftest_calls import EGRESS, INGRESS, UNSEEN
from .selftest_judge import CAUSE, judge_calls, received_differs
from .selftest_life import close_pairs, judge_child, judge_connections, reset_one, run_child, wait_events
from .selftest_records import Reader, Record
from .selftest_traffic import Pair, Traffic, open_pairs, own_netns
from .selftest_uring import judge_requests, move

TRIES = 3  # a probe is skipped in the rare moment in which another one is interrupted: a true fault shows every time
MAX_BAD_CALLS = 2  # more calls than that do not fail one by one: the offsets are wrong, and with them the group
DATA_GROUP = "socket_io"
EPOCH = 0xFFFFFFFF  # CONFIG.filter_epoch: the agent begins with 1 and comes here after 4 billion changes


class Selftest:
    """run() once, after the probes are attached and before they are armed. attached: {group: its events}."""

    def __init__(
        self, bpf: pathlib.Path, maps: dict[str, int], rings: dict[int, int], ring_bytes: int, attached: dict[str, list[str]]
    ) -> None:
        self._bpf = bpf
        self._maps = maps
        self._rings = rings
        self._ring_bytes = ring_bytes
        self._groups = set(attached)
        layouts = read_layouts(bpf)
        self._config = layouts["dt_config"]
        self._process: Layout = layouts["dt_process"]
        text = (bpf / "include" / "syscalls.def").read_text(encoding="utf-8")
        numbers = {match["name"]: int(match["number"]) for match in SYSCALL.finditer(text)}
        events = set(attached.get(DATA_GROUP, ()))
        self._codes = {
            name: numbers[name] for name in (*EGRESS, *INGRESS, *UNSEEN) if name in numbers and f"sys_enter_{name}" in events
        }
        self._skipped: list[str] = []

    def run(self, socket_fops: int) -> dict[str, Any]:
        """{"passed", "calls", "messages", "groups": {group: sentence}, "bad_calls": {call: sentence}, "skipped", "seconds"}."""
        began = time.monotonic()
        report: dict[str, Any] = {"passed": False, "calls": sorted(self._codes), "messages": 0, "groups": {}, "bad_calls": {}}
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(allowed)})  # one ring, one order
        try:
            for _ in range(TRIES):
                self._skipped = []
                self._try(socket_fops, report)
                if report["passed"]:
                    break
        except OSError as e:
            self._skipped.append(f"the self-test could not be done: {e}")
            report.update(groups={}, bad_calls={})
        finally:
            os.sched_setaffinity(0, allowed)
        return {**report, "skipped": self._skipped, "seconds": round(time.monotonic() - began, 3)}

    def _try(self, socket_fops: int, report: dict[str, Any]) -> None:
        reader = Reader(self._rings, self._ring_bytes, self._bpf)
        try:
            self._arm(socket_fops)
            bad_calls, groups, report["messages"] = self._drive(reader)
        finally:
            self._disarm()
            reader.close()
            reset_maps(self._maps, max(cpu_numbers("possible")) + 1)
        if len(bad_calls) > min(MAX_BAD_CALLS, len(self._codes) // 2):
            groups[DATA_GROUP] = f"the self-test found {next(iter(bad_calls.values()))}; {CAUSE}"
            bad_calls = {}
        report.update(
            passed=report["messages"] > 0 and not bad_calls and not groups,
            groups=groups,
            bad_calls={call: f"the self-test found {why}" for call, why in bad_calls.items()},
        )

    def _drive(self, reader: Reader) -> tuple[dict[str, str], dict[str, str], int]:
        """Make everything happen that is to be recorded: (bad calls, bad groups, messages)."""
        records: list[Record] = []
        pairs, skipped = open_pairs()
        self._skipped += skipped
        try:
            netns = own_netns()
            traffic = Traffic(pairs, set(self._codes))
            if pairs:
                traffic.run()
            records += reader.take()
            requests = self._requests(pairs, reader, netns)
            bad_calls = judge_calls(traffic.truths, records, self._codes, netns)
            wrong = next(filter(None, map(received_differs, pairs)), "")
            if wrong:
                raise OSError(wrong)
            groups = {**requests, **self._life(pairs, records, reader, netns)}
        finally:
            for pair in pairs:
                pair.close()
        return bad_calls, groups, len(traffic.truths)

    def _requests(self, pairs: list[Pair], reader: Reader, netns: int) -> dict[str, str]:
        """What the group of io_uring has to say of its own messages: {group: what is wrong with it}."""
        stream = next((pair for pair in pairs if pair.is_stream), None)
        if "uring" not in self._groups or stream is None:
            return {}
        try:
            truths = move(stream)
        except OSError as e:
            self._skipped.append(f"io_uring was not tested: it cannot be used here ({e.strerror or e})")
            return {}
        finally:
            records = reader.take()
        wrong = judge_requests(truths, records, netns)
        return {"uring": f"the self-test found {wrong}; {CAUSE}"} if wrong else {}

    def _life(self, pairs: list[Pair], records: list[Record], reader: Reader, netns: int) -> dict[str, str]:
        """What the other groups have to say of the same connections and of a child: {group: what is wrong with it}."""
        events = close_pairs(pairs) + reset_one([pair.label for pair in pairs]) if "conn" in self._groups else []
        child = run_child() if "proc" in self._groups else None
        wait_events(len(events) + (3 if child else 0), records, reader.take)
        wrong = {
            "conn": judge_connections(events, records, netns),
            "proc": judge_child(child, records, self._process) if child else "",
        }
        return {group: f"the self-test found that {why}; {CAUSE}" for group, why in wrong.items() if why}

    def _arm(self, socket_fops: int) -> None:
        """Let the hooks follow this process, and no other."""
        flags = sum(read_numbers(self._bpf, "DT_PID_TRACE", "DT_PID_FOLLOW", "DT_PID_OWN"))
        map_update(self._maps["PIDS"], struct.pack("=I", os.getpid()), struct.pack("=I", flags))
        limits = {"payload_bytes": 4096, "head_bytes": 4096}  # more than any message has
        self._write_config(socket_fops=socket_fops, filter_epoch=EPOCH, **limits)

    def _disarm(self) -> None:
        self._write_config()

    def _write_config(self, **values: int) -> None:
        config = bytearray(self._config.bytes)
        for name, value in values.items():
            field = self._config.fields[name]
            config[field.offset : field.offset + field.bytes] = value.to_bytes(field.bytes, sys.byteorder)
        map_update(self._maps["CONFIG"], struct.pack("=i", 0), bytes(config))


def check(groups: Any, maps: dict[str, int], rings: dict[int, int], socket_fops: int, request: dict[str, Any]) -> dict[str, Any]:
    """Test what is attached and detach what fails: a call alone, or its group. groups: compile.ProbeGroups. What was found, for the
    report; empty when the request leaves the test out."""
    if not request.get("selftest", True) or DATA_GROUP not in groups.attached:
        return {}
    found = Selftest(pathlib.Path(request["bpf"]), maps, rings, int(request["ring_bytes"]), groups.attached).run(socket_fops)
    for call, why in found["bad_calls"].items():
        groups.drop_call(call, why)
    for group, why in found["groups"].items():
        groups.drop(group, why)
    return found
