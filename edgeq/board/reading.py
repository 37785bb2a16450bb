"""What the board says of one resource, over all workers, at one moment: for the admin socket, metrics, the recorder.

Workers go on meanwhile: numbers of different cells may be off by what changes at that moment.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from edgeq.board.histogram import BUCKETS, Histogram
from edgeq.board.layout import QUEUED_HIGH, RESOURCE_COUNTERS, RESOURCE_GAUGES, Board
from edgeq.board.resources import (
    ADMITTED,
    COUNTED,
    DROPPED,
    IGNORED,
    IN_FLIGHT,
    MASK,
    OK,
    OLDEST_NS,
    QUEUED,
    QUEUED_BYTES,
    REASON_NAMES,
    SCALARS,
    SERVICE,
    SERVICE_US,
    WAIT,
)


class Reading:
    """Gauges and counters."""

    __slots__ = ("counted", "counters", "in_flight", "oldest_ns", "queued", "queued_bytes", "queued_high")

    def __init__(self, counters: list[int]) -> None:
        self.counters: list[int] = counters
        """By the constants of `resources`; without the histograms in a short reading."""
        self.in_flight: int = 0
        self.counted: int = 0
        """Of those, the ones that count against the limit."""
        self.queued: int = 0
        self.queued_bytes: int = 0
        self.oldest_ns: int = 0
        """Arrival of the oldest waiter, monotonic; 0 if nobody waits."""
        self.queued_high: int = 0
        """The most that ever waited at the same time, the dead workers included."""

    def refusals(self) -> dict[str, int]:
        """By reason, without those that never happened."""
        counts = self.counters[SCALARS:WAIT]
        return {REASON_NAMES[at]: count for at, count in enumerate(counts) if count and at in REASON_NAMES}

    def waits(self) -> Histogram:
        """Of all that were admitted, in microseconds. Raises ValueError in a short reading."""
        return Histogram(self.counters[WAIT:SERVICE])

    def services(self) -> Histogram:
        """Of all that ended well, in microseconds. Raises ValueError in a short reading."""
        return Histogram(self.counters[SERVICE : SERVICE + BUCKETS])

    def since(self, earlier: Reading) -> Reading:
        """What was counted between two readings of one kind; gauges are this one's."""
        before = earlier.counters
        later = Reading([max(0, count - before[at]) for at, count in enumerate(self.counters)])
        later.in_flight = self.in_flight
        later.counted = self.counted
        later.queued = self.queued
        later.queued_bytes = self.queued_bytes
        later.oldest_ns = self.oldest_ns
        later.queued_high = self.queued_high
        return later

    def snapshot(self, now_ns: int) -> dict[str, int | dict[str, int]]:
        """For `show`."""
        counters = self.counters
        waits, services = self.waits(), self.services()
        return {
            "in_flight": self.in_flight,
            "counted": self.counted,
            "queued": self.queued,
            "queued_bytes": self.queued_bytes,
            "queued_high": self.queued_high,
            "oldest_ms": (now_ns - self.oldest_ns) // 1_000_000 if self.oldest_ns else 0,
            "admitted": counters[ADMITTED],
            "ok": counters[OK],
            "dropped": counters[DROPPED],
            "ignored": counters[IGNORED],
            "refused": self.refusals(),
            "wait_us": _quantiles(waits),
            "service_us": _quantiles(services),
        }


def read(board: Board, index: int, histograms: bool = True) -> Reading:
    """One resource now. A reading without histograms costs a tenth (some microseconds a row)."""
    end = RESOURCE_GAUGES + (RESOURCE_COUNTERS if histograms else WAIT)
    dead = board.resource_block(board.slots, index)[:end].tolist()
    reading = Reading(dead[RESOURCE_GAUGES:])
    counters = reading.counters
    reading.queued_high = dead[QUEUED_HIGH]
    for slot in range(board.rows_used):
        row: list[int] = board.resource_block(slot, index)[:end].tolist()
        reading.in_flight += row[IN_FLIGHT]
        reading.counted += row[COUNTED]
        reading.queued += row[QUEUED]
        reading.queued_bytes += row[QUEUED_BYTES]
        oldest = row[OLDEST_NS]
        if oldest and (reading.oldest_ns == 0 or oldest < reading.oldest_ns):
            reading.oldest_ns = oldest
        reading.queued_high = max(reading.queued_high, row[QUEUED_HIGH])
        for at in range(RESOURCE_GAUGES, end):
            count = row[at]
            if count:
                counters[at - RESOURCE_GAUGES] = (counters[at - RESOURCE_GAUGES] + count) & MASK
    return reading


class Brief(NamedTuple):
    """What `brief` returns: gauges and sums, modulo 2**64."""

    in_flight: int
    queued: int
    oldest_ns: int
    admitted: int
    ok: int
    failed: int
    refused: int
    service_us: int


def brief(board: Board, index: int) -> Brief:
    """One resource now, for who looks often: no more than what becomes a rate. Two microseconds a row."""
    in_flight = queued = oldest_ns = 0
    admitted = ok = failed = refused = service_us = 0
    rows: list[int] = [*range(board.rows_used), board.slots]
    for slot in rows:
        row: list[int] = board.resource_block(slot, index)[: RESOURCE_GAUGES + WAIT].tolist()
        if slot != board.slots:  # of the dead nothing runs
            in_flight += row[IN_FLIGHT]
            queued += row[QUEUED]
            oldest = row[OLDEST_NS]
            if oldest and (oldest_ns == 0 or oldest < oldest_ns):
                oldest_ns = oldest
        admitted += row[RESOURCE_GAUGES + ADMITTED]
        ok += row[RESOURCE_GAUGES + OK]
        failed += row[RESOURCE_GAUGES + DROPPED] + row[RESOURCE_GAUGES + IGNORED]
        service_us += row[RESOURCE_GAUGES + SERVICE_US]
        refused += sum(row[RESOURCE_GAUGES + SCALARS :])
    return Brief(
        in_flight, queued, oldest_ns, admitted & MASK, ok & MASK, failed & MASK, refused & MASK, service_us & MASK
    )


def age_ms(since_ns: int) -> float:
    """How long ago that was; 0.0 of 0, which is nobody's. To be asked after the reading, or an age is below zero."""
    return (time.monotonic_ns() - since_ns) / 1e6 if since_ns else 0.0


def _quantiles(times: Histogram) -> dict[str, int]:
    return {"p50": times.quantile(0.5), "p95": times.quantile(0.95), "p99": times.quantile(0.99)}
