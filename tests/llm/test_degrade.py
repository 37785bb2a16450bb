"""Why a smaller model is asked: whatever keeps a request from the first one has a reason, a resource and words."""

from __future__ import annotations

import json

import pytest

from edgeq.admission.ticket import CallbackTicket
from edgeq.config.base import Duration
from edgeq.config.schema import Breaker as BreakerConfig
from edgeq.config.schema import Upstream as UpstreamConfig
from edgeq.config.schema_llm import Price, TokenLimits
from edgeq.llm.account import NO_LIMITS
from edgeq.llm.degrade import Degraded, Kept, kept_by
from edgeq.llm.estimate import Estimate
from edgeq.llm.ledger import Ledger
from edgeq.llm.meter import MODEL
from edgeq.llm.plan import ORDERED, Choice, ModelPlan
from edgeq.llm.price import Tariff
from edgeq.policy.rate import LocalArrivals
from edgeq.reasons import REASONS
from edgeq.upstream.breaker import Breaker
from edgeq.upstream.shared import LocalCells
from edgeq.upstream.upstream import Upstream
from edgeq.worker.wheel import Wheel
from tests.llm.gates import Machine

MINUTE = TokenLimits(tokens_per_minute=6000)
SMALL = Estimate(10, 10)


class Bed:
    """A model whose targets are at one gate and one upstream, which has one place."""

    def __init__(self, limits: TokenLimits = MINUTE, targets: int = 1) -> None:
        self.machine = Machine(1, limits)
        self.gate = self.machine.gates[0]
        self.upstream = Upstream("acme", Wheel(self.now(), 0.1, 64))
        self.upstream.configure(UpstreamConfig(endpoints=(), limit=1), 1)
        self.plan = ModelPlan("big", ORDERED, [self._choice(at) for at in range(targets)], "small", None, NO_LIMITS)

    def _choice(self, at: int) -> Choice:
        names = (f"acme/big{at}", at, "acme", "openai", "big", b"", b"", b"")
        return Choice(*names, [], self.upstream, self.gate, 1, Tariff(Price()), 4096, None, False)

    def now(self) -> float:
        return self.machine.loop.now

    def use(self) -> None:
        """All tokens of the minute."""
        self.machine.ask(1, 2250, 2250)

    def wait(self) -> None:
        """Somebody wants more than there is, and waits; a small one would have its tokens."""
        self.machine.ask(1, 2000, 2000)
        self.machine.ask(2, 1000, 1000)

    def run(self) -> None:
        """Somebody has the place."""
        ticket = CallbackTicket(self.now(), lambda *_: None, lambda *_: None)
        assert self.upstream.bulkhead.try_acquire(ticket, self.now())

    def limit(self) -> None:
        """The provider has answered 429."""
        self.gate.pause(20.0, self.now())

    def fail(self) -> None:
        """The target does, three times in a row."""
        for _ in range(3):
            self.gate.failed("upstream_error", self.now(), self.now())

    def lock(self) -> None:
        """The provider refuses the key."""
        self.gate.disable_key(True, self.now())

    def trip(self) -> None:
        """The breaker of the key."""
        self.upstream.breaker = Breaker(
            BreakerConfig(failures=0.5, min_requests=1, open=Duration(5)), LocalCells(), self.now()
        )
        self.upstream.breaker.failed(self.now(), self.now())

    def resume(self) -> None:
        """A pause of a target without limits is just over, and the first one has gone."""
        self.gate.pause(1.0, self.now())
        self.machine.loop.run(1.001)
        self.machine.ask(1, 1, 1)

    def kept(self) -> Kept:
        """What keeps the next one out."""
        assert self.plan.is_saturated(SMALL, self.now())
        return kept_by(self.plan, None, SMALL, self.now())


@pytest.mark.parametrize(
    ("what", "reason", "resource", "words"),
    [
        ("use", "token_limit_shared", "target/acme:big:tokens", "the provider: 20 tokens, of 6000 a minute"),
        ("wait", "token_limit_shared", "target/acme:big:queue", "1 wait there before it"),
        ("run", "queue_full", "upstream/acme:queue", "no place is free there, the limit is 1"),
        ("limit", "upstream_rate_limit", "target/acme:big", "not asked for another 20 s"),
        ("fail", "circuit_open", "target/acme:big", "have failed; it is not asked for another "),
        ("lock", "upstream_auth", "target/acme:big", "does not let the gateway in; "),
        ("trip", "circuit_open", "upstream/acme:breaker", "too much of it has failed"),
    ],
)
def test_whatever_it_is(what: str, reason: str, resource: str, words: str) -> None:
    """As it would have been refused, or have waited."""
    bed = Bed()
    assert not bed.plan.is_saturated(SMALL, bed.now())
    getattr(bed, what)()
    kept = bed.kept()
    assert (kept.reason, kept.resource) == (reason, resource)
    assert words in kept.detail
    assert kept.reason in REASONS


def test_soon_after_a_rest() -> None:
    """Where no limit is known, nobody waits, and yet it is another one's turn."""
    bed = Bed(NO_LIMITS)
    bed.resume()
    kept = bed.kept()
    assert (kept.reason, kept.resource) == ("upstream_rate_limit", "target/acme:big")
    assert "until a moment ago" in kept.detail


def test_all_are_disabled() -> None:
    """Then nobody is there to be asked."""
    bed = Bed(targets=0)
    kept = bed.kept()
    assert (kept.reason, kept.resource) == ("upstream_none_healthy", "model/big")


def test_the_model_s_own_limit_goes_first() -> None:
    """Whoever is asked, it would refuse."""
    bed = Bed()
    bed.lock()
    ledger = Ledger(LocalArrivals())
    ledger.tick(bed.now(), 1_800_000_000.0)
    meter = ledger.meter(MODEL, "big", TokenLimits(concurrent=1))
    meter.begin(0, 10**9, bed.now(), int(bed.now() * 1e9))
    own = meter.ask(SMALL, bed.now())
    kept = kept_by(bed.plan, own, SMALL, bed.now())
    assert (kept.reason, kept.resource) == ("queue_full", "model/big:concurrent")
    assert kept.detail == "model big: 1 in flight, as many as may be"


@pytest.mark.parametrize(("targets", "nor", "more"), [(1, 0, ""), (4, 3, ""), (9, 3, "; nor at 5 more")])
def test_of_several_targets_the_first_is_the_one(targets: int, nor: int, more: str) -> None:
    """The others follow in words, so many as have room in a line."""
    bed = Bed(targets=targets)
    bed.use()
    kept = bed.kept()
    assert kept.resource == "target/acme:big:tokens"
    assert kept.detail.count("; nor at target/acme:big:tokens: the provider: ") == nor
    assert kept.detail.endswith(more)


def test_names_are_quoted_in_the_log() -> None:
    """Whatever they are made of, a line is one line of ASCII."""
    degraded = Degraded("big", 'sm"åll', Kept("queue_full", 'model/"å:concurrent', ""))
    text = degraded.log_text()
    assert text.isascii()
    assert json.loads("{" + text.decode().removesuffix(",") + "}") == {
        "edgeq.model": 'sm"åll',
        "edgeq.degraded_reason": "queue_full",
        "edgeq.degraded_resource": 'model/"å:concurrent',
    }
