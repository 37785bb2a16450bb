"""Money that was spent in a day or a month, shared by all workers: budgets of the machine, whoever serves the request.

A fixed table of triples (key, end of the period in unix seconds, sum in millionths). A key may stand in any of `PROBE`
places from its home on; key 0 is free and ends a search. A sum whose period is over counts as none, and its place may
be taken. The table stands beside the rows of workers, so what was spent outlives a worker's death; it does not outlive
the supervisor, whose store of accounts fills it again (`at_least`), and from time to time corrects it.

All workers write, nobody locks: two that add to one key at the same moment (a tenth of a microsecond) lose one of both
sums, until the store has it right again; two that take one place at the same moment lose one of both likewise.
"""

from __future__ import annotations

from typing import Final

from edgeq.board.layout import SPENT, SPENT_CELLS, Board

PROBE: Final = 16
_MASK: Final = SPENT - 1


class SpentTable:
    """Sums by key and period; of the whole machine if it stands on a board."""

    __slots__ = ("_cells",)

    def __init__(self, board: Board | None = None) -> None:
        """None: of this process alone."""
        if board is None:
            self._cells: memoryview = memoryview(bytearray(8 * SPENT_CELLS * SPENT)).cast("Q")
        else:
            self._cells = board.spent()

    def spent(self, key: int, until_s: int) -> int:
        """What has been spent in the period that ends at until_s (unix seconds); key: 1 to 2^62 - 1."""
        cells = self._cells
        for step in range(PROBE):
            at = SPENT_CELLS * ((key + step) & _MASK)
            found = cells[at]
            if found == key:
                return int(cells[at + 2]) if cells[at + 1] == until_s else 0
            if found == 0:
                break
        return 0

    def add(self, key: int, until_s: int, micro: int, now_s: int) -> None:
        """More was spent; micro >= 0, now_s in unix seconds. Where all places are taken by sums of periods that run,
        the smallest sum makes room: whoever has spent least loses least of his budget's bound."""
        at = self._place(key, until_s, now_s)
        self._cells[at + 2] += micro

    def at_least(self, key: int, until_s: int, micro: int, now_s: int) -> None:
        """The store of accounts knows of so much."""
        if micro <= 0:
            return
        at = self._place(key, until_s, now_s)
        if self._cells[at + 2] < micro:
            self._cells[at + 2] = micro

    def _place(self, key: int, until_s: int, now_s: int) -> int:
        """Where the sum of a key and period stands, or shall stand: then it is 0."""
        cells = self._cells
        free = -1
        least = -1
        least_micro = 2**63
        for step in range(PROBE):
            at = SPENT_CELLS * ((key + step) & _MASK)
            found = cells[at]
            if found == key:
                if cells[at + 1] != until_s:
                    cells[at + 2] = 0
                    cells[at + 1] = until_s
                return at
            if found == 0 or cells[at + 1] <= now_s:
                if free < 0:
                    free = at
                if found == 0:
                    break
            elif cells[at + 2] < least_micro:
                least = at
                least_micro = cells[at + 2]
        if free < 0:
            free = least
        cells[free + 2] = 0
        cells[free + 1] = until_s
        cells[free] = key
        return free
