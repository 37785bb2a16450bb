"""A reload takes an upstream away while requests wait for a connection to it: they are served all the same."""

from __future__ import annotations

import asyncio
import socket
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from edgeq.config.base import Duration
from edgeq.config.schema import Dns, UpstreamPool
from edgeq.config.schema import Upstream as UpstreamConfig
from edgeq.route.table import Route, RouteTable
from edgeq.upstream.resolve_io import Resolver
from edgeq.upstream.service_io import UpstreamService
from tests.support.fake_transport import CLOCK, World

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def _run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        try:
            await scenario()
        except BaseException:
            # uvloop warns of each open transport when it closes; as an error this would keep the loop from ending.
            warnings.simplefilter("ignore", ResourceWarning)
            raise

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def _until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  no event tells
            await asyncio.sleep(0)


async def _serve(listening: socket.socket) -> socket.socket:
    """Accept one connection and read one request."""
    loop = asyncio.get_running_loop()
    server, _ = await asyncio.wait_for(loop.sock_accept(listening), 20)
    server.setblocking(False)
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += await asyncio.wait_for(loop.sock_recv(server, 65536), 20)
    return server


def test_who_waits_for_a_connection_is_served_after_the_upstream_was_removed() -> None:
    """What is being dialed is dialed to the end, used, and closed."""

    async def scenario() -> None:
        world, service, resolver, listening = await _world(UpstreamPool())
        client = world.connect()
        client.data(GET)
        service.retire()
        assert not service.is_settled()
        server = await _serve(listening)
        await asyncio.get_running_loop().sock_sendall(server, OK)
        await _until(lambda: b"ok" in client.sent)
        assert client.take().startswith(b"HTTP/1.1 200")
        assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(server, 1), 20) == b""
        assert service.is_settled()
        server.close()
        listening.close()
        resolver.close()

    _run(scenario)


def test_who_waits_for_others_to_finish_does_not_wait_longer_than_before() -> None:
    """The queue of a removed upstream has its time-out, too."""

    async def scenario() -> None:
        world, service, resolver, listening = await _world(
            UpstreamPool(max_connections=1, queue_timeout=Duration(1)), workers=1
        )
        client, late = world.connect(), world.connect()
        client.data(GET)
        server = await _serve(listening)
        late.data(GET)
        service.retire()
        CLOCK.now_s += 2
        service.tick(CLOCK.now_s)
        assert b"queue_timeout" in late.take()
        await asyncio.get_running_loop().sock_sendall(server, OK)
        await _until(lambda: b"ok" in client.sent)
        service.tick(CLOCK.now_s)
        assert service.is_settled()
        server.close()
        listening.close()
        resolver.close()

    _run(scenario)


async def _world(pool: UpstreamPool, workers: int = 1) -> tuple[World, UpstreamService, Resolver, socket.socket]:
    """A worker without sockets in front of an upstream with one."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    loop = asyncio.get_running_loop()
    log: Any = None
    world = World(endpoints=0)
    resolver = Resolver(loop, Dns(), log)
    service = UpstreamService("u", loop, world.wheel, resolver, log)
    service.apply(UpstreamConfig(endpoints=(f"http://127.0.0.1:{listening.getsockname()[1]}",), pool=pool), workers)
    world.shard.routes = RouteTable([Route("r", b"*", b"/*", service.upstream, b"", 0.0, -1)])
    await _until(lambda: service.upstream.pools)
    return world, service, resolver, listening
