"""Evidence in words: each a line or two, from the facts of one thing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from edgeq.config.units import plain
from edgeq.explain.facts import Door, Facts, Gate, Load, Refused, TakenOut, Unresolved, Waiting, Worker
from edgeq.reasons import REASONS
from edgeq.upstream.engine import CACHE_FULL

_MORE: Final = 0.05
"""Of what comes or goes: by so much the two may differ, or it is said where it is."""


def longest(refused: list[Refused]) -> float:
    """For how long the first of them has been."""
    return max((one.since_s for one in refused), default=0.0)


def rate(refused: list[Refused]) -> str:
    """Of all of them."""
    return per_s(sum(one.per_s for one in refused))


def worst(refused: list[Refused]) -> Refused:
    """The one that is the most."""
    return max(refused, key=lambda one: one.per_s)


def reason(one: Refused) -> str:
    """What its reason means."""
    return meaning(one.reason)


def meaning(reason: str) -> str:
    """Of a token of edgeq.reasons."""
    row = REASONS[reason]
    return f"{row.title[:1].lower()}{row.title[1:]}: {row.hint}"


def refusals(refused: list[Refused]) -> list[str]:
    """Reasons, each with its rate and resource."""
    return [f"{per_s(one.per_s)} {one.reason} at {one.resource}" for one in refused[:4]]


def places(load: Load) -> list[str]:
    """Requests in flight and in the queue."""
    none = "paused" if load.is_paused else "no limit"
    limit = f"{load.in_flight} of {load.limit} in flight" if load.limit else f"{load.in_flight} in flight, {none}"
    by = {"learned": " (learned)", "observe": " (observed only)"}.get(load.limit_source, "")
    oldest = f", the oldest for {ms(load.oldest_ms)}" if load.queued else ""
    return [f"{limit}{by}, {load.queued} of {load.queue_max} wait{oldest}", *engines(load), *deadline(load)]


def target(one: Mapping[str, Any]) -> str:
    """How one of a model's is: of `show models`."""
    left = ", ".join(f"{what} {plain(count)}" for what, count in (one["remaining"] or {}).items())
    return f"target/{one['target']} is {one['state']}" + (f", left of its limits: {left}" if left else "")


def engines(load: Load) -> list[str]:
    """Queues that are not here, but in the engines of models: the fullest first."""
    full = [
        (one.name, one.engine)
        for one in load.endpoints
        if one.engine is not None and (one.engine.waiting or one.engine.cache_used > CACHE_FULL)
    ]
    return [
        f"the engine at {name} runs {plain(engine.running)}, {plain(engine.waiting)} wait in it,"
        f" its cache is {engine.cache_used:.0%} full"
        for name, engine in sorted(full, key=lambda one: (-one[1].waiting, -one[1].cache_used))[:4]
    ]


def deadline(load: Load) -> list[str]:
    """Of the last one that could not be met, and why."""
    seen = load.forecast
    if seen is None:
        return []
    service = f"{ms(seen.p95_ms)} of service (95th percentile; median {ms(seen.median_ms)})"
    return [
        f"last refused for its deadline: {ms(seen.left_ms)} left, {ms(seen.wait_ms)} of wait and {service} expected"
    ]


def traffic(load: Load) -> list[str]:
    """What comes, goes and is refused, now and before."""
    now, before = load.now, load.before
    text = f"{per_s(now.arrivals_per_s)} arrive, {per_s(now.departures_per_s)} leave"
    if now.refused_per_s:
        text += f", {per_s(now.refused_per_s)} are refused"
    more = now.arrivals_per_s - now.departures_per_s - now.refused_per_s
    if abs(more) > _MORE * max(now.arrivals_per_s, now.departures_per_s + now.refused_per_s):
        text += f", {per_s(abs(more))} {'more' if more > 0 else 'fewer'} wait or run"
    if before is not None:
        text += f"; before, {per_s(before.arrivals_per_s)} arrived"
    if len(load.routes) == 1:
        text += f" (by route {load.routes[0]})"
    elif load.routes:  # by which of them is not counted
        text += f" (routes that lead here: {', '.join(load.routes[:3])}{', ..' if len(load.routes) > 3 else ''})"
    return [text]


def waiting(queue: Waiting) -> str:
    """Who waits elsewhere than before a limit."""
    return f"{queue.depth} wait at {queue.resource}, the oldest for {ms(queue.oldest_ms)}"


def look(load: Load) -> str:
    """The command that shows what it is made of."""
    kind, _, name = load.resource.partition("/")
    if kind == "route" and not load.upstream:
        return f"edgeq show routes {name}"
    return f"edgeq show endpoints {load.upstream or name}"


def granted(resource: str, settings: str) -> str:
    """What comes next where a provider's rate limit is reached, at a key of it or a model at one."""
    command = f"edgeq show targets {resource.partition('/')[2]}"
    return (
        f"{command}    # what the provider grants belongs into limits of {settings}"
        " (tokens_per_minute, requests_per_minute): who waits here is not refused there"
    )


def service(load: Load) -> list[str]:
    """What an answer takes, now and before."""
    if load.now.service_ms is None:
        return ["nothing ends well now"] if load.in_flight else []
    before = load.before.service_ms if load.before is not None else None
    text = f"an answer takes {ms(load.now.service_ms)}" + (f", before {ms(before)}" if before is not None else "")
    usual_ms = load.usual_ms()
    if before and not 0.8 * before <= usual_ms <= 1.25 * before:
        text += f"; of the models that are asked now it took {ms(usual_ms)}"
    return [text]


def tenants(load: Load) -> list[str]:
    """Whose requests they are."""
    total = sum(load.tenants.values())
    named = [f"{name} {count / total:.0%}" for name, count in load.tenants.items() if name]
    return [*([f"who asks: {', '.join(named[:4])}"] if named else []), *keys(load)]


def keys(one: Load | Gate) -> list[str]:
    """The same by virtual key: who has hardly any part of them is left out."""
    total = sum(one.tenants.values())
    named = [f"{key(told)} {count / total:.0%}" for told, count in one.keys.items() if count * 20 >= total]
    return [f"by key: {', '.join(named[:4])}"] if named else []


def key(told: str) -> str:
    """A virtual key, as workers tell it: as `edgeq keys list` has it, with its name."""
    name, _, title = told.partition(" ")
    return f"{name} ({title})" if title else name


def taken_out(found: Sequence[TakenOut]) -> list[str]:
    """What gets nobody new, by whose doing."""
    return [f"{one.label()} is {one.how()}, {one.by or 'as the file says'}" for one in found[:4]]


def by(change: Mapping[str, Any]) -> str:
    """Who has made it, when and why."""
    user = f"user {change['uid']}" if change["uid"] >= 0 else "an operator"
    until = f", until {change['until']}" if change["until"] else ""
    comment = f" ({change['comment']})" if change["comment"] else ""
    return f"by {user} since {change['since']}{until}{comment}"


def unresolved(load: Load) -> list[str]:
    """Names of which no address is known."""
    return [f"{one.name} does not resolve ({one.reason}: {one.detail})" for one in load.unresolved[:4]]


def ask(name: Unresolved) -> str:
    """The command that asks for a name as edgeq does."""
    if name.nameservers:
        host, _, port = name.nameservers[0].rpartition(":")
        server = f"@{host.strip('[]')} -p {port}" if host else f"@{port}"
        return f"dig {server} {name.name}"
    return f"getent ahosts {name.name}    # no answer there either: /etc/resolv.conf, or the name is wrong"


def endpoints(load: Load) -> list[str]:
    """The addresses of an upstream, the worst first."""
    if len(load.endpoints) < 2 and not any(one.failed_per_s for one in load.endpoints):
        return []
    told = []
    for one in sorted(
        load.endpoints, key=lambda one: (one.state == "in use", -one.failed_per_s, -(one.cost_ms or 0.0))
    ):
        cost = f", costs {ms(one.cost_ms)}" if one.cost_ms else ""
        told.append(
            f"{one.name} is {one.state}: {per_s(one.answered_per_s)} good, {per_s(one.failed_per_s)} failed{cost}"
            + (f", the last one by {one.fails_by}" if one.fails_by else "")
        )
    return told[:4]


def door(one: Door) -> list[str]:
    """An accept queue."""
    waits = f"worker {one.slot}: {per_s(one.drops_per_s)} dropped by the kernel, {one.depth} of {one.granted} wait"
    return [waits] + ([f"its acceptor is {one.state}"] if one.state not in ("", "accepting") else [])


def loops(facts: Facts) -> list[str]:
    """How the workers are."""
    return [f"worker {one.slot}: lag of {ms(one.lag_ms)}, {processor(one)}" for one in facts.workers[:4]]


def processor(one: Worker) -> str:
    """What a worker has of the processors."""
    return f"runs {one.running:.0%} of the time, waits for a processor {one.delayed:.0%}"


def ms(ms: float) -> str:
    """A time."""
    return f"{ms / 1000:.1f} s" if ms >= 1000 else f"{ms:.0f} ms" if ms >= 10 else f"{plain(ms, 2, 3)} ms"


def size(size_bytes: int) -> str:
    """An amount of memory."""
    mib = size_bytes / (1 << 20)
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB" if mib >= 10 else f"{plain(mib, 2)} MiB"


def per_s(rate: float) -> str:
    """A rate."""
    return f"{rate:.0f}/s" if rate >= 10 or rate == 0 else f"{rate:.1f}/s"
