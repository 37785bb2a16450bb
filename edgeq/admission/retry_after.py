"""When it is worth coming back: Retry-After for what was shed.

As Kubernetes' API server does it (dropped_requests_tracker.go): it starts at one second; with three or more refusals
for each of its seconds it doubles, at most once in that time, up to 32; with fewer than one it shrinks by one a second.
Never less than the queue needs to drain, never more than 60, and with 20 % of jitter, so that those who were refused
together do not come back together.
"""

from __future__ import annotations

from random import Random
from typing import Final

_MAX_ADAPTED_S: Final = 32
_MAX_S: Final = 60
_JITTER: Final = 0.2


class RetryAfter:
    """Counts refusals by second."""

    __slots__ = ("_adapted_s", "_counts", "_raised_at", "_random", "_second")

    def __init__(self, seed: int) -> None:
        self._random: Random = Random(seed)
        self._adapted_s: int = 1
        self._raised_at: int = -_MAX_S
        self._second: int = 0
        self._counts: list[int] = [0] * _MAX_ADAPTED_S
        """Refusals in each of the last seconds, by the second modulo."""

    def refused(self, now: float, drain_s: float) -> int:
        """Count one more refusal, and say in how many whole seconds it may come back: 1 to 60.

        drain_s: what the queue needs to become empty.
        """
        second = int(now)
        if second != self._second:
            self._advance(second)
        self._counts[second % _MAX_ADAPTED_S] += 1
        wait_s = float(self._adapted_s)
        if drain_s > wait_s:
            wait_s = drain_s
        wait_s *= 1.0 + _JITTER * (2.0 * self._random.random() - 1.0)
        if wait_s >= _MAX_S:
            return _MAX_S
        return int(wait_s) + 1

    def _advance(self, second: int) -> None:
        """Close the seconds that have passed."""
        if second - self._second > _MAX_ADAPTED_S:  # long ago: all of it is forgotten
            self._second = second
            self._adapted_s = 1
            for index in range(_MAX_ADAPTED_S):
                self._counts[index] = 0
        while self._second < second:
            span = self._adapted_s
            recent = 0
            for back in range(span):
                recent += self._counts[(self._second - back) % _MAX_ADAPTED_S]
            if recent >= 3 * span:
                if self._second - self._raised_at >= span and span < _MAX_ADAPTED_S:
                    self._adapted_s = span * 2
                    self._raised_at = self._second
            elif recent < span and span > 1:
                self._adapted_s = span - 1
            self._second += 1
            self._counts[self._second % _MAX_ADAPTED_S] = 0
