"""Histograms of times: log-linear buckets of whole microseconds, from 1 us to 1 h, in 464 counters.

Up to 31 us each value has a bucket of its own; from there each octave is cut into 16 buckets of equal width. A bucket
is told by its middle, so a quantile is off by half a bucket at most: 1/32, or 3.2 %. Longer times than an hour or so
count in the last bucket.

::

    us        0 .. 31   32 33 | 34 35 | .. | 62 63   64 .. 67 | 68 .. 71 | ..
    bucket    0 .. 31      32      33   ..      47         48         49   ..

Why this shape: a bucket is found by a shift, without a logarithm and without a search; histograms of all workers have
the same buckets, so they are merged, and two readings of one subtracted, bucket by bucket.
Source: HdrHistogram (Gil Tene) and circllhist use the same idea; see also DESIGN section 5.
"""

from __future__ import annotations

from typing import Final

BUCKETS: Final = 464
"""29 groups of 16: the last one begins at 2**31 us, so that one hour (3.6e9 us) is well inside."""
MAX_US: Final = 2**32 - 1

_NEAR: Final = 4096


def _bucket_near(us: int) -> int:
    shift = max(0, us.bit_length() - 5)
    return (shift << 4) + (us >> shift)


_BUCKETS: Final[list[int]] = [_bucket_near(us) for us in range(_NEAR)]


def bucket_of(us: int) -> int:
    """The bucket of a time in microseconds. Below 0 counts as 0 (clocks of two sources), above MAX_US as MAX_US."""
    if us <= 0:
        return 0
    if us > MAX_US:
        us = MAX_US
    # Half the time is one octave lower, which is 16 buckets. A table: bit_length() is a slow call when compiled.
    above = 0
    while us >= _NEAR:
        us >>= 5
        above += 80
    return above + _BUCKETS[us]


def bucket_floor(bucket: int) -> int:
    """The smallest time in microseconds of a bucket; of BUCKETS, where the last one ends."""
    if bucket < 32:
        return bucket
    shift = (bucket >> 4) - 1
    return ((bucket & 15) + 16) << shift


def bucket_middle(bucket: int) -> int:
    """What a time in this bucket is taken for, in microseconds."""
    floor = bucket_floor(bucket)
    return floor + (bucket_floor(bucket + 1) - floor) // 2


class Histogram:
    """Counts by bucket: one recorded here, or a reading of the board.

    A plain value: it knows no clock and no worker. On the hot path a resource records into its own counters instead
    (`ResourceCells.record_wait`), which are in the same buckets.
    """

    __slots__ = ("counts",)

    def __init__(self, counts: list[int] | None = None) -> None:
        """Empty, or over BUCKETS counts, which it keeps. Raises ValueError for another number of them."""
        if counts is None:
            counts = [0] * BUCKETS
        if len(counts) != BUCKETS:
            raise ValueError(f"{len(counts)} buckets, not {BUCKETS}")
        self.counts: list[int] = counts

    def record(self, us: int) -> None:
        """Count one time in microseconds."""
        self.counts[bucket_of(us)] += 1

    @property
    def count(self) -> int:
        """How many times were recorded."""
        return sum(self.counts)

    def mean(self) -> float:
        """In microseconds, with the error of the buckets; 0 if empty."""
        total = 0
        count = 0
        for bucket, found in enumerate(self.counts):
            if found:
                count += found
                total += found * bucket_middle(bucket)
        return total / count if count else 0.0

    def quantile(self, share: float) -> int:
        """The smallest time that at least `share` (0 to 1) of the recorded ones do not pass, in microseconds.

        0 if nothing was recorded. Off by 3.2 % at most.
        """
        wanted = share * self.count
        seen = 0
        last = 0
        for bucket, found in enumerate(self.counts):
            if found:
                last = bucket
                seen += found
                if seen >= wanted:
                    break
        return bucket_middle(last)

    def add(self, other: Histogram) -> None:
        """Take the other's counts in: rows of several workers become one."""
        counts = self.counts
        for bucket, found in enumerate(other.counts):
            if found:
                counts[bucket] += found

    def since(self, earlier: Histogram) -> Histogram:
        """What was recorded between two readings of the same counters, the earlier one first taken.

        A reading while a dead worker is buried may show less than an earlier one: such a bucket counts as 0.
        """
        before = earlier.counts
        return Histogram([max(0, count - before[bucket]) for bucket, count in enumerate(self.counts)])
