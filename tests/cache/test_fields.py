"""Names and values of stored heads, dates, entity tags."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.cache.fields import NO_DATE, fields_of, matches_any, parse_date


def test_fields_of_lines() -> None:
    """Lower-case names; several lines become one value, in order."""
    assert fields_of(b"HTTP/1.1 200 OK\r\nVary: a\r\nX:\t1 \r\nvary: B\r\n") == {b"vary": b"a, B", b"x": b"1"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"Sun, 06 Nov 1994 08:49:37 GMT", 784111777.0),
        (b"Sunday, 06-Nov-94 08:49:37 GMT", 784111777.0),
        (b"Sun Nov  6 08:49:37 1994", 784111777.0),
        (b"0", NO_DATE),
        (b"-1", NO_DATE),
        (b"", NO_DATE),
        (b"Sun, 06 Foo 1994 08:49:37 GMT", NO_DATE),
        (b"Sun, 06 Nov 1994 25:49:37 GMT", NO_DATE),
        (b"Sun, 06 Nov 0000 08:49:37 GMT", NO_DATE),
    ],
)
def test_dates(text: bytes, seconds: float) -> None:
    """The three forms of RFC 9110 5.6.7; what is none is none."""
    assert parse_date(text) == seconds


@given(st.integers(0, 4_000_000_000))
def test_a_date_means_what_it_was_made_from(second: int) -> None:
    """Of the form that is written today."""
    text = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(second)).encode()
    assert parse_date(text) == second


@given(st.binary(max_size=60))
def test_any_date_can_be_read(text: bytes) -> None:
    """Nothing raises."""
    assert parse_date(text) >= NO_DATE


@pytest.mark.parametrize(
    ("condition", "etag", "matches"),
    [
        (b'"a"', b'"a"', True),
        (b'W/"a"', b'"a"', True),
        (b'"a"', b'W/"a"', True),
        (b'"b", "a"', b'"a"', True),
        (b'"a,b"', b'"a,b"', True),
        (b'"a,b"', b'"a"', False),
        (b"*", b"", True),
        (b'"a"', b"", False),
        (b'"A"', b'"a"', False),
    ],
)
def test_if_none_match(condition: bytes, etag: bytes, matches: bool) -> None:
    """Weak comparison (RFC 9110 13.1.2)."""
    assert matches_any(condition, etag) is matches
