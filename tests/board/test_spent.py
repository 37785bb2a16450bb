"""Sums of money: by key and period, for all workers, beyond their deaths."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.board.layout import SPENT, Board
from edgeq.board.spent import PROBE, SpentTable


def test_one_table_for_all_workers(board: Board) -> None:
    """What one adds, the other reads; a burial keeps it."""
    one, other = SpentTable(board, 0), SpentTable(board, 1)
    one.add(7, 1000, 30, now_s=10)
    other.add(7, 1000, 12, now_s=11)
    board.bury(0)
    assert one.spent(7, 1000) == 42


def test_a_period_ends(board: Board) -> None:
    """The next one begins with nothing, and keeps nothing of the last."""
    table = SpentTable(board, 0)
    table.add(7, 1000, 30, now_s=10)
    assert table.spent(7, 2000) == 0
    table.add(7, 2000, 5, now_s=1000)
    assert (table.spent(7, 2000), table.spent(7, 1000)) == (5, 0)


def test_the_store_only_adds_what_is_missing(board: Board) -> None:
    """Its number may be older than ours."""
    table = SpentTable(board, 0)
    table.at_least(7, 1000, 30, now_s=10)
    table.add(7, 1000, 5, now_s=10)
    table.at_least(7, 1000, 31, now_s=11)
    assert table.spent(7, 1000) == 35
    table.at_least(7, 1000, 50, now_s=12)
    assert table.spent(7, 1000) == 50


def test_a_full_window_forgets_the_past_first_and_then_the_least(board: Board) -> None:
    """Who has spent most is the last whom it may forget."""
    table = SpentTable(board, 0)
    keys = [5 + SPENT * (n + 1) for n in range(PROBE)]
    for n, key in enumerate(keys):
        table.add(key, 1000 if n else 500, 100 - n, now_s=10)
    table.add(5 + SPENT * 98, 1000, 1, now_s=600)
    assert [key for key in keys if not table.spent(key, 1000)] == [keys[0]]
    table.add(5 + SPENT * 99, 1000, 60, now_s=600)
    assert table.spent(5 + SPENT * 98, 1000) == 0
    assert all(table.spent(key, 1000) for key in keys[1:])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 3), st.integers(0, 10**9)), max_size=60))
def test_like_a_dictionary(steps: list[tuple[int, int, int]]) -> None:
    """While there is room."""
    table = SpentTable()
    model: dict[tuple[int, int], int] = {}
    newest: dict[int, int] = {}
    for home, period, micro in steps:
        key = SPENT * home + SPENT - 3 + home
        if newest.get(key, period) != period:
            model.pop((key, newest[key]), None)
        newest[key] = period
        model[key, period] = model.get((key, period), 0) + micro
        table.add(key, period, micro, now_s=0)
        assert table.spent(key, period) == model[key, period]
