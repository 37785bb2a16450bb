"""Learned limits in front of a simulated upstream: a small part of `python -m benchmarks.sim_limits`."""

from __future__ import annotations

import pytest

from benchmarks.sim_limits import SHAPES, Upstream, measure, simulate
from edgeq.admission.adaptive import Adaptive
from edgeq.admission.limits import Fixed


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("slots", [1, 2, 16])
@pytest.mark.parametrize("load", [0.8, 4.0])
def test_a_learned_limit_answers_what_a_known_one_does(slots: int, shape: str, load: float) -> None:
    """Whatever the slots and the distribution; not one that rises with the load, as the time of a run is short here."""
    cell = measure(Upstream(slots, 0.02, shape), Adaptive, load, (1,), quick=True)
    assert cell.share >= 0.96
    assert cell.median <= cell.known_median + 1.0


def test_nothing_is_refused_below_capacity() -> None:
    """The queue takes the peaks; the limit is never in the way."""
    upstream = Upstream(16, 0.02, "exponential")
    outcome = simulate(upstream, Adaptive(), 0.8 * upstream.capacity, 20.0, warm_s=3.0)
    assert outcome.refused == 0


def test_an_upstream_that_refuses_is_not_pushed() -> None:
    """503 beyond its slots: the limit stays at what it takes."""
    cell = measure(Upstream(16, 0.02, "exponential", refuses=True), Adaptive, 2.0, (1,), quick=True)
    assert cell.share >= 0.96


@pytest.mark.parametrize("shape", SHAPES)
def test_a_capacity_that_halves_and_returns_is_followed(shape: str) -> None:
    """Within 5 s down, within 10 s back."""
    upstream = Upstream(64, 0.01, shape, changes=((10.0, 32), (20.0, 64)))
    outcome = simulate(upstream, Adaptive(), 2 * upstream.capacity, 36.0)
    assert outcome.limit_share(15.0, 20.0, 0.5) <= 48
    assert outcome.good_between(10.0, 20.0) >= 0.97 * 10 * upstream.capacity / 2
    assert outcome.good_between(30.0, 36.0) >= 0.97 * 6 * upstream.capacity


def test_a_change_soon_after_a_cold_start_is_followed() -> None:
    """Half of the slots go six seconds after it, when no lower limit has been tried yet."""
    upstream = Upstream(16, 0.02, "constant", changes=((6.0, 8), (16.0, 16)))
    outcome = simulate(upstream, Adaptive(), 2 * upstream.capacity, 26.0)
    assert outcome.limit_share(11.0, 16.0, 0.5) <= 12
    assert outcome.good_between(18.0, 26.0) >= 0.97 * 8 * upstream.capacity


@pytest.mark.parametrize("load", [2.0, 4.0])
def test_a_cold_start_costs_little(load: float) -> None:
    """The first eight seconds, nothing known: nearly what a limit of as many as there are slots answers."""
    upstream = Upstream(16, 0.02, "constant")
    cold = simulate(upstream, Adaptive(), load * upstream.capacity, 8.0)
    known = simulate(upstream, Fixed(16), load * upstream.capacity, 8.0)
    assert cold.good >= 0.98 * known.good


def test_a_slow_upstream_survives_a_cold_start() -> None:
    """One slot of half a second must not be filled with minutes of work before the first answer."""
    upstream = Upstream(1, 0.5, "constant")
    outcome = simulate(upstream, Adaptive(), 2 * upstream.capacity, 20.0)
    assert outcome.good_between(0.0, 20.0) >= 0.8 * 20 * upstream.capacity


@pytest.mark.parametrize("shape", SHAPES)
def test_a_wide_and_slow_upstream_is_in_use_soon_after_a_cold_start(shape: str) -> None:
    """64 at once, half a second each: nobody can know; most of it is used within some generations of answers."""
    upstream = Upstream(64, 0.5, shape)
    outcome = simulate(upstream, Adaptive(), 2 * upstream.capacity, 10.0)
    assert outcome.good_between(5.0, 10.0) >= 0.7 * 5 * upstream.capacity


@pytest.mark.parametrize("seed", range(3))
def test_rare_answers_that_take_long_cost_the_others_nothing(seed: int) -> None:
    """From the start on: 64 slots, a twentieth and a fifth of them in use, 3 of 100 answers take 160 times as long."""
    upstream = Upstream(64, 0.03, "rare")
    for load in (0.05, 0.2):
        outcome = simulate(upstream, Adaptive(), load * upstream.capacity, 12.0, seed=seed)
        assert outcome.good >= 0.995 * outcome.offered
