"""The normal form of paths, and their other readings."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.route.path import has_one_reading, is_usual, normalized, plain, readings, spelled

PARTS = r"/ / a b . .. %2e %2E %2f %61 %7E %00 %zz % ~ %25 ; \ %5c"
paths = st.lists(st.sampled_from(PARTS.split()), max_size=9).map(lambda parts: ("/" + "".join(parts)).encode())
HEX = "0123456789abcdefABCDEF"


def slow(path: str, spelling: str) -> str:
    """RFC 3986 6.2.2.3 and 5.2.4, as simply as it can be said; slashes merged.

    `spelling`: "plain" decodes unreserved characters only, "normal" spells everything in one way.
    """
    out = ""
    while path:
        size = 1
        character = path[0]
        escaped = character == "%" and len(path) >= 3 and path[1] in HEX and path[2] in HEX
        if escaped:
            size = 3
            character = chr(int(path[1:3], 16))
        is_unreserved = character.isascii() and (character.isalnum() or character in "-._~")
        is_visible = character.isascii() and character.isprintable() and character not in " /%?#"
        if is_unreserved or (spelling == "normal" and is_visible) or (character == "/" and not escaped):
            out += character
        elif spelling == "normal":
            out += f"%{ord(character):02X}"
        else:
            out += path[:3] if escaped else "%25" if character == "%" else character
        path = path[size:]
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
    """The fast forms and the slow ones agree."""
    assert normalized(path).decode() == slow(path.decode(), "normal")
    assert plain(path).decode() == slow(path.decode(), "plain")


@given(paths)
def test_once_is_enough(path: bytes) -> None:
    """A normal form stays as it is, whatever its bytes stand for; so does what is forwarded instead of the path."""
    for form in (normalized, plain):
        once = form(path)
        assert once.startswith(b"/")
        assert b"/../" not in once + b"/"
        assert b"/./" not in once + b"/"
        assert b"//" not in once
        assert form(once) == once


@given(paths)
def test_forwarded_form_means_the_same(path: bytes) -> None:
    """It has the normal form of the path that came, segment for segment."""
    assert normalized(plain(path)) == normalized(path)
    assert plain(path).count(b"/") == normalized(path).count(b"/")


@given(paths)
def test_what_looks_usual_is_normal_already(path: bytes) -> None:
    """The tests that save the work miss nothing."""
    if is_usual(path):
        assert normalized(path) == path
        assert readings(path) == [path]
    if has_one_reading(spelled(path)):
        assert readings(path) == [normalized(path)]


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
        (b"/a%2fb", b"/a%2Fb"),
        (b"/a%252e", b"/a%252e"),
        (b"/...", b"/..."),
        (b"/caf%c3%a9", b"/caf%C3%A9"),
        (b"/a%21b", b"/a!b"),
        (b"/100%", b"/100%25"),
        (b"/%%36%31", b"/%2561"),
        (b"*", b"*"),
    ],
)
def test_ways_around_a_route(path: bytes, normal: bytes) -> None:
    """Each a known way to reach a path past a gateway's rules."""
    assert normalized(path) == normal


@pytest.mark.parametrize(
    "path",
    [
        b"/public/..;/admin",  # Tomcat, Jetty
        b"/public/..;a=b/admin",
        b"/public/%2e%2e;/admin",
        b"/public;/../admin",
        b"/;a=b/admin",
        b"/admin;a=b",
        b"/admin%3ba=b",
        b"/public/..%2fadmin",  # decoded, then resolved
        b"/public%2f..%2fadmin",
        b"/%2fadmin",
        b"/public/..%5cadmin",  # IIS, .NET
        b"/public\\..\\admin",
        b"/public/..%u002fadmin",
        b"/public/%252e%252e/admin",  # two hops that decode
        b"/public/..%252fadmin",
        b"/public/%25%32%65%25%32%65/admin",
        b"/public/%%32%65%%32%65/admin",
        b"/admin%00.png",  # a C string
        b"/admin%3f/public",  # parsed once more after decoding
        b"/admin%23/public",
        b"/admin//..",  # RFC 3986 alone: an empty segment is one
        b"/public/x%2fy/../../../admin",
    ],
)
def test_other_readings(path: bytes) -> None:
    """Each a known way to have a server read "/admin" where a gateway read something else."""
    assert b"/admin" in [reading.rstrip(b"/") for reading in readings(path)]


@pytest.mark.parametrize(
    ("path", "all_readings"),
    [
        (b"/api/v4/projects/a%2Fb", [b"/api/v4/projects/a%2Fb", b"/api/v4/projects/a/b"]),
        (b"/caf%C3%A9%20au%20lait", [b"/caf%C3%A9%20au%20lait"]),
        (b"/.well-known/acme-challenge/x", [b"/.well-known/acme-challenge/x"]),
        (b"/a/../b/./c//d", [b"/b/c/d"]),
        (b"/p;v=1/q", [b"/p;v=1/q", b"/p/q"]),
    ],
)
def test_legitimate_paths_have_few_readings(path: bytes, all_readings: list[bytes]) -> None:
    """And none that is surprising."""
    assert readings(path) == all_readings


@pytest.mark.parametrize(
    "unit", [b"%2f..%5c;%00", b"%25", b";/..", b"//..%2f", b"\\%2e;a/", b"%2525u002f;//", b"/.%2f;%3f\\"]
)
@pytest.mark.parametrize("size", [40, 300, 8192])
def test_a_path_made_to_cost_time_is_given_up(unit: bytes, size: int) -> None:
    """The work is bounded, however many readings there are; at worst nobody can tell them all."""
    path = b"/" + (unit * size)[:size]
    best_s = 1.0
    for _ in range(3):  # of the processor's time: what others take of it is no work of ours
        began_s = time.thread_time()
        assert len(readings(path)) <= 64
        best_s = min(best_s, time.thread_time() - began_s)
    assert best_s < 0.02
