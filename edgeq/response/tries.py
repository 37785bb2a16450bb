"""Trying again: what has failed of a request so far, and its next try.

    a try fails --may it be sent again?--> its place is given up --pause--> a place, or the queue for one --> endpoint
                     |
                     +-- no --> the request ends with what failed last

A request gets a `Tries` with its first failure, or when its route hedges; others, which succeed at once, know nothing
of it. What is safe to send again, and how often, is said by its route's policy (`policy.retry`); here it is done. The
one thing that needs no policy is a connection that cannot be opened: nothing was sent, and another endpoint may be
asked (RFC 9110 9.2.2 is about requests that may have arrived).

Invariants
- Each method that returns True has seen to the next try; whoever gets False ends the request with what failed last.
- A next try goes to an endpoint that has not failed this request, while there is one.
- What is taken from the budget counts as running until the request has ended, or is to be tried once more.
- While there is a hedge, a first try that fails leaves the request to it; a hedge that fails leaves it to the first.
  Only when both are gone another try may follow.
"""

from __future__ import annotations

from random import random
from time import monotonic
from typing import TYPE_CHECKING, Final

from edgeq.admission.ticket import IGNORED, OK
from edgeq.response.hedge import Hedge
from edgeq.wire.head import retry_after_s
from edgeq.worker.wheel import Timed

if TYPE_CHECKING:
    from edgeq.policy.hedge import HedgePolicy
    from edgeq.policy.retry import RetryBudget, RetryPolicy
    from edgeq.response.relay import Exchange
    from edgeq.response.sending import Sending
    from edgeq.upstream.connection import UpstreamConnection
    from edgeq.upstream.pool import Pool
    from edgeq.wire.head import ResponseHead

_MAX_DIALS: Final = 3
"""Endpoints of a request that may turn out not to be reachable: each may cost it a connect time-out."""
_MAX_HEEDED_S: Final = 10.0
"""Who is told to come again later than this is told, even if the request has more time: it holds a connection."""


HEDGE_LOST: Final = 1
HEDGE_WON: Final = 2


class Tries(Timed):
    """Those of one request. Expires when a pause is over, or when it is time for a hedge."""

    __slots__ = (
        "_budget",
        "_first_sent_at",
        "_hedges",
        "_pauses",
        "_unreachable",
        "exchange",
        "failed",
        "hedge",
        "hedged",
        "second_reason",
    )

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self.exchange: Exchange | None = exchange
        """None once it has ended."""
        self._budget: RetryBudget | None = None
        """Where the try that is under way counts as a retry."""
        self._pauses: bool = False
        self._hedges: HedgePolicy | None = None
        """By which it is hedged, if at all."""
        self._first_sent_at: float = 0.0
        self.hedge: Hedge | None = None
        """The second try, while there are two."""
        self.hedged: int = 0
        """0: it was not; HEDGE_LOST, HEDGE_WON."""
        self._unreachable: int = 0
        """How often no connection could be had."""
        self.failed: list[Pool] = []
        """The endpoints that have failed this request."""
        self.second_reason = ""
        """Why nothing more was done about the reason that the request has ended for."""

    def after_dial(self, exchange: Exchange, pool: Pool) -> bool:
        """No connection to `pool` could be had."""
        route = exchange.route
        self._unreachable += 1
        if route is None or self._unreachable >= min(_MAX_DIALS, len(route.upstream.pools)):
            return False
        self.failed.append(pool)
        return route.upstream.submit_other(exchange, self.failed)

    def after_reset(self, exchange: Exchange, policy: RetryPolicy, pool: Pool) -> bool:
        """The connection has ended before an answer began; the exchange has none any more."""
        now = monotonic()
        outcome = exchange.outcome("upstream_reset")
        if self.hedge is not None:
            return self._leave_to_hedge(exchange, pool, outcome, now)
        if not policy.on_reset or not self._may_go_on(exchange, policy, 0.0, now):
            return False
        self._go_on(exchange, pool, outcome, now)
        return True

    def after_timeout(self, exchange: Exchange, policy: RetryPolicy, up: UpstreamConnection) -> bool:
        """The answer to this try should have begun by now."""
        now = monotonic()
        hedge = self.hedge
        if hedge is None and not (policy.on_timeout and self._may_go_on(exchange, policy, 0.0, now)):
            return False
        outcome = exchange.outcome("upstream_timeout")
        exchange.blame(up.pool, "upstream_timeout")
        exchange.let_go(up)
        up.discard()
        if hedge is not None:
            return self._leave_to_hedge(exchange, up.pool, outcome, now)
        self._go_on(exchange, up.pool, outcome, now)
        return True

    def after_answer(
        self,
        exchange: Exchange,
        policy: RetryPolicy,
        answer: ResponseHead,
        up: UpstreamConnection,
        size: int,
        now: float,
    ) -> bool:
        """An answer that is no good is here, with `size` bytes of its body, and nothing of it has been passed on."""
        route = exchange.route
        if route is None or not policy.is_safe_after(answer):
            return False
        is_busy = answer.status in (429, 503)
        wished_s = retry_after_s(answer) if is_busy else 0.0
        if wished_s > 0.0 and route.upstream.has_other([*self.failed, up.pool]):
            wished_s = 0.0  # the other one has not said so
        hedge = self.hedge
        if hedge is None and not self._may_go_on(exchange, policy, wished_s, now):
            if self.second_reason and not is_busy:
                exchange.reason = self.second_reason  # nothing else was wrong here
                exchange.resource = route.resource + ":retry"
            return False
        exchange.put_back(up, answer, size, now)
        outcome = exchange.outcome("upstream_shed") if is_busy else OK
        if hedge is not None:
            return self._leave_to_hedge(exchange, up.pool, outcome, now)
        self._go_on(exchange, up.pool, outcome, now)
        return True

    def _may_go_on(self, exchange: Exchange, policy: RetryPolicy, wished_s: float, now: float) -> bool:
        """May this request be sent once more, although an upstream has had it, but not before `wished_s` from now?

        Sets when, and takes it from the budget.
        """
        route = exchange.route
        if (
            route is None
            or exchange.attempts >= policy.attempts
            or not exchange.is_replayable()
            or len(exchange.pending) > policy.body_bytes
        ):
            return False
        pause_s = policy.pause_s(exchange.attempts, random())
        if wished_s > pause_s:
            pause_s = wished_s
        if wished_s > _MAX_HEEDED_S or now + pause_s >= exchange.deadline_at:
            return False
        upstream = route.upstream
        breaker = upstream.breaker
        if breaker is not None and breaker.is_shut(now):
            self.second_reason = "circuit_open"
            return False
        self._count_no_more()
        if not policy.budget.take(now, upstream.in_flight()):
            self.second_reason = "retry_budget_exhausted"
            return False
        self._budget = policy.budget
        self.expire_at = now + pause_s
        return True

    def _go_on(self, exchange: Exchange, pool: Pool, outcome: int, now: float) -> None:
        """Send the request once more, as `pool` has failed it. `outcome` is what the limit learns from that."""
        self.failed.append(pool)
        exchange.end_try(outcome, now)
        self._pauses = True
        if self.expire_at > now:
            exchange.down.shard.fine_wheel.schedule(self, self.expire_at)
        else:
            self.on_expire(now)

    def on_expire(self, now: float) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        if self._pauses:
            self._pauses = False
            exchange.arrived_at = now
            exchange.queued_at = now
            exchange.enter(now)
        else:
            self._begin_hedge(exchange, now)

    # -- a second try beside the first --------------------------------------------------------------------------------

    def plan_hedge(self, exchange: Exchange, policy: HedgePolicy, now: float) -> None:
        """The first try has been sent: begin a second one if it takes too long."""
        self._hedges = policy
        self._first_sent_at = now
        at = now + policy.after_s()
        if at < exchange.deadline_at:
            exchange.down.shard.fine_wheel.schedule(self, at)

    def _begin_hedge(self, exchange: Exchange, now: float) -> None:
        """Only while the first try has no answer at all, at another endpoint that has room, and in a free place."""
        route = exchange.route
        up = exchange.up
        hedges = self._hedges
        policy = None if route is None else route.retry
        if route is None or policy is None or hedges is None or up is None:
            return
        if exchange.attempts != 1 or exchange.first_byte_at or not exchange.is_replayable():
            return
        upstream = route.upstream
        bulkhead = upstream.bulkhead
        pool = upstream.spare(exchange, [up.pool])
        if pool is None or (upstream.limited and bulkhead.places() <= 0):
            return
        if not policy.budget.take(now, upstream.in_flight()):
            return
        self._budget = policy.budget
        hedge = Hedge(exchange, self, now)
        if upstream.limited and not bulkhead.try_acquire(hedge, now):
            self._count_no_more()
            return
        self.hedge = hedge
        self.hedged = HEDGE_LOST
        policy.budget.hedges += 1
        exchange.attempts += 1
        pool.submit(hedge, False)

    def hedge_won(self, exchange: Exchange, hedge: Hedge, data: bytes) -> None:
        """The head of a good answer has come to the second try, in `data`: the first one is cut."""
        now = monotonic()
        self.hedged = HEDGE_WON
        if self._budget is not None:
            self._budget.hedges_won += 1
        up = exchange.up
        if up is not None:
            member = up.pool.member
            if member is not None:
                member.took_longer(now - exchange.sent_at, now)
            exchange.let_go(up)
            up.discard()
        exchange.end_try(IGNORED, now)
        self.adopt(exchange, hedge)
        exchange.answer_data(data)

    def hedge_lost(self, exchange: Exchange, pool: Pool | None, reason: str, resource: str, detail: str) -> None:
        """Nothing has come of the second try. The arguments are for the case that the first has failed before."""
        self.hedge = None
        self._count_no_more()
        if pool is not None:
            self.failed.append(pool)
        route = exchange.route
        if exchange.up is not None or route is None:
            return
        now = monotonic()
        policy = route.retry
        if pool is not None and policy is not None and self._may_go_on(exchange, policy, 0.0, now):
            self._go_on(exchange, pool, IGNORED, now)
        else:
            exchange.fail(reason, resource, detail)

    def adopt(self, exchange: Exchange, hedge: Hedge) -> None:
        """The second try is the only one from here on."""
        self.hedge = None
        exchange.go_on_with(hedge)

    def _leave_to_hedge(self, exchange: Exchange, pool: Pool, outcome: int, now: float) -> bool:
        """The first try has failed at `pool`, and has no connection any more."""
        self.failed.append(pool)
        exchange.end_try(outcome, now)
        hedge = self.hedge
        if hedge is not None and hedge.up is not None:
            self.adopt(exchange, hedge)
        return True

    # -- the end ------------------------------------------------------------------------------------------------------

    def answered(self, exchange: Exchange, now: float) -> None:
        """The head of an answer is about to be passed on: no other try is of use any more."""
        if self._hedges is not None:
            self._hedges.answered(now - self._first_sent_at, now)
        self._cancel(exchange, now)

    def end(self, exchange: Sending, now: float) -> None:
        """The request has ended."""
        self._cancel(exchange, now)
        self._count_no_more()
        self.exchange = None

    def _cancel(self, exchange: Sending, now: float) -> None:
        hedge = self.hedge
        if hedge is not None:
            self.hedge = None
            self._count_no_more()
            hedge.cancel(now)
        if self.bucket >= 0:
            exchange.down.shard.fine_wheel.remove(self)

    def _count_no_more(self) -> None:
        budget = self._budget
        if budget is not None:
            self._budget = None
            budget.ended()
