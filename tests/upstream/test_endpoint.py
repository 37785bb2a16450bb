"""How endpoints are spelled, and the one order of a set of addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.upstream.endpoint import Address, EndpointSpec, parse_endpoint, parse_nameserver, sort_addresses


@pytest.mark.parametrize(
    ("url", "spec"),
    [
        ("http://api.example", EndpointSpec("http", "api.example", 80)),
        ("https://api.example", EndpointSpec("https", "api.example", 443)),
        ("HTTP://API.Example:8080", EndpointSpec("http", "api.example", 8080)),
        ("http://api.example:8080/", EndpointSpec("http", "api.example", 8080)),
        ("http://api.example.:1", EndpointSpec("http", "api.example.", 1)),
        ("http://my_service:9000", EndpointSpec("http", "my_service", 9000)),
        ("http://10.0.0.7:9000", EndpointSpec("http", "10.0.0.7", 9000)),
        ("https://[::1]", EndpointSpec("https", "::1", 443)),
        ("http://[2001:DB8:0::1]:65535", EndpointSpec("http", "2001:db8::1", 65535)),
        ("http://[fe80::1%25eth0]:80", EndpointSpec("http", "fe80::1%eth0", 80)),
        ("http+srv://_http._tcp.api.example", EndpointSpec("http", "_http._tcp.api.example", 0, True)),
        ("https+srv://api.service.consul", EndpointSpec("https", "api.service.consul", 0, True)),
        ("unix:/run/app.sock", EndpointSpec("unix", "/run/app.sock", 0)),
        ("unix:///run/app.sock", EndpointSpec("unix", "/run/app.sock", 0)),
    ],
)
def test_accepts(url: str, spec: EndpointSpec) -> None:
    """Each documented spelling means one spec, and the spec's own text means the same again."""
    assert parse_endpoint(url) == spec
    assert parse_endpoint(str(spec)) == spec


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("", "must begin with"),
        ("api.example:80", "must begin with"),
        ("ftp://api.example", "must begin with"),
        ("http:api.example", "must begin with"),
        ("http://", "no host"),
        ("http://:80", "no host"),
        ("http://api.example:", "port ''"),
        ("http://api.example:0", "port '0'"),
        ("http://api.example:65536", "port '65536'"),
        ("http://api.example:+80", "port '+80'"),
        ("http://api.example:8o", "port '8o'"),
        ("http://api.example/v1", "path"),
        ("http://api.example//", "path"),
        ("http://api.example?x=1", "query"),
        ("http://api.example#x", "fragment"),
        ("http://user@api.example", "user name"),
        ("http://api example", "space"),
        ("http://api.example\r\n", "control"),
        ("http://::1:80", "brackets"),
        ("http://[::1", "not closed"),
        ("http://[::1]80", "may follow"),
        ("http://[1.2.3.4]", "IPv6"),
        ("http://[]", "IPv6"),
        ("http://1.2.3", "IPv4"),
        ("http://256.1.1.1", "IPv4"),
        ("http://-a.example", "host name"),
        ("http://a..example", "host name"),
        ("http://" + "a" * 64, "host name"),
        ("http://" + ".".join(["a" * 60] * 5), "host name"),
        ("http://b\u00fccher.example", "xn--"),
        ("http+srv://api.example:80", "SRV records bring it"),
        ("http+srv://10.0.0.1", "SRV"),
        ("unix:", "absolute"),
        ("unix:run/app.sock", "absolute"),
        ("unix://run/app.sock", "absolute"),
        ("unix:/run/", "directory"),
        ("unix:/" + "x" * 107, "107 bytes"),
    ],
)
def test_refuses(url: str, what: str) -> None:
    """What is wrong with a URL is said, together with the URL."""
    with pytest.raises(ValueError, match="endpoint") as caught:
        parse_endpoint(url)
    assert what in str(caught.value)


@pytest.mark.parametrize("url", ["http://user:secret@api.example", "https://api.example/v1?key=secret"])
def test_error_hides_password(url: str) -> None:
    """A password or a key written into the URL by mistake does not reach a log through the error."""
    with pytest.raises(ValueError) as caught:
        parse_endpoint(url)
    assert "secret" not in str(caught.value)
    assert "api.example" in str(caught.value)


@given(st.text(max_size=40) | st.text("htps+srv:/.[]@#?0123456789a-_%", max_size=30).map("http://".__add__))
def test_any_text_is_a_spec_or_a_value_error(text: str) -> None:
    """No input ends in another exception, and what is accepted can be written and read again."""
    try:
        spec = parse_endpoint(text)
    except ValueError:
        return
    assert parse_endpoint(str(spec)) == spec
    assert spec.scheme == "unix" or spec.srv or 0 < spec.port < 65536


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://api.example.", "api.example"),
        ("http://[::1]", "::1"),
        ("http://[fe80::1%eth0]", "fe80::1"),
        ("http+srv://_http._tcp.api.example", "api.example"),
        ("http+srv://api.service.consul", "api.service.consul"),
        ("unix:/run/a.sock", "localhost"),
    ],
)
def test_name_for_host_and_sni(url: str, name: str) -> None:
    """Host and SNI carry the configured service, never what DNS answered."""
    assert parse_endpoint(url).name == name


def test_literal() -> None:
    """Numeric addresses and Unix sockets need no lookup; names and SRV owners do."""
    assert parse_endpoint("http://[::1]:8080").literal() == Address("inet6", "::1", 8080, "::1")
    assert parse_endpoint("https://127.0.0.1").literal() == Address("inet", "127.0.0.1", 443, "127.0.0.1")
    assert parse_endpoint("unix:/a").literal() == Address("unix", "/a", 0, "localhost")
    assert parse_endpoint("http://localhost").literal() is None
    assert parse_endpoint("http+srv://localhost").literal() is None


def test_text_of_addresses() -> None:
    """Labels are written as an operator would type them."""
    assert str(Address("inet", "10.0.0.1", 80, "a")) == "10.0.0.1:80"
    assert str(Address("inet6", "::1", 80, "a")) == "[::1]:80"
    assert str(Address("unix", "/a", 0, "localhost")) == "unix:/a"


ADDRESSES = st.builds(
    Address,
    st.just("inet"),
    st.integers(0, 3).map("10.0.0.{}".format),
    st.integers(80, 81),
    st.just("a"),
    st.integers(0, 3),
    st.integers(0, 2),
)


@given(st.lists(ADDRESSES))
def test_sorting_is_stable_and_without_doubles(addresses: list[Address]) -> None:
    """The order of the answer does not matter, and each endpoint comes once, with its best priority."""
    result = sort_addresses(addresses)
    assert sort_addresses(addresses[::-1]) == result
    assert {(row.host, row.port) for row in addresses} == {(row.host, row.port) for row in result}
    assert len({(row.host, row.port) for row in result}) == len(result)
    for row in result:
        assert row.priority == min(
            other.priority for other in addresses if (other.host, other.port) == (row.host, row.port)
        )


def test_order_is_numeric() -> None:
    """Addresses are ordered as numbers, IPv4 first, within their priority."""
    hosts = [("inet6", "::1", 0), ("inet", "10.0.0.10", 0), ("inet", "10.0.0.9", 0), ("inet", "10.0.0.1", 1)]
    rows = [Address(family, host, 80, "a", 1, priority) for family, host, priority in hosts]  # type: ignore[arg-type]
    assert [row.host for row in sort_addresses(rows)] == ["10.0.0.9", "10.0.0.10", "::1", "10.0.0.1"]


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("10.0.0.53", "10.0.0.53:53"),
        ("10.0.0.53:5353", "10.0.0.53:5353"),
        ("::1", "[::1]:53"),
        ("[::1]", "[::1]:53"),
        ("[::1]:5353", "[::1]:5353"),
    ],
)
def test_nameserver(text: str, result: str) -> None:
    """A nameserver is an address with or without a port."""
    assert parse_nameserver(text) == result


@pytest.mark.parametrize("text", ["", "dns.example", "10.0.0.53:", "10.0.0.53:0", "10.0.0", "[::1", "1.1.1.1,8.8.8.8"])
def test_nameserver_refused(text: str) -> None:
    """A name, a list or a bad port is no nameserver."""
    with pytest.raises(ValueError, match="nameserver"):
        parse_nameserver(text)
