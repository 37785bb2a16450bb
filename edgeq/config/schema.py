"""What `edgeq.toml` may say: one frozen struct for each table, each key with a safe default.

Units: a `Duration` is seconds (written "250ms", "30s", "5m", "1h" or a number of seconds), a `Size` is bytes (written
"64KiB", "1MiB", "1GiB", "10kB" or a number of bytes). Zero means "no limit" where a key says so.
Paths of certificates are kept as written; `load.py` checks that they can be read.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Duration(float):
    """Seconds. A class of its own so that the loader knows where units are allowed."""

    __slots__ = ()


class Size(int):
    """Bytes. A class of its own so that the loader knows where units are allowed."""

    __slots__ = ()


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration file."""


class Server(Table, frozen=True):
    """[server]: the processes."""

    workers: int = 0
    """Worker processes; 0 means one per usable core."""
    admin: str = ""
    """Path of the admin socket; empty means none."""
    drain_timeout: Duration = Duration(30)
    """How long a stopping worker, or a listener that a reload has removed, may finish what runs."""
    drain_idle: Duration = Duration(1)
    """While draining, how long a kept connection must have been silent before it is closed."""
    user: str = ""
    """Drop to this user after the sockets are bound (only when started as root)."""


class Certificate(Table, frozen=True):
    """One certificate of a TLS listener; the names it serves come from the certificate itself."""

    certificate: str
    key: str = ""
    """Private key file; empty means the key is in the certificate file."""


class ListenerTls(Table, frozen=True):
    """[listener.tls]: the first certificate also answers clients that send no server name."""

    certificates: tuple[Certificate, ...]
    min_version: Literal["1.2", "1.3"] = "1.2"
    client_ca: str = ""
    """Ask for client certificates signed by this CA, and refuse clients without one."""


class ListenerTimeouts(Table, frozen=True):
    """[listener.timeouts]: how long a client may take. 0 switches one off, except head and half_close."""

    proxy_header: Duration = Duration(5)
    handshake: Duration = Duration(10)
    """TLS handshake."""
    head: Duration = Duration(10)
    """From the first byte of a request head (or from accept) to its end."""
    body: Duration = Duration(30)
    """Between two reads of a request body."""
    write: Duration = Duration(60)
    """Between two moments of progress while a client reads its answer."""
    keepalive: Duration = Duration(75)
    """Between an answer and the next request."""
    half_close: Duration = Duration(1)
    """After a client's FIN, how long its answer may still take to begin before the request is cancelled; 0: none."""


class ListenerLimits(Table, frozen=True):
    """[listener.limits]: what a client may send."""

    request_line: Size = Size(8 * 1024)
    header_bytes: Size = Size(32 * 1024)
    """All field lines of one head together."""
    header_count: int = 100
    body_bytes: Size = Size(1024**3)
    """0: no limit."""
    trailer_bytes: Size = Size(8 * 1024)


class AcceptQueue(Table, frozen=True):
    """[listener.queue]: accepted connections that wait because `max_connections` is reached."""

    max: int = 1024
    """Per worker."""
    timeout: Duration = Duration(1)


class Listener(Table, frozen=True):
    """[[listener]]: one bound address."""

    address: str
    """"0.0.0.0:8080", "[::]:8080" or "unix:/run/edgeq/http.sock"."""
    name: str = ""
    """Empty: the address."""
    backlog: int = 4096
    """For listen(2): the kernel's accept queue, per worker."""
    max_connections: int = 20_000
    """Open connections, machine-wide. 0: no limit."""
    max_connections_per_client: int = 0
    """Open connections of one client, machine-wide. 0: no limit."""
    ipv6_client_prefix: int = 64
    """So many equal bits make two IPv6 addresses one client; an IPv4 address, mapped or not, is a client of its own."""
    max_requests: int = 0
    """Requests on one connection before it is closed. 0: no limit."""
    accept_budget: int = 64
    """Connections accepted in one turn of the loop."""
    accept_budget_lagging: int = 8
    """The same while the loop lags."""
    proxy_protocol: bool = False
    """Expect a PROXY header (v1 or v2) on each connection from `proxy_protocol_from`."""
    proxy_protocol_from: tuple[str, ...] = ()
    """Addresses (CIDR) that must send the PROXY header; others are plain clients."""
    trusted: tuple[str, ...] = ()
    """Addresses (CIDR) whose X-Forwarded-*, Forwarded are believed."""
    send_buffer: Size = Size(128 * 1024)
    """Unsent bytes that the kernel holds per client (TCP_NOTSENT_LOWAT)."""
    receive_buffer: Size = Size(1024 * 1024)
    """Bytes of a request that wait in the kernel, per client, while the upstream is slow."""
    tls: ListenerTls | None = None
    timeouts: ListenerTimeouts = ListenerTimeouts()
    limits: ListenerLimits = ListenerLimits()
    queue: AcceptQueue = AcceptQueue()


class UpstreamTimeouts(Table, frozen=True):
    """[upstream.NAME.timeouts]: how long an upstream may take. 0 switches one off, except connect."""

    connect: Duration = Duration(2)
    """TCP and TLS together."""
    first_byte: Duration = Duration(60)
    """From the end of the request to the first byte of the answer."""
    body: Duration = Duration(60)
    """Between two reads of an answer's body."""
    tunnel: Duration = Duration(3600)
    """Silence in both directions of an upgraded connection."""


class UpstreamPool(Table, frozen=True):
    """[upstream.NAME.pool]: connections to each endpoint, machine-wide; a worker takes its share, rounded up."""

    max_connections: int = 1024
    max_idle: int = 256
    max_connecting: int = 64
    """Connections being opened at once."""
    idle_timeout: Duration = Duration(55)
    """Shorter than the upstream's own keep-alive time-out."""
    max_lifetime: Duration = Duration(3600)
    """0: no limit."""
    queue: int = 1024
    """Requests that wait for a connection, per endpoint; more are refused with queue_full."""
    queue_timeout: Duration = Duration(1)


class UpstreamTls(Table, frozen=True):
    """[upstream.NAME.tls]: for https endpoints."""

    ca: str = ""
    """File of trusted CAs; empty: the system's."""
    verify: bool = True
    server_name: str = ""
    """SNI and the name that is verified; empty: the endpoint's host."""
    certificate: str = ""
    """Client certificate."""
    key: str = ""


class Upstream(Table, frozen=True):
    """[upstream.NAME]: a named service."""

    endpoints: tuple[str, ...]
    """"http://HOST:PORT", "https://HOST:PORT", "unix:/PATH", "http+srv://NAME", "https+srv://NAME"."""
    balance: Literal["round-robin"] = "round-robin"
    host: str = "preserve"
    """Host header to the upstream: "preserve" (the client's), "upstream" (the endpoint's), or a literal name."""
    receive_buffer: Size = Size(1024 * 1024)
    """Bytes of an answer that wait in the kernel, per connection, while its client is slow. Answers larger than this
    cost more: a sender that waits for room is woken by our acknowledgements, on our processor time."""
    timeouts: UpstreamTimeouts = UpstreamTimeouts()
    pool: UpstreamPool = UpstreamPool()
    tls: UpstreamTls = UpstreamTls()


class Match(Table, frozen=True):
    """[route.match]: host and path."""

    host: str = "*"
    """"shop.example", "*.example" or "*"."""
    path: str = "/*"
    """"/exact", "/prefix/*", or a pattern in which a "*" segment stands for one segment ("/users/*/posts/*")."""


class Route(Table, frozen=True):
    """[[route]]: the most specific match wins, then the order in the file."""

    name: str
    upstream: str
    match: Match = Match()
    rewrite: str = ""
    """Replaces the part of the path before the final "*" (the whole path of an exact match); empty: no rewriting."""
    timeout: Duration = Duration(0)
    """Whole request, all attempts. 0: no limit."""
    body_bytes: Size = Size(-1)
    """Overrides the listener's limit; -1: does not."""
    ambiguous_paths: Literal["reject", "pass"] = "reject"
    """Paths that some servers would read as another route's ("/a/..;/b", "/a/..%2fb"); pass: not the upstream here."""


class Forward(Table, frozen=True):
    """[forward]: what edgeq adds to forwarded messages."""

    client: Literal["x-forwarded", "forwarded", "off"] = "x-forwarded"
    via: bool = True
    node: str = ""
    """Pseudonym of this gateway in Via and Proxy-Status; empty: the host name."""
    trace: Literal["begin", "pass", "off"] = "begin"
    """traceparent: begin one if there is none, only pass it on, or remove it."""


class AccessLog(Table, frozen=True):
    """[access_log]."""

    target: str = "stdout"
    """"stdout", "off" or a file's path (opened again on SIGUSR1)."""
    format: Literal["json", "combined"] = "json"


class EventLog(Table, frozen=True):
    """[log]: events of edgeq itself, to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"
    """auto: console on a terminal, JSON elsewhere."""


class Dns(Table, frozen=True):
    """[dns]: how names of endpoints are resolved."""

    nameservers: tuple[str, ...] = ()
    """"ADDRESS" or "ADDRESS:PORT"; empty: the system's."""
    timeout: Duration = Duration(2)
    min_ttl: Duration = Duration(1)
    max_ttl: Duration = Duration(300)
    retry: Duration = Duration(5)
    """After a failed lookup; the last good addresses are kept."""


class Config(Table, frozen=True):
    """The whole file."""

    listener: tuple[Listener, ...]
    upstream: dict[str, Upstream]
    route: tuple[Route, ...] = ()
    """Empty with a single upstream: everything goes there."""
    server: Server = Server()
    forward: Forward = Forward()
    access_log: AccessLog = AccessLog()
    log: EventLog = EventLog()
    dns: Dns = Dns()
