"""Which worker slots run, which leave, and when a dead worker is started again.

::

    EMPTY -> STARTING -> SERVING -> LEAVING -> EMPTY
                |  ^        |
                v  |        |          died, not leaving
               BACKOFF <----+

Invariants: a slot that leaves is not used again before its worker is gone (its row of the board has one writer); only
BACKOFF slots are ever due; the delay grows only while a worker keeps dying young and never passes its cap.
The first restart is at once: a lone crash must not cost capacity, only a crash loop must not cost the machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Final, NamedTuple

FIRST_DELAY_S: Final = 0.1
MAX_DELAY_S: Final = 5.0
YOUNG_S: Final = 10.0
"""Who dies younger makes the delay grow."""
SETTLED_S: Final = 30.0
"""Who lived as long starts again at once."""


class Backoff:
    """How long to wait before something that died is started again."""

    __slots__ = ("_delay_s", "_started_s")

    def __init__(self) -> None:
        self._delay_s = 0.0
        self._started_s = 0.0

    def started(self, now_s: float) -> None:
        """A new life begins."""
        self._started_s = now_s

    def died(self, now_s: float) -> float:
        """A life ended. Returns the seconds to wait: 0, then FIRST_DELAY_S doubling up to MAX_DELAY_S."""
        lived_s = now_s - self._started_s
        wait_s = 0.0 if lived_s >= SETTLED_S else self._delay_s
        grown_s = 2 * wait_s if lived_s < YOUNG_S else wait_s
        self._delay_s = min(MAX_DELAY_S, max(FIRST_DELAY_S, grown_s))
        return wait_s


class Phase(Enum):
    """Where a slot is in the drawing above."""

    EMPTY = "empty"
    BACKOFF = "backoff"
    STARTING = "starting"
    SERVING = "serving"
    LEAVING = "leaving"


_ACTIVE: Final = frozenset((Phase.BACKOFF, Phase.STARTING, Phase.SERVING))


class Resize(NamedTuple):
    """What another number of workers means: slots to start and slots to let go."""

    start: tuple[int, ...]
    leave: tuple[int, ...]


class SlotTable:
    """All slots of one supervisor."""

    __slots__ = ("_backoffs", "_due_s", "_phases")

    def __init__(self, capacity: int) -> None:
        self._phases = [Phase.EMPTY] * capacity
        self._backoffs = [Backoff() for _ in range(capacity)]
        self._due_s = [0.0] * capacity

    @property
    def capacity(self) -> int:
        """Slots in all."""
        return len(self._phases)

    def phase(self, slot: int) -> Phase:
        """Where a slot is."""
        return self._phases[slot]

    def active(self) -> tuple[int, ...]:
        """Slots that have or shall have a worker, without the leaving ones."""
        return tuple(slot for slot, phase in enumerate(self._phases) if phase in _ACTIVE)

    def serving(self) -> frozenset[int]:
        """Slots whose worker accepts connections."""
        return frozenset(slot for slot, phase in enumerate(self._phases) if phase is Phase.SERVING)

    def plan(self, workers: int) -> Resize:
        """What it takes to have so many active slots; changes nothing. Raises ValueError if there are too few slots."""
        active = self.active()
        if len(active) >= workers:
            return Resize((), active[workers:])
        empty = [slot for slot, phase in enumerate(self._phases) if phase is Phase.EMPTY]
        missing = workers - len(active)
        if len(empty) < missing:
            raise ValueError(
                f"{workers} workers asked, but only {len(active) + len(empty)} of {self.capacity} slots are free"
            )
        return Resize(tuple(empty[:missing]), ())

    def occupied(self, slot: int) -> None:
        """A worker of an earlier supervisor is still there, and leaves."""
        self._require(slot, Phase.EMPTY)
        self._phases[slot] = Phase.LEAVING

    def open(self, slots: Iterable[int], now_s: float) -> None:
        """Empty slots become due at once."""
        for slot in slots:
            self._require(slot, Phase.EMPTY)
            self._backoffs[slot] = Backoff()
            self._phases[slot] = Phase.BACKOFF
            self._due_s[slot] = now_s

    def due(self, now_s: float) -> tuple[int, ...]:
        """Slots to start now."""
        return tuple(
            slot for slot, phase in enumerate(self._phases) if phase is Phase.BACKOFF and self._due_s[slot] <= now_s
        )

    def next_due_s(self) -> float | None:
        """When the next slot becomes due."""
        waiting = [self._due_s[slot] for slot, phase in enumerate(self._phases) if phase is Phase.BACKOFF]
        return min(waiting, default=None)

    def hurry(self, now_s: float) -> None:
        """Nobody waits any longer: a new configuration may have cured what they died of."""
        for slot, phase in enumerate(self._phases):
            if phase is Phase.BACKOFF:
                self._due_s[slot] = now_s

    def starting(self, slot: int, now_s: float) -> None:
        """A worker was asked for."""
        self._require(slot, Phase.BACKOFF)
        self._phases[slot] = Phase.STARTING
        self._backoffs[slot].started(now_s)

    def ready(self, slot: int) -> None:
        """The worker accepts connections."""
        self._require(slot, Phase.STARTING)
        self._phases[slot] = Phase.SERVING

    def leave(self, slot: int) -> None:
        """The worker shall go; without one the slot is empty at once."""
        if self._phases[slot] is Phase.BACKOFF:
            self._phases[slot] = Phase.EMPTY
        else:
            self._require(slot, Phase.STARTING, Phase.SERVING, Phase.LEAVING)
            self._phases[slot] = Phase.LEAVING

    def died(self, slot: int, now_s: float) -> float | None:
        """The worker is gone. Returns the seconds until its successor starts, None if there will be none."""
        self._require(slot, Phase.STARTING, Phase.SERVING, Phase.LEAVING)
        if self._phases[slot] is Phase.LEAVING:
            self._phases[slot] = Phase.EMPTY
            return None
        wait_s = self._backoffs[slot].died(now_s)
        self._phases[slot] = Phase.BACKOFF
        self._due_s[slot] = now_s + wait_s
        return wait_s

    def _require(self, slot: int, *allowed: Phase) -> None:
        if self._phases[slot] not in allowed:
            raise ValueError(f"slot {slot} is {self._phases[slot].value}")
