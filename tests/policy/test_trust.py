"""Which addresses are believed."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.policy.trust import Networks

_NETWORKS = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(0, 32)), st.tuples(st.ip_addresses(v=6), st.integers(0, 128))
).map(lambda pair: f"{pair[0]}/{pair[1]}")


@pytest.mark.parametrize(
    ("cidrs", "host", "inside"),
    [
        (("10.0.0.0/8",), "10.255.0.1", True),
        (("10.0.0.0/8",), "11.0.0.1", False),
        (("10.1.2.3/8",), "10.9.9.9", True),
        (("192.0.2.7",), "192.0.2.7", True),
        (("192.0.2.7",), "192.0.2.8", False),
        (("10.0.0.0/8",), "::ffff:10.0.0.1", True),
        (("::ffff:10.0.0.0/104",), "10.0.0.1", True),
        (("::/0",), "10.0.0.1", False),
        (("0.0.0.0/0",), "2001:db8::1", False),
        (("2001:db8::/32",), "2001:db8:1::", True),
        (("2001:db8::/32", "10.0.0.0/8", "10.1.0.0/16"), "10.1.0.1", True),
        (("unix:",), "unix:", True),
        (("unix",), "unix:", True),
        (("0.0.0.0/0", "::/0"), "unix:", False),
        (("0.0.0.0/0", "::/0"), "example.org", False),
        (("0.0.0.0/0", "::/0"), "", False),
        ((), "10.0.0.1", False),
    ],
)
def test_membership(cidrs: tuple[str, ...], host: str, inside: bool) -> None:
    """Each kind of address is found in its own kind of network and nowhere else, the second time as the first."""
    networks = Networks(cidrs)
    assert (host in networks) is inside
    assert (host in networks) is inside


@pytest.mark.parametrize("cidr", ["10.0.0.0/33", "example.org", "", "10.0.0", "::/129"])
def test_what_is_no_network_is_an_error(cidr: str) -> None:
    """A typing error in the configuration must not become an empty or a wide network."""
    with pytest.raises(ValueError):
        Networks([cidr])


def test_empty_is_false() -> None:
    """An empty set can be tested like any empty container."""
    assert not Networks(())
    assert Networks(("unix:",))
    assert Networks(("::1",))


@given(st.lists(_NETWORKS, max_size=5), st.ip_addresses())
def test_agrees_with_ipaddress(cidrs: list[str], address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """The grouped look-up gives what testing each network in turn gives."""
    parsed = [ipaddress.ip_network(cidr, strict=False) for cidr in cidrs]
    mapped = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None
    if mapped or any(n.version == 6 and n.prefixlen >= 96 and "ffff" in str(n) for n in parsed):
        return  # mapped addresses have their own cases above
    assert (str(address) in Networks(cidrs)) is any(address in network for network in parsed)


def test_memory_is_bounded() -> None:
    """Many different addresses (a flood with forged PROXY headers) do not grow the memory of answers."""
    networks = Networks(["10.0.0.0/8"])
    for number in range(10_000):
        assert str(ipaddress.IPv4Address(0x0A000000 + number)) in networks
    assert len(networks._remembered) <= 4096
