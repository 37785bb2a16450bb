"""Durations and sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.config.base import Duration, Size
from edgeq.config.units import money, parse_duration, parse_size, plain, show


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("5s", 5),
        ("1.5s", 1.5),
        ("1m", 60),
        ("1h30m", 5400),
        ("2d", 172800),
        (3, 3),
        (0.5, 0.5),
        ("0s", 0),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    """Every unit means what it says, and a bare number is seconds."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("64KiB", 65536),
        ("1MiB", 2**20),
        ("1GiB", 2**30),
        ("10kB", 10_000),
        ("1MB", 10**6),
        ("5B", 5),
        (7, 7),
        ("1.5KiB", 1536),
    ],
)
def test_sizes(text: object, count: int) -> None:
    """Powers of 1024 and powers of 1000 are kept apart, and a bare number is bytes."""
    assert parse_size(text) == count


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "5",
        "5x",
        "5 parsecs",
        "1e3s",
        "\u0661s",
        True,
        None,
        [],
        float("nan"),
        float("inf"),
        float("-inf"),
        "-1s",
        10**400,
    ],
)
def test_wrong_durations(text: object) -> None:
    """What is no duration is refused with a sentence, never with another exception."""
    with pytest.raises(ValueError, match=r"duration|unit|negative"):
        parse_duration(text)


@pytest.mark.parametrize(
    "text", ["", "64K", "1.5B", 0.5, "KiB", "5kib", False, {}, 2**63, float("nan"), float("-inf"), 10**400]
)
def test_wrong_sizes(text: object) -> None:
    """What is no size is refused; "64K" too, because nobody knows whether it means 64000."""
    with pytest.raises(ValueError, match=r"size|unit"):
        parse_size(text)


@given(st.integers(min_value=0, max_value=366 * 86_400_000))
def test_durations_return(ms: int) -> None:
    """A duration that was shown can be read again."""
    assert parse_duration(show(Duration(ms / 1000))) == pytest.approx(ms / 1000, rel=1e-8)


@given(st.integers(min_value=0, max_value=2**62))
def test_sizes_return(count: int) -> None:
    """A size that was shown can be read again, to the byte."""
    assert parse_size(show(Size(count))) == count


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0.0, "0"),
        (3e-08, "0"),
        (2.1e-05, "0.000021"),
        (0.000246, "0.000246"),
        (0.5, "0.5"),
        (4.996, "5"),
        (12.34, "12.3"),
        (999.6, "1000"),
        (1e7, "10000000"),
        (-0.25, "-0.25"),
    ],
)
def test_numbers(value: float, told: str) -> None:
    """Three digits, and never an exponent."""
    assert plain(value) == told


@given(st.floats(-1e12, 1e12))
def test_a_number_is_about_itself(value: float) -> None:
    """Half of the last of its digits away at most, or of a millionth."""
    told = plain(value)
    assert "e" not in told
    assert float(told) == pytest.approx(value, rel=5.1e-3, abs=5.1e-7)


def test_money() -> None:
    """All of it."""
    assert [money(micro) for micro in (0, 21, 1_500_000, 12_000_000)] == ["0", "0.000021", "1.5", "12"]
