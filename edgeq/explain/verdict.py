"""From findings to an answer: for people, and the same as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from edgeq.admin.render import Record, printable
from edgeq.explain import say
from edgeq.explain.causes import CAUSES, findings
from edgeq.explain.facts import Facts, Load, Refused, Waiting, is_at
from edgeq.explain.finding import LOST, SIGN, WAITS, Finding
from edgeq.reasons import REASONS

_TITLES: Final = {one.name: one.title for one in CAUSES}
_HARM: Final = {LOST: "refuses", WAITS: "is in trouble", SIGN: "shows signs"}
_MAX_ALSO: Final = 5
_WAIT_MS: Final = 250.0
"""So long the oldest has waited at least to be told: workers report twice a second, and less is a matter of moments."""


def explain(facts: Facts, resource: str = "") -> Record:
    """What is short, of all or of one resource and its parts. All answers have the same keys."""
    found = [one for one in findings(facts) if not resource or _concerns(one, resource)]
    short = [one for one in found if one.harm > SIGN]
    if not short:
        return _healthy(facts, resource, found)
    first = short[0]
    since = f" for {_seconds(first.since_s)}" if first.since_s >= 1 else ""
    return {
        "verdict": f"{first.resource} {_HARM[first.harm]}{since}: {first.says}",
        "cause": first.cause,
        "what": _TITLES[first.cause],
        "resource": first.resource,
        "since_s": round(first.since_s, 1),
        "evidence": list(first.evidence),
        "next": first.next,
        "also": _also([one for one in found if one is not first]),
    }


def is_known(facts: Facts, resource: str) -> bool:
    """Is there such a resource, or a part of one?"""
    names = [
        *(one.resource for one in facts.loads),
        *(f"worker/{one.slot}" for one in facts.workers),
        *(one.resource for one in facts.doors),
        *(one.resource for one in facts.refused),
        "tenant",
        "worker",
    ]
    return resource.startswith("tenant/") or any(is_at(resource, name) or is_at(name, resource) for name in names)


def render(answer: Mapping[str, Any]) -> str:
    """For people."""
    lines = [str(answer["verdict"])]
    lines += [f"  {one}" for one in answer["evidence"]]
    if answer["next"]:
        lines.append(f"next: {answer['next']}")
    lines += [f"also: {one['resource']}: {one['says']} ({one['cause']})" for one in answer["also"]]
    return "".join(f"{printable(line)}\n" for line in lines)


def _healthy(facts: Facts, resource: str, signs: Sequence[Finding]) -> Record:
    loads = [one for one in facts.loads if not resource or is_at(resource, one.resource)]
    fullest = sorted(loads, key=_fill, reverse=True)
    refused = [one for one in facts.refused if _is_by_rule(one) and (not resource or is_at(one.resource, resource))]
    waiting = [one for one in facts.waiting if one.oldest_ms >= _WAIT_MS and (not resource or _is_of(one, resource))]
    verdict = f"{resource} is not saturated" if resource else "nothing is saturated"
    if waiting:
        verdict += f", but {say.waiting(max(waiting, key=lambda one: one.oldest_ms))}"
    elif not resource:
        verdict += ": nobody waits"
    new = [one for one in refused if REASONS[one.reason].fault != "C" and REASONS[one.reason].status >= 500]
    by_rule = [one for one in refused if one not in new]
    if new:  # what goes on has a cause
        verdict += f", but {say.rate(new)} are refused since a moment ago"
    if by_rule:
        verdict += f", and {say.rate(by_rule)} are refused by a rule, or for what clients do"
    if not refused and not resource and not waiting:
        verdict += " or is refused"
    return {
        "verdict": verdict,
        "cause": None,
        "what": "",
        "resource": resource or None,
        "since_s": None,
        "evidence": [
            *say.refusals(sorted(refused, key=lambda one: -one.per_s)),
            *(_load_words(one) for one in fullest[:3]),
        ],
        "next": "",
        "also": _also(signs),
    }


def _concerns(found: Finding, resource: str) -> bool:
    if resource.startswith("worker/") and is_at(found.resource, "worker"):
        return True  # what workers refuse for their own sake is counted for all of them together
    return is_at(found.resource, resource) or is_at(resource, found.resource)


def _also(others: Sequence[Finding]) -> list[dict[str, str]]:
    return [{"resource": one.resource, "cause": one.cause, "says": one.says} for one in others[:_MAX_ALSO]]


def _is_of(one: Waiting, resource: str) -> bool:
    return is_at(one.resource, resource) or is_at(resource, one.resource)


def _is_by_rule(one: Refused) -> bool:
    """Did a client get a refusal for what is no cause?"""
    row = REASONS.get(one.reason)
    return row is not None and 400 <= row.status


def _fill(load: Load) -> float:
    return load.in_flight / load.limit if load.limit else 0.0


def _load_words(load: Load) -> str:
    limit = f" of {load.limit}" if load.limit else ""
    service = f", an answer takes {say.ms(load.now.service_ms)}" if load.now.service_ms is not None else ""
    return (
        f"{load.resource}: {load.in_flight}{limit} in flight, {load.queued} of {load.queue_max} wait,"
        f" {say.per_s(load.now.arrivals_per_s)} arrive{service}"
    )


def _seconds(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
