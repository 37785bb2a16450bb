"""What an upstream's `endpoints` mean: a URL becomes an `EndpointSpec`, and a spec stands for addresses to dial.

Decides which spellings are accepted, and what is wrong with the others. Nothing here looks anything up.

- ``http://HOST[:PORT]``, ``https://HOST[:PORT]``: HOST is a name, an IPv4 address, or an IPv6 address in brackets
- ``http+srv://NAME``, ``https+srv://NAME``: NAME owns SRV records, which bring the ports
- ``unix:/PATH``: plain HTTP on a Unix socket

Sources: RFC 3986 3.2 (authority), RFC 6874 (IPv6 zones), RFC 1035 2.3.4 (length of names), RFC 2782 (SRV), RFC 9525
6.1 (a service is verified by the name that was configured, not by the target that DNS answered), unix(7) (a path has
108 bytes with its end).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import Final, Literal

Scheme = Literal["http", "https", "unix"]
Family = Literal["inet", "inet6", "unix"]

MAX_NAME: Final = 253
MAX_UNIX_PATH_BYTES: Final = 107
DNS_PORT: Final = 53

# Underscores are no host name's (RFC 952), but SRV owners begin with them and container names are full of them.
_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_SCHEMES: Final[dict[str, tuple[Scheme, bool, int]]] = {
    "http": ("http", False, 80),
    "https": ("https", False, 443),
    "http+srv": ("http", True, 0),
    "https+srv": ("https", True, 0),
}


@dataclass(frozen=True, slots=True)
class Address:
    """One address that can be dialed.

    `host` is numeric, or the path of a Unix socket (then `port` is 0). `name` is the configured name without brackets
    and final dot, for Host and SNI. `priority` (low is better) and `weight` are those of SRV; elsewhere 0 and 1.
    """

    family: Family
    host: str
    port: int
    name: str
    weight: int = 1
    priority: int = 0

    def __str__(self) -> str:
        return authority(self.family, self.host, self.port)


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """One endpoint as configured. `host` is a name in lower case, a numeric address, or the path of a Unix socket."""

    scheme: Scheme
    host: str
    port: int
    srv: bool = False

    @property
    def tls(self) -> bool:
        return self.scheme == "https"

    @property
    def name(self) -> str:
        """What Host and SNI say: the host, the domain that an SRV owner describes, or localhost for a Unix socket."""
        if self.scheme == "unix":
            return "localhost"
        host = self.host.rstrip(".").partition("%")[0]  # a zone means nothing beyond this machine (RFC 6874 1)
        if self.srv:
            # _http._tcp.api.example -> api.example: the name that a certificate can carry.
            labels = host.split(".")
            while len(labels) > 1 and labels[0].startswith("_"):
                labels.pop(0)
            host = ".".join(labels)
        return host

    def literal(self) -> Address | None:
        """The address, when no lookup is needed to know it."""
        if self.scheme == "unix":
            return Address("unix", self.host, 0, self.name)
        family = numeric_family(self.host)
        return None if self.srv or family is None else Address(family, self.host, self.port, self.name)

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix:{self.host}"
        if self.srv:
            return f"{self.scheme}+srv://{self.host}"
        return f"{self.scheme}://{authority(numeric_family(self.host) or 'inet', self.host, self.port)}"


def authority(family: Family, host: str, port: int) -> str:
    """How logs and labels write an address: 10.0.0.1:80, [::1]:80, unix:/path."""
    if family == "unix":
        return f"unix:{host}"
    return f"[{host}]:{port}" if family == "inet6" else f"{host}:{port}"


def numeric_family(host: str) -> Literal["inet", "inet6"] | None:
    """The family of a numeric address (without brackets), None for a name."""
    try:
        return "inet" if ip_address(host).version == 4 else "inet6"
    except ValueError:
        return None


def sort_addresses(addresses: list[Address]) -> tuple[Address, ...]:
    """One order for one set, whatever order DNS answered in: by priority, family, number, port.

    An address that comes twice (two SRV records, one machine) is kept once, with its best priority and weight.
    """
    best: dict[tuple[Family, str, int], Address] = {}
    for address in addresses:
        key = (address.family, address.host, address.port)
        known = best.get(key)
        if known is None or (address.priority, -address.weight) < (known.priority, -known.weight):
            best[key] = address
    return tuple(sorted(best.values(), key=_order))


def _order(address: Address) -> tuple[int, str, bytes, str, int]:
    number = b"" if address.family == "unix" else ip_address(address.host).packed
    return address.priority, address.family, number, address.host, address.port


def parse_endpoint(url: str) -> EndpointSpec:
    """Read one endpoint. Raises: ValueError, whose text names the URL and what is wrong with it."""
    try:
        return _parse_endpoint(url)
    except ValueError as error:
        raise ValueError(f"endpoint {_shown(url)!r}: {error}") from None


def endpoint_label(url: str) -> str:
    """How an endpoint is shown that no name was looked up for: by its address, or by its URL if that has a name."""
    spec = parse_endpoint(url)
    literal = spec.literal()
    return str(spec) if literal is None else authority(literal.family, literal.host, literal.port)


def parse_nameserver(text: str) -> str:
    """Read ADDRESS or ADDRESS:PORT (IPv6 with a port in brackets); returns ADDRESS:PORT, as c-ares takes it."""
    try:
        if numeric_family(text) == "inet6":
            host, port = text, DNS_PORT
        else:
            host, digits = _split_port(text)
            port = _parse_port(digits) if digits is not None else DNS_PORT
            host = _parse_host(host)
        family = numeric_family(host)
        if family is None:
            raise ValueError("a nameserver is an address, not a name")
    except ValueError as error:
        raise ValueError(f"nameserver {text!r}: {error}") from None
    return authority(family, host, port)


def _parse_endpoint(url: str) -> EndpointSpec:
    if any(ord(char) <= 0x20 or ord(char) == 0x7F for char in url):
        raise ValueError("contains a space or a control character")
    head, colon, rest = url.partition(":")
    scheme_text = head.lower()
    if colon and scheme_text == "unix":
        return EndpointSpec("unix", _parse_unix_path(rest), 0)
    row = _SCHEMES.get(scheme_text) if rest.startswith("//") else None
    if row is None:
        raise ValueError("must begin with http://, https://, http+srv://, https+srv:// or unix:/")
    scheme, srv, port = row
    text = rest[2:]
    for mark, part in (("#", "a fragment"), ("?", "a query")):
        if mark in text:
            raise ValueError(f"must not have {part}")
    text, _, path = text.partition("/")
    if path:
        raise ValueError("must not have a path; a route's rewrite changes paths")
    if "@" in text:
        raise ValueError("must not have a user name or password")
    host, digits = _split_port(text)
    if not host:
        raise ValueError("has no host")
    host = _parse_host(host)
    if srv and digits is not None:
        raise ValueError("must not have a port: SRV records bring it")
    if srv and numeric_family(host) is not None:
        raise ValueError("needs a name that has SRV records, not an address")
    if digits is not None:
        port = _parse_port(digits)
    return EndpointSpec(scheme, host, port, srv)


def _parse_unix_path(rest: str) -> str:
    path = rest[2:] if rest.startswith("///") else rest
    if not path.startswith("/") or path.startswith("//"):
        raise ValueError("needs an absolute path: unix:/run/name.sock")
    if path.endswith("/"):
        raise ValueError("names a directory, not a socket")
    if len(path.encode()) > MAX_UNIX_PATH_BYTES:
        raise ValueError(f"the path of a Unix socket has at most {MAX_UNIX_PATH_BYTES} bytes")
    return path


def _split_port(text: str) -> tuple[str, str | None]:
    """HOST or HOST:PORT; the brackets of an IPv6 address stay with the host."""
    if text.startswith("["):
        inside, bracket, after = text.partition("]")
        if not bracket:
            raise ValueError("'[' is not closed")
        if after and not after.startswith(":"):
            raise ValueError("only :PORT may follow ']'")
        return inside + bracket, after[1:] if after else None
    host, colon, digits = text.partition(":")
    if ":" in digits:
        raise ValueError("an IPv6 address needs brackets: [::1]")
    return host, digits if colon else None


def _parse_port(digits: str) -> int:
    if _PORT.fullmatch(digits) is None or not 0 < int(digits) < 65536:
        raise ValueError(f"port {digits!r} is not a number between 1 and 65535")
    return int(digits)


def _parse_host(host: str) -> str:
    if host.startswith("["):
        try:
            return str(IPv6Address(host[1:-1].replace("%25", "%")))
        except AddressValueError:
            raise ValueError(f"{host!r} is not an IPv6 address") from None
    name = host.removesuffix(".")
    if not name.isascii():
        raise ValueError("write an international name in its xn-- form")
    if len(name) > MAX_NAME or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise ValueError(f"{host!r} is not a host name")
    # A last label of digits makes it an address (RFC 3986 3.2.2 leaves 1.2.3 open; some resolvers read 1.2.0.3).
    if name.rpartition(".")[2].isdigit():
        try:
            return str(IPv4Address(name))
        except AddressValueError:
            raise ValueError(f"{host!r} is not an IPv4 address") from None
    return host.lower()


def _shown(url: str) -> str:
    """The URL without what may be a password, or a key in its query."""
    before, at, after = url.rpartition("@")
    scheme, slashes, _ = before.partition("//")
    where, mark, _ = (f"{scheme}{slashes}...@{after}" if at and slashes else url).partition("?")
    return f"{where}?..." if mark else where
