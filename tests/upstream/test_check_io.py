"""Active checks over real sockets: what is good, what is bad, over TCP, TLS and Unix sockets; nothing is left open."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import Any, cast

import pytest
import uvloop

from edgeq.config.base import Duration
from edgeq.config.schema import Dns, Health, Upstream, UpstreamTls
from edgeq.upstream.check_io import MAX_BODY, Check
from edgeq.upstream.connect_io import Dialer
from edgeq.upstream.endpoint import Address
from edgeq.upstream.health import Outcome
from edgeq.upstream.resolve_io import Resolver
from edgeq.upstream.service_io import UpstreamService
from edgeq.upstream.shared import BAD, GOOD
from edgeq.upstream.tls_io import upstream_context
from edgeq.worker.wheel import Wheel
from tests.support.authority import Authority

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Server:
    """Answers each request with the same bytes ("" : never), and keeps what it was asked."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[bytes] = []
        self.open = 0
        self.changed = asyncio.Event()

    async def settled(self) -> None:
        """Wait until no connection is open."""
        while self.open:
            self.changed.clear()
            await self.changed.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            self.asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.data)
            if self.data and not self.data.startswith(b"HTTP/1.1 2"):
                writer.write_eof()
            await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            self.changed.set()
            writer.close()


async def check(address: Address, health: Health, context: ssl.SSLContext | None = None) -> tuple[Outcome, str]:
    """One check's result."""
    loop = asyncio.get_running_loop()
    end: asyncio.Future[tuple[Outcome, str]] = loop.create_future()
    dialer = Dialer(loop, Upstream(endpoints=()), context)
    one = Check(loop, health, "api.example", lambda outcome, detail: end.set_result((outcome, detail)))
    one.start(dialer, address)
    assert not end.done()
    result = await asyncio.wait_for(end, 20)
    assert dialer.snapshot() == []
    return result


def run(work: Callable[[], Awaitable[None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(work(), 30))


@contextlib.asynccontextmanager
async def listening(server: Server, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The port of a server; in the end, all connections to it must be closed soon."""
    there = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    try:
        yield there.sockets[0].getsockname()[1]
        await server.settled()
    finally:
        there.close()


@pytest.mark.parametrize(
    ("data", "health", "expected", "says"),
    [
        (OK, Health(), "good", ""),
        (b"HTTP/1.1 302 Found\r\n\r\n", Health(), "good", ""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, Health(), "good", ""),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", Health(), "bad", "status 404"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", Health(status=(404,)), "good", ""),
        (OK, Health(status=(204,)), "bad", "status 200"),
        (OK, Health(body="ell"), "good", ""),
        (OK, Health(body="well"), "bad", "'well' is not in the answer"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            Health(body="hello"),
            "good",
            "",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MAX_BODY + 1), Health(body="y"), "bad", "not in the first 64 KiB"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", Health(), "bad", "not valid HTTP"),
        (b"HTTP/1.1 3", Health(), "bad", "closed before the end"),
        (b"", Health(timeout=Duration(0.05)), "timeout", "no answer within 0.05 s"),
    ],
)
def test_answers(data: bytes, health: Health, expected: str, says: str) -> None:
    """The request is a plain one, and each kind of answer is what it should be."""

    async def work() -> None:
        server = Server(data)
        async with listening(server) as port:
            outcome, detail = await check(Address("inet", "127.0.0.1", port, "x"), health)
        assert outcome == expected
        assert says in detail
        assert server.asked[0].startswith(b"GET / HTTP/1.1\r\nHost: api.example\r\n")

    run(work)


def test_nobody_listens() -> None:
    """The reason of the dial is the detail."""

    async def work() -> None:
        outcome, detail = await check(Address("inet", "127.0.0.1", 1, "x"), Health())
        assert (outcome, detail.partition(":")[0]) == ("bad", "upstream_connect_refused")

    run(work)


def test_unix(tmp_path: Path) -> None:
    """Over a Unix socket, and what it says when nobody is there."""

    async def work() -> None:
        path = str(tmp_path / "s")
        server = Server(OK)
        there = await asyncio.start_unix_server(server.serve, path)
        assert await check(Address("unix", path, 0, "localhost"), Health()) == ("good", "")
        await server.settled()
        there.close()
        outcome, _ = await check(Address("unix", path + "x", 0, "localhost"), Health())
        assert outcome == "bad"

    run(work)


def test_tls(tmp_path: Path) -> None:
    """Over TLS, with the upstream's own trust: a certificate of somebody else's is bad health."""
    authority = Authority(tmp_path, "ours")
    trusted = upstream_context(UpstreamTls(ca=str(authority.path)))
    other = upstream_context(UpstreamTls(ca=str(Authority(tmp_path, "theirs").path)))

    async def work() -> None:
        server = Server(OK)
        async with listening(server, authority.issue("api.example")) as port:
            address = Address("inet", "127.0.0.1", port, "api.example")
            assert await check(address, Health(), trusted) == ("good", "")
            outcome, detail = await check(address, Health(), other)
            assert (outcome, detail.partition(":")[0]) == ("bad", "upstream_tls_failed")

    run(work)


class Log:
    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.told.append((event, fields))

    warning = info


async def ticking(service: UpstreamService, is_so: Callable[[], bool]) -> None:
    """The worker's tick, until something is so."""
    while not is_so():
        service.tick(monotonic())
        await asyncio.sleep(0.005)


def made(log: Log) -> UpstreamService:
    loop = asyncio.get_running_loop()
    return UpstreamService("u", loop, Wheel(monotonic(), 0.1, 16), Resolver(loop, Dns(), cast(Any, log)), log)


def test_a_service_checks_its_endpoints() -> None:
    """From the configuration to the member's health; a reload without checks forgets what they said."""

    async def work() -> None:
        server, log = Server(OK), Log()
        service = made(log)
        async with listening(server) as port:
            urls = (f"http://127.0.0.1:{port}", "http://127.0.0.1:1")
            health = Health(path="/up", interval=Duration(0.02), unhealthy=1)
            service.apply(Upstream(endpoints=urls, health=health), 1)
            members = service.upstream.members
            await ticking(service, lambda: [member.health for member in members] == [GOOD, BAD])
            service.tick(monotonic())
            assert service.upstream.balancer.members == members[:1]
            assert {event for event, _ in log.told} == {"endpoint_healthy", "endpoint_unhealthy"}
            assert server.asked[0].startswith(b"GET /up HTTP/1.1\r\n")
            service.apply(Upstream(endpoints=urls), 1)
            assert service.upstream.balancer.members == members
            service.close()

    run(work)


def test_closing_in_the_middle_of_a_check() -> None:
    """Nothing is told after that, and no connection stays."""

    async def work() -> None:
        server, log = Server(b""), Log()
        service = made(log)
        async with listening(server) as port:
            health = Health(interval=Duration(0.01))
            service.apply(Upstream(endpoints=(f"http://127.0.0.1:{port}",), health=health), 1)
            await ticking(service, lambda: server.open > 0)
            service.close()
        assert log.told == []

    run(work)
