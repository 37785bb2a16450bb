"""When a storm of refusals begins, and when it is over: for each resource, from its recent rates.

::

    calm --refused >= BEGIN_PER_S and >= BEGIN_SHARE of what arrives--> storm
      ^                                                                   |
      `------ below half of either, without a break, for CALM_S ----------'

Two thresholds and a time, or a load that is just at its limit would begin a storm every few seconds. A minimum beside
the share, because two refusals of four requests in the night are none; a share beside the minimum, because of ten
thousand requests a second ten are refused on a good day, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from edgeq.observe.history import Moment

WINDOW_S: Final = 2.0
"""Rates are of so long: workers write their counters four times a second, and one burst is no storm."""
BEGIN_PER_S: Final = 10.0
BEGIN_SHARE: Final = 0.1
CALM_S: Final = 10.0


class Began(NamedTuple):
    """A storm at a resource."""

    resource: str
    refused_per_s: float
    arrivals_per_s: float


class Ended(NamedTuple):
    """It is over."""

    resource: str
    lasted_s: float
    """Without the calm that has shown it."""
    peak_per_s: float
    """The most refusals a second."""


class _Storm:
    __slots__ = ("calm_since_s", "peak_per_s", "since_s")

    def __init__(self, since_s: float) -> None:
        self.since_s = since_s
        self.peak_per_s = 0.0
        self.calm_since_s: float | None = None


class Storms:
    """All that go on."""

    def __init__(self) -> None:
        self._storms: dict[str, _Storm] = {}

    def look(self, now_s: float, recent: Mapping[str, Moment]) -> list[Began | Ended]:
        """What has changed, by what happened in the last WINDOW_S; a resource that is not named has none."""
        changes: list[Began | Ended] = []
        for name, moment in recent.items():
            if name not in self._storms and _is_above(moment, 1.0):
                self._storms[name] = _Storm(now_s)
                changes.append(Began(name, moment.refused_per_s, moment.arrivals_per_s))
        for name, storm in list(self._storms.items()):
            seen = recent.get(name)
            if seen is not None and _is_above(seen, 0.5):
                storm.peak_per_s = max(storm.peak_per_s, seen.refused_per_s)
                storm.calm_since_s = None
                continue
            if storm.calm_since_s is None:
                storm.calm_since_s = now_s
            if now_s - storm.calm_since_s >= CALM_S or seen is None:
                del self._storms[name]
                changes.append(Ended(name, storm.calm_since_s - storm.since_s, storm.peak_per_s))
        return changes


def _is_above(moment: Moment, part: float) -> bool:
    """Above such a part of the thresholds."""
    refused = moment.refused_per_s
    return refused >= part * BEGIN_PER_S and refused >= part * BEGIN_SHARE * moment.arrivals_per_s
