"""Causes at the limits of models, and of models at providers' keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import ceil
from shlex import quote
from typing import Final

from edgeq.config.change import LIVE
from edgeq.config.units import plain
from edgeq.explain import say
from edgeq.explain.facts import HEARD, Allowed, Facts, Gate, Refused, Rest
from edgeq.explain.finding import LOST, OUT, PART, SIGN, STANDS_S, WAITS, Finding
from edgeq.explain.services import UNREACHED
from edgeq.llm.lately import Used
from edgeq.llm.meter import BUDGET, CONCURRENT, INPUT, OUTPUT, REQUESTS, TOKENS, WHATS
from edgeq.llm.registry import Budget
from edgeq.llm.rests import UNHEARD
from edgeq.observe.reports import moment
from edgeq.reasons import REASONS

_AUTH: Final = "upstream_auth"
_FAILS: Final = "circuit_open"
_RESTS: Final = (_AUTH, "upstream_quota", "upstream_rate_limit", _FAILS)
_WHY: Final = {
    _AUTH: "the provider refuses the key",
    "upstream_quota": "the account of the key has no credit left",
    "upstream_rate_limit": "the provider's rate limit is reached",
    _FAILS: "the last requests for it have failed",
}
_WORDS: Final = {WHATS[CONCURRENT]: "requests at once"}
_ENDS: Final = {
    WHATS[CONCURRENT]: "is reached",
    WHATS[BUDGET]: "is spent, or less of it is left than a request may cost",
}
_OPTIONS: Final = {
    WHATS[REQUESTS]: "--rpm",
    WHATS[TOKENS]: "--tpm",
    WHATS[INPUT]: "--itpm",
    WHATS[OUTPUT]: "--otpm",
    WHATS[CONCURRENT]: "--concurrent",
}
_PERIODS: Final = {"per_day": "--per-day", "per_month": "--per-month"}
"""By which a tenant is given a limit."""
_AMOUNTS: Final[Mapping[str, Callable[[Used], int]]] = {
    WHATS[REQUESTS]: lambda one: one.requests,
    WHATS[TOKENS]: lambda one: one.input + one.output,
    WHATS[INPUT]: lambda one: one.input,
    WHATS[OUTPUT]: lambda one: one.output,
}
_NEXT_ANSWERS: Final = "nobody is refused for it: the next target of a model answers in its place"
_MOST_ALONE: Final = 4
_OVER: Final = "request_over_limit"
_BROKE: Final = "budget_exhausted"
_LITTLE: Final = 0.05
"""Of a budget: what is left of one that has refused somebody lately."""
_MORE: Final = 2
"""Times a limit that is used up: what is refused says little of what is wanted, for most of it comes again."""


def rests(facts: Facts) -> Iterator[Finding]:
    """A provider's key, or a model at it, is not asked for a while."""
    told: set[str] = set()
    for gate in facts.gates:
        rest = gate.rest
        if rest is None or gate.upstream in told:
            continue
        if rest.is_whole_key:
            told.add(gate.upstream)
            yield _key_rests(gate, rest, facts)
        else:
            refused = facts.refused_at(gate.resource, *_RESTS)
            yield Finding(
                "key_rests",
                gate.resource,
                LOST if refused else WAITS if _waits(gate) else PART if rest.fails_by else SIGN,
                gate.short_s or say.longest(refused) or rest.fails_s,
                _says(rest),
                (
                    *say.refusals(refused),
                    *(_beside(gate, facts) if rest.reason == _FAILS and not refused else ()),
                    *(_waiting(gate) if gate.queued else ()),
                ),
                _after_failures(gate, rest) if rest.reason == _FAILS else say.granted(gate.resource, gate.settings),
            )


def _says(rest: Rest) -> str:
    by = ""
    if rest.reason == _FAILS and rest.fails_by not in ("", UNHEARD):
        by = f": {rest.fails_detail or say.meaning(rest.fails_by)}"
    if rest.left_s:
        return f"{_WHY[rest.reason]}{by}{';' if by else ', and'} this model at this key is not asked {_until(rest)}"
    return f"{_WHY[rest.reason]}{by}; whether it is well now the next one finds out"


def _beside(gate: Gate, facts: Facts) -> list[str]:
    if _is_alone(gate, facts):
        smaller = sorted({facts.smaller[name] for name in _having(gate, facts) if name in facts.smaller})
        in_place = f"; {' or '.join(smaller)} answers in its place" if smaller else ""
        return [f"no model that has it has another target{in_place}"]
    return [_NEXT_ANSWERS]


def _having(gate: Gate, facts: Facts) -> dict[str, Sequence[str]]:
    """The models that have it among their targets, with these."""
    return {
        name: targets for name, targets in facts.named.items() if name.startswith("model/") and gate.resource in targets
    }


def _is_alone(gate: Gate, facts: Facts) -> bool:
    """Has no model that has it another target?"""
    having = _having(gate, facts)
    return bool(having) and all(set(targets) == {gate.resource} for targets in having.values())


def _alone(of_key: Sequence[Gate], facts: Facts) -> list[str]:
    """Models with a target at this key, and with none that does not rest."""
    here = {one.resource for one in of_key}
    resting = {one.resource for one in facts.gates if one.rest is not None and one.rest.left_s}
    return [
        f"{name} has no other target"
        + (f"; {facts.smaller[name]} answers in its place" if name in facts.smaller else "")
        for name, targets in facts.named.items()
        if name.startswith("model/") and here & set(targets) and set(targets) <= resting
    ][:_MOST_ALONE]


def _after_failures(gate: Gate, rest: Rest) -> str:
    wake = f"if it is well now: edgeq wake {gate.resource.removeprefix('target/')}"
    if rest.fails_by in UNREACHED:
        return f"edgeq show endpoints {gate.upstream.removeprefix('upstream/')}    # {wake}"
    return f"edgeq show events provider_model_rests    # by what it fails; {wake}"


def _key_rests(first: Gate, rest: Rest, facts: Facts) -> Finding:
    of_key = [one for one in facts.gates if one.upstream == first.upstream]
    refused = [
        one for at in (first.upstream, *(one.resource for one in of_key)) for one in facts.refused_at(at, *_RESTS)
    ]
    refused.sort(key=lambda one: -one.per_s)
    name = first.upstream.removeprefix("upstream/")
    alone = _alone(of_key, facts)
    said = next((one.rest.detail for one in of_key if one.rest is not None and one.rest.detail), "")
    return Finding(
        "key_rests",
        first.upstream,
        LOST if refused else WAITS if any(map(_waits, of_key)) else OUT if alone else PART,
        say.longest(refused),
        f"{_WHY[rest.reason]}{f': {said};' if said else ', and'} no model is asked with it {_until(rest)}",
        (*_who_waits(of_key), *(alone or ([] if refused else [_NEXT_ANSWERS])), *say.refusals(refused)),
        f"edgeq reload    # once the key in {first.settings} is right (env: and credential: take a restart); if the"
        f" provider takes it now: edgeq wake {name}"
        if rest.reason == _AUTH
        else f"edgeq wake {name}    # once the account has credit again; else it is tried when that time is over",
        tuple(one.resource for one in of_key),
    )


def budgets(facts: Facts) -> Iterator[Finding]:
    """One that is spent keeps out its tenant, team or key until the day or the month is over."""
    for one in sorted(facts.budgets, key=lambda one: one.spent / one.limit, reverse=True):
        if not _keeps_out(one, facts):
            continue
        kind, _, name = one.subject.partition("/")
        tenant, _, team = name.partition("/") if kind == "team" else (name, "", "")
        whose = f"keys set {quote(name)}" if kind == "key" else f"tenants set {quote(tenant)}"
        whose += f" --team {quote(team)}" if team else ""
        spent, limit = _number(one.spent), _number(one.limit)
        more = _number(max(one.limit, one.spent) * _MORE)
        ends = "is spent" if one.spent >= one.limit else _ENDS[WHATS[BUDGET]]
        yield Finding(
            "budget_spent",
            one.subject,
            OUT,
            0.0,
            f"its budget of {limit} a {one.period} {ends}, until {moment(one.until_s)}",
            (f"{spent} of {limit} a {one.period} spent", *say.refusals(_of_budget(one, facts.refused))),
            f"edgeq {whose} {_PERIODS[f'per_{one.period}']} {more}    # if that is wanted",
        )


def _keeps_out(one: Budget, facts: Facts) -> bool:
    """Is nothing of it left, or too little? What a request may cost is reserved, so the last of it is seldom spent."""
    if one.spent >= one.limit:
        return True
    if not facts.meters.get(one.subject, {}).get("refused"):
        return False
    return one.limit - one.spent < _LITTLE * one.limit or bool(_of_budget(one, (*facts.refused, *facts.over)))


def _of_budget(one: Budget, refused: Sequence[Refused]) -> list[Refused]:
    """Refusals by budgets of its kind: whose, they do not tell."""
    place = f"{one.subject.partition('/')[0]}:{WHATS[BUDGET]}"
    return [each for each in refused if each.resource == place and each.reason == _BROKE]


def degrades(facts: Facts) -> Iterator[Finding]:
    """A model has no room, and a smaller one answers in its place. What is refused all the same is told as that."""
    for one in facts.degrading:
        if any(_is_shared(each) for each in facts.refused_at(one.resource)):
            continue
        fastest = sorted(one.reasons, key=lambda reason: -one.reasons[reason])
        off = facts.disabled.get(one.resource, ())
        yield Finding(
            "model_degrades",
            one.resource,
            WAITS,
            one.since_s,
            f"{one.smaller} answers in its place, {say.per_s(one.per_s())}: {REASONS[fastest[0]].title.lower()}",
            (
                *(f"{say.per_s(one.reasons[reason])} {reason}" for reason in fastest[:4]),
                *(say.taken_out(off) if off else one.targets[:4]),
                *facts.scarce.get(one.resource, ()),
            ),
            f"edgeq show models {one.resource.partition('/')[2]}    # who would answer, and what is left;"
            " of one request: edgeq explain REQUEST-ID",
        )


def used_up(facts: Facts) -> Iterator[Finding]:
    """A limit keeps out who comes."""
    for gate in facts.gates:
        refused = [one for one in facts.refused_at(gate.resource) if _is_shared(one)]
        short = _short(gate, refused)
        if short is None or not (refused or _waits(gate)):
            yield from _too_small(gate, facts)
            continue
        who = _by_use(gate, short)
        yield Finding(
            "limit_used_up",
            gate.resource,
            LOST if refused else WAITS,
            max(gate.short_s or say.longest(refused), gate.oldest_ms / 1000),
            f"{_limit(short)} {_ENDS.get(short.what, 'is used up')}",
            (
                *_source(short),
                *facts.scarce.get(gate.resource, ()),
                *_who_asks(who),
                *_waiting(gate),
                *_left(short),
                *say.refusals(refused),
            ),
            _next(short, gate) + _less(short, who, facts),
        )


def _too_small(gate: Gate, facts: Facts) -> Iterator[Finding]:
    """Requests are larger than what the provider has told of its limits: that is no client's doing, who may have told
    too little; and as nobody is asked nothing else is told."""
    refused = facts.refused_at(gate.resource, _OVER)
    short = _short(gate, refused)
    if not refused or short is None or short.source != HEARD:
        return
    name = gate.resource.removeprefix("target/")
    yield Finding(
        "limit_used_up",
        gate.resource,
        LOST if _is_alone(gate, facts) else PART,
        gate.short_s or say.longest(refused),
        f"{say.rate(refused)} are larger than {_limit(short)}",
        (
            *_source(short),
            "once no answer has told it for a minute, one request finds out whether it is still so",
            *say.refusals(refused),
        ),
        f"edgeq wake {name}    # has it forgotten, if the provider takes more; else its requests have to be smaller",
    )


def _is_shared(one: Refused) -> bool:
    """Is it no doing of who has asked, nor of the provider?"""
    row = REASONS.get(one.reason)
    return row is not None and row.fault == "S" and row.status >= 500


def _waits(gate: Gate) -> bool:
    """Has somebody for so long that it is more than a turn?"""
    return bool(gate.queued) and max(gate.short_s, gate.oldest_ms / 1000) >= STANDS_S


def _short(gate: Gate, refused: list[Refused]) -> Allowed | None:
    """Which of the limits it is: the one that refuses most, else the one of which least is left."""
    parts = [one.resource.removeprefix(f"{gate.resource}:") for one in refused]
    fullest = sorted(gate.limits, key=Allowed.fill, reverse=True)
    named = [one for part in parts for one in fullest if one.what == part]
    return next(iter((*named, *fullest)), None)


def _number(count: float) -> str:
    return plain(count, 12, 6)


def _limit(one: Allowed) -> str:
    """With its value in force, in words."""
    whose = "the provider's limit" if one.source == HEARD else "its limit"
    if one.what == WHATS[BUDGET]:
        what = f"{_number(one.count)} a {one.key.rpartition('_')[2]}"
    else:
        what = f"{_number(one.count)} {_WORDS.get(one.what) or one.what.replace('_', ' ') + ' a minute'}"
    return f"{whose} of {what}{', set live,' if one.source == LIVE else ''}"


def _source(one: Allowed) -> list[str]:
    if one.source == HEARD:
        return [f"{_number(one.count)} is what the provider says its limit is"]
    said = f"{one.settings} {one.key} is {_number(one.count)}"
    if one.source == LIVE:
        return [f"{said}, set {one.by}; the file has {one.file or 'none'}"]
    return [f"{said}, as in the file"]


def _left(one: Allowed) -> list[str]:
    return [] if one.left is None else [f"left of it now: {_number(one.left)}"]


def _waiting(gate: Gate) -> list[str]:
    if not gate.upstream:
        return []
    who = f"{gate.queued} wait, the oldest for {say.ms(gate.oldest_ms)}" if gate.queued else "nobody waits"
    return [f"{who}; who would for longer than {gate.settings} wait, {plain(gate.wait_s)} s, is refused at once"]


def _who_waits(gates: Sequence[Gate]) -> list[str]:
    """For the end of a rest, at all of these."""
    queued = sum(one.queued for one in gates)
    oldest_ms = max((one.oldest_ms for one in gates), default=0.0)
    return [f"{queued} wait for that, the oldest for {say.ms(oldest_ms)}"] if queued else []


def _most(counts: Mapping[str, int], gate: Gate) -> str:
    """The tenant, or the key, who has more than half of what waits or runs there; empty: nobody has."""
    name = max(counts, key=lambda name: counts[name], default="")
    return name if name and counts[name] * 2 > sum(gate.tenants.values()) else ""


def _by_use(gate: Gate, short: Allowed) -> Gate:
    """With who has used of what is short, if that is known: before a limit that quick answers use up nobody waits, and
    who has few long ones may have used most of it."""
    amount = _AMOUNTS.get(short.what)
    if amount is None:
        return gate
    tenants: Counter[str] = Counter()
    keys: Counter[str] = Counter()
    for one in gate.used:
        tenants[one.tenant] += amount(one)
        if one.key:
            keys[one.key] += amount(one)
    if not tenants.total():
        return gate
    told = dict(tenants.most_common(8)), dict(keys.most_common(8))
    return replace(gate, tenants=told[0], keys=told[1], share_of="of what was used in the last minute")


def _who_asks(gate: Gate) -> list[str]:
    most = _most(gate.tenants, gate)
    if not most:
        return say.keys(gate)
    total = sum(gate.tenants.values())
    named = [f"{name} {count / total:.0%}" for name, count in gate.tenants.items() if name not in ("", most)]
    share = f"{gate.tenants[most] / total:.0%}"
    told = ", ".join((f"tenant {most} has {share} {gate.share_of}", *named[:3]))
    return [told, *say.keys(gate)]


def _less(one: Allowed, gate: Gate, facts: Facts) -> str:
    """What gives that one less of it, the key rather than all of its tenant's: half, or half of what he may have. Where
    a tenant is alone, and none of its keys has most, there is nobody who would have more."""
    key = _most(gate.keys, gate).partition(" ")[0]
    kind, most = ("key", key) if key else ("tenant", _most(gate.tenants, gate))
    is_alone = len(gate.tenants) == 1 and len(gate.keys) > 1
    if not most or not facts.has_accounts or (is_alone and not key):
        return ""
    period = one.key.rpartition("money_")[2]
    is_money = one.what == WHATS[BUDGET]
    what, option = (period, _PERIODS[period]) if is_money else (one.what, _OPTIONS[one.what])
    has = facts.meters.get(f"{kind}/{most}", {}).get("limits", {}).get(what) or one.count
    count = min(one.count, has) / 2 if is_money else min(one.count, has) // 2
    if not count:  # 0 would be no limit
        return ""
    return f"; for others to have more: edgeq {kind}s set {quote(most)} {option} {_number(count)}"


def _next(one: Allowed, gate: Gate) -> str:
    if one.source == HEARD:
        name = gate.resource.removeprefix("target/")
        return f"edgeq show targets {name}    # more than that takes another key; if it grants more: edgeq wake {name}"
    if not one.can_set:
        return f"edgeq reload    # after a higher {one.key} in {one.settings}, in the file"
    grants = "if the provider grants it" if gate.upstream else "if that is wanted"
    undo = f"; or as the file has it: edgeq unset {one.settings} {one.key}" if one.source == LIVE else ""
    return f"edgeq set {one.settings} {one.key} {_number(one.count * _MORE)} --ttl 10m    # {grants}{undo}"


def _until(rest: Rest) -> str:
    return f"until {rest.until} (for another {ceil(rest.left_s)} s)"
