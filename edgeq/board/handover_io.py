"""The bells: an eventfd for each slot, by which one worker makes another look at its queues.

The supervisor makes them, keeps them, and gives all of them to every worker: with its start, and new ones with a new
configuration. A bell belongs to the slot and not to the process: the successor of a dead worker has the same one, and
what was rung meanwhile makes it look once more than needed.

An eventfd rather than a socket: any number of rings is one wake-up, and it never fills up.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from time import monotonic_ns

from edgeq.board.handover import Neighbours
from edgeq.board.layout import Board


class Bells:
    """The supervisor's: one descriptor for each slot that was ever used, by slot."""

    def __init__(self) -> None:
        self.fds: list[int] = []

    def ensure(self, slot: int) -> None:
        """Have a bell for this slot (and for all below it). Without descriptors there are fewer bells, and those who
        have none look at their queues on the tick only."""
        with contextlib.suppress(OSError):
            while len(self.fds) <= slot:
                self.fds.append(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))

    def close(self) -> None:
        """No worker is left."""
        while self.fds:
            os.close(self.fds.pop())


class Doorbell:
    """A worker's: rings the others, and looks at its own queues when it is rung."""

    def __init__(self, board: Board, slot: int) -> None:
        self._board = board
        self._slot = slot
        self._loop: asyncio.AbstractEventLoop | None = None
        self._look: Callable[[], None] = lambda: None
        self.neighbours = Neighbours(board, slot, self.ring)

    def start(self, loop: asyncio.AbstractEventLoop, look: Callable[[], None]) -> None:
        """Call `look` whenever this worker shall look at all its queues; not before the loop runs."""
        self._look = look
        if self._slot < len(self._board.bells):
            self._loop = loop
            loop.add_reader(self._board.bells[self._slot], self._rung)

    def close(self) -> None:
        """Hear nothing more."""
        if self._loop is not None:
            self._loop.remove_reader(self._board.bells[self._slot])
            self._loop = None

    def ring(self, slot: int) -> None:
        """Make another worker look. One that is so new that its bell is not here yet looks on its tick."""
        bells = self._board.bells
        if slot < len(bells):
            # Blocks only at 2**64 - 2 rings; and a bell that cannot be rung costs a tick.
            with contextlib.suppress(OSError):
                os.eventfd_write(bells[slot], 1)

    def _rung(self) -> None:
        with contextlib.suppress(OSError):  # a ring for the predecessor that was heard already
            os.eventfd_read(self._board.bells[self._slot])
        self.neighbours.answer(monotonic_ns())
        self._look()
