"""Four times a provider's limit is asked for: it is used, it is not passed, and it is shared by tokens.

A simulation with a clock of its own. The provider has a bucket of a minute's tokens, as ours; it knows at once what a
request will use, which is the strictest that it can be.
"""

from __future__ import annotations

import random
from collections import Counter
from functools import partial

import pytest

from edgeq.admission.ticket import CallbackTicket
from edgeq.config.schema_llm import TokenLimits
from edgeq.llm.estimate import Estimator
from edgeq.llm.gate import Claim
from edgeq.llm.message import Usage
from tests.llm.gates import Bucket, Machine, claim_of

LIMIT = 600_000
SECONDS = 600.0


class Load:
    """Tenants who ask, each for so many tokens a second, in requests of so many on average."""

    def __init__(self, workers: int, tenants: dict[bytes, tuple[float, int, list[int]]], seed: int = 7) -> None:
        self.machine = Machine(workers, TokenLimits(tokens_per_minute=LIMIT), max_wait_s=20.0)
        self.machine.on_grant = self.granted
        self.machine.tick()
        self.bucket = Bucket(LIMIT, self.machine.loop.now)
        self.draw = random.Random(seed)
        self.estimators = [Estimator() for _ in range(workers)]
        self.real: dict[int, tuple[int, int]] = {}
        self.worker: dict[int, int] = {}
        self.used: Counter[bytes] = Counter()
        self.asked: Counter[bytes] = Counter()
        self.number = 0
        self.warm_at = self.machine.loop.now + 60.0
        self.base = 0
        for tenant, (rate, size, at) in tenants.items():
            self.arrive(tenant, rate, size, at)

    def arrive(self, tenant: bytes, rate: float, size: int, workers: list[int]) -> None:
        """One request, and later the next."""
        loop = self.machine.loop
        self.number += 1
        number = self.number
        tokens_in = max(1, int(self.draw.expovariate(2.0 / size)))
        tokens_out = max(1, int(self.draw.expovariate(2.0 / size)))
        worker = self.draw.choice(workers)
        self.real[number] = (tokens_in, tokens_out)
        self.worker[number] = worker
        if loop.now >= self.warm_at:
            self.asked[tenant] += tokens_in + tokens_out
        body = b"x" * int(tokens_in * 4 * self.draw.uniform(0.8, 1.2))
        ticket = CallbackTicket(loop.now, self.machine._granted, self.machine._refused, number)
        ticket.tenant = tenant
        ticket.claim = Claim(self.estimators[worker].estimate("big", tenant, body, 8 * size, 4096))
        self.machine.enter(ticket, worker)
        loop.call_later(self.draw.expovariate(rate / size), lambda: self.arrive(tenant, rate, size, workers))

    def granted(self, ticket: CallbackTicket) -> None:
        """It is sent, and reaches the provider a little later."""
        self.machine.loop.call_later(self.draw.uniform(0.001, 0.1), lambda: self.reach(ticket))

    def reach(self, ticket: CallbackTicket) -> None:
        loop = self.machine.loop
        tokens_in, tokens_out = self.real[ticket.number]
        gate = self.machine.gates[self.worker[ticket.number]]
        if not self.bucket.take(tokens_in + tokens_out, loop.now):
            gate.heard(None, 429, loop.now)
            claim_of(ticket).give_back(loop.now, True)
            return
        if loop.now >= self.warm_at:
            self.used[ticket.tenant] += tokens_in + tokens_out
        loop.call_later(0.2 + tokens_out * 0.005, lambda: self.answered(ticket))

    def answered(self, ticket: CallbackTicket) -> None:
        worker = self.worker[ticket.number]
        usage = Usage(*self.real.pop(ticket.number))
        claim = claim_of(ticket)
        self.estimators[worker].learn(claim.estimate, usage)
        claim.settle(usage, 0, self.machine.loop.now)

    def run(self) -> float:
        """Returns: the part of the limit that was used, after the first minute, in which a whole bucket more was."""
        self.machine.loop.run(60.0 + SECONDS)
        return sum(self.used.values()) / (LIMIT / 60 * SECONDS)


A_SECOND = LIMIT / 60


@pytest.mark.parametrize("workers", [1, 4])
def test_four_times_the_limit(workers: int) -> None:
    """At least 97 % of it is used, nothing is refused by the provider, and small tenants get all that they ask for."""
    everywhere = list(range(workers))
    load = Load(
        workers,
        {
            b"flood": (3.6 * A_SECOND, 2000, everywhere),
            b"small": (0.2 * A_SECOND, 500, [0]),
            b"other": (0.2 * A_SECOND, 1000, everywhere),
        },
    )
    share = load.run()
    assert load.bucket.refused == 0
    assert 0.97 <= share <= 1.03
    for tenant in (b"small", b"other"):
        assert load.used[tenant] >= 0.9 * load.asked[tenant]


@pytest.mark.parametrize("workers", [1, 4])
def test_shares_are_by_tokens(workers: int) -> None:
    """Two who both ask for twice the limit have half of it each: one in few large requests and by one worker, the other
    in many small ones and by all."""
    everywhere = list(range(workers))
    shares = []
    for seed in (7, 8, 9):
        tenants = {b"large": (2 * A_SECOND, 6000, [0]), b"small": (2 * A_SECOND, 1500, everywhere)}
        load = Load(workers, tenants, seed)
        shares.append(load.run())
        assert load.bucket.refused == 0
        assert load.used[b"large"] / sum(load.used.values()) == pytest.approx(0.5, abs=0.06)
    # How full the last seconds are depends on the sizes drawn: a single run has between 0.966 and 0.994.
    assert sorted(shares)[1] >= 0.97, shares


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("clients", [6, 10])
def test_who_comes_when_he_was_told_gets_in(workers: int, clients: int) -> None:
    """Clients that come all at once, wait for as long as they are told, and give up after two more tries, as SDKs."""
    machine = Machine(workers, TokenLimits(tokens_per_minute=6000), max_wait_s=8.0)
    machine.tick()
    loop = machine.loop
    tries: Counter[int] = Counter()
    told: list[tuple[int, str, int]] = machine.refused
    seen = 0

    def ask(number: int) -> None:
        tries[number] += 1
        machine.ask(number, 1200, 50, b"", number % workers)

    def look() -> None:
        """Who has been turned away comes again when he was told."""
        nonlocal seen
        for number, _, retry_s in told[seen:]:
            if tries[number] < 3:
                loop.call_later(float(retry_s), partial(ask, number))
        seen = len(told)
        loop.call_later(0.01, look)

    machine.on_grant = lambda ticket: loop.call_later(
        1.0, lambda: claim_of(ticket).settle(Usage(1200, 50), 0, loop.now)
    )
    look()
    for number in range(clients):
        ask(number)
    loop.run(180.0)
    assert sorted(machine.granted) == list(range(clients)), told
    assert max(retry_s for _, _, retry_s in told) <= 60


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("size", "max_wait_s"), [(1000, 30.0), (500, 10.0), (1000, 10.0)])
def test_large_ones_are_not_displaced_by_small_ones(workers: int, size: int, max_wait_s: float) -> None:
    """One tenant asks for twice the limit in small requests, another one for half of it in such that take as many
    tokens as come in five or ten seconds. Both come again twice when they were told, as SDKs; the large ones' share is
    two thirds of what they ask for, at least. (With the queue full, no large one found room in it before.)"""
    limit, seconds = 6000, 600.0
    machine = Machine(workers, TokenLimits(tokens_per_minute=limit), max_wait_s=max_wait_s)
    machine.tick()
    loop = machine.loop
    draw = random.Random(3)
    sizes: dict[int, int] = {}
    tries: Counter[int] = Counter()
    used: Counter[int] = Counter()
    seen = 0

    def ask(number: int) -> None:
        tries[number] += 1
        tenant = b"large" if sizes[number] == size else b"small"
        machine.ask(number, sizes[number] - 10, 10, tenant, draw.randrange(workers))

    def arrive(tokens: int, every_s: float) -> None:
        number = len(sizes)
        sizes[number] = tokens
        ask(number)
        loop.call_later(draw.expovariate(1 / every_s), partial(arrive, tokens, every_s))

    def look() -> None:
        nonlocal seen
        for number, _, retry_s in machine.refused[seen:]:
            if tries[number] < 3:
                loop.call_later(float(retry_s), partial(ask, number))
        seen = len(machine.refused)
        loop.call_later(0.1, look)

    def granted(ticket: CallbackTicket) -> None:
        tokens = sizes[ticket.number]
        used[tokens] += tokens
        loop.call_later(1.0, lambda: claim_of(ticket).settle(Usage(tokens - 10, 10), 0, loop.now))

    machine.on_grant = granted
    look()
    arrive(100, 0.5)
    arrive(size, size / 50)
    loop.run(seconds)
    assert used[size] >= 0.3 * limit / 60 * seconds
    assert used[size] + used[100] >= 0.99 * limit / 60 * seconds
