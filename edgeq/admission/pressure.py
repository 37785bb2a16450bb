"""How hard a worker is pressed, as one number between 0 and 1, and what it does about it. Decisions only.

Four things can run out: time (the event loop lags), memory, descriptors, and places in the kernel's accept queue. Each
reading becomes a pressure: 0 up to `calm`, 1 from `full` on, in between in proportion; the largest one counts
(Envoy's overload manager: scaled triggers). Then, in this order:

    pressure > 0.5   idle connections are closed sooner: down to a second at 1
    pressure > 0     fewer connections are accepted in a turn
    pressure = 1     requests are refused from a prepared buffer before they are routed, a share that grows while the
                     pressure stays (of memory: at once) and shrinks when it is below 0.9; never all, or nobody would
                     see that it is over (Finagle and Envoy cap it for the same reason)

Lag is the smallest of the last ticks, as CoDel takes the smallest delay: a single long turn (a reload, a collection) is
no pressure, a standing lag is. A full accept queue alone refuses nobody: to accept faster is the remedy, not to shed.
"""

from __future__ import annotations

from typing import Final

LAG_TICKS: Final = 4
"""Ticks over which lag must stand: 200 ms with the worker's tick of 50 ms."""
IDLE_FROM: Final = 0.5
RELAXED: Final = 0.9
MAX_SHED: Final = 0.95
SHED_UP: Final = 0.05
SHED_DOWN: Final = 0.02
"""A tick: full in a second, over in two and a half."""
LEAST_IDLE_S: Final = 1.0
CALM_S: Final = 10.0
"""Without a refusal: so long until it is over, or pressure that is just at its limit would begin twice a second."""

BEGAN: Final = "shedding_began"
ENDED: Final = "shedding_ended"

LAG: Final = "loop_lag"
MEMORY: Final = "memory_pressure"
DESCRIPTORS: Final = "fd_exhausted"


def scaled(value: float, calm: float, full: float) -> float:
    """The pressure of one reading: 0 up to `calm`, 1 from `full` on; 0 if `full` is 0 (switched off)."""
    if full <= 0.0 or value <= calm:
        return 0.0
    if value >= full:
        return 1.0
    return (value - calm) / (full - calm)


class Pressure:
    """One worker's. Limits: `lag_full_s` is the standing lag that is too much, `memory_full` and `descriptors_full` are
    shares of what the process may have; 0 switches one off."""

    __slots__ = (
        "_calm_at",
        "_credit",
        "_lags",
        "descriptors_full",
        "lag_full_s",
        "memory_full",
        "reason",
        "shed_share",
        "value",
    )

    def __init__(self, lag_full_s: float, memory_full: float, descriptors_full: float) -> None:
        self.lag_full_s: float = lag_full_s
        self.memory_full: float = memory_full
        self.descriptors_full: float = descriptors_full
        self.value: float = 0.0
        self.reason = LAG
        """The reason with which requests are refused: what has pressed most, when shedding grew last."""
        self.shed_share: float = 0.0
        self._lags: list[float] = [0.0] * LAG_TICKS
        self._credit: float = 0.0
        self._calm_at: float = 0.0
        """When shedding that has been told is over; 0: none has."""

    def update(self, lag_s: float, memory: float, descriptors: float, accept_fill: float) -> None:
        """Take the readings of one tick: the tick's lag in seconds, the others as shares (0 to 1, or more)."""
        lags = self._lags
        del lags[0]
        lags.append(lag_s)
        lag = scaled(min(lags), self.lag_full_s / 10.0, self.lag_full_s)
        shedding = lag
        reason = LAG
        pressed = scaled(memory, self.memory_full * 0.9, self.memory_full)
        if pressed > shedding:
            shedding = pressed
            reason = MEMORY
        pressed = scaled(descriptors, self.descriptors_full * 0.9, self.descriptors_full)
        if pressed > shedding:
            shedding = pressed
            reason = DESCRIPTORS
        self.value = max(shedding, scaled(accept_fill, 0.5, 1.0) * RELAXED)
        if shedding >= 1.0:
            self.reason = reason
            # Lag shows within ticks whether the share is enough. Memory that was given is held for as long as a client
            # takes, and what is left may be gone in a second.
            self.shed_share = MAX_SHED if reason == MEMORY else min(MAX_SHED, self.shed_share + SHED_UP)
        elif shedding < RELAXED:
            self.shed_share = max(0.0, self.shed_share - SHED_DOWN)

    def news(self, now: float) -> str:
        """What the event log is to be told: BEGAN, ENDED, or nothing. Asked on each tick."""
        if self.shed_share:
            is_new = not self._calm_at
            self._calm_at = now + CALM_S
            return BEGAN if is_new else ""
        if not self._calm_at or now < self._calm_at:
            return ""
        self._calm_at = 0.0
        return ENDED

    def must_shed(self) -> bool:
        """Is this request one of the share to be refused? Evenly spread: a burst meets the same share."""
        self._credit += self.shed_share
        if self._credit >= 1.0:
            self._credit -= 1.0
            return True
        return False

    def idle_s(self, configured_s: float) -> float:
        """How long an idle connection is kept now; 0 (for ever) is bounded only under pressure."""
        if self.value <= IDLE_FROM:
            return configured_s
        ease = (1.0 - self.value) / (1.0 - IDLE_FROM)
        most_s = configured_s or 60.0
        return min(most_s, LEAST_IDLE_S + (most_s - LEAST_IDLE_S) * ease)

    def budget(self, configured: int) -> int:
        """How many connections are accepted in a turn now."""
        return max(1, int(configured * (1.0 - self.value)))

    def snapshot(self) -> dict[str, float | str]:
        """How hard, by what, and the share refused."""
        return {"pressure": self.value, "reason": self.reason, "shed_share": self.shed_share}
