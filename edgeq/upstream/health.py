"""Active health: what the checks of one endpoint have found, and when the next one is due.

::

    UNKNOWN --the first check--> GOOD or BAD
    GOOD --`unhealthy` bad checks in a row--> BAD
    BAD --`healthy` good checks in a row--> GOOD

UNKNOWN counts as good: an endpoint is used until something is known against it (as in HAProxy), so that a start does
not begin with refusals. The first answer decides alone, so that a dead one is out after one check.

Saturated is not dead: a check that times out says nothing against an endpoint that has given good answers to requests
since the check before, for its own turn may just wait in a queue. Checks are jittered, so that many gateways do not ask
in step.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, Literal

from edgeq.upstream.shared import BAD, GOOD, HEALTH, UNKNOWN, stamp, stamped_value

if TYPE_CHECKING:
    from edgeq.config.schema import Health
    from edgeq.upstream.member import Member

JITTER: Final = 0.1
"""Of the interval, to either side."""
FIRST_WITHIN_S: Final = 1.0
"""First checks are spread over so much time, or one interval if that is shorter."""

Outcome = Literal["good", "bad", "timeout"]


class HealthState:
    """The checks of one endpoint. Times are monotonic seconds."""

    __slots__ = ("_answered", "_bad", "_config", "_good", "_random", "checks", "detail", "due_at", "member", "running")

    def __init__(self, config: Health, member: Member, now: float, rng: random.Random) -> None:
        self._config = config
        self._random = rng
        self.member = member
        self.running: bool = False
        self.checks: int = 0
        self.detail = ""
        """What the last check that was not good has found."""
        self._good: int = 0
        self._bad: int = 0
        self._answered: int = 0
        self.due_at: float = now + rng.random() * min(FIRST_WITHIN_S, float(config.interval))

    def begin(self) -> None:
        """A check is under way."""
        self.running = True

    def done(self, outcome: Outcome, detail: str, now: float) -> bool:
        """A check has ended. Returns: whether the endpoint's health has changed by that."""
        interval_s = float(self._config.interval)
        self.running = False
        self.checks += 1
        self.due_at = now + interval_s * (1 - JITTER + 2 * JITTER * self._random.random())
        member = self.member
        served = member.answered > self._answered
        self._answered = member.answered
        if outcome == "timeout" and served and member.health != BAD:
            self.detail = detail + "; but requests are answered"
            return False
        if outcome == "good":
            self._good += 1
            self._bad = 0
            enough = member.health == UNKNOWN or self._good >= self._config.healthy
            return member.health != GOOD and enough and self._become(GOOD, now)
        self.detail = detail
        self._bad += 1
        self._good = 0
        enough = member.health == UNKNOWN or self._bad >= self._config.unhealthy
        return member.health != BAD and enough and self._become(BAD, now)

    def _become(self, health: int, now: float) -> bool:
        self.member.health = health
        self.member.adopted_health = stamp(now, health)
        self.member.cells.put(HEALTH, self.member.adopted_health)
        return True


def adopt_health(member: Member) -> bool:
    """Take over what the worker that checks has found. Returns: whether it is news."""
    change = member.cells.newest(HEALTH)
    if change <= member.adopted_health:
        return False
    member.adopted_health = change
    member.cells.put(HEALTH, change)
    health = stamped_value(change)
    news = member.health != health
    member.health = health
    return news
