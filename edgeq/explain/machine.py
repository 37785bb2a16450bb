"""Causes in the machine and the workers: what every request suffers from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from edgeq.explain import say
from edgeq.explain.facts import Door, Facts, Worker
from edgeq.explain.finding import LOST, SIGN, WAITS, Finding

LAG_MS: Final = 10.0
"""Each event waits for so long, in a worker that has or wants the processor nearly all the time."""
BUSY: Final = 0.8
"""Of the time in which a worker ran or wanted to."""
FULL: Final = 0.9
"""Of all files that the machine may have open."""
LATELY_S: Final = 300.0
"""For so long it is told that a worker has died."""
HANGS_MS: Final = 10_000.0
"""Without a sign of life: no work takes so long, it runs in circles."""

_PORTS: Final = "upstream_port_exhausted"
_FDS: Final = "fd_exhausted"
_LAG: Final = "loop_lag"
_MEMORY: Final = "memory_pressure"
_PRESSED: Final = "worker:memory_pressure"
"""Where a worker refuses for its own memory; elsewhere it is for bodies of requests for models."""
TOLD: Final = frozenset((_PORTS, _FDS, _LAG, _MEMORY))
"""Reasons that are told here, of all resources at once."""


def descriptors(facts: Facts) -> Iterator[Finding]:
    """No process may have so many files open, or not all of them together."""
    refused = [one for one in facts.refused if one.reason == _FDS]
    if not refused:
        return
    full = [one for one in facts.workers if one.descriptors is not None and one.max_descriptors]
    evidence = [f"worker {one.slot} has {one.descriptors} of {one.max_descriptors} descriptors open" for one in full]
    what = "a worker may not open another file descriptor"
    worst = max((one.max_descriptors or 0 for one in full), default=0)
    next_step = (
        f"systemctl edit edgeq    # LimitNOFILE={max(2 * worst, 65536)}, then restart; `edgeq check` says how many"
    )
    files = facts.machine.files
    if files is not None and files[0] >= FULL * files[1]:
        what = "the machine may not have another file open"
        evidence.insert(0, f"all processes have {files[0]} of {files[1]} files open")
        next_step = f"sysctl -w fs.file-max={2 * files[1]}    # and look who has them: lsof -n"
    yield Finding(
        "descriptors_exhausted",
        say.worst(refused).resource,
        LOST,
        say.longest(refused),
        f"{what} ({say.rate(refused)} refused)",
        (*evidence, *say.refusals(refused)),
        next_step,
    )


def ports(facts: Facts) -> Iterator[Finding]:
    """No local port is free for another connection to an address."""
    refused = [one for one in facts.refused if one.reason == _PORTS]
    if not refused:
        return
    machine = facts.machine
    evidence = []
    if machine.ports is not None:
        first, last = machine.ports
        evidence.append(f"local ports {first} to {last}: {last - first + 1} connections to each address and port")
    if machine.time_wait is not None:
        evidence.append(f"{machine.time_wait} sockets in TIME-WAIT")
    yield Finding(
        "ports_exhausted",
        say.worst(refused).resource,
        LOST,
        say.longest(refused),
        f"no local port is left for another connection to it ({say.rate(refused)} refused)",
        (*evidence, *say.refusals(refused)),
        "sysctl -w net.ipv4.ip_local_port_range='1024 65535'    # or more addresses; keep connections (pool.max_idle)",
    )


def memory(facts: Facts) -> Iterator[Finding]:
    """A worker has more memory than it may, or holds as many bytes of bodies."""
    refused = [one for one in facts.refused if one.reason == _MEMORY]
    own = [one for one in refused if one.resource == _PRESSED]
    if own:
        known = [(one.memory_bytes, one) for one in facts.workers if one.memory_bytes is not None]
        evidence = [f"worker {one.slot} has {say.size(size)}" for size, one in known]
        machine = facts.machine
        if machine.memory_bytes:
            part = machine.memory_bytes // max(1, len(facts.workers))
            allowed, whole = say.size(int(part * facts.memory_share)), say.size(machine.memory_bytes)
            share = f"{facts.memory_share:.4g} (protect.memory) of its part of {machine.memory_of}'s {whole}"
            evidence.append(f"each may have {allowed}: {share}")
        yield Finding(
            "memory_short",
            _PRESSED,
            LOST,
            say.longest(own),
            f"a worker has more memory than it may ({say.rate(own)} refused)",
            (*evidence, *say.refusals(own)),
            "edgeq show workers    # smaller caches (cache.max_bytes), fewer connections (max_connections); or more"
            " memory (MemoryMax), fewer workers",
        )
    bodies = [one for one in refused if one.resource != _PRESSED]
    if bodies:
        most = max((one.max_bodies_bytes for one in facts.workers), default=0)
        yield Finding(
            "memory_short",
            say.worst(bodies).resource,
            LOST,
            say.longest(bodies),
            f"bodies of requests for models fill what a worker holds of them ({say.rate(bodies)} refused)",
            (
                *(
                    f"worker {one.slot} holds {say.size(one.bodies_bytes)} of {say.size(one.max_bodies_bytes)}"
                    " (protect.model_bodies)"
                    for one in facts.workers
                    if one.max_bodies_bytes
                ),
                *say.refusals(bodies),
            ),
            f"edgeq set protect model_bodies {max(1, 2 * most >> 20)}MiB --ttl 10m    # if there is memory for it; else"
            " fewer at once ([tenant] limit)",
        )


def stuck(facts: Facts) -> Iterator[Finding]:
    """A worker that does not turn its loop."""
    stuck = [one for one in facts.workers if is_stuck(one, facts)]
    for one in stuck:
        others = len(facts.workers) - len(stuck)
        waits = [door for door in facts.doors if door.slot == one.slot and door.depth]
        evidence = [
            f"worker {one.slot} (process {one.pid}) has given no sign of life for {say.ms(one.beat_age_ms)}",
            f"{others} of {len(facts.workers)} workers go on" if others else "no worker goes on",
            f"{one.in_flight} requests hang in it",
            *(f"{door.depth} connections wait in its accept queue of {door.resource}" for door in waits),
        ]
        yield Finding(
            "worker_stuck",
            f"worker/{one.slot}",
            LOST,
            one.beat_age_ms / 1000,
            "it does not turn its loop" + (", while the others do" if others else ", and neither do the others"),
            tuple(evidence),
            _rescue(one, others > 0, facts),
        )


def _rescue(one: Worker, has_others: bool, facts: Facts) -> str:
    """What to do about it, which depends on whether the supervisor will (supervisor/stuck.py)."""
    if has_others and facts.replaced_s:
        killed = f"it is killed after {facts.replaced_s:g} s (server.stuck.restart); at once: kill -9 {one.pid}"
        return f"cat /proc/{one.pid}/stack    # {killed}"
    why = "server.stuck does not let it be killed" if has_others else "no other worker is well, so it is not killed"
    return f"kill -9 {one.pid}    # another takes its place. By itself nothing happens but a watchdog's restart: {why}"


def cpu(facts: Facts) -> Iterator[Finding]:
    """A worker that cannot keep up, or is not let."""
    refused = [one for one in facts.refused if one.reason == _LAG]
    busy = [one for one in facts.workers if is_busy(one, facts)]
    if not busy and not refused:
        return
    slots = {one.slot for one in busy}
    drops = [one for one in facts.doors if one.slot in slots and one.drops_per_s]
    evidence = [
        f"worker {one.slot}: lag of {say.ms(one.lag_ms)}, {say.processor(one)}" for one in busy or facts.workers
    ]
    evidence += [
        f"{one.resource}, worker {one.slot}: {say.per_s(one.drops_per_s)} dropped by the kernel" for one in drops
    ]
    delayed = max((one.delayed for one in busy), default=0.0)
    running = max((one.running for one in busy), default=0.0)
    yield Finding(
        "worker_busy",
        f"worker/{max(busy, key=lambda one: one.lag_ms).slot}" if busy else "worker",
        LOST if refused or drops else WAITS,
        max(say.longest(refused), max((one.lagging_s for one in busy), default=0.0)),
        "others take the processor from it" if delayed > running else "it has no processor time left",
        (*evidence, *say.refusals(refused)),
        "edgeq show workers    # more workers (server.workers) if there are cores, else less work for each",
    )


def died(facts: Facts) -> Iterator[Finding]:
    """A worker that took the place of one that has died lately."""
    for one in facts.workers:
        if one.died_ago_s is not None and one.died_ago_s < LATELY_S:
            often = f", {one.restarts} times since the start" if one.restarts > 1 else ""
            yield Finding(
                "worker_died",
                f"worker/{one.slot}",
                SIGN,
                one.died_ago_s,
                f"it took the place of one that has died {one.died_ago_s:.0f} s ago, by {one.died_by}{often}; what ran"
                " in that was cut",
                next="edgeq show workers",
            )


def somaxconn(facts: Facts) -> Iterator[Finding]:
    """An accept queue that the kernel keeps shorter than it should be."""
    for one in _overflows(facts):
        if one.granted < one.asked:
            yield Finding(
                "somaxconn",
                f"{one.resource}:accept",
                LOST,
                one.dropping_s,
                f"the kernel lets {one.granted} connections wait, although {one.asked} are configured",
                (*say.door(one), f"net.core.somaxconn is {facts.machine.somaxconn or one.granted}", *say.loops(facts)),
                f"sysctl -w net.core.somaxconn={one.asked} && edgeq reload",
            )


def accept(facts: Facts) -> Iterator[Finding]:
    """An accept queue that overflows, although its worker has time."""
    for one in _overflows(facts):
        if one.granted >= one.asked:
            yield Finding(
                "accept_overflow",
                f"{one.resource}:accept",
                LOST,
                one.dropping_s,
                f"more connections come at once than the {one.granted} that may wait, while the workers are idle",
                (*say.door(one), *say.loops(facts)),
                f"edgeq set {one.resource} backlog {max(1024, 4 * one.asked)}",
            )


def _overflows(facts: Facts) -> list[Door]:
    """Accept queues that overflow, one for each listener, but not those whose worker does not come to empty them."""
    late = {one.slot for one in facts.workers if one.stuck or is_busy(one, facts)}
    found: dict[str, Door] = {}
    for one in sorted(facts.doors, key=lambda door: door.drops_per_s):
        if one.drops_per_s and one.slot not in late:
            found[one.resource] = one
    return list(found.values())


def is_stuck(one: Worker, facts: Facts) -> bool:
    """It has given no sign of life, and that is not because all have more than enough to do: then a turn of the loop
    may take seconds, but not as long as HANGS_MS."""
    is_starved = _wants(one) and all(_wants(other) for other in facts.workers)
    return one.stuck and (one.beat_age_ms >= HANGS_MS or not is_starved)


def is_busy(one: Worker, facts: Facts) -> bool:
    """Its loop lags, and it runs, or wants to."""
    return _wants(one) and (one.stuck or one.lag_ms >= LAG_MS) and not is_stuck(one, facts)


def _wants(one: Worker) -> bool:
    return one.running + one.delayed >= BUSY
