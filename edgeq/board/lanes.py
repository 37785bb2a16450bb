"""Sums that all workers add to, without a lock and without loss: each has a lane of its own, and what counts is the sum
of all lanes.

A cell that several workers add to would lose one of two additions that happen at once, or many if a worker is put to
sleep between its load and its store. Lanes are never emptied and outlive their workers, so only differences mean
something: whoever uses an index keeps a base beside it, and takes that from the sum (gcra_table.py, spent.py).
"""

from __future__ import annotations


class Lanes:
    """Of one table, as the worker in one slot sees it."""

    __slots__ = ("_cells", "_own", "_size", "_used")

    def __init__(self, cells: memoryview, size: int, slot: int, used: memoryview) -> None:
        """Args: cells are signed, `size` for each slot; used is one cell: how many slots have ever had a worker."""
        self._cells: memoryview = cells
        self._size: int = size
        self._own: int = slot * size
        self._used: memoryview = used

    def total(self, index: int) -> int:
        """The sum of all lanes at an index (0 to `size` - 1)."""
        cells = self._cells
        size = self._size
        used: int = self._used[0]
        total: int = cells[index]
        for _ in range(used - 1):
            index += size
            total += cells[index]
        return total

    def add(self, index: int, amount: int) -> None:
        """Add to the own lane; less than nothing, too."""
        self._cells[self._own + index] += amount
