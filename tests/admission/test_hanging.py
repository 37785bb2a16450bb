"""A path that hangs beside healthy ones, before a limit that is learned: nobody notices it.

Simulated, with a fake clock: 400 requests a second for an upstream of 16 slots x 20 ms, half of what it can do; then
100 a second come that take no slot and are never answered, until their clients give up after two seconds.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from random import Random
from typing import Final

import pytest

from edgeq.admission.ticket import IGNORED, OK, CallbackTicket
from edgeq.config.schema import Upstream as UpstreamConfig
from edgeq.upstream.upstream import Upstream
from edgeq.worker.wheel import Wheel
from tests.support.fake_transport import CLOCK, frozen_time

SLOTS: Final = 16
SERVICE_S: Final = 0.02
TICK_S: Final = 0.1
PATIENCE_S: Final = 2.0
HANG_FROM_S: Final = 8.0
END_S: Final = 14.0


@pytest.fixture(autouse=True)
def _time_stands_still() -> Iterator[None]:
    with frozen_time():
        yield


class Simulation:
    """Discrete events: times are seconds from the start."""

    def __init__(self, seed: int) -> None:
        self.now = CLOCK.now_s
        self.began_at = self.now
        self.upstream = Upstream("u", Wheel(0.0, TICK_S, 64))
        self.upstream.configure(UpstreamConfig(endpoints=()), 1)
        self.took: list[tuple[float, float]] = []
        """Of the healthy ones, when each came and what it took until its answer."""
        self.refused: list[str] = []
        self._random = Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._busy = 0
        self._inside: deque[Callable[[], None]] = deque()

    def at(self, seconds: float, call: Callable[[], None]) -> None:
        """Let something happen so long from now."""
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), call))

    def run(self) -> None:
        self.at(TICK_S, self._tick)
        self.at(0.0, lambda: self._arrive(400.0, False))
        self.at(HANG_FROM_S, lambda: self._arrive(100.0, True))
        while self._events and self._events[0][0] < self.began_at + END_S:
            self.now, _, call = heapq.heappop(self._events)
            call()

    def _tick(self) -> None:
        self.upstream.learn(self.now)
        self.at(TICK_S, self._tick)

    def _arrive(self, rate: float, hangs: bool) -> None:
        self.at(self._random.expovariate(rate), lambda: self._arrive(rate, hangs))
        came_at = self.now

        def begin(*_: object) -> None:
            if hangs:
                self.at(PATIENCE_S, lambda: ticket.release(self.now, IGNORED))
            elif self._busy < SLOTS:
                self._work(end)
            else:
                self._inside.append(end)

        def end() -> None:
            self.took.append((came_at - self.began_at, self.now - came_at))
            ticket.release(self.now, OK)

        ticket = CallbackTicket(came_at, begin, lambda _, reason, *rest: self.refused.append(reason))
        if self.upstream.bulkhead.try_acquire(ticket, came_at):
            begin()
        else:
            self.upstream.bulkhead.offer(ticket, came_at)

    def _work(self, end: Callable[[], None]) -> None:
        self._busy += 1
        self.at(SERVICE_S, lambda: self._worked(end))

    def _worked(self, end: Callable[[], None]) -> None:
        self._busy -= 1
        if self._inside:  # before whoever is let in for the one that ends here
            self._work(self._inside.popleft())
        end()

    def p99_s(self, begin: float, end: float) -> float:
        """Of the healthy ones that came in this time."""
        ordered = sorted(took_s for came_at, took_s in self.took if begin <= came_at < end)
        return ordered[len(ordered) * 99 // 100]


@pytest.mark.parametrize("seed", range(5))
def test_a_path_that_hangs_costs_the_others_nothing(seed: int) -> None:
    """Their 99th percentile hardly moves, and none of them is refused, from the first one that hangs on."""
    simulation = Simulation(seed)
    simulation.run()
    alone_s = simulation.p99_s(3.0, HANG_FROM_S)
    assert simulation.refused == []
    assert alone_s < 1.15 * SERVICE_S
    assert simulation.p99_s(HANG_FROM_S, END_S - 1.0) < 1.5 * alone_s
