"""From findings to an answer: for people, and the same as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from edgeq.admin.render import Record, printable
from edgeq.config.units import plain
from edgeq.explain import say
from edgeq.explain.causes import CAUSES, findings
from edgeq.explain.facts import Facts, Load, Refused, Waiting, is_at, whole_of
from edgeq.explain.finding import LOST, OUT, PART, SIGN, STANDS_S, WAITS, Finding
from edgeq.explain.services import back
from edgeq.llm.meter import KINDS, WHATS
from edgeq.reasons import REASONS

_TITLES: Final = {one.name: one.title for one in CAUSES}
_HARM: Final = {
    LOST: "refuses",
    WAITS: "is in trouble",
    PART: "is in trouble",
    OUT: "refuses who comes next",
    SIGN: "shows signs",
}
_MAX_ALSO: Final = 5
_MODEL: Final = "model/"
_PROMPT: Final = "prompt/"
_RESTS: Final = "key_rests"
_KINDS_OF_CALLERS: Final = ("tenant", "team", "key")
"""Whose names refusals do not tell."""
_CALLERS: Final = tuple(f"{one}/" for one in _KINDS_OF_CALLERS)
_WAIT_MS: Final = 250.0
"""So long the oldest has waited at least to be told: workers report twice a second, and less is a matter of moments."""


def explain(facts: Facts, resource: str = "") -> Record:
    """What is short, of all or of one resource and its parts. All answers have the same keys."""
    told = _explain(facts, resource)
    out = [one for name in (resource, *facts.named.get(resource, ())) for one in facts.disabled_part.get(name, ())]
    if not out:
        return told
    # Nobody need meet it; but who asks for a model wants to know.
    return {**told, "evidence": [*told["evidence"], *say.taken_out(out)], "next": told["next"] or back(out[0])}


def _explain(facts: Facts, resource: str) -> Record:
    asked = (resource, *facts.parts.get(resource, ()))
    found = [one for one in findings(facts) if not resource or any(_concerns(one, each, facts) for each in asked)]
    if not resource:  # that a model has nobody left is told of the model
        found = [replace(one, harm=SIGN) if one.harm == OUT and _is_of_models(one, facts) else one for one in found]
    if elsewhere := _answered_elsewhere(facts, resource, found):
        facts = replace(facts, refused=_others(facts.refused, elsewhere), over=_others(facts.over, elsewhere))
        # A key that rests comes back by somebody's doing only, so it is told though nobody meets it.
        found = [replace(one, harm=PART) if one in elsewhere and _is_key_that_rests(one) else one for one in found]
        found.sort(key=lambda one: -one.harm)
    short = [one for one in found if one.harm > SIGN and one not in elsewhere]
    if (not short or short[0].harm <= PART) and (begins := _beginning(facts, resource, found)):
        return begins
    if not short or (short[0].harm == OUT and not resource and _waiting(facts.waiting)):
        return _healthy(facts, resource, found)
    first = short[0]
    since = f" since {_ago(first.since_s)}" if first.since_s >= 1 else ""
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


def _is_of_models(found: Finding, facts: Facts) -> bool:
    """Is it of a provider's key, or a target, that somebody has taken out?"""
    return found.cause != _RESTS and (found.resource in facts.parts or found.resource.startswith("target/"))


def _is_key_that_rests(found: Finding) -> bool:
    """Is it a whole key of a provider, and not one model at it?"""
    return found.cause == _RESTS and found.resource.startswith("upstream/")


def is_known(facts: Facts, resource: str) -> bool:
    """Is there such a resource, or a part of one? Callers may have any name."""
    return resource.startswith(_CALLERS) or any(
        is_at(resource, name) or is_at(name, resource) for name in (*names(facts), *_KINDS_OF_CALLERS, "worker")
    )


def names(facts: Facts) -> list[str]:
    """What there is to explain, by full names."""
    found = [
        *(one.resource for one in facts.loads),
        *(f"worker/{one.slot}" for one in facts.workers),
        *(one.resource for one in facts.doors),
        *(one.resource for one in facts.refused),
        *(one.resource for one in facts.waiting),
        *facts.leads,
        *facts.named,
        *facts.meters,
    ]
    return list(dict.fromkeys(found))


def render(answer: Mapping[str, Any]) -> str:
    """For people."""
    lines = [str(answer["verdict"])]
    lines += [f"  {one}" for one in answer["evidence"]]
    if answer["next"]:
        lines.append(f"next: {answer['next']}")
    lines += [f"also: {one['resource']}: {one['says']} ({one['cause']})" for one in answer["also"]]
    return "".join(f"{printable(line)}\n" for line in lines)


def _beginning(facts: Facts, resource: str, signs: Sequence[Finding]) -> Record | None:
    """What has just begun, and shows its cause only in a moment; None if nothing has."""
    names = (resource, *facts.parts.get(resource, ()), *facts.named.get(resource, ()))
    loads = {
        one.resource: one
        for one in facts.loads
        if one.pressed_s and (not resource or is_at(resource, one.resource) or is_at(one.resource, resource))
    }
    refused = [
        one
        for one in facts.refused
        if _is_new(one, facts) and (not resource or any(is_at(one.resource, name) for name in names))
    ]
    worst = say.worst(refused).resource if refused else max(loads, key=lambda name: loads[name].pressed_s, default="")
    if not worst:
        return None
    load = loads.get(whole_of(worst))
    refused = [one for one in refused if whole_of(one.resource) == whole_of(worst)]
    at = facts.refused_at(load.resource) if load is not None else []
    what = f"refuses since a moment ago, {say.rate(refused)}" if refused else "has somebody waiting since a moment ago"
    name = load.resource if load is not None else worst
    return {
        "verdict": f"{name} {what}: the cause does not show yet",
        "cause": None,
        "what": "",
        "resource": name,
        "since_s": round(max(load.pressed_s if load is not None else 0.0, say.longest(refused)), 1),
        "evidence": [
            *(say.places(load) if load is not None else ()),
            *(say.traffic(load) if load is not None else ()),
            *(say.service(load) if load is not None else ()),
            *say.refusals(at or sorted(refused, key=lambda one: -one.per_s)),
        ],
        "next": f"edgeq explain {name}    # again, in a second",
        "also": _also(signs),
    }


def _is_new(one: Refused, facts: Facts) -> bool:
    """Has it begun a moment ago, or has the trouble of its queue?"""
    load = next((load for load in facts.loads if load.resource == whole_of(one.resource)), None)
    return _is_ours(one) and (one.since_s < STANDS_S or bool(load and load.pressed_s))


def _is_ours(one: Refused) -> bool:
    """A refusal that is not the client's doing; if it goes on it has a cause."""
    return _is_by_rule(one) and REASONS[one.reason].fault != "C" and REASONS[one.reason].status >= 500


def _healthy(facts: Facts, resource: str, signs: Sequence[Finding]) -> Record:
    names = (resource, *facts.parts.get(resource, ()), *facts.named.get(resource, ()))

    def is_asked(one: Refused) -> bool:
        return not resource or any(is_at(one.resource, name) for name in names)

    loads = [one for one in facts.loads if not resource or any(is_at(name, one.resource) for name in names)]
    fullest = sorted(loads, key=_fill, reverse=True)
    refused = [one for one in facts.refused if _is_by_rule(one) and is_asked(one)]
    waits = [one for one in facts.waiting if not resource or any(_is_of(one, name) for name in names)]
    waiting = _waiting(waits)
    behind = _behind(names, facts)
    crowded = [one for one in facts.loads if (one in loads or one.resource in behind) and say.engines(one)]
    engines = list(dict.fromkeys(words for one in crowded for words in say.engines(one)))
    verdict = f"{resource} is not saturated" if resource else "nothing is saturated"
    if waiting:
        verdict += f", but {say.waiting(max(waiting, key=lambda one: one.oldest_ms))}"
    elif engines:
        verdict += f", but {engines[0]}"
    elif not resource:
        verdict += ": nobody waits"
    over = [one for one in facts.over if _is_by_rule(one) and is_asked(one)]
    just = [one for one in refused if _is_ours(one)]
    refused = [one for one in refused if one not in just]
    if just:  # what goes on has a cause
        verdict += f", but {say.rate(just)} were refused until a moment ago"
    elif over:
        verdict += f", but requests were refused until {_ago(min(one.quiet_s for one in over))}"
    meter = facts.meters.get(resource)
    if meter is not None and meter["refused"]:
        verdict += f", but its own limits have refused {meter['refused']} lately"
    if refused:
        verdict += f", and {say.rate(refused)} are refused by a rule, or for what clients do"
    if not refused and not just and not over and not resource and not waiting and not engines:
        verdict += " or is refused"
    return {
        "verdict": verdict,
        "cause": None,
        "what": "",
        "resource": resource or None,
        "since_s": None,
        "evidence": [
            *(_left(meter) if meter is not None else ()),
            *facts.scarce.get(resource, ()),
            *say.refusals(sorted([*just, *refused], key=lambda one: -one.per_s)),
            *(f"{one.reason} at {one.resource}, until {_ago(one.quiet_s)}" for one in over[:4]),
            *(_load_words(one) for one in fullest[:3]),
            *engines[:4],
        ],
        "next": _caller(resource) or _whose(refused) or _sooner(crowded),
        "also": _also(signs),
    }


def _waiting(found: Iterable[Waiting]) -> list[Waiting]:
    """Who waits for more than a moment."""
    return [one for one in found if one.oldest_ms >= _WAIT_MS]


def _left(meter: Mapping[str, Any]) -> list[str]:
    """What there is of each limit of a tenant, a team or a key."""
    limits, left = meter["limits"], meter["remaining"]
    told = [f"{what}: {left[what]} of {limits[what]} left" for what in limits if what in left]
    budgets = [(one, limits[f"per_{one}"]) for one in ("day", "month") if f"per_{one}" in limits]
    return [*told, *(f"{plain(meter[f'spent_{one}'])} of {plain(most)} a {one} spent" for one, most in budgets)]


def _behind(names: Sequence[str], facts: Facts) -> set[str]:
    """What these names lead to: a model to its targets, those to their upstreams."""
    found: set[str] = set()
    ahead = list(names)
    while ahead:
        new = set(facts.named.get(ahead.pop(), ())) - found
        found |= new
        ahead += new
    return found


def _sooner(crowded: Sequence[Load]) -> str:
    """What lets requests wait here, in fair turns, and not in an engine, which has none."""
    for load in sorted(crowded, key=lambda one: -one.in_flight):
        told = [one.engine for one in load.endpoints if one.engine is not None]
        running = round(sum(one.running for one in told))
        if running and load.in_flight and any(one.waiting for one in told):
            return f"edgeq set {load.settings} limit {running} --ttl 10m    # who waits here has his fair turn"
    return ""


def _caller(resource: str) -> str:
    """The command that shows the limits of a tenant, a team or a key, also of one for which nothing is counted now."""
    kind, _, name = resource.partition("/")
    if kind == "key" and name:
        return f"edgeq keys show {name}"
    return f"edgeq tenants list {name.partition('/')[0]}" if kind == "team" and name else ""


def _whose(refused: Sequence[Refused]) -> str:
    """Limits of tokens and money have names of their own, which resources do not tell: where they stand."""
    for one in sorted(refused, key=lambda one: -one.per_s):
        kind, _, what = one.resource.partition(":")
        kind = kind.partition("/")[0]
        if kind in KINDS and what in WHATS:
            return f"edgeq show meters {kind}    # whose it is, and what is left of it"
    return ""


def _concerns(found: Finding, resource: str, facts: Facts) -> bool:
    if upstream := facts.leads.get(resource):
        return _concerns(found, upstream, facts) or is_at(found.resource, resource)
    if any(_concerns(found, one, facts) for one in facts.named.get(resource, ())):
        return True
    if resource.startswith("worker/") and is_at(found.resource, "worker"):
        return True  # what workers refuse for their own sake is counted for all of them together
    return is_at(found.resource, resource) or is_at(resource, found.resource)


def _answered_elsewhere(facts: Facts, resource: str, found: Sequence[Finding]) -> list[Finding]:
    """What keeps a model from some of its targets while another one is well: nobody who asks for the model meets it.
    But what is refused may have been refused to these, unless it rests: then the next one is asked at once."""
    if not resource.startswith((_MODEL, _PROMPT)):
        return []
    targets = facts.named.get(resource, ())
    if len(targets) == 1 and targets[0].startswith(_MODEL):  # an alias, or a prompt
        targets = facts.named.get(targets[0], ())
    elif resource.startswith(_PROMPT):  # versions of several models
        return []

    def is_met(one: Finding, target: str) -> bool:
        return (one.harm > SIGN or one.cause == _RESTS) and _concerns(one, target, facts)

    if not any(all(not is_met(one, target) for one in found) for target in targets):
        return []
    # What is out of use is told, whoever does its work.
    hidden = [one for one in found if one.harm != PART and (one.harm < LOST or one.cause == _RESTS)]
    return [one for one in hidden if any(_concerns(one, target, facts) for target in targets)]


def _others(refused: Sequence[Refused], elsewhere: Sequence[Finding]) -> tuple[Refused, ...]:
    return tuple(one for one in refused if not any(is_at(one.resource, each.resource) for each in elsewhere))


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


def _ago(seconds: float) -> str:
    return f"{_seconds(seconds)} ago" if seconds >= 1 else "a moment ago"


def _seconds(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
