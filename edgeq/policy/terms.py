"""Step 3 of 5, policy: on what terms a request of a route goes on. Who asks, how urgent it is, until when, how often.

    head -> tenant -> priority and deadline, as far as a trusted peer may say -> rates -> upstream

A route for which nothing of this is configured has no `Terms` (None), and its requests skip this step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeq.policy.rate import BY_CLIENT, BY_TENANT, RateSet, wait_s
from edgeq.policy.tenant import CLIENT, CREDENTIAL, HEADER, ROUTE, TenantKey, client_of, key_of
from edgeq.wire.head import field_value

if TYPE_CHECKING:
    from edgeq.policy.headers import ForwardPolicy
    from edgeq.response.relay import Exchange

CRITICAL: Final = 0
DEFAULT: Final = 1
SHEDDABLE: Final = 2
PRIORITIES: Final[dict[bytes, int]] = {b"critical": CRITICAL, b"default": DEFAULT, b"sheddable": SHEDDABLE}


class Terms:
    """The terms of one route; immutable but for what its rates count."""

    __slots__ = ("_priority", "_rates", "_route_name", "_subjects", "_tenant")

    def __init__(
        self, route_name: str, upstream_name: str, tenant: TenantKey | None, priority: int, rates: RateSet | None
    ) -> None:
        self._route_name = route_name.encode()
        self._tenant: TenantKey | None = tenant
        self._priority: int = priority
        self._rates: RateSet | None = rates
        # By BY_CLIENT, BY_TENANT, BY_ROUTE, BY_UPSTREAM; the first two are filled in for each request.
        self._subjects: list[int] = [0, 0, key_of(self._route_name), key_of(upstream_name.encode())]

    def accept(self, exchange: Exchange, now: float) -> bool:
        """Settle the terms of a request. Returns: False if that has ended it, with its refusal."""
        down = exchange.down
        head = exchange.head
        tenant = b""
        key = self._tenant
        if key is not None:
            kind = key.kind
            if kind in (HEADER, CREDENTIAL):
                tenant = key.of_head(head)
            elif kind == CLIENT:
                tenant = client_of(down, head.fields)
            elif kind == ROUTE:
                tenant = self._route_name
            exchange.tenant = tenant
            if key.weights or key.accounts is not None:
                exchange.weight = key.weight(tenant)
        exchange.priority = self._priority
        if down.trusted:
            self._believe(exchange, down.shard.forward)
            if exchange.deadline_at <= now:
                exchange.deadline_passed()
                return False
        rates = self._rates
        if rates is None:
            return True
        subjects = self._subjects
        if rates.by_client:
            subjects[BY_CLIENT] = key_of(client_of(down, head.fields))
        if rates.by_tenant:
            subjects[BY_TENANT] = key_of(tenant)
        rate = rates.admit(subjects, now)
        exchange.answer_lines = rates.header_lines(now, rate is not None)
        if rate is None:
            return True
        # 429 is for who has passed a quota of his own; what others have used up is no fault of his.
        reason = "rate_limited" if rate.by in (BY_CLIENT, BY_TENANT) else "rate_limited_shared"
        exchange.fail(reason, rate.resource, rate.detail(), wait_s(rate), rate.violated())
        return False

    def _believe(self, exchange: Exchange, forward: ForwardPolicy) -> None:
        """What a trusted peer says of its request: it may shorten the time, and choose another class."""
        deadline = forward.deadline
        if deadline is not None:
            left_s = deadline.read(field_value(exchange.head, deadline.name))
            deadline_at = exchange.arrived_at + left_s
            if left_s >= 0.0 and deadline_at < exchange.deadline_at:
                exchange.deadline_at = deadline_at
        if forward.priority:
            exchange.priority = PRIORITIES.get(field_value(exchange.head, forward.priority).lower(), self._priority)
