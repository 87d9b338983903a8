"""What the probes say becomes lines of the agent's log: the sentence with its values, at its level, and not too many."""

import logging
import re

import numpy as np
import pytest

from deeptrace import clock
from deeptrace.agent import kernel_log
from deeptrace.agent.deadman import DeadMan
from deeptrace.agent.kernel_log import MAX_LINES_PER_S, KernelLog, Value, read_sentences
from deeptrace.core.batch import Batch
from deeptrace.core.wire import KIND_LOG, LOG_DTYPE, RECORD_DTYPE
from deeptrace.loader.probes import DEADLINE_NS
from deeptrace.resources import shipped_folder

DATA = 1


def batch_of(*lines):
    """lines: (message, level, values); a DATA record stands before each."""
    records = np.zeros(2 * len(lines), RECORD_DTYPE)
    records["kind"] = [DATA, KIND_LOG] * len(lines)
    records["exit_ns"] = range(1, 2 * len(lines) + 1)
    records["cpu"], records["tgid"], records["tid"] = 3, 100, 101
    payload = np.zeros(len(lines), LOG_DTYPE)
    for row, (message, level, values) in zip(payload, lines, strict=True):
        row["message"], row["level"], row["values"] = message, level, values
    records["payload_len"][1::2] = LOG_DTYPE.itemsize
    at = np.repeat(np.arange(len(lines), dtype=np.uint32) * LOG_DTYPE.itemsize, 2)
    return Batch.from_arrays(records, np.frombuffer(payload.tobytes(), np.uint8), at)


@pytest.fixture
def lines(monkeypatch):
    """Every line that is logged."""
    found = []
    handler = logging.Handler()
    handler.emit = found.append
    monkeypatch.setattr(kernel_log.logger, "handlers", [handler])
    monkeypatch.setattr(kernel_log.logger, "level", logging.DEBUG)
    return found


def number_of(name):
    return next(number for number, (found, _sentence) in read_sentences().items() if found == name)


def test_a_line_has_its_sentence_its_level_and_where_it_comes_from(lines):
    batch = batch_of((number_of("READ_FAULT"), 2, (0xFFFF888000000040, 10, 64)))
    assert KernelLog().show(batch) == 1
    expected = "socket ffff888000000040: a part of 64 bytes could not be read from user memory, 10 were captured"
    assert lines[0].getMessage() == expected
    assert lines[0].levelno == logging.WARNING
    assert lines[0].fields == {"line": "READ_FAULT", "cpu": 3, "pid": 100, "tid": 101, "monotonic_ns": 2}
    assert batch.records["kind"][batch.order].tolist() == [DATA]  # no later stage sees the line


def test_signed_values_and_names_of_calls_are_readable():
    assert f"{Value(2**64 - 11):s} {Value(11):s} {Value(7):call} {Value(63):call} {Value(255):x}" == "-11 11 writev call 63 ff"


def test_a_line_of_another_version_is_shown_with_its_values(lines):
    KernelLog().show(batch_of((9999, 4, (1, 2, 3))))
    assert lines[0].getMessage() == "a line of another version: 1 2 3"


def test_lines_beyond_what_a_second_shows_are_counted_and_said(lines, monkeypatch):
    now_ns = 5 * 10**9
    monkeypatch.setattr(clock, "monotonic_ns", lambda: now_ns)
    shown = KernelLog()
    one = (number_of("NOT_EMITTED"), 4, (1, 2, 6))
    assert shown.show(batch_of(*[one] * (MAX_LINES_PER_S + 7))) == MAX_LINES_PER_S + 7
    assert len(lines) == MAX_LINES_PER_S
    now_ns += 10**9
    shown.show(batch_of(one))
    assert lines[-2].fields == {"hidden": 7}
    assert "NOT_EMITTED" in lines[-1].fields.values()


def test_every_sentence_takes_three_values_and_is_said_somewhere():
    sentences = read_sentences()
    text = (shipped_folder("bpf") / "include" / "logs.def").read_text()
    assert len(sentences) == len(re.findall(r"^DT_LOG\(", text, re.MULTILINE))
    code = "".join(path.read_text() for path in shipped_folder("bpf").rglob("*.bpf.[hc]"))
    said = set(re.findall(r"\bdt_log\([^,]+,\s*(\w+),", code))
    assert {name for name, _sentence in sentences.values()} == said - {"name"}
    for _name, sentence in sentences.values():
        assert sentence.format(Value(1), Value(2), Value(3))


class Refreshed:
    def __init__(self):
        self.at_ns = []

    def refresh(self, now_ns):
        self.at_ns.append(now_ns)


def test_the_probes_are_told_once_a_second_and_a_lapse_is_said(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("deeptrace"), "propagate", True)
    probes, second = Refreshed(), 10**9
    dead_man = DeadMan(probes, 0)
    for now_ns in (second // 2, second, second + 1, 2 * second):
        dead_man.tick(now_ns)
    assert probes.at_ns == [second, 2 * second]
    assert dead_man.blind_ns == 0
    dead_man.tick(2 * second + DEADLINE_NS + 3 * second)
    assert dead_man.blind_ns == 3 * second
    assert caplog.records[-1].fields == {"blind_s": 3.0}
