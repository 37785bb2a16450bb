"""The header that tells how much time is left."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeq.policy.deadline import NONE, DeadlineHeader

NAMES = [b"grpc-timeout", b"x-timeout-ms", b"x-timeout"]


@pytest.mark.parametrize(
    ("name", "value", "left_s"),
    [
        (b"grpc-timeout", b"250m", 0.25),
        (b"grpc-timeout", b"2S", 2.0),
        (b"grpc-timeout", b"1H", 3600.0),
        (b"grpc-timeout", b"250", NONE),
        (b"x-timeout-ms", b"250", 0.25),
        (b"x-timeout-ms", b"0", 0.0),
        (b"x-timeout-ms", b"0.5", NONE),
        (b"x-timeout", b"1.5", 1.5),
        (b"x-timeout", b"3", 3.0),
        (b"x-timeout", b"-3", NONE),
        (b"x-timeout", b"1.-5", NONE),
        (b"x-timeout", b"1e3", NONE),
        (b"x-timeout", b"", NONE),
        (b"x-timeout", b"999999", NONE),
        (b"x-timeout", b"9" * 400, NONE),
    ],
)
def test_values(name: bytes, value: bytes, left_s: float) -> None:
    """The name says the unit; what cannot be read, or is longer than a day, is as good as none."""
    assert DeadlineHeader(name).read(value) == pytest.approx(left_s)


@given(st.sampled_from(NAMES), st.binary(max_size=20))
def test_anything_can_be_read(name: bytes, value: bytes) -> None:
    """No bytes raise."""
    left_s = DeadlineHeader(name).read(value)
    assert left_s == NONE or 0 <= left_s <= 86_400


@example(b"x-deadline", 1.0999992431534338)
@given(st.sampled_from(NAMES), st.floats(-1, 86_000))
def test_what_is_written_can_be_read(name: bytes, left_s: float) -> None:
    """The next hop reads what was meant, rounded down, a millisecond at least."""
    header = DeadlineHeader(name)
    start, _, value = header.line(left_s).rstrip(b"\r\n").partition(b": ")
    assert start == name
    read = header.read(value)
    assert read >= 0.001
    assert left_s - 0.0011 <= read <= max(left_s, 0.001) + 1e-9
