"""What the supervisor notes twice a second, so that a reading now can be told from one before.

Who asks in between gets a look of his own at the end of it, a passing one, which the next look replaces: so what is
told is no older than what the workers have written, and what is kept does not depend on who asks.

Bounded: `_NOW` counts of each counter, MINUTES of steps of each resource; what is not there any more is forgotten.
A look costs what a reading of all resources without histograms costs, some microseconds a row, and no worker anything.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from edgeq.board import resources
from edgeq.board.reading import Reading
from edgeq.explain.facts import Models, Pace

EVERY_S: Final = 0.5
"""The workers' reports are as old."""
NOW_S: Final = 3.0
"""What is told as "now"."""
_LEAST_S: Final = 1.0
"""And over so much at least: workers write their counters four times a second, so a rate of less is chance."""
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
QUIET_S: Final = 5.0
"""After so long without growth a counter that grows again has begun anew, and so has a queue."""
_SEVERAL: Final = 3
"""So many do not all stay away by chance."""
BY_KEY: Final = "by key "
"""Before the name of a resource: who asks for it, by virtual key."""
_MOMENT_S: Final = 0.001
"""Less than any step."""


class Tally:
    """A counter over the last looks, and since when it has grown."""

    __slots__ = ("_is_passing", "_seen", "_since_s", "grown_s")

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque(maxlen=_NOW + 2)
        self._is_passing = False
        self._since_s = 0.0
        self.grown_s = -QUIET_S
        """At the last look at which it had."""

    def note(self, now_s: float, count: float, is_passing: bool = False) -> None:
        """One look. A count that has fallen is one that began again, such as a successor's."""
        if self._is_passing:
            self._seen.pop()
        self._is_passing = is_passing
        if self._seen and count < self._seen[-1][1]:
            self._seen.clear()
        if self._seen and count > self._seen[-1][1]:
            if now_s - self.grown_s > QUIET_S:
                self._since_s = self._seen[-1][0]
            self.grown_s = now_s
        self._seen.append((now_s, count))

    def per_s(self, since_s: float | None = None) -> float:
        """Since then, else over what is told as now; since it has grown, if that is sooner."""
        last_s, last = self._seen[-1]
        if since_s is None:
            since_s = max(last_s - NOW_S, min(self._since_s, last_s - _LEAST_S))
        known = [one for one in self._seen if one[0] <= since_s + _MOMENT_S]
        first_s, first = known[-1] if known else self._seen[0]
        if not known and first == 0:  # it was not there before
            first_s = since_s
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0

    def grows_for_s(self, now_s: float) -> float:
        """0: it does not."""
        return now_s - self._since_s if self.per_s() > 0 else 0.0

    def quiet_s(self, now_s: float) -> float:
        """For so long it has grown no more; 0: it may be chance that it has not, as at its rate only a few would have
        come."""
        quiet_s = now_s - self.grown_s
        return quiet_s if quiet_s >= _LEAST_S and self.per_s() * quiet_s >= _SEVERAL else 0.0


class Spell(NamedTuple):
    """A time in which somebody waits for a resource, or is refused by it."""

    began_s: float
    """The last look at which nobody was."""
    last_s: float
    limit: int
    """At its beginning."""
    before: Pace | None
    """None if nothing had come lately."""


class _Turn(NamedTuple):
    """A limit was changed."""

    at_s: float
    """The first look at which it had been."""
    is_raised: bool
    was: Pace
    """Right before, with the limit of then."""


class _Look(NamedTuple):
    """A resource at a look."""

    at_s: float
    arrivals: int
    departures: int
    refused: int
    ok: int
    service_us: int
    in_flight_us: int
    binding_us: int


class Step(NamedTuple):
    """What came of a resource between two looks."""

    at_s: float
    """The end of it."""
    span_s: float
    arrivals: int
    """Those that were refused have arrived, too."""
    departures: int
    refused: int
    ok: int
    service_us: int
    in_flight_us: int
    """Requests in flight x time."""
    limit: int
    oldest_ms: float
    models: Models
    is_calm: bool
    """Nobody waits or is refused."""
    is_passing: bool


class Watch:
    """Of one gateway: how limited resources do, and how other counters grow."""

    def __init__(self) -> None:
        self._tallies: dict[str, Tally] = {}
        self._noted_s = 0.0
        self._kept_s = 0.0
        """The same without the passing look."""
        self._last: dict[str, _Look] = {}
        self._steps: dict[str, deque[Step]] = {}
        self._models: dict[str, Models] = {}
        self._spells: dict[str, Spell] = {}
        self._ended: dict[str, Spell] = {}
        """The last one that is over, of each."""
        self._turns: dict[str, _Turn] = {}
        """The last one of each."""
        self._lags: dict[int, deque[float]] = {}
        self._asking: dict[str, deque[Mapping[str, int]]] = {}
        self._holding: dict[str, tuple[float, float]] = {}
        """What is so since when, and was when it was last looked at."""
        self._held: dict[str, float] = {}
        """What was so until when, lately."""
        self._short: dict[str, tuple[float, float]] = {}
        """What keeps somebody out since when, and did so when it was last looked at."""
        self._looked_s = 0.0
        """When `note_short` was called last."""

    # What is noted.

    def note_counters(self, now_s: float, counts: Mapping[str, float], is_passing: bool = False) -> None:
        """Everything that only grows, by any name. What was not there at the last look was 0 then."""
        for name in [name for name in self._tallies if name not in counts]:
            del self._tallies[name]
        for name, count in counts.items():
            tally = self._tallies.get(name)
            if tally is None:
                tally = self._tallies[name] = Tally()
                if self._kept_s:
                    tally.note(self._kept_s, 0)
            tally.note(now_s, count, is_passing)
        self._noted_s = now_s
        if not is_passing:
            self._kept_s = now_s

    def note_resources(
        self,
        now_s: float,
        readings: Iterable[tuple[str, int, Reading]],
        models: Mapping[str, Models] = NO_MODELS,
        is_passing: bool = False,
        learned: Collection[str] = (),
    ) -> None:
        """Limited resources: name, limit, and a reading without histograms. models: of those that are a provider's, all
        answers since the start. learned: those whose limit changes of itself."""
        seen = set()
        for name, limit, reading in readings:
            seen.add(name)
            before, last = self._last.get(name), _counts(now_s, reading)
            if not is_passing:
                self._last[name] = last
            if before is None or now_s <= before.at_s:
                continue
            steps = self._steps.setdefault(name, deque(maxlen=_KEPT))
            if steps and steps[-1].is_passing:
                steps.pop()
            span_s = now_s - before.at_s
            refused = max(0, last.refused - before.refused)
            if name in learned:
                self._turns.pop(name, None)
            else:
                self._turn(name, limit, now_s, steps)
            # Of less time than that it is chance when the workers have written it.
            is_bound = (last.binding_us - before.binding_us) / 1e6 >= _BOUND * max(span_s, EVERY_S)
            if not reading.queued and self._is_raised(name, now_s):
                self._end(name)  # what was bound or refused in this step was so before
            else:
                self._follow(name, Spell(before.at_s, now_s, limit, None), steps, is_bound or refused > 0)
            steps.append(
                Step(
                    at_s=now_s,
                    span_s=span_s,
                    # Gauges and counters are not written at the same moment: what this step lacks, the next has.
                    arrivals=last.arrivals - before.arrivals,
                    departures=max(0, last.departures - before.departures),
                    refused=refused,
                    ok=max(0, last.ok - before.ok),
                    service_us=max(0, last.service_us - before.service_us),
                    in_flight_us=max(0, last.in_flight_us - before.in_flight_us),
                    limit=limit,
                    oldest_ms=max(0.0, now_s * 1000 - reading.oldest_ns / 1e6) if reading.oldest_ns else 0.0,
                    models=_ended(models.get(name, {}), self._models.get(name, {})),
                    is_calm=name not in self._spells,
                    is_passing=is_passing,
                )
            )
        for known in (self._last, self._steps, self._spells, self._ended, self._turns):
            for name in [name for name in known if name not in seen]:
                del known[name]
        if not is_passing:
            self._models = dict(models)

    def _follow(self, name: str, seen: Spell, steps: Iterable[Step], is_pressed: bool) -> None:
        """Begin a spell, go on with it, or end it. What was before is kept with it, however long it takes.

        `seen`: one of this step alone.
        """
        spell, now_s = self._spells.get(name), seen.last_s
        if spell is not None and now_s - spell.last_s > _EDGE_S:
            self._end(name)
            spell = None
        if not is_pressed:
            return
        ended = self._ended.get(name)
        if spell is None and ended is not None and now_s - ended.last_s <= QUIET_S:
            spell = ended  # it goes on, after a breath
        if spell is None:
            spell = seen._replace(before=self._calm(steps, now_s - _EDGE_S))
        self._spells[name] = spell._replace(last_s=now_s)

    def _end(self, name: str) -> None:
        """Of a spell, if one goes on."""
        if (spell := self._spells.pop(name, None)) is not None:
            self._ended[name] = spell

    def _turn(self, name: str, limit: int, now_s: float, steps: Sequence[Step]) -> None:
        """Keep what was before its limit was changed. Of several changes that follow each other, what was before the
        first one, as long as the limit is below that."""
        if not steps or steps[-1].limit == limit:
            return
        known, last = self._turns.get(name), steps[-1].limit
        was = pace([one for one in steps if one.at_s > now_s - NOW_S])
        if known is not None and now_s - known.at_s <= BEFORE_S and known.was.limit > max(limit, last):
            was = known.was
        self._turns[name] = _Turn(now_s, limit > last, was)

    def _is_raised(self, name: str, now_s: float) -> bool:
        """Was its limit raised a moment ago?"""
        turn = self._turns.get(name)
        return turn is not None and turn.is_raised and now_s - turn.at_s <= _EDGE_S

    def _calm(self, steps: Iterable[Step], end_s: float) -> Pace | None:
        """How it did when it was calm in the minute before; None if nothing came then."""
        calm = [one for one in steps if end_s - BEFORE_S <= one.at_s < end_s and one.is_calm and one.arrivals > 0]
        return pace(calm) if calm else None

    def note_lags(self, lags_ms: Mapping[int, float]) -> None:
        """The worst lag of each worker since its report before."""
        self._lags = {slot: self._lags.get(slot) or deque(maxlen=4) for slot in lags_ms}
        for slot, lag_ms in lags_ms.items():
            self._lags[slot].append(lag_ms)

    def note_asking(self, asking: Mapping[str, Mapping[str, int]]) -> None:
        """Whose requests wait or run: resource to tenant to count, and BY_KEY and resource to virtual key."""
        kept = {**{name: {} for name in self._asking}, **asking}
        self._asking = {name: self._asking.get(name) or deque(maxlen=_NOW) for name in kept}
        for name, tenants in kept.items():
            self._asking[name].append(tenants)
        self._asking = {name: looks for name, looks in self._asking.items() if any(looks)}

    def note_states(self, now_s: float, holding: Iterable[str]) -> None:
        """What is so at this look, by any names."""
        before = {**self._held, **{name: last_s for name, (_, last_s) in self._holding.items()}}
        self._holding = {name: (self._holding.get(name, (now_s,))[0], now_s) for name in holding}
        self._held = {
            name: last_s for name, last_s in before.items() if name not in self._holding and now_s - last_s <= NOW_S
        }

    def note_short(self, names: Iterable[str]) -> None:
        """What keeps somebody out, by any names: also who is let in for a moment, and kept out again, has gone on."""
        now_s = self._noted_s
        kept = {name: known for name, known in self._short.items() if now_s - known[1] <= QUIET_S}
        kept |= {name: (kept.get(name, (now_s, 0.0))[0], now_s) for name in names}
        self._short, self._looked_s = kept, now_s

    # What is told.

    def short_for_s(self, name: str) -> float:
        """For how long it has kept somebody out; 0: it does not, or was not seen to before the last look."""
        since_s, last_s = self._short.get(name, (0.0, 0.0))
        return self._noted_s - since_s if self._noted_s - last_s <= QUIET_S else 0.0

    def grown(self, prefix: str) -> list[str]:
        """The counters that have grown since `note_short`, of those whose names begin so."""
        return [name for name, grown_s in self.grew_last(prefix).items() if grown_s > self._looked_s]

    def oldest_ms(self, resource: str) -> float:
        """How long the oldest has waited for it, within the last second."""
        return max((one.oldest_ms for one in self._since(resource, self._noted_s - _LEAST_S)), default=0.0)

    def _since(self, resource: str, since_s: float) -> list[Step]:
        """The steps since the last look before then, as counters are told since that one."""
        return [one for one in self._steps.get(resource, ()) if one.at_s > since_s + _MOMENT_S]

    def spell(self, resource: str) -> Spell | None:
        """The one that goes on."""
        return self._spells.get(resource)

    def since_s(self, resource: str) -> float:
        """Where "now" begins for a resource: with its queue, or its limit, if that is sooner."""
        spell, turn = self._spells.get(resource), self._turns.get(resource)
        began_s = max(spell.began_s if spell is not None else 0.0, turn.at_s if turn is not None else 0.0)
        since_s = max(min(began_s, self._noted_s - _LEAST_S), self._noted_s - NOW_S)
        steps = self._since(resource, since_s)
        return steps[0].at_s - steps[0].span_s if steps else since_s

    def now(self, resource: str) -> Pace:
        """How a resource does now."""
        return pace(self._since(resource, self.since_s(resource)))

    def before(self, resource: str) -> Pace | None:
        """How it did before its queue began, or before now; None if nothing came then."""
        spell = self._spells.get(resource)
        if spell is not None:
            return spell.before
        return self._calm(self._steps.get(resource, ()), self._noted_s - NOW_S)

    def was(self, resource: str) -> Pace | None:
        """How it did right before its limit was changed; None if it was not, while its queue goes on or shortly before
        that."""
        spell, turn = self._spells.get(resource), self._turns.get(resource)
        if turn is None or turn.at_s < (spell.began_s if spell is not None else self._noted_s) - BEFORE_S:
            return None
        return turn.was

    def per_s(self, name: str, since_s: float | None = None) -> float:
        """How a counter grows since then, else now."""
        tally = self._tallies.get(name)
        return tally.per_s(since_s) if tally is not None else 0.0

    def grows_for_s(self, name: str) -> float:
        """For how long a counter has grown; 0: it does not."""
        tally = self._tallies.get(name)
        return tally.grows_for_s(self._noted_s) if tally is not None else 0.0

    def quiet_s(self, name: str) -> float:
        """For how long a counter has grown no more; 0: it still does, or that may be chance."""
        tally = self._tallies.get(name)
        return tally.quiet_s(self._noted_s) if tally is not None else 0.0

    def holds_for_s(self, name: str) -> float:
        """For how long something has been so, at all looks; 0: it is not, or was not before the last one."""
        since_s, last_s = self._holding.get(name, (0.0, 0.0))
        return last_s - since_s

    def held_ago_s(self, name: str, now_s: float) -> float | None:
        """How long ago something was last so; None: it was not lately."""
        last_s = self._holding[name][1] if name in self._holding else self._held.get(name)
        return now_s - last_s if last_s is not None else None

    def grew_last(self, prefix: str) -> dict[str, float]:
        """When the counters that have grown did so last, of those whose names begin so."""
        told = {name: tally.grown_s for name, tally in self._tallies.items() if name.startswith(prefix)}
        return {name: grown_s for name, grown_s in told.items() if grown_s >= 0}

    def growing(self, prefix: str) -> list[str]:
        """The counters that grow now, of those whose names begin so."""
        return [name for name, tally in self._tallies.items() if name.startswith(prefix) and tally.per_s() > 0]

    def standing_lag_ms(self, slot: int) -> float:
        """The least of the worst lags of the last looks: a single long turn is none that stands."""
        lags = self._lags.get(slot, ())
        return min(lags, default=0.0) if len(lags) > 1 else 0.0

    def asked(self, resource: str) -> dict[str, int]:
        """Who had requests lately: tenant (or key, see `note_asking`) to the sum over the last looks."""
        total: Counter[str] = Counter()
        for look in self._asking.get(resource, ()):
            total.update(look)
        return dict(total.most_common(8))


def pace(steps: Sequence[Step]) -> Pace:
    """Of all of them together."""
    models: dict[str, tuple[int, float]] = {}
    for step in steps:
        for name, (count, seconds) in step.models.items():
            known = models.get(name, (0, 0.0))
            models[name] = (known[0] + count, known[1] + seconds)
    span_s = sum(one.span_s for one in steps) or 1.0
    departures, ok = sum(one.departures for one in steps), sum(one.ok for one in steps)
    return Pace(
        arrivals_per_s=max(0, sum(one.arrivals for one in steps)) / span_s,
        departures_per_s=departures / span_s,
        refused_per_s=sum(one.refused for one in steps) / span_s,
        service_ms=sum(one.service_us for one in steps) / ok / 1000 if ok else None,
        limit=steps[-1].limit if steps else 0,
        models=models,
        held_ms=sum(one.in_flight_us for one in steps) / departures / 1000 if departures else None,
        span_s=sum(one.span_s for one in steps),
    )


def _ended(now: Models, before: Models) -> Models:
    """Between two looks; without those of which none has, or fewer are known (a worker that has died)."""
    found = {}
    for name, (count, seconds) in now.items():
        count_before, seconds_before = before.get(name, (0, 0.0))
        if count > count_before and seconds > seconds_before:
            found[name] = (count - count_before, seconds - seconds_before)
    return found


def _counts(now_s: float, reading: Reading) -> _Look:
    counters = reading.counters
    refused = sum(reading.refusals().values())
    done = counters[resources.OK] + counters[resources.DROPPED] + counters[resources.IGNORED]
    return _Look(
        now_s,
        counters[resources.ADMITTED] + refused + reading.queued,  # who waits is counted by neither yet
        done,
        refused,
        counters[resources.OK],
        counters[resources.SERVICE_US],
        counters[resources.IN_FLIGHT_US],
        counters[resources.BINDING_US],
    )
