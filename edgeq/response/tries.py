"""Trying again: what has failed of a request so far, and its next try.

    a try fails --may it be sent again?--> its place is given up --pause--> a place, or the queue for one --> endpoint
                     |
                     +-- no --> the request ends with what failed last

A request gets a `Tries` with its first failure, so those that succeed at once know nothing of it. What is safe to send
again, and how often, is said by its route's policy (`policy.retry`); here it is done. The one thing that needs no
policy is a connection that cannot be opened: nothing was sent, and another endpoint may be asked (RFC 9110 9.2.2 is
about requests that may have arrived).

Invariants
- Each method that returns True has seen to the next try; whoever gets False ends the request with what failed last.
- A next try goes to an endpoint that has not failed this request, while there is one.
- What is taken from the budget counts as running until the request has ended, or is to be tried once more.
"""

from __future__ import annotations

from random import random
from time import monotonic
from typing import TYPE_CHECKING, Final

from edgeq.wire.framing import LENGTH, NO_BODY
from edgeq.wire.head import retry_after_s
from edgeq.worker.wheel import Timed

if TYPE_CHECKING:
    from edgeq.policy.retry import RetryBudget, RetryPolicy
    from edgeq.response.relay import Exchange
    from edgeq.upstream.connection import UpstreamConnection
    from edgeq.upstream.pool import Pool
    from edgeq.wire.head import ResponseHead

_MAX_DIALS: Final = 3
"""Endpoints of a request that may turn out not to be reachable: each may cost it a connect time-out."""
_MAX_HEEDED_S: Final = 10.0
"""Who is told to come again later than this is told, even if the request has more time: it holds a connection."""


class Tries(Timed):
    """Those of one request, from its first failure on. Expires when a pause is over."""

    __slots__ = ("_budget", "_exchange", "_unreachable", "failed", "second_reason")

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self._exchange: Exchange | None = exchange
        """None once it has ended."""
        self._budget: RetryBudget | None = None
        """Where the try that is under way counts as a retry."""
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
        if not policy.on_reset or not self._may_go_on(exchange, policy, 0.0, now):
            return False
        self._go_on(exchange, pool, "upstream_reset", now)
        return True

    def after_timeout(self, exchange: Exchange, policy: RetryPolicy, up: UpstreamConnection) -> bool:
        """The answer to this try should have begun by now."""
        now = monotonic()
        if not policy.on_timeout or not self._may_go_on(exchange, policy, 0.0, now):
            return False
        exchange.blame(up.pool, "upstream_timeout")
        exchange.let_go(up)
        up.discard()
        self._go_on(exchange, up.pool, "upstream_timeout", now)
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
        if not self._may_go_on(exchange, policy, wished_s, now):
            if self.second_reason and not is_busy:
                exchange.reason = self.second_reason  # nothing else was wrong here
                exchange.resource = route.resource + ":retry"
            return False
        whole = answer.content_length == size and answer.body_kind in (NO_BODY, LENGTH)
        exchange.let_go(up)
        unsent: int = up.transport.get_write_buffer_size()
        if whole and answer.keep_alive and exchange.request_done and not unsent and not exchange.down.write_blocked:
            up.pool.release(up, now)
        else:
            up.discard()
        self._go_on(exchange, up.pool, "upstream_shed" if is_busy else "", now)
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
        if pause_s > _MAX_HEEDED_S or now + pause_s >= exchange.deadline_at:
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

    def _go_on(self, exchange: Exchange, pool: Pool, reason: str, now: float) -> None:
        """Send the request once more, as `pool` has failed it. `reason`: empty, or what came of it."""
        self.failed.append(pool)
        exchange.end_try(reason, now)
        if self.expire_at > now:
            exchange.down.shard.fine_wheel.schedule(self, self.expire_at)
        else:
            self.on_expire(now)

    def on_expire(self, now: float) -> None:
        """The pause is over."""
        exchange = self._exchange
        if exchange is not None:
            exchange.arrived_at = now
            exchange.queued_at = now
            exchange.enter(now)

    def end(self, exchange: Exchange) -> None:
        """The request has ended."""
        self._exchange = None
        self._count_no_more()
        if self.bucket >= 0:
            exchange.down.shard.fine_wheel.remove(self)

    def _count_no_more(self) -> None:
        budget = self._budget
        if budget is not None:
            self._budget = None
            budget.ended()
