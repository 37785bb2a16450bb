"""Do all workers make progress? Decided by a tick that each of them moves on the board.

A watchdog is told of progress only if every worker that serves has moved its tick since the last look. Those who start
or leave are not asked: they have deadlines of their own, after which the supervisor kills them.
"""

from __future__ import annotations

from collections.abc import Mapping

LOOKS_PER_TIMEOUT = 4
"""A worker that stands still for less than a quarter of the watchdog's time is never noticed, one that stands still for
the whole of it always is."""


class Progress:
    """Remembers the ticks of the last look."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, int]] = {}

    def look(self, ticks: Mapping[int, tuple[int, int]]) -> list[int]:
        """`ticks`: of each slot that serves, its process and its tick. Returns the slots that stand still.

        A slot that was not there at the last look, or whose process is another one, has moved.
        """
        stuck = sorted(slot for slot, tick in ticks.items() if self._seen.get(slot) == tick)
        self._seen = dict(ticks)
        return stuck
