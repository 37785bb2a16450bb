"""Whoever is turned away by a limit is told a time of his own, and gets in when he comes then."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.board.gcra_table import ArrivalTable, GcraTable
from edgeq.board.handover import Neighbours
from edgeq.board.layout import Board
from edgeq.config.schema_llm import TokenLimits
from edgeq.llm.account import NO_LIMITS
from edgeq.llm.accounts import AccountsHolder
from edgeq.llm.estimate import Estimate, Estimator
from edgeq.llm.ledger import Ledger, Reservation, reserve
from edgeq.llm.message import Usage
from edgeq.llm.meter import KEY, MODEL, TENANT, Meter, Refusal
from edgeq.llm.plan import ORDERED, ModelPlan
from edgeq.llm.promise import MOST_S, come_again_s, place_s
from edgeq.llm.till import Bill, Till
from edgeq.policy.rate import LocalArrivals
from tests.llm.gates import FakeLoop

NOW = 1000.0
WALL = 1_800_000_000.0


def ledger_at(arrivals: ArrivalTable, now: float = NOW) -> Ledger:
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


def expected_s(estimator: Estimator, model: str) -> float:
    """How long a request for a model is expected to take."""
    return estimator.estimate(model, b"acme", b"{}", 10, 10).takes_s


class Clients:
    """They come at a tenant's own limit, all at once, wait for as long as they are told, and give up after two more
    tries, as SDKs, which say each time how many they have made, or silently. The silent ones all ask the same, each
    time on a new connection."""

    def __init__(self, workers: int, limits: TokenLimits, took_s: float = 1.0, are_silent: bool = False) -> None:
        self.loop = FakeLoop()
        arrivals = LocalArrivals()
        self.tills = [Till(AccountsHolder(), ledger_at(arrivals, self.loop.now)) for _ in range(workers)]
        self.plan = ModelPlan("small", ORDERED, [], "", None, NO_LIMITS)
        self.limits = limits
        self.took_s = took_s
        self.are_silent = are_silent
        self.tries: Counter[int] = Counter()
        self.served: list[int] = []
        self.told: list[float] = []

    def ask(self, number: int, estimate: Estimate) -> None:
        self.tries[number] += 1
        bill = Bill(self.tills[(number + self.tries[number]) % len(self.tills)], b"acme", self.tries.total())
        if not self.are_silent:
            bill.tries = self.tries[number] - 1
        estimate.takes_s = expected_s(bill.till.estimator, "small")
        bill.estimate = estimate
        now = self.loop.now
        refusal = bill.reserve(self.plan, [], "models", self.limits, None, now)
        if refusal is None:
            self.served.append(number)
            usage = Usage(estimate.input, estimate.output)
            self.loop.call_later(self.took_s, lambda: self.settle(bill, usage))
            return
        self.told.append(refusal.wait_s)
        if self.tries[number] < 3:
            self.loop.call_later(refusal.wait_s + 0.001, partial(self.ask, number, estimate))

    def settle(self, bill: Bill, usage: Usage) -> None:
        bill.settle("small", None, usage, 1, True, 200, self.took_s, 0.0, False, self.loop.now)


@pytest.mark.parametrize("are_silent", [False, True])
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
def test_who_comes_when_he_was_told_gets_in(
    are_silent: bool, workers: int, limits: TokenLimits, sizes: list[int]
) -> None:
    """All of them, at a limit of requests, of tokens, of output, or of both; large ones and small ones."""
    clients = Clients(workers, limits, are_silent=are_silent)
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
    assert expected_s(estimator, "small") == 2.0
    for number in range(200):
        estimator.learn(asked(10), Usage(5, 5), seconds=4.0 if number % 10 == 5 else 1.0)
    assert 1.0 < expected_s(estimator, "small") < 3.0


def test_nobody_is_told_more_than_a_minute_for_a_place() -> None:
    """However long requests take, or how many were told to come again."""
    meter = alone(concurrent=1)
    assert place_s(meter, 1, 300.0, NOW) == MOST_S
    told = [place_s(meter, 1, 20.0, NOW) for _ in range(4)]
    assert told == pytest.approx([20.0, 41.0, 60.0, 60.0], abs=2.1)
    assert max(told) <= MOST_S


SLOW_S = 10.0
FAST_S = 0.007


class Places:
    """A key's limit of requests at once, in workers that know how long requests for "slow" and "small" take."""

    def __init__(self, board: Board | None = None, **limits: Any) -> None:
        ledgers = [Ledger(LocalArrivals())]
        if board is not None:
            ledgers = [Ledger(GcraTable(board, at), board, Neighbours(board, at, lambda _: None)) for at in (0, 1)]
        self.limits = TokenLimits(**limits)
        self.tills = [Till(AccountsHolder(), ledger) for ledger in ledgers]
        for till in self.tills:
            till.ledger.tick(NOW, WALL + NOW)
            for model, takes_s in (("slow", SLOW_S), ("small", FAST_S)):
                estimate = till.estimator.estimate(model, b"acme", b"{}", 10, 10)
                till.estimator.learn(estimate, Usage(5, 5), seconds=takes_s)

    def ask(self, model: str, at_s: float = 0.0, worker: int = 0, tries: int = -1) -> tuple[Bill, float]:
        """Returns: for how long he is told to wait; 0.0: he is let in."""
        bill = Bill(self.tills[worker], b"acme")
        bill.tries = tries
        bill.estimate = bill.till.estimator.estimate(model, b"acme", b"{}", 10, 10)
        bill.estimate.cost_micro = 100_000
        plan = ModelPlan(model, ORDERED, [], "", None, NO_LIMITS)
        refusal = bill.reserve(plan, [], "models", self.limits, None, NOW + at_s)
        assert refusal is None or refusal.wait_s > 0.0
        return bill, 0.0 if refusal is None else refusal.wait_s

    def hold(self, model: str, at_s: float = 0.0, worker: int = 0) -> Bill:
        """He has a place from now on."""
        bill, wait_s = self.ask(model, at_s, worker)
        assert not wait_s
        return bill

    def told(self, model: str, at_s: float = 0.0, worker: int = 0) -> float:
        """For how long one is told to wait who finds no place."""
        _, wait_s = self.ask(model, at_s, worker)
        assert wait_s
        return wait_s


def ended(bill: Bill, at_s: float) -> None:
    """Its request has ended, which teaches nothing."""
    bill.settle("any", None, Usage(5, 5), 1, True, 200, 0.0, 0.0, False, NOW + at_s)


@pytest.mark.parametrize(
    ("at_s", "wait_s"), [(0.0, 10.0), (4.0, 6.0), (9.0, 5.0), (10.5, 5.5), (40.0, 35.0), (90.0, 60.0)]
)
def test_who_finds_no_place_waits_for_those_who_have_them(at_s: float, wait_s: float) -> None:
    """Not for as long as his own model takes: for what is left of what theirs does. As they vary, that is no less than
    the half of it; and who takes longer than it should may do so for as long again."""
    places = Places(concurrent=1)
    places.hold("slow")
    assert places.told("small", at_s) == pytest.approx(wait_s)


def test_who_is_slow_waits_no_longer_for_one_that_is_fast() -> None:
    """Only those who come after him wait for him, too."""
    places = Places(concurrent=1)
    places.hold("small")
    assert places.told("slow") == pytest.approx(FAST_S)
    assert places.told("small") == pytest.approx(FAST_S + 1.05 * SLOW_S)
    assert places.told("small") == pytest.approx(2.05 * FAST_S + 1.05 * SLOW_S)


def test_one_that_takes_longer_than_ever_is_waited_for_ever_longer() -> None:
    """Of one that took 7 ms until today, and hangs: each is told about as long as it does so already."""
    places = Places(concurrent=1)
    places.hold("small")
    assert [places.told("small", at_s) for at_s in (1.0, 2.0, 4.0)] == pytest.approx([1.0, 2.0, 4.0], abs=0.01)


def test_one_that_hangs_keeps_nobody_from_the_other_places() -> None:
    """They come free as before."""
    places = Places(concurrent=4)
    places.hold("slow")
    held = [places.hold("small", 99.0) for _ in range(3)]
    assert places.told("small", 99.0) < 2 * FAST_S
    ended(held.pop(), 99.2)
    places.hold("slow", 99.2)
    for one in held:
        ended(one, 99.3)
        places.hold("slow", 99.3)
    assert places.told("small", 99.3) == pytest.approx(SLOW_S)


def test_who_has_the_places_is_known_in_all_workers(board: Board) -> None:
    """Also where nobody has asked for that model yet, and until the worker that serves him has died."""
    places = Places(board, concurrent=1)
    places.tills[1].estimator = Estimator()
    held = places.hold("slow")
    assert places.told("small", 4.0, 1) == pytest.approx(6.0)
    ended(held, 5.0)
    places.hold("small", 20.0, 1)
    assert places.told("small", 20.0) == pytest.approx(2.0)  # so much is expected by whom nothing is known
    board.bury(1)
    places.hold("small", 20.0)


def test_how_long_a_model_takes_is_known_from_other_workers(board: Board) -> None:
    """A worker that has had no answer of it yet reckons with the longest that others have seen, until its own first
    one; what a dead one has seen is gone, and so is what nobody knows."""
    places = Places(board, concurrent=1)
    new = Estimator(places.tills[1].ledger.books)
    places.tills[1].ledger.tick(NOW, WALL + NOW)
    assert expected_s(new, "slow") == pytest.approx(SLOW_S)
    assert expected_s(new, "small") == pytest.approx(FAST_S)
    assert expected_s(new, "other") == 2.0
    places.tills[1].estimator = new
    held = places.hold("slow", 0.0, 1)
    assert places.told("small", 1.0) == pytest.approx(SLOW_S - 1.0), "told by the worker that has it not"
    ended(held, 3.0)
    new.learn(new.estimate("slow", b"acme", b"{}", 10, 10), Usage(5, 5), seconds=3.0)
    assert expected_s(new, "slow") == pytest.approx(3.0)
    board.bury(0)
    assert expected_s(new, "small") == 2.0


def test_a_fast_model_beside_a_slow_one_spends_no_tries() -> None:
    """One request in twenty is for the slow one, and most of the time that the key's only place is taken is its: of
    those for the fast one hardly any is refused three times, as often as SDKs try."""
    places = Places(concurrent=1)
    loop = FakeLoop()
    draw = random.Random(3)
    asked_for: Counter[str] = Counter()
    failed: Counter[str] = Counter()

    def come(model: str, tries: int) -> None:
        bill, wait_s = places.ask(model, loop.now - NOW, tries=tries)
        takes_s = (SLOW_S if model == "slow" else FAST_S) * draw.uniform(0.95, 1.05)
        if not wait_s:
            loop.call_later(takes_s, lambda: ended(bill, loop.now - NOW))
        elif tries == 2:
            failed[model] += 1
        else:
            loop.call_later(wait_s + 0.001, lambda: come(model, tries + 1))

    def arrive() -> None:
        model = "slow" if draw.random() < 0.05 else "small"
        asked_for[model] += 1
        come(model, 0)
        loop.call_later(draw.expovariate(0.6), arrive)

    arrive()
    loop.run(3000.0)
    assert min(asked_for.values()) > 60
    assert failed["small"] < 0.03 * asked_for["small"]
    assert failed["slow"] < 0.03 * asked_for["slow"]


def test_who_finds_all_money_reserved_waits_for_those_who_have_it() -> None:
    """What they do not use comes back when they end."""
    places = Places(money_per_day=0.25)
    held = [places.hold("slow"), places.hold("slow")]
    assert places.told("small", 1.0) == pytest.approx(SLOW_S - 1.0)
    for one in held:
        one.settle("slow", None, Usage(), 1, False, 499, 1.0, -1.0, False, NOW + 2.0)
    places.hold("small", 2.0)


def test_a_limit_that_comes_later_knows_who_runs() -> None:
    """It is set while requests are in flight that nothing limited in number."""
    places = Places(tokens_per_minute=100_000)
    held = [places.hold("slow"), places.hold("slow", 1.0)]
    places.limits = TokenLimits(tokens_per_minute=100_000, concurrent=2)
    assert places.told("small", 2.0) == pytest.approx(SLOW_S - 1.0)
    ended(held.pop(), 3.0)
    places.hold("small", 3.0)


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


def test_who_comes_new_leaves_what_was_promised() -> None:
    """He is told his own time, and told why; who comes again has it, and in between there may be room for both."""
    meter = alone(tokens_per_minute=6000)
    reserve([meter], Estimate(6000, 0), NOW)
    assert [turned_away(meter, Estimate(1000, 0)) for _ in range(2)] == pytest.approx([10.0, 20.0])
    refusal = reserve([meter], Estimate(500, 0), NOW + 10.0)
    assert isinstance(refusal, Refusal)
    assert refusal.reason() == "token_limit"
    assert refusal.detail == (
        "this key: 500 tokens, of 6000 a minute; what is left is for those who were told to come again"
    )
    assert come_again_s([meter], Estimate(500, 0), NOW + 10.0) == pytest.approx(15.0)
    assert isinstance(reserve([meter], Estimate(1000, 0), NOW + 10.1, True), Reservation)
    assert isinstance(reserve([meter], Estimate(500, 0), NOW + 25.0, True), Reservation)
    assert isinstance(reserve([meter], Estimate(100, 0), NOW + 26.0), Reservation)  # of 1100
    assert isinstance(reserve([meter], Estimate(100, 0), NOW + 26.0), Refusal)
    assert isinstance(reserve([meter], Estimate(1000, 0), NOW + 26.0, True), Reservation)


@given(
    st.lists(
        st.tuples(st.floats(0.0, 120.0), st.integers(1, 3000), st.floats(0.001, 1.0), st.booleans()),
        min_size=2,
        max_size=40,
    ),
    st.integers(3000, 6000),
)
def test_who_was_told_a_time_gets_in_whoever_comes_meanwhile(
    comers: list[tuple[float, int, float, bool]], used: int
) -> None:
    """A second later at most, for up to half of the limit, and whether others come as they were told or never."""
    meter = alone(tokens_per_minute=6000)
    reserve([meter], Estimate(used, 0), NOW)
    loop = FakeLoop()

    def come(size: int, late_s: float, comes_again: bool, told: bool) -> None:
        found = reserve([meter], Estimate(size, 0), loop.now, told)
        assert isinstance(found, Reservation) or not told
        if isinstance(found, Refusal):
            wait_s = come_again_s([meter], Estimate(size, 0), loop.now)
            if wait_s < MOST_S and comes_again:
                loop.call_later(wait_s + late_s, lambda: come(size, late_s, comes_again, True))

    for at_s, size, late_s, comes_again in comers:
        loop.call_later(at_s, partial(come, size, late_s, comes_again, False))
    loop.run(200.0)


def test_what_is_paid_back_shortens_the_line() -> None:
    """Who is turned away later is told an earlier time, and nothing is kept that nobody was promised."""
    meter = alone(tokens_per_minute=6000)
    held = [reserve([meter], Estimate(2000, 0), NOW) for _ in range(3)]
    assert turned_away(meter, Estimate(2000, 0)) == pytest.approx(20.0)
    for one in held:
        assert isinstance(one, Reservation)
        one.settle(Usage(1000, 0), 0, NOW)
    assert isinstance(reserve([meter], Estimate(1000, 0), NOW), Reservation)  # 2000 of 3000 are promised
    assert turned_away(meter, Estimate(2000, 0)) == pytest.approx(20.0)
    assert isinstance(reserve([meter], Estimate(2000, 0), NOW, True), Reservation)


def test_who_is_alone_has_all_of_the_limit() -> None:
    """Whatever more he reserves each time than he uses: nobody else was promised anything."""
    loop = FakeLoop()
    till = Till(AccountsHolder(), ledger_at(LocalArrivals(), loop.now))
    plan = ModelPlan("small", ORDERED, [], "", None, NO_LIMITS)
    limits = TokenLimits(tokens_per_minute=6000)
    used = 0

    def ask(tries: int) -> None:
        bill = Bill(till, b"acme")
        bill.tries = tries
        bill.estimate = Estimate(1500, 1200)
        bill.estimate.model = "small"
        refusal = bill.reserve(plan, [], "models", limits, None, loop.now)
        if refusal is None:
            loop.call_later(1.0, lambda: end(bill))
        else:
            loop.call_later(refusal.wait_s + 0.001, lambda: ask(tries + 1))

    def end(bill: Bill) -> None:
        nonlocal used
        used += 1600
        bill.settle("small", None, Usage(1500, 100), 1, True, 200, 1.0, 0.0, False, loop.now)
        ask(0)

    ask(0)
    loop.run(60.0)
    used = 0
    loop.run(600.0)
    assert used >= 0.97 * 60_000


def test_who_polls_is_told_the_same_again() -> None:
    """He stands in the line once, so the times of others are no later for it, and he gets in when his has come."""
    clients = Clients(1, TokenLimits(tokens_per_minute=6000))
    clients.ask(0, asked(6000))
    poller = asked(1000)
    told: list[float] = []
    for second in range(10):
        bill = Bill(clients.tills[0], b"acme", connection=7)
        bill.estimate = poller
        refusal = bill.reserve(clients.plan, [], "models", clients.limits, None, clients.loop.now)
        assert refusal is not None
        told.append(refusal.wait_s + second)
        clients.loop.run(1.0)
    assert told == pytest.approx([10.0] * 10)
    bill = Bill(clients.tills[0], b"acme", connection=8)
    bill.tries = 0
    bill.estimate = asked(500)
    refusal = bill.reserve(clients.plan, [], "models", clients.limits, None, clients.loop.now)
    assert refusal is not None
    assert refusal.wait_s == pytest.approx(5.0)
    bill = Bill(clients.tills[0], b"acme", connection=7)
    bill.estimate = poller
    assert bill.reserve(clients.plan, [], "models", clients.limits, None, clients.loop.now) is None


class Loops(Clients):
    """Of two workers. Each asks again as soon as it was served, or has given up; of what it reserves it uses a part."""

    def __init__(self, board: Board, kinds: dict[str, int]) -> None:
        super().__init__(0, TokenLimits(tokens_per_minute=6000))
        for slot in range(2):
            self.tills.append(Till(AccountsHolder(), ledger_at(GcraTable(board, slot), self.loop.now)))
        self.draw = random.Random(5)
        self.had: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.used = 0
        for kind, count in kinds.items():
            for _ in range(count):
                self.loop.call_later(self.draw.random(), partial(self.begin, kind))

    def begin(self, kind: str) -> None:
        self.come(kind, Estimate(self.draw.randint(50, 120), self.draw.randint(50, 120)), self.draw.random(), 0)

    def come(self, kind: str, estimate: Estimate, name: float, tries: int) -> None:
        estimate.model = "small"
        loop = self.loop
        bill = Bill(self.draw.choice(self.tills), b"acme", hash(name) if kind == "polls" else self.draw.getrandbits(40))
        bill.wants(str(name).encode(), 0, 1, True)
        bill.estimate = estimate
        if kind == "sdk":
            bill.tries = tries
        refusal = bill.reserve(self.plan, [], "models", self.limits, None, loop.now)
        if refusal is None:
            self.had[kind] += 1
            usage = Usage(estimate.input, estimate.output // 2)
            self.used += usage.input + usage.output
            loop.call_later(self.draw.uniform(0.5, 2.0), partial(self.end, bill, usage, kind))
        elif kind == "leaves" or (kind == "sdk" and tries == 2):
            self.failed[kind] += 1
            loop.call_later(20.0 if kind == "leaves" else 0.01, partial(self.begin, kind))
        else:
            wait_s = 0.2 if kind == "polls" else refusal.wait_s + 0.002
            loop.call_later(wait_s, lambda: self.come(kind, estimate, name, tries + 1))

    def end(self, bill: Bill, usage: Usage, kind: str) -> None:
        self.settle(bill, usage)
        self.begin(kind)

    def run(self) -> float:
        """Returns: the part of the limit that was used, after the first minute."""
        self.loop.run(60.0)
        self.used = 0
        self.had.clear()
        self.loop.run(600.0)
        return self.used / 60_000


@pytest.mark.parametrize(
    "kinds", [{"sdk": 10}, {"sdk": 8, "polls": 2}, {"sdk": 5, "waits": 5}, {"sdk": 5, "leaves": 20}, {"waits": 10}]
)
def test_clients_in_a_loop_at_a_limit(board: Board, kinds: dict[str, int]) -> None:
    """No SDK gives up after its three tries, whoever else is there: those who say nothing but wait for as long as they
    are told, those who poll, those who never come back. All of the limit is used."""
    loops = Loops(board, kinds)
    share = loops.run()
    assert loops.failed["sdk"] == 0
    assert 0.97 <= share <= 1.03


def test_who_waits_as_told_has_as_much_as_an_sdk(board: Board) -> None:
    """And who polls has not much more."""
    loops = Loops(board, {"sdk": 5, "waits": 5, "polls": 2})
    loops.run()
    each = loops.had["sdk"] / 5
    assert loops.had["waits"] / 5 == pytest.approx(each, rel=0.1)
    assert loops.had["polls"] / 2 == pytest.approx(each, rel=0.3)


def test_who_never_comes_back_keeps_nobody_out() -> None:
    """Two seconds after his time what he has not fetched is anybody's; and the promise passes."""
    meter = alone(requests_per_minute=6)
    for _ in range(6):
        reserve([meter], Estimate(1, 1), NOW)
    assert [turned_away(meter, Estimate(1, 1)) for _ in range(3)] == pytest.approx([10.0, 20.0, 30.0])
    assert isinstance(reserve([meter], Estimate(1, 1), NOW + 21.9), Refusal)
    assert isinstance(reserve([meter], Estimate(1, 1), NOW + 22.1), Reservation)
    assert turned_away(meter, Estimate(1, 1), NOW + 22.1) == pytest.approx(40.0)
    late = NOW + 100.0
    for _ in range(6):
        assert isinstance(reserve([meter], Estimate(1, 1), late), Reservation)
    assert turned_away(meter, Estimate(1, 1), late) == pytest.approx(110.0)


@pytest.mark.parametrize("worker", [0, 1])
@pytest.mark.parametrize(("fetched", "left"), [([], 3), ([12.0], 2), ([12.0, 24.0, 37.9], 0)])
def test_nothing_is_kept_once_all_times_are_over(board: Board, worker: int, fetched: list[float], left: int) -> None:
    """Two seconds after the last one whatever is left is anybody's, in all workers, and nobody is told to wait for what
    was not fetched; until then the last one has his."""
    ledgers = [ledger_at(GcraTable(board, slot)) for slot in range(2)]
    one, other = (ledger.meter(KEY, "one", TokenLimits(requests_per_minute=5)) for ledger in ledgers)
    newcomers = (one, other)[worker]
    for _ in range(5):
        reserve([one], Estimate(1, 1), NOW)
    assert [turned_away(one, Estimate(1, 1)) for _ in range(3)] == pytest.approx([12.0, 24.0, 36.0])
    for at_s in fetched:
        assert isinstance(reserve([other], Estimate(1, 1), NOW + at_s, True), Reservation)
    late = NOW + 38.1
    for _ in range(left):
        assert isinstance(reserve([newcomers], Estimate(1, 1), late), Reservation)
    assert isinstance(reserve([newcomers], Estimate(1, 1), late), Refusal)
    assert turned_away(newcomers, Estimate(1, 1), late) == pytest.approx(48.0)
    assert isinstance(reserve([one], Estimate(1, 1), NOW + 48.0, True), Reservation)


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


def test_a_model_that_another_worker_has_filled_refuses_nobody_who_may_have_a_smaller_one() -> None:
    """Both have seen that there is room. Whoever comes too late hears of it, and is refused only if nobody else is to
    be asked; then he is told when to come again."""
    loop = FakeLoop()
    arrivals = LocalArrivals()
    plan = ModelPlan("big", ORDERED, [], "small", None, TokenLimits(tokens_per_minute=6000))
    bills = []
    for _ in range(2):
        bill = Bill(Till(AccountsHolder(), ledger_at(arrivals, loop.now)), b"acme")
        bill.estimate = asked(6000)
        assert bill.kept_out(plan, loop.now) is None
        bills.append(bill)
    assert bills[0].reserve(plan, [], "models", NO_LIMITS, None, loop.now, has_other=True) is None
    late = bills[1]
    for _ in range(2):
        refusal = late.reserve(plan, [], "models", NO_LIMITS, None, loop.now, has_other=True)
        assert refusal is not None
        assert (refusal.meter.kind, refusal.meter.refused) == (MODEL, 0)
        assert late.kept_out(plan, loop.now) is not None
        assert len(late.meters) == 1
    refusal = late.reserve(plan, [], "models", NO_LIMITS, None, loop.now)
    assert refusal is not None
    assert (refusal.meter.refused, refusal.wait_s > 0.0) == (1, True)
