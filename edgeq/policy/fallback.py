"""What a route serves in place of a refusal or a failure: another upstream's answer, or a prepared one.

Which refusals: by group, by reason (`edgeq.reasons`) or by the status of an upstream's own answer.

    shed     this gateway has no room for the request: queues, limits, deadlines
    failed   the upstream cannot be reached, or does not answer as it should

The client's own faults are in no group. Of those only a quota may be named (`rate_limited` and the like): what breaks
the rules of HTTP has to be told, and ends the connection. Nor is a worker's own distress (`loop_lag`), which refuses
before there is a route, or the end of the gateway (`draining`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeq.reasons import REASONS

if TYPE_CHECKING:
    from edgeq.route.table import Route

SHED: Final = frozenset(
    (
        "rate_limited_shared",
        "token_limit_shared",
        "budget_exhausted_shared",
        "queue_full",
        "queue_timeout",
        "queue_codel_drop",
        "queue_displaced",
        "priority_shed",
        "adaptive_limit",
        "deadline_infeasible",
        "deadline_expired",
        "upstream_port_exhausted",
    )
)
FAILED: Final = frozenset(token for token, row in REASONS.items() if row.fault == "U" and row.status)
QUOTA: Final = frozenset(
    (
        "rate_limited",
        "token_limit",
        "request_over_limit",
        "budget_exhausted",
        "concurrency_limit_client",
        "fair_share_exceeded",
    )
)
GROUPS: Final[dict[str, frozenset[str]]] = {"shed": SHED, "failed": FAILED}
STATUSES: Final = frozenset(("429", "500", "502", "503", "504"))
CHOICES: Final = (*GROUPS, *sorted(SHED | FAILED | QUOTA), *sorted(STATUSES))
"""What `fallback.on` may name."""


class PreparedAnswer:
    """An answer from the configuration."""

    __slots__ = ("body", "content_type", "status")

    def __init__(self, status: int, content_type: str, body: bytes) -> None:
        self.status: int = status
        self.content_type = content_type
        self.body = body


class Fallback:
    """[route.fallback], made ready."""

    __slots__ = ("answer", "reasons", "route", "statuses")

    def __init__(self, on: tuple[str, ...], route: Route | None, answer: PreparedAnswer | None) -> None:
        """Args: on are of CHOICES; route leads to the other upstream, and may have a fallback with the answer only."""
        reasons: set[str] = set()
        for one in on:
            reasons |= GROUPS.get(one, frozenset((one,)))
        self.reasons: frozenset[str] = frozenset(reasons - STATUSES)
        self.statuses: frozenset[int] = frozenset(int(one) for one in on if one in STATUSES)
        """Of the upstream's own answers."""
        self.route: Route | None = route
        self.answer: PreparedAnswer | None = answer
