"""The normal form of paths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.route.path import UNUSUAL, normalized

paths = st.lists(
    st.sampled_from(["/", "/", "a", "b", ".", "..", "%2e", "%2E", "%2f", "%61", "%7E", "%00", "%zz", "%", "~", "%25"]),
    max_size=9,
).map(lambda parts: ("/" + "".join(parts)).encode())


def slow(path: str) -> str:
    """RFC 3986 6.2.2.3 and 5.2.4, as simply as it can be said; slashes merged."""
    out = ""
    while path:
        if path[0] == "%" and len(path) >= 3 and all(digit in "0123456789abcdefABCDEF" for digit in path[1:3]):
            character = chr(int(path[1:3], 16))
            if character.isascii() and (character.isalnum() or character in "-._~"):
                out, path = out + character, path[3:]
                continue
        out, path = out + path[0], path[1:]
    stack: list[str] = []
    segments = out.split("/")[1:]
    for number, segment in enumerate(segments):
        last = number == len(segments) - 1
        if segment == "..":
            del stack[-1:]
        elif segment not in ("", "."):
            stack.append(segment)
        if last and segment in ("", ".", "..") and stack:
            stack.append("")
    return "/" + "/".join(stack)


@given(paths)
def test_against_a_plain_reading(path: bytes) -> None:
    """The fast form and the slow one agree."""
    assert normalized(path).decode() == slow(path.decode())


@given(paths)
def test_once_is_enough(path: bytes) -> None:
    """A normal form stays as it is, except that decoding may not reveal another encoding."""
    once = normalized(path)
    assert once.startswith(b"/")
    assert b"/../" not in once + b"/"
    assert b"/./" not in once + b"/"
    assert b"//" not in once
    if b"%25" not in path and b"%" not in once:
        assert normalized(once) == once


@given(paths)
def test_what_looks_usual_is_normal_already(path: bytes) -> None:
    """The test that saves the work misses nothing."""
    if UNUSUAL.search(path) is None:
        assert normalized(path) == path


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        (b"/public/../admin", b"/admin"),
        (b"/%61dmin", b"/admin"),
        (b"/public/%2e%2e/admin", b"/admin"),
        (b"/a/%2E./b", b"/b"),
        (b"//admin", b"/admin"),
        (b"/../../etc", b"/etc"),
        (b"/a/..", b"/"),
        (b"/a/b/..", b"/a/"),
        (b"/a%2fb", b"/a%2fb"),
        (b"/a%252e", b"/a%252e"),
        (b"/...", b"/..."),
        (b"*", b"*"),
    ],
)
def test_ways_around_a_route(path: bytes, normal: bytes) -> None:
    """Each a known way to reach a path past a gateway's rules."""
    assert normalized(path) == normal
