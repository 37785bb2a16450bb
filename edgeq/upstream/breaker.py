"""The circuit breaker of one upstream: when most of its answers are failures, do not ask for a while.

::

    CLOSED --at least min_requests in the window, and so many of them failed--> OPEN
    OPEN --its time is over--> HALF_OPEN
    HALF_OPEN --`probes` good answers--> CLOSED
        |
        +--a failure--> OPEN, twice as long as before (at most `MAX_LONGER` times as long as at first)
    any --all endpoints are others, by a reload--> CLOSED

Decides whether a request may go to the upstream at all. Invariants: in HALF_OPEN a worker lets through at most `probes`
requests in each `open` time, whatever becomes of them (a probe whose client leaves, or that is refused further on,
tells nothing, and must not keep the breaker half-open for ever); answers to requests that began before the last
transition are not taken for those of probes; "busy" answers count as neither good nor bad.

A transition of any worker is taken over by the others (`shared.CIRCUIT`). They count on their own: a failure rate that
opens one worker's breaker is seen by each in its share of the traffic.

Sources: Nygard, Release It!; resilience4j (half-open probes, minimum number of calls); Hystrix (20 requests in 10 s,
50 %).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeq.upstream.shared import CIRCUIT, stamp, stamped_at, stamped_value

if TYPE_CHECKING:
    from edgeq.config.schema import Breaker as BreakerConfig
    from edgeq.upstream.shared import SharedCells

CLOSED: Final = 0
OPEN: Final = 1
HALF_OPEN: Final = 2
NAMES: Final = ("closed", "open", "half-open")
MAX_LONGER: Final = 10
_BUCKETS: Final = 10
_MAX_TIMES: Final = 63


class Breaker:
    """One upstream's breaker. Times are monotonic seconds."""

    __slots__ = (
        "_adopted",
        "_bucket_s",
        "_cells",
        "_failed",
        "_good",
        "_good_probes",
        "_min_requests",
        "_open_s",
        "_position",
        "_probes",
        "_probes_left",
        "_probes_until",
        "_rate",
        "_times",
        "changed_at",
        "refused",
        "state",
    )

    def __init__(self, config: BreakerConfig, cells: SharedCells, now: float) -> None:
        self._cells: SharedCells = cells
        self.state: int = CLOSED
        self.changed_at: float = now
        self.refused: int = 0
        self._times: int = 0
        """How often it has opened since it was last closed."""
        self._adopted: int = 0
        self._good: list[int] = [0] * _BUCKETS
        self._failed: list[int] = [0] * _BUCKETS
        self._position: int = 0
        self._probes_left: int = 0
        self._probes_until: float = 0.0
        self._good_probes: int = 0
        self.configure(config)
        self.adopt()

    def configure(self, config: BreakerConfig) -> None:
        """Take over other numbers; the state stays."""
        self._rate: float = config.failures
        self._min_requests: int = config.min_requests
        self._bucket_s: float = float(config.window) / _BUCKETS
        self._open_s: float = float(config.open)
        self._probes: int = config.probes

    def begin(self, now: float) -> bool:
        """Others are asked from now on: what was learned is not of these. Returns: whether the state has changed."""
        if self.state == CLOSED:
            return False
        self._become(CLOSED, now)
        return True

    def admit(self, now: float) -> bool:
        """May a request begin?"""
        if self.state == CLOSED:
            return True
        if self.state == OPEN:
            if now < self.changed_at + self._length():
                self.refused += 1
                return False
            self._become(HALF_OPEN, now)
        if now >= self._probes_until:
            self._probes_left = self._probes
            self._probes_until = now + self._open_s
        if self._probes_left <= 0:
            self.refused += 1
            return False
        self._probes_left -= 1
        return True

    def is_shut(self, now: float) -> bool:
        """Would `admit` say no? Takes nobody's turn as a probe: that is for who is sent."""
        if self.state == OPEN:
            return now < self.changed_at + self._length()
        return self.state == HALF_OPEN and self._probes_left <= 0 and now < self._probes_until

    def succeeded(self, begun_at: float, now: float) -> bool:
        """A good answer to a request that was sent at `begun_at`. Returns: whether the state has changed by that."""
        if self.state == CLOSED:
            self._good[self._turn(now)] += 1
        elif self.state == HALF_OPEN and begun_at >= self.changed_at:
            self._good_probes += 1
            if self._good_probes >= self._probes:
                self._become(CLOSED, now)
                return True
        return False

    def failed(self, begun_at: float, now: float) -> bool:
        """A failure of a request that was sent at `begun_at`. Returns: whether the state has changed by that."""
        if self.state == CLOSED:
            self._failed[self._turn(now)] += 1
            failed = sum(self._failed)
            total = failed + sum(self._good)
            if total >= self._min_requests and failed >= self._rate * total:
                self._become(OPEN, now)
                return True
        elif self.state == HALF_OPEN and begun_at >= self.changed_at:
            self._become(OPEN, now)
            return True
        return False

    def adopt(self) -> bool:
        """Take over the newest transition of any worker. Returns: whether the state has changed by that: who has closed
        it himself meanwhile has no news in another's doing so."""
        change = self._cells.newest(CIRCUIT)
        if change <= self._adopted:
            return False
        before = self.state
        value = stamped_value(change)
        self._enter(value & 3, value >> 2, stamped_at(change))
        self._adopted = change
        self._cells.put(CIRCUIT, change)
        return self.state != before

    def retry_after_s(self, now: float) -> float:
        """When it is worth to ask again."""
        if self.state == OPEN:
            return max(0.0, self.changed_at + self._length() - now)
        if self.state == HALF_OPEN and self._probes_left <= 0:
            return max(0.0, self._probes_until - now)
        return 0.0

    def _length(self) -> float:
        """How long it stays open this time."""
        longer: int = 1 << min(self._times - 1, 8) if self._times > 1 else 1
        return self._open_s * min(longer, MAX_LONGER)

    def _become(self, state: int, now: float) -> None:
        times = self._times
        if state == OPEN:
            times = min(times + 1, _MAX_TIMES)
        elif state == CLOSED:
            times = 0
        self._enter(state, times, now)
        self._adopted = stamp(now, times << 2 | state)
        self._cells.put(CIRCUIT, self._adopted)

    def _enter(self, state: int, times: int, at: float) -> None:
        self.state = state
        self.changed_at = at
        self._times = times
        self._good_probes = 0
        self._probes_left = 0
        self._probes_until = 0.0
        for index in range(_BUCKETS):
            self._good[index] = 0
            self._failed[index] = 0

    def _turn(self, now: float) -> int:
        """The bucket of this moment; those that have become too old are emptied."""
        position = int(now / self._bucket_s)
        steps = position - self._position
        if steps > 0:
            for step in range(min(steps, _BUCKETS)):
                index = (position - step) % _BUCKETS
                self._good[index] = 0
                self._failed[index] = 0
            self._position = position
        return self._position % _BUCKETS

    def snapshot(self, now: float) -> dict[str, int | float | str]:
        """What it does and why."""
        return {
            "state": NAMES[self.state],
            "since_s": now - self.changed_at,
            "times": self._times,
            "good": sum(self._good),
            "failed": sum(self._failed),
            "refused": self.refused,
            "retry_after_s": self.retry_after_s(now),
        }
