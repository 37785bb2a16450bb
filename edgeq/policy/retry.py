"""May a failed try be followed by another one? What is safe, and how much of it the upstream can stand.

A request may be sent again only if nothing of an answer has reached the client, its method is idempotent (RFC 9110
9.2.2), and all of its body is still here, which is kept up to a bound. What never reached an upstream (a connection
that could not be opened, a kept one that was closed meanwhile) is no try: `relay` and `pool` see to that without any of
this, and nothing of it is counted.

Never tried again is what a gateway has shed, this one or another edgeq behind it: it was refused so that there be less
work. And an upstream that says when to come again (Retry-After) is believed: another endpoint is asked, or if there is
none, this one at that moment.

The budget follows Finagle's RetryBudget: over the last ten seconds at most `share` of the requests plus `reserve` a
second may have been retries (hedged requests count as such). When a whole upstream fails, retries so add a fifth to its
load, and not three times as much; the reserve lets an upstream with little traffic have any. And at no moment may more
than `concurrent` of the requests in flight be retries, but `concurrent_min` always may (Envoy's retry budget): when
answers take long, ten seconds are not short enough.

Between two tries there is a pause, drawn at random from nothing to `backoff` (full jitter: Envoy's retries; AWS,
"Exponential Backoff And Jitter"), the next time to twice as much, to `max_backoff` at most: those who failed together
do not come back together.
"""

from __future__ import annotations

from typing import Final, Protocol

from edgeq.policy.hedge import HedgePolicy
from edgeq.reasons import REASONS
from edgeq.wire.head import ResponseHead

WINDOW_S: Final = 10
_REASON: Final = b"edgeq-reason="


class OtherBudgets(Protocol):
    """The counts of an upstream's budget in the other workers, over their last ten seconds."""

    def publish(self, requests: int, retries: int) -> None:
        """Write down this worker's own."""

    def requests(self) -> int:
        """The sum of the others' requests."""

    def retries(self) -> int:
        """The sum of the others' retries."""


class RetryBudget:
    """How many requests of an upstream may be sent once more. Times are monotonic seconds."""

    __slots__ = (
        "_others",
        "_requests",
        "_retries",
        "_second",
        "concurrent",
        "concurrent_min",
        "hedges",
        "hedges_won",
        "refused",
        "requests",
        "reserve",
        "retries",
        "running",
        "share",
        "taken",
    )

    def __init__(
        self,
        share: float,
        reserve: float,
        others: OtherBudgets | None = None,
        concurrent: float = 0.2,
        concurrent_min: int = 3,
    ) -> None:
        """Args: share of the requests, reserve in retries a second; others: None for a worker that is alone; concurrent
        is a share of the requests in flight, concurrent_min a number of them."""
        self.share: float = share
        self.reserve: float = reserve
        self.concurrent: float = concurrent
        self.concurrent_min: int = concurrent_min
        self.running: int = 0
        """Retries that are under way: each is to be given back by `ended`."""
        self._others: OtherBudgets | None = others
        self._second: int = 0
        # One cell for each of the last ten seconds, and their sums.
        self._requests: list[int] = [0] * WINDOW_S
        self._retries: list[int] = [0] * WINDOW_S
        self.requests: int = 0
        self.retries: int = 0
        # Since the worker began:
        self.taken: int = 0
        self.refused: int = 0
        self.hedges: int = 0
        """Of those that were taken: sent beside a first try that went on."""
        self.hedges_won: int = 0
        """Of those: they answered first."""

    def request(self, now: float) -> None:
        """A request is sent for the first time."""
        second = int(now)
        if second != self._second:
            self._advance(second)
        self._requests[second % WINDOW_S] += 1
        self.requests += 1

    def take(self, now: float, in_flight: int) -> bool:
        """May one be sent again, beside so many requests in flight? If so, it counts from now on, and until `ended`."""
        if self.running >= self.concurrent_min and self.running + 1 > self.concurrent * in_flight:
            self.refused += 1
            return False
        second = int(now)
        if second != self._second:
            self._advance(second)
        requests = self.requests
        retries = self.retries
        others = self._others
        if others is not None:
            requests += others.requests()
            retries += others.retries()
        if retries + 1 > self.share * requests + self.reserve * WINDOW_S:
            self.refused += 1
            return False
        self._retries[second % WINDOW_S] += 1
        self.retries += 1
        self.taken += 1
        self.running += 1
        if others is not None:
            others.publish(self.requests, self.retries)
        return True

    def ended(self) -> None:
        """One that was taken is over, whatever has become of it."""
        self.running -= 1

    def tick(self, now: float) -> None:
        """Forget what is too old, and tell the other workers; called now and then."""
        second = int(now)
        if second != self._second:
            self._advance(second)
        if self._others is not None:
            self._others.publish(self.requests, self.retries)

    def _advance(self, second: int) -> None:
        passed = min(second - self._second, WINDOW_S)
        for offset in range(passed):
            index = (second - offset) % WINDOW_S
            self.requests -= self._requests[index]
            self.retries -= self._retries[index]
            self._requests[index] = 0
            self._retries[index] = 0
        self._second = second

    def snapshot(self) -> dict[str, int | float]:
        """What of it is used, in this worker."""
        return {
            "requests": self.requests,
            "retries": self.retries,
            "running": self.running,
            "allowed": self.share * self.requests + self.reserve * WINDOW_S,
            "refused": self.refused,
        }


class RetryPolicy:
    """When a request of a route is tried again."""

    __slots__ = (
        "attempts",
        "backoff_s",
        "body_bytes",
        "budget",
        "hedge",
        "max_backoff_s",
        "on_reset",
        "on_timeout",
        "per_try_s",
        "statuses",
    )

    def __init__(
        self,
        on_reset: bool,
        on_timeout: bool,
        statuses: frozenset[int],
        attempts: int,
        per_try_s: float,
        body_bytes: int,
        budget: RetryBudget,
        backoff_s: float = 0.0,
        max_backoff_s: float = 0.0,
        hedge: HedgePolicy | None = None,
    ) -> None:
        """Args: attempts counts the first one; per_try_s is until the answer begins, 0 for the upstream's own time;
        body_bytes is how much of a body may have been sent for another try, and so is kept; backoff_s is the longest
        pause before the second try."""
        self.on_reset: bool = on_reset
        self.on_timeout: bool = on_timeout
        self.statuses: frozenset[int] = statuses
        self.attempts: int = attempts
        self.per_try_s: float = per_try_s
        self.body_bytes: int = body_bytes
        self.budget: RetryBudget = budget
        self.backoff_s: float = backoff_s
        self.max_backoff_s: float = max_backoff_s
        self.hedge: HedgePolicy | None = hedge
        """None: there is never a second try beside the first."""

    def pause_s(self, tries: int, draw: float) -> float:
        """The pause before the next try, after so many (at least 1). `draw`: a random number, 0 <= draw < 1."""
        longest = self.backoff_s * (1 << min(tries - 1, 16))
        return draw * min(longest, self.max_backoff_s)

    def is_safe_after(self, answer: ResponseHead) -> bool:
        """May the request go again after this answer, as far as that says?"""
        if answer.status not in self.statuses:
            return False
        lines = answer.forward.lower()
        at = lines.find(_REASON)
        if at >= 0:
            known = REASONS.get(_token(lines[at + len(_REASON) : at + len(_REASON) + 64]))
            if known is None or known.fault != "U" or known.token == "upstream_saturated":
                return False
        return True


def _token(text: bytes) -> str:
    """The token at the start of `text`."""
    for end in range(len(text)):
        if not (0x61 <= text[end] <= 0x7A or text[end] == 0x5F):
            return text[:end].decode("latin-1")
    return text.decode("latin-1")
