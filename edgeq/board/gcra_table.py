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
_ANY_NS: Final = 2**62 - 1


class Arrival:
    """The time of one key, as it was when it was read last: who reads it and then charges it looks for it once.

    What was read holds for a turn of the event loop, in which the same key is charged by nobody else of this worker.
    A base class, not a protocol: compiled, a call through it is a call, and not a search by name.
    """

    __slots__ = ()

    def read(self, key: int, latest_ns: int) -> int:
        """Turn to a key (1 to 2^62 - 1). Returns its time, but no later one than `latest_ns`; 0, or any time that has
        passed, if nothing is known of it."""
        raise NotImplementedError

    def charge(self, cost_ns: int, now_ns: int, unit: int = 0) -> int:
        """Move the time on by `cost_ns`, from now if it has passed. unit: that of `cost_ns`, for keys that have one.
        Returns the new time, which is kept at least until it has passed."""
        raise NotImplementedError

    def refund(self, cost_ns: int, now_ns: int, unit: int = 0) -> int:
        """Move the time back by `cost_ns` (of this unit), but not behind now: what would be paid back beyond it has
        been earned again already. Returns the new time; now if nothing is known of the key."""
        raise NotImplementedError

    def convert(self, unit: int, now_ns: int) -> int:
        """Count the debt, if there is one, in this unit from now on. Returns the time; 0 if nothing is known."""
        raise NotImplementedError

    def delay(self, at_ns: int) -> None:
        """Move the time on to `at_ns`, unless it is later already."""
        raise NotImplementedError

    def hasten(self, at_ns: int) -> None:
        """Move the time back to `at_ns`; as in a `delay`, what was charged stays."""
        raise NotImplementedError


class ArrivalTable:
    """Theoretical arrival times by key, in monotonic nanoseconds; of the whole machine if it stands on the board.

    Its methods are those of `Arrival`, for any key.
    """

    __slots__ = ("_any",)

    def __init__(self) -> None:
        self._any: Arrival = self.arrival()

    def arrival(self) -> Arrival:
        """For one who comes with the same key again and again, and reads what he charges."""
        raise NotImplementedError

    def look(self) -> None:
        """Now and then: see who else there is."""

    def get(self, key: int, latest_ns: int = _ANY_NS) -> int:
        """See `Arrival.read`."""
        return self._any.read(key, latest_ns)

    def charge(self, key: int, cost_ns: int, now_ns: int, unit: int = 0) -> int:
        """See `Arrival.charge`."""
        self._any.read(key, _ANY_NS)
        return self._any.charge(cost_ns, now_ns, unit)

    def refund(self, key: int, cost_ns: int, now_ns: int, unit: int = 0) -> int:
        """See `Arrival.refund`."""
        self._any.read(key, _ANY_NS)
        return self._any.refund(cost_ns, now_ns, unit)

    def convert(self, key: int, unit: int, now_ns: int) -> int:
        """See `Arrival.convert`."""
        self._any.read(key, _ANY_NS)
        return self._any.convert(unit, now_ns)

    def delay(self, key: int, at_ns: int) -> None:
        """See `Arrival.delay`."""
        self._any.read(key, _ANY_NS)
        self._any.delay(at_ns)

    def hasten(self, key: int, at_ns: int) -> None:
        """Move the time of a key back to `at_ns`, if it is later."""
        if self._any.read(key, _ANY_NS) > at_ns:
            self._any.hasten(at_ns)


class GcraTable(ArrivalTable):
    """The one table of a board, as the worker in one slot sees it."""

    __slots__ = ("cells", "lanes", "settled")

    def __init__(self, board: Board, slot: int) -> None:
        self.cells: memoryview = board.rates()
        self.lanes: Lanes = Lanes(board.rate_lanes(), RATES, slot, board.slots_ever_used())
        self.settled: int = 0
        """Goes on when a key is given a place by this worker, as another one may have stood there, and now and then."""
        super().__init__()

    def arrival(self) -> Arrival:
        """See `ArrivalTable`."""
        return GcraArrival(self)

    def look(self) -> None:
        """See `ArrivalTable`."""
        self.lanes.look()
        self.settled += 1


class GcraArrival(Arrival):
    """Where a key stands in that table, and what was read there."""

    __slots__ = ("_base_ns", "_cells", "_charged_ns", "_is_known", "_key", "_lanes", "_place", "_settled", "_table")

    def __init__(self, table: GcraTable) -> None:
        self._table: GcraTable = table
        self._cells: memoryview = table.cells
        self._lanes: Lanes = table.lanes
        self._key: int = 0
        self._is_known: bool = False
        self._place: int = 0
        self._settled: int = 0
        self._base_ns: int = 0
        self._charged_ns: int = 0

    def read(self, key: int, latest_ns: int) -> int:
        """See `Arrival`."""
        settled = self._table.settled
        # A key seldom moves: it is where it stood last, unless another one does. If two workers have given it two
        # places all the same, all find the first one soon.
        if (
            not self._is_known
            or key != self._key
            or settled != self._settled
            or self._cells[RATE_CELLS * self._place] != key
        ):
            self._settled = settled
            self._key = key
            self._is_known = self._find(key)
            if not self._is_known:
                return 0
        time_ns = self._look()
        return time_ns if time_ns < latest_ns else latest_ns  # noqa: FURB136 - a call when compiled

    def charge(self, cost_ns: int, now_ns: int, unit: int = 0) -> int:
        """See `Arrival`."""
        if self._settled != self._table.settled:
            self.read(self._key, _ANY_NS)
        if not self._is_known:
            self._settle(now_ns)
        # What was charged is read before the base: who brings a time to now writes the base before he charges, so
        # nobody sees his charge without it.
        time_ns = self._base_ns + self._charged_ns
        if time_ns < now_ns:
            self._base_ns = now_ns - self._charged_ns
            self._cells[RATE_CELLS * self._place + 1] = self._base_ns
            time_ns = now_ns
        if unit and time_ns + cost_ns - now_ns > DEBT_FROM_NS:
            time_ns = self.convert(unit, now_ns)
        self._lanes.add(self._place, cost_ns)
        return time_ns + cost_ns

    def refund(self, cost_ns: int, now_ns: int, unit: int = 0) -> int:
        """See `Arrival`."""
        ahead_ns = self._base_ns + self._charged_ns - now_ns
        if not self._is_known or ahead_ns <= 0:
            return now_ns
        if unit and ahead_ns > DEBT_FROM_NS:
            ahead_ns = self.convert(unit, now_ns) - now_ns
        if cost_ns > ahead_ns:
            cost_ns = ahead_ns
        self._lanes.add(self._place, -cost_ns)
        return now_ns + ahead_ns - cost_ns

    def convert(self, unit: int, now_ns: int) -> int:
        """See `Arrival`."""
        if not self._is_known:
            return 0
        cells = self._cells
        at = RATE_CELLS * self._place
        # First the time, then its unit, and written the other way round: so nobody takes one for the other's that was
        # converted just now, and converts it once more.
        time_ns = self._look()
        known: int = cells[at + 2]
        if known != unit:
            cells[at + 2] = unit
            converted_ns = converted(time_ns, known, unit, now_ns)
            if converted_ns != time_ns:
                time_ns = converted_ns
                self._base_ns = time_ns - self._charged_ns
                cells[at + 1] = self._base_ns
        return time_ns

    def delay(self, at_ns: int) -> None:
        """See `Arrival`."""
        if not self._is_known:
            self._settle(at_ns)
        if self._base_ns + self._charged_ns < at_ns:
            self._base_ns = at_ns - self._charged_ns
            self._cells[RATE_CELLS * self._place + 1] = self._base_ns

    def hasten(self, at_ns: int) -> None:
        """See `Arrival`."""
        self._base_ns = at_ns - self._charged_ns
        self._cells[RATE_CELLS * self._place + 1] = self._base_ns

    def _look(self) -> int:
        """Read what stands there. Returns the time."""
        place = self._place
        charged_ns = self._lanes.total(place)
        base_ns: int = self._cells[RATE_CELLS * place + 1]
        self._charged_ns = charged_ns
        self._base_ns = base_ns
        return base_ns + charged_ns

    def _find(self, key: int) -> bool:
        """Where does a key stand? `_place` then tells."""
        cells = self._cells
        home = key & _MASK
        for step in range(PROBE):
            place = (home + step) & _MASK
            found = cells[RATE_CELLS * place]
            if found == key:
                self._place = place
                return True
            if found == 0:
                break
        return False

    def _settle(self, time_ns: int) -> None:
        """Give a new key a place and a time, unless another worker has done so since it was read."""
        cells = self._cells
        lanes = self._lanes
        key = self._key
        self._is_known = True
        if self._find(key):
            self._look()
            return
        free = -1
        earliest_ns = _ANY_NS
        home = key & _MASK
        for step in range(PROBE):
            place = (home + step) & _MASK
            if cells[RATE_CELLS * place] == 0:
                free = place
                break
            found_ns = cells[RATE_CELLS * place + 1] + lanes.total(place)
            if found_ns < earliest_ns:
                earliest_ns = found_ns
                free = place
        self._table.settled += 1
        self._settled = self._table.settled
        # First the time: who finds the key must not read that of the one before.
        cells[RATE_CELLS * free + 1] = time_ns - lanes.total(free)
        cells[RATE_CELLS * free + 2] = 0
        cells[RATE_CELLS * free] = key
        # If another worker has done the same at this moment, all find the first of the two places.
        self._find(key)
        self._look()


def converted(time_ns: int, known: int, unit: int, now_ns: int) -> int:
    """A time of which what lies beyond a minute was counted in the unit `known` (0: nobody knows), in another one."""
    debt_ns = time_ns - now_ns - DEBT_FROM_NS
    if not known or debt_ns <= 0:
        return time_ns
    debt_ns = debt_ns * known // unit
    if debt_ns > LONGEST_DEBT_NS - DEBT_FROM_NS:
        debt_ns = LONGEST_DEBT_NS - DEBT_FROM_NS
    return now_ns + DEBT_FROM_NS + debt_ns
