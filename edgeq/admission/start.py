"""The beginning of a learned limit, when nothing is known of the upstream: one slot, or a thousand.

The limit doubles with each generation of answers, as TCP's slow start does, until answers neither follow nor come
hardly later than the first. If requests wait and nothing comes back at all it is raised without evidence (`nudge`): a
model may take half a minute for its first answer, and those who wait for that would all be refused. So what arrives
before the first answer is let in; an upstream of one slow slot is then busy with that for a while.
"""

from __future__ import annotations

from math import inf, sqrt
from typing import Final

from edgeq.admission.limits import Window


class Start:
    """What the first answers have shown."""

    LEAST: Final = 4
    """Answers of a window; one for each request in flight at least."""
    LEAST_FIRST: Final = 12
    LATER: Final = 1.3
    """Answers come hardly later: within this multiple of the first ones' latency. More, while few are compared."""

    __slots__ = ("_limit", "_ok", "_rate", "_service_s", "_service_s2", "is_guess")

    def __init__(self) -> None:
        self.is_guess: bool = False
        """The limit was raised before anything had come back."""
        # The limit before, and its answers per second.
        self._limit: int = 0
        self._rate: float = 0.0
        # Answers that did not have to wait at the upstream, how long they took, and that squared.
        self._ok: float = 0.0
        self._service_s: float = 0.0
        self._service_s2: float = 0.0

    @property
    def is_unheard(self) -> bool:
        """No answer has been looked at."""
        return self._ok == 0.0

    def due(self, window: Window) -> bool:
        """A generation of answers; of a guess the first answers, which did not have to wait, or most lost."""
        if self.is_guess and self._ok == 0.0:
            if window.dropped > max(float(self.LEAST), window.in_flight / 2):
                return True
            return window.ok >= max(float(self.LEAST), min(float(self.LEAST_FIRST), window.in_flight))
        return window.ok + window.dropped >= max(float(self.LEAST), window.in_flight)

    def is_first(self, window: Window, limit: int) -> bool:
        """Whether these are the first answers after a guess. They were sent when few were in flight: their latency is
        that of the upstream at rest, their rate says nothing.

        The short ones come back first, if they differ; of exponential ones the right mean is the time that all have
        been in flight, for each that has come back.
        """
        if not self.is_guess or self._ok or window.service_s <= 0:
            return False
        count = float(window.ok)
        mean = window.service_s / count
        variation = window.service_s2 / window.service_s / mean - 1
        exposed = max(mean, window.in_flight * window.duration_s / count)
        mean += min(1.0, 2 * sqrt(_estimate(variation, count))) * (exposed - mean)
        self._ok = count
        self._service_s = count * mean
        self._service_s2 = count * mean * mean * (1 + variation)
        self._limit, self._rate = limit, inf
        return True

    def goes_on(self, window: Window, limit: int, rate: float) -> bool:
        """Whether to double once more, after a window with this limit and so many answers per second."""
        ratio = self._later(window)
        # At least half of what a limit below the knee would gain.
        follows = rate >= self._rate * (1 + limit / max(1, self._limit)) / 2
        if not follows and ratio > self.LATER + self._noise(window):
            return False
        if ratio <= self.LATER:
            self._ok += window.ok
            self._service_s += window.service_s
            self._service_s2 += window.service_s2
        self._limit, self._rate = limit, rate
        return True

    def needed(self, rate: float) -> float:
        """In flight at so many answers per second, if none has to wait at the upstream (Little's law)."""
        return rate * self._service_s / self._ok if self._ok else 1.0

    def _later(self, window: Window) -> float:
        """How much longer the answers take than those that did not have to wait."""
        if window.ok == 0:
            return inf
        return window.service_s / window.ok * self._ok / self._service_s if self._ok else 1.0

    def _noise(self, window: Window) -> float:
        """What chance may do to that ratio, by how much the first answers differ from each other."""
        count = self._ok
        if count == 0.0 or window.ok == 0:
            return 0.0
        variation = self._service_s2 * count / (self._service_s * self._service_s) - 1
        return sqrt(_estimate(variation, count) * (1 / window.ok + 1 / count))


def _estimate(variation: float, count: float) -> float:
    """The squared variation (variance over squared mean) of service times of which `count` have this one.

    A few that happen to be alike prove nothing: two more are added that differ as exponential ones do.
    """
    return (count * max(0.0, variation) + 2) / (count + 1)
