"""What is told of endpoints that cannot be reached."""

from __future__ import annotations

from edgeq.upstream.trouble import LEAST_S, REMIND_S, Troubles

REFUSED = ("upstream_connect_refused", "ECONNREFUSED: Connection refused")
TIMED_OUT = ("upstream_connect_timeout", "not connected after 2 s")


def test_an_outage_is_told_once_at_each_end() -> None:
    """However many requests fail in between."""
    troubles = Troubles()
    assert not troubles
    told = [troubles.failed("a", *REFUSED, 100.0 + number / 100) for number in range(500)]
    assert told[0] == 1
    assert not any(told[1:])
    assert troubles
    assert troubles.reached("a", 110.0) == 500
    assert troubles.reached("a", 110.1) == 0
    assert not troubles


def test_another_reason_is_news() -> None:
    """And who recovers was in trouble before."""
    troubles = Troubles()
    assert troubles.reached("a", 99.0) == 0
    assert troubles.failed("a", *REFUSED, 100.0) == 1
    assert troubles.failed("b", *REFUSED, 100.0) == 1
    assert troubles.failed("a", *TIMED_OUT, 103.0) == 2
    assert troubles.reached("b", 104.0) == 1


def test_a_long_outage_is_recalled() -> None:
    """Once a minute, with its size."""
    troubles = Troubles()
    told = [troubles.failed("a", *REFUSED, 100.0 + number) for number in range(180)]
    assert [number for number in range(180) if told[number]] == [0, REMIND_S, 2 * REMIND_S]
    assert told[60] == 61


def test_the_end_of_a_short_outage_is_told_as_well() -> None:
    """There may be no further connection for an hour, and the last word must be true."""
    troubles = Troubles()
    assert troubles.failed("a", *REFUSED, 100.0) == 1
    assert troubles.reached("a", 100.01) == 1
    assert troubles.failed("a", *REFUSED, 100.02) == 0
    assert troubles.reached("a", 100.03) == 0
    assert troubles.failed("a", *REFUSED, 101.02) == 1


def test_flapping_is_told_twice_a_second_at_most() -> None:
    """Every other connection fails, a thousand times a second."""
    troubles = Troubles()
    words = 0
    for number in range(10_000):
        now_s = 100.0 + number / 1000
        words += bool(troubles.failed("a", *(REFUSED if number % 3 else TIMED_OUT), now_s))
        words += bool(troubles.reached("a", now_s))
    assert 5 <= words <= 2 * (10 / LEAST_S + 1)


def test_who_is_not_used_any_more_is_forgotten() -> None:
    """Nothing grows with the addresses that come and go."""
    troubles = Troubles()
    troubles.failed("a", *REFUSED, 100.0)
    troubles.failed("b", *REFUSED, 100.0)
    troubles.keep({"b"})
    assert troubles.reached("a", 110.0) == 0
    assert troubles.reached("b", 110.0) == 1
    troubles.keep(set())
    assert troubles.failed("b", *REFUSED, 110.1) == 1
