"""Forms of addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.config.address import (
    EndpointUrl,
    ListenAddress,
    check_host_header,
    check_match_host,
    check_match_path,
    check_nameserver,
    check_network,
    parse_endpoint,
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
        ("127.0.0.1", "no port"),
        (":8080", "no address"),
        ("localhost:80", "no IP address"),
        ("::1:80", "brackets"),
        ("[::1]", "no port"),
        ("[::1]80", "IPV6"),
        ("[::g]:80", "IPv6"),
        ("1.2.3.4:65536", "no port"),
        ("1.2.3.4:８０", "no port"),
        ("1.2.3.4:-1", "no port"),
        ("unix:x.sock", "absolute"),
        ("unix:/" + "x" * 107, "107"),
    ],
)
def test_wrong_listen(text: str, says: str) -> None:
    """The message says what is missing."""
    with pytest.raises(ValueError, match=says):
        parse_listen(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://a.example:9000", EndpointUrl("tcp", False, "a.example", 9000, "")),
        ("HTTPS://A.Example", EndpointUrl("tcp", True, "a.example", 443, "")),
        ("http://10.0.0.7/", EndpointUrl("tcp", False, "10.0.0.7", 80, "")),
        ("http://[::1]:80", EndpointUrl("tcp", False, "::1", 80, "")),
        ("unix:/run/app.sock", EndpointUrl("unix", False, "", 0, "/run/app.sock")),
        ("http+srv://_http._tcp.app.example", EndpointUrl("srv", False, "_http._tcp.app.example", 0, "")),
        ("https+srv://app", EndpointUrl("srv", True, "app", 0, "")),
    ],
)
def test_endpoints(text: str, url: EndpointUrl) -> None:
    """Each form of an endpoint."""
    assert parse_endpoint(text) == url


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected"),
        ("a.example:80", "expected"),
        ("ftp://a", "expected"),
        ("http://a/b", "path"),
        ("http://a//", "path"),
        ("http://a?x", "query"),
        ("http://a#x", "fragment"),
        ("http://me:secret@a", "user name"),
        ("http://", "no host"),
        ("http://a:0", "port 0"),
        ("http://a:b", "no port"),
        ("http://10.0.0.256", "IPv4"),
        ("http://-a", "host name"),
        ("http://a..b", "host name"),
        ("http://" + "a" * 64, "host name"),
        ("http+srv://a:80", "no port"),
        ("http://::1", "brackets"),
        ("unix:run", "absolute"),
    ],
)
def test_wrong_endpoints(text: str, says: str) -> None:
    """The message says what is wrong, and never repeats a password."""
    with pytest.raises(ValueError, match=says) as caught:
        parse_endpoint(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["/", "/*", "/a/b", "/a/*", "/users/*/posts/*", "/a%20b", "/*/x"])
def test_paths(text: str) -> None:
    """Exact paths, prefixes and patterns."""
    check_match_path(text)


@pytest.mark.parametrize(
    "text", ["", "a", "*", "/a*", "/*b/c", "/**", "/a?b", "/a#b", "/%zz", "/%2", "/a b", "/é", "/a/../b", "/."]
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


@pytest.mark.parametrize("text", ["1.1.1.1", "::1", "1.1.1.1:53", "[::1]:53"])
def test_nameservers(text: str) -> None:
    """Addresses, with or without a port."""
    check_nameserver(text)


@pytest.mark.parametrize("text", ["", "dns.example", "1.1.1.1:0", "1.1.1.1:x", "[::1", "[x]:53"])
def test_wrong_nameservers(text: str) -> None:
    """A name server is found by its address."""
    with pytest.raises(ValueError):
        check_nameserver(text)


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """No text raises anything but ValueError."""
    functions = (
        parse_listen,
        parse_endpoint,
        check_network,
        check_nameserver,
        check_match_host,
        check_match_path,
        check_host_header,
    )
    for prefix in ("", "http://", "[", "unix:/", "/", "1.2.3.4:"):
        for function in functions:
            try:
                function(prefix + text)
            except ValueError as error:
                assert str(error)
