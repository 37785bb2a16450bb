"""What may be stored, and for how long it may be used (RFC 9111 3 and 4.2, RFC 5861)."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.cache.fields import fields_of
from edgeq.cache.rules import CacheSettings, Judgement, judge

WALL = 1_800_000_000.0


def http_date(at: float) -> bytes:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(at)).encode()


def judged(
    lines: bytes,
    status: int = 200,
    credentials: bool = False,
    cookie: bool = False,
    delay_s: float = 0.0,
    **settings: float | bool,
) -> Judgement:
    made = CacheSettings(1 << 20, 1 << 16)
    for name, value in settings.items():
        setattr(made, name, value)
    return judge(status, fields_of(lines), credentials, cookie, made, WALL, delay_s)


@pytest.mark.parametrize(
    ("lines", "refusal"),
    [
        (b"Cache-Control: max-age=60", ""),
        (b"Cache-Control: s-maxage=60", ""),
        (b"Expires: " + http_date(WALL + 60), ""),
        (b"", "no-freshness"),
        (b'ETag: "a"', "no-freshness"),
        (b"Cache-Control: public", "stale"),
        (b'Cache-Control: public\r\nETag: "a"', ""),
        (b'Cache-Control: no-cache\r\nETag: "a"', ""),
        (b"Cache-Control: no-cache", "stale"),
        (b"Cache-Control: max-age=0", "stale"),
        (b"Cache-Control: max-age=0\r\nLast-Modified: " + http_date(WALL - 9), ""),
        (b"Cache-Control: max-age=0, stale-if-error=9", ""),
        (b"Cache-Control: max-age=60\r\nAge: 60", "stale"),
        (b"Cache-Control: max-age=60\r\nDate: " + http_date(WALL - 61), "stale"),
        (b"Cache-Control: no-store, max-age=60", "no-store"),
        (b"Cache-Control: private, max-age=60", "private"),
        (b"Cache-Control: max-age=60\r\nCache-Control: private", "private"),
        (b"Cache-Control: max-age=60\r\nVary: *", "vary"),
        (b"Cache-Control: max-age=60\r\nVary: a, *", "vary"),
        (b"Cache-Control: max-age=60\r\nSet-Cookie: a=b", "set-cookie"),
        (b"Expires: 0", "stale"),
    ],
)
def test_what_may_be_stored(lines: bytes, refusal: str) -> None:
    """Only what says for how long, and nothing that is somebody's own."""
    assert judged(lines).refusal == refusal


@pytest.mark.parametrize("status", [206, 304, 401, 403, 429, 431, 500, 502, 503, 504, 599, 100])
def test_statuses_that_are_never_stored(status: int) -> None:
    """Parts, failures, and those that RFC 6585 excludes; whatever they say."""
    assert judged(b"Cache-Control: public, max-age=60", status).refusal == "status"


@pytest.mark.parametrize(
    ("lines", "stored"),
    [
        (b"Cache-Control: max-age=60", False),
        (b"Cache-Control: max-age=60, public", True),
        (b"Cache-Control: s-maxage=60", True),
        (b"Cache-Control: max-age=60, must-revalidate", True),
        (b"Cache-Control: max-age=60, proxy-revalidate", False),
        (b"Cache-Control: public, private, max-age=60", False),
    ],
)
def test_answers_to_requests_with_a_credential(lines: bytes, stored: bool) -> None:
    """RFC 9111 3.5: only if they say that they are for anyone."""
    assert (judged(lines, credentials=True).refusal == "") is stored
    assert judged(lines, credentials=True).for_anyone is (stored or b"private" in lines)


def test_a_default_lifetime_is_not_for_answers_about_one_user() -> None:
    """With a cookie in the request only what the answer itself says counts."""
    assert judged(b"", default_ttl_s=60.0).refusal == ""
    assert judged(b"", default_ttl_s=60.0, cookie=True).refusal == "no-freshness"
    assert judged(b"", default_ttl_s=60.0, credentials=True).refusal == "credentials"
    assert judged(b"Cache-Control: max-age=60", cookie=True).refusal == ""
    assert judged(b'Cache-Control: public\r\nETag: "a"', default_ttl_s=60.0, cookie=True).lifetime_s == 0.0
    assert judged(b"", 302, default_ttl_s=60.0).refusal == "no-freshness"  # RFC 9110 15.1: not by default


def test_cookies_are_stripped_if_the_route_says_so() -> None:
    assert judged(b"Cache-Control: max-age=60\r\nSet-Cookie: a=b", strip_cookies=True).refusal == ""


@pytest.mark.parametrize(
    ("lines", "while_s", "error_s"),
    [
        (b"Cache-Control: max-age=60", 10.0, 30.0),
        (b"Cache-Control: max-age=60, stale-while-revalidate=3, stale-if-error=4", 3.0, 4.0),
        (b"Cache-Control: max-age=60, stale-while-revalidate=0, stale-if-error=0", 0.0, 0.0),
        (b'Cache-Control: max-age=0\r\nETag: "a"', 0.0, 30.0),
        (b"Cache-Control: max-age=60, must-revalidate, stale-if-error=4", 0.0, 0.0),
        (b"Cache-Control: max-age=60, proxy-revalidate", 0.0, 0.0),
        (b"Cache-Control: s-maxage=60", 0.0, 0.0),
        (b'Cache-Control: no-cache\r\nETag: "a"', 0.0, 0.0),
    ],
)
def test_use_after_its_time(lines: bytes, while_s: float, error_s: float) -> None:
    """What the answer says goes before what the route says; must-revalidate and its kin before both."""
    judgement = judged(lines, stale_while_revalidate_s=10.0, stale_if_error_s=30.0)
    assert (judgement.stale_while_revalidate_s, judgement.stale_if_error_s) == (while_s, error_s)


def test_lifetimes_in_their_order() -> None:
    """s-maxage, then max-age, then Expires (RFC 9111 4.2.1)."""
    expires = b"\r\nDate: " + http_date(WALL) + b"\r\nExpires: " + http_date(WALL + 7)
    assert judged(b"Cache-Control: max-age=5, s-maxage=6" + expires).lifetime_s == 6.0
    assert judged(b"Cache-Control: max-age=5" + expires).lifetime_s == 5.0
    assert judged(b"X: y" + expires).lifetime_s == 7.0
    assert judged(b"X: y" + expires, default_ttl_s=99.0).lifetime_s == 7.0


@given(
    date_offset=st.none() | st.integers(-1000, 1000),
    age=st.none() | st.integers(0, 1000),
    delay_s=st.floats(0, 100, allow_nan=False),
)
def test_the_age_is_that_of_rfc_9111(date_offset: int | None, age: int | None, delay_s: float) -> None:
    """4.2.3: the larger of what Date and what Age say; never negative; a clock that is ahead makes nothing younger."""
    lines = b"Cache-Control: max-age=5000"
    if date_offset is not None:
        lines += b"\r\nDate: " + http_date(WALL + date_offset)
    if age is not None:
        lines += b"\r\nAge: %d" % age
    got = judged(lines, delay_s=delay_s)
    apparent = max(0.0, float(-(date_offset or 0)))
    assert got.age_s == max(apparent, (age or 0) + delay_s)
    assert got.age_s >= delay_s


@given(
    max_age=st.integers(0, 100),
    age=st.integers(0, 200),
    while_s=st.integers(0, 50),
    error_s=st.integers(0, 50),
)
def test_what_can_never_be_used_is_not_stored(max_age: int, age: int, while_s: int, error_s: int) -> None:
    """Without a validator it has to have time left, of some kind."""
    lines = b"Cache-Control: max-age=%d, stale-while-revalidate=%d, stale-if-error=%d\r\nAge: %d" % (
        max_age,
        while_s,
        error_s,
        age,
    )
    assert (judged(lines).refusal == "") is (age < max_age + max(while_s, error_s))
