"""Connections of several workers in one list."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from edgeq.observe.connections import NO_ANSWER, merged
from edgeq.supervisor.messages import ConnectionList, SeenConnection, decode_from_worker, encode_message

ANY = SeenConnection("a:1", "l", False, "idle", "listener/l", 0.0, None, 0, 0, 0, False, "", "", "", "", "")
AGES = st.floats(0, 1e9)
SEEN = st.builds(
    lambda age_ms, request_ms: msgspec.structs.replace(ANY, age_ms=age_ms, request_ms=request_ms),
    AGES,
    st.none() | AGES,
)


@given(st.dictionaries(st.integers(0, 8), st.none() | st.lists(SEEN, max_size=5).map(tuple)), st.integers(1, 12))
def test_order_and_bound(told: dict[int, tuple[SeenConnection, ...] | None], count: int) -> None:
    """Who is silent first, then requests by how long they run, then the others by age; no more than asked for."""
    records = merged(told, count)
    silent = [one["worker"] for one in records if one["state"] == NO_ANSWER]
    assert silent == sorted(slot for slot, seen in told.items() if seen is None)
    rest = records[len(silent) :]
    assert len(rest) == min(count, sum(len(seen or ()) for seen in told.values()))
    busy = [one["request_ms"] for one in rest if one["request_ms"] is not None]
    assert busy == sorted(busy, reverse=True) == [one["request_ms"] for one in rest[: len(busy)]]
    ages = [one["age_ms"] for one in rest[len(busy) :]]
    assert ages == sorted(ages, reverse=True)
    assert len({tuple(one) for one in records}) <= 1


@given(st.lists(SEEN, max_size=5))
def test_the_message(seen: list[SeenConnection]) -> None:
    """Arrives as it was sent."""
    message = ConnectionList(7, tuple(seen))
    assert decode_from_worker(encode_message(message)) == message
