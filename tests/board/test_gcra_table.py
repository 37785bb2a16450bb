"""Arrival times: what lies ahead is kept while there is room, what has passed makes room."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.board.gcra_table import DEBT_FROM_NS, PROBE, GcraTable
from edgeq.board.layout import RATE_CELLS, RATES, Board


def test_one_table_for_all_workers(board: Board) -> None:
    """What one writes, the other reads."""
    one, other = GcraTable(board, 0), GcraTable(board, 1)
    assert one.get(7) == 0
    one.delay(7, 1000)
    other.delay(2**62 - 1, 2000)
    assert (other.get(7), one.get(2**62 - 1)) == (1000, 2000)


def test_a_charge_keeps_what_others_charged_meanwhile(board: Board) -> None:
    """Both were admitted, so both count; what has passed counts from now."""
    one, other = GcraTable(board, 0), GcraTable(board, 1)
    assert one.charge(7, 10, now_ns=100) == 110
    assert one.get(7) == 110
    assert other.charge(7, 10, now_ns=105) == 120
    assert one.charge(7, 10, now_ns=106) == 130
    assert one.charge(7, 10, now_ns=500) == 510
    assert (one.get(7), other.get(7)) == (510, 510)


def test_a_burial_keeps_what_was_charged(board: Board) -> None:
    """A worker that dies gives nobody a fresh burst."""
    GcraTable(board, 0).delay(7, 1000)
    board.bury(0)
    assert GcraTable(board, 0).get(7) == 1000


def test_a_time_that_cannot_be_is_cut(board: Board) -> None:
    """Who asks says how far ahead his own times may lie."""
    table = GcraTable(board, 0)
    table.delay(7, 10**15)
    assert table.get(7, latest_ns=500) == 500


def test_a_full_window_forgets_the_earliest(board: Board) -> None:
    """That is the one that has passed, or is the least ahead."""
    table = GcraTable(board, 0)
    keys = [5 + RATES * (n + 1) for n in range(PROBE)]
    for n, key in enumerate(keys):
        table.delay(key, 1000 + (n * 7) % PROBE)
    assert all(table.get(key) for key in keys)
    newcomer = 5 + RATES * (PROBE + 1)
    table.delay(newcomer, 5000)
    assert table.get(newcomer) == 5000
    assert [key for key in keys if not table.get(key)] == [keys[0]]


def test_a_place_that_was_taken_meanwhile_is_not_charged(board: Board) -> None:
    """Between our `get` and our `charge` another worker gave the place to somebody else."""
    one, other = GcraTable(board, 0), GcraTable(board, 1)
    keys = [5 + RATES * (n + 1) for n in range(PROBE)]
    for n, key in enumerate(keys):
        one.delay(key, 1000 + n)
    one.get(keys[0])
    newcomer = 5 + RATES * 99
    other.delay(newcomer, 9000)
    one.charge(keys[0], 7000, now_ns=1000)
    assert (one.get(newcomer), one.get(keys[0])) == (9000, 8000)


def test_what_a_worker_has_charged_outlives_it(board: Board) -> None:
    """Also when its slot is used no more."""
    GcraTable(board, 1).charge(7, 1000, now_ns=100)
    board.bury(1)
    board.shrink(1)
    assert GcraTable(board, 0).get(7) == 1100


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 2), st.integers(1, 10**6)), max_size=60))
def test_like_a_dictionary_while_there_is_room(steps: list[tuple[int, int, int]]) -> None:
    """Keys that share homes, at the end of the table too; 12 of them fit into any window."""
    board = Board.create(1)
    table = GcraTable(board, 0)
    model: dict[int, int] = {}
    for home, turn, at_ns in steps:
        key = RATES * turn + (RATES - 3 + home) % RATES
        assert table.get(key) == model.get(key, 0)
        table.delay(key, at_ns)
        model[key] = max(at_ns, model.get(key, 0))
    assert all(table.get(key) == at_ns for key, at_ns in model.items())
    board.close()


def test_a_refund_never_goes_behind_now(board: Board) -> None:
    """What is paid back beyond now has been earned again by time; of an unknown key there is nothing to pay back."""
    one, other = GcraTable(board, 0), GcraTable(board, 1)
    assert one.refund(7, 50, now_ns=100) == 100
    assert one.get(7) == 0
    one.charge(7, 100, now_ns=100)
    assert other.refund(7, 30, now_ns=110) == 170
    assert one.refund(7, 500, now_ns=120) == 120
    assert other.get(7) == 120


def test_a_delay_only_moves_on(board: Board) -> None:
    """A pause that somebody else has made longer stays as long."""
    one, other = GcraTable(board, 0), GcraTable(board, 1)
    one.delay(7, 1000)
    other.delay(7, 500)
    assert one.get(7) == 1000
    other.delay(7, 2000)
    assert one.get(7) == 2000


def test_what_lies_beyond_a_minute_is_converted(board: Board) -> None:
    """As much of what is counted, at another pace, once; and back. Within the minute the part of it counts."""
    one, other = GcraTable(board, 0), GcraTable(board, 1)
    minute = DEBT_FROM_NS
    one.charge(7, 3 * minute, now_ns=100, unit=1000)
    assert one.convert(7, 1000, now_ns=100) == 100 + 3 * minute
    assert other.convert(7, 4000, now_ns=100) == one.convert(7, 4000, now_ns=100) == 100 + minute + minute // 2
    assert other.charge(7, minute, now_ns=100, unit=1000) == 100 + 4 * minute
    assert one.refund(7, minute, now_ns=100, unit=4000) == 100 + minute - minute // 4
    assert one.convert(7, 10, now_ns=100) == 100 + minute - minute // 4
    assert other.convert(9, 10, now_ns=100) <= 100


def test_a_newcomer_has_nothing_converted(board: Board) -> None:
    """Who takes the place of another key has no part of its debt, and no unit."""
    table = GcraTable(board, 0)
    keys = [5 + RATES * (n + 1) for n in range(PROBE)]
    for key in keys:
        table.charge(key, 2 * DEBT_FROM_NS, now_ns=100, unit=1000)
    later = 100 + 3 * DEBT_FROM_NS
    newcomer = 5 + RATES * 99
    table.charge(newcomer, 2 * DEBT_FROM_NS, now_ns=later)
    assert table.convert(newcomer, 10, now_ns=later) == later + 2 * DEBT_FROM_NS


def test_who_has_been_displaced_since_he_was_read_is_charged_himself(board: Board) -> None:
    """Not the one who stands where he stood: so it is when many are read before any of them is charged."""
    table = GcraTable(board, 0)
    keys = [5 + RATES * (n + 1) for n in range(PROBE)]
    for number, key in enumerate(keys):
        table.charge(key, 10 + number, now_ns=100)
    first, newcomer = table.arrival(), table.arrival()
    assert first.read(keys[0], 2**61) == 110
    assert newcomer.read(5 + RATES * 99, 2**61) == 0
    assert newcomer.charge(1000, now_ns=200) == 1200
    assert first.charge(50, now_ns=200) == 250
    assert table.get(5 + RATES * 99) == 1200
    assert table.get(keys[0]) == 250


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 1), st.integers(0, 3), st.sampled_from("rcp"), st.integers(1, 10**6), st.integers(0, 9)
        ),
        max_size=60,
    )
)
def test_arrivals_and_tables_are_one(steps: list[tuple[int, int, str, int, int]]) -> None:
    """What two workers charge and pay back, by key or by an arrival that is kept: the same as in one dictionary."""
    board = Board.create(2)
    for slot in range(2):
        board.use(slot)
    tables = [GcraTable(board, slot) for slot in range(2)]
    kept = [[table.arrival() for _ in range(4)] for table in tables]
    model: dict[int, int] = {}
    now_ns = 1000
    for slot, at, what, amount, later in steps:
        now_ns += later
        key = 7 + RATES * (at + 1)
        arrival, table = kept[slot][at], tables[slot]
        if what == "r":
            assert arrival.read(key, 2**61) == model.get(key, 0)
            model[key] = max(now_ns, model.get(key, 0)) + amount
            assert arrival.charge(amount, now_ns) == model[key]
        elif what == "c":
            model[key] = max(now_ns, model.get(key, 0)) + amount
            assert table.charge(key, amount, now_ns) == model[key]
        elif key in model:
            arrival.read(key, 2**61)
            told = arrival.refund(amount, now_ns)
            assert told == max(now_ns, model[key] - amount)
            if model[key] > now_ns:
                model[key] = told
    assert all(table.get(key) == at_ns for table in tables for key, at_ns in model.items())
    board.close()


def test_two_who_find_no_key_have_one_place(board: Board) -> None:
    """Both have read before any of them has charged: a limit would be two limits."""
    one, other = GcraTable(board, 0).arrival(), GcraTable(board, 1).arrival()
    assert (one.read(7, 2**61), other.read(7, 2**61)) == (0, 0)
    assert one.charge(50, now_ns=100) == 150
    assert other.charge(50, now_ns=100) == 200
    assert one.read(7, 2**61) == other.read(7, 2**61) == GcraTable(board, 0).get(7) == 200
    late, later = GcraTable(board, 0).arrival(), GcraTable(board, 1).arrival()
    assert (late.read(8, 2**61), later.read(8, 2**61)) == (0, 0)
    late.delay(500)
    later.delay(900)
    assert late.read(8, 2**61) == later.read(8, 2**61) == 900


def test_a_key_with_two_places_has_one_soon(board: Board) -> None:
    """One worker takes the place that another one has just taken for another key: a key may then stand twice. All go
    on at the first of the two."""
    tables = [GcraTable(board, slot) for slot in range(2)]
    arrivals = [table.arrival() for table in tables]
    home = 5
    key, other = home + RATES, home + 2 * RATES
    tables[0].delay(other, 1000)
    arrivals[0].read(key, 10**6)
    arrivals[0].charge(10, 1000)
    board.rates()[RATE_CELLS * home] = key
    for table in tables:
        table.look()
    for arrival in arrivals:
        arrival.read(key, 10**6)
        arrival.charge(10, 1000)
    assert [arrival.read(key, 10**6) for arrival in arrivals] == [1020, 1020]
