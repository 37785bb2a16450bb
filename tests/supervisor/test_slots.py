"""Slots: which workers run, and how long a dead one waits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgeq.supervisor.slots import FIRST_DELAY_S, MAX_DELAY_S, SETTLED_S, YOUNG_S, Backoff, Phase, Resize, SlotTable


def test_first_restart_is_at_once_then_doubles_to_a_cap() -> None:
    """A lone crash costs nothing, a crash loop slows down."""
    backoff = Backoff()
    now_s = 100.0
    waits = []
    for _ in range(9):
        backoff.started(now_s)
        now_s += 1
        waits.append(backoff.died(now_s))
    assert waits == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_long_life_resets_and_middle_age_keeps() -> None:
    """Who lived long starts at once; who lived a while waits as long as before."""
    backoff = Backoff()
    for now_s in (0.0, 1.0, 2.0):
        backoff.started(now_s)
        backoff.died(now_s)
    backoff.started(10)
    assert backoff.died(10 + YOUNG_S + 1) == 0.4
    backoff.started(50)
    assert backoff.died(50 + YOUNG_S + 1) == 0.4
    backoff.started(100)
    assert backoff.died(100 + SETTLED_S) == 0
    backoff.started(200)
    assert backoff.died(200) == FIRST_DELAY_S


@given(st.lists(st.floats(0, 100), max_size=50))
def test_wait_never_passes_the_cap(lives_s: list[float]) -> None:
    """Whatever happens, a worker is tried again within MAX_DELAY_S."""
    backoff = Backoff()
    now_s = 0.0
    for life_s in lives_s:
        backoff.started(now_s)
        now_s += life_s
        assert 0 <= backoff.died(now_s) <= MAX_DELAY_S


def test_plan_takes_the_lowest_free_and_leaves_the_highest() -> None:
    """Slot numbers stay small, and a slot that still drains is not used again."""
    table = SlotTable(4)
    assert table.plan(2) == Resize((0, 1), ())
    table.open((0, 1), 0)
    for slot in table.due(0):
        table.starting(slot, 0)
        table.ready(slot)
    assert table.plan(1) == Resize((), (1,))
    table.leave(1)
    assert table.plan(3) == Resize((2, 3), ())
    with pytest.raises(ValueError, match="5 workers asked, but only 3 of 4"):
        table.plan(5)
    assert table.died(1, 5) is None
    assert table.plan(3) == Resize((1, 2), ())


def test_dead_worker_becomes_due() -> None:
    """The table says when to look again; a new configuration lets nobody wait."""
    table = SlotTable(1)
    table.open((0,), 0)
    for now_s in (0.0, 0.0, 0.1):
        assert table.due(now_s) == (0,)
        table.starting(0, now_s)
        table.died(0, now_s)
    assert table.next_due_s() == pytest.approx(0.3)
    assert table.due(0.2) == ()
    table.hurry(0.2)
    assert table.due(0.2) == (0,)


class SlotWalk(RuleBasedStateMachine):
    """Any order of events ends in a legal state, and wrong ones are named errors."""

    def __init__(self) -> None:
        super().__init__()
        self.table = SlotTable(5)
        self.now_s = 0.0

    def slots(self, *phases: Phase) -> list[int]:
        return [slot for slot in range(5) if self.table.phase(slot) in phases]

    @rule(workers=st.integers(1, 5), seconds=st.floats(0, 40))
    def resize(self, workers: int, seconds: float) -> None:
        self.now_s += seconds
        free = len(self.slots(Phase.EMPTY))
        active = len(self.table.active())
        if workers > active + free:
            with pytest.raises(ValueError):
                self.table.plan(workers)
            return
        plan = self.table.plan(workers)
        self.table.open(plan.start, self.now_s)
        for slot in plan.leave:
            self.table.leave(slot)
        assert len(self.table.active()) == workers

    @rule(seconds=st.floats(0, 6))
    def start_due(self, seconds: float) -> None:
        self.now_s += seconds
        for slot in self.table.due(self.now_s):
            self.table.starting(slot, self.now_s)

    @precondition(lambda self: self.slots(Phase.STARTING))
    @rule(data=st.data())
    def ready(self, data: st.DataObject) -> None:
        self.table.ready(data.draw(st.sampled_from(self.slots(Phase.STARTING))))

    @precondition(lambda self: self.slots(Phase.STARTING, Phase.SERVING, Phase.LEAVING))
    @rule(data=st.data(), seconds=st.floats(0, 40))
    def die(self, data: st.DataObject, seconds: float) -> None:
        self.now_s += seconds
        slot = data.draw(st.sampled_from(self.slots(Phase.STARTING, Phase.SERVING, Phase.LEAVING)))
        leaving = self.table.phase(slot) is Phase.LEAVING
        assert (self.table.died(slot, self.now_s) is None) == leaving

    @rule(slot=st.integers(0, 4))
    def illegal(self, slot: int) -> None:
        if self.table.phase(slot) is not Phase.STARTING:
            with pytest.raises(ValueError, match=f"slot {slot} is "):
                self.table.ready(slot)
        if self.table.phase(slot) in (Phase.EMPTY, Phase.BACKOFF):
            with pytest.raises(ValueError, match=f"slot {slot} is "):
                self.table.died(slot, self.now_s)

    @invariant()
    def nobody_waits_for_ever(self) -> None:
        due_s = self.table.next_due_s()
        assert (due_s is None) == (not self.slots(Phase.BACKOFF))
        assert due_s is None or due_s <= self.now_s + MAX_DELAY_S
        assert self.table.serving() == frozenset(self.slots(Phase.SERVING))


TestSlotWalk = SlotWalk.TestCase
