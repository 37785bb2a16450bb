"""Sums that all workers add to, without a lock and without loss: each has a lane of its own, and what counts is the sum
of all lanes.

A cell that several workers add to would lose one of two additions that happen at once, or many if a worker is put to
sleep between its load and its store. Lanes are never emptied and outlive their workers, so only differences mean
something: whoever uses an index keeps a base beside it, and takes that from the sum (gcra_table.py, spent.py).

How many lanes there are is looked up by `look`, not at each sum, of which a request for a model needs twenty: a lane
that is new, which begins at 0, is seen a tick later. What its worker has admitted until then others do not know of.
"""

from __future__ import annotations


class Lanes:
    """Of one table, as the worker in one slot sees it."""

    __slots__ = ("_cells", "_count", "_own", "_own_at", "_own_sum", "_size", "_slot", "_used")

    def __init__(self, cells: memoryview, size: int, slot: int, used: memoryview) -> None:
        """Args: cells are signed, `size` for each slot; used is one cell: how many slots have ever had a worker."""
        self._cells: memoryview = cells
        self._size: int = size
        self._slot: int = slot
        self._own: int = slot * size
        self._used: memoryview = used
        # The own lane's cell that was read or written last, and what is in it: a slot has one worker at a time
        # (supervisor/slots.py), so nobody else writes there.
        self._own_at: int = -1
        self._own_sum: int = 0
        self._count: int = 1
        self.look()

    def look(self) -> None:
        """Now and then: how many lanes are there?"""
        used: int = self._used[0]
        self._count = max(used, self._slot + 1)

    def total(self, index: int) -> int:
        """The sum of all lanes at an index (0 to `size` - 1)."""
        cells = self._cells
        size = self._size
        own_at = self._own + index
        total = 0
        for _ in range(self._count):
            amount: int = cells[index]
            total += amount
            if index == own_at:
                self._own_at = own_at
                self._own_sum = amount
            index += size
        return total

    def add(self, index: int, amount: int) -> None:
        """Add to the own lane; less than nothing, too."""
        at = self._own + index
        total: int = self._own_sum if at == self._own_at else self._cells[at]
        total += amount
        self._cells[at] = total
        self._own_at = at
        self._own_sum = total
