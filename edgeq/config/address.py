"""The forms of addresses: where to listen, which hosts and paths to match. (Endpoints: `upstream/endpoint.py`.)

Pure parsing: no name is resolved here. Every function raises ValueError with a sentence for people.
Sources: RFC 3986 3.2 (authority), RFC 6874 (zones), RFC 1035 2.3.4 (lengths of names), unix(7) (108 bytes with NUL).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Final, Literal

from edgeq.route.path import plain

MAX_UNIX_PATH_BYTES: Final = 107

_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)
_PORT: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
_PATH: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*", re.ASCII)


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where a listener is bound. `host` is a numeric address without brackets; `path` only for unix."""

    family: Literal["ipv4", "ipv6", "unix"]
    host: str
    port: int
    path: str

    def text(self) -> str:
        """As `parse_listen` reads it."""
        if self.family == "unix":
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if self.family == "ipv6" else f"{self.host}:{self.port}"


def parse_listen(text: str) -> ListenAddress:
    """ "0.0.0.0:8080", "[::]:8080" or "unix:/run/edgeq/http.sock". Port 0 lets the kernel choose."""
    if text.startswith("unix:"):
        return ListenAddress("unix", "", 0, _unix_path(text))
    host, port_text = _split_port(text)
    if not port_text:
        example = f"0.0.0.0:{host}" if host.isdigit() else f"{host or '0.0.0.0'}:8080"
        raise ValueError(f'no port: write ADDRESS:PORT, such as "{example}"')
    port = _port(port_text)
    if not host:
        raise ValueError(f'no address: write "0.0.0.0:{port}" (IPv4) or "[::]:{port}" (IPv6)')
    if host.startswith("["):
        return ListenAddress("ipv6", str(_ipv6(host)), port, "")
    try:
        return ListenAddress("ipv4", str(IPv4Address(host)), port, "")
    except ValueError:
        raise ValueError(f'"{host}" is no IP address: a listener is bound to an address, not to a name') from None


def check_unix_path(path: str) -> None:
    """The kernel's limit for the path of a Unix socket."""
    if len(path.encode()) > MAX_UNIX_PATH_BYTES:
        raise ValueError(f"the path of a Unix socket may have {MAX_UNIX_PATH_BYTES} bytes at most")


def check_network(text: str) -> None:
    """An address or a network: "10.0.0.0/8", "::1"."""
    try:
        ip_network(text)
    except ValueError:
        try:
            meant = ip_network(text, strict=False)
        except ValueError:
            raise ValueError(f'"{text}" is no address or network such as "10.0.0.0/8"') from None
        raise ValueError(f'"{text}" has bits set right of its mask (did you mean {meant}?)') from None


def check_match_host(text: str) -> None:
    """ "*", "shop.example", "*.example" or a numeric address; never a port."""
    if text == "*":
        return
    host, port_text = _split_port(text)
    if port_text:
        raise ValueError("hosts are matched without their port")
    if host.startswith("*."):
        _name(host[2:])
    elif "*" in host:
        raise ValueError('"*" stands for whole labels at the left only: "*.example"')
    else:
        _host(host)


def check_host_header(text: str) -> None:
    """ "preserve", "upstream", or a literal "NAME" or "NAME:PORT"."""
    host, port_text = _split_port(text)
    _host(host)
    if port_text:
        _port(port_text)


def check_match_path(text: str) -> None:
    """ "/exact", "/prefix/*" or a pattern with "*" segments; as it stands on the wire, percent-encoded."""
    check_path(text)
    normal = plain(text.encode()).decode()
    if normal != text:
        raise ValueError(f'paths are compared in their normal form: write "{normal}"')
    if "%2a" in text.lower():
        raise ValueError('"%2A" cannot be matched: "*" stands for any segment')
    for segment in text.split("/"):
        if "*" in segment and segment != "*":
            raise ValueError(f'"*" stands for a whole segment: "{segment}" mixes it with text')


def check_path(text: str) -> None:
    """An absolute path as it stands on the wire, without query."""
    if not text.startswith("/"):
        raise ValueError('a path begins with "/"')
    if "?" in text or "#" in text:
        raise ValueError("only the path is meant here, without a query or a fragment")
    if not _PATH.fullmatch(text):
        raise ValueError('holds a character that a path must write percent-encoded ("%20" for a blank)')


@dataclass(frozen=True, slots=True)
class Collector:
    """Where spans are sent to by OTLP over HTTP: `host` without brackets, `path` that of the signal."""

    tls: bool
    host: str
    port: int
    path: str


def parse_collector(text: str) -> Collector:
    """ "http://127.0.0.1:4318" or "https://collector.example/base": as OTEL_EXPORTER_OTLP_ENDPOINT elsewhere."""
    scheme, mark, rest = text.partition("://")
    if not mark or scheme not in ("http", "https"):
        raise ValueError('a collector is written "http://HOST:PORT" or "https://HOST"')
    authority, slash, path = rest.partition("/")
    if "@" in authority:
        raise ValueError("no user and password here: they belong into trace.headers, as an authorization")
    host, port_text = _split_port(authority)
    check_path(slash + path or "/")
    tls = scheme == "https"
    port = _port(port_text) if port_text else 443 if tls else 80
    base = path.strip("/")
    return Collector(tls, _host(host), port, f"/{base}/v1/traces" if base else "/v1/traces")


def _unix_path(text: str) -> str:
    path = text.removeprefix("unix:")
    if not path.startswith("/") or path.startswith("//"):
        raise ValueError('a Unix socket has an absolute path: "unix:/run/edgeq/http.sock"')
    check_unix_path(path)
    return path


def _split_port(text: str) -> tuple[str, str]:
    """("[::1]", "80") of "[::1]:80"; the brackets stay. The port is empty if there is none."""
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f'"{text}" is no "[IPV6]:PORT"')
        return host + bracket, rest[1:]
    if text.count(":") > 1:
        raise ValueError(f'write an IPv6 address in brackets: "[{text}]"')
    host, _, port = text.partition(":")
    return host, port


def _port(text: str) -> int:
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise ValueError(f'"{text}" is no port (0 to 65535)')
    return int(text)


def _ipv6(bracketed: str) -> IPv6Address:
    try:
        return IPv6Address(bracketed[1:-1])
    except ValueError:
        raise ValueError(f'"{bracketed}" is no IPv6 address') from None


def _host(text: str) -> str:
    """A name or a numeric address, without brackets."""
    if text.startswith("["):
        return str(_ipv6(text))
    if text.replace(".", "").isdigit():
        try:
            return str(IPv4Address(text))
        except ValueError:
            raise ValueError(f'"{text}" is no IPv4 address') from None
    return _name(text)


def _name(text: str) -> str:
    """A DNS name; underscores are allowed, because SRV names and many inner networks have them."""
    name = text.removesuffix(".")
    if not name:
        raise ValueError("no host")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise ValueError(f'"{text}" is no host name')
    return name.lower()
