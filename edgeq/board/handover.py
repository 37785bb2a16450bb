"""Who is told that a slot is free: one queue for the machine, although each worker has its own.

A worker that frees a slot looks whether somebody waits longer elsewhere. If so it leaves the slot to that worker and
rings its bell; the other one looks at its queues and admits by the same rules as always. No permit is ever in transit:
a free slot is only a sum on the board that is below its limit, so a worker that dies on the way loses none.

A worker that is rung and does not look within `PATIENCE_NS` (it is stuck, or died and is not buried yet) is passed
over, and its waiters do not count, until it has looked. So a stuck worker costs the others one pause, and no service.
A bell that is lost, or a slot freed by a burial, costs a tick: each worker looks at its queues then in any case (and
says so, so a successor in the slot of a dead worker is heard from its first tick on).

::

    idle --rung--> asked --it looked--> idle
                     |  ^
          PATIENCE   v  | never: it must look first
                    deaf --it looked--> idle

Time is CLOCK_MONOTONIC in nanoseconds: one clock for all processes of a machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from edgeq.board.layout import Board, Row

PATIENCE_NS: Final = 20_000_000
"""Far above the lag of a healthy loop, far below what a client notices."""


class Neighbours:
    """The other workers, as one worker sees them."""

    __slots__ = ("_asked_ns", "_board", "_patience_ns", "_ring", "_row", "deaf", "rows", "slot")

    def __init__(self, board: Board, slot: int, ring: Callable[[int], None], patience_ns: int = PATIENCE_NS) -> None:
        """`ring(slot)` makes that slot's worker call `answer` soon; it must not block and may be lost."""
        self._board: Board = board
        self._row: Row = board.row(slot)
        self._ring: Callable[[int], None] = ring
        self._patience_ns: int = patience_ns
        self._asked_ns: list[int] = [0] * board.slots
        self.slot: int = slot
        self.rows: int = 0
        """Rows that were looked at when `refresh` was called last."""
        self.deaf: list[bool] = [False] * board.slots
        """By slot: does it not look although it was asked to?"""
        self.refresh()

    def others(self) -> list[int]:
        """The slots of all other rows that are in use."""
        return [slot for slot in range(self.rows) if slot != self.slot]

    def ask(self, slot: int, now_ns: int) -> bool:
        """Leave a free slot to another worker. Returns False if that one does not react: then look for the next one."""
        asked_ns = self._asked_ns[slot]
        if asked_ns > self._board.row(slot).answered_ns:
            if now_ns - asked_ns <= self._patience_ns:
                return True  # it will look at everything at once, so it need not hear it twice
            self.deaf[slot] = True
            return False
        self._asked_ns[slot] = now_ns
        self._ring(slot)
        return True

    def wake(self) -> None:
        """Make all others look, for what they would else see on their tick only."""
        for slot in self.others():
            self._ring(slot)

    def answer(self, now_ns: int) -> None:
        """This worker was rung. To be called before it looks at its queues, not after: what changes in between would
        be taken for seen."""
        self._row.answer(now_ns)

    def tick(self, now_ns: int) -> bool:
        """Who has come, and who hears again; after it this worker looks at its queues, as if it had been rung.

        Returns whether there are more rows than before.
        """
        self._row.answer(now_ns)
        return self.refresh()

    def refresh(self) -> bool:
        """The same without a look at the queues."""
        # Our own row counts from the start, also where no supervisor has taken it into the sums.
        rows = max(self._board.rows_used, self.slot + 1)
        for slot in range(rows):
            if self.deaf[slot] and self._board.row(slot).answered_ns >= self._asked_ns[slot]:
                self.deaf[slot] = False
        is_more = rows > self.rows
        self.rows = rows
        return is_more
