"""Who is connected: the addresses of both ends, as text, and how they came here.

Invariants: `client_host` is the key of limits, trust and logs, so one client has one spelling: an IPv4 address that
arrived through a dual-stack socket is written as IPv4 (RFC 4291 2.5.5.2), and a scope ("%eth0") is cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

UNIX_HOST: Final = "unix:"


@dataclass(frozen=True, slots=True)
class Peer:
    """Both ends of one accepted connection."""

    client_host: str
    """Text address, or "unix:"."""
    client_port: int
    """0 for unix."""
    local_host: str
    local_port: int
    tls: bool
    proxied: bool
    """The addresses came from a PROXY header."""
    server_name: str
    """What the client asked for by SNI, in lower case; empty when it asked for nothing."""


def plain_host(host: str) -> str:
    """The one spelling of a text address: "::ffff:10.0.0.1" is "10.0.0.1", "fe80::1%eth0" is "fe80::1"."""
    if ":" not in host:
        return host
    if "%" in host:
        host = host[: host.index("%")]
    if host.startswith("::ffff:") and "." in host:
        return host[7:]
    return host
