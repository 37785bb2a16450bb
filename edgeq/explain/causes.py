"""The causes that `edgeq explain` tells apart: a table. Each is a function from facts to findings, and nothing else.

What is found about one resource is one cause: the first of the table that holds for it, so what explains more comes
first (a worker that hangs also fills queues, a dead upstream also makes answers late). Of several resources the one
where more is lost comes first, then again the order of the table.

Thresholds are ratios to what was before, never absolute speeds; a resource that nobody waits for is not saturated,
however busy it is. docs/explain.md is made from the table: `python -m edgeq.explain.causes > docs/explain.md`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from edgeq.explain import gates, machine, say, services
from edgeq.explain.facts import FEW, Facts, whole_of
from edgeq.explain.finding import LOST, STANDS_S, WAITS, Finding
from edgeq.explain.machine import BUSY, LAG_MS, LATELY_S
from edgeq.explain.services import DEAD, DEAD_SHARE, MORE, NOISY, SHED_SHARE, SICK_COST, SICK_SHARE, SLOWER
from edgeq.reasons import REASONS


@dataclass(frozen=True, slots=True)
class Cause:
    """One row. `told_by` and `next` are for the documentation."""

    name: str
    title: str
    told_by: str
    next: str
    find: Callable[[Facts], Iterator[Finding]] = field(repr=False)


def _other(facts: Facts) -> Iterator[Finding]:
    """What is refused for another reason of edgeq or of an upstream; the client's own mistakes are none of ours. And
    who waits elsewhere than before a limit."""
    # Of these queues the cause shows in a moment, or they have ended; and that they are full is none.
    told = {f"{load.resource}:queue" for load in facts.loads}
    for one in facts.refused:
        row = REASONS.get(one.reason)
        if one.since_s < STANDS_S or one.reason in machine.TOLD or one.reason == services.PLACES:
            continue
        if (
            one.resource in told or one.resource in facts.disabled or one.reason == "circuit_open"
        ):  # that is told as what has opened it
            continue
        if row is not None and row.fault != "C" and (row.status >= 500 or row.status == 0):
            yield Finding(
                "other",
                one.resource,
                LOST,
                one.since_s,
                f"{row.title.lower()}: {row.hint}",
                say.refusals([one]),
                "edgeq show changes    # who has disabled them"
                if one.resource.startswith("model/") and one.reason == "upstream_none_healthy"
                else "edgeq show events provider_model_fails    # what it said"
                if one.reason == "upstream_error"
                else f"edgeq show reasons {one.reason}",
            )
    for queue in facts.waiting:
        since_s = max(queue.oldest_ms / 1000, queue.since_s)
        if since_s >= STANDS_S:
            yield Finding(
                "other",
                queue.resource,
                WAITS,
                since_s,
                f"{queue.depth} wait there" + (f": {queue.why}" if queue.why else ""),
                [say.waiting(queue)],
                look_at(queue.resource),
            )


def look_at(resource: str) -> str:
    """The command that shows a queue; of one for tokens, what is left of which limit."""
    name = whole_of(resource).removeprefix("target/")
    return f"edgeq show targets {name}" if resource.startswith("target/") else f"edgeq show queues {resource}"


CAUSES: Final = (
    Cause(
        "descriptors_exhausted",
        "File descriptors are exhausted",
        "refusals with `fd_exhausted`; how many each worker has open, and may open, or all processes together",
        "raise LimitNOFILE; `edgeq check` says to what; or fs.file-max",
        machine.descriptors,
    ),
    Cause(
        "ports_exhausted",
        "Local ports are exhausted",
        "refusals with `upstream_port_exhausted`; the range of ports, sockets in TIME-WAIT",
        "widen net.ipv4.ip_local_port_range, keep connections, or add addresses",
        machine.ports,
    ),
    Cause(
        "memory_short",
        "A worker is short of memory",
        "refusals with `memory_pressure`; how much each worker has, and may have of the control group's limit or the"
        " machine's memory (`protect.memory`), or holds of bodies for models (`protect.model_bodies`)",
        "smaller caches, fewer connections, or more memory; of bodies, a higher bound",
        machine.memory,
    ),
    Cause(
        "worker_stuck",
        "A worker hangs",
        "it has given no sign of life for two seconds (ten while all workers want a processor); whether the others do;"
        " who waits in its accept queue",
        "look at its stack; it is replaced after `server.stuck.restart` if another worker is well; else kill it",
        machine.stuck,
    ),
    Cause(
        "worker_busy",
        "A worker has no processor time left",
        f"its loop's lag stands at {LAG_MS:g} ms or more while it runs, or waits for a processor, for {BUSY:.0%} of the"
        " time; or refusals with `loop_lag`",
        "more workers, or fewer other programs on the machine",
        machine.cpu,
    ),
    Cause(
        "worker_died",
        "A worker has died",
        f"its successor runs, for less than {LATELY_S / 60:g} minutes since then; by what it ended, and how often that"
        " has happened in its slot: beside what is short, as nobody waits for it any more",
        "the event `worker died` and what the kernel says (`journalctl -k`: out of memory); `edgeq show workers`",
        machine.died,
    ),
    Cause(
        "somaxconn",
        "The kernel cuts the backlog",
        "the kernel drops connections at an accept queue that is shorter than the listener's `backlog`, while the loop"
        " is idle",
        "raise net.core.somaxconn, then reload",
        machine.somaxconn,
    ),
    Cause(
        "accept_overflow",
        "The accept queue overflows while the loop idles",
        "the kernel drops connections at an accept queue that is as long as it is configured, and no worker is short of"
        " time",
        "raise the listener's `backlog`",
        machine.accept,
    ),
    Cause(
        "route_paused",
        "A route is paused",
        "somebody waits at a route that an operator, or the file, has paused",
        "resume it",
        services.paused,
    ),
    Cause(
        "model_degrades",
        "A smaller model answers in place of one",
        "requests for a model with `degrade` find no room at any of its targets, or by its own limits, and are answered"
        " by the smaller one; how many, why, and how its targets are",
        "look which limit it is, or who rests: `edgeq show models NAME`",
        gates.degrades,
    ),
    Cause(
        "endpoints_taken_out",
        "No endpoint is left in use",
        "all endpoints of an upstream are drained or disabled, or a provider, its key, a target, or all targets of a"
        " model, by an operator or the file; if by an operator it is told before anybody comes, too",
        "enable or undrain one",
        services.taken_out,
    ),
    Cause(
        "key_rests",
        "A provider's key rests",
        "the provider has refused the key, or its account has no credit (no model is asked with it), or has answered"
        " 429, or told that no request is left, or the last requests for one model have failed (this model at this key"
        " is not asked, and is told until it has given a good answer, though others answer in its place); until when,"
        " since when, and by what it fails",
        "look at the key, or keep below the provider's limits (`limits` of [provider.NAME]), or look by what it fails",
        gates.rests,
    ),
    Cause(
        "endpoint_sick",
        "One endpoint is sick",
        f"one of several is ejected or unhealthy, takes no connections, fails {SICK_SHARE:.0%} of its requests or is"
        f" avoided since it did, or costs {SICK_COST:g} times what the others do, and the others are well",
        "drain it",
        services.sick,
    ),
    Cause(
        "upstream_shedding",
        "The upstream sheds",
        f"`upstream_shed`, of a provider `upstream_rate_limit` or `upstream_overloaded`: {SHED_SHARE:.0%} of its"
        " answers or more are its own 429 or 503, or that has opened its circuit",
        "send it fewer at once; of a provider's rate limit, keep below it (`limits` of [provider.NAME])",
        services.shedding,
    ),
    Cause(
        "upstream_dead",
        "The upstream is dead",
        f"{DEAD_SHARE:.0%} of the requests or more fail with: "
        + ", ".join(f"`{one}`" for one in DEAD)
        + "; or its circuit is open, though others take what was for it",
        "look which endpoints are left",
        services.dead,
    ),
    Cause(
        "upstream_slower",
        "The upstream is slower",
        f"an answer takes {SLOWER:g} times what it took before the queue began, or places are held for so long (a"
        " provider's: what the models that are"
        " asked now took), while no more of them come than before;"
        " or answers do not come in time, or at all",
        "look which endpoints are slow",
        services.slower,
    ),
    Cause(
        "noisy_tenant",
        "One tenant is noisy",
        f"{NOISY:.0%} of the requests that wait or run are one tenant's, or one virtual key's, and others ask as well;"
        " or refusals with `fair_share_exceeded` or `concurrency_limit_client`",
        "limit it (`tenant.limit`; of models `edgeq tenants set`, or `edgeq keys set`)",
        services.noisy,
    ),
    Cause(
        "budget_spent",
        "A budget is spent",
        "`money_per_day` or `money_per_month` of the tenant, team or key that is asked about, or of those that it"
        " belongs to, or less of it is left than a request may cost; told only of these",
        "wait until the day or the month (of UTC) is over, or give it more",
        gates.budgets,
    ),
    Cause(
        "more_traffic",
        "There is more traffic",
        f"{MORE:g} times the arrivals of before the queue began, and the same service time; or more than a learned"
        " limit lets through",
        "raise the limit if the upstream can take it; else limit the rate, or add endpoints",
        services.more_traffic,
    ),
    Cause(
        "limit_too_low",
        "A limit is too low",
        "somebody waits for a place below a configured limit, with the traffic and the service time of before; or the"
        f" limit was lowered when that began, to 1/{SLOWER:g} or less of what it was, or was lowered while somebody"
        " waited, and less is served since",
        "raise it to what arrivals times service time asks for, or take it back",
        services.limit_low,
    ),
    Cause(
        "limit_used_up",
        "A limit of a model is used up",
        "refusals by the `limits` of a model, or of one at a provider's key, or somebody has waited before the latter"
        f" for {STANDS_S:g} s, or somebody always has for so long; which limit, what it is now,"
        " who says so, the tenant who has more than half of what waits or runs there (of a model's limit a minute: of"
        " what was used in the last one), and which virtual keys have most",
        "raise it, if the provider grants more (`edgeq set provider/NAME limits.tokens_per_minute N`); or give that"
        " tenant less (`edgeq tenants set`), or the key that has more than half (`edgeq keys set`)",
        gates.used_up,
    ),
    Cause(
        "other",
        "Something else is refused, or waits",
        "refusals with any other reason that is not the client's doing; who waits for a place at a listener, for a"
        f" connection of a pool, for a place of its tenant, or before a limit of a model, and has for {STANDS_S:g} s,"
        " or somebody always has for so long",
        "look the reason up: docs/reasons.md; or which queue it is",
        _other,
    ),
)
"""In the order in which they explain each other."""


def findings(facts: Facts) -> list[Finding]:
    """All of them, the one that matters most first; of one resource only one."""
    found: list[tuple[int, int, Finding]] = []
    explained: set[str] = set()
    for order, cause in enumerate(CAUSES):
        for one in cause.find(facts):
            whole = whole_of(one.resource)
            if whole in explained:
                continue
            explained.update((whole, *one.covers))
            found.append((-one.harm, order, one))
    return [one for _, _, one in sorted(found, key=lambda row: row[:2])]


_ABOUT: Final = f"""\
# What `edgeq explain` tells apart

Made by `python -m edgeq.explain.causes > docs/explain.md`.

`edgeq explain` names the one resource that is short now, why, since when, the evidence, and the next command.
`edgeq explain RESOURCE` (`upstream/api`, `route/checkout`, `listener/:8080`, `worker/0`) does so for one resource, also
by a name that is less than a whole one (`gpt-4o`, a key's name) or as `x-edgeq-target` has it;
`edgeq explain REQUEST-ID` tells why a request was refused, or answered by a smaller model than it asked for, or by
another target than the first as that has failed (what each provider has said, in order), or slow (the last ones of each
worker are remembered, refused ones apart; `explain.slow` says what slow is). It is answered without the workers, so it
works while all of them hang.

"Now" is the last three seconds, or since the trouble began, but one second at least; all rates of a resource are of
that time. "Before" is up to a minute in which nobody waited or was refused; fewer than {FEW} requests are nothing to
compare with. What has just begun is told at once, and its cause a moment later, when it shows in the numbers. Where
several causes hold for one resource, the first of this table is the one that is told; of several resources, one where
something is lost goes before one where somebody only waits. Who asks about a route hears of its upstream, too.

| cause | what | how it is told | what next |
|---|---|---|---|
"""


def document() -> str:
    """The table for people, in Markdown: docs/explain.md."""
    return _ABOUT + "".join(f"| `{one.name}` | {one.title} | {one.told_by} | {one.next} |\n" for one in CAUSES)


if __name__ == "__main__":
    sys.stdout.write(document())
