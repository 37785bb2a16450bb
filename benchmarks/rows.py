"""What is measured: one `Row` for each line of the comparison, with its load, its variants and its target.

Invariants: rows are data; nothing here starts a process. A row with two variants is compared with itself (the second
variant divided by the first), every other row with the other proxies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

KIB = 1024
MIB = 1024 * KIB

REQUEST_HEADERS: tuple[tuple[str, str], ...] = (
    ("Host", "shop.example"),
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("Accept", "text/html,application/json;q=0.9,*/*;q=0.8"),
    ("Accept-Language", "en-US,en;q=0.7,de;q=0.3"),
    ("Accept-Encoding", "gzip, deflate, br"),
    ("Referer", "https://shop.example/catalogue?page=2"),
    ("Cookie", "session=5f2c8a1be07d4493; theme=dark; cart=18"),
    ("Cache-Control", "no-cache"),
    ("X-Client-Step", "18"),
)
"""The nine headers of a plain request: a browser's usual ones, and one of an application."""

ROUTE_HOSTS = 500
ROUTE_PREFIXES = ("a", "b")
SSE_EVENTS = 64
SSE_GAP_S = 0.008


def route_host(index: int) -> str:
    """Host of route number `index` of the row with a thousand routes."""
    return f"shop{index}.example"


@dataclass(frozen=True, slots=True)
class WrkLoad:
    """A closed loop of `connections`, each sending its next request when its answer is complete."""

    requests: Literal["same", "varied", "routes", "upload"]
    connections: int
    path: str = "/"
    close: bool = False
    """Ask for the connection to be closed after each answer."""


@dataclass(frozen=True, slots=True)
class StreamLoad:
    """`connections` event streams at once, paced by the upstream, a whole number of answers on each."""

    connections: int


@dataclass(frozen=True, slots=True)
class MemoryLoad:
    """`connections` that each make one request and then stay open; memory is measured instead of processor time."""

    connections: int
    idle_s: float


@dataclass(frozen=True, slots=True)
class Variant:
    """One instance of each proxy in a row."""

    name: str = ""
    routes: int = 1
    held_connections: int = 0
    """Idle connections kept open beside the load."""


@dataclass(frozen=True, slots=True)
class Target:
    """What edgeq aims at. `versus`: a proxy's name, "self" (second variant / first) or "value" (the figure itself)."""

    proxy: str
    versus: str
    limit: float


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the comparison."""

    id: str
    title: str
    load: WrkLoad | StreamLoad | MemoryLoad
    answer_bytes: int
    """Length of each answer's body."""
    targets: tuple[Target, ...]
    upstream: Literal["static", "python"] = "static"
    tls: bool = False
    streaming: bool = False
    """Answers must be passed on as they come."""
    variants: tuple[Variant, ...] = (Variant(),)
    unit: str = "us/request"
    bulk: bool = False
    """Bodies are large: proxies that have buffers to choose get larger ones."""
    also: tuple[str, ...] = ()
    """Proxies that take part in this row beyond the usual ones."""
    without: tuple[str, ...] = ()
    """Proxies that do not, unless they are named."""
    limits: bool = False
    """Everything that limits and protects is switched on, and never refuses anything."""


def _versus_nginx(limit: float) -> tuple[Target, ...]:
    return (Target("edgeq", "nginx", limit),)


ROWS: tuple[Row, ...] = (
    Row(
        "small",
        "9 request headers, 1 KiB answer, 32 connections, identical requests",
        WrkLoad("same", 32),
        KIB,
        (
            Target("edgeq", "nginx", 1.00),
            Target("edgeq", "haproxy", 1.00),
            Target("edgeq-pure", "nginx", 1.35),
        ),
        also=("edgeq-pure",),
    ),
    Row(
        "limits",
        "the first row with limits on: of rates and of requests in flight, by client address (edgeq: all that it has)",
        WrkLoad("same", 32),
        KIB,
        _versus_nginx(1.05),
        without=("envoy",),
        limits=True,
    ),
    Row(
        "small-varied",
        "the same; path, cookie and one header different in each request",
        WrkLoad("varied", 32),
        KIB,
        _versus_nginx(1.10),
    ),
    Row(
        "large-down",
        "1 MiB answers, 8 connections",
        WrkLoad("same", 8, "/large"),
        MIB,
        _versus_nginx(1.10),
        bulk=True,
        also=("nginx-defaults",),
    ),
    Row(
        "large-up",
        "1 MiB uploads with Content-Length, 8 connections",
        WrkLoad("upload", 8, "/upload"),
        2,
        _versus_nginx(1.10),
        upstream="python",
        bulk=True,
        also=("nginx-defaults",),
    ),
    Row(
        "sse",
        f"event streams: {SSE_EVENTS} chunks per answer, one each {SSE_GAP_S * 1000:g} ms, 128 connections",
        StreamLoad(128),
        0,
        _versus_nginx(1.10),
        upstream="python",
        streaming=True,
        unit="us/answer",
    ),
    Row(
        "churn",
        "a new client connection for each request, 32 at once",
        WrkLoad("same", 32, close=True),
        KIB,
        _versus_nginx(1.30),
    ),
    Row(
        "tls",
        "TLS 1.3, ECDSA P-256, keep-alive, 32 connections",
        WrkLoad("same", 32),
        KIB,
        _versus_nginx(1.40),
        tls=True,
    ),
    Row(
        "idle-memory",
        "10,000 idle keep-alive connections after one request each",
        MemoryLoad(10_000, idle_s=10),
        KIB,
        (Target("edgeq", "value", 4.0),),
        unit="KiB/connection",
    ),
    Row(
        "routes-1000",
        "1,000 routes (500 hosts x 2 prefixes) instead of one, the same requests spread over all, 32 connections",
        WrkLoad("routes", 32),
        KIB,
        (Target("edgeq", "self", 1.05),),
        variants=(Variant("1 route"), Variant("1000 routes", routes=ROUTE_HOSTS * len(ROUTE_PREFIXES))),
    ),
    Row(
        "open-10k",
        "100 busy connections beside 9,900 idle ones instead of alone",
        WrkLoad("same", 100),
        KIB,
        (Target("edgeq", "self", 1.10),),
        variants=(Variant("100 open"), Variant("10000 open", held_connections=9_900)),
    ),
)
