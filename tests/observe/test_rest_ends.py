"""When models at providers' keys are asked again."""

from __future__ import annotations

from typing import Any

from edgeq.observe.rest_ends import Ended, RestEnds

_KNOWN = ("a/m", "a/n", "b/m")


def _targets(**reasons: str) -> list[dict[str, Any]]:
    return [{"target": name, "paused_for": reasons.get(name.replace("/", "_"), ""), "paused_s": 0.3} for name in _KNOWN]


def test_a_rest_ends_once() -> None:
    """Of a model; a second rest that follows at once is the same one; a short one is none."""
    ends = RestEnds()
    assert ends.look(0.0, _targets(), _KNOWN) == []
    assert ends.look(0.5, _targets(a_m="upstream_rate_limit", b_m="upstream_rate_limit"), _KNOWN) == []
    assert ends.look(1.0, _targets(a_m="circuit_open"), _KNOWN) == [], "a short one"
    assert ends.look(1.5, [], _KNOWN) == [], "the worker that tells is new"
    assert ends.look(5.5, _targets(), _KNOWN) == [Ended("target/a/m", "circuit_open", 5.0, False)]
    assert ends.look(6.0, _targets(), _KNOWN) == []


def test_a_long_rest_that_somebody_ends_at_once() -> None:
    """It was told when it began."""
    ends = RestEnds()
    ends.look(0.0, [{"target": "a/m", "paused_for": "circuit_open", "paused_s": 4.9}], _KNOWN)
    assert ends.look(0.5, _targets(), _KNOWN) == [Ended("target/a/m", "circuit_open", 0.5, False)]


def test_several_rests_are_counted() -> None:
    """One that is seen to begin while another one lasts was after a request that failed, too."""
    ends = RestEnds()
    for at, left in enumerate((1.9, 1.4, 0.9, 0.4, 2.0, 1.5, 1.0, 2.0)):
        ends.look(at / 2, [{"target": "a/m", "paused_for": "circuit_open", "paused_s": left}], _KNOWN)
    assert ends.look(4.0, _targets(), _KNOWN) == [Ended("target/a/m", "circuit_open", 4.0, False, 3)]


def test_a_key_ends_for_all_of_its_models() -> None:
    """Told once."""
    ends = RestEnds()
    for at in (0.0, 0.5):
        assert ends.look(at, _targets(a_m="upstream_quota", a_n="upstream_quota"), _KNOWN) == []
    assert ends.look(60.0, _targets(), _KNOWN) == [Ended("provider/a", "upstream_quota", 60.0, True)]


def test_what_is_woken_ends_but_once() -> None:
    """It is told by who wakes it, also what has rested for too short a time to be seen."""
    ends = RestEnds()
    for at in (0.0, 0.5):
        ends.look(at, _targets(a_m="upstream_quota", a_n="circuit_open", b_m="circuit_open"), _KNOWN)
    assert ends.woken(["target/a/n", "upstream/a"]) == [("target/a/n", False), ("provider/a", True)]
    assert ends.look(1.0, _targets(), _KNOWN) == [Ended("target/b/m", "circuit_open", 1.0, False)]


def test_a_target_that_is_no_more_has_no_end() -> None:
    """A reload has taken it away."""
    ends = RestEnds()
    for at in (0.0, 0.5):
        ends.look(at, _targets(a_m="circuit_open"), _KNOWN)
    assert ends.look(1.0, _targets()[1:], _KNOWN[1:]) == []
    assert ends.look(1.5, _targets(), _KNOWN) == []
