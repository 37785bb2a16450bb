"""Learned limits under a fake clock: the code of edgeq.admission in front of a simulated upstream.

Usage: python -m benchmarks.sim_limits [--quick] [--seeds 3] [--first-seed 101] [--policies adaptive,aimd] [--slots 1,2]

Discrete events. Requests arrive in open loop (Poisson); clients leave after max(1 s, 4 x service time). In front a
bounded queue, first come first served until it has not been empty for an interval, then newest first. The upstream has
a fixed number of slots, queues without bound in order of arrival, and works on requests whose clients have gone, as
thread pools do; or it refuses what is beyond its slots (503). Printed is, for each policy and load (offered load over
capacity), the good answers as a share of what a limit that knows the slots achieves with the same arrivals, the median
latency of good answers in service times, and in brackets that of the limit that knows. Measured after a start of 100
service times, and of 3 s at least; the start itself, and a capacity that halves and returns, have tables of their own.
Deterministic: the same arguments print the same tables.
"""

from __future__ import annotations

import argparse
import heapq
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from edgeq.admission.adaptive import Adaptive
from edgeq.admission.bulkhead import ENOUGH, SILENT_S, UNHEARD_S, UNHEARD_TIMES
from edgeq.admission.limits import TIMES, Aimd, Fixed, Gradient2, Learner, Limit, Totals

QUEUE_MAX: Final = 256
HALF_WAIT_S: Final = SILENT_S
"""Of a queue's time-out of 1 s; see Bulkhead.starves."""
BIMODAL_RATIO: Final = 11.0
RARE_RATIO: Final = 160.0
SHAPES: Final = ("constant", "exponential", "bimodal")
LOADS: Final = (0.8, 2.0, 4.0)
SERVICE_S: Final = (0.001, 0.02, 0.5)


@dataclass(frozen=True, slots=True)
class Upstream:
    """`slots` at work at once, `service_s` on average; `shape`: constant, exponential, bimodal (90 % short ones), or
    rare (3 % take 160 times as long)."""

    slots: int
    service_s: float
    shape: str
    refuses: bool = False
    """Beyond its slots it answers 503 at once rather than to queue."""
    changes: tuple[tuple[float, int], ...] = ()
    """(instant, slots from then on)."""

    @property
    def deadline_s(self) -> float:
        """When a client leaves, after its arrival."""
        return max(1.0, 4 * self.service_s)

    @property
    def capacity(self) -> float:
        """Requests per second that it can answer."""
        return self.slots / self.service_s

    @property
    def name(self) -> str:
        """For a table."""
        return f"{self.slots} x {self.service_s * 1000:g} ms, {self.shape}" + (", refuses" if self.refuses else "")


def service_times(upstream: Upstream, rng: random.Random) -> Callable[[], float]:
    """Draws service times in seconds."""
    mean = upstream.service_s
    if upstream.shape == "constant":
        return lambda: mean
    if upstream.shape == "exponential":
        rate = 1 / mean
        return lambda: rng.expovariate(rate)
    if upstream.shape == "rare":
        usual = mean / (0.97 + 0.03 * RARE_RATIO)
        return lambda: usual if rng.random() < 0.97 else usual * RARE_RATIO
    short = mean / (0.9 + 0.1 * BIMODAL_RATIO)
    draw = rng.random
    return lambda: short if draw() < 0.9 else short * BIMODAL_RATIO


@dataclass(slots=True)
class Outcome:
    """What came of one run; counted from its warm instant on."""

    good: int = 0
    offered: int = 0
    refused: int = 0
    """Because the queue was full; the oldest may have gone in place of the newest."""
    latencies: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    """Instants of the good answers."""
    timeline: list[tuple[float, int]] = field(default_factory=list)
    """(instant, limit) at each change, from the very start."""

    @property
    def median_s(self) -> float:
        """Of the latencies of good answers; 0 if there are none."""
        ordered = sorted(self.latencies)
        return ordered[len(ordered) // 2] if ordered else 0.0

    def good_between(self, begin: float, end: float) -> int:
        """Good answers in an interval."""
        return sum(begin <= one < end for one in self.ends)

    def limit_share(self, begin: float, end: float, q: float) -> int:
        """The limit that was not passed for a share `q` of the time between two instants."""
        spans: list[tuple[int, float]] = []
        for i, (since, limit) in enumerate(self.timeline):
            until = self.timeline[i + 1][0] if i + 1 < len(self.timeline) else end
            length = min(until, end) - max(since, begin)
            if length > 0:
                spans.append((limit, length))
        left = q * (end - begin)
        for limit, length in sorted(spans):
            left -= length
            if left <= 1e-9:
                return limit
        return self.timeline[-1][1]


def simulate(
    upstream: Upstream,
    limit: Limit,
    rate: float,
    duration_s: float,
    *,
    warm_s: float = 0.0,
    seed: int = 1,
    tick_s: float = 0.05,
) -> Outcome:
    """Poisson arrivals at `rate` for `duration_s`; what arrives before `warm_s` is not counted."""
    arrivals = random.Random(seed)
    draw = service_times(upstream, random.Random(seed + 1))
    deadline_s = upstream.deadline_s
    interval_s = max(0.1, upstream.service_s)
    refusal_s = min(0.001, upstream.service_s / 20)
    outcome = Outcome()
    totals = Totals()
    learner = Learner(limit, 0.0, totals)
    allowed = limit.value
    outcome.timeline.append((0.0, allowed))
    free = [0.0] * upstream.slots
    slots = upstream.slots
    changes = deque(upstream.changes)
    done: list[tuple[float, float, float, int]] = []
    # (end, start, arrival, 1 good, 0 lost, or requests in flight at a refusal)
    queue: deque[float] = deque()  # instants of arrival
    last_empty = 0.0
    finished_at = -1.0
    in_flight = 0
    counted_at = 0.0
    next_arrival = arrivals.expovariate(rate)
    next_tick = tick_s
    push, pop = heapq.heappush, heapq.heappop
    latencies = outcome.latencies
    ends = outcome.ends
    gap = arrivals.expovariate
    refuses = upstream.refuses
    inf = float("inf")
    while True:
        end = done[0][0] if done else inf
        if end <= next_arrival and end <= next_tick:
            now = end
            span = now - counted_at
            totals.in_flight_s += span * in_flight
            bound = in_flight >= allowed
            if bound:
                totals.bound_s += span
            counted_at = now
            _, start, arrival, good = pop(done)
            in_flight -= 1
            finished_at = now
            if good > 1:
                totals.busy += 1
                totals.busy_beside += good
            elif good:
                totals.service_s += now - start
                if limit.is_starting and len(totals.times) < TIMES:
                    totals.times.append(now - start)
                totals.ok += 1
                if bound:
                    totals.bound_ok += 1
                if now >= warm_s:
                    outcome.good += 1
                    latencies.append(now - arrival)
                    ends.append(now)
            else:
                totals.dropped += 1
            if limit.is_starting and len(totals.times) >= ENOUGH:
                value = learner.tick(now, totals)
                if value != allowed:
                    allowed = value
                    outcome.timeline.append((now, value))
        elif next_arrival <= next_tick:
            now = next_arrival
            if now >= duration_s:
                break
            next_arrival = now + gap(rate)
            if now >= warm_s:
                outcome.offered += 1
            if in_flight >= allowed:
                # Nothing can be sent.
                if not queue:
                    last_empty = now
                while queue and queue[0] + deadline_s <= now:
                    queue.popleft()
                if len(queue) >= QUEUE_MAX:
                    outcome.refused += now >= warm_s
                    if now - last_empty > interval_s:
                        queue.popleft()
                        queue.append(now)
                else:
                    queue.append(now)
                continue
            span = now - counted_at
            totals.in_flight_s += span * in_flight
            counted_at = now
            if not queue:
                last_empty = now
            queue.append(now)
        else:
            now = next_tick
            next_tick = now + tick_s
            span = now - counted_at
            totals.in_flight_s += span * in_flight
            if in_flight >= allowed:
                totals.bound_s += span
            counted_at = now
            while changes and changes[0][0] <= now:
                _, new = changes.popleft()
                free.sort()
                if new < slots:
                    del free[new - slots :]
                else:
                    free.extend([now] * (new - slots))
                heapq.heapify(free)
                slots = new
            value = learner.tick(now, totals)
            if queue and limit.is_starting:
                silent_s = now - max(queue[0], finished_at)
                unheard_s = max(UNHEARD_S, UNHEARD_TIMES * totals.service_s / max(1, totals.ok))
                if silent_s > HALF_WAIT_S or (silent_s > unheard_s and len(queue) >= in_flight):
                    limit.nudge()
                    value = limit.value
            if value != allowed:
                allowed = value
                outcome.timeline.append((now, value))
        while in_flight < allowed and queue:
            if now - last_empty > interval_s:
                arrival = queue.pop()
            else:
                arrival = queue.popleft()
            if arrival + deadline_s <= now:
                if now - last_empty > interval_s:
                    queue.clear()
                if not queue:
                    last_empty = now
                continue
            if not queue:
                last_empty = now
            in_flight += 1
            at = free[0]
            if refuses and at > now:
                push(done, (now + refusal_s, now, arrival, max(2, in_flight)))
                continue
            if at < now:
                at = now
            at += draw()
            heapq.heapreplace(free, at)
            if at <= arrival + deadline_s:
                push(done, (at, now, arrival, 1))
            else:
                push(done, (arrival + deadline_s, now, arrival, 0))
    return outcome


POLICIES: Final[dict[str, Callable[[], Limit]]] = {
    "adaptive": Adaptive,
    "gradient2": lambda: Gradient2(maximum=1000),
    "aimd": lambda: Aimd(maximum=1000),
}
"""The defaults, but with room for 256 slots."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One policy at one upstream and load, against the limit that is known."""

    share: float
    """Good answers over those of the known limit."""
    least: float
    """The same for the worst seed."""
    median: float
    known_median: float
    """In service times."""
    known_share: float
    """Good answers of the known limit over min(offered, capacity)."""


def span_s(upstream: Upstream, quick: bool) -> tuple[float, float]:
    """(start that is not measured, measured time): so many services that the answer is more than noise."""
    service_s = upstream.service_s
    warm_s = max(3.0 if upstream.capacity < 50_000 else 0.7, 100 * service_s)
    answers = 4_000 if quick else 20_000
    services = 300 if upstream.slots >= 16 else 1000
    measured_s = max(services * service_s, min(60.0, answers / upstream.capacity), 0.5)
    return warm_s, measured_s


def measure(
    upstream: Upstream, make: Callable[[], Limit], load: float, seeds: Sequence[int], quick: bool = False
) -> Cell:
    """Run a policy and the known limit side by side, with the same arrivals."""
    warm_s, measured_s = span_s(upstream, quick)
    end_s = warm_s + measured_s
    tick_s = 0.05 if upstream.capacity < 50_000 else 0.01
    rate = load * upstream.capacity
    good = known_good = offered = 0
    least = 9.0
    medians: list[float] = []
    known_medians: list[float] = []
    for seed in seeds:
        known = simulate(upstream, Fixed(upstream.slots), rate, end_s, warm_s=warm_s, seed=seed, tick_s=tick_s)
        one = simulate(upstream, make(), rate, end_s, warm_s=warm_s, seed=seed, tick_s=tick_s)
        good += one.good
        known_good += known.good
        offered += known.offered
        least = min(least, one.good / max(1, known.good))
        medians.append(one.median_s / upstream.service_s)
        known_medians.append(known.median_s / upstream.service_s)
    could = min(float(offered), upstream.capacity * measured_s * len(seeds))
    return Cell(
        good / max(1, known_good),
        least,
        sorted(medians)[len(medians) // 2],
        sorted(known_medians)[len(known_medians) // 2],
        known_good / could,
    )


def seeds_for(upstream: Upstream, seeds: int, first: int) -> range:
    """More of them where a run has few requests."""
    few = upstream.capacity < 100
    return range(first, first + seeds * (4 if few and upstream.slots <= 2 else 2 if few else 1))


def table(upstreams: Sequence[Upstream], policies: Sequence[str], seeds: int, first: int, quick: bool) -> None:
    """Print a row for each upstream: per policy and load, share of the known limit's good answers and median."""
    loads = " / ".join(f"{load:g}x" for load in LOADS)
    print(f"| upstream | known, of capacity: {loads} | " + " | ".join(f"{one}: {loads}" for one in policies) + " |")
    print("|---|---|" + "---|" * len(policies))
    worst: dict[str, list[float]] = {one: [] for one in policies}
    for upstream in upstreams:
        columns: list[str] = []
        known = ""
        for policy in policies:
            cells = [
                measure(upstream, POLICIES[policy], load, seeds_for(upstream, seeds, first), quick) for load in LOADS
            ]
            worst[policy] += [cell.share for cell in cells]
            shares = " / ".join(f"**{c.share:.2f}**" if c.share < 0.975 else f"{c.share:.2f}" for c in cells)
            columns.append(f"{shares}; " + ", ".join(f"{c.median:.1f}" for c in cells))
            known = " / ".join(f"{c.known_share:.2f}" for c in cells)
            known += "; " + ", ".join(f"{c.known_median:.1f}" for c in cells)
        print(f"| {upstream.name} | {known} | " + " | ".join(columns) + " |", flush=True)
    for policy, shares_of in worst.items():
        enough = sum(share >= 0.98 for share in shares_of)
        mean = sum(shares_of) / len(shares_of)
        print(f"\n{policy}: mean {mean:.3f}, least {min(shares_of):.2f}, >= 0.98 in {enough} of {len(shares_of)} cells")


def changes_table(policies: Sequence[str], seeds: range) -> None:
    """Print how a capacity that halves at 20 s and returns at 40 s is followed: good answers and median limit."""
    phases = ((10, 20, 1.0), (20, 25, 0.5), (25, 40, 0.5), (40, 45, 1.0), (45, 50, 1.0), (50, 60, 1.0))
    print("| upstream, load | policy | " + " | ".join(f"{a}-{b} s" for a, b, _ in phases) + " |")
    print("|---|---|" + "---|" * len(phases))
    for slots, service_s in ((16, 0.02), (64, 0.01)):
        for shape in SHAPES:
            upstream = Upstream(slots, service_s, shape, changes=((20.0, slots // 2), (40.0, slots)))
            for load in (0.8, 4.0):
                for policy in policies:
                    runs = [
                        simulate(upstream, POLICIES[policy](), load * upstream.capacity, 60.0, seed=seed)
                        for seed in seeds
                    ]
                    columns = []
                    for begin, end, capacity in phases:
                        could = min(capacity, load) * upstream.capacity * (end - begin) * len(runs)
                        good = sum(run.good_between(begin, end) for run in runs)
                        limits = sorted(run.limit_share(begin, end, 0.5) for run in runs)
                        columns.append(f"{good / could:.2f}, {limits[len(limits) // 2]}")
                    print(f"| {upstream.name}, {load:g}x | {policy} | " + " | ".join(columns) + " |", flush=True)


def start_table(seeds: range) -> None:
    """Print how long after a start the limit reaches 0.9 of the slots, and the good answers meanwhile."""
    print("| upstream at 2x | seconds until 0.9 of the slots, each seed | good answers of capacity, first 5 s / 20 s |")
    print("|---|---|---|")
    for slots, service_s in ((1, 0.5), (2, 0.5), (16, 0.02), (16, 0.5), (256, 0.02), (256, 0.5)):
        for shape in SHAPES:
            upstream = Upstream(slots, service_s, shape)
            rate = 2 * upstream.capacity
            runs = [simulate(upstream, Adaptive(), rate, 20.0, seed=seed) for seed in seeds]
            reached = [next((at for at, limit in run.timeline if limit >= 0.9 * slots), None) for run in runs]
            shares = [
                sum(run.good_between(0, end) for run in runs) / (upstream.capacity * end * len(runs)) for end in (5, 20)
            ]
            instants = ", ".join("-" if one is None else f"{one:.1f}" for one in reached)
            print(f"| {upstream.name} | {instants} | {shares[0]:.2f} / {shares[1]:.2f} |", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer answers for each cell, and no 256 slots")
    parser.add_argument("--seeds", type=int, default=1, help="runs of a cell; up to four times as many for slow ones")
    parser.add_argument("--first-seed", type=int, default=101, help="1 to 10 were used to choose the constants")
    parser.add_argument("--policies", default=",".join(POLICIES), help="of " + ", ".join(POLICIES))
    parser.add_argument("--slots", default="", help="1,2,16,256")
    options = parser.parse_args(arguments)
    policies = options.policies.split(",")
    slots = [int(one) for one in (options.slots or ("1,2,16" if options.quick else "1,2,16,256")).split(",")]
    print("## Good answers over those of the known limit; medians in service times\n")
    upstreams = [Upstream(n, service_s, shape) for n in slots for service_s in SERVICE_S for shape in SHAPES]
    table(upstreams, policies, options.seeds, options.first_seed, options.quick)
    print("\n## The same where the upstream refuses beyond its slots\n")
    table(
        [Upstream(n, service_s, "exponential", refuses=True) for n in (1, 2, 16) for service_s in (0.02, 0.2)],
        policies,
        options.seeds,
        options.first_seed,
        options.quick,
    )
    print("\n## Capacity halves at 20 s and returns at 40 s: good answers of what is possible, median limit\n")
    changes_table(policies, range(options.first_seed, options.first_seed + 3))
    print("\n## A cold start\n")
    start_table(range(options.first_seed, options.first_seed + 3))


if __name__ == "__main__":
    main()
