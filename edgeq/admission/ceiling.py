"""An upstream that refuses for load itself (429, 503) says how much it takes: what a learned limit makes of that."""

from __future__ import annotations

from typing import Final

from edgeq.admission.limits import Window


class Ceiling:
    """Stay below the number in flight at which the upstream itself refuses.

    How many were in flight beside a refusal says it exactly. But an upstream may refuse for other reasons (a broken
    endpoint, a quota): if answers become fewer with the limit, its refusals are not heeded for a while.
    """

    HEED: Final = 0.02
    """Share of refusals that are heeded, at least two."""
    HOLD_S: Final = 5.0
    HOLD_MAX_S: Final = 60.0
    """How long nothing is tried above; doubles when the next trial is refused too."""
    DEAF_S: Final = 30.0
    FEWER: Final = 0.75
    ENOUGH: Final = 24
    """Good answers from which on it is judged whether there are fewer than this share of those before."""

    __slots__ = (
        "_after_ok",
        "_after_s",
        "_before_ok",
        "_before_s",
        "_deaf_until",
        "_from",
        "_hold_s",
        "_last",
        "_maximum",
        "_until",
        "value",
    )

    def __init__(self, maximum: int) -> None:
        self.value: int = maximum
        """The limit must not be above this now."""
        self._maximum: int = maximum
        self._last: int = maximum
        self._until: float = 0.0
        self._hold_s: float = self.HOLD_S
        self._deaf_until: float = 0.0
        # The limit before it was lowered, perhaps in steps, 0 otherwise; good answers and seconds then, and since.
        self._from: int = 0
        self._before_ok: int = 0
        self._before_s: float = 0.0
        self._after_ok: int = 0
        self._after_s: float = 0.0

    def update(self, window: Window, limit: int) -> int:
        """The limit that follows from a window's refusals; 0 if none does."""
        now = window.now
        if self._from > limit:
            self._after_ok += window.ok
            self._after_s += window.duration_s
            if self._is_for_another_reason(window):
                before = self._from
                self._from = 0
                self._deaf_until = now + self.DEAF_S
                self.value = self._maximum
                return before
        if window.busy < 2 or window.busy < self.HEED * window.finished or now < self._deaf_until:
            if limit > self._last:
                self._hold_s = self.HOLD_S
                self._last = self._maximum
            if now >= self._until:
                self._from = 0
                self.value = self._maximum
            return 0
        if self._from == 0:
            # Once is no proof: requests that clients have left may hold a slot for a moment.
            self._from = limit
            self._before_ok = window.ok
            self._before_s = window.duration_s
            return 0
        if self._from == limit:
            self._before_ok += window.ok
            self._before_s += window.duration_s
        self._after_ok = 0
        self._after_s = 0.0
        self.value = max(1, min(limit - 1, round(window.busy_beside / window.busy) - 1))
        self._last = self.value
        self._until = now + self._hold_s
        self._hold_s = min(2 * self._hold_s, self.HOLD_MAX_S)
        return self.value

    def _is_for_another_reason(self, window: Window) -> bool:
        """Whether a lower limit has only cost answers."""
        if self._after_ok < self.ENOUGH or window.bound_s < 0.5 * window.duration_s:
            return False
        return self._after_ok * self._before_s < self.FEWER * self._before_ok * self._after_s
