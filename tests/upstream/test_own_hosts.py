"""`host = "upstream"` with endpoints of different names: each is asked by its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop

from edgeq.config.schema import Dns
from edgeq.config.schema import Upstream as UpstreamConfig
from edgeq.policy.headers import TRACE_BEGIN, TRACE_OFF, X_FORWARDED, ForwardPolicy
from edgeq.upstream.resolve_io import Resolver
from edgeq.upstream.service_io import UpstreamService
from edgeq.worker.wheel import Wheel
from tests.support.fake_transport import FakeTransport, World, frozen_time


@pytest.fixture(autouse=True)
def _time_stands_still() -> Iterator[None]:
    with frozen_time():
        yield


GET = b"GET /old/a HTTP/1.1\r\nHost: client.example\r\n\r\n"
POST = b"POST /old/a HTTP/1.1\r\nHost: client.example\r\nContent-Length: 2\r\n\r\nab"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def world(trace: int = TRACE_OFF) -> World:
    """Two endpoints, a.example and b.example."""
    made = World(endpoints=2, path=b"/old/*", rewrite=b"/new/", forward=ForwardPolicy(X_FORWARDED, True, b"gw", trace))
    made.upstream.hosts_differ = True
    for pool, host in zip(made.upstream.pools, (b"a.example", b"b.example:81"), strict=True):
        pool.host = host
    return made


def asked(server: FakeTransport) -> tuple[bytes, bytes]:
    """Request line and Host of what an upstream got."""
    lines = server.take().split(b"\r\n")
    assert [line for line in lines if line.lower().startswith(b"host:")] == [lines[1]]
    return lines[0], lines[1]


@pytest.mark.parametrize("trace", [TRACE_OFF, TRACE_BEGIN])
@pytest.mark.parametrize("request_bytes", [GET, POST])
def test_each_endpoint_has_its_own(request_bytes: bytes, trace: int) -> None:
    """Also for a head that is repeated on one connection, and all else of the head is as always."""
    there = world(trace)
    client = there.connect()
    for _ in range(2):
        for host in (b"Host: a.example", b"Host: b.example:81"):
            _, server = there.request(request_bytes, client)
            sent = bytes(server.sent)
            assert asked(server) == (request_bytes[:4].strip() + b" /new/a HTTP/1.1", host)
            assert b"\r\nx-forwarded-host: client.example\r\nvia: 1.1 gw\r\nx-forwarded-for: 192.0.2.7\r\n" in sent
            server.data(OK)
            assert client.take().startswith(b"HTTP/1.1 200")
    there.check_settled()


def test_another_endpoint_after_a_failed_dial() -> None:
    """Who is asked in the end decides, not who was meant first."""
    there = world()
    client = there.connect()
    client.data(GET)
    there.loop.run()
    assert there.dials[0].host == b"a.example"
    there.dial_failed()
    assert asked(there.dial_ok())[1] == b"Host: b.example:81"


@pytest.mark.parametrize(
    ("endpoints", "host", "sent", "differ"),
    [
        (("http://a.example", "http://b.example"), "upstream", [b"a.example", b"b.example"], True),
        (("http://a.example", "http://a.example:81"), "upstream", [b"a.example", b"a.example:81"], True),
        (("http://a.example", "http+srv://_http._tcp.a.example"), "upstream", [b"a.example"] * 2, False),
        (("http://a.example", "http://b.example"), "preserve", [b"a.example", b"b.example"], False),
        (("http://a.example", "http://b.example"), "own.example", [b"a.example", b"b.example"], False),
        (("http://[::1]:81", "unix:/run/b.sock"), "upstream", [b"[::1]:81", b"localhost"], True),
    ],
)
def test_only_where_names_differ(endpoints: tuple[str, ...], host: str, sent: list[bytes], differ: bool) -> None:
    """Everywhere else the forwarded head stays one finished string; a reload switches it on and off."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        log: Any = None
        resolver = Resolver(loop, Dns(nameservers=("127.0.0.1:9",)), log)
        service = UpstreamService("u", loop, Wheel(0.0, 0.1, 16), resolver, log)
        try:
            service.apply(UpstreamConfig(endpoints=("http://10.0.0.1",), host="upstream"), 1)
            assert (service.upstream.hosts_differ, service.upstream.host) == (False, b"10.0.0.1")
            service.apply(UpstreamConfig(endpoints=endpoints, host=host), 1)
            assert service.upstream.hosts_differ is differ
            expected = {"upstream": sent[0], "preserve": b""}.get(host, host.encode())
            assert service.upstream.host == expected
        finally:
            service.close()
            resolver.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


def test_pools_know_their_host() -> None:
    """Each pool carries the Host of the endpoint that it belongs to, IPv6 in brackets, the port unless it is 80."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        log: Any = None
        resolver = Resolver(loop, Dns(), log)
        service = UpstreamService("u", loop, Wheel(0.0, 0.1, 16), resolver, log)
        try:
            endpoints = ("http://10.0.0.1", "http://[::1]:81", "unix:/run/b.sock")
            service.apply(UpstreamConfig(endpoints=endpoints, host="upstream"), 1)
            for _ in range(3):
                await asyncio.sleep(0)
            assert [pool.host for pool in service.upstream.pools] == [b"10.0.0.1", b"[::1]:81", b"localhost"]
        finally:
            service.close()
            resolver.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
