"""Cache-Control: what it says, however it is written; doubt makes an answer older, never younger."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.cache.directives import MAX_SECONDS, UNSAID, parse_directives, split_list


@pytest.mark.parametrize(
    ("value", "name", "expected"),
    [
        (b"max-age=60", "max_age", 60),
        (b"MAX-AGE=60", "max_age", 60),
        (b"public , max-age = 60", "max_age", 60),
        (b'max-age="60"', "max_age", 60),
        (b"max-age=60, max-age=10", "max_age", 10),
        (b"max-age=10, max-age=60", "max_age", 10),
        (b"max-age", "max_age", 0),
        (b"max-age=", "max_age", 0),
        (b"max-age=-1", "max_age", 0),
        (b"max-age=1.5", "max_age", 0),
        (b"max-age=1e3", "max_age", 0),
        (b"max-age=99999999999999999999", "max_age", MAX_SECONDS),
        (b"max-age=00000000000000000007", "max_age", 7),
        (b"s-maxage=5", "s_maxage", 5),
        (b"s-maxage=5", "max_age", UNSAID),
        (b"", "max_age", UNSAID),
        (b"private", "private", True),
        (b'private="set-cookie, x"', "private", True),
        (b'no-cache="set-cookie"', "no_cache", True),
        (b'x="no-store", max-age=1', "no_store", False),
        (b'x="a, no-store, b"', "no_store", False),
        (b'x="a\\", no-store, b"', "no_store", False),
        (b"no-store", "no_store", True),
        (b"no-storex", "no_store", False),
        (b"must-revalidate", "must_revalidate", True),
        (b"stale-while-revalidate=3, stale-if-error=4", "stale_if_error", 4),
    ],
)
def test_what_a_value_says(value: bytes, name: str, expected: int | bool) -> None:
    """Each form of RFC 9111 5.2, and what is none."""
    assert getattr(parse_directives(value), name) == expected


@given(st.binary(max_size=200))
def test_anything_can_be_read(value: bytes) -> None:
    """No value raises, and no number is out of its range."""
    said = parse_directives(value)
    for seconds in (said.max_age, said.s_maxage, said.min_fresh, said.stale_if_error, said.stale_while_revalidate):
        assert UNSAID <= seconds <= MAX_SECONDS


@given(st.lists(st.sampled_from([b"no-store", b"max-age=7", b"public", b'x="a,b"', b"private"]), max_size=6))
def test_order_and_white_space_do_not_count(parts: list[bytes]) -> None:
    """A list means the same however it is written (RFC 9110 5.6.1)."""
    said = parse_directives(b",".join(parts))
    again = parse_directives(b" ,\t, ".join(reversed(parts)))
    for name in ("no_store", "public", "private", "max_age"):
        assert getattr(said, name) == getattr(again, name)


@given(st.lists(st.from_regex(rb'[a-z]{1,5}|"([a-z, ]|\\.){0,5}"', fullmatch=True), max_size=5))
def test_a_list_comes_apart_where_it_was_joined(parts: list[bytes]) -> None:
    """Commas within quotes belong to their element, also behind an escaped quote."""
    assert split_list(b", ".join(parts)) == parts
