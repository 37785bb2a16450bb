"""What the other workers have sent to one upstream: what a limit of the machine is learned from, besides one's own.

Each worker counts for itself and tells the board on its tick. The worker that learns for all adds here, on its tick,
what the others' counters have grown by. Sums, but for the time in which the limit was reached: that is the mean of the
workers' times, each weighted by the requests that it has had in flight lately, since one that sends little notices
late. Growth is counted by slot, not the machine's sums: these are in motion while a dead worker is buried.

While nobody else is there the own totals stay what they are.
"""

from __future__ import annotations

from typing import Final

from edgeq.admission.limits import TIMES, Totals
from edgeq.board.resources import (
    BOUND_OK,
    BOUND_US,
    BUSY,
    BUSY_BESIDE,
    DROPPED,
    IGNORED,
    IN_FLIGHT_US,
    OK,
    SERVICE_US,
    MachineWide,
)

_KEPT: Final = 0.9
"""Share of a worker's weight that is left on the next tick: lately is half a second."""


class Elsewhere:
    """Of one resource, from now on. Times are monotonic seconds."""

    __slots__ = ("_grown", "_own", "_seen", "_shared", "_shift_s", "_weight", "_weights", "finished_at")

    def __init__(self, shared: MachineWide) -> None:
        self._shared: MachineWide = shared
        self.finished_at: float = 0.0
        """When a place has come free there, as far as it is known; 0.0: never."""
        self._seen: dict[int, list[int]] = {}
        """The counters of each slot at the last look."""
        self._grown: list[int] = [0] * len(shared.counters_of(0))
        """By how much those of all slots have grown."""
        self._own: Totals = Totals()
        """The own ones at the last look."""
        self._weight: float = 0.0
        self._weights: dict[int, float] = {}
        self._shift_s: float = 0.0
        """What the mean of `bound_s` differs by from the own one."""

    def add_to(self, totals: Totals, now: float) -> None:
        """Make the own totals the machine's; to be called on each tick."""
        own = self._own
        own_bound_s = totals.bound_s - own.bound_s
        is_idle = totals.ok == own.ok
        own.ok = totals.ok
        self._weight = _KEPT * self._weight + totals.in_flight_s - own.in_flight_s
        own.bound_s = totals.bound_s
        own.in_flight_s = totals.in_flight_s
        weights = self._weight
        weighted_s = self._weight * own_bound_s
        for slot in self._shared.others():
            grown = self._growth(slot)
            if grown[OK] or grown[DROPPED] or grown[IGNORED]:
                self.finished_at = now
            # Single answers are known of this worker alone; where it has none, means tell how long they take.
            if is_idle and grown[OK] and len(totals.times) < TIMES:
                totals.times.append(grown[SERVICE_US] / 1e6 / grown[OK])
            weight = _KEPT * self._weights.get(slot, 0.0) + grown[IN_FLIGHT_US] / 1e6
            self._weights[slot] = weight
            weights += weight
            weighted_s += weight * grown[BOUND_US] / 1e6
        if weights > self._weight:
            self._shift_s += weighted_s / weights - own_bound_s
        grown = self._grown
        totals.ok += grown[OK]
        totals.dropped += grown[DROPPED] - grown[BUSY]
        totals.busy += grown[BUSY]
        totals.busy_beside += grown[BUSY_BESIDE]
        totals.service_s += grown[SERVICE_US] / 1e6
        totals.in_flight_s += grown[IN_FLIGHT_US] / 1e6
        totals.bound_s += self._shift_s
        totals.bound_ok += grown[BOUND_OK]

    def _growth(self, slot: int) -> list[int]:
        """By how much a slot's counters have grown since the last look; of a new worker's, that is all of them."""
        counters = self._shared.counters_of(slot)
        before = self._seen.get(slot, counters)
        self._seen[slot] = counters
        grown = [count - was if count >= was else count for count, was in zip(counters, before, strict=True)]
        for counter, count in enumerate(grown):
            self._grown[counter] += count
        return grown
