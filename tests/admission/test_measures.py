"""Service times, congestion and Retry-After by themselves."""

from __future__ import annotations

import pytest

from edgeq.admission.congestion import Congestion, interval_s, target_s, too_old_s, turn_s
from edgeq.admission.retry_after import RetryAfter
from edgeq.admission.service import Service
from edgeq.worker.wheel import NEVER


def test_percentiles_are_of_answers_only() -> None:
    """A time-out tells of the time-out, but it has held its place."""
    service = Service()
    for number in range(1, 101):
        service.finished(number / 1000, True, 0.0)
    for _ in range(5):
        service.finished(30.0, False, 0.0)
    assert service.median_s() == pytest.approx(0.069, abs=0.01)
    assert service.p95_s() == pytest.approx(0.097, abs=0.01)
    assert service.mean_s > 1.0


def test_the_mean_follows() -> None:
    """Half of a change is known after 22 requests."""
    service = Service()
    for _ in range(100):
        service.finished(0.02, True, 0.0)
    for _ in range(22):
        service.finished(0.04, True, 0.0)
    assert service.mean_s == pytest.approx(0.03, abs=0.0005)


def test_silence_is_a_measure() -> None:
    """Nothing is known before the first one; a stall shows before anything finishes; an idle time is none."""
    service = Service()
    assert service.hold_s(5.0, 0.0) == 0.0
    service.finished(0.02, True, 1.0)
    assert service.hold_s(1.01, 0.5) == pytest.approx(0.02)
    assert service.hold_s(4.0, 0.5) == pytest.approx(3.0)
    assert service.hold_s(4.0, 3.99) == pytest.approx(0.02)


def test_targets_scale_with_service() -> None:
    """5 ms and 100 ms at least; several places must come free in two targets."""
    assert (target_s(0.001, 16), interval_s(0.001)) == (0.005, 0.1)
    assert [target_s(0.4, 16), interval_s(0.4)] == pytest.approx([0.1, 2.0])
    for slots in (3, 4, 5, 6, 100):
        assert 2 * target_s(1.0, slots) * slots >= 3.0
    assert [turn_s(0.02, 16, 1.0), turn_s(0.02, 4, 1.0), turn_s(0.5, 16, 1.0)] == pytest.approx([0.1, 0.4, 0.75])
    assert too_old_s(0.02, 2) == 0.2
    assert too_old_s(0.001, 1) == 0.1
    assert too_old_s(0.0, 16) == NEVER
    assert too_old_s(0.02, 16) == 0.01


def test_a_flow_turns_and_returns() -> None:
    """By the delay in order of arrival; back by the time that it is empty."""
    flow = Congestion()
    flow.filled(1.0)
    assert not flow.judge(1.0, 0.09, 0.1, 0.1, False)
    assert flow.judge(1.0, 0.1, 0.1, 0.1, False)
    assert not flow.judge(1.05, 0.0, 0.1, 0.1, False)
    assert flow.congested
    flow.emptied(1.06)
    flow.filled(1.07)
    flow.judge(1.11, 0.0, 0.1, 0.1, False)
    assert flow.congested, "empty for a tenth"
    flow.emptied(1.19)
    flow.judge(1.22, 0.0, 0.1, 0.1, False)
    assert [flow.congested] == [False]
    assert Congestion().judge(0.0, 0.0, 0.1, 0.1, True), "it has filled the queue"


def test_retry_after_rises_with_refusals_and_falls_without() -> None:
    """Doubles while refusals go on, shrinks a second each second, stays in 1 to 60."""
    retry = RetryAfter(1)
    assert {retry.refused(0.0, 0.0) for _ in range(50)} <= {1, 2}
    for tenth in range(1, 900):
        for _ in range(20):
            last = retry.refused(tenth / 10, 0.0)
    assert 26 <= last <= 39
    assert retry.refused(200.0, 0.0) <= 2
    assert 80 <= sum(retry.refused(200.0, 100.0) for _ in range(2)) <= 120
    assert retry.refused(200.0, 1000.0) == 60


def test_retry_after_is_spread() -> None:
    """Who is refused together does not come back together."""
    retry = RetryAfter(1)
    waits = {retry.refused(0.0, 20.0) for _ in range(100)}
    assert min(waits) <= 18
    assert max(waits) >= 23
