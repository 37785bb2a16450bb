"""Causes at one upstream, or at a route with a limit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from math import ceil
from shlex import quote
from typing import Final

from edgeq.config.change import LIVE
from edgeq.explain import say
from edgeq.explain.facts import CONFIGURED, Endpoint, Facts, Load, Refused, TakenOut, whole_of
from edgeq.explain.finding import LOST, OUT, PART, SIGN, WAITS, Finding
from edgeq.llm.meter import WHATS
from edgeq.reasons import REASONS
from edgeq.worker.wheel import NEVER

SLOWER: Final = 2.0
"""Times the service before."""
SLOWER_MS: Final = 10.0
"""And so much more at least: on a busy machine a fast service varies by more than twice."""
MORE: Final = 1.5
"""Times the arrivals before."""
UNKNOWN_S: Final = 3.0
"""An upstream of which nobody knows what it takes is slow if nothing comes back for so long."""
SHED_SHARE: Final = 0.05
"""Of an upstream's answers."""
SICK_SHARE: Final = 0.1
"""Of what an endpoint gets and fails, while the others do not."""
DEAD_SHARE: Final = 0.3
"""Of what an upstream gets and fails."""
SICK_COST: Final = 4.0
"""Times the cost of the middle one of the others."""
NOISY: Final = 0.6
"""Of the requests that wait or run."""
UNREACHED: Final = ("upstream_connect_refused", "upstream_connect_timeout", "upstream_connect_failed")
"""No connection comes about."""
DEAD: Final = (
    *UNREACHED,
    "upstream_backlog_full",
    "upstream_none_healthy",
    "upstream_reset",
    "circuit_open",
    "dns_error",
    "dns_timeout",
)

SETTLES_S: Final = 1.0
"""For so long somebody must have waited or been refused: by then the cause shows in the numbers."""
_SETTLED_S: Final = 10.0
"""And nobody need wait for longer to hear one."""
_SHORT_MS: Final = 750.0
"""A service of which several come within what is told as "now": those that have not ended say how long it takes."""

_RATE: Final = "upstream_rate_limit"
"""A provider's 429: not of requests at once, but of tokens or requests a minute."""
_SHED: Final = ("upstream_shed", _RATE, "upstream_overloaded")
"""The two latter are a provider's."""
_OPEN: Final = "circuit_open"
_TENANTS: Final = ("fair_share_exceeded", "concurrency_limit_client")
_LOOPBACK: Final = {"127.0.0.1": "[::1]", "[::1]": "127.0.0.1"}
_LATE: Final = ("upstream_timeout", "deadline_expired")
TRIPS: Final = (*(one for one in DEAD if one != _OPEN), *_SHED, *_LATE, "upstream_error")
"""What opens a circuit."""
PLACES: Final = "conn_limit_listener"
_POOL: Final = "upstream_saturated"


def paused(facts: Facts) -> Iterator[Finding]:
    """A route that lets nobody in, because somebody wants it so."""
    for load in facts.loads:
        if not load.is_paused:
            continue
        refused = facts.refused_at(load.resource)
        yield Finding(
            "route_paused",
            load.resource,
            LOST if refused else WAITS if load.queued else SIGN,
            load.pressed_s,
            f"it is paused, and {load.queued} wait until it is resumed",
            (*say.places(load), *say.refusals(refused)),
            f"edgeq resume {load.resource.removeprefix('route/')}    # who has paused it: edgeq show changes",
        )


def taken_out(facts: Facts) -> Iterator[Finding]:
    """An upstream of which nothing is left, because somebody wants it so."""
    for load in facts.loads:
        if not load.taken_out:
            continue
        refused = facts.refused_at(load.resource)
        one = _doer(load.taken_out)
        what = "its endpoint was" if len(load.taken_out) == 1 else "all of its endpoints were"
        yield Finding(
            "endpoints_taken_out",
            load.resource,
            LOST if refused else WAITS if load.queued else OUT if one.by else SIGN,
            load.pressed_s or say.longest(refused),
            _out_words(load.taken_out, what if "#" in one.name else "its provider, or this key of it, was"),
            (*say.taken_out(load.taken_out), *say.refusals(refused), *say.places(load)),
            back(one),
        )
    for resource, found in facts.disabled.items():
        refused = facts.refused_at(resource)
        one = _doer(found)
        smaller, smaller_off = facts.smaller.get(resource, ""), facts.smaller_disabled.get(resource, "")
        words = _out_words(found, "all its targets were" if resource.startswith("model/") else "it was")
        if smaller:
            words += f"; {smaller} answers in its place"
        elif smaller_off:
            words += f"; {smaller_off} would answer in its place, but is disabled, too"
        yield Finding(
            "endpoints_taken_out",
            resource,
            LOST if refused else OUT if one.by and not smaller else SIGN,
            say.longest(refused),
            words,
            (*say.taken_out(found), *say.refusals(refused)),
            back(one),
        )


def _doer(found: Sequence[TakenOut]) -> TakenOut:
    """What is to be told first: what an operator has done."""
    return next((one for one in found if one.by), found[0])


def _out_words(found: Sequence[TakenOut], what: str) -> str:
    names = ", ".join(one.label() for one in found[:3])
    how = " or ".join(sorted({one.how() for one in found}))
    return f"{what} {how} by {'an operator' if _doer(found).by else 'the file'}: {names}"


def back(one: TakenOut) -> str:
    """The command that takes it back."""
    return f"edgeq {'enable' if one.is_disabled else 'undrain'} {one.name}    # who has done it: edgeq show changes"


def sick(facts: Facts) -> Iterator[Finding]:
    """One of several endpoints."""
    for load in facts.loads:
        serving = [one for one in load.serving() if not _is_other_loopback(one, load)]
        sick = [one for one in serving if _is_out(one, load) or _fails(one, load, facts) or _is_slow(one, load)]
        well = len(serving) - len(sick)
        if not sick or not well:
            continue
        worst = max(sick, key=lambda one: (one.state != "in use", _failures(one, load, facts), one.cost_ms or 0.0))
        says = f"it is {worst.state}" if _is_out(worst, load) else "it answers worse than the others"
        if worst.fails_by in UNREACHED:
            why = say.meaning(worst.fails_by)
            says = f"{says}: {why}" if _is_out(worst, load) else why
        is_used = _is_slow(worst, load) and not _fails(worst, load, facts) and not _is_avoided(worst, load)
        refused = facts.refused_at(load.resource)
        yield Finding(
            "endpoint_sick",
            f"{load.resource}#{worst.name}",
            max(_harm(load, refused), SIGN if is_used else PART),
            max(worst.trouble_s, say.longest(facts.refused_at(f"{load.resource}#{worst.name}"))) or load.pressed_s,
            f"{says}; {well} of {len(serving)} endpoints are well",
            (*say.endpoints(load), *say.places(load), *say.refusals(refused)),
            f"edgeq drain {load.resource}#{worst.name}"
            if worst.is_configured
            else f"{say.look(load)}    # it cannot be drained alone: an address of a name, or one of a provider's",
        )


def _is_other_loopback(one: Endpoint, load: Load) -> bool:
    """Of the two addresses that localhost has, programs often listen at one alone: what is refused at the other is
    sent there."""
    here, colon, port = one.name.rpartition(":")
    other = _LOOPBACK.get(here)
    if other is None or one.is_configured or one.answered_per_s:
        return False
    return any(
        each.name == f"{other}{colon}{port}" and each.state == "in use" and each.answered_per_s >= each.failed_per_s
        for each in load.endpoints
    )


def _is_out(one: Endpoint, load: Load) -> bool:
    return one.state != "in use" and len(load.serving()) > 1


def _fails(one: Endpoint, load: Load, facts: Facts) -> bool:
    """A good part of what it gets, and the others do not; or it has, and has not answered well since."""
    if one.fails_by in UNREACHED or one.penalty_ms > SICK_COST * max(_middle_cost(one, load), SLOWER_MS):
        return True
    failures = _failures(one, load, facts)
    others = [_failures(other, load, facts) for other in load.serving() if other is not one]
    if not others or not failures or failures < SICK_COST * max(others):
        return False
    if not one.answered_per_s:  # however little that is beside what the others answer: the balancer avoids it
        return True
    return failures >= max(SHED_SHARE * load.now.departures_per_s, SICK_SHARE * (failures + one.answered_per_s))


def _failures(one: Endpoint, load: Load, facts: Facts) -> float:
    """A second, as the balancer and as the refusals have it; what was tried again elsewhere is in the former only."""
    refused = facts.refused_at(f"{load.resource}#{one.name}", *DEAD, *_LATE)
    return max(one.failed_per_s, sum(reason.per_s for reason in refused))


def _is_slow(one: Endpoint, load: Load) -> bool:
    """By far, beside the middle one of the others."""
    middle = _middle_cost(one, load)
    return bool(one.cost_ms and middle and one.cost_ms > max(SICK_COST * middle, middle + SLOWER_MS))


def _middle_cost(one: Endpoint, load: Load) -> float:
    """Of the others, in milliseconds; 0 if they have none."""
    costs = sorted(other.cost_ms for other in load.serving() if other is not one and other.cost_ms)
    return costs[len(costs) // 2] if costs else 0.0


def _is_avoided(one: Endpoint, load: Load) -> bool:
    """The balancer gives it next to nothing."""
    others = [other.answered_per_s for other in load.serving() if other is not one]
    return one.answered_per_s < SICK_SHARE * sum(others) / len(others) if others else False


def shedding(facts: Facts) -> Iterator[Finding]:
    """The upstream refuses for load itself."""
    for load in facts.loads:
        shed = facts.refused_at(load.resource, *_SHED)
        rate = sum(one.per_s for one in shed)
        of = say.per_s(max(rate, load.now.departures_per_s))  # of the same answers, but not always of the same time
        is_rate = (bool(shed) and say.worst(shed).reason == _RATE) or load.tripped_by == _RATE
        answers = "its rate limit is reached, it answers 429" if is_rate else "it answers 429 or 503 itself"
        says = f"{answers}: {say.per_s(rate)} of {of}"
        if load.tripped_by in _SHED:
            shed = facts.refused_at(load.resource, *_SHED, _OPEN)
            says = f"{answers}, so its circuit is open"
        elif rate < SHED_SHARE * load.now.departures_per_s:
            continue
        if not shed:
            continue
        at_once = load.now.departures_per_s * (load.now.held_ms or 0.0) / 1000 or load.in_flight
        fewer = max(1, round(at_once * 3 / 4))
        yield Finding(
            "upstream_shedding",
            load.resource,
            LOST,
            say.longest(shed),
            says,
            (*say.refusals(shed), *say.service(load), *say.places(load), *say.endpoints(load)),
            say.granted(load.resource, load.settings)
            if is_rate
            else f"edgeq set {load.settings} limit {fewer} --ttl 10m    # who waits here is not refused there",
        )


def dead(facts: Facts) -> Iterator[Finding]:
    """It cannot be reached, or drops what reaches it."""
    for load in facts.loads:
        refused = facts.refused_at(load.resource, *DEAD)
        if not refused and load.breaker == "open" and load.tripped_by not in _SHED:
            yield _left_alone(load)
            continue
        rate = sum(one.per_s for one in refused)
        is_open = load.breaker not in (None, "closed") and any(one.reason == _OPEN for one in refused)
        is_little = rate < DEAD_SHARE * (rate + load.now.departures_per_s) or _is_partial(load, refused)
        if not refused or (is_little and not is_open):  # of several workers one alone may be shut out
            continue
        yield Finding(
            "upstream_dead",
            load.resource,
            LOST,
            say.longest(refused),
            _why(load, refused),
            (
                *say.refusals(refused),
                *say.unresolved(load),
                *say.endpoints(load),
                *([f"circuit {load.breaker}"] if load.breaker else ()),
            ),
            say.ask(load.unresolved[0]) if load.unresolved and not load.endpoints else say.look(load),
        )


def _left_alone(load: Load) -> Finding:
    """Its circuit is open, and nobody is refused there: who would come is sent elsewhere."""
    says = "its circuit is open"
    if load.tripped_by:
        says += f": {REASONS[load.tripped_by].title.lower()}"
    return Finding("upstream_dead", load.resource, OUT, 0.0, says, say.endpoints(load), say.look(load))


def _why(load: Load, refused: list[Refused]) -> str:
    """What the worst of the reasons means, with the name if it is one that has no address."""
    if load.unresolved and not load.endpoints:
        return f"{load.unresolved[0].name} does not resolve: check the name and [dns]"
    worst = say.worst(refused)
    if worst.reason == _OPEN and load.tripped_by:
        return f"its circuit is open: {say.reason(dataclasses.replace(worst, reason=load.tripped_by))}"
    return say.reason(worst)


def _is_partial(load: Load, refused: list[Refused]) -> bool:
    """Are there endpoints that have no part in it, and answer?"""
    blamed = {one.resource for one in refused}
    return any(one.answered_per_s and f"{load.resource}#{one.name}" not in blamed for one in load.endpoints)


def slower(facts: Facts) -> Iterator[Finding]:
    """It takes longer than before, or too long."""
    for load in facts.loads:
        late = facts.refused_at(load.resource, *_LATE)
        for route in load.routes:
            late += facts.refused_at(f"route/{route}", *_LATE)
        is_cut = _is_cut(load)
        is_silent = not is_cut and _is_silent(load)
        times = 0.0 if is_cut else _times_slower(load)
        if not times and not late and not is_silent:
            continue
        refused = facts.refused_at(load.resource)
        if times:
            says = f"it takes {times:.1f} times as long for an answer as before"
        elif late:
            says = f"its answers do not come in time ({say.rate(late)})"
        else:
            says = f"{load.in_flight} requests are there and none comes back"
        yield Finding(
            "upstream_slower",
            load.resource,
            _harm(load, [*refused, *late]),
            load.pressed_s or say.longest(late),
            says,
            (
                *say.service(load),
                *say.traffic(load),
                *say.places(load),
                *say.refusals([*refused, *(one for one in late if one not in refused)]),
                *say.endpoints(load),
            ),
            say.look(load),
            tuple(whole_of(one.resource) for one in late),
        )


def noisy(facts: Facts) -> Iterator[Finding]:
    """One tenant takes the places of the others."""
    for load in facts.loads:
        refused = facts.refused_at(load.resource, *_TENANTS)
        waiting = sum(load.tenants.values())
        first = max(load.tenants, key=lambda name: load.tenants[name], default="")
        is_noisy = waiting and len(load.tenants) > 1 and load.tenants[first] >= NOISY * waiting
        key = _noisy_key(load)
        if load.pressed_s < SETTLES_S or not first or not (is_noisy or refused or key):
            continue
        who, count = f"tenant {first}", load.tenants[first]
        if key and not is_noisy:
            who, count = f"key {say.key(key)} of {who}", load.keys[key]
        yield Finding(
            "noisy_tenant",
            load.resource,
            _harm(load, facts.refused_at(load.resource)),
            load.pressed_s,
            f"{who} has {count / waiting:.0%} of the requests that wait or run",
            (*say.tenants(load), *say.traffic(load), *say.places(load), *say.service(load), *say.refusals(refused)),
            _fewer(first, key.partition(" ")[0], load, facts),
        )
    own = [one for one in facts.refused if one.reason in _TENANTS and _is_of_tenant(one.resource)]
    if own:
        yield Finding(
            "noisy_tenant",
            say.worst(own).resource,
            LOST,
            say.longest(own),
            f"a tenant asks for more at once than `tenant.limit` lets it ({say.rate(own)} refused)",
            say.refusals(own),
            "edgeq show tenants",
        )


def _noisy_key(load: Load) -> str:
    """As workers tell it; empty: none is."""
    key = max(load.keys, key=lambda name: load.keys[name], default="")
    is_noisy = len(load.keys) > 1 and load.keys[key] >= NOISY * sum(load.tenants.values())
    return key if is_noisy else ""


def _fewer(tenant: str, key: str, load: Load, facts: Facts) -> str:
    """The command that lets a tenant have half of the places: of models by its account, if there are any, or only the
    key that takes them."""
    places = max(1, (load.limit or load.in_flight) // 2)
    of_models = load.settings.startswith("provider/") or facts.leads.get(load.resource) == ""
    if of_models and facts.has_accounts:
        return f"edgeq {f'keys set {quote(key)}' if key else f'tenants set {quote(tenant)}'} --concurrent {places}"
    return f"edgeq set tenant limit {places} --ttl 10m"


def _is_of_tenant(resource: str) -> bool:
    """Is it `tenant.limit`, and no limit of models, which has other words?"""
    kind, _, what = resource.partition(":")
    return kind == "tenant" and what not in WHATS


def more_traffic(facts: Facts) -> Iterator[Finding]:
    """More comes than before, or than it was found to take."""
    for load in facts.loads:
        before = load.earlier()
        grew = before is not None and load.now.arrivals_per_s >= MORE * before.arrivals_per_s
        is_learned = load.limit_source not in CONFIGURED
        if load.pressed_s < SETTLES_S or _is_cut(load) or _has_cut(load) or not (grew or is_learned):
            continue
        refused = facts.refused_at(load.resource)
        says = f"{say.per_s(load.now.arrivals_per_s)} come"
        if grew and before is not None:
            says += f", {load.now.arrivals_per_s / before.arrivals_per_s:.1f} times what came before"
        says += f", and {say.per_s(load.now.departures_per_s)} can be served"
        short = load.resource.removeprefix("upstream/")
        yield Finding(
            "more_traffic",
            load.resource,
            _harm(load, refused),
            load.pressed_s,
            says,
            (*say.traffic(load), *say.service(load), *say.places(load), *say.tenants(load), *say.refusals(refused)),
            f"edgeq show upstreams {short}    # its limit is learned: it needs more endpoints, or a [[rate]]"
            if is_learned
            else f"edgeq set {load.settings} limit {_enough(load)} --ttl 10m    # if it can take them; else a [[rate]]",
        )


def limit_low(facts: Facts) -> Iterator[Finding]:
    """A configured limit keeps waiting what could run."""
    for load in facts.loads:
        if load.pressed_s < (SETTLES_S if _is_cut(load) else _settles_s(load)):
            continue
        refused = facts.refused_at(load.resource)
        pool = facts.refused_at(load.resource, _POOL)
        if not load.limit and not pool:
            continue
        key = "pool.max_connections" if pool else "limit"
        enough, undo = _enough(load), ""
        if before := _lowered(load):
            enough = min(enough, before)  # who comes again at once makes more of what arrives than it is
            if load.limit_source == LIVE:
                is_same = load.file_limit in ("", str(load.before.limit if load.before is not None else ""))
                which = "as before" if is_same else f"as the file has it ({load.file_limit})"
                undo = f"    # or {which}: edgeq unset {load.settings} limit"
            says = f"its limit was lowered from {before} to {load.limit}"
        else:
            most = "what its pools hold" if pool else f"its limit of {load.limit}"
            says = f"{most} is reached, and neither its traffic nor its service time has changed"
            if load.earlier() is None:
                says = f"{most} is reached, and too little came before to compare with"
            if _asks_for_others(load):
                says = f"{most} is reached, and models are asked that take longer than those before"
        yield Finding(
            "limit_too_low",
            load.resource,
            _harm(load, refused),
            load.pressed_s,
            says,
            (*say.places(load), *say.traffic(load), *say.service(load), *say.tenants(load), *say.refusals(refused)),
            f"edgeq set {load.settings} {key} {enough} --ttl 10m{undo}",
        )
    for one in (one for one in facts.refused if one.reason == PLACES):
        resource = one.resource.partition(":max_connections")[0]
        yield Finding(
            "limit_too_low",
            resource,
            LOST,
            one.since_s,
            "as many connections are open as `max_connections` lets",
            say.refusals([one]),
            f"edgeq show limits max_connections    # then: edgeq set {resource} max_connections N",
        )


def _times_slower(load: Load) -> float:
    """How many times as long an answer takes as before; 0: not much longer, or that is not known.

    Who answers more a second than before is not slower: that each takes longer is what its traffic does to it.
    """
    before, usual_ms, now = load.earlier(), load.usual_ms(), load.now
    now_ms = now.service_ms or 0.0
    if load.pressed_s >= _settles_s(load) and not now.models and usual_ms <= _SHORT_MS:
        now_ms = max(now_ms, now.held_ms or 0.0)  # the slow ones have not ended yet
    elif not load.pressed_s and not now.is_known():
        return 0.0  # nobody waits, so a few are just these few
    if before is None or not usual_ms:
        return 0.0
    if load.now.departures_per_s >= MORE * before.departures_per_s > 0:
        return 0.0
    is_slower = now_ms > max(SLOWER * usual_ms, usual_ms + SLOWER_MS)
    return now_ms / usual_ms if is_slower else 0.0


def _is_silent(load: Load) -> bool:
    """Does nothing come back, for longer than it should take?"""
    is_idle = load.in_flight == 0 or load.now.departures_per_s > 0
    return not is_idle and load.pressed_s >= _settles_s(load)


def _settles_s(load: Load) -> float:
    """For so long it is not known yet whether it has become slower: what came then has not been answered yet."""
    if not load.usual_ms() and load.now.service_ms is None:
        return UNKNOWN_S
    return max(SETTLES_S, min(2 * SLOWER * load.usual_ms() / 1000, _SETTLED_S))


def _asks_for_others(load: Load) -> bool:
    """Are models asked that take longer than those before?"""
    before = load.earlier()
    return before is not None and load.usual_ms() >= SLOWER * (before.service_ms or NEVER)


def _lowered(load: Load, is_ever: bool = True) -> int:
    """What a configured limit was while nobody waited, or `is_ever` whoever did, if that was more; else 0."""
    if load.limit_source not in CONFIGURED or not load.limit:
        return 0
    paces = (load.before, load.was if is_ever else None)
    before = max((one.limit for one in paces if one is not None), default=0)
    return before if before > load.limit else 0


def _is_cut(load: Load) -> bool:
    """Was the limit lowered by so much, when the queue began, that this is why it began? Whoever has lowered it because
    of a queue has not made that one."""
    before, began = _lowered(load, is_ever=False), load.limit if load.began_limit is None else load.began_limit
    return before > 0 and before >= SLOWER * (began or before)


def _has_cut(load: Load) -> bool:
    """Is less served since the limit was lowered, whether or not somebody waited before?"""
    if load.was is None or not _lowered(load):
        return False
    return load.was.limit > (load.limit or 0) and load.was.departures_per_s >= MORE * load.now.departures_per_s


def _harm(load: Load, refused: list[Refused]) -> int:
    if any(REASONS[one.reason].fault != "C" or one.reason in _TENANTS for one in refused if one.reason in REASONS):
        return LOST
    return WAITS if load.pressed_s else SIGN


def _enough(load: Load) -> int:
    """Places by Little's law for what arrives, and a fifth more; never fewer than there are.

    Or for what arrived before, if that was more: clients that wait for an answer do not ask again meanwhile.
    """
    paces = [one for one in (load.now, load.before, load.was) if one is not None]
    service_ms = next((one.service_ms for one in paces if one.service_ms), 0.0)
    wanted = ceil(max(one.arrivals_per_s for one in paces) * service_ms / 1000 * 1.2)
    return max(wanted, (load.limit or 0) * 5 // 4 + 1)
