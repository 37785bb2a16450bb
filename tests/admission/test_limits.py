"""What moves a limit: windows of counters in, a number out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.admission.adaptive import Adaptive
from edgeq.admission.ceiling import Ceiling
from edgeq.admission.knee import LADDER, Knee, rung_at
from edgeq.admission.learned import learned
from edgeq.admission.limits import MAX_LIMIT, Aimd, Fixed, Gradient2, Learner, Totals, Window
from edgeq.admission.observer import Observer


def window(
    now: float = 1.0,
    duration_s: float = 1.0,
    ok: int = 100,
    dropped: int = 0,
    busy: int = 0,
    beside: int = 0,
    in_flight: float = 10.0,
    latency_s: float = 0.1,
    bound: float = 1.0,
) -> Window:
    """A window in which the limit bound for the share `bound` of the time."""
    one = Window(now)
    one.duration_s = duration_s
    one.ok = ok
    one.dropped = dropped
    one.busy = busy
    one.busy_beside = busy * beside
    one.finished = ok + dropped + busy
    one.service_s = ok * latency_s
    one.times = [latency_s] * min(ok, 64)
    one.in_flight = in_flight
    one.bound_s = duration_s * bound
    one.bound_ok = int(ok * bound)
    return one


def test_a_fixed_limit_never_moves() -> None:
    """Whatever happens, the operator's number holds."""
    limit = Fixed(7)
    assert not limit.due(window())
    limit.update(window(dropped=1000))
    assert limit.value == 7


def test_bounds_must_make_sense() -> None:
    """A limit of 0 would stop an upstream for good."""
    for bad in ((0, 0, 5), (5, 6, 7), (5, 1, 4), (5, 1, MAX_LIMIT + 1)):
        try:
            Aimd(*bad)
        except ValueError:
            continue
        raise AssertionError(bad)


def test_aimd_rises_by_one_only_where_the_limit_is_needed() -> None:
    """A limit that is not reached says nothing about more."""
    limit = Aimd(initial=20)
    limit.update(window(in_flight=2.0, bound=0.0))
    assert limit.value == 20
    limit.update(window(in_flight=19.0))
    assert limit.value == 21


def test_aimd_falls_by_a_tenth() -> None:
    """One window with a drop is one step down, however many drops it has."""
    limit = Aimd(initial=20)
    limit.update(window(dropped=50))
    assert limit.value == 18
    limit.update(window(busy=1, beside=18))
    assert limit.value == 16


def test_gradient2_grows_while_the_latency_is_as_usual_and_shrinks_when_it_is_not() -> None:
    """Its tolerance is half of the usual latency."""
    limit = Gradient2()
    for _ in range(20):
        limit.update(window(latency_s=0.1))
    grown = limit.value
    assert grown > 30
    for _ in range(10):
        limit.update(window(latency_s=0.4))
    assert limit.value < grown


def test_gradient2_holds_while_the_limit_is_not_used() -> None:
    """Otherwise it would grow without bound at night."""
    limit = Gradient2()
    for _ in range(20):
        limit.update(window(in_flight=1.0, bound=0.0))
    assert limit.value == 20


def test_a_learner_leaves_out_what_was_in_flight_at_a_change() -> None:
    """Answers to requests that were sent under the old limit say nothing about the new one."""
    totals = Totals()
    learner = Learner(Adaptive(initial=8), 0.0, totals)

    def answers(count: int, seconds: float) -> None:
        totals.ok += count
        totals.bound_ok += count
        totals.bound_s += seconds
        totals.in_flight_s += seconds * learner.limit.value
        totals.service_s += 0.5 * count

    answers(7, 0.9)
    assert learner.tick(0.9, totals) == 8  # not yet one for each in flight
    answers(1, 0.1)
    assert learner.tick(1.0, totals) == 16
    answers(7, 0.5)
    learner.tick(1.5, totals)
    answers(1, 0.1)
    learner.tick(1.6, totals)  # the eight from before are through, and the next window begins
    answers(15, 1.0)
    assert learner.tick(2.6, totals) == 16
    answers(1, 0.1)
    assert learner.tick(2.7, totals) == 32


def test_a_learner_without_traffic_does_nothing() -> None:
    """No window, no division by nothing."""
    learner = Learner(Adaptive(initial=5), 0.0, Totals())
    for tick in range(100):
        assert learner.tick(tick * 0.05, Totals()) == 5


def test_rungs_are_found() -> None:
    """The highest one that is not above."""
    for rung, limit in enumerate(LADDER[:-1]):
        assert rung_at(limit) == rung
        assert rung_at(limit + 0.5) == rung
    assert rung_at(0.3) == 0


def test_the_knee_is_where_the_answers_stop_following() -> None:
    """Exact data of an upstream with 12 slots, tried below and above."""
    knee = Knee()
    for limit in (4, 8, 10, 14, 18):
        knee.add(rung_at(limit), 100.0, 100.0 * min(limit, 12) / 0.05)
    knee.weigh(36.0)
    assert LADDER[knee.quantile(0.5)] == 12
    assert LADDER[knee.enough()] == 14


def test_what_only_ever_grew_has_its_knee_above() -> None:
    """Then twice as much is worth a trial."""
    knee = Knee()
    for limit in (1, 2, 4, 8):
        knee.add(rung_at(limit), 10.0, 100.0 * limit)
    knee.weigh(16.0)
    assert LADDER[knee.quantile(0.1)] >= 8
    assert LADDER[knee.quantile(0.95)] >= 15


def test_evidence_that_fades_goes() -> None:
    """Nothing is kept for ever, and nothing far from the limit that is in use."""
    knee = Knee()
    knee.add(rung_at(1), 10.0, 10.0)
    knee.add(rung_at(8), 10.0, 80.0)
    knee.fade(1.0, 8)
    assert knee.tried == [rung_at(8)]
    for _ in range(20):
        knee.fade(0.5, 8)
    assert knee.tried == []
    assert knee.rate(rung_at(8)) == 0.0


def test_refusals_say_how_many_fit() -> None:
    """Sixteen were at work beside each refused one: two windows of it, and sixteen is the ceiling for a while."""
    ceiling = Ceiling(100)
    assert ceiling.update(window(now=1.0, busy=50, beside=17), 24) == 0
    assert ceiling.update(window(now=2.0, busy=50, beside=17), 24) == 16
    assert ceiling.update(window(now=3.0), 16) == 0
    assert ceiling.value == 16
    assert ceiling.update(window(now=7.5), 16) == 0
    assert ceiling.value == 100


def test_refusals_for_another_reason_are_not_heeded() -> None:
    """A broken endpoint refuses its half whatever the limit: lowering it only costs answers."""
    ceiling = Ceiling(100)
    ceiling.update(window(now=1.0, ok=100, busy=100, beside=17), 24)
    assert ceiling.update(window(now=2.0, ok=100, busy=100, beside=17), 24) == 16
    assert ceiling.update(window(now=3.0, ok=60, busy=60, beside=12), 16) == 24
    assert ceiling.update(window(now=4.0, ok=100, busy=100, beside=17), 24) == 0
    assert ceiling.value == 100


def test_a_limit_that_does_not_bind_stays() -> None:
    """Half an hour of little traffic is no evidence that an upstream is small."""
    limit = Adaptive(initial=50)
    for tick in range(1800):
        limit.update(window(now=float(tick), in_flight=3.0, bound=0.0))
    assert limit.value == 50


def test_a_start_doubles_while_the_answers_follow() -> None:
    """From 1 to more than 200 in eight windows (the rungs are not powers of two)."""
    limit = Adaptive()
    for _ in range(8):
        limit.update(window(ok=20 * limit.value, in_flight=float(limit.value), latency_s=0.05))
    assert 200 < limit.value <= 256


def test_a_fast_upstream_is_not_made_to_wait_for_single_requests() -> None:
    """One that answers 20,000 a second, one after the other: 5 ms of it are let in, whatever its knee."""
    limit = Adaptive()
    for _ in range(20):
        in_flight = float(limit.value)
        limit.update(window(ok=20_000, in_flight=in_flight, latency_s=in_flight / 20_000))
    assert 95 <= limit.settled <= 120


def test_those_who_wait_for_the_very_first_answer_are_let_in() -> None:
    """A model takes 30 s for it; within a second there is room for more than a hundred."""
    limit = Adaptive()
    for _ in range(16):
        limit.nudge()
    assert 150 <= limit.value
    for _ in range(100):
        limit.nudge()
    assert limit.value <= 1.5 * Adaptive.NUDGED


def test_a_guess_is_taken_back_once_answers_are_late() -> None:
    """Let in before the first answer: 40. The first took 0.5 s, later ones 1.25 s, 32 a second: that is 16, or 20."""
    limit = Adaptive()
    while limit.value < 40:
        limit.nudge()
    before = limit.value
    limit.update(window(duration_s=0.6, ok=12, in_flight=13.0, latency_s=0.5))
    assert limit.value == before
    limit.update(window(duration_s=1.25, ok=40, in_flight=40.0, latency_s=1.25))
    assert 16 <= limit.value <= 22
    known = limit.value
    limit.nudge()  # something is known now
    assert limit.value == known


def test_first_answers_that_differ_are_the_short_ones() -> None:
    """Nine in flight for 0.6 s, four have come back, after 0.05 to 0.5 s: the usual time is not 0.2 s but more."""
    limit = Adaptive()
    while limit.value < 9:
        limit.nudge()
    first = window(duration_s=0.6, ok=4, in_flight=8.0)
    first.times = [0.05, 0.15, 0.25, 0.5]
    limit.update(first)
    limit.update(window(duration_s=0.6, ok=9, in_flight=9.0, latency_s=0.6))
    assert limit.value == 18


def test_a_rare_answer_that_takes_long_is_no_sign_of_a_queue() -> None:
    """One of a second among those of 5 ms: a start goes on."""
    limit = Adaptive()
    limit.update(window(ok=4, duration_s=0.02, in_flight=1.0, latency_s=0.005))
    second = window(ok=4, duration_s=0.51, in_flight=2.0, latency_s=0.005)
    second.times[3] = 1.0
    limit.update(second)
    assert limit.value == 8


def test_a_first_answer_that_comes_quickly_is_enough_to_go_on_with_four() -> None:
    """Of 20 ms: four of them wait no longer than a queue may stand. After one of 200 ms, or a lost one, it waits."""
    for latency_s, ok, value in ((0.02, 1, 4), (0.2, 1, 1), (0.02, 0, 1)):
        limit = Adaptive()
        first = window(duration_s=max(latency_s, 0.02), ok=ok, in_flight=1.0, latency_s=latency_s)
        first.dropped = 1 - ok
        if limit.due(first):
            limit.update(first)
        assert limit.value == value


def test_a_start_does_not_end_by_chance() -> None:
    """Answers follow a little and took longer: a second look with the same limit. Where none follow it is over."""
    for follow, value in ((4, 4), (2, 3)):
        limit = Adaptive()
        for in_flight in (1.0, 2.0):
            limit.update(window(duration_s=0.5, ok=round(5 * in_flight), in_flight=in_flight, latency_s=0.1))
        assert limit.value == 4
        late = window(duration_s=0.5, ok=round(5 * follow * 0.7), in_flight=4.0, latency_s=0.2)
        limit.update(late)
        assert limit.is_starting == (value == 4)
        limit.update(late)
        assert not limit.is_starting


def test_a_lower_limit_is_not_tried_beside_requests_that_hang() -> None:
    """As soon as some are known to hang every place is needed: back at once, without waiting for a window."""
    limit = Adaptive(initial=16)
    for _ in range(200):
        value = limit.value
        limit.update(window(ok=50 * min(16, value), in_flight=float(value), latency_s=max(16, value) / 800))
        if limit.value < limit.settled:
            break
    assert limit.value < limit.settled
    totals = Totals()
    learner = Learner(limit, 0.0, totals)
    learner.tick(0.01, totals)
    assert limit.value < limit.settled
    totals.stuck = 1
    assert learner.tick(0.02, totals) == limit.settled


def test_fewer_answers_beside_hanging_ones_do_not_lower_the_limit() -> None:
    """Half of the answers at the same limit: half of the slots are gone, unless somebody hangs in them."""
    for stuck in (0, 50):
        limit = Adaptive(initial=16)
        for _ in range(60):
            value = limit.value
            limit.update(window(ok=50 * min(16, value), in_flight=float(value), latency_s=max(16, value) / 800))
        settled = limit.settled
        limit.update(window(ok=50 * 16, in_flight=float(limit.value), latency_s=0.02))
        for _ in range(3):
            fewer = window(ok=400, in_flight=float(limit.value), latency_s=0.02)
            fewer.stuck = stuck
            limit.update(fewer)
        assert (limit.value < settled) == (stuck == 0)


def test_an_observer_finds_the_knee_without_a_limit() -> None:
    """Twelve slots: answers follow to 12 in flight, and not beyond. Before that is seen, it may be anywhere above."""
    limit = Observer()
    for _ in range(10):
        for in_flight in (2, 4, 8):
            limit.update(window(ok=20 * in_flight, in_flight=float(in_flight), bound=0.0))
    assert limit.value >= 14
    for _ in range(10):
        for in_flight in (8, 10, 14, 20):
            limit.update(window(ok=20 * min(12, in_flight), in_flight=float(in_flight), bound=0.0))
    assert 12 <= limit.value <= 14


def test_limits_are_made_by_the_names_of_the_configuration() -> None:
    """And an unknown name is an error."""
    for name in ("adaptive", "aimd", "gradient2", "observe"):
        assert learned(name).value >= 1
    with pytest.raises(ValueError, match="vegas"):
        learned("vegas")


def test_losing_most_halves_the_limit() -> None:
    """An upstream that has become a hundred times slower answers nobody in time."""
    limit = Adaptive(initial=64)
    limit.update(window(ok=0, dropped=64, in_flight=64.0))
    assert 28 <= limit.value <= 32
    limit.update(window(ok=0, dropped=32, in_flight=32.0))
    assert 14 <= limit.value <= 16


@given(
    st.lists(
        st.tuples(
            st.integers(0, 10_000),
            st.integers(0, 1_000),
            st.integers(0, 1_000),
            st.floats(0.001, 100.0),
            st.sampled_from([0.0, 0.04, 0.5, 0.95, 1.0]),
            st.booleans(),
        ),
        max_size=60,
    ),
    st.integers(1, 40),
    st.integers(0, 300),
)
def test_no_windows_whatever_lead_out_of_the_bounds(
    windows: list[tuple[int, int, int, float, float, bool]], minimum: int, more: int
) -> None:
    """Any sequence, possible or not: the number stays within its bounds, and so does what is shown."""
    limit = Adaptive(initial=minimum, minimum=minimum, maximum=minimum + more)
    now = 0.0
    for ok, dropped, busy, duration_s, bound, nudged in windows:
        now += duration_s
        one = window(now, duration_s, ok, dropped, busy, limit.value, float(limit.value), 0.01, bound)
        if one.finished:
            limit.update(one)
        if nudged:
            limit.nudge()
        assert minimum <= limit.value <= minimum + more
        assert minimum <= limit.settled <= minimum + more
