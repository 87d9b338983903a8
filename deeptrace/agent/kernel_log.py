"""Shows what debug builds of the probes say as lines of the agent's own log, at their level. The sentences stand in logs.def.

A line costs a Python call, so there is a bound; what is beyond it is counted and said.
"""

import logging
import re
from typing import Any

from deeptrace import clock
from deeptrace.core.batch import Batch
from deeptrace.core.wire import SYSCALL_ROWS
from deeptrace.counters import NUMBERS
from deeptrace.log import event
from deeptrace.resources import shipped_folder

LINE = re.compile(r'^DT_LOG\((?P<number>\d+),\s*(?P<level>\w+),\s*(?P<name>\w+),\s*"(?P<sentence>[^"]*)"\)', re.MULTILINE)
LEVELS = {1: logging.ERROR, 2: logging.WARNING, 3: logging.INFO, 4: logging.DEBUG}  # dt_records.h: enum dt_log_level
MOST_DETAILED = 4
MAX_LINES_PER_S = 500  # a terminal shows no more, and the agent has other work
CALLS = {row[0]: row[1] for row in SYSCALL_ROWS}
COUNTER_NAMES = {number: name for name, number in NUMBERS.items()}

logger = logging.getLogger("deeptrace.probes")


class Value(int):
    """One value of a line as its sentence wants it: {0} unsigned, {0:s} signed, {0:x} hexadecimal, {0:call} a data call's
    name, {0:counter} a counter's."""

    def __format__(self, spec: str) -> str:
        if spec == "s":
            return str(self - (1 << 64) if self >> 63 else int(self))
        if spec == "call":
            return CALLS.get(int(self), f"call {int(self)}")
        if spec == "counter":
            return COUNTER_NAMES.get(int(self), f"counter {int(self)}")
        return format(int(self), spec)


def read_sentences() -> dict[int, tuple[str, str]]:
    """{number: (NAME, sentence)} of logs.def."""
    text = (shipped_folder("bpf") / "include" / "logs.def").read_text()
    return {int(line["number"]): (line["name"], line["sentence"]) for line in LINE.finditer(text)}


class KernelLog:
    """show() with every batch that has log records, before anything else sees it."""

    def __init__(self) -> None:
        self._sentences = read_sentences()
        self._second = 0
        self._shown = 0
        self._hidden = 0

    def show(self, batch: Batch) -> int:
        """Log the log records of a batch in the order of time and take them out of it. Returns how many there were."""
        records, lines = batch.take_logs()
        for record, line in zip(records, lines, strict=True):
            if self._has_room():
                self._show_one(record, line)
        return len(records)

    def _has_room(self) -> bool:
        second = clock.monotonic_ns() // 10**9
        if second != self._second:
            if self._hidden:
                event(logger, logging.WARNING, "more lines than are shown in a second", hidden=self._hidden)
            self._second, self._shown, self._hidden = second, 0, 0
        if self._shown >= MAX_LINES_PER_S:
            self._hidden += 1
            return False
        self._shown += 1
        return True

    def _show_one(self, record: Any, said: Any) -> None:
        name, sentence = self._sentences.get(int(said["message"]), ("UNKNOWN", "a line of another version: {0} {1} {2}"))
        event(
            logger,
            LEVELS.get(int(said["level"]), logging.DEBUG),
            sentence.format(*(Value(value) for value in said["values"].tolist())),
            line=name,
            cpu=int(record["cpu"]),
            pid=int(record["tgid"]),
            tid=int(record["tid"]),
            monotonic_ns=int(record["exit_ns"]),
        )
