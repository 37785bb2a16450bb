"""Theoretical arrival times of rates, shared by all workers: one limit for the machine, whoever serves the request.

A fixed table of triples (key, base in nanoseconds, unit), and lanes of what each worker has charged (lanes.py): the
time of a key, in monotonic nanoseconds, is its base plus the sum of its lanes. So charges and refunds are exact however
many come at once. The base has many writers, and each writes what it shall be, so what two write at the same moment
differs by the time between them: it moves when a time that has passed is brought to now, when a debt is converted, and
when a key is delayed or comes new.

A time that lies more than a minute ahead is a debt: of a limit of so many a minute, its `unit`, more is owed than all
of it. If the limit changes, what is owed stays, and only the pace at which it is paid is another one. So the unit is
kept beside the time, and whoever comes with another one converts what lies beyond the minute, once; back, too, so it
does no harm that workers hear of a change one after the other. Within the minute the part of it that is used counts,
whatever the limit.

A key may stand in any of `PROBE` places from its home on; key 0 is free and ends a search. Pairs are never removed: a
time that has passed says nothing, so a newcomer who finds no free place takes that of the earliest time in its window.
If even that one lies in the future the table is too full, and the key that is forgotten may begin its burst anew (that
it is the one which was least ahead bounds the harm).

All workers write, nobody locks. What can happen then:
- Two new keys take one place at the same moment, or one takes a place while its former key is charged: a charge comes
  to stand under the other key, or is forgotten. Who asks knows how far ahead a time of his can lie at all, and passes
  it as `latest_ns`.
- Two convert the same debt at the same moment: both write the same time, but for what a third one charges meanwhile.
- A `delay` is lost if another one, or a time that is brought to now, is written at the same moment.

Source: GCRA, ITU-T I.371; the reasons for open addressing are those of keyed.py.
"""

from __future__ import annotations

from typing import Final

from edgeq.board.lanes import Lanes
from edgeq.board.layout import RATE_CELLS, RATES, Board

PROBE: Final = 16
DEBT_FROM_NS: Final = 60_000_000_000
LONGEST_DEBT_NS: Final = 60 * DEBT_FROM_NS
"""Of one that was converted: it fits the board, and nobody pays for days."""
_MASK: Final = RATES - 1


class ArrivalTable:
    """Theoretical arrival times by key, in monotonic nanoseconds; of the whole machine if it stands on the board.

    A base class, not a protocol: compiled, a call through it is a call, and not a search by name.
    """

    __slots__ = ()

    def look(self) -> None:
        """Now and then: see who else there is."""

    def get(self, key: int, latest_ns: int) -> int:
        """The time of a key (1 to 2^62 - 1), but no later one than that; 0, or any time that has passed, if nothing is
        known of it."""
        raise NotImplementedError

    def charge(self, key: int, cost_ns: int, now_ns: int, unit: int = 0) -> int:
        """Move a key's time on by `cost_ns`, from now if it has passed. unit: that of `cost_ns`, for keys that have
        one. Returns the new time, which is kept at least until it has passed."""
        raise NotImplementedError

    def refund(self, key: int, cost_ns: int, now_ns: int, unit: int = 0) -> int:
        """Move a key's time back by `cost_ns` (of this unit), but not behind now: what would be paid back beyond it has
        been earned again already. Returns the new time; now if nothing is known of the key."""
        raise NotImplementedError

    def convert(self, key: int, unit: int, now_ns: int) -> int:
        """Count the debt of a key, if it has one, in this unit from now on. Returns the time."""
        raise NotImplementedError

    def delay(self, key: int, at_ns: int) -> None:
        """Move a key's time on to `at_ns`, unless it is later already."""
        raise NotImplementedError


class GcraTable(ArrivalTable):
    """The one table of a board, as the worker in one slot sees it."""

    __slots__ = ("_at", "_cells", "_key", "_lanes")

    def __init__(self, board: Board, slot: int) -> None:
        self._cells: memoryview = board.rates()
        self._lanes: Lanes = Lanes(board.rate_lanes(), RATES, slot, board.slots_ever_used())
        # Where the last key was found: a `get` is followed by a `charge` of the same key.
        self._key: int = 0
        self._at: int = 0

    def look(self) -> None:
        """See `ArrivalTable`."""
        self._lanes.look()

    def get(self, key: int, latest_ns: int = 2**62) -> int:
        """See `ArrivalTable`."""
        if not self._find(key):
            return 0
        time_ns = self._time_ns(self._at)
        return time_ns if time_ns < latest_ns else latest_ns  # noqa: FURB136 - a call when compiled

    def charge(self, key: int, cost_ns: int, now_ns: int, unit: int = 0) -> int:
        """See `ArrivalTable`."""
        cells = self._cells
        if (key == self._key and cells[RATE_CELLS * self._at] == key) or self._find(key):
            at = self._at
        else:
            at = self._settle(key, now_ns)
        lanes = self._lanes
        # First what was charged, then the base: whoever brings a time to now writes the base before it charges, so
        # nobody sees its charge without it.
        charged_ns = lanes.total(at)
        time_ns: int = cells[RATE_CELLS * at + 1] + charged_ns
        if time_ns < now_ns:
            cells[RATE_CELLS * at + 1] = now_ns - charged_ns
            time_ns = now_ns
        if unit and time_ns + cost_ns - now_ns > DEBT_FROM_NS:
            time_ns = self._convert(at, unit, now_ns)
        lanes.add(at, cost_ns)
        return time_ns + cost_ns

    def refund(self, key: int, cost_ns: int, now_ns: int, unit: int = 0) -> int:
        """See `ArrivalTable`."""
        if not self._find(key):
            return now_ns
        at = self._at
        ahead_ns = self._time_ns(at) - now_ns
        if ahead_ns <= 0:
            return now_ns
        if unit and ahead_ns > DEBT_FROM_NS:
            ahead_ns = self._convert(at, unit, now_ns) - now_ns
        if cost_ns > ahead_ns:
            cost_ns = ahead_ns
        self._lanes.add(at, -cost_ns)
        return now_ns + ahead_ns - cost_ns

    def convert(self, key: int, unit: int, now_ns: int) -> int:
        """See `ArrivalTable`."""
        return self._convert(self._at, unit, now_ns) if self._find(key) else 0

    def _convert(self, at: int, unit: int, now_ns: int) -> int:
        """The same, where it stands. Returns the time."""
        cells = self._cells
        # First the time, then its unit, and written the other way round: so nobody takes one for the other's that was
        # converted just now, and converts it once more.
        charged_ns = self._lanes.total(at)
        time_ns: int = cells[RATE_CELLS * at + 1] + charged_ns
        known: int = cells[RATE_CELLS * at + 2]
        if known != unit:
            cells[RATE_CELLS * at + 2] = unit
            converted_ns = converted(time_ns, known, unit, now_ns)
            if converted_ns != time_ns:
                time_ns = converted_ns
                cells[RATE_CELLS * at + 1] = time_ns - charged_ns
        return time_ns

    def delay(self, key: int, at_ns: int) -> None:
        """See `ArrivalTable`."""
        if not self._find(key):
            self._settle(key, at_ns)
            return
        at = self._at
        charged_ns = self._lanes.total(at)
        if self._cells[RATE_CELLS * at + 1] + charged_ns < at_ns:
            self._cells[RATE_CELLS * at + 1] = at_ns - charged_ns

    def _time_ns(self, at: int) -> int:
        charged_ns = self._lanes.total(at)
        base_ns: int = self._cells[RATE_CELLS * at + 1]
        return base_ns + charged_ns

    def _find(self, key: int) -> bool:
        """Where does a key stand? `_at` then tells."""
        cells = self._cells
        home = key & _MASK
        for step in range(PROBE):
            at = (home + step) & _MASK
            found = cells[RATE_CELLS * at]
            if found == key:
                self._key = key
                self._at = at
                return True
            if found == 0:
                break
        self._key = 0
        return False

    def _settle(self, key: int, time_ns: int) -> int:
        """Give a new key a place and a time. Returns the place."""
        cells = self._cells
        place = -1
        earliest_ns = 2**62
        home = key & _MASK
        for step in range(PROBE):
            at = (home + step) & _MASK
            if cells[RATE_CELLS * at] == 0:
                place = at
                break
            found_ns = self._time_ns(at)
            if found_ns < earliest_ns:
                earliest_ns = found_ns
                place = at
        # First the time: who finds the key must not read that of the one before.
        cells[RATE_CELLS * place + 1] = time_ns - self._lanes.total(place)
        cells[RATE_CELLS * place + 2] = 0
        cells[RATE_CELLS * place] = key
        self._key = key
        self._at = place
        return place


def converted(time_ns: int, known: int, unit: int, now_ns: int) -> int:
    """A time of which what lies beyond a minute was counted in the unit `known` (0: nobody knows), in another one."""
    debt_ns = time_ns - now_ns - DEBT_FROM_NS
    if not known or debt_ns <= 0:
        return time_ns
    debt_ns = debt_ns * known // unit
    if debt_ns > LONGEST_DEBT_NS - DEBT_FROM_NS:
        debt_ns = LONGEST_DEBT_NS - DEBT_FROM_NS
    return now_ns + DEBT_FROM_NS + debt_ns
