"""What checks make of an endpoint's health."""

from __future__ import annotations

import random

from benchmarks.sim_balance import make_upstream
from edgeq.config.base import Duration
from edgeq.config.schema import Health
from edgeq.config.schema import Upstream as UpstreamConfig
from edgeq.upstream.health import HealthState, adopt_health
from edgeq.upstream.shared import BAD, GOOD, HEALTH, UNKNOWN, stamp

CONFIG = Health(interval=Duration(10), healthy=2, unhealthy=3)


def made() -> HealthState:
    upstream = make_upstream(UpstreamConfig(endpoints=(), health=CONFIG), [1.0, 1.0])
    return HealthState(CONFIG, upstream.members[0], 100.0, random.Random(1))


def walk(state: HealthState, checks: str) -> str:
    """Results of checks ("g", "b", "t") to the health after each ("G", "B", "?")."""
    outcomes = {"g": "good", "b": "bad", "t": "timeout"}
    seen = ""
    for check in checks:
        state.begin()
        state.done(outcomes[check], "", 101.0)  # type: ignore[arg-type]
        seen += "?GB"[state.member.health]
    return seen


def test_the_first_check_decides_alone() -> None:
    """Before it nothing is known, and the endpoint is used."""
    assert made().member.health == UNKNOWN
    assert walk(made(), "g") == "G"
    assert walk(made(), "b") == "B"


def test_thresholds() -> None:
    """Three bad ones in a row, two good ones in a row."""
    assert walk(made(), "gbbgbbbbgbgg") == "GGGGGGBBBBBG"


def test_a_timeout_is_no_death_while_requests_are_answered() -> None:
    """Saturated is not dead; but without answers a time-out is as bad as anything else."""
    state = made()
    assert walk(state, "g") == "G"
    for _ in range(5):
        state.member.succeeded()
        assert walk(state, "t") == "G"
    assert walk(state, "ttt") == "GGB"
    state.member.succeeded()
    assert walk(state, "t") == "B"


def test_checks_are_spread() -> None:
    """The first one within a second, each next one an interval later, give or take a tenth."""
    due = [HealthState(CONFIG, made().member, 100.0, random.Random(seed)).due_at for seed in range(50)]
    assert 100 <= min(due) < 100.2
    assert 100.8 < max(due) <= 101
    state = made()
    gaps = []
    for _ in range(50):
        state.done("good", "", 200.0)
        gaps.append(state.due_at - 200)
    assert 9 <= min(gaps) < 9.3
    assert 10.7 < max(gaps) <= 11


def test_other_workers_follow() -> None:
    """The newest finding of any worker holds; what is older than one's own does not."""
    member = made().member
    member.cells.put(HEALTH, stamp(10.0, BAD))
    assert adopt_health(member)
    assert member.health == BAD
    assert not adopt_health(member)
    member.cells.put(HEALTH, stamp(9.0, GOOD))
    assert not adopt_health(member)
    member.cells.put(HEALTH, stamp(11.0, GOOD))
    assert adopt_health(member)
    assert member.health == GOOD
