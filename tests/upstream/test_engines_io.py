"""Engines are asked for their queues over real sockets; who does not answer is balanced without."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest

from edgeq.config.schema import Upstream
from edgeq.upstream.connect_io import Dialer
from edgeq.upstream.endpoint import Address
from edgeq.upstream.engine import WAITING_WEIGHT
from edgeq.upstream.engines_io import MAX_BODY, Question
from tests.upstream.test_check_io import Log, Server, listening, made, run, ticking


def answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 " + status + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def queue(running: int, waiting: int) -> bytes:
    return b"vllm:num_requests_running %d\nvllm:num_requests_waiting %d\n" % (running, waiting)


def test_what_engines_say_reaches_the_balancer() -> None:
    """From the configuration to each member, until it is switched off; a broken one is just not known."""

    async def work() -> None:
        busy, idle, broken = Server(answer(queue(1, 5))), Server(answer(queue(0, 0))), Server(answer(b"<html>"))
        service = made(Log())
        async with listening(busy) as one, listening(idle) as two, listening(broken) as three:
            urls = tuple(f"http://127.0.0.1:{port}" for port in (one, two, three))
            service.apply(Upstream(endpoints=urls, engine="vllm"), 1)
            first, second, third = service.upstream.members
            await ticking(service, lambda: bool(first.engine_until and second.engine_until and broken.asked))
            assert (first.engine_load, second.engine_load) == (1 + 5 * WAITING_WEIGHT, 0.0)
            assert first.engine_until > monotonic()
            assert third.engine_until == 0.0
            assert busy.asked[0].startswith(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:")
            asked = len(busy.asked)
            service.tick(monotonic())
            assert len(busy.asked) == asked  # once a second
            service.apply(Upstream(endpoints=urls), 1)
            assert first.engine_until == 0.0
            service.close()

    run(work)


async def ask(address: Address) -> tuple[bytes, str]:
    """One question's result."""
    loop = asyncio.get_running_loop()
    end: asyncio.Future[tuple[bytes, str]] = loop.create_future()
    dialer = Dialer(loop, Upstream(endpoints=()), None)
    one = Question(loop, "engine", lambda text, detail: end.set_result((text, detail)))
    one.start(dialer, address)
    assert not end.done()
    result = await asyncio.wait_for(end, 20)
    assert dialer.snapshot() == []
    return result


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (answer(queue(1, 2)), ""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", ""),
        (answer(b"x" * (MAX_BODY + 1)), "more than 1 MiB"),
        (answer(b"", b"404 Not Found"), "status 404"),
        (b"HTTP/1.1 3", "closed before the end"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not valid HTTP"),
    ],
)
def test_answers(data: bytes, says: str) -> None:
    """All of the body, or why there is none; it is told once, and nothing stays open."""

    async def work() -> None:
        server = Server(data)
        async with listening(server) as port:
            text, detail = await ask(Address("inet", "127.0.0.1", port, "x"))
        assert says in detail
        assert bool(text) == (not says) == (not detail)

    run(work)


def test_nobody_listens() -> None:
    """The reason of the dial is the detail."""

    async def work() -> None:
        text, detail = await ask(Address("inet", "127.0.0.1", 1, "x"))
        assert (text, detail.partition(":")[0]) == (b"", "upstream_connect_refused")

    run(work)
