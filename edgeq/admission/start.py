"""The beginning of a learned limit, when nothing is known of the upstream: one slot, or a thousand.

The limit doubles with each generation of answers, as TCP's slow start does, until answers neither follow nor come
hardly later than the first, twice. It begins with one, and goes on with four if the first answer comes quickly: four at
an upstream of one such slot wait for no longer than a queue may stand (congestion.py), and at one of sixteen a tenth of
a second is saved in which most slots idle.

If requests wait and nothing comes back at all it is raised without evidence (`nudge`): a model may take half a minute
for its first answer, and those who wait for that would all be refused. So what arrives before the first answer is let
in; an upstream of one slow slot is then busy with that for a while.

Later means the median: one answer of a second among many of 5 ms is no sign of a queue.
"""

from __future__ import annotations

from math import hypot, inf, log, sqrt
from typing import Final

from edgeq.admission.congestion import INTERVAL_TARGETS, TARGET_S
from edgeq.admission.limits import Window


class Start:
    """What the first answers have shown."""

    LEAST: Final = 5
    """Answers of a window; one for each request in flight at least."""
    LEAST_FIRST: Final = 12
    LATER: Final = 1.3
    """Answers come hardly later: within this multiple of the first ones' time. More, while few are compared."""
    POOL: Final = 256
    LEAP: Final = 4
    """The limit after a first answer that came quickly..."""
    QUICK_S: Final = INTERVAL_TARGETS * TARGET_S / LEAP
    """...in so many seconds."""

    __slots__ = ("_doubted", "_limit", "_pool", "_rate", "is_guess", "rest_s")

    def __init__(self) -> None:
        self.is_guess: bool = False
        """The limit was raised before anything had come back."""
        self.rest_s: float = 0.0
        """Seconds that half of the answers took which did not have to wait; 0.0: too few are known."""
        # The limit at which a window has spoken against going on.
        self._doubted: int = 0
        # The limit before, and its answers per second.
        self._limit: int = 0
        self._rate: float = 0.0
        # Times of answers that did not have to wait at the upstream.
        self._pool: list[float] = []

    @property
    def is_unheard(self) -> bool:
        """No answer has been looked at."""
        return not self._pool

    def due(self, window: Window) -> bool:
        """A generation of answers; of a guess the first answers, which did not have to wait, or most lost."""
        if self.is_guess and not self._pool:
            if window.dropped > max(float(self.LEAST), window.in_flight / 2):
                return True
            return window.ok >= max(float(self.LEAST), min(float(self.LEAST_FIRST), window.in_flight))
        if self.leaps(window):
            return True
        return window.ok + window.dropped >= max(float(self.LEAST), window.in_flight)

    def leaps(self, window: Window) -> bool:
        """Whether what has come first came so quickly that the limit need not be felt for from one on."""
        return not self._pool and not self.is_guess and window.ok > 0 and window.service_s <= self.QUICK_S * window.ok

    def is_first(self, window: Window, limit: int) -> bool:
        """Whether these are the first answers after a guess. They were sent when few were in flight: their time is that
        of the upstream at rest, their rate says nothing.

        The short ones come back first, if they differ; of exponential ones the right mean is the time that all have
        been in flight, for each that has come back, and the median ln 2 of that.
        """
        times = window.times
        if not self.is_guess or self._pool or not times:
            return False
        median = _quantile(sorted(times), 0.5)
        exposed = log(2) * window.in_flight * window.duration_s / window.ok
        if exposed > median > 0.0:
            # As far as they differ like exponential ones.
            differ = min(1.0, _wobble(times) * sqrt(len(times)) / _EXPONENTIAL)
            longer = 1 + differ * (exposed / median - 1)
            times = [longer * one for one in times]
        self._take(times)
        self._limit, self._rate = limit, inf
        return True

    def goes_on(self, window: Window, limit: int, rate: float) -> bool:
        """Whether to double once more, after a window with this limit and so many answers per second."""
        ratio = self.ratio(window)
        # At least half of what a limit below the knee would gain.
        follows = rate >= self._rate * (1 + limit / max(1, self._limit)) / 2
        # Two on one slot are too many by as much as sixteen on eight, and cost an upstream of slow answers more.
        noise = self._noise(window) * min(1.0, (limit - 1) / self.LEAST)
        if not follows and ratio > self.LATER + noise:
            return False
        if ratio <= self.LATER and len(self._pool) < self.POOL:
            self._take(window.times)
        self._limit, self._rate = limit, rate
        return True

    def _take(self, times: list[float]) -> None:
        self._pool += times
        if len(self._pool) >= self.LEAST_FIRST:
            self.rest_s = _quantile(sorted(self._pool), 0.5)

    def doubts(self, limit: int, rate: float) -> bool:
        """Whether a window that would end the start is to be followed by one more with the same limit.

        Its answers may have taken longer by chance, if they do follow a little: to stay too high for a moment costs
        nothing but latency, to go down too far costs answers. Not after a guess, whose windows are long.
        """
        first = self._doubted != limit
        self._doubted = limit
        return first and not self.is_guess and rate > self._rate * (1 + (limit / max(1, self._limit) - 1) / 4)

    def ratio(self, window: Window) -> float:
        """How much longer the answers take than those that did not have to wait."""
        if window.ok == 0:
            return inf
        if not window.times or not self._pool:
            return 1.0
        usual = _quantile(sorted(self._pool), 0.5)
        return _quantile(sorted(window.times), 0.5) / usual if usual > 0.0 else 1.0

    def _noise(self, window: Window) -> float:
        """What chance may do to that ratio: one standard deviation."""
        if not window.times or not self._pool:
            return 0.0
        return hypot(_wobble(self._pool), _wobble(window.times))


_EXPONENTIAL: Final = 1.44
"""Standard deviation of the median of n exponential times, over the median, times the root of n: 1 / ln 2."""


def _wobble(times: list[float]) -> float:
    """The standard deviation of the median, over the median: by the times beside it in order, root of n / 2 away.

    A few that happen to be alike prove nothing: they are taken together with two exponential ones.
    """
    ordered = sorted(times)
    count = len(ordered)
    median = _quantile(ordered, 0.5)
    if median <= 0.0:
        return 0.0
    beside = 0.5 / sqrt(count)
    own = (_quantile(ordered, 0.5 + beside) - _quantile(ordered, 0.5 - beside)) / (2 * median)
    return (count * own + 2 * _EXPONENTIAL / sqrt(count)) / (count + 2)


def _quantile(ordered: list[float], share: float) -> float:
    """Of an ascending list that is not empty."""
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])
