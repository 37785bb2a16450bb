"""Waits of the last seconds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.admission.waits import HALF_S, SHARES, Waits


@given(st.lists(st.floats(min_value=1e-4, max_value=60), min_size=1, max_size=200))
def test_quantiles(waits: list[float]) -> None:
    """Those of the numbers themselves, but for the width of a bucket."""
    recent = Waits()
    for one in waits:
        recent.record(one, 1.0)
    ordered = sorted(waits)
    for share, quantile in zip(SHARES, recent.quantiles_ms(1.0), strict=True):
        exact = next(one for at, one in enumerate(ordered, 1) if at >= share * len(waits))
        assert quantile == pytest.approx(exact * 1000, rel=0.05)
    assert recent.count == len(waits)


def test_what_is_long_ago_is_forgotten() -> None:
    """After ten seconds at the least, twenty at the most."""
    recent = Waits()
    assert recent.quantiles_ms(1000.0) == []
    recent.record(1.0, 1000.0)
    assert recent.quantiles_ms(1000.0 + HALF_S) == pytest.approx([1000.0] * 3, rel=0.04)
    recent.record(0.001, 1001.0 + HALF_S)
    assert recent.quantiles_ms(1001.0 + HALF_S)[2] == pytest.approx(1000.0, rel=0.04)
    assert recent.quantiles_ms(1001.0 + 2 * HALF_S) == pytest.approx([1.0] * 3, rel=0.04)
    assert recent.quantiles_ms(1001.0 + 5 * HALF_S) == []
    assert recent.count == 2
