"""Order, filter, selection and memory of the live screen."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edgeq.observe.queues import queue
from edgeq.top import model
from edgeq.top.model import HISTORY, ORDERS, History, View, arranged, key_of

NUMBERS = st.none() | st.floats(0, 1e6)
QUEUES = st.builds(
    lambda name, worker, depth, limit, oldest_ms, p99, arrivals, refused: queue(
        name,
        "limit",
        worker,
        depth=depth,
        limit=limit,
        oldest_ms=oldest_ms,
        wait_ms={"p99": p99} if p99 is not None else None,
        arrival_per_s=arrivals,
        refused_per_s=refused,
    ),
    st.sampled_from(["upstream/Api:queue", "route/a:queue", "listener/:80:accept", "log"]),
    st.none() | st.integers(0, 3),
    st.none() | st.integers(0, 100),
    st.none() | st.integers(0, 100),
    NUMBERS,
    NUMBERS,
    NUMBERS,
    NUMBERS,
)
LISTS = st.lists(QUEUES, max_size=12, unique_by=key_of)


@given(LISTS, st.sampled_from(ORDERS), st.sampled_from(["", "api", "QUEUE", "limit", "none of them"]))
def test_each_order_has_all_that_match(queues: list[dict[str, Any]], sort: str, match: str) -> None:
    """Nothing is lost, what is not known is last, and the order does not depend on how it came."""
    view = View(sort, match)
    found = arranged(queues, view)
    wanted = [one for one in queues if match.lower() in one["queue"].lower() or match.lower() in one["kind"]]
    assert sorted(map(key_of, found)) == sorted(map(key_of, wanted))
    assert found == arranged(list(reversed(queues)), view)
    if sort == model.BY_NAME:
        assert [one["queue"] for one in found] == sorted(one["queue"] for one in found)
    else:
        values = [model.SORTS[sort](one) for one in found]
        assert values == sorted(values, reverse=True)


@given(LISTS, st.lists(st.integers(-20, 20), max_size=8))
def test_a_selection_stays_on_its_queue(queues: list[dict[str, Any]], moves: list[int]) -> None:
    """Whatever the order; it is always one that is there, if there is one."""
    view = View()
    for by in moves:
        shown = arranged(queues, view)
        before = view.index(shown)
        view.move(shown, by)
        if shown:
            assert view.index(shown) == min(max(before + by, 0), len(shown) - 1)
        view.next_sort()
        if shown and view.selected:
            assert key_of(arranged(queues, view)[view.index(arranged(queues, view))]) == view.selected
    assert view.index([]) == 0


def test_the_first_place_is_the_worst_queue_s() -> None:
    """Who has gone back there follows no queue, but sees the worst one, whichever that is."""
    view = View()
    calm = [queue(name, "limit", depth=0, limit=4) for name in "abc"]
    view.move(calm, 1)
    assert view.selected == "b"
    full = [*calm[:2], queue("c", "limit", depth=4, limit=4)]
    assert view.index(arranged(full, view)) == 2
    view.move(arranged(full, view), -1_000_000)
    assert view.index(arranged(full, view)) == 0
    assert view.index(arranged(calm, view)) == 0


def test_all_orders_in_turn() -> None:
    """And the first again."""
    view = View()
    seen = [view.sort]
    for _ in ORDERS:
        view.next_sort()
        seen.append(view.sort)
    assert seen == [*ORDERS, ORDERS[0]]


@given(st.lists(st.none() | LISTS, max_size=80))
def test_memory_is_bounded(looks: list[list[dict[str, Any]] | None]) -> None:
    """Of queues that are there, and of so many looks; one without an answer is a gap."""
    history = History()
    last: list[dict[str, Any]] = []
    for look in looks:
        if look is None:
            history.gap()
        else:
            history.note(look)
            last = look
    assert history.looks <= HISTORY
    for one in last:
        fills = history.of(key_of(one))
        assert 1 <= len(fills) <= HISTORY
        if looks[-1] is None:
            assert fills[-1] is None
        else:
            assert fills[-1] == one["fill"]
    assert history.of("never seen") == ()


def test_what_goes_wrong_comes_first() -> None:
    """A stuck worker before those that lag; an upstream that refuses before one with waiters, and that before a busy
    one; of two full queues the one that refuses more."""
    queues = [queue(name, "limit", depth=4, limit=4, refused_per_s=rate) for name, rate in (("a", 1.0), ("b", 9.0))]
    assert [one["queue"] for one in arranged(queues, View())] == ["b", "a"]
    workers = [{"slot": slot, "state": state, "lag_us": lag} for slot, (state, lag) in enumerate(
        [("serving", 5), ("serving", 900), ("stuck", 0)])]  # fmt: skip
    assert [one["slot"] for one in model.workers(workers)] == [2, 1, 0]
    calm = {"queued": 0, "in_flight": 0, "refused_per_s": 0.0, "breaker": None, "panic": False}
    upstreams: list[dict[str, Any]] = [
        {"upstream": "busy", **calm, "in_flight": 9},
        {"upstream": "full", **calm, "queued": 3},
        {"upstream": "calm", **calm, "breaker": "closed"},
        {"upstream": "gone", **calm, "breaker": "open"},
        {"upstream": "short", **calm, "queued": 1, "refused_per_s": 0.5},
    ]
    order = ["short", "gone", "full", "busy", "calm"]
    assert [one["upstream"] for one in model.upstreams(upstreams, View())] == order
    assert [one["upstream"] for one in model.upstreams(upstreams, View(match="L"))] == ["full", "calm"]
    assert [one["upstream"] for one in model.upstreams(upstreams, View(match="upstream/full"))] == ["full"]
    reasons = [{"reason": "queue_full", "resource": "upstream/a:queue"}, {"reason": "no_route", "resource": "x"}]
    assert model.reasons(reasons, View(match="upstream/a")) == reasons[:1]
