"""Who is connected: the addresses of both ends, as text, and how they came here.

Invariants: `client_host` is the key of limits, trust and logs, so one client has one spelling: an IPv4 address that
arrived through a dual-stack socket is written as IPv4 (RFC 4291 2.5.5.2), and a scope ("%eth0") is cut.
"""

from __future__ import annotations

from socket import AF_INET6, inet_ntop, inet_pton  # touches no socket, and takes a tenth of what ipaddress does
from typing import Final

UNIX_HOST: Final = "unix:"
_IPV4_MAPPED: Final = b"\0\0\0\0\0\0\0\0\0\0\xff\xff"


class Peer:
    """Both ends of one accepted connection; not changed after it was made, except by the reception when it has waited.

    A plain class: a frozen dataclass costs two microseconds for each connection.
    """

    __slots__ = (
        "client_host",
        "client_port",
        "kernel_us",
        "late",
        "local_host",
        "local_port",
        "proxied",
        "server_name",
        "tls",
        "waited_us",
    )

    def __init__(
        self,
        client_host: str,
        client_port: int,
        local_host: str,
        local_port: int,
        tls: bool,
        proxied: bool,
        server_name: str,
    ) -> None:
        self.client_host: str = client_host
        """Text address, or "unix:"."""
        self.client_port: int = client_port
        """0 for unix."""
        self.local_host: str = local_host
        self.local_port: int = local_port
        self.tls: bool = tls
        self.proxied: bool = proxied
        """The addresses came from a PROXY header."""
        self.server_name: str = server_name
        """What the client asked for by SNI, in lower case; empty when it asked for nothing."""
        self.waited_us: int = 0
        """In our backlog, because the listener was full; no part of who this is, so peers are equal without it."""
        self.late: bool = False
        """It may have waited in the kernel's accept queue. Neither this nor what follows is part of who this is."""
        self.kernel_us: int = 0
        """How long its first bytes lay in the kernel, where that was asked for."""

    def named(self, server_name: str) -> Peer:
        """The same peer, which has asked for `server_name`."""
        named = Peer(
            self.client_host, self.client_port, self.local_host, self.local_port, self.tls, self.proxied, server_name
        )
        named.waited_us = self.waited_us
        return named

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Peer) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Peer{self._key()!r}"

    def _key(self) -> tuple[str, int, str, int, bool, bool, str]:
        return (
            self.client_host,
            self.client_port,
            self.local_host,
            self.local_port,
            self.tls,
            self.proxied,
            self.server_name,
        )


def client_key(host: str, ipv6_prefix: int) -> str:
    """Whose connections are counted together: those of one IPv4 address, or of one IPv6 network of this prefix length.

    A site or a host is given a whole /64 at least (RFC 6177 2, RFC 7934), so counting IPv6 addresses limits nobody.
    Tenants are named by it, too, so it is written as people write it: "2001:db8:1:2::/64".
    """
    if ":" not in host:
        return host
    try:
        packed = inet_pton(AF_INET6, host)
    except OSError:
        return host  # "unix:"
    if packed.startswith(_IPV4_MAPPED):
        return f"{packed[12]}.{packed[13]}.{packed[14]}.{packed[15]}"
    host_bits = 128 - ipv6_prefix
    network = (int.from_bytes(packed, "big") >> host_bits << host_bits).to_bytes(16, "big")
    return f"{inet_ntop(AF_INET6, network)}/{ipv6_prefix}"


def plain_host(host: str) -> str:
    """The one spelling of a text address: "::ffff:10.0.0.1" is "10.0.0.1", "fe80::1%eth0" is "fe80::1"."""
    if ":" not in host:
        return host
    if "%" in host:
        host = host[: host.index("%")]
    if host.startswith("::ffff:") and "." in host:
        return host[7:]
    return host
