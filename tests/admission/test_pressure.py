"""Pressure: from readings to what a worker does about them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeq.admission.pressure import BEGAN, CALM_S, ENDED, LAG_TICKS, MAX_SHED, Pressure, scaled

shares = st.floats(0, 2)


def pressed(**full: float) -> Pressure:
    """With the limits that the defaults have."""
    limits = {"lag_full_s": 0.1, "memory_full": 0.95, "descriptors_full": 0.95} | full
    return Pressure(limits["lag_full_s"], limits["memory_full"], limits["descriptors_full"])


def test_scaled() -> None:
    """Nothing up to calm, all from full on, in proportion between; off is off."""
    assert [scaled(value, 1.0, 3.0) for value in (0.0, 1.0, 2.0, 3.0, 9.0)] == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert scaled(9.0, 0.0, 0.0) == 0.0


def test_one_long_turn_is_no_pressure() -> None:
    """Lag counts only while it stands."""
    pressure = pressed()
    for _ in range(3):
        pressure.update(5.0, 0, 0, 0)
        for _ in range(LAG_TICKS):
            pressure.update(0.0, 0, 0, 0)
            assert pressure.value == 0.0
    for _ in range(LAG_TICKS):
        pressure.update(0.2, 0, 0, 0)
    assert (pressure.value, pressure.reason) == (1.0, "loop_lag")


def test_shedding_grows_and_ends() -> None:
    """While pressure stays more and more is refused, never all; afterwards everything is served again."""
    pressure = pressed()
    for _ in range(100):
        pressure.update(0.0, 1.0, 0, 0)
    assert (pressure.shed_share, pressure.reason) == (MAX_SHED, "memory_pressure")
    for _ in range(100):
        pressure.update(0.0, 0.5, 0, 0)
        assert pressure.reason == "memory_pressure"  # also of who is still refused while it ends
    assert pressure.shed_share == 0.0
    assert not any(pressure.must_shed() for _ in range(1000))


def test_what_is_still_refused_afterwards_has_the_reason_it_began_with() -> None:
    """Descriptors are short no more, and the share refused shrinks slowly: those refusals are no lag of the loop."""
    pressure = pressed()
    for _ in range(10):
        pressure.update(0.0, 0, 1.0, 0)
    while pressure.shed_share:
        assert pressure.reason == "fd_exhausted"
        pressure.update(0.02, 0.9, 0.87, 0)
    for _ in range(LAG_TICKS):  # a new one has its own
        pressure.update(0.2, 0.9, 0.87, 0)
    assert pressure.reason == "loop_lag"


def test_short_memory_is_not_waited_out() -> None:
    """What is left of it may be gone in a second: from the first reading on all but a few are refused."""
    pressure = pressed()
    pressure.update(0.0, 0.94, 0, 0)
    assert pressure.shed_share == 0.0
    pressure.update(0.0, 0.95, 0, 0)
    assert (pressure.shed_share, pressure.reason) == (MAX_SHED, "memory_pressure")
    pressure.update(0.0, 0.5, 0, 0)
    assert 0.0 < pressure.shed_share < MAX_SHED


def test_the_event_log_hears_of_it_once() -> None:
    """Not of each tick, nor again while it comes and goes; over is what has been for some seconds."""
    pressure = pressed()
    told = []
    for tick in range(1000):
        now = 100.0 + tick * 0.05
        pressure.update(0.0, 0, 1.0 if tick in (20, 21, 100, 150) else 0.1, 0)
        if news := pressure.news(now):
            told.append((tick, news))
    last = 152  # a step up at 150 takes two more ticks to be gone
    assert told == [(20, BEGAN), (last + round(CALM_S / 0.05), ENDED)]


def test_the_share_is_met() -> None:
    """Of many requests the wanted share is refused, spread evenly."""
    pressure = pressed()
    pressure.shed_share = 0.25
    verdicts = [pressure.must_shed() for _ in range(400)]
    assert sum(verdicts) == 100
    assert max(sum(verdicts[at : at + 4]) for at in range(397)) == 1


def test_a_full_accept_queue_sheds_nobody() -> None:
    """It shortens idle connections, but who has been accepted is served."""
    pressure = pressed()
    for _ in range(50):
        pressure.update(0.0, 0, 0, 2.0)
    assert pressure.shed_share == 0.0
    assert pressure.idle_s(75.0) < 20.0


@given(st.lists(st.tuples(shares, shares, shares, shares), max_size=50), st.floats(0, 100), st.integers(1, 100))
def test_always_within_bounds(readings: list[tuple[float, float, float, float]], idle_s: float, budget: int) -> None:
    """Whatever is read: shares stay shares, at least one connection is accepted, idle time never grows."""
    pressure = pressed()
    for reading in readings:
        pressure.update(*reading)
        assert 0.0 <= pressure.value <= 1.0
        assert 0.0 <= pressure.shed_share <= MAX_SHED
        assert 1 <= pressure.budget(budget) <= budget
        assert pressure.idle_s(idle_s) <= (idle_s or 60.0)


def test_switched_off() -> None:
    """Limits of 0 press nobody."""
    pressure = pressed(lag_full_s=0.0, memory_full=0.0, descriptors_full=0.0)
    for _ in range(20):
        pressure.update(9.0, 9.0, 9.0, 0.0)
    assert pressure.value == 0.0
