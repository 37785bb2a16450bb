"""Upstreams at their worst: which connection a request gets, and what becomes of it when there is none."""

from __future__ import annotations

from tests.support.fake_transport import World

GET = b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_a_request_that_goes_again_gets_a_connection_of_its_own() -> None:
    """The second and last try is made on a new connection, also if a used one becomes free before that is open."""
    world = World()
    first, one = world.request(GET % b"1")
    second, two = world.request(GET % b"2")
    one.data(OK)
    two.data(OK)
    world.loop.run()
    busy, server = world.request(GET % b"busy", first)
    retried = world.connect()
    retried.data(GET % b"retried")
    other = one if server is two else two
    other.eof()  # the upstream had closed it: a new connection is dialed
    world.loop.run()
    assert len(world.dials) == 1
    server.data(OK)
    world.loop.run()
    assert b"retried" not in server.take()
    fresh = world.dial_ok()
    assert b"GET /retried" in fresh.take()
    fresh.data(OK)
    world.loop.run()
    assert retried.take().endswith(b"ok")
    for client in (busy, second):
        client.eof()
    world.loop.run()
    world.check_settled()


def test_a_request_that_goes_again_takes_a_used_connection_if_no_other_is_to_be_had() -> None:
    """At the limit of connections the second try does not wait for one that cannot be opened."""
    world = World(pool={"max_connections": 2})
    first, one = world.request(GET % b"1")
    _second, two = world.request(GET % b"2")
    one.data(OK)
    two.data(OK)
    world.loop.run()
    world.request(GET % b"busy", first)
    retried = world.connect()
    retried.data(GET % b"retried")
    server = next(s for s in (one, two) if b"busy" in s.take())
    other = one if server is two else two
    world.upstream.max_connections = 1
    other.eof()
    world.loop.run()
    assert not world.dials
    server.data(OK)
    world.loop.run()
    assert b"GET /retried" in server.take()


def test_a_request_without_a_connection_tries_the_other_endpoint() -> None:
    """With one endpoint down, each request is served by the other one, however many fail at the same moment."""
    world = World(endpoints=2)
    clients = []
    for number in range(6):
        client = world.connect()
        client.data(GET % b"%d" % number)
        clients.append(client)
    dead, alive = world.upstream.pools
    while world.dials:
        index = next((at for at, pool in enumerate(world.dials) if pool is dead), -1)
        if index >= 0:
            world.dial_failed(index=index)
        else:
            world.dial_ok()
    for server in world.servers:
        assert server.protocol.pool is alive
        server.data(OK)
    world.loop.run()
    assert [client.take()[:15] for client in clients] == [b"HTTP/1.1 200 OK"] * 6


def test_three_endpoints_two_of_them_dead() -> None:
    """Each try goes to the next endpoint in turn, so the living one is found."""
    world = World(endpoints=3)
    clients = []
    for number in range(5):
        client = world.connect()
        client.data(GET % b"%d" % number)
        clients.append(client)
    alive = world.upstream.pools[1]
    while world.dials:
        index = next((at for at, pool in enumerate(world.dials) if pool is not alive), -1)
        if index >= 0:
            world.dial_failed(index=index)
        else:
            world.dial_ok()
    for server in world.servers:
        server.data(OK)
    world.loop.run()
    assert [client.take()[:15] for client in clients] == [b"HTTP/1.1 200 OK"] * 5


def test_a_connection_for_nobody_is_not_kept_by_a_retired_pool() -> None:
    """What is dialed when its address goes out of use, and its request as well, is closed when it is there."""
    world = World()
    client = world.connect()
    client.data(GET % b"1")
    pool = world.dials[0]
    client.reset()
    world.loop.run()
    pool.retire()
    server = world.dial_ok()
    assert server.lost
    assert pool.opened == 0
    assert not pool.idle
    world.check_settled()
