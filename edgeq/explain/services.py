"""Causes at one upstream, or at a route with a limit."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Final

from edgeq.explain import say
from edgeq.explain.facts import CONFIGURED, Endpoint, Facts, Load, Refused
from edgeq.explain.finding import LOST, SIGN, WAITS, Finding
from edgeq.reasons import REASONS
from edgeq.worker.wheel import NEVER

SLOWER: Final = 2.0
"""Times the service before."""
SLOWER_MS: Final = 10.0
"""And so much more at least: on a busy machine a fast service varies by more than twice."""
MORE: Final = 1.5
"""Times the arrivals before."""
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
DEAD: Final = (
    "upstream_connect_refused",
    "upstream_connect_timeout",
    "upstream_connect_failed",
    "upstream_backlog_full",
    "upstream_none_healthy",
    "upstream_reset",
    "circuit_open",
    "dns_error",
    "dns_timeout",
)

_SHED: Final = "upstream_shed"
_TENANTS: Final = ("fair_share_exceeded", "concurrency_limit_client")
_LATE: Final = ("upstream_timeout", "deadline_expired")
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


def sick(facts: Facts) -> Iterator[Finding]:
    """One of several endpoints."""
    for load in facts.loads:
        serving = load.serving()
        sick = [one for one in serving if _is_out(one, load) or _fails(one, load, facts) or _is_slow(one, load)]
        well = len(serving) - len(sick)
        if not sick or not well:
            continue
        worst = max(sick, key=lambda one: (one.state != "in use", _failures(one, load, facts), one.cost_ms or 0.0))
        says = f"it is {worst.state}" if _is_out(worst, load) else "it answers worse than the others"
        is_used = _is_slow(worst, load) and not _fails(worst, load, facts) and not _is_avoided(worst, load)
        refused = facts.refused_at(load.resource)
        yield Finding(
            "endpoint_sick",
            f"{load.resource}#{worst.name}",
            max(_harm(load, refused), SIGN if is_used else WAITS),
            load.pressed_s or say.longest(refused),
            f"{says}; {well} of {len(serving)} endpoints are well",
            (*say.endpoints(load), *say.places(load), *say.refusals(refused)),
            f"edgeq drain {load.resource}#{worst.name}"
            if worst.is_configured
            else f"{say.look(load)}    # it cannot be drained alone: an address of a name, or one of a provider's",
        )


def _is_out(one: Endpoint, load: Load) -> bool:
    return one.state != "in use" and len(load.serving()) > 1


def _fails(one: Endpoint, load: Load, facts: Facts) -> bool:
    """A good part of what it gets, and the others do not; or it has, and has not answered well since."""
    if one.penalty_ms > SICK_COST * max(_middle_cost(one, load), SLOWER_MS):
        return True
    failures = _failures(one, load, facts)
    others = [_failures(other, load, facts) for other in load.serving() if other is not one]
    if not others or failures < SHED_SHARE * load.now.departures_per_s or failures < SICK_COST * max(others):
        return False
    return failures >= SICK_SHARE * (failures + one.answered_per_s)


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
        shed = facts.refused_at(load.resource, _SHED)
        rate = sum(one.per_s for one in shed)
        if not shed or rate < SHED_SHARE * load.now.departures_per_s:
            continue
        fewer = max(1, load.in_flight * 3 // 4)
        yield Finding(
            "upstream_shedding",
            load.resource,
            LOST,
            say.longest(shed),
            f"it answers 429 or 503 itself: {say.per_s(rate)} of {say.per_s(load.now.departures_per_s)}",
            (*say.refusals(shed), *say.service(load), *say.places(load), *say.endpoints(load)),
            f"edgeq set {load.settings} limit {fewer} --ttl 10m    # who waits here is not refused there",
        )


def dead(facts: Facts) -> Iterator[Finding]:
    """It cannot be reached, or drops what reaches it."""
    for load in facts.loads:
        refused = facts.refused_at(load.resource, *DEAD)
        rate = sum(one.per_s for one in refused)
        if not refused or rate < DEAD_SHARE * (rate + load.now.departures_per_s) or _is_partial(load, refused):
            continue
        yield Finding(
            "upstream_dead",
            load.resource,
            LOST,
            say.longest(refused),
            say.reason(say.worst(refused)),
            (*say.refusals(refused), *say.endpoints(load), *([f"circuit {load.breaker}"] if load.breaker else ())),
            say.look(load),
        )


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
        is_silent = bool(load.pressed_s and load.in_flight and load.now.departures_per_s == 0)
        times = _times_slower(load)
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
            (*say.service(load), *say.traffic(load), *say.places(load), *say.refusals(refused), *say.endpoints(load)),
            say.look(load),
        )


def noisy(facts: Facts) -> Iterator[Finding]:
    """One tenant takes the places of the others."""
    for load in facts.loads:
        refused = facts.refused_at(load.resource, *_TENANTS)
        waiting = sum(load.tenants.values())
        first = max(load.tenants, key=lambda name: load.tenants[name], default="")
        is_noisy = waiting and len(load.tenants) > 1 and load.tenants[first] >= NOISY * waiting
        if not load.pressed_s or not first or not (is_noisy or refused):
            continue
        yield Finding(
            "noisy_tenant",
            load.resource,
            _harm(load, facts.refused_at(load.resource)),
            load.pressed_s,
            f"tenant {first} has {load.tenants[first] / waiting:.0%} of the requests that wait or run",
            (*say.tenants(load), *say.traffic(load), *say.places(load), *say.service(load), *say.refusals(refused)),
            f"edgeq set tenant limit {max(1, (load.limit or load.in_flight) // 2)} --ttl 10m",
        )
    own = [one for one in facts.refused if one.reason in _TENANTS and one.resource.startswith("tenant")]
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


def more_traffic(facts: Facts) -> Iterator[Finding]:
    """More comes than before, or than it was found to take."""
    for load in facts.loads:
        before = load.before
        grew = before is not None and before.arrivals_per_s > 0 and (
            load.now.arrivals_per_s >= MORE * before.arrivals_per_s
        )  # fmt: skip
        is_learned = load.limit_source not in CONFIGURED
        if not load.pressed_s or _lowered(load) or not (grew or is_learned):
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
        if not load.pressed_s:
            continue
        refused = facts.refused_at(load.resource)
        pool = facts.refused_at(load.resource, _POOL)
        if not load.limit and not pool:
            continue
        key = "pool.max_connections" if pool else "limit"
        if before := _lowered(load):
            says = f"its limit was lowered from {before} to {load.limit}"
        else:
            most = "what its pools hold" if pool else f"its limit of {load.limit}"
            says = f"{most} is reached, and neither its traffic nor its service time has changed"
            if _asks_for_others(load):
                says = f"{most} is reached, and models are asked that take longer than those before"
        yield Finding(
            "limit_too_low",
            load.resource,
            _harm(load, refused),
            load.pressed_s,
            says,
            (*say.places(load), *say.traffic(load), *say.service(load), *say.tenants(load), *say.refusals(refused)),
            f"edgeq set {load.settings} {key} {_enough(load)} --ttl 10m",
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
    before, usual_ms, now_ms = load.before, load.usual_ms(), load.now.service_ms
    if before is None or not usual_ms or now_ms is None:
        return 0.0
    if load.now.departures_per_s >= MORE * before.departures_per_s > 0:
        return 0.0
    is_slower = now_ms > max(SLOWER * usual_ms, usual_ms + SLOWER_MS)
    return now_ms / usual_ms if is_slower else 0.0


def _asks_for_others(load: Load) -> bool:
    """Are models asked that take longer than those before?"""
    before = load.before
    return before is not None and load.usual_ms() >= SLOWER * (before.service_ms or NEVER)


def _lowered(load: Load) -> int:
    """What a configured limit was before, if that was more; else 0."""
    if load.before is None or load.limit_source not in CONFIGURED or not load.limit:
        return 0
    return load.before.limit if load.before.limit > load.limit else 0


def _harm(load: Load, refused: list[Refused]) -> int:
    if any(REASONS[one.reason].fault != "C" or one.reason in _TENANTS for one in refused if one.reason in REASONS):
        return LOST
    return WAITS if load.pressed_s else SIGN


def _enough(load: Load) -> int:
    """Places by Little's law for what arrives, and a fifth more; never fewer than there are.

    Or for what arrived before, if that was more: clients that wait for an answer do not ask again meanwhile.
    """
    paces = [load.now] if load.before is None else [load.now, load.before]
    service_ms = next((one.service_ms for one in paces if one.service_ms), 0.0)
    wanted = ceil(max(one.arrivals_per_s for one in paces) * service_ms / 1000 * 1.2)
    return max(wanted, (load.limit or 0) * 5 // 4 + 1)
