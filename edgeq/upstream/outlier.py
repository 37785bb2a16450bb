"""Passive health: endpoints whose answers are bad are left out for a while.

    in use --consecutive failures, or a success rate far below the others'--> ejected for base x times --time--> in use

Decides whom to eject. Invariants:

- Never more than `max_share` of the endpoints are ejected at once (but one may always be, if there are two or more),
  and never the last one: when everything fails the cause is elsewhere, and nobody is better off with nobody.
- What says "busy" (429, 503 with Retry-After, a full accept queue) is no failure: saturated is not dead.
- An ejection by any worker holds for all (`shared.EJECTED`); it outlives its worker and a reload.

A good active check does not end an ejection (in Envoy it does): an endpoint whose /healthz is fine while its answers
are not is just what passive health is for.

Source: Envoy's outlier detection (5 consecutive failures, interval 10 s, base 30 s x times ejected, at most 300 s,
success rate below mean - 1.9 x standard deviation among 5 or more with 100 requests each).
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

from edgeq.upstream.shared import ANSWERED, EJECTED, FAILED, stamp, stamped_at, stamped_value

if TYPE_CHECKING:
    from edgeq.config.schema import Eject
    from edgeq.upstream.member import Member


class Ejector:
    """Passive health of one upstream. Times are monotonic seconds."""

    __slots__ = (
        "_base_s",
        "_deviations",
        "_failures",
        "_interval_s",
        "_max_s",
        "_max_share",
        "_min_endpoints",
        "_min_requests",
        "_review_at",
    )

    def __init__(self, config: Eject) -> None:
        self._failures: int = config.failures
        self._base_s: float = float(config.time)
        self._max_s: float = float(config.max_time)
        self._max_share: float = config.max_share
        self._interval_s: float = float(config.interval)
        self._deviations: float = config.deviations
        self._min_endpoints: int = config.min_endpoints
        self._min_requests: int = config.min_requests
        self._review_at: float = 0.0

    def failed(self, member: Member, members: list[Member], now: float) -> bool:
        """`member` has failed once more. Returns: whether it is ejected by that."""
        if not self._failures or member.consecutive < self._failures or member.ejected_until:
            return False
        return self._eject(member, members, now)

    def _eject(self, member: Member, members: list[Member], now: float) -> bool:
        ejected = 0
        for other in members:
            if other.ejected_until:
                ejected += 1
        count = len(members)
        if ejected + 1 >= count or (ejected and ejected + 1 > self._max_share * count):
            return False
        member.ejected_times = min(255, member.ejected_times + 1)
        self._leave_out(member, now, member.ejected_times)
        change = stamp(now, member.ejected_times)
        member.adopted_ejection = change
        member.cells.put(EJECTED, change)
        return True

    def _leave_out(self, member: Member, since: float, times: int) -> None:
        member.ejected_until = since + min(self._base_s * times, self._max_s)

    def adopt(self, member: Member, now: float) -> bool:
        """Take over what another worker has decided. Returns: whether anything has changed."""
        change = member.cells.newest(EJECTED)
        if change <= member.adopted_ejection:
            return False
        member.adopted_ejection = change
        member.cells.put(EJECTED, change)
        member.ejected_times = stamped_value(change)
        self._leave_out(member, stamped_at(change), member.ejected_times)
        if member.ejected_until <= now:  # it was over before this worker began
            member.ejected_until = 0.0
            return False
        return True

    def returns(self, member: Member, now: float) -> bool:
        """Is the ejection over? Then the member begins anew: the next one lasts longer if it has not learned."""
        if not member.ejected_until or now < member.ejected_until:
            return False
        member.ejected_until = 0.0
        member.consecutive = 0
        return True

    def review(self, members: list[Member], now: float) -> list[Member]:
        """Once an interval, compare success rates. Returns: whom that has ejected."""
        if now < self._review_at:
            return []
        first = self._review_at == 0.0
        self._review_at = now + self._interval_s
        if first:
            return []
        rates: list[float] = []
        compared: list[Member] = []
        for member in members:
            answered = member.cells.total(ANSWERED)
            failed = member.cells.total(FAILED)
            good = answered - member.reviewed_answered
            bad = failed - member.reviewed_failed
            member.reviewed_answered = answered
            member.reviewed_failed = failed
            if member.ejected_until:
                continue
            if good > 0 and bad <= 0 and member.ejected_times:
                member.ejected_times -= 1
            # Counters shrink when a worker dies: then there is nothing to say about this interval.
            if good >= 0 and bad >= 0 and good + bad >= self._min_requests:
                rates.append(good / (good + bad))
                compared.append(member)
        if not self._deviations or len(rates) < max(2, self._min_endpoints):
            return []
        mean = sum(rates) / len(rates)
        deviation = sqrt(sum((rate - mean) ** 2 for rate in rates) / len(rates))
        threshold = mean - self._deviations * deviation
        ejected: list[Member] = []
        for index, member in enumerate(compared):
            if rates[index] < threshold and self._eject(member, members, now):
                ejected.append(member)
        return ejected
