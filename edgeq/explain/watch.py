"""What the supervisor notes twice a second, so that a reading now can be told from one before.

Bounded: `_NOW` counts of each counter, MINUTES of moments of each resource; what is not there any more is forgotten.
A look costs what a reading of all resources without histograms costs, some microseconds a row, and no worker anything.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from edgeq.board import resources
from edgeq.board.reading import Reading
from edgeq.explain.facts import Models, Pace
from edgeq.observe.history import Moment

EVERY_S: Final = 0.5
"""The workers' reports are as old."""
NOW_S: Final = 3.0
"""What is told as "now"."""
_NOW: Final = int(NOW_S / EVERY_S)
MINUTES: Final = 3
_KEPT: Final = int(MINUTES * 60 / EVERY_S)
BEFORE_S: Final = 60.0
"""What is told as "before"."""
_EDGE_S: Final = 1.0
"""Right before a queue begins its cause is there already, and nobody waits yet; and a queue that is empty for as long
has ended."""
_BOUND: Final = 0.2
"""Share of the time in which somebody waits, from which on that is more than chance."""
NO_MODELS: Final[Mapping[str, Models]] = MappingProxyType({})
_QUIET_S: Final = 5.0
"""After so long without growth a counter that grows again has begun anew."""


class Tally:
    """A counter over the last looks, and since when it has grown."""

    __slots__ = ("_grown_s", "_seen", "_since_s")

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque(maxlen=_NOW + 1)
        self._since_s = 0.0
        self._grown_s = -_QUIET_S

    def note(self, now_s: float, count: float) -> None:
        """One look. A count that has fallen is one that began again, such as a successor's."""
        if self._seen and count < self._seen[-1][1]:
            self._seen.clear()
        if self._seen and count > self._seen[-1][1]:
            if now_s - self._grown_s > _QUIET_S:
                self._since_s = self._seen[-1][0]
            self._grown_s = now_s
        self._seen.append((now_s, count))

    def per_s(self) -> float:
        """Over the last looks."""
        (first_s, first), (last_s, last) = self._seen[0], self._seen[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0

    def grows_for_s(self, now_s: float) -> float:
        """0: it does not."""
        return now_s - self._since_s if self.per_s() > 0 else 0.0


class Spell(NamedTuple):
    """A time in which somebody waits for a resource, or is refused by it."""

    began_s: float
    last_s: float
    before: Pace | None
    """None if nothing had come lately."""


class _Last(NamedTuple):
    """A resource at the look before."""

    at_s: float
    arrivals: int
    departures: int
    refused: int
    ok: int
    service_us: int
    binding_us: int


class Watch:
    """Of one gateway. It is the `History` of limited resources, and knows how other counters grow."""

    def __init__(self) -> None:
        self._tallies: dict[str, Tally] = {}
        self._noted_s = 0.0
        self._last: dict[str, _Last] = {}
        self._moments: dict[str, deque[tuple[Moment, Models]]] = {}
        """Each with the answers that have ended in it, where models are known."""
        self._models: dict[str, Models] = {}
        self._spells: dict[str, Spell] = {}
        self._lags: dict[int, deque[float]] = {}
        self._asking: dict[str, deque[Mapping[str, int]]] = {}

    # What is noted.

    def note_counters(self, now_s: float, counts: Mapping[str, float]) -> None:
        """Everything that only grows, by any name. What was not there at the last look was 0 then."""
        for name in [name for name in self._tallies if name not in counts]:
            del self._tallies[name]
        for name, count in counts.items():
            tally = self._tallies.get(name)
            if tally is None:
                tally = self._tallies[name] = Tally()
                if self._noted_s:
                    tally.note(self._noted_s, 0)
            tally.note(now_s, count)
        self._noted_s = now_s

    def note_resources(
        self, now_s: float, readings: Iterable[tuple[str, int, Reading]], models: Mapping[str, Models] = NO_MODELS
    ) -> None:
        """Limited resources: name, limit, and a reading without histograms. models: of those that are a provider's, all
        answers since the start."""
        seen = set()
        for name, limit, reading in readings:
            seen.add(name)
            before = self._last.get(name)
            last = self._last[name] = _counts(now_s, reading)
            if before is None or now_s <= before.at_s:
                continue
            span_s = now_s - before.at_s
            ok = last.ok - before.ok
            moment = Moment(
                at_s=now_s,
                depth=reading.queued,
                limit=limit,
                in_flight=reading.in_flight,
                arrivals_per_s=max(0, last.arrivals - before.arrivals) / span_s,
                departures_per_s=max(0, last.departures - before.departures) / span_s,
                refused_per_s=max(0, last.refused - before.refused) / span_s,
                oldest_ms=max(0.0, now_s * 1000 - reading.oldest_ns / 1e6) if reading.oldest_ns else 0.0,
                service_ms=(last.service_us - before.service_us) / ok / 1000 if ok > 0 else 0.0,
            )
            moments = self._moments.setdefault(name, deque(maxlen=_KEPT))
            bound = (last.binding_us - before.binding_us) / 1e6 / span_s
            self._follow(name, moment, moments, bound >= _BOUND)
            moments.append((moment, _ended(models.get(name, {}), self._models.get(name, {}))))
        for known in (self._last, self._moments, self._spells):
            for name in [name for name in known if name not in seen]:
                del known[name]
        self._models = dict(models)

    def _follow(self, name: str, moment: Moment, earlier: Iterable[tuple[Moment, Models]], is_bound: bool) -> None:
        """Begin a spell, go on with it, or end it. What was before is kept with it, however long it takes."""
        spell = self._spells.get(name)
        if spell is not None and moment.at_s - spell.last_s > _EDGE_S:
            del self._spells[name]
            spell = None
        if not is_bound and moment.refused_per_s == 0:
            return
        if spell is None:
            last_s = moment.at_s - _EDGE_S
            calm = [one for one in earlier if last_s - BEFORE_S <= one[0].at_s < last_s and one[0].arrivals_per_s]
            spell = Spell(moment.at_s, moment.at_s, pace(calm) if calm else None)
        self._spells[name] = spell._replace(last_s=moment.at_s)

    def note_lags(self, lags_ms: Mapping[int, float]) -> None:
        """The worst lag of each worker since its report before."""
        self._lags = {slot: self._lags.get(slot) or deque(maxlen=4) for slot in lags_ms}
        for slot, lag_ms in lags_ms.items():
            self._lags[slot].append(lag_ms)

    def note_asking(self, asking: Mapping[str, Mapping[str, int]]) -> None:
        """Whose requests wait or run: resource to tenant to count."""
        kept = {**{name: {} for name in self._asking}, **asking}
        self._asking = {name: self._asking.get(name) or deque(maxlen=_NOW) for name in kept}
        for name, tenants in kept.items():
            self._asking[name].append(tenants)
        self._asking = {name: looks for name, looks in self._asking.items() if any(looks)}

    # What is told.

    def history(self, resource: str, seconds: float) -> Sequence[Moment]:
        """The last so many seconds of a limited resource, the oldest first."""
        return [moment for moment, _ in self._lately(resource, seconds)]

    def _lately(self, resource: str, seconds: float) -> list[tuple[Moment, Models]]:
        since_s = self._noted_s - seconds
        return [one for one in self._moments.get(resource, ()) if one[0].at_s >= since_s]

    def spell(self, resource: str) -> Spell | None:
        """The one that goes on."""
        return self._spells.get(resource)

    def now(self, resource: str) -> Pace:
        """How a resource does now; since its queue began, if that is sooner."""
        spell = self._spells.get(resource)
        return pace([one for one in self._lately(resource, NOW_S) if spell is None or one[0].at_s >= spell.began_s])

    def before(self, resource: str) -> Pace | None:
        """How it did before its queue began, or before now; None if nothing came then."""
        spell = self._spells.get(resource)
        if spell is not None:
            return spell.before
        earlier = [
            one
            for one in self._lately(resource, BEFORE_S)
            if one[0].at_s < self._noted_s - NOW_S and one[0].arrivals_per_s
        ]
        return pace(earlier) if earlier else None

    def per_s(self, name: str) -> float:
        """How a counter grows now."""
        tally = self._tallies.get(name)
        return tally.per_s() if tally is not None else 0.0

    def grows_for_s(self, name: str) -> float:
        """For how long a counter has grown; 0: it does not."""
        tally = self._tallies.get(name)
        return tally.grows_for_s(self._noted_s) if tally is not None else 0.0

    def growing(self, prefix: str) -> list[str]:
        """The counters that grow now, of those whose names begin so."""
        return [name for name, tally in self._tallies.items() if name.startswith(prefix) and tally.per_s() > 0]

    def standing_lag_ms(self, slot: int) -> float:
        """The least of the worst lags of the last looks: a single long turn is none that stands."""
        lags = self._lags.get(slot, ())
        return min(lags, default=0.0) if len(lags) > 1 else 0.0

    def asked(self, resource: str) -> dict[str, int]:
        """Who had requests lately: tenant to the sum over the last looks."""
        total: Counter[str] = Counter()
        for look in self._asking.get(resource, ()):
            total.update(look)
        return dict(total.most_common(8))


def pace(lately: Sequence[tuple[Moment, Models]]) -> Pace:
    """The means; of the service weighted by what has ended."""
    moments = [moment for moment, _ in lately]
    models: dict[str, tuple[int, float]] = {}
    for _, ended in lately:
        for name, (answers, seconds) in ended.items():
            known = models.get(name, (0, 0.0))
            models[name] = (known[0] + answers, known[1] + seconds)
    count = len(moments) or 1
    served = sum(one.departures_per_s for one in moments if one.service_ms)
    return Pace(
        arrivals_per_s=sum(one.arrivals_per_s for one in moments) / count,
        departures_per_s=sum(one.departures_per_s for one in moments) / count,
        refused_per_s=sum(one.refused_per_s for one in moments) / count,
        service_ms=sum(one.service_ms * one.departures_per_s for one in moments) / served if served else None,
        limit=moments[-1].limit if moments else 0,
        models=models,
    )


def _ended(now: Models, before: Models) -> Models:
    """Between two looks; without those of which none has, or fewer are known (a worker that has died)."""
    found = {}
    for name, (count, seconds) in now.items():
        count_before, seconds_before = before.get(name, (0, 0.0))
        if count > count_before and seconds > seconds_before:
            found[name] = (count - count_before, seconds - seconds_before)
    return found


def _counts(now_s: float, reading: Reading) -> _Last:
    counters = reading.counters
    refused = sum(reading.refusals().values())
    done = counters[resources.OK] + counters[resources.DROPPED] + counters[resources.IGNORED]
    return _Last(
        now_s,
        counters[resources.ADMITTED] + refused + reading.queued,  # who waits is counted by neither yet
        done,
        refused,
        counters[resources.OK],
        counters[resources.SERVICE_US],
        counters[resources.BINDING_US],
    )
