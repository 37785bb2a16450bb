"""Reservations: all or nothing, corrected once, carried over, and the same for all workers."""

from __future__ import annotations

import calendar
import time
from typing import Any

import pytest

from edgeq.board.gcra_table import GcraTable
from edgeq.board.handover import Neighbours
from edgeq.board.layout import Board
from edgeq.config.schema_llm import Price, TokenLimits
from edgeq.llm.estimate import Estimate
from edgeq.llm.ledger import IDLE_S, Ledger, Reservation, month_end_s, reserve
from edgeq.llm.message import UNKNOWN, Usage
from edgeq.llm.meter import KEY, MODEL, PROMPT, TARGET, TEAM, TENANT, TOKENS, Meter, Refusal
from edgeq.llm.price import Tariff
from edgeq.policy.rate import LocalArrivals
from edgeq.worker.wheel import NEVER

NOW = 1000.0
WALL = float(calendar.timegm((2026, 11, 26, 12, 0, 0)))
LESS = "; a smaller max_tokens reserves less"


def alone() -> Ledger:
    ledger = Ledger(LocalArrivals())
    ledger.tick(NOW, WALL)
    return ledger


def tenant(ledger: Ledger, **limits: Any) -> Meter:
    return ledger.meter(TENANT, "acme", TokenLimits(**limits))


def granted(meters: list[Meter], estimate: Estimate, now: float = NOW) -> Reservation:
    found = reserve(meters, estimate, now)
    assert isinstance(found, Reservation)
    return found


def refused(meters: list[Meter], estimate: Estimate, now: float = NOW) -> Refusal:
    found = reserve(meters, estimate, now)
    assert isinstance(found, Refusal)
    return found


def left(meter: Meter, kind: int = TOKENS, now: float = NOW) -> int:
    allowance = meter.allowance(kind)
    assert allowance is not None
    return allowance.remaining(int(now * 1e9))


def test_nobody_is_named_by_what_refuses() -> None:
    """Resources stand in metrics and in answers: they name what the configuration names, and no tenant."""
    limits = TokenLimits(requests_per_minute=1)
    for kind, name, told in (
        (TENANT, "acme", "tenant:requests"),
        (MODEL, "big", "model/big:requests"),
        (PROMPT, "sum:acme", "prompt/sum:requests"),
    ):
        meter = alone().meter(kind, name, limits)
        granted([meter], Estimate(1, 1))
        assert refused([meter], Estimate(1, 1)).resource() == told


def test_the_rest_is_paid_back() -> None:
    """What was expected and not used may be used by others at once."""
    meter = tenant(alone(), tokens_per_minute=6000)
    reservation = granted([meter], Estimate(1000, 4000))
    assert left(meter) == 1000
    reservation.settle(Usage(input=900, output=100), 0, NOW)
    assert left(meter) == 5000


def test_a_debt_is_carried_over() -> None:
    """An answer longer than expected is charged in full, beyond what is left, and the next waits for it."""
    meter = tenant(alone(), tokens_per_minute=6000)
    granted([meter], Estimate(1000, 1000)).settle(Usage(input=1000, output=11_000), 0, NOW)
    assert left(meter) == 0
    refusal = refused([meter], Estimate(500, 500))
    assert (refusal.reason(), refusal.resource(), refusal.limit) == ("token_limit", "tenant:tokens", 6000)
    assert refusal.wait_s == pytest.approx(70.0)
    assert isinstance(reserve([meter], Estimate(500, 500), NOW + 69.9), Refusal)
    granted([meter], Estimate(500, 500), NOW + 70.01)


def test_who_waits_for_a_debt_is_told_of_it() -> None:
    """Or he wonders why so little is too much. Whoever waits only for what he needs himself is told of nothing else,
    nor is a provider's target in debt for the margin that we keep to what it says."""
    meter = tenant(alone(), tokens_per_minute=300)
    granted([meter], Estimate(17, 4096)).settle(Usage(input=20, output=400), 0, NOW)
    owed = "; 120 that earlier requests have taken or reserved beyond it come first"
    assert refused([meter], Estimate(10, 30)).detail == "tenant acme: 40 tokens, of 300 a minute" + owed
    assert refused([meter], Estimate(10, 90), NOW + 30).detail == "tenant acme: 100 tokens, of 300 a minute" + LESS
    target = alone().meter(TARGET, "p/m", TokenLimits(tokens_per_minute=300))
    allowance = target.allowance(TOKENS)
    assert allowance is not None
    allowance.at_most(0, int(NOW * 1e9))
    assert refused([target], Estimate(10, 30)).detail == "the provider: 40 tokens, of 300 a minute"


def test_a_limit_says_when_a_smaller_answer_would_fit() -> None:
    """By what is left beside the input; where that alone is too much it would not."""
    meter = tenant(alone(), tokens_per_minute=300)
    granted([meter], Estimate(50, 150))
    assert refused([meter], Estimate(40, 80)).detail == "tenant acme: 120 tokens, of 300 a minute" + LESS
    assert refused([meter], Estimate(110, 80)).detail == "tenant acme: 190 tokens, of 300 a minute"
    own = alone().meter(KEY, "k", TokenLimits(output_tokens_per_minute=100, input_tokens_per_minute=100))
    granted([own], Estimate(60, 60))
    assert refused([own], Estimate(10, 80)).detail == "this key: 80 output tokens, of 100 a minute" + LESS
    assert refused([own], Estimate(60, 10)).detail == "this key: 60 input tokens, of 100 a minute"
    granted([own], Estimate(1, 40))
    assert refused([own], Estimate(1, 80)).detail == "this key: 80 output tokens, of 100 a minute"


def test_a_second_end_does_nothing() -> None:
    """Whichever comes first is the end."""
    meter = tenant(alone(), tokens_per_minute=6000, concurrent=5)
    reservation = granted([meter], Estimate(1000, 1000))
    reservation.cancel(NOW)
    reservation.settle(Usage(input=1, output=5000), 0, NOW)
    reservation.cancel(NOW)
    assert (left(meter), meter.in_flight) == (6000, 0)


def test_cancelled_before_it_was_sent_or_after() -> None:
    """Only what was sent is a request."""
    meter = tenant(alone(), requests_per_minute=1)
    granted([meter], Estimate(1, 1)).cancel(NOW)
    granted([meter], Estimate(1, 1)).cancel(NOW, sent=True)
    refusal = refused([meter], Estimate(1, 1))
    assert refusal.reason() == "rate_limited"
    assert refusal.wait_s == pytest.approx(60.0)


def test_unknown_usage_stays_as_expected() -> None:
    """A cut stream that has told its input only."""
    meter = tenant(alone(), tokens_per_minute=6000, input_tokens_per_minute=6000, output_tokens_per_minute=6000)
    granted([meter], Estimate(1000, 1000)).settle(Usage(input=500, output=UNKNOWN), 0, NOW)
    assert left(meter) == 4500


def test_what_a_provider_read_from_its_cache_is_no_input() -> None:
    """But it is one of all tokens."""
    ledger = alone()
    meter = tenant(ledger, tokens_per_minute=6000, input_tokens_per_minute=6000)
    granted([meter], Estimate(1000, 1000)).settle(Usage(input=1000, cached=800, output=1000), 0, NOW)
    assert (left(meter), left(meter, 2)) == (4000, 5800)


def test_all_or_nothing() -> None:
    """What one refuses costs the others nothing; the longest wait is told."""
    ledger = alone()
    one = tenant(ledger, tokens_per_minute=6000, concurrent=3)
    other = ledger.meter(MODEL, "gpt", TokenLimits(tokens_per_minute=1000))
    granted([other], Estimate(500, 500))
    refusal = refused([one, other], Estimate(100, 100))
    assert refusal.meter is other
    assert (refusal.reason(), refusal.resource()) == ("token_limit_shared", "model/gpt:tokens")
    assert (left(one), one.in_flight) == (6000, 0)


def test_an_input_beyond_a_whole_minute_never_fits() -> None:
    """It is told that it does not help to wait."""
    meter = tenant(alone(), tokens_per_minute=1000)
    refusal = refused([meter], Estimate(1001, 10))
    assert (refusal.reason(), refusal.wait_s) == ("request_over_limit", NEVER)
    granted([meter], Estimate(10, 10))
    assert refused([meter], Estimate(1001, 10)).reason() == "request_over_limit"


def test_an_output_beyond_a_whole_minute_is_let_in_alone() -> None:
    """It is only a guess; what it needs beyond a minute is a debt."""
    meter = tenant(alone(), tokens_per_minute=1000)
    big = Estimate(100, 2900)
    small = granted([meter], Estimate(10, 10))
    assert refused([meter], big).wait_s == pytest.approx(1.2)
    small.cancel(NOW)
    reservation = granted([meter], big)
    assert refused([meter], Estimate(10, 0)).wait_s == pytest.approx(120.6)
    reservation.settle(Usage(input=100, output=100), 0, NOW)
    assert left(meter) == 800


def test_requests_at_once() -> None:
    """As many as there are places, and no more."""
    meter = tenant(alone(), concurrent=2)
    first = granted([meter], Estimate(1, 1))
    granted([meter], Estimate(1, 1))
    assert refused([meter], Estimate(1, 1)).reason() == "concurrency_limit_client"
    first.settle(Usage(input=1, output=1), 0, NOW)
    granted([meter], Estimate(1, 1))


def test_all_limits_are_shown() -> None:
    """Places and money as well as tokens: an operator sees what somebody was refused by."""
    meter = tenant(alone(), tokens_per_minute=6000, concurrent=2, money_per_day=1.5, money_per_month=20.0)
    granted([meter], Estimate(100, 0))
    shown = meter.snapshot(NOW)
    assert shown["limits"] == {"tokens": 6000, "concurrent": 2, "per_day": 1.5, "per_month": 20.0}
    assert shown["remaining"] == {"tokens": 5900, "concurrent": 1}


@pytest.mark.parametrize(
    ("kind", "name", "whose"),
    [
        (KEY, "k1", "this key"),
        (TEAM, "acme/search", "team acme/search"),
        (TENANT, "acme", "tenant acme"),
        (TENANT, "chat:sk-secret", "each tenant of route chat"),
        (PROMPT, "sum:sk-secret", "each tenant of prompt sum"),
        (MODEL, "gpt-5", "model gpt-5"),
    ],
)
def test_a_refusal_says_whose_limit_it_is(kind: int, name: str, whose: str) -> None:
    """And no name that may be a credential."""
    meter = alone().meter(kind, name, TokenLimits(requests_per_minute=1))
    granted([meter], Estimate(1, 1))
    assert refused([meter], Estimate(1, 1)).detail == f"{whose}: more than 1 request a minute"


def test_of_money_that_is_all_spent_no_smaller_answer_helps() -> None:
    """Else one is told so."""
    meter = tenant(alone(), money_per_day=1.0)
    granted([meter], Estimate(1, 1, cost_micro=500_000)).settle(Usage(input=1, output=1), 1_000_000, NOW)
    assert "max_tokens" not in refused([meter], Estimate(1, 1, cost_micro=1)).detail


class Log:
    """What was told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []

    def warning(self, event: str, **fields: object) -> None:
        self.events.append((event, fields))


def test_a_budget_that_is_used_up_is_an_event(board: Board) -> None:
    """Once, of all workers, in a day; again when it was raised. Not of what may be given back, nor of a request that is
    larger than all of it."""
    log = Log()
    ledgers = [Ledger(GcraTable(board, slot), board, Neighbours(board, slot, lambda _: None), log) for slot in range(2)]
    for ledger in ledgers:
        ledger.tick(NOW, WALL)
    meters = [ledger.meter(KEY, "k3v8n2pq", TokenLimits(money_per_day=1.0)) for ledger in ledgers]
    refused([meters[0]], Estimate(1, 1, cost_micro=1_000_001))
    running = granted([meters[0]], Estimate(1, 1, cost_micro=600_000))
    refused([meters[1]], Estimate(1, 1, cost_micro=500_000))
    assert log.events == []
    running.settle(Usage(input=1, output=1), 900_000, NOW)
    for meter in (*meters, *meters):
        refused([meter], Estimate(1, 1, cost_micro=500_000), NOW + 1)
    detail = "0.9 of 1 a day is spent, and what is left is less than a request may cost, which is refused"
    assert log.events == [("budget_exhausted", {"resource": "key/k3v8n2pq", "detail": detail})]
    for meter in meters:
        meter.resize(TokenLimits(money_per_day=1.2))
        refused([meter], Estimate(1, 1, cost_micro=500_000), NOW + 2)
    assert len(log.events) == 2
    for ledger in ledgers:
        ledger.tick(NOW + 43_201, WALL + 43_201)
        meter = ledger.meter(KEY, "k3v8n2pq", TokenLimits(money_per_day=1.2))
        granted([meter], Estimate(1, 1, cost_micro=600_000), NOW + 43_201).settle(Usage(1, 1), 600_000, NOW + 43_202)
    refused([meter], Estimate(1, 1, cost_micro=500_000), NOW + 43_203)
    assert len(log.events) == 3


def test_one_large_request_keeps_no_event_of_a_budget_from_being_told() -> None:
    """The end of it is told though a request was refused before for what it might cost, while nearly all was left."""
    log = Log()
    ledger = alone()
    ledger.books.log = log
    meter = ledger.meter(KEY, "k3v8n2pq", TokenLimits(money_per_day=1.0))
    for spent, cost in ((10_000, 995_000), (980_000, 20_000)):
        granted([meter], Estimate(1, 1, cost_micro=spent)).settle(Usage(1, 1), spent, NOW)
        for _ in range(2):
            assert refused([meter], Estimate(1, 1, cost_micro=cost)).reason() == "budget_exhausted"
    spent_then = [str(fields["detail"]).partition(" ")[0] for _, fields in log.events]
    assert spent_then == ["0.01", "0.99"]


def test_whose_budget_is_used_up() -> None:
    """By the names that are shown, but by none that may be a credential."""
    log = Log()
    ledger = alone()
    ledger.books.log = log
    for kind, name in ((TEAM, "acme/core"), (TENANT, "acme"), (TENANT, "r:sk-1"), (PROMPT, "sum:sk-1"), (MODEL, "big")):
        meter = ledger.meter(kind, name, TokenLimits(money_per_month=1.0))
        granted([meter], Estimate(1, 1, cost_micro=1)).settle(Usage(1, 1), 1_000_000, NOW)
        refused([meter], Estimate(1, 1, cost_micro=1))
    told = ["team/acme/core", "tenant/acme", "tenant", "prompt/sum", "model/big"]
    assert [fields["resource"] for _, fields in log.events] == told


def test_money_of_a_day() -> None:
    """What runs is reserved, and may come back any moment; what is spent stays until midnight UTC, which is told."""
    ledger = alone()
    meter = tenant(ledger, money_per_day=1.0)
    running = granted([meter], Estimate(1, 1, cost_micro=600_000))
    refusal = refused([meter], Estimate(1, 1, cost_micro=500_000))
    assert refusal.reason() == "concurrency_limit_client"
    assert refusal.resource() == "tenant:budget"
    assert refusal.wait_s == 1.0
    assert refusal.detail == (
        "tenant acme: the budget of a day is 1, 0.6 of it spent or reserved, and this request may cost 0.5"
        " with 1 tokens of output; a smaller max_tokens reserves less"
    )
    large = ledger.meter(TENANT, "large", TokenLimits(money_per_day=12_345_678.5))
    dear = Estimate(1, 1, cost_micro=12_345_678_500_021)
    assert (
        refused([large], dear).detail
        == "tenant large: the budget of a day is 12345678.5, and this request may cost 12345678.500021"
        " with 1 tokens of output; a smaller max_tokens reserves less"
    )
    running.settle(Usage(input=1, output=1), 300_000, NOW)
    granted([meter], Estimate(1, 1, cost_micro=500_000)).settle(Usage(), 700_000, NOW)
    refusal = refused([meter], Estimate(1, 1, cost_micro=1))
    assert refusal.reason() == "budget_exhausted"
    assert refusal.wait_s == pytest.approx(43_200.0)
    assert meter.spent_micro() == (1_000_000, 1_000_000)
    ledger.tick(NOW + 43_201, WALL + 43_201)
    granted([tenant(ledger, money_per_day=1.0)], Estimate(1, 1, cost_micro=500_000), NOW + 43_201)


def test_another_target_may_be_dearer() -> None:
    """What it costs more is reserved as well, if it is there; at the end all of it is let go."""
    ledger = alone()
    meter = tenant(ledger, money_per_day=1.0)
    running = granted([meter], Estimate(1, 1, cost_micro=300_000))
    assert running.affords(100_000, NOW)
    assert running.affords(1_000_000, NOW)
    assert not running.affords(1_000_001, NOW)
    running.reserve_up_to(700_000)
    running.reserve_up_to(500_000)
    other = granted([meter], Estimate(1, 1, cost_micro=300_000))
    assert not running.affords(700_001, NOW)
    assert not other.affords(300_001, NOW)
    running.settle(Usage(input=1, output=1), 600_000, NOW)
    assert meter.reserved_micro == 300_000
    assert other.affords(400_000, NOW)
    other.reserve_up_to(400_000)
    other.cancel(NOW)
    assert meter.reserved_micro == 0
    assert other.affords(9_000_000, NOW)


def test_what_was_spent_is_told_of_whoever_has_a_budget() -> None:
    """In the day as well, if only the month has a limit; of others it is not counted, and nothing is told."""
    ledger = alone()
    meter = tenant(ledger, money_per_month=1.0)
    granted([meter], Estimate(1, 1, cost_micro=1000)).settle(Usage(input=1, output=1), 700, NOW)
    shown = meter.snapshot(NOW)
    assert (shown["spent_day"], shown["spent_month"]) == (0.0007, 0.0007)
    other = ledger.meter(TENANT, "other", TokenLimits(concurrent=1))
    granted([other], Estimate(1, 1, cost_micro=1000)).settle(Usage(input=1, output=1), 700, NOW)
    assert other.snapshot(NOW)["spent_day"] is None


def test_more_than_the_whole_budget_never_fits() -> None:
    """Not tomorrow either."""
    meter = tenant(alone(), money_per_month=1.0)
    assert refused([meter], Estimate(1, 1, cost_micro=1_000_001)).wait_s == NEVER


def test_the_store_tells_what_was_spent_before() -> None:
    """By a gateway that has been started again."""
    ledger = alone()
    ledger.spent(TENANT, "acme", 900_000, 900_000, NOW)
    meter = tenant(ledger, money_per_day=1.0)
    assert refused([meter], Estimate(1, 1, cost_micro=200_000)).reason() == "budget_exhausted"
    granted([meter], Estimate(1, 1, cost_micro=100_000))


def test_limits_change_while_it_runs() -> None:
    """What was used before counts by its share; limits come and go; what runs is settled all the same."""
    ledger = alone()
    meter = tenant(ledger, tokens_per_minute=1000, concurrent=1)
    running = granted([meter], Estimate(250, 250))
    meter.resize(TokenLimits(tokens_per_minute=2000, requests_per_minute=10, money_per_day=1.0))
    assert left(meter) == 1000
    second = granted([meter], Estimate(500, 500))
    meter.resize(TokenLimits())
    running.settle(Usage(input=1, output=1), 0, NOW)
    second.cancel(NOW)
    assert (meter.in_flight, meter.allowances) == (0, [])
    for _ in range(3):
        granted([meter], Estimate(10**6, 10**6))


def test_the_providers_own_limit_holds_if_it_is_lower() -> None:
    """Or if there is none of ours."""
    ledger = alone()
    meter = ledger.meter(TARGET, "openai:gpt", TokenLimits(tokens_per_minute=5000))
    meter.hear_limit(TOKENS, 3000)
    assert meter.snapshot(NOW)["limits"] == {"tokens": 3000}
    meter.hear_limit(TOKENS, 9000)
    assert meter.snapshot(NOW)["limits"] == {"tokens": 5000}
    meter.resize(TokenLimits())
    assert meter.snapshot(NOW)["limits"] == {"tokens": 9000}


def test_meters_that_nobody_uses_go() -> None:
    """Those that somebody uses or keeps stay."""
    ledger = alone()
    used = tenant(ledger, concurrent=1)
    running = granted([used], Estimate(1, 1))
    kept = ledger.meter(TARGET, "x", TokenLimits())
    kept.pinned = True
    ledger.meter(KEY, "k", TokenLimits(concurrent=1))
    ledger.tick(NOW + IDLE_S * 2, WALL)
    assert len(ledger) == 2
    running.cancel(NOW + IDLE_S * 2)
    ledger.tick(NOW + IDLE_S * 4, WALL)
    assert len(ledger) == 1


def test_who_is_only_refused_is_not_forgotten_at_once() -> None:
    """What was refused is counted until nobody has asked for a while, also of one that was never let in."""
    ledger = alone()
    meter = tenant(ledger, tokens_per_minute=10)
    refused([meter], Estimate(100, 1)).meter.refuse(NOW)
    ledger.tick(NOW + 1, WALL)
    assert ledger.meter(TENANT, "acme", meter.limits).refused == 1
    ledger.tick(NOW + IDLE_S + 1, WALL)
    assert len(ledger) == 0


def test_one_limit_for_the_machine(board: Board) -> None:
    """What one worker holds the other sees; what a dead one held is free, what it has spent is not."""
    ledgers = [Ledger(GcraTable(board, slot), board, Neighbours(board, slot, lambda _: None)) for slot in range(2)]
    for ledger in ledgers:
        ledger.tick(NOW, WALL)
    limits = {"tokens_per_minute": 6000, "concurrent": 2, "money_per_day": 1.0}
    one, other = (tenant(ledger, **limits) for ledger in ledgers)
    granted([one], Estimate(500, 500, 100_000)).settle(Usage(input=500, output=500), 100_000, NOW)
    granted([one], Estimate(500, 500, 400_000))
    assert (left(other), other.machine_in_flight()) == (4000, 1)
    assert refused([other], Estimate(500, 500, 600_000)).reason() == "concurrency_limit_client"
    granted([other], Estimate(500, 500, 400_000)).cancel(NOW)
    board.bury(0)
    assert (left(other), other.machine_in_flight()) == (4000, 0)
    assert refused([other], Estimate(500, 500, 900_001)).reason() == "budget_exhausted"
    granted([other], Estimate(500, 500, 900_000))


def test_a_debt_stays_as_many_tokens_when_the_limit_changes(board: Board) -> None:
    """It was made under the old limit, and is paid at the pace of the new one: by whichever worker knows of it first,
    also if none had the meter when it changed. What is no debt counts by its part of the minute, as ever."""
    ledgers = [Ledger(GcraTable(board, slot), board, Neighbours(board, slot, lambda _: None)) for slot in range(2)]
    for ledger in ledgers:
        ledger.tick(NOW, WALL)
    one, other = (tenant(ledger, tokens_per_minute=30) for ledger in ledgers)
    granted([one], Estimate(20, 880)).settle(Usage(input=20, output=880), 0, NOW)
    assert refused([other], Estimate(10, 20)).wait_s == pytest.approx(1800.0)
    one.resize(TokenLimits(tokens_per_minute=30_000))
    refusal = refused([one], Estimate(50, 50))
    assert refusal.detail == (
        "tenant acme: 100 tokens, of 30000 a minute"
        "; 870 that earlier requests have taken or reserved beyond it come first"
    )
    assert refusal.wait_s == pytest.approx(970 / 500)
    # A worker that has not heard of it yet sees what it would have seen, and spoils nothing.
    assert refused([other], Estimate(10, 20)).wait_s == pytest.approx(1800.0)
    again = Ledger(GcraTable(board, 1), board, Neighbours(board, 1, lambda _: None))
    assert refused([tenant(again, tokens_per_minute=30_000)], Estimate(50, 50)).wait_s == pytest.approx(970 / 500)
    one.resize(TokenLimits(tokens_per_minute=300))
    assert refused([one], Estimate(5, 25)).wait_s == pytest.approx(180.0)
    granted([one], Estimate(5, 25), NOW + 180.01)


def test_what_runs_when_the_limit_changes_owes_its_tokens(board: Board) -> None:
    """What it has reserved beyond the minute is a debt, too, and what of it was not used is paid back as tokens."""
    ledger = Ledger(GcraTable(board, 0))
    ledger.tick(NOW, WALL)
    meter = tenant(ledger, tokens_per_minute=30_000)
    earlier = granted([meter], Estimate(100, 29_600))
    running = granted([meter], Estimate(10, 290))
    earlier.settle(Usage(input=100, output=59_600), 0, NOW)
    ledger.resize(TENANT, "acme", TokenLimits(tokens_per_minute=15_000), NOW)
    assert refused([meter], Estimate(0, 250)).wait_s == pytest.approx(120 + 1)
    running.cancel(NOW, sent=True)
    assert refused([meter], Estimate(0, 250)).wait_s == pytest.approx(120 + 1 - 1.2)


@pytest.mark.parametrize(("before", "after"), [(600, 60_000), (60_000, 600)])
@pytest.mark.parametrize("others", [0, 450])
def test_what_is_cancelled_after_a_change_is_paid_back(board: Board, before: int, after: int, others: int) -> None:
    """What it had reserved was a debt beyond the minute, and within the minute it was not: each is paid back as it has
    been counted since. What others have used stays."""
    ledger = Ledger(GcraTable(board, 0))
    ledger.tick(NOW, WALL)
    meter = tenant(ledger, tokens_per_minute=before)
    earlier = granted([meter], Estimate(0, 1)) if others else None
    running = granted([meter], Estimate(0, before // 3 if others else before * 10))
    if earlier is not None:
        earlier.settle(Usage(input=0, output=others * before // 600), 0, NOW)
    ledger.resize(TENANT, "acme", TokenLimits(tokens_per_minute=after), NOW)
    running.cancel(NOW, sent=True)
    assert left(meter) == pytest.approx(after * (600 - others) / 600, rel=0.001)


def test_what_a_provider_says_beyond_the_minute_counts_in_the_limit_of_now(board: Board) -> None:
    """However large the limit was when it last had a debt."""
    ledger = Ledger(GcraTable(board, 0))
    ledger.tick(NOW, WALL)
    meter = ledger.meter(TARGET, "p/m", TokenLimits(tokens_per_minute=1000))
    granted([meter], Estimate(100, 1900))
    meter.resize(TokenLimits(tokens_per_minute=100))
    allowance = meter.allowance(TOKENS)
    assert allowance is not None
    later_ns = int((NOW + 900.0) * 1e9)
    assert allowance.ahead_ns(later_ns) == 0
    allowance.at_most(-400, later_ns)
    assert allowance.ahead_ns(later_ns) == pytest.approx(286e9)


def test_one_who_wanted_hours_of_a_limit_leaves_nothing_of_it_after_a_429(board: Board) -> None:
    """An hour of it was charged, and is paid back: what is left is what the provider says."""
    ledger = Ledger(GcraTable(board, 0))
    ledger.tick(NOW, WALL)
    meter = ledger.meter(TARGET, "p/m", TokenLimits(tokens_per_minute=1000))
    wanted = granted([meter], Estimate(100, 200_000))
    allowance = meter.allowance(TOKENS)
    assert allowance is not None
    allowance.at_most(-200_100, int(NOW * 1e9))
    wanted.cancel(NOW, sent=True)
    assert allowance.ahead_ns(int(NOW * 1e9)) == pytest.approx(46e9)


def test_an_idle_ones_debt_is_paid_at_the_new_pace_from_the_change_on(board: Board) -> None:
    """Also if no worker has had its meter for a while."""
    ledger = Ledger(GcraTable(board, 0))
    ledger.tick(NOW, WALL)
    meter = tenant(ledger, tokens_per_minute=6000)
    granted([meter], Estimate(100, 900)).settle(Usage(input=100, output=65_900), 0, NOW)
    later = NOW + IDLE_S
    ledger.tick(later, WALL + IDLE_S)
    assert len(ledger) == 0
    limits = TokenLimits(tokens_per_minute=3000, concurrent=1)
    ledger.resize(TENANT, "acme", limits, later)
    assert len(ledger) == 0
    # Of 60,000 tokens beyond the minute 54,000 were left, and a third of these has been paid since.
    later += 360.0
    again = ledger.meter(TENANT, "acme", limits)
    assert refused([again], Estimate(0, 3000), later).wait_s == pytest.approx(720.0 + 60.0)


def test_months() -> None:
    """They end at midnight UTC before the first."""
    for year in (2026, 2028):
        for month in range(1, 13):
            ends = float(
                calendar.timegm((year, month + 1, 1, 0, 0, 0))
                if month < 12
                else calendar.timegm((year + 1, 1, 1, 0, 0, 0))
            )
            first = calendar.timegm((year, month, 1, 0, 0, 0))
            assert month_end_s(first) == month_end_s(ends - 1) == ends
            assert time.gmtime(ends).tm_mday == 1


def test_prices() -> None:
    """Parts of the input that caches have, or take, have prices of their own."""
    tariff = Tariff(Price(input=3.0, output=15.0, cached=0.3, cache_write=3.75))
    assert tariff.expected(1000, 100) == 4500
    usage = Usage(input=1000, output=100, cached=500, cache_write=100)
    assert tariff.of_usage(usage) == 400 * 3 + 150 + 375 + 1500
    assert tariff.of_usage(Usage()) == 0
    assert Tariff(Price(input=0.15)).of_usage(Usage(input=1, output=5, cached=1)) == 1


def test_no_debt_is_longer_than_an_hour(board: Board) -> None:
    """Whatever a provider says was used, or a client allows: nobody pays for it for days, and it fits the board."""
    ledger = Ledger(GcraTable(board, 0))
    ledger.tick(NOW, WALL)
    meter = tenant(ledger, tokens_per_minute=1)
    for again in range(3):
        now = NOW + again * 4000
        granted([meter], Estimate(1, 10**11), now).settle(Usage(10**9, 10**9), 0, now)
        assert refused([meter], Estimate(1, 1), now).wait_s <= 3600
