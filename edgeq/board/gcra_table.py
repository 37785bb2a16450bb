"""Theoretical arrival times of rates, shared by all workers: one limit for the machine, whoever serves the request.

A fixed table of pairs (key, time in monotonic nanoseconds). A key may stand in any of `PROBE` places from its home on;
key 0 is free and ends a search. Pairs are never removed: a time that has passed says nothing, so a newcomer who finds
no free place takes that of the earliest time in its window. If even that one lies in the future the table is too full,
and the key that is forgotten may begin its burst anew (that it is the one which was least ahead bounds the harm).

All workers write, nobody locks. What can happen then:
- Two workers charge one key at the same moment: one of both updates is lost. With `charge` that moment is the tenth of
  a microsecond between a load and a store; what others charged since our `get` is kept, so it costs the burst, and not
  the rate. With `set` it lasts from our `get` on. tests/board/test_processes.py measures the error.
- `refund` and `delay` lose or undo one update in the same tenth of a microsecond, as `charge` does.
- Two new keys take one place at the same moment: one is forgotten, which loses its update. Its time must not stay under
  the other's key, so who has taken a place looks once more and puts its own time right.
- What remains (a worker that is put to sleep by the kernel between two stores) can leave a strange time under a key.
  Who asks knows how far ahead a time of his can lie at all, and passes it as `latest_ns`.

Source: GCRA, ITU-T I.371; the reasons for open addressing are those of keyed.py.
"""

from __future__ import annotations

from typing import Final

from edgeq.board.layout import RATES, Board

PROBE: Final = 16
_MASK: Final = RATES - 1


class ArrivalTable:
    """Theoretical arrival times by key, in monotonic nanoseconds; of the whole machine if it stands on the board.

    A base class, not a protocol: compiled, a call through it is a call, and not a search by name.
    """

    __slots__ = ()

    def get(self, key: int, latest_ns: int) -> int:
        """The time of a key (1 to 2^62 - 1), but no later one than that; 0, or any time that has passed, if nothing is
        known of it."""
        raise NotImplementedError

    def charge(self, key: int, cost_ns: int, now_ns: int) -> int:
        """Move a key's time on by `cost_ns`, from now if it has passed. Returns the new time, which is kept at least
        until it has passed."""
        raise NotImplementedError

    def refund(self, key: int, cost_ns: int, now_ns: int) -> int:
        """Move a key's time back by `cost_ns`, but not behind now: what would be paid back beyond it has been earned
        again already. Returns the new time; now if nothing is known of the key."""
        raise NotImplementedError

    def delay(self, key: int, at_ns: int) -> None:
        """Move a key's time on to `at_ns`, unless it is later already."""
        raise NotImplementedError


class GcraTable(ArrivalTable):
    """The one table of a board; every worker has an object of this class over the same cells."""

    __slots__ = ("_at", "_cells", "_key")

    def __init__(self, board: Board) -> None:
        self._cells: memoryview = board.rates()
        # Where the last key was found: a `get` is followed by a `set` of the same key.
        self._key: int = 0
        self._at: int = 0

    def get(self, key: int, latest_ns: int = 2**62) -> int:
        """The time of a key (1 to 2^64 - 1), 0 if nothing is known of it; never more than `latest_ns`."""
        cells = self._cells
        home = key & _MASK
        for step in range(PROBE):
            at = 2 * ((home + step) & _MASK)
            found = cells[at]
            if found == key:
                self._key = key
                self._at = at
                time_ns: int = cells[at + 1]
                return time_ns if time_ns < latest_ns else latest_ns  # noqa: FURB136 - a call when compiled
            if found == 0:
                break
        self._key = 0
        return 0

    def set(self, key: int, at_ns: int) -> None:
        """Keep a time (1 to 2^62 - 1), at least until it has passed."""
        cells = self._cells
        at = self._at
        if key == self._key and cells[at] == key:
            cells[at + 1] = at_ns
            return
        at = self._place(key)
        # First the time: who finds the key must not read that of the one before.
        cells[at + 1] = at_ns
        if cells[at] != key:
            cells[at] = key
            if cells[at + 1] != at_ns and cells[at] == key:
                cells[at + 1] = at_ns

    def charge(self, key: int, cost_ns: int, now_ns: int) -> int:
        """Move a key's time on by `cost_ns`, from now if it has passed. Returns the new time."""
        cells = self._cells
        if (key != self._key or cells[self._at] != key) and self.get(key) == 0:
            self.set(key, now_ns + cost_ns)
            return now_ns + cost_ns
        at = self._at + 1
        time_ns: int = cells[at]
        if time_ns < now_ns:
            time_ns = now_ns
        time_ns += cost_ns
        cells[at] = time_ns
        return time_ns

    def refund(self, key: int, cost_ns: int, now_ns: int) -> int:
        """See `ArrivalTable`."""
        cells = self._cells
        if (key != self._key or cells[self._at] != key) and self.get(key) == 0:
            return now_ns
        at = self._at + 1
        time_ns: int = cells[at]
        time_ns -= cost_ns
        if time_ns < now_ns:
            time_ns = now_ns
        cells[at] = time_ns
        return time_ns

    def delay(self, key: int, at_ns: int) -> None:
        """See `ArrivalTable`."""
        cells = self._cells
        if (key != self._key or cells[self._at] != key) and self.get(key) == 0:
            self.set(key, at_ns)
            return
        at = self._at + 1
        if cells[at] < at_ns:
            cells[at] = at_ns

    def _place(self, key: int) -> int:
        """Where a key stands or shall stand."""
        cells = self._cells
        home = key & _MASK
        place = -1
        earliest_ns = 2**63
        for step in range(PROBE):
            at = 2 * ((home + step) & _MASK)
            found = cells[at]
            if found == key or found == 0:
                return at
            time_ns: int = cells[at + 1]
            if time_ns < earliest_ns:
                earliest_ns = time_ns
                place = at
        return place

    def in_use(self, now_ns: int) -> int:
        """How many keys are ahead of now: for `show`; looks at the whole table (milliseconds)."""
        times: list[int] = self._cells.tolist()[1::2]
        return sum(time_ns > now_ns for time_ns in times)
