"""Forms of addresses."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.config.address import (
    ListenAddress,
    check_host_header,
    check_match_host,
    check_match_path,
    check_network,
    parse_listen,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:8080", ListenAddress("ipv4", "0.0.0.0", 8080, "")),
        ("[::]:80", ListenAddress("ipv6", "::", 80, "")),
        ("[fe80::1%eth0]:80", ListenAddress("ipv6", "fe80::1%eth0", 80, "")),
        ("127.0.0.1:0", ListenAddress("ipv4", "127.0.0.1", 0, "")),
        ("unix:/run/x.sock", ListenAddress("unix", "", 0, "/run/x.sock")),
    ],
)
def test_listen(text: str, address: ListenAddress) -> None:
    """IPv4, IPv6 and Unix sockets."""
    assert parse_listen(text) == address


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no port"),
        ("18081", '"0.0.0.0:18081"'),
        ("127.0.0.1", "no port"),
        (":8080", "no address"),
        ("localhost:80", "no IP address"),
        ("::1:80", "brackets"),
        ("[::1]", "no port"),
        ("[::1]80", "IPV6"),
        ("[::g]:80", "IPv6"),
        ("1.2.3.4:65536", "no port"),
        ("1.2.3.4:\uff18\uff10", "no port"),
        ("1.2.3.4:-1", "no port"),
        ("unix:x.sock", "absolute"),
        ("unix:/" + "x" * 107, "107"),
    ],
)
def test_wrong_listen(text: str, says: str) -> None:
    """The message says what is missing."""
    with pytest.raises(ValueError, match=says):
        parse_listen(text)


@pytest.mark.parametrize("text", ["/", "/*", "/a/b", "/a/*", "/users/*/posts/*", "/a%20b", "/*/x"])
def test_paths(text: str) -> None:
    """Exact paths, prefixes and patterns."""
    check_match_path(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "*",
        "/a*",
        "/*b/c",
        "/**",
        "/a?b",
        "/a#b",
        "/%zz",
        "/%2",
        "/a b",
        "/é",
        "/a/../b",
        "/.",
        "/a//b",
        "/%61",
        "/a/%2A",
        "//",
    ],
)
def test_wrong_paths(text: str) -> None:
    """What no request's path can equal is refused."""
    with pytest.raises(ValueError):
        check_match_path(text)


@pytest.mark.parametrize("text", ["*", "a", "shop.example", "*.example", "127.0.0.1", "[::1]"])
def test_hosts(text: str) -> None:
    """Names, wildcards and addresses."""
    check_match_host(text)


@pytest.mark.parametrize("text", ["", "a:80", "*a.example", "a.*.b", "*.", "a b", "a/b", "**", "::1"])
def test_wrong_hosts(text: str) -> None:
    """What no Host can equal is refused."""
    with pytest.raises(ValueError):
        check_match_host(text)


def test_a_network_with_host_bits_is_explained() -> None:
    """The network that was meant is in the message."""
    with pytest.raises(ValueError, match=r"did you mean 10\.0\.0\.0/8"):
        check_network("10.1.0.0/8")


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """No text raises anything but ValueError."""
    functions = (
        parse_listen,
        check_network,
        check_match_host,
        check_match_path,
        check_host_header,
    )
    for prefix in ("", "http://", "[", "unix:/", "/", "1.2.3.4:"):
        for function in functions:
            with contextlib.suppress(ValueError):
                function(prefix + text)
