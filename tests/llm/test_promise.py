"""Whoever is turned away by a limit is told a time of his own, and gets in when he comes then."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest

from edgeq.config.schema_llm import TokenLimits
from edgeq.llm.account import NO_LIMITS
from edgeq.llm.accounts import AccountsHolder
from edgeq.llm.estimate import Estimate, Estimator
from edgeq.llm.ledger import Ledger, Reservation, reserve
from edgeq.llm.message import Usage
from edgeq.llm.meter import KEY, TENANT, Meter
from edgeq.llm.plan import ORDERED, ModelPlan
from edgeq.llm.promise import MOST_S, come_again_s, place_s
from edgeq.llm.till import Bill, Till
from edgeq.policy.rate import LocalArrivals
from tests.llm.gates import FakeLoop

NOW = 1000.0
WALL = 1_800_000_000.0


def ledger_at(arrivals: LocalArrivals, now: float = NOW) -> Ledger:
    ledger = Ledger(arrivals)
    ledger.tick(now, WALL + now)
    return ledger


def alone(**limits: Any) -> Meter:
    return ledger_at(LocalArrivals()).meter(KEY, "one", TokenLimits(**limits))


def turned_away(meter: Meter, estimate: Estimate, now: float = NOW) -> float:
    """When one who is refused is told to come again."""
    assert not isinstance(reserve([meter], estimate, now), Reservation)
    return come_again_s([meter], estimate, now) + now - NOW


def asked(tokens: int) -> Estimate:
    """What a request for so many is reckoned with, some of them for its answer."""
    output = min(50, tokens // 2)
    found = Estimate(tokens - output, output)
    found.model = "small"
    return found


class Clients:
    """They come at a tenant's own limit, all at once, wait for as long as they are told, and give up after two more
    tries, as SDKs."""

    def __init__(self, workers: int, limits: TokenLimits, took_s: float = 1.0) -> None:
        self.loop = FakeLoop()
        arrivals = LocalArrivals()
        self.tills = [Till(AccountsHolder(), ledger_at(arrivals, self.loop.now)) for _ in range(workers)]
        self.plan = ModelPlan("small", ORDERED, [], "", None, NO_LIMITS)
        self.limits = limits
        self.took_s = took_s
        self.tries: Counter[int] = Counter()
        self.served: list[int] = []
        self.told: list[float] = []

    def ask(self, number: int, estimate: Estimate) -> None:
        self.tries[number] += 1
        bill = Bill(self.tills[(number + self.tries[number]) % len(self.tills)], b"acme")
        bill.estimate = estimate
        now = self.loop.now
        refusal = bill.reserve(self.plan, "models", self.limits, None, now)
        if refusal is None:
            self.served.append(number)
            usage = Usage(estimate.input, estimate.output)
            self.loop.call_later(self.took_s, lambda: self.settle(bill, usage))
            return
        self.told.append(refusal.wait_s)
        if self.tries[number] < 3:
            self.loop.call_later(refusal.wait_s + 0.001, partial(self.ask, number, estimate))

    def settle(self, bill: Bill, usage: Usage) -> None:
        bill.settle("small", None, usage, 1, True, 200, self.took_s, 0.0, self.loop.now)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("limits", "sizes"),
    [
        (TokenLimits(tokens_per_minute=6000), [1250] * 10),
        (TokenLimits(tokens_per_minute=6000), [3000, 3000, 500, 2500, 1000, 200]),
        (TokenLimits(requests_per_minute=5), [10] * 10),
        (TokenLimits(output_tokens_per_minute=600), [1250] * 20),
        (TokenLimits(requests_per_minute=30, tokens_per_minute=6000), [1250] * 10),
    ],
)
def test_who_comes_when_he_was_told_gets_in(workers: int, limits: TokenLimits, sizes: list[int]) -> None:
    """All of them, at a limit of requests, of tokens, of output, or of both; large ones and small ones."""
    clients = Clients(workers, limits)
    for number, size in enumerate(sizes):
        clients.ask(number, asked(size))
    clients.loop.run(180.0)
    assert sorted(clients.served) == list(range(len(sizes))), clients.told
    assert max(clients.told) <= MOST_S


@pytest.mark.parametrize(("concurrent", "took_s"), [(1, 2.0), (2, 4.0), (8, 4.0), (8, 30.0)])
def test_who_comes_when_he_was_told_finds_a_place(concurrent: int, took_s: float) -> None:
    """Of ten, at once, at a limit of requests at once; how long these take is known from those before."""
    clients = Clients(1, TokenLimits(concurrent=concurrent), took_s)
    clients.tills[0].estimator.learn(asked(10), Usage(5, 5), seconds=took_s)
    for number in range(10):
        clients.ask(number, asked(10))
    clients.loop.run(180.0)
    assert sorted(clients.served) == list(range(10)), clients.told
    assert max(clients.told) <= MOST_S


def test_how_long_requests_take_is_learned() -> None:
    """Of nine in ten that take a second, and one that takes four, one says too little, and four too much; of a model
    that nobody has asked nothing is known."""
    estimator = Estimator()
    assert estimator.takes_s("small") == 2.0
    for number in range(200):
        estimator.learn(asked(10), Usage(5, 5), seconds=4.0 if number % 10 == 5 else 1.0)
    assert 1.0 < estimator.takes_s("small") < 3.0


def test_nobody_is_told_more_than_a_minute_for_a_place() -> None:
    """However long requests take, or how many were told to come again."""
    meter = alone(concurrent=1)
    assert place_s(meter, 1, 300.0, NOW) == MOST_S
    told = [place_s(meter, 1, 20.0, NOW) for _ in range(4)]
    assert told == pytest.approx([20.0, 41.0, 60.0, 60.0], abs=2.1)
    assert max(told) <= MOST_S


def test_each_is_told_his_own_time() -> None:
    """After those who were told one before, by what they need, not by what he needs."""
    meter = alone(tokens_per_minute=6000)
    assert isinstance(reserve([meter], Estimate(5000, 1000), NOW), Reservation)
    told = [turned_away(meter, Estimate(tokens, 0)) for tokens in (1000, 2000, 100, 500)]
    assert told == pytest.approx([10.0, 30.0, 31.0, 36.0])


def test_nobody_is_told_more_than_a_minute() -> None:
    """Who is told a minute has no place: those who come first then are told the times that follow."""
    meter = alone(tokens_per_minute=6000)
    assert isinstance(reserve([meter], Estimate(6000, 0), NOW), Reservation)
    assert [turned_away(meter, Estimate(2500, 0)) for _ in range(5)] == pytest.approx([25.0, 50.0, 60.0, 60.0, 60.0])
    assert turned_away(meter, Estimate(2500, 0), NOW + 20.0) == pytest.approx(75.0)


def test_who_never_comes_back_keeps_nobody_out() -> None:
    """What there is may be had by who comes, whatever was promised; and the promise passes."""
    meter = alone(requests_per_minute=6)
    for _ in range(6):
        reserve([meter], Estimate(1, 1), NOW)
    assert [turned_away(meter, Estimate(1, 1)) for _ in range(3)] == pytest.approx([10.0, 20.0, 30.0])
    assert isinstance(reserve([meter], Estimate(1, 1), NOW + 10.0), Reservation)
    assert turned_away(meter, Estimate(1, 1), NOW + 10.0) == pytest.approx(40.0)
    late = NOW + 100.0
    for _ in range(6):
        assert isinstance(reserve([meter], Estimate(1, 1), late), Reservation)
    assert turned_away(meter, Estimate(1, 1), late) == pytest.approx(110.0)


def test_one_who_wants_far_more_than_a_limit_is_forgotten_as_soon_as_others() -> None:
    """What he would owe is nobody's wait until he has come."""
    meter = alone(tokens_per_minute=1000)
    reserve([meter], Estimate(900, 0), NOW)
    assert turned_away(meter, Estimate(100, 9000)) == pytest.approx(54.0)
    late = NOW + 120.0
    reserve([meter], Estimate(900, 0), late)
    assert turned_away(meter, Estimate(200, 0), late) == pytest.approx(126.0)


def test_a_line_behind_a_debt_counts_it_once() -> None:
    """It was one of another limit the last time it was so long."""
    meter = alone(tokens_per_minute=1000)
    reserve([meter], Estimate(10, 3990), NOW)
    assert turned_away(meter, Estimate(1, 0)) == MOST_S
    late = NOW + 300.0
    meter.resize(TokenLimits(tokens_per_minute=100))
    reserve([meter], Estimate(10, 190), late)
    assert turned_away(meter, Estimate(1, 0), late) == 300.0 + MOST_S
    later = late + 130.0
    reserve([meter], Estimate(100, 0), later)
    assert turned_away(meter, Estimate(10, 0), later) == pytest.approx(436.0)


def test_a_limit_that_is_raised_shortens_the_line() -> None:
    """What was promised is so many tokens, whatever the limit."""
    meter = alone(tokens_per_minute=600)
    reserve([meter], Estimate(600, 0), NOW)
    assert [turned_away(meter, Estimate(200, 0)) for _ in range(2)] == pytest.approx([20.0, 40.0])
    meter.resize(TokenLimits(tokens_per_minute=6000))
    assert turned_away(meter, Estimate(200, 0)) == pytest.approx(6.0)


def test_all_limits_have_a_line() -> None:
    """Who is turned away by his key's limit will need his tenant's tokens, too, when he comes again."""
    ledger = ledger_at(LocalArrivals())
    key = ledger.meter(KEY, "one", TokenLimits(requests_per_minute=6))
    tenant = ledger.meter(TENANT, "acme", TokenLimits(tokens_per_minute=6000))
    for _ in range(6):
        reserve([key, tenant], Estimate(1000, 0), NOW)
    assert come_again_s([key, tenant], Estimate(1000, 0), NOW) == pytest.approx(10.0)
    assert come_again_s([tenant], Estimate(1000, 0), NOW) == pytest.approx(20.0)
