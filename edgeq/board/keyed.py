"""Counts by key in one worker's row: who is connected, which tenants are busy. A key is a hash, never 0
(`layout.key_hash`).

    entry    key, references, values..

Open addressing over a window of `PROBE` entries: key 0 is free and ends a search; an entry without references may be
taken by another key. A key that finds no room in its window is not counted: its limit is then too lax, and nothing
leaks. One writer, the row's worker; every reader may look while it writes.

Invariant: values are 0 while an entry has no references, so a reader that finds a key just taken in reads "none", never
another key's number.
"""

from __future__ import annotations

from typing import Final

PROBE: Final = 32


class KeyedCounts:
    """One table: `size` entries (a power of two) of `width` cells from cell `base` on. Positions are cell indices."""

    __slots__ = ("_base", "_cells", "_mask", "_width")

    def __init__(self, cells: memoryview, base: int, size: int, width: int) -> None:
        self._cells: memoryview = cells
        self._base: int = base
        self._mask: int = size - 1
        self._width: int = width

    def find(self, key: int) -> int:
        """Where a key's entry is, -1 if it has none. For any process."""
        cells = self._cells
        home = key & self._mask
        for step in range(PROBE):
            at = self._entry(home + step)
            found: int = cells[at]
            if found == key:
                return at
            if found == 0:
                return -1
        return -1

    def references(self, key: int) -> int:
        """How often the key was acquired and not released. For any process."""
        at = self.find(key)
        return 0 if at < 0 else int(self._cells[at + 1])

    def value(self, key: int, number: int) -> int:
        """One of a key's values, counted from 0; 0 if it has no entry. For any process."""
        at = self.find(key)
        return 0 if at < 0 else int(self._cells[at + 2 + number])

    def values(self, at: int) -> memoryview:
        """The value cells of an entry."""
        return self._cells[at + 2 : at + self._width]

    # What follows is for the row's worker only.

    def acquire(self, key: int) -> int:
        """One reference more. Returns where the entry is, which holds until the release, or -1 if there is no room."""
        cells = self._cells
        free = -1
        home = key & self._mask
        for step in range(PROBE):
            at = self._entry(home + step)
            found: int = cells[at]
            if found == key:
                cells[at + 1] += 1
                return at
            if free < 0 and cells[at + 1] == 0:
                free = at
            if found == 0:
                break
        if free >= 0:
            cells[free] = key
            cells[free + 1] = 1
        return free

    def release(self, key: int) -> None:
        """One reference less; with the last one the values are gone. Of a key without room: nothing."""
        cells = self._cells
        at = self.find(key)
        if at < 0 or cells[at + 1] == 0:
            return
        references = int(cells[at + 1]) - 1
        if references == 0:
            for value in range(2, self._width):
                cells[at + value] = 0
        cells[at + 1] = references
        # At the end of a chain emptied entries become free again, or searches would get longer for ever.
        number = (at - self._base) // self._width
        if cells[self._entry(number + 1)]:
            return
        for step in range(self._mask + 1):
            at = self._entry(number - step)
            if cells[at] == 0 or cells[at + 1]:
                return
            cells[at] = 0

    def _entry(self, number: int) -> int:
        return self._base + self._width * (number & self._mask)


class Entry:
    """One key's values in the rows of all workers: own ones to write, all to read. Close it when done.

    `is_apart`: the own table has no room; the values are then seen by nobody else, and all else works.
    """

    __slots__ = ("_own", "_table", "is_apart", "key", "others")

    def __init__(self, table: KeyedCounts, others: list[KeyedCounts], key: int, values: int) -> None:
        """`table`: the own row's. `others`: those of the other rows; may be replaced as they come."""
        self._table: KeyedCounts = table
        self.key: int = key
        self.others: list[KeyedCounts] = others
        at = table.acquire(key)
        self.is_apart: bool = at < 0
        self._own: memoryview = memoryview(bytearray(8 * values)).cast("Q") if at < 0 else table.values(at)

    def put(self, number: int, value: int) -> None:
        """Write an own value; 0 <= value < 2**64."""
        self._own[number] = value

    def total(self, number: int) -> int:
        """The sum over all workers."""
        total: int = self._own[number]
        for table in self.others:
            total += table.value(self.key, number)
        return total

    def others_total(self, number: int) -> int:
        """The sum over the other workers."""
        total = 0
        for table in self.others:
            total += table.value(self.key, number)
        return total

    def newest(self, number: int) -> int:
        """The largest value of all workers."""
        newest: int = self._own[number]
        for table in self.others:
            value = table.value(self.key, number)
            if value > newest:
                newest = value
        return newest

    def close(self) -> None:
        """The own values are gone. The entry must not be used after it."""
        if not self.is_apart:
            self.is_apart = True
            self._own = memoryview(bytearray(8 * len(self._own))).cast("Q")
            self._table.release(self.key)
