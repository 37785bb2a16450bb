"""Rates: what is admitted, when it is admitted again, and what is told about it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.config.units import parse_rate
from edgeq.policy.rate import (
    BY_CLIENT,
    BY_TENANT,
    HEADERS_BOTH,
    HEADERS_IETF,
    HEADERS_OFF,
    LocalArrivals,
    Rate,
    RateSet,
    Window,
    wait_s,
    windows_of,
)
from edgeq.policy.tenant import key_of

SUBJECTS = [key_of(b"client"), key_of(b"tenant"), key_of(b"route"), key_of(b"upstream")]
START = 5_000.0


def rate(*limits: str, name: str = "r", by: int = BY_CLIENT, enforce: bool = True, headers: int = HEADERS_IETF) -> Rate:
    """A rate as the configuration writes it."""
    return Rate(name, by, windows_of(name, [parse_rate(text) for text in limits]), enforce, headers)


def admitted(rates: RateSet, now: float, tries: int) -> int:
    """How many of so many tries at one moment are admitted."""
    return sum(rates.admit(SUBJECTS, now) is None for _ in range(tries))


def test_a_burst_and_then_the_rate() -> None:
    """The burst at once, then one more every window / count, neither earlier nor later."""
    rates = RateSet([rate("10/s burst 3")], 1, LocalArrivals())
    assert admitted(rates, START, 5) == 3
    assert admitted(rates, START + 0.099, 5) == 0
    assert admitted(rates, START + 0.1, 5) == 1
    assert admitted(rates, START + 0.35, 5) == 2
    assert admitted(rates, START + 60, 9) == 3


def test_a_burst_is_the_count_unless_it_is_said() -> None:
    """ "5/m" admits five at once."""
    assert admitted(RateSet([rate("5/m")], 1, LocalArrivals()), START, 9) == 5


def test_windows_have_plain_names() -> None:
    """However long they are, and never that of another one: who shares a name shares what is counted."""
    long = rate("9/30d", "8/2592001s", "1/0.5s")
    assert [window.policy for window in long.windows] == ["r-2592000s", "r-2592001s", "r-0.5s"]
    rates = RateSet([rate("1/30d")], 1, LocalArrivals())
    assert admitted(rates, START, 2) == 1
    assert rates.rates[0].detail() == "more than 1 in 2592000 s, 1 at once, for this client"


def test_the_wait_is_exact() -> None:
    """Who comes at the moment that a refusal names is admitted, and who comes a microsecond earlier is not."""
    rates = RateSet([rate("7/m burst 2")], 1, LocalArrivals())
    assert admitted(rates, START, 2) == 2
    refusing = rates.admit(SUBJECTS, START + 1)
    assert refusing is not None
    wait = wait_s(refusing)
    assert wait == pytest.approx(60 / 7 - 1)
    assert rates.admit(SUBJECTS, START + 1 + wait - 1e-6) is not None
    assert rates.admit(SUBJECTS, START + 1 + wait + 1e-6) is None


def test_several_windows_hold_and_what_one_refuses_costs_nothing_in_the_other() -> None:
    """Refusals by the short window do not use up the long one."""
    rates = RateSet([rate("1/s", "5/h")], 1, LocalArrivals())
    assert [admitted(rates, START + second, 50) for second in range(7)] == [1, 1, 1, 1, 1, 0, 0]


def test_a_cost() -> None:
    """A request of cost 4 takes what four of cost 1 would."""
    table = LocalArrivals()
    one = rate("8/s")
    assert admitted(RateSet([one], 4, table), START, 9) == 2
    assert admitted(RateSet([one], 1, table), START + 0.125, 9) == 1


def test_a_dry_run_counts_only() -> None:
    """What would be refused is admitted and counted; what it charges is what it would have admitted."""
    dry = rate("2/s", enforce=False)
    rates = RateSet([dry], 1, LocalArrivals())
    assert admitted(rates, START, 5) == 5
    assert dry.snapshot() == {"rate": "r", "enforce": False, "refused": 0, "would_refuse": 3}
    assert admitted(rates, START + 0.5, 1) == 1
    assert dry.would_refuse == 3
    assert rates.header_lines(START, False) == b""


def test_subjects_are_counted_apart() -> None:
    """Two clients have a quota each; two rates with one subject as well, for their names differ."""
    rates = RateSet([rate("1/s")], 1, LocalArrivals())
    others = [key_of(b"other"), *SUBJECTS[1:]]
    assert rates.admit(SUBJECTS, START) is None
    assert rates.admit(others, START) is None
    assert rates.admit(SUBJECTS, START) is not None
    both = RateSet([rate("1/s", name="a"), rate("1/s", name="b", by=BY_TENANT)], 1, LocalArrivals())
    assert both.admit(SUBJECTS, START) is None
    assert both.admit(others, START) is both.rates[1]


def lines(rates: RateSet, now: float, refused: bool = False) -> dict[str, str]:
    """The header lines."""
    text = rates.header_lines(now, refused).decode()
    return dict(line.split(": ", 1) for line in text.split("\r\n") if line)


def test_headers() -> None:
    """The quota that may be used at once, what is left of it, and until when; Retry-After is not before `t`."""
    rates = RateSet([rate("10/m burst 3", name="slow", headers=HEADERS_BOTH)], 1, LocalArrivals())
    assert rates.admit(SUBJECTS, START) is None
    assert lines(rates, START) == {
        "ratelimit-policy": '"slow";q=3;w=18',
        "ratelimit": '"slow";r=2;t=6',
        "x-ratelimit-limit": "3",
        "x-ratelimit-remaining": "2",
        "x-ratelimit-reset": "6",
    }
    assert admitted(rates, START, 2) == 2
    assert lines(rates, START)["ratelimit"] == '"slow";r=0;t=6'
    refusing = rates.admit(SUBJECTS, START + 0.5)
    assert refusing is not None
    assert lines(rates, START + 0.5, True)["ratelimit"] == f'"slow";r=0;t={math.ceil(wait_s(refusing))}'
    assert refusing.violated() == "slow"
    assert refusing.detail() == "more than 10 in 60 s, 3 at once, for this client"


def test_a_refusal_tells_only_what_refuses() -> None:
    """Of several windows only the one that refuses; rates that are not to be told are not."""
    rates = RateSet([rate("1/s", "100/h"), rate("1000/s", name="quiet", headers=HEADERS_OFF)], 1, LocalArrivals())
    assert rates.admit(SUBJECTS, START) is None
    told = lines(rates, START)
    assert told["ratelimit-policy"] == '"r-1s";q=1;w=1, "r-3600s";q=100;w=3600'
    assert told["ratelimit"] == '"r-1s";r=0;t=1, "r-3600s";r=99;t=36'
    assert rates.admit(SUBJECTS, START) is rates.rates[0]
    assert lines(rates, START, True)["ratelimit"] == '"r-1s";r=0;t=1'


def test_a_full_table_forgets_the_earliest() -> None:
    """The table is bounded, and what it forgets is what will have passed soonest."""
    table = LocalArrivals(4)
    for key in range(1, 5):
        table.charge(key, 100, (key - 1) * 100)
    table.charge(9, 100, 800)
    assert len(table) <= 4
    assert [table.get(key, 1000) for key in (4, 9, 1)] == [400, 900, 0]


def test_a_smaller_burst_after_a_reload() -> None:
    """Who has used a large burst waits no longer than the new one allows."""
    table = LocalArrivals()
    assert admitted(RateSet([rate("1/s burst 1000")], 1, table), START, 1000) == 1000
    rates = RateSet([rate("1/s burst 2")], 1, table)
    refusing = rates.admit(SUBJECTS, START)
    assert refusing is not None
    assert wait_s(refusing) == 1.0


@given(
    st.integers(1, 20),
    st.sampled_from([0.5, 1.0, 7.0]),
    st.integers(1, 20),
    st.lists(st.floats(0, 1.0), max_size=60),
)
def test_never_more_than_burst_and_rate(count: int, window_s: float, burst: int, gaps: list[float]) -> None:
    """In any time t at most burst + t / T are admitted, and whoever stays below is never refused (model: a bucket)."""
    rates = RateSet(
        [Rate("r", BY_CLIENT, [Window("r", count, window_s, burst)], True, HEADERS_OFF)], 1, LocalArrivals()
    )
    now = START
    tokens = float(burst)
    times: list[float] = []
    for gap in gaps:
        now += gap
        tokens = min(float(burst), tokens + gap * count / window_s)
        granted = rates.admit(SUBJECTS, now) is None
        if abs(tokens - 1) > 1e-6:  # at the very edge, either is right
            assert granted == (tokens >= 1)
        if granted:
            tokens -= 1
            times.append(now)
    for first, begin in enumerate(times):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst + (times[last] - begin) * count / window_s + 1e-6


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("100/s", (100, 1.0, 0)),
        ("10/15m burst 2", (10, 900.0, 2)),
        (" 5 / h ", (5, 3600.0, 0)),
        ("1/250ms", (1, 0.25, 0)),
    ],
)
def test_limits_as_they_are_written(text: str, parsed: tuple[int, float, int]) -> None:
    """A unit alone is one of it."""
    assert parse_rate(text) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "100",
        "0/s",
        "100/",
        "100/x",
        "100/fortnight",
        "1/-1s",
        "1/9999d",
        "1/0s",
        "5/s burst",
        "5/s burst 0",
        "-1/s",
    ],
)
def test_limits_that_are_none(text: str) -> None:
    """What cannot be a limit is refused with what is expected of a limit, not of a part of it."""
    with pytest.raises(ValueError, match=r'expected "COUNT/WINDOW"|the window must be more'):
        parse_rate(text)


def test_what_is_wrong_with_a_window_is_named() -> None:
    """Beside what it could be."""
    with pytest.raises(
        ValueError, match='such as "100/s" or "10/15m burst 2"; "fortnight" is no window: one is s, m, h, d'
    ):
        parse_rate("100/fortnight")
    with pytest.raises(ValueError, match="at most"):
        parse_rate("9999999999/s")
