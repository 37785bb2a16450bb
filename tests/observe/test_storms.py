"""A storm of refusals begins, goes on and ends, each once, by rates and a clock that tests turn."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeq.observe.history import Moment
from edgeq.observe.storms import BEGIN_PER_S, BEGIN_SHARE, CALM_S, Began, Ended, Storms


def moment(refused_per_s: float, arrivals_per_s: float) -> Moment:
    return Moment(0.0, 0, 0, 0, arrivals_per_s, arrivals_per_s - refused_per_s, refused_per_s, 0.0, 0.0)


def test_one_storm() -> None:
    """It is told when it begins, not again while it goes on or pauses, and when it has been calm for a while."""
    storms = Storms()
    rates = [(0, 100), (40, 100), (60, 100), (0, 100), (0, 100), (6, 100), (1, 100)]
    seen = [storms.look(float(second), {"upstream/u": moment(*rate)}) for second, rate in enumerate(rates)]
    assert seen == [[], [Began("upstream/u", 40, 100)], *[[]] * 5]
    for second in range(7, 6 + int(CALM_S)):
        assert storms.look(float(second), {"upstream/u": moment(0, 100)}) == []
    assert storms.look(6.0 + CALM_S, {"upstream/u": moment(0, 100)}) == [Ended("upstream/u", 5.0, 60)]
    assert storms.look(99.0, {"upstream/u": moment(0, 100)}) == []


def test_what_is_no_storm() -> None:
    """A few refusals of few requests; a small share of many."""
    storms = Storms()
    for refused, arrivals in ((9.9, 10.0), (99.0, 1000.0), (0.0, 0.0)):
        assert storms.look(0.0, {"upstream/u": moment(refused, arrivals)}) == []
    assert storms.look(1.0, {"upstream/u": moment(10.0, 100.0)}) == [Began("upstream/u", 10.0, 100.0)]


def test_a_resource_that_goes_has_no_storm() -> None:
    """It left the configuration in the middle of one."""
    storms = Storms()
    storms.look(0.0, {"upstream/u": moment(50, 50)})
    assert storms.look(3.0, {}) == [Ended("upstream/u", 3.0, 50)]
    assert storms.look(4.0, {"upstream/u": moment(50, 50)}) == [Began("upstream/u", 50, 50)]


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.floats(0, 100), st.floats(0, 1), st.floats(0, 8))))
def test_beginnings_and_ends_alternate(steps: list[tuple[str, float, float, float]]) -> None:
    """Whatever the rates: each storm begins above both thresholds, and ends once, after CALM_S below half of one."""
    storms, now_s = Storms(), 0.0
    open_since: dict[str, float] = {}
    last_above: dict[str, float] = {}
    for name, arrivals, share, pause_s in steps:
        now_s += pause_s
        rates = {one: moment(0, 0) for one in ("a", "b")} | {name: moment(arrivals * share, arrivals)}
        for one in ("a", "b"):
            refused = rates[one].refused_per_s
            if refused >= BEGIN_PER_S / 2 and refused >= BEGIN_SHARE / 2 * rates[one].arrivals_per_s:
                last_above[one] = now_s
        for change in storms.look(now_s, rates):
            if isinstance(change, Began):
                assert change.resource not in open_since
                assert change.refused_per_s >= BEGIN_PER_S
                open_since[change.resource] = now_s
            else:
                since_s = open_since.pop(change.resource)
                assert now_s - last_above[change.resource] >= CALM_S
                assert 0 <= change.lasted_s <= now_s - since_s - CALM_S + 1e-6
