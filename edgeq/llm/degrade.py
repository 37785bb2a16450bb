"""Why a smaller model is asked in place of the one that a request names: for log, `explain` and metrics.

It is looked for once that is decided, so who is answered by the model that he has asked for pays nothing for it. What
is told is what the request would have been refused by, or have waited for: the model's own limit, or else the first of
its targets, in the order of the file. If the smaller one may not be asked, or has no room either, its own smaller one
is looked at, and so on.
"""

from __future__ import annotations

from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Final

from edgeq.admission.queue import OUT_OF_TOKENS
from edgeq.llm.pauses import PAUSED_SINCE, paused_for

if TYPE_CHECKING:
    from edgeq.llm.estimate import Estimate
    from edgeq.llm.meter import Meter, Refusal
    from edgeq.llm.plan import Choice, ModelPlan
    from edgeq.llm.route import ModelRoute
    from edgeq.llm.till import Bill

ALL_DISABLED: Final = "upstream_none_healthy"
_MOST_TOLD: Final = 4
"""Targets of which a request tells."""


class Kept:
    """What keeps a request out: a token of edgeq.reasons, the resource, and more in words, none of them a client's."""

    __slots__ = ("detail", "reason", "resource")

    def __init__(self, reason: str, resource: str, detail: str) -> None:
        self.reason = reason
        self.resource = resource
        self.detail = detail


class Degraded:
    """Of one request: who was asked for, who is asked, and why."""

    __slots__ = ("asked", "by", "line", "meter", "model")

    def __init__(self, asked: str, model: str, by: Kept, meter: Meter | None = None) -> None:
        self.asked = asked
        """By its own name, whatever alias the client has for it."""
        self.model = model
        self.by: Kept = by
        self.meter: Meter | None = meter
        """Of the limit of the model that was asked for, if it is that."""
        self.line = b"x-edgeq-model: " + model.encode() + b"\r\n"
        """Of the answer's head."""

    def log_text(self) -> bytes:
        """Its part of an access-log line."""
        by = self.by
        text = f'"edgeq.model":{quoted(self.model)},"edgeq.degraded_reason":"{by.reason}",'
        return (text + f'"edgeq.degraded_resource":{quoted(by.resource)},').encode("ascii")


def degrade(bill: Bill, plan: ModelPlan, route: ModelRoute, now: float) -> tuple[ModelPlan, Degraded] | None:
    """Who is asked in place of `plan`, and what is told of it; None: it is asked itself, for it has room, or of the
    smaller ones that whoever pays the bill may use none has either."""
    own: Refusal | None = None
    choices = plan.choices
    if choices:
        estimate = bill.expect(plan, choices[0])
        is_saturated = plan.is_saturated(estimate, now)
        own = bill.kept_out(plan, now)
        if own is None and not is_saturated:
            return None
    smaller = route.smaller(plan)
    while smaller is not None and not (bill.may_use(smaller.name, smaller.name) and _has_room(bill, smaller, now)):
        smaller = route.smaller(smaller)
    if smaller is None:
        return None
    if not choices:
        return smaller, Degraded(plan.name, smaller.name, all_disabled(plan))
    by = kept_by(plan, own, bill.expect(plan, choices[0]), now)
    return smaller, Degraded(plan.name, smaller.name, by, None if own is None else own.meter)


def _has_room(bill: Bill, plan: ModelPlan, now: float) -> bool:
    """Would it be asked at once, by some target, and not be refused for the model's own limits?"""
    if not plan.choices:
        return False
    estimate = bill.expect(plan, plan.choices[0])
    return not plan.is_saturated(estimate, now) and bill.kept_out(plan, now) is None


def all_disabled(plan: ModelPlan) -> Kept:
    """A model of which all targets are."""
    return Kept(ALL_DISABLED, f"model/{plan.name}", f'all who answer for "{plan.name}" are disabled')


def kept_by(plan: ModelPlan, own: Refusal | None, estimate: Estimate, now: float) -> Kept:
    """What keeps a request of this size from a model that has no room for it. `own`: the model's own limit does."""
    if own is not None:
        return Kept(own.reason(), own.resource(), own.detail)
    choices = plan.choices
    if not choices:
        return all_disabled(plan)
    first = _kept_from(choices[0], estimate, now)
    others = choices[1:]
    for choice in others[: _MOST_TOLD - 1]:
        one = _kept_from(choice, estimate, now)
        first.detail += f"; nor at {one.resource}: {one.detail}"
    if len(others) >= _MOST_TOLD:
        first.detail += f"; nor at {len(others) - _MOST_TOLD + 1} more"
    return first


def _kept_from(choice: Choice, estimate: Estimate, now: float) -> Kept:
    """The same of one target (`Choice.can_take`)."""
    gate = choice.gate
    pause_s = gate.pause_s(now)
    if pause_s > 0.0:
        reason = gate.pauses.reason(now)
        return Kept(reason, gate.resource, paused_for(reason, pause_s))
    upstream = choice.upstream
    breaker = upstream.breaker
    if breaker is not None and breaker.retry_after_s(now) > 0.0:
        return Kept("circuit_open", upstream.resource + ":breaker", "too much of it has failed")
    refusal = gate.meter.ask(estimate, now)
    if refusal is not None:
        return Kept(refusal.reason(), refusal.resource(), refusal.detail)
    queued = gate.queue.queued + gate.shared.others_queued()
    if queued:
        reason = OUT_OF_TOKENS if gate.queue.max_cost else "queue_full"
        return Kept(reason, gate.place, f"{queued} wait there before it")
    if not gate.would_admit(now):
        reason = "upstream_rate_limit"
        return Kept(reason, gate.resource, f"{PAUSED_SINCE[reason]} until a moment ago; who waited then is first")
    bulkhead = upstream.bulkhead
    return Kept("queue_full", bulkhead.place, f"no place is free there, the limit is {bulkhead.limit}")
