"""The default limit: learned from whether answers follow it, without knowing anything about the upstream.

For each limit that it has tried it keeps how long that limit bound and how many good answers came meanwhile, and from
these the likelihood of each knee (`knee.Knee`). Then

    the limit is most likely above the knee        below it costs answers, above it only latency
    now and then it is twice as high               has the capacity grown? costs a little latency
    seldom, within a budget, it is lower           could it be lower? costs a few answers if not
    in the beginning it doubles                    see start.py

It never holds back less than `SLACK_S` of work. At an upstream that answers 15,000 a second one in flight may be all
that its knee asks for; but 75 at once wait 5 ms there, and save it, and this gateway, a turn of the loop each.

It never refuses in order to probe. Only time in which the limit binds teaches anything, so an upstream with little to
do is never found to be small. A good answer is one in time: where more in flight makes answers late, the good ones
become fewer, and the limit stays below. Three things are not left to the likelihood: an upstream that refuses for load
itself (ceiling.py), most requests lost (down by half), and many fewer answers than usual at the same limit (try at once
where the knee would be if slots were gone).

What was learned on the way, each found by simulation (`benchmarks/sim_limits.py`): windows of few answers favour what
came first, short answers, so a trial must not be believed for one lucky window; a trial twice as high tells the same
from a third of the answers that one 1.4 times as high needs; budgets of trials must not run into debt without bound,
or one bad window is the last for minutes; requests that clients have left behind are worked on after the limit is down,
so the windows after a flight say nothing about the lower limit.
"""

from __future__ import annotations

from math import exp, sqrt
from typing import Final

from edgeq.admission.ceiling import Ceiling
from edgeq.admission.knee import LADDER, Knee, rung_at
from edgeq.admission.limits import Limit, Window
from edgeq.admission.start import Start


class Adaptive(Limit):
    """See the module's text. Instants and durations are in seconds, limits in requests in flight."""

    SURE: Final = 0.93
    """The limit is above the knee with this probability."""
    SURE_UNBOUND: Final = 0.75
    """The same while it binds only part of the time: then it costs no answer, wherever the knee is."""
    MARGIN: Final = 1.07
    """One rung more where rungs are close to each other."""
    LOWER: Final = 0.4
    """What is tried lower is above the knee with this probability; half at the least."""
    HIGHER: Final = 2.0
    HIGHER_AFTER_HARM: Final = 1.25
    HARM: Final = 0.15
    """Share of the good answers; a trial that costs more is repeated later, and smaller."""
    LEAST: Final = 12
    GENERATIONS: Final = 3.0
    """A window has so many answers, and so many for each request in flight..."""
    LONG_S: Final = 1.0
    """...or this length, if the upstream refuses."""
    MEMORY: Final = 200.0
    WINDOWS: Final = 30
    """Evidence fades over this multiple of the answers that it takes to tell a limit from the next step, but over no
    less than so many windows."""
    COST_DOWN: Final = 0.005
    """Share of the answers that trials below may cost."""
    COST_UP: Final = 0.05
    """Share of the service time that trials above may add to the latency."""
    ALARM: Final = 12.0
    FOLLOWS: Final = 6.0
    """Squared deviations, in units of what chance does, from which on a change at the same limit, and answers that
    follow a higher one, are believed."""
    RECENT: Final = 60.0
    """Answers that are the present; at least four windows."""
    BINDS: Final = 0.05
    """Share of a window; one in which the limit bound for less says nothing."""
    OFTEN: Final = 0.1
    """Share of a window; where it binds more seldom a lower limit would save nothing."""
    SLACK_S: Final = 0.005
    """The limit is at least what the upstream answers in this time (as the target of a queue's wait, congestion.py)."""
    PACE: Final = 0.3
    """How far the pace follows a slower window."""
    NUDGED: Final = 256
    """No further than this without evidence: an upstream that hangs must not get everything."""
    FLED: Final = 20
    """For so many windows the limit does not go back to where most requests were lost."""

    __slots__ = (
        "_base",
        "_ceiling",
        "_down_s",
        "_fled",
        "_fled_for",
        "_harm",
        "_pace",
        "_recent",
        "_recent_s",
        "_rung",
        "_start",
        "_top",
        "_tried",
        "_tried_s",
        "_up_s",
        "knee",
    )

    def __init__(self, initial: int = 1, minimum: int = 1, maximum: int = 4096) -> None:
        super().__init__(initial, minimum, maximum)
        self.settles = True
        self.is_starting = True
        self.knee: Knee = Knee()
        self._rung: int = rung_at(initial)
        # Where the limit is now, and where it is while nothing is tried.
        self._base: int = self._rung
        # The base does not go higher than this before answers have followed.
        self._top: int = 2 * initial
        # What trials may still cost, in seconds of full work; and how many above have harmed in a row.
        self._down_s: float = 0.0
        self._up_s: float = 0.0
        self._harm: int = 0
        # Answers lately at the base, and at the higher limit that is tried; and the time that they took.
        self._recent: float = 0.0
        self._recent_s: float = 0.0
        self._tried: float = 0.0
        self._tried_s: float = 0.0
        self._fled: int = 0
        self._fled_for: int = 0
        self._ceiling: Ceiling = Ceiling(maximum)
        # Answers per second that it has shown to be able to give.
        self._pace: float = 0.0
        self._start: Start = Start()

    @property
    def settled(self) -> int:
        """Of the base."""
        return max(self.minimum, min(LADDER[self._base], self._ceiling.value, self.maximum))

    @property
    def rest_s(self) -> float:
        """While it is a guess."""
        return self._start.rest_s if self.is_starting else 0.0

    def due(self, window: Window) -> bool:
        """Enough answers to be compared, and every request in flight replaced more than once."""
        if window.busy and window.duration_s >= self.LONG_S:
            return True
        if self.is_starting:
            return self._start.due(window)
        return window.ok + window.dropped >= max(float(self.LEAST), self.GENERATIONS * window.in_flight)

    def update(self, window: Window) -> None:
        """Move the limit by what the window has shown."""
        self._count_costs(window)
        self._keep_pace(window)
        refused = self._ceiling.update(window, self.value)
        if refused:
            self.is_starting = False
            self._go(rung_at(refused))
            self._base = self._rung
        elif self._flee(window) or window.bound_s <= self.BINDS * window.duration_s:
            pass
        elif self.is_starting:
            self._begin(window)
        elif self._rung > self._base and self._follows(window):
            pass
        elif self._rung != self._base or not self._is_changed(window):
            self._learn(window)
            self._choose(window)

    def _keep_pace(self, window: Window) -> None:
        """Learn how much can be answered; less than before is no news where nobody had to wait."""
        bound = window.bound_s > self.BINDS * window.duration_s
        pace = window.bound_ok / window.bound_s if bound else window.ok / window.duration_s
        if pace > self._pace:
            self._pace = pace
        elif bound:
            self._pace += self.PACE * (pace - self._pace)

    def _least(self) -> int:
        """The lowest rung that is worth holding anybody back at."""
        return rung_at(max(float(self.minimum), self._pace * self.SLACK_S))

    def beside_stuck(self) -> bool:
        """What hangs has places for a while: no time to try with fewer."""
        if self._rung >= self._base:
            return False
        self._go(self._base)
        return True

    def nudge(self) -> None:
        """Up without evidence: requests wait, and nothing has come back to learn from.

        By half as much again. What is known stays known, so it is taken back once it has shown to be too high.
        """
        rung = self._rung
        limit = LADDER[rung]
        if LADDER[rung + 1] > self.NUDGED or not self.is_starting:
            return
        start = self._start
        if start.is_unheard:
            start.is_guess = True
        self._go(max(rung + 1, rung_at(1.5 * limit)))
        self._base = self._rung
        self._top = max(self._top, 2 * LADDER[self._rung])

    def _learn(self, window: Window) -> None:
        """The usual case: one window more of evidence."""
        knee, rung = self.knee, self._rung
        answers = float(window.bound_ok)
        knee.learn_dispersion(rung, window.bound_s, answers)
        limit = LADDER[rung]
        step = max(1, limit // 8)
        memory = max(self.MEMORY * knee.dispersion * (limit / step) ** 2, self.WINDOWS * answers, 1.0)
        knee.fade(exp(-answers / memory), limit)
        knee.add(rung, window.bound_s, answers)

    def _choose(self, window: Window) -> None:
        """Base, or higher, or lower."""
        knee = self.knee
        reach = max(2.0 * LADDER[knee.enough()], 1.25 * LADDER[knee.tried[-1]])
        knee.weigh(min(reach, float(self._top)))
        bound = window.bound_s > 0.9 * window.duration_s
        least = self._least()
        base = max(least, knee.quantile(self.SURE if bound else self.SURE_UNBOUND))
        highest = rung_at(min(self.maximum, self._ceiling.value))
        self._top = 2 * LADDER[base]
        if self._fled_for > 0:
            self._fled_for -= 1
            self._top = min(self._top, max(1, self._fled - 1))
            highest = min(highest, rung_at(self._top))
        base = max(rung_at(self.minimum), min(highest, max(base, rung_at(LADDER[base] * self.MARGIN))))
        stays = self._rung == base
        if base != self._base:
            self._recent = self._recent_s = 0.0
            self._base = base
        lower = max(knee.quantile(self.LOWER), rung_at(LADDER[base] / 2), min(base, least))
        times = self.HIGHER_AFTER_HARM if self._harm else self.HIGHER
        higher = min(highest, max(base + 1, rung_at(LADDER[base] * times)))
        # Not lower beside requests that hang: until each is told from the others it has a place.
        costs_s = (1 - LADDER[lower] / LADDER[base]) * window.duration_s
        often = window.bound_s > self.OFTEN * window.duration_s
        if stays and often and lower < base and self._down_s > costs_s and not window.stuck:
            self._go(lower)
        elif stays and higher > base and self._up_s > 0:
            self._tried = self._tried_s = 0.0
            self._go(higher)
        else:
            self._go(base)

    def _go(self, rung: int) -> None:
        """Set the limit, within its bounds."""
        self.value = max(self.minimum, min(LADDER[rung], self._ceiling.value, self.maximum))
        self._rung = rung_at(self.value)

    def _count_costs(self, window: Window) -> None:
        """Allow for further trials, and count what the last one has cost."""
        rung, base = self._rung, self._base
        span = window.duration_s
        debt = span * (1 << self._harm)
        self._down_s = min(self._down_s + self.COST_DOWN * span, span)
        self._up_s = max(min(self._up_s + self.COST_UP * span, span), -debt)
        usual = self.knee.rate(base)
        if rung == base or usual <= 0 or window.bound_s <= 0:
            return
        loss = max(0.0, 1 - window.bound_ok / window.bound_s / usual)
        if rung < base:
            self._down_s = max(self._down_s - loss * span, -3 * span)
        else:
            self._harm = min(self._harm + 1, 2) if loss > self.HARM else 0
            cost = (LADDER[rung] / LADDER[base] - 1) * (1 + 5 * loss)
            self._up_s = max(self._up_s - cost * span, -span * (1 << self._harm))

    def _begin(self, window: Window) -> None:
        """Double the limit as long as that is good; then begin where the knee seems to be."""
        start, rung = self._start, self._rung
        limit = LADDER[rung]
        if start.is_first(window, limit):
            return
        rate = window.bound_ok / window.bound_s
        self.knee.add(rung, window.bound_s, float(window.bound_ok))
        least = max(self._least(), rung_at(start.LEAP)) if start.leaps(window) else self._least()
        if start.goes_on(window, limit, rate):
            self._go(max(rung_at(2 * limit), least))
            self._base = self._rung
            self._top = 2 * LADDER[self._rung]
            return
        if start.doubts(limit, rate):
            return
        self.is_starting = False
        self._down_s = 0.0
        self._top = limit
        needed = max(limit / 4, self.MARGIN * limit / start.ratio(window))
        self._go(max(self._least(), rung_at(min(float(limit), needed))))
        self._base = self._rung

    def _follows(self, window: Window) -> bool:
        """After a window at a higher limit: whether to stay there, because the answers follow.

        Once that is no chance any more, what was known before belongs to the past.
        """
        knee, rung, base = self.knee, self._rung, self._base
        self._tried += window.bound_ok
        self._tried_s += window.bound_s
        usual, usual_s = self._recent, self._recent_s
        if usual <= 0 or self._tried <= 0:
            return False
        gain = self._tried / self._tried_s * usual_s / usual - 1
        if gain < 0.5 * (LADDER[rung] / LADDER[base] - 1):
            return False
        noise = knee.dispersion * (1 / self._tried + 1 / usual)
        if gain * gain > self.FOLLOWS * noise or self._tried > max(2 * usual, self.RECENT):
            knee.forget()
            knee.add(base, usual_s, usual)
            knee.add(rung, self._tried_s, self._tried)
            self._top = max(self._top, 2 * LADDER[rung])
            self._choose(window)
        return True

    def _is_changed(self, window: Window) -> bool:
        """Whether the base answers so much more or less than it used to that what was known is void; and then start."""
        keep = max(0.75, 1 - window.bound_ok / self.RECENT)
        self._recent = keep * self._recent + window.bound_ok
        self._recent_s = keep * self._recent_s + window.bound_s
        knee, rung = self.knee, self._rung
        expected = knee.rate(rung) * self._recent_s
        if expected <= 0 or self._recent + expected < 40:
            return False
        square = (self._recent - expected) ** 2 / (expected * (1 + self._recent_s / knee.seconds[rung]))
        ratio = self._recent / expected
        if square <= self.ALARM * knee.dispersion or 0.8 < ratio < 1.25:
            return False
        limit = LADDER[rung]
        if window.bound_ok >= self.LEAST:
            # The latest windows may have begun before the change: this one is nearer to what it is now.
            self._recent, self._recent_s = float(window.bound_ok), window.bound_s
            ratio = self._recent / (knee.rate(rung) * self._recent_s)
        knee.forget()
        knee.add(rung, self._recent_s, self._recent)
        if ratio > 1:
            self._choose(window)
            return True
        if window.stuck:
            # It is those who hang that take its places, until they are told from the others: not less, then.
            self._choose(window)
            return True
        # Fewer slots, or each slower? If it is slots, this is where the knee is now.
        self._top = limit
        self._down_s = max(self._down_s, 2 * window.duration_s)
        self._go(max(self._least(), rung_at(max(1.0, limit * max(ratio * 1.1, 0.5)))))
        return True

    def _flee(self, window: Window) -> bool:
        """Go down if most requests are lost; True if this window is of no further use."""
        limit = LADDER[self._rung]
        if window.dropped - window.ok <= 2 * sqrt(window.finished):
            return False
        if limit <= self.minimum:
            return self._fled_for > 0  # what was sent before is still being worked on
        rate = window.ok / window.duration_s
        for rung in self.knee.tried:
            if rung < self._rung and self.knee.answers[rung] > self.LEAST / 2 and self.knee.rate(rung) < 0.75 * rate:
                return False  # it is worse below: they are lost for another reason
        starting = self.is_starting
        self.is_starting = False
        self._pace = rate
        self._fled = limit
        self._fled_for = self.FLED
        self.knee.add(self._rung, window.duration_s, float(window.ok))
        # Half, or what the good answers needed; less only by looking again.
        needed = round(window.service_s / window.duration_s)
        half = 1 if starting and self._start.is_guess else limit // 2  # of a guess nothing need be kept
        self._go(rung_at(max(1, min(limit - 1, max(half, needed)))))
        return True
