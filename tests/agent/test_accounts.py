"""The agent's ledger while everything moves: figures that a running kernel could give, in every order."""

import numpy as np

from deeptrace.agent import accounts
from deeptrace.agent.accounts import Sources, read_account
from deeptrace.agent.sender import Delivery
from deeptrace.counters import NUMBERS, PythonCounters


class FakeKernel:
    """Calls that are entered, in flight and emitted; `between` happens at each look."""

    def __init__(self, *, entered=0, emitted=0, ring_full=0, between=lambda _kernel: None):
        self.entered, self.emitted, self.ring_full, self.decoded = entered, emitted, ring_full, 0
        self.between = between

    def counters(self):
        values = np.zeros(64, np.uint64)
        values[NUMBERS["calls"]] = self.entered
        values[NUMBERS["data_emitted"]] = self.emitted
        values[NUMBERS["ring_full"]] = self.ring_full
        self.between(self)
        return values

    def in_flight(self):
        found = self.entered - self.emitted
        self.between(self)
        return found

    def waiting(self):
        return self.emitted - self.ring_full - self.decoded


def account_of(kernel, *, core=None, delivery=None, held=0):
    values = np.zeros(256, np.uint64)
    values[NUMBERS["records_decoded"]] = values[NUMBERS["records_taken"]] = kernel.decoded
    for name, value in (core or {}).items():
        values[NUMBERS[name]] = value
    sources = Sources(
        kernel=kernel.counters,
        calls_in_flight=kernel.in_flight,
        core=lambda: values,
        gauges=lambda: {"records_in_ring": kernel.waiting()},
        python=PythonCounters(),
        delivery=lambda: delivery or Delivery(0, 0, 0, 0),
        spans_held=lambda: held,
    )
    return read_account(sources, 1)


def equation(account, name):
    return next(b for b in account.balances if b.name == name)


def test_a_quiet_ledger_balances_exactly():
    account = account_of(FakeKernel(entered=23, emitted=20))
    assert account.balanced
    assert equation(account, "calls").slack == 0
    assert account.values["calls_in_flight"] == 3
    assert account.values["records_in_ring"] == 20


def test_calls_that_enter_and_return_while_it_is_read_do_not_unbalance_it():
    def busy(kernel):
        kernel.entered += 7
        kernel.emitted += 5

    account = account_of(FakeKernel(entered=1000, emitted=990, between=busy))
    assert account.balanced, account.balances


def test_a_call_that_nobody_counted_unbalances_it_even_while_it_is_busy():
    def busy(kernel):
        kernel.entered += 2
        kernel.emitted += 2

    kernel = FakeKernel(entered=1000, emitted=990, between=busy)
    kernel.in_flight = lambda: 0
    account = account_of(kernel)
    assert not account.balanced
    assert not equation(account, "calls").balanced


def test_a_full_ring_is_a_loss_and_balances():
    account = account_of(FakeKernel(entered=29, emitted=29, ring_full=5))
    assert account.balanced
    assert account.events_lost == 5


def test_a_reading_that_a_paused_cpu_spoiled_is_read_again(monkeypatch):
    monkeypatch.setattr(accounts, "PAUSE_S", 0)
    kernel = FakeKernel(entered=10, emitted=10)
    looks = []

    def in_flight():
        looks.append(1)
        return 5 if len(looks) == 1 else 0

    kernel.in_flight = in_flight
    assert account_of(kernel).balanced
    assert len(looks) == 2


def test_every_span_is_somewhere_between_core_and_server():
    core = {"spans_paired": 100, "spans_incomplete": 3, "requests": 103, "responses": 100}
    delivery = Delivery(acked=60, rejected=3, dropped=10, in_flight=20)
    account = account_of(FakeKernel(), core=core, delivery=delivery, held=10)
    assert equation(account, "spans").balanced
    assert account.events_lost == 13
    assert not equation(account_of(FakeKernel(), core=core, delivery=delivery, held=9), "spans").balanced
