"""Which endpoint gets how much: the gateway's own balancer under a fake clock, against endpoints that are simulated.

Discrete events, Poisson arrivals in open loop. An endpoint has slots; what finds them taken waits inside it, first come
first served. Deterministic: the same seed gives the same table.

    python -m benchmarks.sim_balance
"""

from __future__ import annotations

import heapq
import random
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from edgeq.config.base import Duration
from edgeq.config.schema import Eject
from edgeq.config.schema import Upstream as UpstreamConfig
from edgeq.upstream.member import Member
from edgeq.upstream.pool import Pool
from edgeq.upstream.upstream import Upstream
from edgeq.wire.h1_response import parse_response
from edgeq.worker.wheel import Wheel

OK = parse_response(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
ERROR = parse_response(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")
TICK_S = 0.1
BALANCES: Final = ("p2c-ewma", "least-requests", "round-robin")
NO_EJECTION: Final = Eject(failures=0, deviations=0.0)


@dataclass
class Endpoint:
    """`service_s` is the mean; `fails` the share of answers that are errors, which take `fail_s`."""

    service_s: float = 0.02
    slots: int = 16
    fails: float = 0.0
    fail_s: float = 0.001
    exponential: bool = False
    weight: float = 1.0
    pause_at: float = -1.0
    """The answer to the first request after this moment takes `pause_s`."""
    pause_s: float = 5.0
    busy: int = 0
    waiting: deque[float] = field(default_factory=deque)
    served: list[float] = field(default_factory=list)
    """When each request came."""
    took: list[float] = field(default_factory=list)


@dataclass
class Result:
    endpoints: list[Endpoint]
    latencies: list[float]

    def shares(self, begin: float = 0.0, end: float = 1e9) -> list[float]:
        """Each endpoint's part of the requests that came in this time."""
        counts = [sum(begin <= at < end for at in one.served) for one in self.endpoints]
        total = sum(counts) or 1
        return [count / total for count in counts]

    def quantile(self, part: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


def make_upstream(config: UpstreamConfig, weights: list[float], seed: int = 1) -> Upstream:
    """An upstream without connections: a pool's `opened` is set to what runs there."""
    upstream = Upstream("sim", Wheel(0.0, TICK_S, 16), seed)
    upstream.configure(config, 1)
    pools = [Pool(upstream, None, f"e{index}", None, None) for index in range(len(weights))]
    upstream.set_pools(pools, dict(zip(pools, weights, strict=True)), 0.0)
    return upstream


def simulate(
    endpoints: list[Endpoint], rate: float, duration_s: float, config: UpstreamConfig | None = None, seed: int = 1
) -> Result:
    """`rate` arrivals a second for so long."""
    rng = random.Random(seed)
    upstream = make_upstream(config or UpstreamConfig(endpoints=()), [one.weight for one in endpoints], seed)
    of_member: dict[Member, Endpoint] = dict(zip(upstream.members, endpoints, strict=True))
    events: list[tuple[float, int, str, Any]] = []
    number = 0
    result = Result(endpoints, [])

    def at(when: float, what: str, about: Any = None) -> None:
        nonlocal number
        number += 1
        heapq.heappush(events, (when, number, what, about))

    def begin(member: Member, arrived: float, now: float) -> None:
        one = of_member[member]
        one.busy += 1
        failed = rng.random() < one.fails
        took = rng.expovariate(1 / one.service_s) if one.exponential else one.service_s
        if failed:
            took = one.fail_s
        elif 0 <= one.pause_at <= now:
            took = one.pause_s
            one.pause_at = -1.0
        at(now + took, "end", (member, arrived, failed))

    at(rng.expovariate(rate), "arrival")
    at(TICK_S, "tick")
    while events:
        now, _, what, about = heapq.heappop(events)
        if what == "arrival":
            member = upstream.balancer.choose(b"", now)
            one = of_member[member]
            one.served.append(now)
            member.pool.opened += 1
            if one.busy < one.slots:
                begin(member, now, now)
            else:
                one.waiting.append(now)
            if now < duration_s:
                at(now + rng.expovariate(rate), "arrival")
        elif what == "end":
            member, arrived, failed = about
            one = of_member[member]
            one.busy -= 1
            member.pool.opened -= 1
            upstream.answered(member, ERROR if failed else OK, arrived, True, now)
            if not failed:
                result.latencies.append(now - arrived)
            if one.waiting:
                begin(member, one.waiting.popleft(), now)
        else:
            upstream.tick(now)
            if now < duration_s:
                at(now + TICK_S, "tick")
    return result


def main() -> int:
    def farm(odd: Endpoint, exponential: bool = False) -> list[Endpoint]:
        return [odd, *(Endpoint(exponential=exponential) for _ in range(3))]

    odd_ones: dict[str, Callable[[], Endpoint]] = {
        "like the others": Endpoint,
        "fails in 1 ms": lambda: Endpoint(fails=1.0),
        "fails in 1 ms, half of the time": lambda: Endpoint(fails=0.5),
        "one error in 1,000": lambda: Endpoint(fails=0.001),
        "ten times slower": lambda: Endpoint(service_s=0.2),
        "one answer takes 5 s": lambda: Endpoint(pause_at=2.0),
    }
    print("One of four endpoints of 16 slots x 20 ms is odd: its share of the requests in the first second, and in the")
    print("five after it; median and 99th percentile of good answers, ms. Without ejection.\n")
    print("| the odd one | balance | arrivals a second | first second | after | p50 | p99 |")
    print("|---|---|---|---|---|---|---|")
    for name, make in odd_ones.items():
        for balance in BALANCES:
            for rate in (200.0, 2000.0):
                config = UpstreamConfig(
                    endpoints=(),
                    balance=balance,
                    eject=NO_EJECTION,
                    slow_start=Duration(0),
                )
                result = simulate(farm(make()), rate, 6.0, config)
                first, later = result.shares(0, 1)[0], result.shares(1, 6)[0]
                p50, p99 = (1000 * result.quantile(part) for part in (0.5, 0.99))
                print(f"| {name} | {balance} | {rate:,.0f} | {first:.1%} | {later:.1%} | {p50:.0f} | {p99:.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
