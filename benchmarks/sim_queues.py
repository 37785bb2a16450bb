"""The queues of edgeq under a fake clock: what is answered in time when too much arrives.

    python -m benchmarks.sim_queues [--seconds 20] [--seeds 3] [--only WORD]

Discrete events drive the very code of edgeq.admission. Arrivals are Poisson in open loop; a client leaves after its
deadline, which the gateway does not know, except in the rows that say so; the upstream has a fixed number of slots,
works first in, first out, and goes on working for clients that have left, as a thread pool does. The limit is known: it
is the number of slots. Prints a Markdown table; 1.000 is what the upstream could do with the service times drawn.
"""

from __future__ import annotations

import argparse
import heapq
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random

from benchmarks.slots import Service, service_time
from edgeq.admission.bulkhead import Bulkhead
from edgeq.admission.room import Room
from edgeq.admission.ticket import IGNORED, OK, CallbackTicket

TICK_S = 0.1
BELL_S = 0.0001
"""How long it takes a worker to hear that a place is left to it."""


def deadline_s(service: Service) -> float:
    """When its clients leave."""
    return max(1.0, 4.0 * service.mean_s)


@dataclass(frozen=True, slots=True)
class Policy:
    """The queue."""

    name: str
    discipline: str = "adaptive"
    max_queued: int = 256
    max_wait_s: float = 1.0


ADAPTIVE = Policy("adaptive (default)")
POLICIES = (
    Policy("fifo 1024, 60 s", "fifo", 1024, 60.0),
    Policy("fifo 1024, 1 s", "fifo", 1024),
    Policy("fifo 32, 1 s", "fifo", 32),
    Policy("lifo 256, 1 s", "lifo"),
    ADAPTIVE,
)


@dataclass(frozen=True, slots=True)
class Load:
    """Arrivals of one tenant. `burst`: from, to, factor of the rate."""

    tenant: bytes
    rate: float
    burst: tuple[float, float, float] = (0.0, 0.0, 1.0)
    priority: int = 1
    is_deadline_known: bool = False


@dataclass(slots=True)
class Tally:
    """What became of one tenant's requests; times in seconds."""

    offered: int = 0
    good: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    late: int = 0
    """Clients that have left."""
    reasons: Counter[str] = field(default_factory=Counter)
    bad_at: list[float] = field(default_factory=list)
    """Arrivals of those that were not answered in time."""
    capacity: float = 0.0
    """What the upstream could do in the time, for all tenants together, with the service times drawn."""

    def share(self, of: float) -> float:
        """Answered in time, as a part of `of` requests."""
        return len(self.good) / of


def quantile(values: list[float], share: float) -> float:
    """Of unsorted values; 0.0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


class Simulation:
    """One upstream behind the bulkheads of one or more workers; each arrival comes to any of them."""

    def __init__(self, shape: Service, policy: Policy, seed: int, workers: int = 1) -> None:
        self.shape = shape
        self.random = Random(seed)
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.sequence = 0
        room = Room()
        self.bulkheads: list[Bulkhead] = []
        for number in range(workers):
            share = room.join(partial(self._ring, number)) if workers > 1 else None
            bulkhead = Bulkhead("upstream/sim", shape.slots, 0.0, share, seed + number)
            bulkhead.configure(policy.discipline, policy.max_queued, 1 << 30, policy.max_wait_s, workers)
            self.bulkheads.append(bulkhead)
        self.worker = Random(seed)
        self.free = shape.slots
        self.drawn_s = 0.0
        self.drawn = 0
        self.inside: deque[Request] = deque()
        """Requests that wait inside of the upstream."""

    def at(self, time: float, call: Callable[[], None]) -> None:
        """Let something happen."""
        self.sequence += 1
        heapq.heappush(self.events, (time, self.sequence, call))

    def run(self, loads: list[Load], seconds: float) -> dict[bytes, Tally]:
        """Offer the loads for so long, then let everything end."""
        tallies = {load.tenant: Tally() for load in loads}
        for load in loads:
            self._arrive_next(load, tallies[load.tenant], seconds)
        self.at(TICK_S, lambda: self._tick(seconds + deadline_s(self.shape) + 1.0))
        while self.events:
            self.now, _, call = heapq.heappop(self.events)
            call()
        for bulkhead in self.bulkheads:
            assert bulkhead.in_flight == 0
            assert bulkhead.queue.queued == 0
        for tally in tallies.values():
            tally.capacity = self.shape.slots * seconds * self.drawn / self.drawn_s
        return tallies

    def _ring(self, number: int) -> None:
        self.at(self.now + BELL_S, lambda: self.bulkheads[number].dispatch(self.now))

    def _tick(self, end: float) -> None:
        for bulkhead in self.bulkheads:
            bulkhead.tick(self.now)
        if self.now < end:
            self.at(self.now + TICK_S, lambda: self._tick(end))

    def _arrive_next(self, load: Load, tally: Tally, end: float) -> None:
        begin, until, factor = load.burst
        rate = load.rate * (factor if begin <= self.now < until else 1.0)
        time = self.now + self.random.expovariate(rate)
        if time < end:
            self.at(time, lambda: self._arrive(load, tally, end))

    def _arrive(self, load: Load, tally: Tally, end: float) -> None:
        self._arrive_next(load, tally, end)
        tally.offered += 1
        request = Request(self, load, tally)
        bulkhead = self.worker.choice(self.bulkheads)
        if bulkhead.try_acquire(request.ticket, self.now):
            self.work(request)
        else:
            bulkhead.offer(request.ticket, self.now)
        if not request.ended:
            self.at(self.now + deadline_s(self.shape), request.leave)

    def work(self, request: Request) -> None:
        """The upstream gets a request."""
        if self.free:
            self.free -= 1
            service_s = service_time(self.shape, self.random)
            self.drawn_s += service_s
            self.drawn += 1
            self.at(self.now + service_s, lambda: self._worked(request))
        else:
            self.inside.append(request)

    def _worked(self, request: Request) -> None:
        request.answer()
        self.free += 1
        if self.inside and self.free:
            self.work(self.inside.popleft())


class Request:
    """One request and its client."""

    __slots__ = ("arrived_at", "ended", "simulation", "tally", "ticket")

    def __init__(self, simulation: Simulation, load: Load, tally: Tally) -> None:
        self.simulation = simulation
        self.tally = tally
        self.arrived_at = simulation.now
        self.ended = False
        ticket = CallbackTicket(simulation.now, self.granted, self.refused)
        ticket.tenant = load.tenant
        ticket.priority = load.priority
        if load.is_deadline_known:
            ticket.deadline_at = simulation.now + deadline_s(simulation.shape)
        self.ticket = ticket

    def granted(self, ticket: CallbackTicket, now: float) -> None:
        """It has waited."""
        self.simulation.work(self)

    def refused(self, ticket: CallbackTicket, reason: str, resource: str, detail: str, retry_after_s: int) -> None:
        """It is turned away."""
        self.ended = True
        self.tally.refused.append(self.simulation.now - self.arrived_at)
        self.tally.reasons[reason] += 1
        self.tally.bad_at.append(self.arrived_at)

    def answer(self) -> None:
        """The upstream has done it."""
        if not self.ended:
            self.ended = True
            now = self.simulation.now
            self.tally.good.append(now - self.arrived_at)
            self.ticket.release(now, OK)

    def leave(self) -> None:
        """The client has waited enough."""
        if not self.ended:
            self.ended = True
            self.tally.late += 1
            self.tally.bad_at.append(self.arrived_at)
            if self.ticket.waits_in is not None:
                self.ticket.waits_in.cancel(self.ticket, self.simulation.now)
            self.ticket.release(self.simulation.now, IGNORED)


def run(shape: Service, policy: Policy, loads: list[Load], seconds: float, seed: int) -> dict[bytes, Tally]:
    """One simulation."""
    return Simulation(shape, policy, seed).run(loads, seconds)


def merged(shape: Service, policy: Policy, loads: list[Load], seconds: float, seeds: int) -> dict[bytes, Tally]:
    """Several seeds, added up."""
    total = {load.tenant: Tally() for load in loads}
    for seed in range(seeds):
        for tenant, tally in run(shape, policy, loads, seconds, seed).items():
            sums = total[tenant]
            sums.offered += tally.offered
            sums.good += tally.good
            sums.refused += tally.refused
            sums.late += tally.late
            sums.reasons += tally.reasons
            sums.bad_at += tally.bad_at
            sums.capacity += tally.capacity
    return total


HEADER = (
    "| upstream | queue | load | answered in time | median of good, ms | p99 of good, ms "
    "| refused | p99 of refusals, ms | left | reasons |\n|---|---|---|---|---|---|---|---|---|---|"
)


def row(shape: Service, policy: Policy, load: str, tally: Tally, of: float) -> str:
    """One line of the table. `of`: how many could have been answered."""
    reasons = ", ".join(f"{name} {count / tally.offered:.2%}" for name, count in tally.reasons.most_common(3))
    cells = (
        shape.title,
        policy.name,
        load,
        f"{tally.share(of):.3f}",
        f"{quantile(tally.good, 0.5) * 1000:.0f}",
        f"{quantile(tally.good, 0.99) * 1000:.0f}",
        f"{len(tally.refused) / tally.offered:.2%}",
        f"{quantile(tally.refused, 0.99) * 1000:.0f}",
        str(tally.late),
        reasons,
    )
    return f"| {' | '.join(cells)} |"


def steady(shape: Service, policy: Policy, factor: float, seconds: float, seeds: int, is_deadline_known: bool) -> str:
    """A load of `factor` times the capacity."""
    load = Load(b"", shape.capacity * factor, is_deadline_known=is_deadline_known)
    tally = merged(shape, policy, [load], seconds, seeds)[b""]
    name = f"{factor:g}x" + (", deadline known" if is_deadline_known else "")
    return row(shape, policy, name, tally, min(tally.offered, tally.capacity))


def recovery(shape: Service, policy: Policy, seeds: int) -> str:
    """0.8 of the capacity, five times of that for three seconds: how long until all are answered again?"""
    end = 8.0
    load = Load(b"", shape.capacity * 0.8, (5.0, end, 5.0))
    worst = 0.0
    total = Tally()
    for seed in range(seeds):
        tally = run(shape, policy, [load], 15.0, seed)[b""]
        worst = max([worst] + [time - end for time in tally.bad_at])
        total.offered += tally.offered
        total.good += tally.good
        total.refused += tally.refused
        total.late += tally.late
        total.reasons += tally.reasons
    could = shape.capacity * seeds * (0.8 * 12.0 + 3.0)
    return row(shape, policy, f"0.8x, burst of 5x for 3 s: all well after {worst:.2f} s", total, could)


def neighbours(shape: Service, policy: Policy, seconds: float, seeds: int) -> list[str]:
    """A polite tenant of a tenth of the capacity beside a noisy one of three times the capacity."""
    loads = [Load(b"polite", shape.capacity * 0.1), Load(b"noisy", shape.capacity * 3.0)]
    tallies = merged(shape, policy, loads, seconds, seeds)
    rest = tallies[b"noisy"].capacity - tallies[b"polite"].offered
    return [
        row(shape, policy, "polite 0.1x beside noisy 3x", tallies[b"polite"], tallies[b"polite"].offered),
        row(shape, policy, "noisy 3x beside polite 0.1x", tallies[b"noisy"], rest),
    ]


def classes(shape: Service, policy: Policy, seconds: float, seeds: int) -> list[str]:
    """Critical 0.5x and default 0.4x beside sheddable 3x."""
    loads = [
        Load(b"critical", shape.capacity * 0.5, priority=0),
        Load(b"default", shape.capacity * 0.4, priority=1),
        Load(b"sheddable", shape.capacity * 3.0, priority=2),
    ]
    tallies = merged(shape, policy, loads, seconds, seeds)
    left = tallies[b"critical"].capacity
    rows = []
    for load in loads:
        tally = tallies[load.tenant]
        of = min(tally.offered, left)
        rows.append(row(shape, policy, load.tenant.decode(), tally, of))
        left -= of
    return rows


SHAPES = (
    Service(16, 0.020),
    Service(16, 0.020, "exponential"),
    Service(16, 0.020, "bimodal"),
    Service(16, 0.001),
    Service(16, 0.500, "exponential"),
    Service(4, 0.050, "exponential"),
    Service(2, 0.500, "exponential"),
    Service(1, 0.200),
    Service(256, 0.020, "exponential"),
)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", default="", help="only upstreams whose name contains this")
    args = parser.parse_args()
    seconds, seeds = args.seconds, args.seeds
    print(HEADER)
    for shape in SHAPES:
        if args.only not in shape.title:
            continue
        # As many requests as twenty seconds of the first shape have, in no less than these seconds.
        span = max(min(seconds, seconds * 800.0 / shape.capacity), 2.0)
        if shape.capacity < 100:
            span = seconds * 3.0
        for factor in (0.8, 1.0, 1.2, 2.0, 4.0):
            print(steady(shape, ADAPTIVE, factor, span, seeds, False), flush=True)
        print(steady(shape, ADAPTIVE, 2.0, span, seeds, True), flush=True)
        print(recovery(shape, ADAPTIVE, seeds), flush=True)
        for line in neighbours(shape, ADAPTIVE, span, seeds):
            print(line, flush=True)
    shape = SHAPES[1]
    if args.only in shape.title:
        for line in classes(shape, ADAPTIVE, seconds, seeds):
            print(line)
        for policy in POLICIES[:-1]:
            for factor in (0.8, 2.0, 4.0):
                print(steady(shape, policy, factor, seconds, seeds, False), flush=True)
            print(recovery(shape, policy, seeds), flush=True)


if __name__ == "__main__":
    main()
