"""Engines are asked for their queues over real sockets; who does not answer is balanced without."""

from __future__ import annotations

import asyncio
from collections import Counter
from time import monotonic

import pytest

from edgeq.config.providers import provider_upstreams
from edgeq.config.schema import Config, Provider, Upstream
from edgeq.upstream.connect_io import Dialer
from edgeq.upstream.endpoint import Address
from edgeq.upstream.engine import WAITING_WEIGHT
from edgeq.upstream.engines_io import LAST_WORD_S, MAX_BODY, STALE_S, EngineReadings, Question
from edgeq.upstream.member import Member
from tests.upstream.test_balancer import chosen
from tests.upstream.test_balancer import made as balanced
from tests.upstream.test_check_io import Log, Server, listening, made, run, ticking


def answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 " + status + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def queue(running: int, waiting: int) -> bytes:
    return b"vllm:num_requests_running %d\nvllm:num_requests_waiting %d\n" % (running, waiting)


def test_what_engines_say_reaches_the_balancer() -> None:
    """From the configuration to each member, until it is switched off."""

    async def work() -> None:
        busy, idle, broken = Server(answer(queue(1, 5))), Server(answer(queue(0, 0))), Server(answer(b"<html>"))
        log = Log()
        service = made(log)
        async with listening(busy) as one, listening(idle) as two, listening(broken) as three:
            urls = tuple(f"http://127.0.0.1:{port}" for port in (one, two, three))
            service.apply(Upstream(endpoints=urls, engine="vllm"), 1)
            first, second, third = service.upstream.members
            await ticking(service, lambda: bool(first.engine_until and second.engine_until and broken.asked))
            assert (first.engine_load, second.engine_load) == (1 + 5 * WAITING_WEIGHT, 0.0)
            seen = first.snapshot(monotonic())
            assert (seen["engine_running"], seen["engine_waiting"], seen["engine_cache"]) == (1.0, 5.0, 0.0)
            assert first.engine_until > monotonic()
            await ticking(service, lambda: third.engine_until > 0.0 and bool(log.told))
            assert third.engine_load == (1 + 5 * WAITING_WEIGHT) / 2
            assert "engine_running" not in third.snapshot(monotonic())  # which nobody has told
            endpoint = urls[2].removeprefix("http://")
            why = "vllm:num_requests_running is not in the answer"
            told = {"upstream": "u", "endpoint": endpoint, "detail": why, "failures": 1}
            assert log.told == [("engine_unread", told)]
            assert busy.asked[0].startswith(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:")
            asked = len(busy.asked)
            service.tick(monotonic())
            assert len(busy.asked) == asked  # once a second
            service.apply(Upstream(endpoints=urls), 1)
            assert first.engine_until == 0.0
            service.close()

    run(work)


def test_who_does_not_tell_does_not_look_idle() -> None:
    """He has as much to do as others, or as he had when he told last; nobody knows if nobody tells."""
    upstream, members = balanced(3, balance="least-requests")
    readings = EngineReadings(upstream)
    readings.configure(Upstream(endpoints=(), engine="vllm"), {})
    one, two, three = members
    told(readings, one, 8, 1000.0)
    told(readings, two, 40, 1000.0)
    readings._assume(1001.0)
    assert (one.engine_load, two.engine_load, three.engine_load) == (8, 40, 24)
    assert three.engine_until > 1001.0
    told(readings, one, 8, 1000.0 + STALE_S)
    readings._assume(1000.0 + STALE_S)  # his queue is the reason why he is silent
    assert (one.engine_load, two.engine_load, three.engine_load) == (8, 40, 8)
    told(readings, one, 8, 1000.0 + LAST_WORD_S)
    readings._assume(1000.0 + LAST_WORD_S)
    assert two.engine_load == 8
    for member in members:
        member.engine_until = 0.0
    readings._assume(2000.0)
    assert [member.engine_until for member in members] == [0.0] * 3


def told(readings: EngineReadings, member: Member, running: int, now: float) -> None:
    """What it has said."""
    readings._words[member] = (running, now)
    member.engine_load, member.engine_until = running, now + STALE_S


def test_nobody_looks_idle_because_he_has_answered_nobody() -> None:
    """What an engine has to do counts before the first answer of it, too."""
    upstream, members = balanced(2)
    told(EngineReadings(upstream), members[0], 20, 1.0)
    assert set(chosen(upstream, 20)) == {"e1"}


def test_replicas_of_a_provider_go_by_the_shortest_queue() -> None:
    """Not by the shorter of two that are drawn, with which a third of three gets requests while another is idle."""
    provider = Provider(url="http://a/v1", endpoints=("http://b", "http://c"), engine="vllm")
    (found,) = provider_upstreams(Config(listener=(), provider={"own": provider})).values()
    upstream, members = balanced(3, balance=found.balance)
    for member, load in zip(members, (88, 18, 0), strict=True):
        told(EngineReadings(upstream), member, load, 1.0)
    assert set(chosen(upstream, 60)) == {"e2"}
    assert Counter(chosen(upstream, 40, busy=True)) == {"e2": 29, "e1": 11}


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
