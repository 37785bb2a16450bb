"""Keyed counts: what is acquired is found by all, what is released leaves nothing."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edgeq.board.keyed import PROBE, Entry, KeyedCounts

SIZE = 64
WIDTH = 4


def cells() -> memoryview:
    return memoryview(bytearray(8 * SIZE * WIDTH)).cast("Q")


def test_values_of_all_rows() -> None:
    """A sum, a newest, and none of it after the end."""
    tables = [KeyedCounts(cells(), 0, SIZE, WIDTH) for _ in range(3)]
    entries = [Entry(table, [other for other in tables if other is not table], 7, 2) for table in tables]
    for number, entry in enumerate(entries):
        entry.put(0, 10 + number)
        entry.put(1, number)
    assert entries[0].total(0) == 33
    assert entries[0].others_total(0) == 23
    assert entries[0].newest(1) == 2
    entries[2].close()
    assert entries[0].total(0) == 21
    assert tables[2].find(7) == -1
    assert Entry(tables[2], [], 7, 2).total(0) == 0


def test_an_entry_without_room_is_apart() -> None:
    """It works alone, and its end touches nobody else's."""
    table = KeyedCounts(cells(), 0, SIZE, WIDTH)
    full = [Entry(table, [], 1 + SIZE * n, 2) for n in range(PROBE)]
    apart = Entry(table, [], 1 + SIZE * PROBE, 2)
    apart.put(0, 5)
    assert (apart.is_apart, apart.total(0), table.value(1 + SIZE * PROBE, 0)) == (True, 5, 0)
    apart.close()
    assert all(not entry.is_apart and table.references(entry.key) == 1 for entry in full)


class KeyedModel(RuleBasedStateMachine):
    """Random keys with few homes against a plain counter; positions stay where they are while they are held."""

    keys = st.integers(1, 12).map(lambda n: (SIZE - 2 + n % 4) + SIZE * n)

    @initialize()
    def create(self) -> None:
        self.cells = cells()
        self.table = KeyedCounts(self.cells, 0, SIZE, WIDTH)
        self.held: list[tuple[int, int]] = []

    @rule(key=keys)
    def acquire(self, key: int) -> None:
        at = self.table.acquire(key)
        assert at >= 0
        self.cells[at + 2] = key & 1023
        self.held.append((key, at))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        key, _ = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.table.release(key)

    @invariant()
    def found_where_it_was_put(self) -> None:
        counts = Counter(key for key, _ in self.held)
        for key, at in self.held:
            assert self.table.find(key) == at
            assert self.table.value(key, 0) == key & 1023
        for n in range(1, 13):
            key = (SIZE - 2 + n % 4) + SIZE * n
            assert self.table.references(key) == counts[key]
        if not self.held:
            assert not any(self.cells)


TestKeyedModel = KeyedModel.TestCase
TestKeyedModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
