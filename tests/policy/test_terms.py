"""The terms of a request, in a worker without sockets: tenant, class, deadline, rates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from edgeq.config.units import parse_rate
from edgeq.policy.deadline import DeadlineHeader
from edgeq.policy.headers import TRACE_OFF, X_FORWARDED, ForwardPolicy
from edgeq.policy.rate import (
    BY_CLIENT,
    BY_ROUTE,
    BY_TENANT,
    BY_UPSTREAM,
    HEADERS_IETF,
    LocalArrivals,
    Rate,
    RateSet,
    Window,
)
from edgeq.policy.tenant import TenantKey
from edgeq.policy.terms import CRITICAL, DEFAULT, SHEDDABLE, Terms
from tests.support.fake_transport import FakeTransport, World, frozen_time

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TRUSTED = {"trusted": ("192.0.2.0/24",)}


@pytest.fixture(autouse=True)
def _time_stands_still() -> Iterator[None]:
    with frozen_time():
        yield


def get(*lines: bytes) -> bytes:
    """A request with these field lines."""
    return b"\r\n".join((b"GET /a HTTP/1.1", b"Host: a", *lines, b"", b""))


def world(limit: str = "", by: int = BY_CLIENT, key: str = "", priority: int = DEFAULT, **more: Any) -> World:
    """A worker whose only route has these terms."""
    made = World(**more)
    rates = None
    if limit:
        window = Window("r", *parse_rate(limit))
        rates = RateSet([Rate("r", by, [window], True, HEADERS_IETF)], 1, LocalArrivals())
    route = made.shard.routes.routes[0]
    route.terms = Terms("r", "up", TenantKey(key) if key else None, priority, rates)
    return made


def ask(made: World, client: FakeTransport, request: bytes) -> bytes:
    """Send a request on a connection; the upstream answers if it gets it. Returns what the client gets."""
    dials = len(made.dials)
    client.data(request)
    made.loop.run()
    if len(made.dials) > dials:
        made.dial_ok()
    for server in made.servers:
        if server.protocol.exchange is not None:
            server.data(OK)
    made.loop.run()
    return client.take()


def test_a_rate_refuses_with_all_that_a_client_needs() -> None:
    """429 with its exact wait and its policy, on a connection that is kept; then it is admitted again."""
    made = world("2/s burst 2")
    client = made.connect()
    first = ask(made, client, get())
    assert b'\r\nratelimit-policy: "r";q=2;w=1\r\nratelimit: "r";r=1;t=1\r\n' in first
    assert first.startswith(b"HTTP/1.1 200")
    assert ask(made, client, get()).startswith(b"HTTP/1.1 200")
    refused = ask(made, client, get())
    head, _, body = refused.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert b"\r\nretry-after: 1\r\n" in head
    assert b'\r\nratelimit: "r";r=0;t=1\r\n' in head
    assert b"\r\nconnection: keep-alive" in head
    problem = json.loads(body)
    assert (problem["reason"], problem["resource"], problem["retry_after_ms"]) == ("rate_limited", "rate/r", 500)
    assert problem["violated-policies"] == ["r"]
    made.advance(0.5)
    assert ask(made, client, get()).startswith(b"HTTP/1.1 200")
    assert [entry.reason for entry in made.log] == ["", "", "rate_limited", ""]
    made.check_settled()


def test_a_refused_body() -> None:
    """A body that has come with its head does not cost the connection; one that is still to come does."""
    made = world("1/s")
    post = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"
    client = made.connect()
    assert ask(made, client, get()).startswith(b"HTTP/1.1 200")
    assert b"connection: keep-alive" in ask(made, client, post + b"abc")
    assert b"connection: close" in ask(made, client, post + b"a")
    assert made.shard.in_flight == 0


@pytest.mark.parametrize(
    ("by", "key", "same", "other"),
    [
        (BY_TENANT, "header:x-team", b"X-Team: red", b"X-Team: blue"),
        (BY_TENANT, "key", b"Authorization: Bearer a", b"Authorization: Bearer b"),
        (BY_TENANT, "route", b"X-Team: red", b""),
        (BY_TENANT, "client-address", b"X-Team: red", b""),
        (BY_CLIENT, "", b"X-Team: red", b""),
        (BY_ROUTE, "", b"X-Team: red", b""),
        (BY_UPSTREAM, "", b"X-Team: red", b""),
    ],
)
def test_who_is_counted(by: int, key: str, same: bytes, other: bytes) -> None:
    """One quota for each subject, on any connection; another subject has its own. Only who has passed his own is told
    so: the rate of a route or an upstream is shared capacity."""
    made = world("1/h", by, key)
    refused = b"HTTP/1.1 429" if by in (BY_CLIENT, BY_TENANT) else b"HTTP/1.1 503"
    assert ask(made, made.connect(), get(same)).startswith(b"HTTP/1.1 200")
    assert ask(made, made.connect(), get(same)).startswith(refused)
    if other:
        assert ask(made, made.connect(), get(other)).startswith(b"HTTP/1.1 200")
    else:
        assert ask(made, made.connect(), get(b"X-Team: blue")).startswith(refused)


@pytest.mark.parametrize(
    ("lines", "counted"),
    [
        ((), b"192.0.2.7"),
        ((b"X-Forwarded-For: 6.6.6.6, 203.0.113.9, 192.0.2.8",), b"203.0.113.9"),
        ((b"X-Forwarded-For: 192.0.2.9, 192.0.2.8",), b"192.0.2.9"),
        ((b"X-Forwarded-For: [2001:db8:1:2::1]:8080",), b"2001:db8:1:2::/64"),
        ((b"X-Forwarded-For: 203.0.113.9:4711",), b"203.0.113.9"),
        ((b"Forwarded: for=6.6.6.6, for=203.0.113.9;proto=http",), b"203.0.113.9"),
        ((b'Forwarded: for="[2001:db8:1:2::1]:80"',), b"2001:db8:1:2::/64"),
        ((b"X-Forwarded-For: 203.0.113.9,",), b"192.0.2.7"),
    ],
)
def test_a_client_behind_trusted_peers(lines: tuple[bytes, ...], counted: bytes) -> None:
    """The last address that is not a trusted peer's own; a client's own claims stand before it."""
    made = world(key="client-address", listener=TRUSTED)
    ask(made, made.connect(), get(*lines))
    assert made.log[0].tenant == counted.lstrip(b"0")


def test_who_is_not_trusted_is_who_it_is() -> None:
    """Claims of an unknown peer change nothing."""
    made = world(key="client-address")
    ask(made, made.connect(), get(b"X-Forwarded-For: 203.0.113.9"))
    assert made.log[0].tenant == b"192.0.2.7"


def forward() -> ForwardPolicy:
    """With headers for deadline and class."""
    return ForwardPolicy(X_FORWARDED, False, b"gw", TRACE_OFF, DeadlineHeader(b"x-left-ms"), b"x-class")


def sent(made: World, request: bytes) -> list[bytes]:
    """The lines that the upstream gets."""
    _, server = made.request(request)
    lines = server.take().partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
    return [line for line in lines if line.startswith((b"x-left", b"x-class"))]


def test_a_deadline_is_carried_and_passed_on() -> None:
    """The upstream is told what is left when it gets the request: the time of the wait is gone."""
    made = world(listener=TRUSTED, forward=forward())
    client = made.connect()
    client.data(get(b"X-Left-Ms: 900"))
    made.advance(0.2)
    server = made.dial_ok()
    assert b"\r\nx-left-ms: 700\r\n" in server.take().lower()
    made.advance(0.5)
    assert not client.take()
    made.advance(0.3)
    assert client.take().startswith(b"HTTP/1.1 504")
    assert (made.log[0].reason, made.log[0].resource) == ("deadline_expired", "route/r")
    assert server.closing
    made.check_settled()


def test_a_deadline_shortens_the_routes_timeout_only() -> None:
    """What a peer allows beyond the route's own time-out does not count."""
    made = world(listener=TRUSTED, forward=forward(), route_timeout_s=0.5)
    assert sent(made, get(b"X-Left-Ms: 9000")) == [b"x-left-ms: 500"]
    assert sent(made, get(b"X-Left-Ms: 100")) == [b"x-left-ms: 100"]
    assert sent(made, get(b"X-Left-Ms: soon")) == [b"x-left-ms: 500"]


def test_a_deadline_that_has_passed_already() -> None:
    """It is refused at once, and no upstream is asked."""
    made = world(listener=TRUSTED, forward=forward())
    assert ask(made, made.connect(), get(b"X-Left-Ms: 0")).startswith(b"HTTP/1.1 504")
    assert not made.servers
    assert made.log[0].reason == "deadline_expired"


def test_strangers_set_neither_deadline_nor_class() -> None:
    """Their headers are not believed, and do not reach the upstream as if they were ours."""
    made = world(forward=forward(), priority=SHEDDABLE)
    assert sent(made, get(b"X-Left-Ms: 100", b"X-Class: critical")) == []
    exchange = made.servers[0].protocol.exchange
    assert exchange.deadline_at > 1e17
    assert exchange.priority == SHEDDABLE


def test_a_trusted_peer_chooses_a_class() -> None:
    """One of the three; anything else is the route's own."""
    made = world(listener=TRUSTED, forward=forward(), priority=SHEDDABLE)
    assert sent(made, get(b"X-Class: Critical")) == [b"x-class: critical"]
    assert made.servers[0].protocol.exchange.priority == CRITICAL
    ask(made, made.connect(), get(b"X-Class: king"))
    assert made.log[-1].priority == SHEDDABLE
