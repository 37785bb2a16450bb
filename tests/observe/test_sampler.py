"""Rates and recent waits from readings of the board."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgeq.board import resources
from edgeq.board.handover import Neighbours
from edgeq.board.layout import Board
from edgeq.board.reading import Reading, read
from edgeq.board.resources import ResourceCells
from edgeq.observe.sampler import WINDOW, Sampler


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board.create(1)
    made.use(0)
    made.assign_resources(["upstream/u"])
    yield made
    made.close()


def reading(board: Board) -> Reading:
    return read(board, board.resource_index("upstream/u"))


def test_rates_and_waits_forget_what_is_long_ago(board: Board) -> None:
    """A hundred requests a second that wait 10 ms, then ten that wait 1 s: both are seen while they are recent."""
    cells = ResourceCells(board, Neighbours(board, 0, lambda _slot: None), "upstream/u")
    sampler = Sampler(board)
    for second in range(100):
        slow = second >= 60
        for _ in range(10 if slow else 100):
            cells.admitted(1.0 if slow else 0.01)
            cells.finished(0.001, resources.OK)
        cells.refused("queue_full")
        cells.flush()
        sampler.sample(float(second), ["upstream/u"], {})
        if second == 59:
            rates = sampler.rates("upstream/u", 59.0, reading(board))
            assert (rates.arrivals, rates.departures, rates.refused) == (101.0, 100.0, 1.0)
            assert sampler.recent("upstream/u", reading(board)).waits().quantile(0.99) == pytest.approx(
                10_000, rel=0.04
            )
    rates = sampler.rates("upstream/u", 99.0, reading(board))
    assert (rates.arrivals, rates.departures, rates.refused) == (11.0, 10.0, 1.0)
    recent = sampler.recent("upstream/u", reading(board)).waits()
    assert recent.quantile(0.01) == pytest.approx(1_000_000, rel=0.04)
    assert WINDOW * 10 <= recent.count <= 2 * WINDOW * 10 + 10


def test_what_comes_new_was_zero_before(board: Board) -> None:
    """A refusal that happens for the first time has a rate at once; a counter that was there at the start has none."""
    sampler = Sampler(board)
    sampler.sample(0.0, [], {"old": (1000,)})
    assert sampler.counter_rates("old", 1.0, (1000,)) == (0.0,)
    sampler.sample(1.0, [], {"old": (1000,)})
    assert sampler.counter_rates("new", 2.0, (20,)) == (10.0,)
    sampler.sample(2.0, [], {"old": (1000,), "new": (20,)})
    assert sampler.counter_rates("new", 2.0, (20,)) == (10.0,)


def test_what_is_gone_is_forgotten(board: Board) -> None:
    """And a counter that begins anew, as another worker's in the same slot, has no negative rate."""
    sampler = Sampler(board)
    sampler.sample(0.0, [], {"worker/0": (50,)})
    assert sampler.counter_rates("worker/0", 1.0, (1,)) == (0.0,)
    sampler.sample(1.0, [], {})
    sampler.sample(2.0, [], {})
    assert sampler.counter_rates("worker/0", 4.0, (8,)) == (2.0,)


def test_high_water_is_what_was_seen(board: Board) -> None:
    """Of gauges that have none of their own."""
    sampler = Sampler(board)
    assert [sampler.high("pool", depth) for depth in (3, 9, 2)] == [3, 9, 9]
