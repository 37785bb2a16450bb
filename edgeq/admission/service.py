"""How long a place is held, and so how fast places come free: measured, from what has finished.

Little's law: with `busy` places taken all the time, busy / hold time of them come free in a second. While requests
wait, each of those in flight was let in at or before the last place came free, so it has been held at least since
then: the hold time is never less than that silence, and a stalled upstream shows before anything finishes.
"""

from __future__ import annotations

from typing import Final

_MEAN_OVER: Final = 32
"""Requests over which the mean forgets: half of a change is known after 22 of them."""
_RECENT: Final = 64
"""Answers kept for the percentiles: the 95th is then the fourth of the longest."""
_SORT_EVERY: Final = 16
KNOWN: Final = 8
"""So many answers before anything is concluded from them."""


class Service:
    """Seconds; 0.0 where nothing is known."""

    __slots__ = ("_finished", "_median_s", "_next", "_p95_s", "_recent", "_unsorted", "finished_at", "known", "mean_s")

    def __init__(self) -> None:
        self.mean_s: float = 0.0
        """How long a place is held, whatever the outcome."""
        self.finished_at: float = 0.0
        """When one came free last."""
        self.known: bool = False
        """There were enough answers to conclude from."""
        self._finished: int = 0
        self._recent: list[float] = []
        self._next: int = 0
        self._unsorted: int = 0
        self._median_s: float = 0.0
        self._p95_s: float = 0.0

    def finished(self, held_s: float, answered: bool, now: float) -> None:
        """A place came free; `answered`: by an answer, not by a failure."""
        self.finished_at = now
        if self._finished < _MEAN_OVER:
            self._finished += 1
        self.mean_s += (held_s - self.mean_s) / self._finished
        if not answered:
            return
        self._unsorted += 1
        recent = self._recent
        if len(recent) < _RECENT:
            recent.append(held_s)
            if len(recent) >= KNOWN:
                self.known = True
            return
        recent[self._next] = held_s
        self._next = (self._next + 1) % _RECENT

    def _sort(self) -> None:
        self._unsorted = 0
        ordered = sorted(self._recent)
        self._median_s = ordered[len(ordered) // 2]
        self._p95_s = ordered[len(ordered) * 19 // 20]

    def median_s(self) -> float:
        """Half of the answers took less."""
        if self._unsorted and (self._unsorted >= _SORT_EVERY or len(self._recent) < _RECENT):
            self._sort()
        return self._median_s

    def p95_s(self) -> float:
        """Nineteen of twenty answers took less."""
        self.median_s()
        return self._p95_s

    def hold_s(self, now: float, waiting_since: float) -> float:
        """How long a place is held at present, given that somebody has waited since `waiting_since`. 0.0: unknown."""
        mean = self.mean_s
        if mean == 0.0:
            return 0.0
        free_at = self.finished_at
        silence = now - max(waiting_since, free_at)
        return max(mean, silence)
