"""How long a place is held when no more requests are let in than are needed.

Who waits is too old by a multiple of the time that a place is held (congestion.py). Under a limit that is higher than
needed, because it is still a guess or because it is tried whether answers follow, requests wait at the upstream as
well, and a place is held for longer: that would be told as patience, and refusals would take twice as long. The mean of
what has finished follows late when the limit has come down again, so for a while what it was before counts.
"""

from __future__ import annotations

from typing import Final


class Rest:
    """Of one learned limit."""

    AFTER: Final = 64
    """Answers; twice what the mean remembers (service.py)."""

    __slots__ = ("_until", "s")

    def __init__(self) -> None:
        self.s: float = 0.0
        """Seconds; 0.0: as long as places are held now."""
        self._until: int = 0

    def look(self, first_s: float, is_raised: bool, mean_s: float, answers: int) -> float:
        """On each tick, and at once when the limit has moved. Returns: `s`.

        first_s: what the first answers took, while the limit is a guess, or 0.0; is_raised: it is higher than what it
        settles at; mean_s: of what has finished; answers: since the start of the worker.
        """
        if first_s > 0.0:
            self.s = first_s
            self._until = answers + self.AFTER
        elif is_raised:
            if self.s == 0.0:
                self.s = mean_s
            self._until = answers + self.AFTER
        elif answers >= self._until:
            self.s = 0.0
        return self.s
