"""Money that was spent in a day or a month, shared by all workers: budgets of the machine, whoever serves the request.

A fixed table of triples (key, end of the period in unix seconds, base in millionths), and lanes of what each worker has
added (lanes.py): the sum of a key is that of its lanes less the base. A key may stand in any of `PROBE` places from its
home on; key 0 is free and ends a search. A sum whose period is over counts as none, and its place may be taken. The
table stands beside the rows of workers, so what was spent outlives a worker's death; it does not outlive the
supervisor, whose store of accounts fills it again (`at_least`), and from time to time corrects it.

All workers write, nobody locks: what is added counts, however many add at once; but two that take one place at the same
moment, or begin a new period, may lose one of both sums, until the store has it right again.
"""

from __future__ import annotations

from typing import Final

from edgeq.board.lanes import Lanes
from edgeq.board.layout import SPENT, SPENT_CELLS, Board

PROBE: Final = 16
_MASK: Final = SPENT - 1


class SpentTable:
    """Sums by key and period; of the whole machine if it stands on a board."""

    __slots__ = ("_cells", "_lanes")

    def __init__(self, board: Board | None = None, slot: int = 0) -> None:
        """As the worker in one slot sees it. None: of this process alone."""
        if board is None:
            self._cells: memoryview = memoryview(bytearray(8 * SPENT_CELLS * SPENT)).cast("q")
            lanes = memoryview(bytearray(8 * SPENT)).cast("q")
            self._lanes: Lanes = Lanes(lanes, SPENT, 0, memoryview(b"\1"))
        else:
            self._cells = board.spent()
            self._lanes = Lanes(board.spent_lanes(), SPENT, slot, board.slots_ever_used())

    def look(self) -> None:
        """Now and then: see who else there is."""
        self._lanes.look()

    def spent(self, key: int, until_s: int) -> int:
        """What has been spent in the period that ends at until_s (unix seconds); key: 1 to 2^62 - 1."""
        cells = self._cells
        for step in range(PROBE):
            place = (key + step) & _MASK
            at = SPENT_CELLS * place
            found = cells[at]
            if found == key:
                return self._sum(place) if cells[at + 1] == until_s else 0
            if found == 0:
                break
        return 0

    def add(self, key: int, until_s: int, micro: int, now_s: int) -> None:
        """More was spent; micro >= 0, now_s in unix seconds. Where all places are taken by sums of periods that run,
        the smallest sum makes room: whoever has spent least loses least of his budget's bound."""
        self._lanes.add(self._place(key, until_s, now_s), micro)

    def at_least(self, key: int, until_s: int, micro: int, now_s: int) -> None:
        """The store of accounts knows of so much."""
        if micro <= 0:
            return
        place = self._place(key, until_s, now_s)
        total = self._lanes.total(place)
        if total - self._cells[SPENT_CELLS * place + 2] < micro:
            self._cells[SPENT_CELLS * place + 2] = total - micro

    def _sum(self, place: int) -> int:
        base: int = self._cells[SPENT_CELLS * place + 2]
        return self._lanes.total(place) - base

    def _place(self, key: int, until_s: int, now_s: int) -> int:
        """Where the sum of a key and period stands, or shall stand: then it is 0."""
        cells = self._cells
        free = -1
        least = -1
        least_micro = 2**62
        for step in range(PROBE):
            place = (key + step) & _MASK
            at = SPENT_CELLS * place
            found = cells[at]
            if found == key:
                if cells[at + 1] != until_s:
                    cells[at + 2] = self._lanes.total(place)
                    cells[at + 1] = until_s
                return place
            if found == 0 or cells[at + 1] <= now_s:
                if free < 0:
                    free = place
                if found == 0:
                    break
            else:
                micro = self._sum(place)
                if micro < least_micro:
                    least = place
                    least_micro = micro
        if free < 0:
            free = least
        at = SPENT_CELLS * free
        cells[at + 2] = self._lanes.total(free)
        cells[at + 1] = until_s
        cells[at] = key
        return free
