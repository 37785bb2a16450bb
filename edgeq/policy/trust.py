"""Which addresses are believed: a set of networks with a bounded memory of its answers.

Invariants: an IPv4 address and its IPv4-mapped IPv6 form (RFC 4291 2.5.5.2) are the same address, in the networks and
in the question; a host that is no address is never inside; "unix:" stands for every peer on a Unix socket.
Networks are kept by prefix length, so a question costs one set lookup for each distinct length, not for each network.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

_UNIX: Final = ("unix", "unix:")
_MAX_REMEMBERED: Final = 4096
"""Answers kept; a full memory is emptied, which is cheaper than ordering it and as good for a stable set of peers."""


class Networks:
    """`host in networks` for text addresses.

    Args: cidrs such as "10.0.0.0/8", "::1", "unix:"; host bits may be set and are ignored, as in nginx and HAProxy.
    Raises: ValueError for what is neither an address nor a network.
    """

    __slots__ = ("_by_length", "_remembered", "_unix_peers")

    def __init__(self, cidrs: Iterable[str]) -> None:
        self._unix_peers = False
        self._by_length: dict[tuple[int, int], set[int]] = {}
        self._remembered: dict[str, bool] = {}
        for cidr in cidrs:
            if cidr in _UNIX:
                self._unix_peers = True
                continue
            network = _plain_network(ip_network(cidr, strict=False))
            shift = network.max_prefixlen - network.prefixlen
            self._by_length.setdefault((network.version, shift), set()).add(int(network.network_address) >> shift)

    def __contains__(self, host: str) -> bool:
        answer = self._remembered.get(host)
        if answer is None:
            answer = self._look_up(host)
            if len(self._remembered) >= _MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[host] = answer
        return answer

    def __bool__(self) -> bool:
        return self._unix_peers or bool(self._by_length)

    def _look_up(self, host: str) -> bool:
        if host in _UNIX:
            return self._unix_peers
        try:
            address: IPv4Address | IPv6Address = ip_address(host)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        number = int(address)
        version = address.version
        for (network_version, shift), numbers in self._by_length.items():
            if network_version == version and number >> shift in numbers:
                return True
        return False


def _plain_network(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - 96))
    return network
