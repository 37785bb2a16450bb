"""Upstreams that are known to be down, and those whose every endpoint is full: who is refused, when, and with what."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from edgeq.config.base import Duration
from edgeq.config.schema import Breaker, Eject, Queue, UpstreamPool
from edgeq.config.schema import Upstream as UpstreamConfig
from edgeq.upstream.breaker import CLOSED, HALF_OPEN, OPEN
from edgeq.upstream.shared import LocalCells
from tests.support.fake_transport import FakeTransport, World, frozen_time

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ERROR = b"HTTP/1.1 500 Sorry\r\nContent-Length: 0\r\n\r\n"
BREAKER = Breaker(min_requests=2, window=Duration(10), open=Duration(5), probes=1)
NEVER_EJECT = Eject(failures=0, deviations=0.0)


@pytest.fixture(autouse=True)
def _time_stands_still() -> Iterator[None]:
    with frozen_time():
        yield


def world(endpoints: int = 1, **keys: Any) -> World:
    made = World(endpoints=endpoints)
    made.upstream.configure(UpstreamConfig(**{"endpoints": (), "limit": 0, "eject": NEVER_EJECT, **keys}), 1)
    return made


def ask(made: World, request: bytes = GET) -> FakeTransport:
    client = made.connect()
    client.data(request)
    made.loop.run()
    return client


def problem(client: FakeTransport) -> dict[str, Any]:
    """The problem document of a refusal."""
    assert client.sent, "it waits"
    found: dict[str, Any] = json.loads(bytes(client.sent).partition(b"\r\n\r\n")[2])
    return found


def fail(made: World, times: int) -> None:
    """So many requests come to a bad end."""
    for _ in range(times):
        client, server = made.request(GET)
        server.data(ERROR)
        assert client.take().startswith(b"HTTP/1.1 500")


def test_nobody_waits_for_an_upstream_that_is_known_to_be_down() -> None:
    """The only place is a probe's: the next request is refused before it queues, and told when to come again."""
    made = world(limit=1, breaker=BREAKER, queue=Queue(timeout=Duration(60)))
    fail(made, 2)
    breaker = made.upstream.breaker
    assert breaker is not None
    assert breaker.state == OPEN
    made.advance(5.0)
    probe, server = made.request(GET)
    assert breaker.state == HALF_OPEN
    made.advance(1.5)
    refused = problem(ask(made))
    assert (refused["reason"], refused["status"], refused["resource"]) == ("circuit_open", 503, "upstream/up:breaker")
    assert refused["retry_after_ms"] == 3500
    assert made.upstream.bulkhead.queue.queued == 0
    server.data(OK)
    assert probe.take().endswith(b"ok")
    assert breaker.state == CLOSED
    made.check_settled()


def test_the_exact_moment_is_told() -> None:
    """Retry-After of an open circuit is what is left of its time, rounded up to the second; the body is exact."""
    made = world(breaker=BREAKER)
    fail(made, 2)
    made.advance(1.25)
    client = ask(made)
    assert b"\r\nretry-after: 4\r\n" in bytes(client.sent)
    assert problem(client)["retry_after_ms"] == 3750


def test_what_has_waited_is_not_sent_to_one_that_has_gone_down() -> None:
    """Those in the queue when the circuit opens get its refusal, and none of them reaches the upstream."""
    made = world(limit=1, breaker=BREAKER, queue=Queue(timeout=Duration(60)))
    clients = [ask(made) for _ in range(5)]
    server = made.dial_ok()
    server.data(ERROR)
    server.data(ERROR)
    assert [bytes(client.sent)[9:12] for client in clients] == [b"500"] * 2 + [b"503"] * 3
    assert {problem(client)["reason"] for client in clients[2:]} == {"circuit_open"}
    assert {problem(client)["retry_after_ms"] for client in clients[2:]} == {5000}
    made.check_settled()


def test_a_circuit_that_another_worker_opens_empties_the_queue() -> None:
    """The place is held for long; those behind it are told on the tick, not when their wait is over."""
    made = world(limit=1, breaker=BREAKER, queue=Queue(timeout=Duration(60)))
    running, server = made.request(GET)
    waiting = [ask(made) for _ in range(2)]
    cells = made.upstream.cells
    assert isinstance(cells, LocalCells)
    other = World()
    other.upstream.cells = cells
    other.upstream.configure(UpstreamConfig(endpoints=(), eject=NEVER_EJECT, breaker=BREAKER), 1)
    fail(other, 2)
    made.upstream.tick(made.now)
    for client in waiting:
        assert (problem(client)["reason"], problem(client)["resource"]) == ("circuit_open", "upstream/up:breaker")
    assert running.take() == b""
    server.data(OK)
    assert running.take().endswith(b"ok")
    made.check_settled()


@pytest.mark.parametrize("balance", ["p2c-ewma", "least-requests", "round-robin", "consistent-hash"])
def test_saturated_is_said_when_every_endpoint_is_full(balance: str) -> None:
    """Two endpoints with one connection and one place in the queue each: four requests have room, whoever is chosen;
    the fifth is told that none of them is dead, and none is taken for dead."""
    made = world(2, balance=balance, pool=UpstreamPool(max_connections=1, queue=1), eject=Eject(failures=1))
    clients = [ask(made) for _ in range(5)]
    assert [bool(client.sent) for client in clients] == [False] * 4 + [True]
    refused = problem(clients[4])
    assert (refused["reason"], refused["status"], refused["resource"]) == (
        "upstream_saturated",
        503,
        "upstream/up:pool",
    )
    assert b"\r\nretry-after: " in bytes(clients[4].sent)
    assert [(member.failed, member.penalty_s, member.ejected_until) for member in made.upstream.members] == [
        (0, 0, 0)
    ] * 2
    servers = [made.dial_ok(), made.dial_ok()]
    for server in servers * 2:
        server.data(OK)
    assert all(bytes(client.sent).endswith(b"ok") for client in clients[:4])
    made.check_settled()


def test_who_sticks_to_a_full_endpoint_is_told_that_this_queue_is_full() -> None:
    """Its session is nowhere else."""
    made = world(2, balance="sticky", pool=UpstreamPool(max_connections=1, queue=0))
    ask(made)
    made.dial_ok().data(OK)
    cookie = bytes(made.clients[0].sent).partition(b"set-cookie: ")[2].partition(b";")[0]
    mine = GET.replace(b"\r\n\r\n", b"\r\nCookie: " + cookie + b"\r\n\r\n")
    running = ask(made, mine)
    (own,) = [pool for pool in made.upstream.pools if pool.opened]
    refused = problem(ask(made, mine))
    assert (refused["reason"], refused["resource"]) == ("queue_full", own.resource + ":pool")
    assert running.take() == b""
