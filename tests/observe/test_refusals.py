"""Counting of refusals: by reason and resource, bounded, and the total is always whole."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from edgeq.observe.refusals import MAX_RESOURCES, OTHER, Refusals
from edgeq.reasons import REASONS


@given(st.lists(st.tuples(st.sampled_from(list(REASONS)), st.integers(0, 5).map(str), st.integers(1, 3))))
def test_counts(events: list[tuple[str, str, int]]) -> None:
    """As a plain counter of pairs counts."""
    refusals = Refusals()
    expected: Counter[tuple[str, str]] = Counter()
    for reason, resource, times in events:
        refusals.count(reason, resource, times)
        expected[reason, resource] += times
    found = {(reason, one): count for reason, all_of in refusals.snapshot().items() for one, count in all_of.items()}
    assert found == dict(expected)
    assert refusals.total() == expected.total()


def test_memory_is_bounded() -> None:
    """Endpoints that come and go for ever are counted together in the end; known ones keep their own count."""
    refusals = Refusals()
    for number in range(3 * MAX_RESOURCES):
        refusals.count("upstream_reset", f"upstream/api#10.0.{number // 256}.{number % 256}:80")
    refusals.count("upstream_reset", "upstream/api#10.0.0.0:80")
    refusals.count("queue_full", "upstream/api:queue")
    counts = refusals.snapshot()["upstream_reset"]
    assert len(counts) == MAX_RESOURCES + 1
    assert counts[OTHER] == 2 * MAX_RESOURCES
    assert counts["upstream/api#10.0.0.0:80"] == 2
    assert refusals.snapshot()["queue_full"] == {"upstream/api:queue": 1}
    assert refusals.total() == 3 * MAX_RESOURCES + 2


def test_a_snapshot_stands() -> None:
    """What was read does not change with what is counted later."""
    refusals = Refusals()
    refusals.count("no_route", "listener/a")
    before = refusals.snapshot()
    refusals.count("no_route", "listener/a")
    assert before == {"no_route": {"listener/a": 1}}
