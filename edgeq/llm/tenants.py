"""What the busiest tenants use, and all others together: a bounded number of counters that only grow.

Who comes first has a place while there is one. Once a minute, who has none and has used twice as much in that minute as
the quietest one with a place takes it; what that one had used goes to the others. So no number is lost, and none
shrinks; a tenant that has got a place begins at 0.
"""

from __future__ import annotations

from typing import Final

from edgeq.observe.refusals import OTHER

MAX_TENANTS: Final = 32
PERIOD_S: Final = 60.0


class TenantUse:
    """Of one tenant. `recent`: tokens and requests in this period."""

    __slots__ = ("cost_micro", "recent", "requests", "tokens")

    def __init__(self) -> None:
        self.requests: int = 0
        self.tokens: int = 0
        self.cost_micro: int = 0
        self.recent: int = 0

    def record(self, tokens: int, cost_micro: int) -> None:
        """One request."""
        self.requests += 1
        self.tokens += tokens
        self.cost_micro += cost_micro
        self.recent += tokens + 1

    def told(self) -> dict[str, int]:
        """For the report."""
        return {"requests": self.requests, "tokens": self.tokens, "cost_micro": self.cost_micro}


class TenantUses:
    """Of all tenants."""

    __slots__ = ("_listed", "_max", "_others", "_seeking", "_turn_at")

    def __init__(self, max_tenants: int = MAX_TENANTS) -> None:
        self._max: int = max_tenants
        self._listed: dict[str, TenantUse] = {}
        self._others: TenantUse = TenantUse()
        self._seeking: dict[str, int] = {}
        """What those without a place have used in this period; some of them."""
        self._turn_at: float = 0.0

    def record(self, tenant: str, tokens: int, cost_micro: int) -> None:
        """A request has ended."""
        use = self._listed.get(tenant)
        if tenant == OTHER:  # somebody may be called so
            use = self._others
        elif use is None:
            if len(self._listed) < self._max:
                use = TenantUse()
                self._listed[tenant] = use
            else:
                use = self._others
                known = self._seeking.get(tenant, 0)
                if known or len(self._seeking) < 4 * self._max:
                    self._seeking[tenant] = known + tokens + 1
        use.record(tokens, cost_micro)

    def told(self, now: float) -> dict[str, dict[str, int]]:
        """For the report."""
        if now >= self._turn_at:
            self._turn_at = now + PERIOD_S
            self._turn()
        found = {tenant: use.told() for tenant, use in self._listed.items()}
        if self._others.requests:
            found[OTHER] = self._others.told()
        return found

    def _turn(self) -> None:
        """A period is over: places change hands."""
        for tenant in sorted(self._seeking, key=self._seeking.__getitem__, reverse=True):
            quietest = min(self._listed, key=self._recent)
            if self._seeking[tenant] <= 2 * self._listed[quietest].recent:
                break
            gone = self._listed.pop(quietest)
            others = self._others
            others.requests += gone.requests
            others.tokens += gone.tokens
            others.cost_micro += gone.cost_micro
            use = TenantUse()
            use.recent = self._seeking[tenant]  # it keeps its place in this turn
            self._listed[tenant] = use
        self._seeking = {}
        for use in self._listed.values():
            use.recent = 0

    def _recent(self, tenant: str) -> int:
        return self._listed[tenant].recent
