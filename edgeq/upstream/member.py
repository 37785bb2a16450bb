"""An endpoint in the eyes of the balancer: what its answers cost, and whether it may be used.

How many requests it has is not counted here but read from its pool, so that no count can leak.

The cost of a member is its latency to the head of the answer, in seconds, as a "peak EWMA": it follows a rise at once
and a fall slowly (time constant 10 s), and what is not measured anew fades, so that a member that was slow is tried
again. An engine of models tells more: how many requests it has from everybody, and how many of them wait there; these
count like requests of our own. Two deviations from Finagle and Linkerd, whose way this is:

- A rise is at most threefold for one answer. Without that, one answer that took 5 s instead of 20 ms keeps a member out
  for a minute; a member that has really become slow is known after three answers all the same.
- A failure does not replace the cost (Linkerd records 5 s), it adds a penalty that doubles with each failure and halves
  with each good answer: ten times what its peers cost at first, 5 s at most. So a fast failure attracts nobody, and one
  error in a thousand answers does not take a quarter of the capacity away.

Sources: Finagle PeakEwma.scala; linkerd2-proxy load-biaser; Envoy's slow start.
"""

from __future__ import annotations

from math import exp
from typing import TYPE_CHECKING, Final

from edgeq.upstream.shared import BAD, UNKNOWN

if TYPE_CHECKING:
    from edgeq.upstream.engine import EngineQueue
    from edgeq.upstream.pool import Pool
    from edgeq.upstream.shared import SharedCells

DECAY_S: Final = 10.0
"""Finagle's and Linkerd's default."""
MAX_RISE: Final = 3.0
PENALTY_FACTOR: Final = 10.0
PENALTY_MIN_S: Final = 0.1
PENALTY_MAX_S: Final = 5.0
BUSY_MIN_S: Final = 1.0
BUSY_MAX_S: Final = 300.0
"""Retry-After is believed so far (Linkerd)."""
UNSEEN_S: Final = 1e6
"""Load of each pending request at a member that has not answered yet: one request finds out, the others wait."""
FAILING_S: Final = 1e7
"""Of one that has never given a good answer and has failed lately: who comes waits with whoever finds out."""
LEAST_RAMP: Final = 0.1
"""The share of its weight with which a member starts slowly (Envoy)."""
_FRESH_S: Final = 0.1
"""A cost that is younger has not faded by more than 1 %: no exp() for it."""


class Member:
    """One endpoint, as one worker knows it. Times are monotonic seconds."""

    __slots__ = (
        "adopted_ejection",
        "adopted_health",
        "answered",
        "cells",
        "consecutive",
        "cost_at",
        "cost_s",
        "credit",
        "ejected_times",
        "ejected_until",
        "engine",
        "engine_load",
        "engine_until",
        "failed",
        "fails_by",
        "health",
        "name",
        "penalty_at",
        "penalty_s",
        "pool",
        "ramp_at",
        "ramp_s",
        "reviewed_answered",
        "reviewed_failed",
        "seen",
        "share",
        "weight",
    )

    def __init__(self, pool: Pool, cells: SharedCells, weight: float) -> None:
        self.pool: Pool = pool
        self.name: str = pool.name
        self.cells: SharedCells = cells
        self.weight: float = weight
        self.share: float = weight
        """Its weight, reduced while it starts slowly."""
        self.ramp_at: float = 0.0
        self.ramp_s: float = 0.0
        """Slow start: since when, and for how long; 0: not any more."""
        self.credit: float = 0.0
        """Of smooth weighted round robin."""
        self.seen: bool = False
        self.cost_s: float = 0.0
        self.cost_at: float = 0.0
        self.penalty_s: float = 0.0
        self.penalty_at: float = 0.0
        self.answered: int = 0
        self.failed: int = 0
        self.consecutive: int = 0
        """Failures since the last good answer."""
        self.fails_by: str = ""
        """By what the last of them was: a reason of `edgeq.reasons`, or a status."""
        self.reviewed_answered: int = 0
        self.reviewed_failed: int = 0
        """What the counters of all workers were at the last review of success rates."""
        self.ejected_until: float = 0.0
        """0: it is not ejected."""
        self.ejected_times: int = 0
        """Ejections without a good interval between them."""
        self.adopted_ejection: int = 0
        self.adopted_health: int = 0
        """The newest changes of any worker that this one has taken over."""
        self.health: int = UNKNOWN
        self.engine: EngineQueue | None = None
        """What its engine has told last; None: nothing, or it does not tell any more."""
        self.engine_load: float = 0.0
        """Requests that its engine says to have beside ours (engine.py), believed until `engine_until`; 0: it has never
        said anything."""
        self.engine_until: float = 0.0

    def pending(self) -> int:
        """Requests that run here or wait here."""
        pool = self.pool
        return pool.opened - len(pool.idle) + len(pool.waiting)

    def is_well(self) -> bool:
        """Neither ejected nor found bad by checks."""
        return not self.ejected_until and self.health != BAD

    def has_room(self) -> bool:
        """Would a request find a connection, without waiting for another request to end?"""
        return self.pending() < self.pool.upstream.max_connections

    def cost(self, now: float) -> float:
        """Seconds that an answer costs."""
        age = now - self.cost_at
        return self.cost_s if age < _FRESH_S else self.cost_s * exp(-age / DECAY_S)

    def penalty(self, now: float) -> float:
        """Seconds that are added to the cost for what has failed."""
        age = now - self.penalty_at
        return self.penalty_s if age < _FRESH_S else self.penalty_s * exp(-age / DECAY_S)

    def load(self, now: float) -> float:
        """What p2c-ewma compares."""
        pending = self.pending()
        if self.seen:
            cost = self.cost(now)
        else:
            cost = UNSEEN_S if pending or (self.engine_load > 0.0 and now < self.engine_until) else 0.0
        if self.penalty_s:
            penalty = self.penalty(now)
            cost += penalty
            if not self.answered and penalty >= PENALTY_MIN_S / 2:
                cost += FAILING_S
        if now < self.engine_until:
            return cost * (pending + 1 + self.engine_load) / self.share
        return cost * (pending + 1) / self.share

    def crowd(self, now: float) -> float:
        """What least-requests compares: a penalty of `PENALTY_MIN_S` counts like a second request beside each."""
        crowd = (self.pending() + 1) / self.share
        if now < self.engine_until:
            crowd += self.engine_load / self.share
        return crowd * (1.0 + self.penalty(now) / PENALTY_MIN_S) if self.penalty_s else crowd

    def took(self, seconds: float, now: float) -> None:
        """An answer's head came after so many seconds."""
        if not self.seen:
            self.seen = True
            self.cost_s = seconds
        else:
            cost = self.cost_s
            if seconds > cost:
                most = cost * MAX_RISE
                self.cost_s = min(most, seconds)
            else:
                kept = exp((self.cost_at - now) / DECAY_S)
                self.cost_s = cost * kept + seconds * (1.0 - kept)
        self.cost_at = now

    def took_longer(self, seconds: float, now: float) -> None:
        """A request was given up after so many seconds without an answer: it would have taken longer."""
        if not self.seen or seconds > self.cost(now):
            self.took(seconds, now)

    def succeeded(self) -> None:
        """A good answer."""
        self.answered += 1
        if self.consecutive:
            self.consecutive = 0
            self.fails_by = ""
        if self.penalty_s:
            self.penalty_s *= 0.5
            if self.penalty_s < 1e-4:
                self.penalty_s = 0.0

    def punish(self, peers_s: float, now: float, by: str = "") -> None:
        """A failure, `by` what; `peers_s` is what an answer costs elsewhere."""
        self.failed += 1
        self.fails_by = by
        self.consecutive += 1
        least = max(PENALTY_MIN_S, PENALTY_FACTOR * peers_s)
        penalty = 2.0 * self.penalty(now)
        most = max(PENALTY_MAX_S, least)
        self.penalty_s = least if penalty < least else min(penalty, most)
        self.penalty_at = now

    def busy(self, retry_after_s: float, now: float) -> None:
        """It says that it has enough to do: that is no failure, but others are asked for a while.

        `retry_after_s` is what it wished; -1: it did not say.
        """
        wished = min(max(retry_after_s, BUSY_MIN_S), BUSY_MAX_S)
        if wished > self.penalty(now):
            self.penalty_s = wished
            self.penalty_at = now

    def start_slowly(self, now: float, ramp_s: float) -> None:
        """It is new, or back: its weight grows to the whole within `ramp_s`."""
        self.ramp_at = now
        self.ramp_s = ramp_s
        self.grow(now)

    def grow(self, now: float) -> bool:
        """One step of the slow start. Returns: whether the share has changed."""
        if self.ramp_s <= 0.0:
            if self.share == self.weight:
                return False
            self.share = self.weight
            return True
        part = (now - self.ramp_at) / self.ramp_s
        if part >= 1.0:
            self.ramp_s = 0.0
            part = 1.0
        self.share = self.weight * max(LEAST_RAMP, part)
        return True

    def snapshot(self, now: float) -> dict[str, int | float | str]:
        """What the balancer knows."""
        seen: dict[str, int | float | str] = {
            "endpoint": self.name,
            "weight": self.weight,
            "share": self.share,
            "pending": self.pending(),
            "cost_s": self.cost(now),
            "penalty_s": self.penalty(now),
            "answered": self.answered,
            "failed": self.failed,
            "consecutive_failures": self.consecutive,
            "fails_by": self.fails_by,
            "heard_ns": int((self.penalty_at if self.consecutive else self.cost_at) * 1e9),
            "ejected_s": max(0.0, self.ejected_until - now) if self.ejected_until else 0.0,
            "health": ("unknown", "good", "bad")[self.health],
        }
        if now < self.engine_until:
            seen["engine_load"] = self.engine_load
            if self.engine is not None:
                seen["engine_running"] = self.engine.running
                seen["engine_waiting"] = self.engine.waiting
                seen["engine_cache"] = self.engine.cache_used
        return seen
