"""How long those have waited who have left a queue lately: for queues that are not on the board, whose waits only
people look at.

Two halves of ten seconds are kept, so quantiles are of the last ten to twenty, as those of the board are
(observe/sampler.py). Only who has waited is counted, so a queue that nobody waits in costs nothing.
"""

from __future__ import annotations

from typing import Final

from edgeq.board.histogram import bucket_middle, bucket_of

HALF_S: Final = 10.0
SHARES: Final = (0.5, 0.9, 0.99)


class Waits:
    """Of one queue of one worker. Times are monotonic seconds."""

    __slots__ = ("_before", "_begun_at", "_now", "count")

    def __init__(self) -> None:
        self.count: int = 0
        """Since the start."""
        self._begun_at: float = 0.0
        self._now: dict[int, int] = {}
        self._before: dict[int, int] = {}

    def record(self, waited_s: float, now: float) -> None:
        """Somebody's turn has come after so long."""
        self._turn(now)
        self.count += 1
        bucket = bucket_of(int(waited_s * 1e6))
        self._now[bucket] = self._now.get(bucket, 0) + 1

    def quantiles_ms(self, now: float) -> list[float]:
        """p50, p90 and p99 (`SHARES`), off by 3.2 % at most; empty if nobody has waited."""
        self._turn(now)
        found = dict(self._before)
        for bucket, count in self._now.items():
            found[bucket] = found.get(bucket, 0) + count
        total = sum(found.values())
        if total == 0:
            return []
        ordered = sorted(found)
        quantiles: list[float] = []
        for share in SHARES:
            seen = 0
            for bucket in ordered:
                seen += found[bucket]
                if seen >= share * total:
                    quantiles.append(bucket_middle(bucket) / 1000)
                    break
        return quantiles

    def _turn(self, now: float) -> None:
        age_s = now - self._begun_at
        if age_s >= HALF_S:
            self._before = self._now if age_s < 2 * HALF_S else {}
            self._now = {}
            self._begun_at = now
