"""The limit that would be learned, while none is set: from how answers followed the requests in flight so far.

Nothing is held back, so nothing can be tried: what is not in flight by itself teaches nothing. Until answers have
stopped following, the knee may be anywhere above what was seen, and the value is twice the most that was in flight.
"""

from __future__ import annotations

from math import exp
from typing import Final

from edgeq.admission.knee import LADDER, Knee, rung_at
from edgeq.admission.limits import MAX_LIMIT, Limit, Window


class Observer(Limit):
    """`value`: what `adaptive` would be likely to settle at."""

    LEAST: Final = 12
    """Answers in a window, and one for each in flight."""
    SURE: Final = 0.93
    """The value is above the knee with this probability."""
    WINDOWS: Final = 100
    """Evidence fades over so many windows."""

    __slots__ = ("_knee",)

    def __init__(self) -> None:
        super().__init__(1, 1, MAX_LIMIT)
        self._knee: Knee = Knee()

    def due(self, window: Window) -> bool:
        """A generation of answers."""
        return window.ok >= max(float(self.LEAST), window.in_flight)

    def update(self, window: Window) -> None:
        """One more point of answers against requests in flight."""
        knee = self._knee
        rung = rung_at(window.in_flight)
        answers = float(window.ok)
        knee.learn_dispersion(rung, window.duration_s, answers)
        knee.fade(exp(-1 / self.WINDOWS), LADDER[rung])
        knee.add(rung, window.duration_s, answers)
        knee.weigh(2.0 * LADDER[knee.tried[-1]])
        self.value = LADDER[knee.quantile(self.SURE)]
