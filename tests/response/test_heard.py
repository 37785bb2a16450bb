"""Which answers have begun, as a limit that is a guess counts them: `Bulkhead.starves`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgeq.admission.ticket import CallbackTicket
from edgeq.policy.retry import RetryBudget, RetryPolicy
from tests.support.fake_transport import FakeTransport, World, frozen_time

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
PUT = b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"


@pytest.fixture(autouse=True)
def _time_stands_still() -> Iterator[None]:
    with frozen_time():
        yield


def guessing() -> World:
    """A world whose limit is one in flight and a guess."""
    world = World()
    bulkhead = world.upstream.bulkhead
    bulkhead.watch(world.upstream)
    return world


def is_let_in(world: World) -> bool:
    """Is somebody who waits since this moment to be let in on account of who is in flight?"""
    bulkhead = world.upstream.bulkhead
    bulkhead.resize(bulkhead.in_flight, world.now)

    def ignore(*_: object) -> None:
        pass

    waiting = CallbackTicket(world.now, ignore, ignore)
    bulkhead.offer(waiting, world.now)
    starves = bulkhead.starves(world.now, 0.0, 0.001)
    bulkhead.cancel(waiting, world.now)
    bulkhead.resize(1 << 20, world.now)
    return starves


def another(world: World) -> FakeTransport:
    """One more request: its upstream connection."""
    world.connect().data(GET)
    world.loop.run()
    return world.dial_ok() if world.dials else world.servers[-1]


def test_streams_are_long_and_not_late() -> None:
    """Only once all have begun; another one that has not is waited for."""
    world = guessing()
    first = another(world)
    assert not is_let_in(world)
    first.data(STREAM)
    assert is_let_in(world)
    second = another(world)
    assert not is_let_in(world)
    second.data(STREAM)
    assert is_let_in(world)


def test_who_was_there_before_is_not_counted_for_who_comes() -> None:
    """What began without being counted does not stand for another that has not begun."""
    world = World()
    first = another(world)
    world.upstream.bulkhead.watch(world.upstream)
    first.data(STREAM)
    another(world)
    assert not is_let_in(world)


def test_an_interim_answer_is_no_beginning() -> None:
    """Most servers send 100 before anybody works on the request."""
    world = guessing()
    _, server = world.request(PUT)
    server.data(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert not is_let_in(world)
    server.data(b"HTTP/1.1 103 Early Hints\r\n\r\n" + STREAM[:9])
    assert not is_let_in(world)
    server.data(STREAM[9:])
    assert is_let_in(world)


@pytest.mark.parametrize("how", ["client", "upstream", "dial"])
def test_one_that_fails_is_not_waited_for(how: str) -> None:
    """Its answer never begins; those beside it have begun."""
    world = guessing()
    another(world).data(STREAM)
    if how == "dial":
        world.connect().data(GET)
        world.dial_failed()
    else:
        second = another(world)
        if how == "client":
            world.clients[-1].reset()
        else:
            second.reset()
    world.loop.run()
    assert world.upstream.bulkhead.in_flight == 1
    assert is_let_in(world)


def test_a_request_that_is_sent_again_has_not_begun() -> None:
    """Neither by 408 of a connection that was about to close, nor by an answer that is tried again."""
    world = guessing()
    client, server = world.request(GET)
    server.data(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    client.data(GET)
    world.loop.run()
    server.data(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    world.loop.run()
    server = world.dial_ok()
    assert not is_let_in(world)
    server.data(STREAM)
    assert is_let_in(world)
    route = world.shard.routes.routes[0]
    route.retry = RetryPolicy(True, True, frozenset((503,)), 3, 5.0, 1000, RetryBudget(0.5, 5.0))
    another(world).data(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
    world.advance(1.0)
    assert not is_let_in(world)


def test_a_tunnel_is_not_in_flight() -> None:
    """What has been switched over counts neither as in flight nor as begun."""
    world = guessing()
    another(world).data(STREAM)
    ask = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    _, server = world.request(ask, world.connect())
    server.data(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert is_let_in(world)
    another(world)
    assert not is_let_in(world)
