"""How many requests an upstream gets at once: the number, and what it may be learned from.

A limit is a pure function of counters. `Totals` are counters of one upstream that only grow; a `Learner` looks at them
on every tick, cuts windows out of them, and lets a `Limit` move its number. One learner in a machine is enough: totals
of several workers are sums (of `bound_s`: the mean, weighted by what each worker sent).

A limit never refuses in order to probe: what it holds back waits in the queue. The default is `adaptive.Adaptive`; what
each achieves is shown by `python -m benchmarks.sim_limits`.

Sources: Gradient2 and AIMD after Netflix/concurrency-limits.
"""

from __future__ import annotations

from typing import Final

MAX_LIMIT: Final = 16_384
TIMES: Final = 64


class Totals:
    """Counters of one upstream since its start; they never go back.

    ok            answers that came in time
    dropped       requests that ended without one: time-outs, resets, clients that left while it was at work
    busy          requests that the upstream itself refused for load (429, 503)
    busy_beside   sum over these of the requests in flight at that moment, each including the refused one
    service_s     time in flight of the `ok` ones, summed
    stuck         of those in flight now, the ones that hang; of this worker alone
    times         how long single ones of them took, in seconds: at most `TIMES` since the window began, and only
                  while the limit wants to know; of this worker alone
    in_flight_s   requests in flight without those that hang, integrated over time: nobody waits for these to finish
    bound_s       time during which the limit was reached (in flight >= limit)
    bound_ok      answers in time that came while it was
    """

    __slots__ = (
        "bound_ok",
        "bound_s",
        "busy",
        "busy_beside",
        "dropped",
        "in_flight_s",
        "ok",
        "service_s",
        "stuck",
        "times",
    )

    def __init__(self) -> None:
        self.ok: int = 0
        self.dropped: int = 0
        self.busy: int = 0
        self.busy_beside: int = 0
        self.service_s: float = 0.0
        self.stuck: int = 0
        self.times: list[float] = []
        self.in_flight_s: float = 0.0
        self.bound_s: float = 0.0
        self.bound_ok: int = 0

    @property
    def finished(self) -> int:
        """Requests that are no longer in flight."""
        return self.ok + self.dropped + self.busy


class Window:
    """What happened between two looks at the totals; the names are theirs."""

    __slots__ = (
        "bound_ok",
        "bound_s",
        "busy",
        "busy_beside",
        "dropped",
        "duration_s",
        "finished",
        "in_flight",
        "now",
        "ok",
        "service_s",
        "stuck",
        "times",
    )

    def __init__(self, now: float) -> None:
        self.now: float = now
        """Its end, monotonic seconds."""
        self.duration_s: float = 0.0
        self.ok: int = 0
        self.dropped: int = 0
        self.busy: int = 0
        self.busy_beside: int = 0
        self.finished: int = 0
        self.service_s: float = 0.0
        self.stuck: int = 0
        self.times: list[float] = []
        self.in_flight: float = 0.0
        """Requests in flight, averaged over time."""
        self.bound_s: float = 0.0
        self.bound_ok: int = 0


class Limit:
    """A number that moves. `value`: requests in flight at once, at least 1."""

    __slots__ = ("is_starting", "maximum", "minimum", "settles", "value")

    def __init__(self, initial: int, minimum: int, maximum: int) -> None:
        if not 1 <= minimum <= initial <= maximum <= MAX_LIMIT:
            raise ValueError(f"1 <= minimum {minimum} <= initial {initial} <= maximum {maximum} <= {MAX_LIMIT}")
        self.value: int = initial
        self.minimum: int = minimum
        self.maximum: int = maximum
        self.settles: bool = False
        """Whether what was already in flight at a change is left out of the next window."""
        self.is_starting: bool = False
        """Nothing is known yet: it is a guess, and looks at the times of single answers."""

    @property
    def settled(self) -> int:
        """`value` while nothing is tried: what to show, and to suggest as a fixed one."""
        return self.value

    @property
    def rest_s(self) -> float:
        """Seconds that a place is held while nobody waits at the upstream, where `value` may be far more than it needs;
        0.0: it is not, or nothing is known."""
        return 0.0

    def due(self, window: Window) -> bool:
        """Whether the window that has begun says enough to be looked at."""
        raise NotImplementedError

    def update(self, window: Window) -> None:
        """Move `value` by what a window that is due has shown."""
        raise NotImplementedError

    def nudge(self) -> None:
        """Requests wait, and nothing has come back since they came: go up, if it is a guess (`Bulkhead.starves`)."""

    def beside_stuck(self) -> bool:
        """Some of those in flight are stuck. Returns: has `value` moved for that?"""
        return False


class Fixed(Limit):
    """The number of the configuration."""

    __slots__ = ()

    def __init__(self, value: int) -> None:
        super().__init__(value, 1, MAX_LIMIT)

    def due(self, window: Window) -> bool:
        """Never."""
        return False

    def update(self, window: Window) -> None:
        """Stays."""


class Aimd(Limit):
    """One more for a window without a drop in which the limit was needed; a tenth less for one with a drop.

    Source: Netflix/concurrency-limits, AIMDLimit.java; there it moves with every sample.
    """

    __slots__ = ("backoff",)

    def __init__(self, initial: int = 20, minimum: int = 1, maximum: int = 200, backoff: float = 0.9) -> None:
        super().__init__(initial, minimum, maximum)
        self.backoff: float = backoff

    def due(self, window: Window) -> bool:
        """Ten requests, and as many as are in flight."""
        return window.finished >= max(10.0, window.in_flight)

    def update(self, window: Window) -> None:
        """Down by a share, up by one."""
        if window.dropped or window.busy:
            self.value = max(self.minimum, int(self.value * self.backoff))
        elif window.bound_s > 0 or window.in_flight * 2 >= self.value:
            self.value = min(self.maximum, self.value + 1)


class Gradient2(Limit):
    """Moves by the ratio of the usual latency to the present one.

    Source: Netflix/concurrency-limits, Gradient2Limit.java, WindowedLimit.java and ExpAvgMeasurement.java, with their
    constants; but the least limit is 1 by default where it is 20 there, which disables it for small upstreams.
    """

    __slots__ = ("_estimate", "_long", "_samples")

    QUEUE: Final = 4
    TOLERANCE: Final = 1.5
    SMOOTHING: Final = 0.2
    LONG_WINDOWS: Final = 600
    WARM_WINDOWS: Final = 10

    def __init__(self, initial: int = 20, minimum: int = 1, maximum: int = 200) -> None:
        super().__init__(initial, minimum, maximum)
        self._estimate: float = float(initial)
        self._long: float = 0.0
        self._samples: int = 0

    def due(self, window: Window) -> bool:
        """A second and ten samples."""
        return window.duration_s >= 1.0 and window.ok >= 10

    def update(self, window: Window) -> None:
        """The new estimate is a fifth of what the gradient asks for and four fifths of the old one."""
        short = window.service_s / window.ok
        self._samples += 1
        if self._samples <= self.WARM_WINDOWS:
            self._long += (short - self._long) / self._samples
        else:
            self._long += (short - self._long) * 2 / (self.LONG_WINDOWS + 1)
        if self._long > 2 * short:
            self._long *= 0.95
        if window.bound_s <= 0 and window.in_flight < self._estimate / 2:
            return
        gradient = max(0.5, min(1.0, self.TOLERANCE * self._long / short))
        wanted = self._estimate * gradient + self.QUEUE
        estimate = self._estimate * (1 - self.SMOOTHING) + wanted * self.SMOOTHING
        self._estimate = max(float(self.minimum), min(float(self.maximum), estimate))
        self.value = int(self._estimate)


class Learner:
    """Cuts windows out of the totals and lets a limit look at each that is due.

    After a change the next window begins when as many requests have finished as were in flight: what comes back before
    was sent under the old limit. That is left out where windows are much longer than requests anyway.
    """

    MANY: Final = 10
    """Windows of so many requests for each in flight need not be cleared of those from before."""

    __slots__ = ("_began", "_settled_at", "_settling", "_then", "limit")

    def __init__(self, limit: Limit, now: float, totals: Totals) -> None:
        self.limit: Limit = limit
        self._began: float = now
        self._then: Totals = Totals()
        self._settling: bool = False
        self._settled_at: int = 0
        self._begin(now, totals)

    def tick(self, now: float, totals: Totals) -> int:
        """Look at the totals, `now` in monotonic seconds; gives the limit from now on."""
        limit = self.limit
        if totals.stuck and limit.beside_stuck():
            self._begin(now, totals)
            return limit.value
        if self._settling:
            if totals.finished >= self._settled_at:
                self._begin(now, totals)
            return limit.value
        if now <= self._began:
            return limit.value
        window = self._window(now, totals)
        if window.finished > 0 and limit.due(window):
            before = limit.value
            limit.update(window)
            self._begin(now, totals)
            if limit.value != before and limit.settles and window.finished < self.MANY * window.in_flight:
                self._settling = True
                self._settled_at = totals.finished + round(window.in_flight)
        return limit.value

    def _begin(self, now: float, totals: Totals) -> None:
        self._settling = False
        self._began = now
        then = self._then
        then.ok = totals.ok
        then.dropped = totals.dropped
        then.busy = totals.busy
        then.busy_beside = totals.busy_beside
        then.service_s = totals.service_s
        totals.times.clear()
        then.in_flight_s = totals.in_flight_s
        then.bound_s = totals.bound_s
        then.bound_ok = totals.bound_ok

    def _window(self, now: float, totals: Totals) -> Window:
        then = self._then
        window = Window(now)
        window.duration_s = now - self._began
        window.ok = totals.ok - then.ok
        window.dropped = totals.dropped - then.dropped
        window.busy = totals.busy - then.busy
        window.busy_beside = totals.busy_beside - then.busy_beside
        window.finished = totals.finished - then.finished
        window.service_s = totals.service_s - then.service_s
        window.stuck = totals.stuck
        window.times = list(totals.times)
        window.in_flight = (totals.in_flight_s - then.in_flight_s) / window.duration_s
        window.bound_s = totals.bound_s - then.bound_s
        window.bound_ok = totals.bound_ok - then.bound_ok
        return window
