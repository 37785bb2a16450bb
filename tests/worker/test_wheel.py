"""The timer wheel against a plain reference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.worker.wheel import FINE_TICK_S, NEVER, Alarm, FineWheel, Wheel

TICK = 0.1


def test_late_by_a_tick_at_most_never_early() -> None:
    """Precision is one tick."""
    wheel = Wheel(100.0, TICK, 8)
    fired: list[float] = []
    alarm = Alarm(fired.append)
    wheel.schedule(alarm, 100.25)
    for step in range(1, 6):
        wheel.advance(100.0 + step * TICK)
    assert len(fired) == 1
    assert 100.25 <= fired[0] <= 100.25 + 2 * TICK


def test_later_is_one_store_and_earlier_moves() -> None:
    """Both take effect."""
    wheel = Wheel(0.0, TICK, 8)
    fired: list[float] = []
    alarm = Alarm(fired.append)
    wheel.schedule(alarm, 0.3)
    wheel.schedule(alarm, 0.55)
    wheel.advance(0.5)
    assert not fired
    wheel.schedule(alarm, 0.51)
    wheel.advance(0.61)
    assert len(fired) == 1
    wheel.advance(5.0)
    assert len(fired) == 1


def test_beyond_the_last_bucket() -> None:
    """Waits there and is looked at again; NEVER never comes."""
    wheel = Wheel(0.0, TICK, 8)
    fired: list[float] = []
    never: list[float] = []
    wheel.schedule(Alarm(fired.append), 10.0)
    wheel.schedule(Alarm(never.append), NEVER)
    for step in range(1, 99):
        wheel.advance(step * TICK)
    assert not fired
    wheel.advance(10.2)
    assert len(fired) == 1
    wheel.advance(1000.0)
    assert not never


def test_an_expiry_may_remove_and_schedule_others() -> None:
    """Also those of the same turn."""
    wheel = Wheel(0.0, TICK, 8)
    fired: list[str] = []
    alarms: list[Alarm] = []

    def ring(_: float) -> None:
        fired.append("ring")
        for other in alarms:
            wheel.remove(other)
        if len(fired) == 1:
            wheel.schedule(alarms[0], 0.25)

    alarms.extend(Alarm(ring) for _ in range(3))
    for alarm in alarms:
        wheel.schedule(alarm, 0.1)
    wheel.advance(0.2)
    assert fired == ["ring"]
    wheel.advance(0.4)
    assert fired == ["ring", "ring"]


actions = st.one_of(
    st.tuples(st.just("schedule"), st.integers(0, 4), st.floats(-0.5, 3.0)),
    st.tuples(st.just("remove"), st.integers(0, 4), st.just(0.0)),
    st.tuples(st.just("advance"), st.just(0), st.floats(0.0, 2.5)),
)


@given(st.lists(actions, max_size=40))
@settings(max_examples=300)
def test_against_a_plain_reference(script: list[tuple[str, int, float]]) -> None:
    """Every scheduled thing fires once, not before its time, and no later than a tick after the wheel has passed it."""
    now = 1000.0
    wheel = Wheel(now, TICK, 8)
    fired: list[tuple[int, float]] = []
    alarms = [Alarm(lambda at, number=number: fired.append((number, at))) for number in range(5)]  # type: ignore[misc]
    due: dict[int, tuple[float, float]] = {}
    for action, number, amount in script:
        if action == "schedule":
            due[number] = (now + amount, max(now, now + amount))
            wheel.schedule(alarms[number], now + amount)
        elif action == "remove":
            due.pop(number, None)
            wheel.remove(alarms[number])
        else:
            now += amount
            fired.clear()
            count = wheel.advance(now)
            assert count == len(fired)
            for which, at in fired:
                assert at == now
                assert due.pop(which)[0] <= now
            for which, (_, at_last) in due.items():
                assert at_last > now - 2 * TICK, (which, at_last, now)


class Loop:
    """Time, and the one timer that a fine wheel may have."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.due: list[tuple[float, Callable[[], object]]] = []
        self.wheel = FineWheel(self.clock, self.call_later)

    def clock(self) -> float:
        return self.now_s

    def call_later(self, seconds: float, call: Callable[[], object]) -> None:
        assert not self.due, "two timers"
        self.due.append((self.now_s + seconds, call))

    def advance(self, seconds: float) -> None:
        """As a loop that is never late."""
        end = self.now_s + seconds
        while self.due and self.due[0][0] <= end:
            self.now_s, call = self.due.pop()
            call()
        self.now_s = end


def test_a_fine_wheel_runs_only_while_something_is_in_it() -> None:
    """One timer, however many wait; none once the last has expired or was removed, also after an hour of nothing."""
    loop = Loop()
    fired: list[float] = []
    for _ in range(2):
        alarms = [Alarm(fired.append) for _ in range(3)]
        for number, alarm in enumerate(alarms):
            loop.wheel.schedule(alarm, loop.now_s + 0.025 * (number + 1))
        begun_at = loop.now_s
        loop.wheel.remove(alarms[2])
        loop.advance(0.1)
        assert loop.wheel.is_idle()
        assert not loop.due
        assert len(fired) == 2
        for number, at in enumerate(fired):
            assert 0 <= at - begun_at - 0.025 * (number + 1) <= 2 * FINE_TICK_S
        fired.clear()
        loop.advance(3600.0)


def test_a_fine_wheel_goes_on_after_a_defect() -> None:
    """What one of them raises is told to the loop, and the others have their time."""
    loop = Loop()
    fired: list[float] = []

    def defect(_: float) -> None:
        raise ZeroDivisionError

    loop.wheel.schedule(Alarm(defect), loop.now_s + 0.01)
    loop.wheel.schedule(Alarm(fired.append), loop.now_s + 0.03)
    with pytest.raises(ZeroDivisionError):
        loop.advance(0.02)
    loop.advance(0.1)
    assert len(fired) == 1
    assert loop.wheel.is_idle()
