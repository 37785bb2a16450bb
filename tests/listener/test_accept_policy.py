"""When to accept, rest, skip or give up."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.listener.accept_policy import (
    FIRST_REST_S,
    LAGGING_S,
    LONGEST_REST_S,
    TRANSITIONS,
    AcceptPolicy,
    Event,
    LogPace,
    State,
    Verdict,
    verdict,
)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EAGAIN, Verdict.EMPTY),
        (errno.ECONNABORTED, Verdict.SKIP),
        (errno.EPROTO, Verdict.SKIP),
        (errno.EPERM, Verdict.SKIP),
        (errno.EMFILE, Verdict.SHED),
        (errno.ENFILE, Verdict.SHED),
        (errno.ENOBUFS, Verdict.SHED),
        (errno.ENOMEM, Verdict.SHED),
        (errno.EBADF, Verdict.BROKEN),
        (errno.EINVAL, Verdict.BROKEN),
        (errno.EIO, Verdict.REST),
        (0, Verdict.REST),
    ],
)
def test_verdicts(number: int, expected: Verdict) -> None:
    """Each error of accept(2) has its meaning, and an unforeseen one neither kills nor spins."""
    assert verdict(number) is expected


def test_budget_follows_lag() -> None:
    """A lagging loop accepts fewer; it always accepts at least one."""
    policy = AcceptPolicy(64, 8)
    assert policy.budget(0.0) == 64
    assert policy.budget(LAGGING_S) == 64
    assert policy.budget(LAGGING_S * 2) == 8
    assert AcceptPolicy(0, 0).budget(1.0) == 1


def test_rests_grow_and_start_again() -> None:
    """Rests double up to the longest; after a calm time the next one is short again."""
    policy = AcceptPolicy(64, 8)
    policy.fire(Event.START)
    now, rests = 100.0, []
    for _ in range(10):
        rest_s = policy.exhausted(now)
        rests.append(rest_s)
        now += rest_s
        policy.fire(Event.RESTED)
    assert rests[:3] == [FIRST_REST_S, 2 * FIRST_REST_S, 4 * FIRST_REST_S]
    assert rests[-1] == LONGEST_REST_S
    assert policy.exhausted(now + 60) == FIRST_REST_S
    assert policy.shortages == 11


def test_life() -> None:
    """Start, shortage, pause, resume, retire, drained: watched only while accepting or retiring."""
    policy = AcceptPolicy(64, 8)
    seen = []
    for event in (
        Event.START,
        Event.EXHAUSTED,
        Event.RESUME,
        Event.PAUSE,
        Event.RESUME,
        Event.RETIRE,
        Event.EXHAUSTED,
        Event.RESTED,
        Event.DRAINED,
    ):
        policy.fire(event)
        seen.append((policy.watching(), policy.retiring()))
    assert seen == [
        (True, False),
        (False, False),
        (False, False),
        (False, False),
        (True, False),
        (True, True),
        (False, True),
        (True, True),
        (False, False),
    ]


@given(st.lists(st.sampled_from(Event)))
def test_every_pair_is_in_the_table_or_an_error(events: list[Event]) -> None:
    """Any event in any state ends in a legal state, or raises and changes nothing; CLOSED is final."""
    policy = AcceptPolicy(64, 8)
    for event in events:
        before = policy.state
        if (before, event) in TRANSITIONS:
            policy.fire(event)
            assert before is not State.CLOSED or policy.state is State.CLOSED
        else:
            with pytest.raises(RuntimeError):
                policy.fire(event)
            assert policy.state is before


def test_log_pace() -> None:
    """A few lines a second for each subject, and the next line says how many were left out."""
    pace = LogPace(2)
    assert [pace.allow("a", 0.0) for _ in range(5)] == [0, 0, -1, -1, -1]
    assert pace.allow("b", 0.0) == 0
    assert pace.allow("a", 0.9) == -1
    assert [pace.allow("a", 1.0), pace.allow("a", 1.1), pace.allow("a", 1.2)] == [4, 0, -1]
