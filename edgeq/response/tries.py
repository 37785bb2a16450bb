"""Trying again: what has failed of a request so far, and its next try.

A request gets a `Tries` with its first failure, so those that succeed at once know nothing of it. What is safe to send
again, and how often, is said by its route's policy (`policy.retry`); here it is done. The one thing that needs no
policy is a connection that cannot be opened: nothing was sent, and another endpoint may be asked (RFC 9110 9.2.2 is
about requests that may have arrived).

Invariants: each method that returns True has seen to the next try; whoever gets False ends the request with what failed
last. A next try goes to an endpoint that has not failed this request, while there is one.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edgeq.policy.retry import RetryPolicy
    from edgeq.response.relay import Exchange
    from edgeq.upstream.connection import UpstreamConnection
    from edgeq.upstream.pool import Pool
    from edgeq.wire.head import ResponseHead

_MAX_DIALS: Final = 3
"""Endpoints of a request that may turn out not to be reachable: each may cost it a connect time-out."""


class Tries:
    """Those of one request, from its first failure on."""

    __slots__ = ("_failed", "_unreachable", "second_reason")

    def __init__(self) -> None:
        self._failed: list[Pool] = []
        """The endpoints that have failed this request."""
        self._unreachable: int = 0
        """How often no connection could be had."""
        self.second_reason = ""
        """Why nothing more was done about the reason that the request has ended for."""

    def after_dial(self, exchange: Exchange, pool: Pool) -> bool:
        """No connection to `pool` could be had."""
        route = exchange.route
        self._unreachable += 1
        if route is None or self._unreachable >= min(_MAX_DIALS, len(route.upstream.pools)):
            return False
        self._failed.append(pool)
        return route.upstream.submit_other(exchange, self._failed)

    def after_reset(self, exchange: Exchange, policy: RetryPolicy, pool: Pool) -> bool:
        """The connection has ended before an answer began; the exchange has none any more."""
        if not policy.on_reset or not self._may_go_on(exchange, policy, monotonic()):
            return False
        self._go_on(exchange, pool)
        return True

    def after_timeout(self, exchange: Exchange, policy: RetryPolicy, up: UpstreamConnection) -> bool:
        """The answer to this try should have begun by now."""
        if not policy.on_timeout or not self._may_go_on(exchange, policy, monotonic()):
            return False
        exchange.blame(up.pool, "upstream_timeout")
        exchange.let_go(up)
        up.discard()
        self._go_on(exchange, up.pool)
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
        if route is None or not policy.is_safe_after(answer, len(route.upstream.pools)):
            return False
        if not self._may_go_on(exchange, policy, now):
            if self.second_reason and answer.status not in (429, 503):
                exchange.reason = self.second_reason  # nothing else was wrong here
                exchange.resource = route.resource + ":retry"
            return False
        exchange.put_back(up, answer, size, now)
        self._go_on(exchange, up.pool)
        return True

    def _may_go_on(self, exchange: Exchange, policy: RetryPolicy, now: float) -> bool:
        """May this request be sent once more, although an upstream has had it? Takes it from the budget."""
        if (
            exchange.attempts >= policy.attempts
            or not exchange.is_replayable()
            or len(exchange.pending) > policy.body_bytes
            or now >= exchange.deadline_at
        ):
            return False
        if not policy.budget.take(now):
            self.second_reason = "retry_budget_exhausted"
            return False
        return True

    def _go_on(self, exchange: Exchange, pool: Pool) -> None:
        """Send the request once more, as `pool` has failed it."""
        exchange.first_byte_at = 0.0
        exchange.queued_at = monotonic()
        route = exchange.route
        if route is None:
            return
        failed = self._failed
        failed.append(pool)
        if not route.upstream.submit_other(exchange, failed):
            failed.clear()
            route.upstream.submit(exchange)
