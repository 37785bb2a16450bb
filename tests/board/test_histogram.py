"""Histograms: every time has one bucket, the buckets have no gap, and a quantile is near the truth."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.board.histogram import BUCKETS, MAX_US, Histogram, bucket_floor, bucket_middle, bucket_of

HOUR_US = 3_600_000_000
times = st.one_of(st.integers(0, 200), st.integers(0, MAX_US), st.integers(0, 32).map(lambda n: 2**n - 1))


def histogram_of(values: list[int]) -> Histogram:
    made = Histogram()
    for value in values:
        made.record(value)
    return made


@given(times)
def test_a_time_lies_in_its_bucket(us: int) -> None:
    """The bucket's floor is not above it, the next one's is."""
    bucket = bucket_of(us)
    assert 0 <= bucket < BUCKETS
    assert bucket_floor(bucket) <= us < bucket_floor(bucket + 1)


@given(times)
def test_the_middle_of_a_bucket_is_within_five_percent(us: int) -> None:
    """What a quantile says instead of the time itself."""
    assert abs(bucket_middle(bucket_of(us)) - us) <= us / 32


def test_buckets_follow_one_another_without_gap() -> None:
    """Each floor belongs to its bucket, and the time before it to the one before."""
    for bucket in range(1, BUCKETS):
        assert bucket_of(bucket_floor(bucket)) == bucket
        assert bucket_of(bucket_floor(bucket) - 1) == bucket - 1
    assert bucket_floor(BUCKETS) == MAX_US + 1
    assert HOUR_US < bucket_floor(BUCKETS - 1)


def test_what_is_out_of_range_counts_at_the_ends() -> None:
    """Two clocks that disagree, or a request of a day, are no errors."""
    assert bucket_of(-5) == 0
    assert bucket_of(24 * HOUR_US) == BUCKETS - 1


@given(st.lists(times, min_size=1, max_size=60), st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.95, 0.99, 1.0]))
def test_quantile_by_nearest_rank(values: list[int], share: float) -> None:
    """As sorting would tell it, within the error of a bucket."""
    values.sort()
    exact = values[max(0, math.ceil(share * len(values)) - 1)]
    assert abs(histogram_of(values).quantile(share) - exact) <= exact / 32


def test_quantiles_of_a_service_time() -> None:
    """An exponential time of 20 ms: median, 95th and 99th percentile are as calculus says."""
    draw = random.Random(3)
    made = histogram_of([int(draw.expovariate(1 / 20_000)) for _ in range(50_000)])
    for share in (0.5, 0.95, 0.99):
        assert made.quantile(share) == pytest.approx(-20_000 * math.log(1 - share), rel=0.06)
    assert made.mean() == pytest.approx(20_000, rel=0.03)
    assert made.count == 50_000


def test_an_empty_one_says_zero() -> None:
    """No sample is no error."""
    empty = Histogram()
    assert (empty.count, empty.quantile(0.5), empty.mean()) == (0, 0, 0.0)


@given(st.lists(times, max_size=30), st.lists(times, max_size=30))
def test_merge_and_difference_are_exact(one: list[int], two: list[int]) -> None:
    """Both together are as if recorded in one, and taking the earlier reading away leaves the later part."""
    merged = histogram_of(one)
    merged.add(histogram_of(two))
    assert merged.counts == histogram_of(one + two).counts
    assert merged.since(histogram_of(one)).counts == histogram_of(two).counts


def test_a_difference_is_never_negative() -> None:
    """A reading in the very moment of a burial may show less than the one before."""
    assert histogram_of([5]).since(histogram_of([5, 5, 9])).count == 0


def test_another_number_of_buckets_is_an_error() -> None:
    """A reading of another layout would be told as nonsense."""
    with pytest.raises(ValueError, match="3 buckets"):
        Histogram([1, 2, 3])
