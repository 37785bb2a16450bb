"""What a verdict is made from: one record of everything that was seen, with nothing left to look up.

Rates are a second, over the last `watch.NOW_S`; times have their unit in their names. A resource is named as everywhere
(`upstream/api`, `listener/:8080`, `worker/0`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from edgeq.config.change import LIVE
from edgeq.llm.lately import Used
from edgeq.llm.meter import WHATS
from edgeq.llm.registry import Budget
from edgeq.observe.history import Moment
from edgeq.upstream.engine import EngineQueue

CONFIGURED: Final = ("file", LIVE)
"""Sources of a limit that somebody has chosen."""
HEARD: Final = "heard"
"""Source of one that the provider has told."""
_OF_TARGETS: Final = frozenset(("queue", *WHATS))
"""Parts of a model, or of one at a provider's key."""
FEW: Final = 10
"""Fewer requests than these are nothing to compare with."""
TAKEN_OUT: Final = ("draining", "disabled")
"""States of an endpoint that somebody wants so."""


class History(Protocol):
    """The last minutes of all limited resources."""

    def history(self, resource: str, seconds: float) -> Sequence[Moment]:
        """The last so many seconds, the oldest first; empty for a resource that is not known."""


Models = Mapping[str, tuple[int, float]]
"""Of each model how many answers, and the seconds that they took together."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Of a resource over some moments."""

    arrivals_per_s: float
    departures_per_s: float
    refused_per_s: float
    service_ms: float | None
    """None: nothing ended well."""
    limit: int = 0
    """At the end of it; 0: none."""
    models: Models = field(default_factory=dict)
    """Whose answers have ended, of a provider's."""
    held_ms: float | None = None
    """How long a place is held, by Little's law: also by whom nobody has answered yet. None: nobody has left."""
    span_s: float = 3.0
    """Of so much time."""

    def is_known(self) -> bool:
        """Is it of enough to compare with? Few answers say nothing of the others."""
        return min(self.arrivals_per_s, self.departures_per_s) * self.span_s >= FEW


@dataclass(frozen=True, slots=True)
class Refused:
    """One reason at one resource, where it grows now."""

    reason: str
    resource: str
    per_s: float
    since_s: float
    """For so long it has not paused."""
    quiet_s: float = 0.0
    """For so long it is over."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of an upstream."""

    name: str
    state: str
    """"in use", "ejected", "unhealthy", or one of TAKEN_OUT."""
    cost_ms: float | None
    answered_per_s: float
    failed_per_s: float
    penalty_ms: float = 0.0
    """What the balancer adds to the cost for what has failed lately."""
    trouble_s: float = 0.0
    """For so long it has been out of use, or avoided for its failures."""
    is_configured: bool = True
    """By this address. Of the addresses that a name has none can be drained alone."""
    engine: EngineQueue | None = None
    """What an engine of models tells of its own queue."""
    fails_by: str = ""
    """What has become of the last request there, if it failed: a token of edgeq.reasons, or a status."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What was expected of the last request whose deadline could not be met."""

    left_ms: float
    """Until its deadline."""
    wait_ms: float
    """For a place."""
    median_ms: float
    """Of the service, as is the next."""
    p95_ms: float


@dataclass(frozen=True, slots=True)
class TakenOut:
    """An endpoint that gets nobody new, because somebody wants it so; or a provider, a key of it, or a target there."""

    name: str
    """As `edgeq enable` takes it."""
    is_disabled: bool
    """Else it is drained."""
    by: str = ""
    """Who, since when and why; empty: the file says so."""

    def how(self) -> str:
        """In a word."""
        return "disabled" if self.is_disabled else "drained"

    def label(self) -> str:
        """Of an endpoint its address, else the name."""
        return self.name.partition("#")[2] or self.name


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A name of an endpoint of which no address is known."""

    name: str
    reason: str
    """dns_error or dns_timeout."""
    detail: str
    nameservers: tuple[str, ...] = ()
    """Who is asked; empty: whom this machine asks."""


@dataclass(frozen=True, slots=True)
class Load:
    """One upstream, or a route with a limit."""

    resource: str
    settings: str
    """Where its keys are set: the resource itself, or the provider that the upstream is made of."""
    limit: int | None
    limit_source: str
    """One of CONFIGURED, "learned" or "observe"."""
    in_flight: int
    queued: int
    queue_max: int
    oldest_ms: float
    now: Pace
    before: Pace | None
    """While nobody waited or was refused; None: that is not known."""
    pressed_s: float
    """For so long somebody has waited or was refused; 0: nobody does."""
    breaker: str | None = None
    endpoints: tuple[Endpoint, ...] = ()
    tenants: Mapping[str, int] = field(default_factory=dict)
    """Whose requests waited or ran lately: a sum over the last looks."""
    keys: Mapping[str, int] = field(default_factory=dict)
    """The same by virtual key, as workers tell it: id, and name after a space."""
    routes: tuple[str, ...] = ()
    """Which lead here."""
    upstream: str = ""
    """Where a route leads, if it leads to one."""
    is_paused: bool = False
    """An operator, or the file, lets nobody in."""
    tripped_by: str = ""
    """What has failed there last, if its circuit is not closed."""
    forecast: Forecast | None = None
    """None: whoever has come lately had time enough, or no deadline."""

    was: Pace | None = None
    """Right before its limit was changed, whether or not somebody waited then; None: it was not lately."""
    file_limit: str = ""
    """Of the file, where somebody has set another one and the file has any."""
    began_limit: int | None = None
    """When that began; None: the one that it has."""
    taken_out: tuple[TakenOut, ...] = ()
    """Its configured endpoints, if somebody has taken out all of them."""
    unresolved: tuple[Unresolved, ...] = ()

    def earlier(self) -> Pace | None:
        """What was before, if that is enough to compare with."""
        return self.before if self.before is not None and self.before.is_known() else None

    def usual_ms(self) -> float:
        """What an answer took before; of a provider's, if the same models had been asked as now (one that is new counts
        with what it takes now). 0.0: not known."""
        before = self.earlier()
        if before is None or not before.service_ms:
            return 0.0
        was, now = before.models, self.now.models
        if not was or not now:
            return before.service_ms
        took_s = 0.0
        for name, (count, seconds) in now.items():
            count_before, seconds_before = was.get(name, (count, seconds))
            took_s += count * seconds_before / count_before
        return before.service_ms * (took_s / answers(now)) / (sum(one[1] for one in was.values()) / answers(was))

    def serving(self) -> list[Endpoint]:
        """Without those that an operator has taken out."""
        return [one for one in self.endpoints if one.state not in TAKEN_OUT]


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker process."""

    slot: int
    pid: int
    stuck: bool
    beat_age_ms: float
    lag_ms: float
    """Of the event loop, that stood: the least of the worst of the last looks."""
    lagging_s: float
    """For so long it has."""
    running: float
    """Share of the time in which it ran on a processor."""
    delayed: float
    """Share of the time in which it could have run, and no processor was free."""
    in_flight: int
    descriptors: int | None = None
    max_descriptors: int | None = None
    """Of these two, None where nobody had to look."""
    memory_bytes: int | None = None
    """Resident."""
    bodies_bytes: int = 0
    """Of bodies of requests for models."""
    max_bodies_bytes: int = 0
    """0: any number."""
    restarts: int = 0
    """How often the one of its slot has died."""
    died_ago_s: float | None = None
    """The last time; None: none has."""
    died_by: str = ""


@dataclass(frozen=True, slots=True)
class Door:
    """The accept queue of one listening socket."""

    resource: str
    slot: int
    depth: int
    granted: int
    """By the kernel."""
    asked: int
    """By the configuration."""
    drops_per_s: float
    dropping_s: float
    """For so long."""
    state: str = ""
    """Of its acceptor: "accepting", or why it does not accept."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A queue that is not before a limit: of places at a listener, of a pool, of a tenant."""

    resource: str
    depth: int
    oldest_ms: float
    since_s: float = 0.0
    """For so long it has never been empty when somebody looked."""
    why: str = ""
    """What they wait for, where that is known."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """A limit of tokens, requests or money, as it is in force."""

    what: str
    """One of WHATS: the part of a resource that refuses for it."""
    count: float
    left: float | None
    """Of it; None: not known."""
    settings: str
    """Where it is said: "provider/openai"."""
    key: str
    """There: "limits.tokens_per_minute"; as `edgeq set` takes it, if `can_set`."""
    source: str = "file"
    """Or LIVE, or HEARD."""
    can_set: bool = True
    file: str = ""
    """What the file says, where somebody has set another one."""
    by: str = ""
    """Who has, and when."""

    def fill(self) -> float:
        """The part that is used."""
        return 1 - self.left / self.count if self.left is not None and self.count else 0.0


@dataclass(frozen=True, slots=True)
class Rest:
    """The provider is left alone, because of what it has said."""

    reason: str
    """A token of edgeq.reasons."""
    left_s: float
    until: str
    """Time of day."""
    is_whole_key: bool
    """Else this model at this key."""
    fails_by: str = ""
    """It has failed by this last, a token of edgeq.reasons, and no answer was good since; if it is asked again
    (`left_s` is 0) the next request finds out."""
    fails_s: float = 0.0
    """For so long."""
    fails_detail: str = ""
    """What the provider has said, or what was waited for."""
    detail: str = ""
    """Of a key, what the provider has said."""


@dataclass(frozen=True, slots=True)
class Gate:
    """A model (`model/gpt-4o`) with limits of its own, or one at a provider's key (`target/openai/gpt-4o`)."""

    resource: str
    upstream: str = ""
    """The key, as a resource; empty of a model."""
    settings: str = ""
    """Of the provider."""
    limits: tuple[Allowed, ...] = ()
    queued: int = 0
    oldest_ms: float = 0.0
    wait_s: float = 0.0
    """Who would wait for longer is not let wait."""
    short_s: float = 0.0
    """For so long somebody has waited there, or was refused; 0: nobody is, or that was not seen yet."""
    rest: Rest | None = None
    tenants: Mapping[str, int] = field(default_factory=dict)
    """Whose requests waited or ran there lately: a sum over the last looks."""
    keys: Mapping[str, int] = field(default_factory=dict)
    """The same by virtual key, as workers tell it: id, and name after a space."""
    used: tuple[Used, ...] = ()
    """Of a model, what each key has used in the last minute, if that is known."""
    share_of: str = "of the requests that wait or run there"
    """What it is that `tenants` and `keys` have so much of."""


@dataclass(frozen=True, slots=True)
class Degrading:
    """A model for which a smaller one answers now."""

    resource: str
    """`model/NAME`."""
    smaller: str
    reasons: Mapping[str, float]
    """Tokens of edgeq.reasons, and how many a second."""
    since_s: float
    targets: Sequence[str] = ()
    """In words, how each of its own is."""

    def per_s(self) -> float:
        """Of all reasons."""
        return sum(self.reasons.values())


@dataclass(frozen=True, slots=True)
class Machine:
    """What the kernel grants to all."""

    somaxconn: int | None = None
    ports: tuple[int, int] | None = None
    """Local ports for connections to upstreams, first and last."""
    time_wait: int | None = None
    """Sockets that hold a port although they are closed."""
    files: tuple[int, int] | None = None
    """Open ones of all processes, and how many there may be."""
    memory_bytes: int = 0
    """Which all workers may have together; 0: not known."""
    memory_of: str = ""
    """Whose limit that is: "the control group" or "the machine"."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it."""

    loads: tuple[Load, ...] = ()
    workers: tuple[Worker, ...] = ()
    doors: tuple[Door, ...] = ()
    refused: tuple[Refused, ...] = ()
    machine: Machine = Machine()
    waiting: tuple[Waiting, ...] = ()
    memory_share: float = 0.0
    """Of its part of the memory each worker may use so much (`protect.memory`)."""
    leads: Mapping[str, str] = field(default_factory=dict)
    """Of each route the upstream, as resources; empty: to models."""
    named: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Of each model its targets, of each target and provider its upstreams, of each prompt its model, as resources."""
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Of each provider, and of each of its keys, the targets; of each route of models these; of each prompt its
    route."""
    gates: tuple[Gate, ...] = ()
    disabled: Mapping[str, tuple[TakenOut, ...]] = field(default_factory=dict)
    """Targets that are, each by itself, and models of which all targets are, as resources: by what."""
    disabled_part: Mapping[str, tuple[TakenOut, ...]] = field(default_factory=dict)
    """Models of which some targets are, as resources: by what."""
    meters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of tenants, teams and keys with limits of tokens or money, by `team/acme/core` and the like: as `show meters`."""
    degrading: tuple[Degrading, ...] = ()
    scarce: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Of models, as resources, budgets that one request is above, in words."""
    smaller: Mapping[str, str] = field(default_factory=dict)
    """Of models, as resources, which one may answer in their place."""
    smaller_disabled: Mapping[str, str] = field(default_factory=dict)
    """The same, where nobody answers for these either: all of their targets are disabled."""
    budgets: tuple[Budget, ...] = ()
    """Of the caller who is asked about, and of his team and tenant."""
    has_accounts: bool = False
    """Who asks for models is a tenant of the accounts."""
    over: tuple[Refused, ...] = ()
    """What was refused until just now."""
    replaced_s: float = 0.0
    """A worker that hangs while another is well is killed after so long; 0: never."""

    def refused_at(self, resource: str, *reasons: str) -> list[Refused]:
        """What grows at a resource and its parts (`upstream/api:queue`, `upstream/api#10.0.0.7:9000`), fastest first;
        of these reasons, or of all."""
        found = [
            one for one in self.refused if is_at(one.resource, resource) and (not reasons or one.reason in reasons)
        ]
        return sorted(found, key=lambda one: -one.per_s)


def answers(models: Models) -> int:
    """Of all of them."""
    return sum(count for count, _ in models.values())


def is_at(part: str, resource: str) -> bool:
    """Is it the resource, or a part of it?"""
    return part == resource or part.startswith((f"{resource}:", f"{resource}#"))


def whole_of(resource: str) -> str:
    """The resource of a part: `upstream/api` of `upstream/api:queue` and of `upstream/api#10.0.0.7:9000`."""
    if resource.startswith(("target/", "model/")):  # names of models have colons, too
        name, _, part = resource.rpartition(":")
        return name if part in _OF_TARGETS else resource
    if not resource.startswith(("upstream/", "route/")):
        return resource
    return resource.partition("#")[0].partition(":")[0]
