"""Where an upstream's knee is: the number in flight beyond which more requests bring no more answers per second.

Below the knee the answers follow the number in flight, above it they do not,
``answers(l) = min(l, knee) / service time`` (Little's law). That holds for every distribution of service times, where a
baseline of the lowest latency does not: it collapses to a few percent of the capacity as soon as service times vary.

Sources: a change point in the rate of a Poisson process, with a measured dispersion in place of 1 (quasi-likelihood;
McCullagh and Nelder, Generalized Linear Models, 1989, chapter 9).
"""

from __future__ import annotations

from math import exp, log, sqrt
from typing import Final

from edgeq.admission.limits import MAX_LIMIT


def _ladder() -> list[int]:
    """The limits that are tried: each number up to 16, then steps of a sixteenth."""
    rungs = [1]
    while rungs[-1] < 2 * MAX_LIMIT:
        rungs.append(max(rungs[-1] + 1, round(rungs[-1] * 1.0625)))
    return rungs


LADDER: Final = _ladder()
PRIOR: Final = [
    log((above + here) / (here + below)) for below, here, above in zip([0, *LADDER], LADDER, LADDER[1:], strict=False)
]
"""Before anything is known each octave is as likely as any other: what a rung has of it."""


def rung_at(limit: float) -> int:
    """The highest rung that is not above `limit`; the lowest if none is."""
    low, high = 0, len(LADDER) - 2
    while low < high:
        middle = (low + high + 1) // 2
        if LADDER[middle] <= limit:
            low = middle
        else:
            high = middle - 1
    return low


class Knee:
    """What is known of the number in flight beyond which an upstream answers no more requests per second.

    For each rung that was tried: the seconds during which the limit bound there, and the answers meanwhile; both fade.
    """

    LEAST_DISPERSION: Final = 0.2
    MOST_DISPERSION: Final = 5.0
    LEARNING: Final = 0.1
    OUTLIER: Final = 5.0
    """A window farther off than this many times what is usual counts as that far: it may be a change."""

    __slots__ = ("answers", "dispersion", "first", "seconds", "tried", "weights")

    def __init__(self) -> None:
        self.seconds: list[float] = [0.0] * len(LADDER)
        self.answers: list[float] = [0.0] * len(LADDER)
        self.tried: list[int] = []
        """Rungs with evidence, ascending."""
        self.dispersion: float = 1.5
        """Variance of the answers in a window over their mean: 0 for constant service times, 1 for exponential ones,
        more for those with a long tail."""
        self.first: int = 0
        self.weights: list[float] = [1.0]
        """How likely each rung from `first` on is the knee, not normalised."""

    def rate(self, rung: int) -> float:
        """Answers per second at a rung, 0 where nothing is known."""
        seconds = self.seconds[rung]
        return self.answers[rung] / seconds if seconds > 0 else 0.0

    def add(self, rung: int, seconds: float, answers: float) -> None:
        """New evidence."""
        if self.seconds[rung] <= 0:
            self.tried.append(rung)
            self.tried.sort()
        self.seconds[rung] += seconds
        self.answers[rung] += answers

    def learn_dispersion(self, rung: int, seconds: float, answers: float) -> None:
        """How far a window is from what its rung has shown before."""
        before = self.seconds[rung]
        expected = self.rate(rung) * seconds
        if expected > 0:
            square = (answers - expected) ** 2 / (expected * (1 + seconds / before))
            off = min(square, self.OUTLIER * self.dispersion) - self.dispersion
            dispersion = self.dispersion + self.LEARNING * off
            self.dispersion = min(self.MOST_DISPERSION, max(self.LEAST_DISPERSION, dispersion))

    def fade(self, factor: float, about: int) -> None:
        """All evidence loses weight; what is more than two octaves from the limit `about` goes."""
        kept = []
        for rung in self.tried:
            self.seconds[rung] *= factor
            self.answers[rung] *= factor
            if self.answers[rung] > 0.01 and about <= 4 * LADDER[rung] <= 16 * about:
                kept.append(rung)
            else:
                self.seconds[rung] = self.answers[rung] = 0.0
        self.tried = kept

    def forget(self) -> None:
        """Start anew; the dispersion stays."""
        for rung in self.tried:
            self.seconds[rung] = self.answers[rung] = 0.0
        self.tried = []

    def enough(self) -> int:
        """The lowest rung tried that answers nearly as much as any."""
        best = 0.0
        for rung in self.tried:
            # What has been tried for a moment only is believed less.
            trust = 1 - 1 / sqrt(self.answers[rung] / self.dispersion + 1)
            best = max(best, self.rate(rung) * trust)
        for rung in self.tried:
            if self.rate(rung) >= 0.9 * best:
                return rung
        return 0

    def weigh(self, reach: float) -> None:
        """Work out the likelihood of each knee up to `reach`, from half of the lowest rung tried.

        With m = min(rung, knee), the best service time for a knee has the log-likelihood
        sum(answers x log m) - sum(answers) x log(sum(seconds x m)), over the dispersion.
        """
        tried = self.tried
        self.first = rung_at(LADDER[tried[0]] / 2)
        last = max(self.first, rung_at(reach))
        total = 0.0
        for rung in tried:
            total += self.answers[rung]
        logs = []
        for knee in range(self.first, last + 1):
            work = 0.0
            gain = 0.0
            for rung in tried:
                m = LADDER[min(rung, knee)]
                work += self.seconds[rung] * m
                gain += self.answers[rung] * log(m)
            logs.append((gain - total * log(work)) / self.dispersion)
        top = max(logs)
        self.weights = [exp(one - top) * PRIOR[self.first + i] for i, one in enumerate(logs)]

    def quantile(self, q: float) -> int:
        """The rung that is at or above the knee with probability `q`."""
        left = q * sum(self.weights)
        for i, weight in enumerate(self.weights):
            left -= weight
            if left <= 0:
                return self.first + i
        return self.first + len(self.weights) - 1
