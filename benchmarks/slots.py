"""An upstream with a fixed number of slots, as a thread pool has them: first come, first served, without a bound.

It works on every request that it has taken, also when nobody waits for the answer any more: that is what makes an
overload last. Pure and exact: a slot that becomes free at t takes its next job at t, not when a timer noticed it, so a
late timer delays answers but costs no capacity.
Invariant: a job waits only while all slots are taken.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Job = TypeVar("Job")
Shape = Literal["constant", "exponential", "bimodal"]
BIMODAL_SHORT, BIMODAL_LONG, BIMODAL_LONG_SHARE = 0.5, 5.5, 0.1
"""90 % take half of the mean, 10 % take eleven times as long as those."""

BUCKETS_PER_S = 10
"""An upstream counts its arrivals by tenths of a second."""


@dataclass(frozen=True, slots=True)
class Service:
    """How many requests are worked on at once, and for how long each."""

    slots: int
    mean_s: float
    shape: Shape = "constant"

    @property
    def capacity(self) -> float:
        """Requests per second."""
        return self.slots / self.mean_s

    @property
    def title(self) -> str:
        return f"{self.slots} x {self.mean_s * 1000:g} ms {self.shape}"


def service_time(service: Service, chance: random.Random) -> float:
    """Seconds for one request."""
    if service.shape == "exponential":
        return chance.expovariate(1 / service.mean_s)
    if service.shape == "bimodal":
        is_long = chance.random() < BIMODAL_LONG_SHARE
        return service.mean_s * (BIMODAL_LONG if is_long else BIMODAL_SHORT)
    return service.mean_s


class Slots(Generic[Job]):
    """The queue and the slots. Times are seconds of one clock; `seconds` gives the duration of the next job."""

    __slots__ = ("_busy", "_order", "_seconds", "_waiting", "slots")

    def __init__(self, slots: int, seconds: Callable[[], float]) -> None:
        self.slots = slots
        """May be changed at any time; call `finished` right after."""
        self._seconds = seconds
        self._busy: list[tuple[float, int, Job]] = []
        self._waiting: deque[Job] = deque()
        self._order = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def next_end(self) -> float | None:
        """When the next job ends; None: idle."""
        return self._busy[0][0] if self._busy else None

    def arrive(self, job: Job, now: float) -> None:
        """Take a job. What has ended by now must have been fetched with `finished` before."""
        if len(self._busy) < self.slots:
            self._start(job, now)
        else:
            self._waiting.append(job)

    def finished(self, now: float) -> list[tuple[float, Job]]:
        """The jobs that ended by now, with the instant of each, in order; their slots went to those who wait."""
        ended: list[tuple[float, Job]] = []
        while self._busy and self._busy[0][0] <= now:
            end, _, job = heapq.heappop(self._busy)
            ended.append((end, job))
            # One slot became free, at `end`; none if there are fewer than before.
            if self._waiting and len(self._busy) < self.slots:
                self._start(self._waiting.popleft(), end)
        # More slots than before: those that are new begin now.
        while self._waiting and len(self._busy) < self.slots:
            self._start(self._waiting.popleft(), now)
        return ended

    def _start(self, job: Job, now: float) -> None:
        self._order += 1
        heapq.heappush(self._busy, (now + self._seconds(), self._order, job))
