"""A ring of records: what is read is what was written last, whoever comes, goes, dies, or is copied meanwhile."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.board.layout import Board
from edgeq.board.ring import MAX_NAME_BYTES, MAX_NOTE_BYTES, VALUES, Ring, size_bytes

NAMES = ["a", "b", "c", "d", "e"]


def ring_of(moments: int, lanes: int) -> Ring:
    return Ring.begin(memoryview(bytearray(size_bytes(moments, lanes))), moments, lanes)


def record(number: int) -> list[int]:
    return [number] * VALUES


def written(ring: Ring, name: str) -> list[tuple[int, int]]:
    return [(one.at_ns, one.values[0]) for one in ring.read(name, 0)]


class Model:
    """What a ring should know: for each name its records by moment, and which names can have a lane."""

    def __init__(self, moments: int) -> None:
        self.moments = moments
        self.records: dict[str, list[tuple[int, int]]] = {}
        self.next = 0

    def expected(self, name: str) -> list[tuple[int, int]]:
        oldest = self.next - self.moments + 1 if self.next > self.moments else 0
        return [(number + 1, value) for number, value in self.records.get(name, []) if number >= oldest]


_USES = st.lists(
    st.tuples(st.lists(st.sampled_from(NAMES), max_size=3, unique=True), st.integers(0, 7), st.booleans()), max_size=12
)


@settings(deadline=None)
@given(_USES, st.integers(1, 9), st.sampled_from(["same", "resized", "opened"]))
def test_names_come_and_go_and_the_ring_wraps(uses: list[tuple[list[str], int, bool]], size: int, after: str) -> None:
    """With a lane for each name, all but the oldest moment that is there is read; nothing that was overwritten.

    The same after a copy into a ring of another size, and from the memory alone.
    """
    ring, model = ring_of(size, len(NAMES)), Model(size)
    for names, count, skips in uses:
        lanes = ring.use(names)
        assert len(set(lanes)) == len(names)
        assert -1 not in lanes
        for _ in range(count):
            for name, lane in zip(names, lanes, strict=True):
                if skips and name == names[0]:
                    continue
                ring.write(lane, record(model.next))
                model.records.setdefault(name, []).append((model.next, model.next))
            ring.commit(model.next + 1)
            model.next += 1
    if after == "resized":
        other = ring_of(size + 3, len(NAMES))
        other.take_over(ring)
        smaller = ring_of(max(1, size - 2), len(NAMES))
        smaller.take_over(other)
        model.moments = min(size, smaller.moments)
        ring = smaller
    elif after == "opened":
        ring = Ring.open(memoryview(ring.copy(b"note")))
        assert ring.noted() == b"note"
    for name in NAMES:
        assert written(ring, name) == model.expected(name)
        assert (name in ring.names()) >= bool(model.expected(name))
    assert ring.newest_ns() == model.next


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from(NAMES), max_size=3, unique=True), max_size=15))
def test_a_lane_that_changes_its_owner_tells_nothing_of_the_one_before(uses: list[list[str]]) -> None:
    """With fewer lanes than names: who has one has its own records, from its last beginning on; the others none."""
    ring = ring_of(8, 3)
    for number, names in enumerate(uses, 1):
        lanes = ring.use(names)
        assert -1 not in lanes
        for name, lane in zip(names, lanes, strict=True):
            ring.write(lane, record(1000 * NAMES.index(name) + number))
        ring.commit(number)
        for name in NAMES:
            values = [value for _, value in written(ring, name)]
            assert all(value // 1000 == NAMES.index(name) for value in values)
            assert (number in [value % 1000 for value in values]) == (name in names)


def test_without_room_nothing_is_taken_from_who_is_there() -> None:
    """More names than lanes, and one that is too long."""
    ring = ring_of(4, 2)
    assert ring.use(["a", "b", "c"])[2] == -1
    assert ring.use(["b", "c", "x" * (MAX_NAME_BYTES + 1)]) == [1, 0, -1]
    with pytest.raises(ValueError, match="at most"):
        ring.note(bytes(MAX_NOTE_BYTES + 1))


def test_a_writer_that_died_in_a_moment() -> None:
    """Its successor gives that moment up: what was written of it is not read, and no rate is made over the pause."""
    memory = memoryview(bytearray(size_bytes(8, 2)))
    ring = Ring.begin(memory, 8, 2)
    first, second = ring.use(["a", "b"])
    for number in (1, 2):
        ring.write(first, record(number))
        ring.write(second, record(number))
        ring.commit(number * 100)
    ring.write(first, record(666))  # and no more
    successor = Ring.open(memory)
    successor.resume()
    assert successor.use(["b", "a"]) == [second, first]
    successor.write(second, record(3))
    successor.commit(5000)
    assert written(successor, "a") == [(100, 1), (200, 2)]
    assert [(one.at_ns, one.span_ns) for one in successor.read("b", 0)] == [(100, 0), (200, 100), (5000, 4800)]
    assert written(successor, "b") == [(100, 1), (200, 2), (5000, 3)]
    assert [one.at_ns for one in successor.read("b", 150)] == [200, 5000]


def test_a_name_that_is_half_written_is_nobodys() -> None:
    """The lane is free for the next one."""
    memory = memoryview(bytearray(size_bytes(8, 1)))
    ring = Ring.begin(memory, 8, 1)
    ring.use(["upstream/a"])
    at = bytes(memory).index(b"upstream/a")
    memory[at : at + 1] = b"X"
    again = Ring.open(memory)
    assert again.names() == []
    assert again.use(["upstream/b"]) == [0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda memory: memory[:100], "too short"),
        (lambda memory: bytes(5000), "it is no history"),
        (lambda memory: memory[:-1], "cut off"),
        (lambda memory: memory[:8] + b"\x09" + memory[9:], "version 9"),
    ],
)
def test_what_is_no_ring_is_told(change: object, says: str) -> None:
    """A file of another kind, of another version, or a part of one."""
    memory = bytes(ring_of(4, 2).copy())
    with pytest.raises(ValueError, match=says):
        Ring.open(memoryview(change(memory)))  # type: ignore[operator]


def test_behind_a_board() -> None:
    """The board's own cells end before it; it outlives the object, and begins anew with another size."""
    board = Board.create(1)
    try:
        assert board.annex() is None
        board.renew_annex(size_bytes(4, 1))
        memory = board.annex()
        assert memory is not None
        assert len(memory) == size_bytes(4, 1)
        ring = Ring.begin(memory, 4, 1)
        ring.write(ring.use(["a"])[0], record(7))
        ring.commit(1)
        board.row(0).begin(1, 2)
        again = board.annex()
        assert again is not None
        assert written(Ring.open(again), "a") == [(1, 7)]
        assert Board.attach(board.fd).row(0).generation == 2
        board.renew_annex(0)
        assert board.annex() is None
    finally:
        board.close()
