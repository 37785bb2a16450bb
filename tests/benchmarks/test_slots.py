"""The upstream of the benchmark of overload: exact capacity, first come, first served."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.slots import Service, Shape, Slots, service_time


def test_a_late_look_costs_no_capacity() -> None:
    """Whoever looks once a second finds all that two slots of 100 ms can do, at the instants at which it was done."""
    slots: Slots[int] = Slots(2, lambda: 0.1)
    for job in range(30):
        slots.arrive(job, 0.0)
    ended = slots.finished(1.0)
    assert [job for _, job in ended] == list(range(20))
    assert [end for end, _ in ended][::2] == pytest.approx([0.1 * number for number in range(1, 11)])
    assert slots.waiting == 8


def test_an_idle_slot_begins_at_once() -> None:
    """Work never waits beside a free slot, and the next end is known."""
    slots: Slots[str] = Slots(1, lambda: 0.5)
    slots.arrive("a", 1.0)
    assert slots.next_end == 1.5
    slots.arrive("b", 1.1)
    assert slots.waiting == 1
    assert slots.finished(2.0) == [(1.5, "a"), (2.0, "b")]
    assert slots.next_end is None


def test_slots_that_go_finish_and_slots_that_come_begin() -> None:
    """Fewer slots: what runs is finished, nothing new begins before. More: those who wait begin at once."""
    slots: Slots[int] = Slots(4, lambda: 1.0)
    for job in range(8):
        slots.arrive(job, 0.0)
    slots.slots = 1
    assert [job for _, job in slots.finished(1.0)] == [0, 1, 2, 3]
    assert slots.waiting == 3
    slots.slots = 4
    assert slots.finished(1.2) == []
    assert slots.waiting == 0


@given(
    slots=st.integers(1, 5),
    gaps=st.lists(st.tuples(st.floats(0, 2), st.floats(0.01, 3), st.integers(1, 6)), max_size=60),
)
def test_never_more_than_slots_and_nobody_waits_beside_a_free_one(
    slots: int, gaps: list[tuple[float, float, int]]
) -> None:
    """Random arrivals, durations and sizes: work conserving, nothing lost, nothing twice."""
    durations = iter([duration for _, duration, _ in gaps])
    under_test: Slots[int] = Slots(slots, lambda: next(durations))
    now, ended = 0.0, []
    for job, (gap, _, size) in enumerate(gaps):
        now += gap
        under_test.slots = size
        ended += under_test.finished(now)
        under_test.arrive(job, now)
        running = job + 1 - len(ended) - under_test.waiting
        assert running > 0
        assert not under_test.waiting or running >= size
    ended += under_test.finished(1e9)
    assert under_test.waiting == 0
    assert sorted(job for _, job in ended) == list(range(len(gaps)))


@pytest.mark.parametrize("shape", ["constant", "exponential", "bimodal"])
def test_every_shape_has_the_mean_that_it_says(shape: Shape) -> None:
    """So that the capacity is the same in each."""
    service, chance = Service(16, 0.02, shape), random.Random(1)
    mean = sum(service_time(service, chance) for _ in range(20_000)) / 20_000
    assert mean == pytest.approx(0.02, rel=0.03)
    assert service.capacity == pytest.approx(800)
