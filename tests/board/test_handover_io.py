"""Bells: a ring makes the other worker look, and no ring is needed twice."""

from __future__ import annotations

import asyncio
import os

from edgeq.board.handover_io import Bells, Doorbell
from edgeq.board.layout import Board
from edgeq.board.resources import Resources
from edgeq.worker.wheel import NEVER


def test_a_free_slot_wakes_who_waits_longest() -> None:
    """Two workers in one loop; the second one looks, and says that it did."""

    async def play() -> None:
        board = Board.create(2)
        board.assign_resources(["upstream/api"])
        bells = Bells()
        bells.ensure(1)
        board.bells.extend(bells.fds)
        board.use(1)
        loop = asyncio.get_running_loop()
        doors = [Doorbell(board, slot) for slot in (0, 1)]
        one, other = (Resources(board, door.neighbours).bind("upstream/api") for door in doors)
        looked = asyncio.Event()
        doors[1].start(loop, looked.set)
        other.set_waiting(1, 100, 10.0)
        assert one.hand_over(NEVER, loop.time())
        assert one.hand_over(NEVER, loop.time())
        await looked.wait()
        assert board.row(1).answered_ns > 0
        doors[1].close()
        bells.close()
        board.close()

    asyncio.run(play())


def test_a_bell_that_is_missing_costs_only_the_tick() -> None:
    """A worker that is newer than our configuration has none yet."""
    board = Board.create(2)
    board.use(1)
    door = Doorbell(board, 0)
    door.ring(1)
    door.close()
    board.close()


def test_bells_stay_the_same_for_a_slot() -> None:
    """A successor has its predecessor's; nothing is left when they are closed."""
    before = set(os.listdir("/proc/self/fd"))
    bells = Bells()
    bells.ensure(2)
    first = list(bells.fds)
    bells.ensure(1)
    bells.ensure(-1)
    assert bells.fds == first
    assert len(first) == 3
    bells.close()
    assert set(os.listdir("/proc/self/fd")) <= before  # what others have left may go meanwhile
