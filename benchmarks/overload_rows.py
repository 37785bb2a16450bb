"""What `benchmarks/overload.py` puts on each gateway: upstreams, phases of load, what changes meanwhile, the aims.

A row starts with a fresh gateway and fresh upstreams, so no row inherits another's queues. The aims are those that
edgeq has set itself; they say nothing about the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.slots import Service

DEADLINE_S = 1.0
"""What a client waits before it closes its connection."""
USUAL = Service(16, 0.02)
OFFERED = (0.8, 2.0, 4.0)
"""Shares of the capacity."""
COLD_OFFERED = (0.8, 2.0)
SLOW_SHARE = 0.1 / 3.1
"""What falls to an endpoint ten times slower than three others, by speed. Up to twice as much is called fair."""
BURST, BURST_S = 5.0, 3.0
OTHER_SHAPES = {
    "exponential": Service(16, 0.02, "exponential"),
    "bimodal": Service(16, 0.02, "bimodal"),
    "one-slot": Service(1, 0.02),
    "two-slots": Service(2, 0.1, "exponential"),
    "many-slots": Service(64, 0.08, "exponential"),
}

Kind = Literal["steady", "burst", "halves", "tenant", "beside", "failing", "slow"]
Topology = Literal["one", "beside", "four"]


@dataclass(frozen=True, slots=True)
class Upstream:
    """A named service; requests whose path begins with `prefix` go to it."""

    name: str
    prefix: str
    endpoints: tuple[Service, ...]

    @property
    def capacity(self) -> float:
        return sum(endpoint.capacity for endpoint in self.endpoints)


@dataclass(frozen=True, slots=True)
class Stream:
    """One kind of requests; `rates` are requests per second in each phase of the row."""

    name: str
    rates: tuple[float, ...]
    path: str = "/item"
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """At the beginning of a phase an endpoint changes (`/_set` of peer_slots_io)."""

    phase: int
    endpoint: int
    settings: str


@dataclass(frozen=True, slots=True)
class Aim:
    """A figure that edgeq must reach: at most, or at least, `limit`."""

    figure: str
    sense: Literal["<=", ">="]
    limit: float

    def met(self, value: float) -> bool:
        return value <= self.limit if self.sense == "<=" else value >= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """One load; the first stream is the one that is judged, in the phase `judged` (index)."""

    id: str
    title: str
    kind: Kind
    upstreams: tuple[Upstream, ...]
    phases: tuple[float, ...]
    """Seconds of each. The first one is quiet and not judged, so that a start is not mixed with what follows."""
    streams: tuple[Stream, ...]
    judged: int = 1
    changes: tuple[Change, ...] = ()
    aims: tuple[Aim, ...] = ()
    offered: float = 0.0
    """Share of the capacity, for the summary of steady rows."""
    shape: str = ""

    def begin_of(self, phase: int) -> float:
        """Seconds from the start of the load."""
        return sum(self.phases[:phase])

    @property
    def interval(self) -> tuple[float, float]:
        """The judged phase."""
        return self.begin_of(self.judged), self.begin_of(self.judged + 1)

    @property
    def tenants(self) -> bool:
        return any(stream.tenant for stream in self.streams)


def _steady(shape: str, service: Service, offered: float, warm_s: float, seconds: float) -> Row:
    usual = service == USUAL
    aims: tuple[Aim, ...] = ()
    if usual and offered < 1:
        aims = (Aim("in_time", ">=", 0.999), Aim("refused", "<=", 0.0), Aim("p50_to_direct", "<=", 1.05))
    elif usual:
        aims = (Aim("in_time", ">=", 0.98), Aim("p50_ms", "<=", 45.0), Aim("refusal_p99_ms", "<=", 20.0))
    capacity = service.capacity
    return Row(
        id=f"{shape}-{offered:g}x",
        title=f"{service.title}: {offered:g} of the capacity ({capacity:g}/s) is offered",
        kind="steady",
        upstreams=(Upstream("api", "/", (service,)),),
        phases=(warm_s, seconds),
        streams=(Stream("all", (0.5 * capacity, offered * capacity)),),
        aims=aims,
        offered=offered,
        shape=f"{shape}: {service.title}",
    )


def _four(name: str, what: str, settings: str, aims: tuple[Aim, ...], warm_s: float, seconds: float) -> Row:
    return Row(
        id=f"endpoint-{name}",
        title=f"four endpoints of {USUAL.title}, 1,200/s; {what}",
        kind="failing" if name == "failing" else "slow",
        upstreams=(Upstream("api", "/", (USUAL,) * 4),),
        phases=(warm_s, seconds),
        streams=(Stream("all", (1200, 1200)),),
        changes=(Change(1, 3, settings),),
        aims=aims,
    )


def rows(seconds: float, warm_s: float) -> list[Row]:
    """All rows; `seconds` is the length of a judged phase, `warm_s` that of the quiet one before it."""
    one = (Upstream("api", "/", (USUAL,)),)
    capacity = USUAL.capacity
    beside = Row(
        id="beside-slow",
        title="400/s for a healthy upstream of 16 x 20 ms, first alone, then beside 400/s for one of 4 x 500 ms",
        kind="beside",
        upstreams=(*one, Upstream("slow", "/slow/", (Service(4, 0.5),))),
        phases=(warm_s, seconds, seconds),
        streams=(Stream("healthy", (400, 400, 400)), Stream("slow", (0, 0, 400), "/slow/item")),
        judged=2,
        aims=(Aim("in_time", ">=", 0.999), Aim("p99_moved", "<=", 1.10)),
    )
    hanging = Row(
        id="beside-hanging",
        title="400/s for 16 x 20 ms, first alone, then beside 100/s for a path of it that never answers",
        kind="beside",
        upstreams=one,
        phases=(warm_s, seconds, seconds),
        streams=(Stream("healthy", (400, 400, 400)), Stream("hanging", (0, 0, 100), "/hang")),
        judged=2,
        aims=(Aim("in_time", ">=", 0.999), Aim("p99_moved", "<=", 1.10)),
    )
    return [
        *(_steady("usual", USUAL, offered, warm_s, seconds) for offered in OFFERED),
        # Without a quiet phase: what a gateway learns at first, it learns at its users' expense.
        *(_steady("cold", USUAL, offered, 0.0, seconds) for offered in COLD_OFFERED),
        Row(
            id="burst",
            title=f"{USUAL.title}: 0.8 of the capacity, {BURST:g} times the capacity for {BURST_S:g} s, 0.8 again",
            kind="burst",
            upstreams=one,
            phases=(warm_s, BURST_S, seconds),
            streams=(Stream("all", (0.8 * capacity, BURST * capacity, 0.8 * capacity)),),
            judged=2,
            aims=(Aim("recovery_s", "<=", 1.0),),
        ),
        Row(
            id="tenant",
            title=f"{USUAL.title}: a polite tenant of 80/s (judged) beside a noisy one of 2,400/s",
            kind="tenant",
            upstreams=one,
            phases=(warm_s, seconds),
            streams=(Stream("polite", (80, 80), tenant="polite"), Stream("noisy", (0, 2400), tenant="noisy")),
            aims=(Aim("in_time", ">=", 0.99), Aim("p50_ms", "<=", 45.0), Aim("all_to_capacity", ">=", 0.98)),
        ),
        beside,
        hanging,
        _four(
            "failing", "one begins to answer 500 at once", "failing=1", (Aim("bad_share", "<=", 0.02),), warm_s, seconds
        ),
        _four(
            "slow",
            "one becomes ten times slower",
            "mean_s=0.2",
            (Aim("in_time", ">=", 0.999), Aim("bad_share", "<=", 2 * SLOW_SHARE)),
            warm_s,
            seconds,
        ),
        Row(
            id="halves",
            title=f"{USUAL.title}: 1,600/s; half of the slots go (judged), and return",
            kind="halves",
            upstreams=one,
            phases=(warm_s, seconds, max(seconds, 8.0), max(seconds, 12.0)),
            streams=(Stream("all", (0.5 * capacity, *(2 * capacity,) * 3)),),
            judged=2,
            changes=(Change(2, 0, "slots=8"), Change(3, 0, "slots=16")),
            aims=(Aim("follow_s", "<=", 5.0), Aim("return_s", "<=", 10.0)),
        ),
        *(
            _steady(shape, service, offered, warm_s, seconds)
            for shape, service in OTHER_SHAPES.items()
            for offered in OFFERED
        ),
    ]
