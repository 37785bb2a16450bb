"""What the numbers of the board were a while ago, so that a reading now becomes rates and recent waits.

Once a second the supervisor notes the counters of all resources without their histograms (some microseconds for each
row), and the histograms of a tenth of the resources. So a rate is that of the last ten seconds, and quantiles of waits
are those of the last ten to twenty: what an operator wants to know is whether it is bad now. Nothing here needs a
worker to do anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from edgeq.board import resources
from edgeq.board.layout import Board
from edgeq.board.reading import Reading, read

EVERY_S: Final = 1.0
WINDOW: Final = 10
"""Samples: rates are over so many seconds."""


MAX_HIGHS: Final = 8192
"""High-water marks that are kept: endpoints may come and go for ever."""


class Sample(NamedTuple):
    """Counters at one moment."""

    at_s: float
    counts: tuple[int, ...]


class Series:
    """Some counters over the last seconds."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=WINDOW + 1)

    def note(self, now_s: float, counts: tuple[int, ...]) -> None:
        """One sample."""
        self._samples.append(Sample(now_s, counts))

    def rates(self, now_s: float, counts: tuple[int, ...]) -> tuple[float, ...]:
        """A second, from the oldest sample to what is counted now; 0 without a sample of another moment."""
        oldest = self._samples[0] if self._samples else None
        if oldest is None or now_s <= oldest.at_s or len(oldest.counts) != len(counts):
            return (0.0,) * len(counts)
        span_s = now_s - oldest.at_s
        return tuple(max(0, new - old) / span_s for new, old in zip(counts, oldest.counts, strict=True))


class Rates(NamedTuple):
    """Of one resource, a second."""

    arrivals: float
    departures: float
    refused: float


class Sampler:
    """The recent past of resources, by name, and of other counters, by any key."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._series: dict[str, Series] = {}
        self._marks: dict[str, deque[Reading]] = {}
        self._high: dict[str, int] = {}
        self._moments: deque[float] = deque(maxlen=WINDOW + 1)
        """Of the last samples: what was not there then was 0."""
        self._turn = 0

    def sample(self, now_s: float, names: Sequence[str], counters: dict[str, tuple[int, ...]]) -> None:
        """Note resources by name, and other counters by key; what is named no more is forgotten."""
        self._turn += 1
        for known in (self._series, self._marks):
            for name in [name for name in known if name not in counters and name not in names]:
                del known[name]
        for at, name in enumerate(names):
            due = at % WINDOW == self._turn % WINDOW or name not in self._marks
            reading = read(self._board, self._board.resource_index(name), due)
            self._note(name, now_s, _counts(reading))
            if due:
                self._marks.setdefault(name, deque(maxlen=2)).append(reading)
        for key, counts in counters.items():
            self._note(key, now_s, counts)
        self._moments.append(now_s)

    def rates(self, name: str, now_s: float, reading: Reading) -> Rates:
        """Of a resource."""
        return Rates(*self.counter_rates(name, now_s, _counts(reading)))

    def counter_rates(self, key: str, now_s: float, counts: tuple[int, ...]) -> tuple[float, ...]:
        """Of other counters."""
        return (self._series.get(key) or self._begun(len(counts))).rates(now_s, counts)

    def recent(self, name: str, reading: Reading) -> Reading:
        """What a reading with histograms has counted in the last ten to twenty seconds."""
        marks = self._marks.get(name)
        return reading.since(marks[0]) if marks else reading

    def high(self, key: str, value: int) -> int:
        """The most that a gauge without a high-water of its own has been when somebody looked."""
        most = self._high[key] = max(value, self._high.pop(key, 0))
        if len(self._high) > MAX_HIGHS:
            del self._high[next(iter(self._high))]  # the one that was looked at the longest ago
        return most

    def begin_highs(self) -> None:
        """Forget these marks."""
        self._high.clear()

    def _note(self, key: str, now_s: float, counts: tuple[int, ...]) -> None:
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = self._begun(len(counts))
        series.note(now_s, counts)

    def _begun(self, size: int) -> Series:
        """Of counters that were not there before: a refusal that happens for the first time has happened just now."""
        series = Series()
        if self._moments:
            series.note(self._moments[0], (0,) * size)
        return series


def _counts(reading: Reading) -> tuple[int, int, int]:
    """Arrivals, departures, refusals: a request that is refused has arrived."""
    counters = reading.counters
    refused = sum(reading.refusals().values())
    done = counters[resources.OK] + counters[resources.DROPPED] + counters[resources.IGNORED]
    return counters[resources.ADMITTED] + refused, done, refused
