"""The pool of one endpoint: who gets which connection, who waits, who is refused, and what is counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.fake_transport import FakeTransport, World, frozen_time


@pytest.fixture(autouse=True)
def _time_stands_still() -> Iterator[None]:
    with frozen_time():
        yield


GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
OK_CLOSE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def ask(world: World, count: int) -> list[FakeTransport]:
    """So many clients with one request each."""
    clients = [world.connect() for _ in range(count)]
    for client in clients:
        client.data(GET)
    world.loop.run()
    return clients


def statuses(clients: list[FakeTransport]) -> list[int]:
    """What each client got; 0: nothing yet."""
    return [int(bytes(client.sent).split(b" ")[1]) if client.sent else 0 for client in clients]


def reasons(world: World) -> list[str]:
    return [entry.reason for entry in world.log]


def test_last_in_first_out() -> None:
    """The connection used last is used next; the others grow old."""
    world = World()
    ask(world, 3)
    first, second, third = (world.dial_ok() for _ in range(3))
    for server in (first, third, second):
        server.data(OK)
    pool = world.upstream.pools[0]
    assert [connection.transport for connection in pool.idle] == [first, third, second]
    for expected in (second, third, first):
        ask(world, 1)
        assert expected.protocol.exchange is not None
    assert not world.dials


def test_at_most_so_many_are_opened() -> None:
    """max_connecting at a time, max_connections in all; who waits is served in order of arrival."""
    world = World(pool={"max_connecting": 2, "max_connections": 3})
    clients = ask(world, 5)
    assert len(world.dials) == 2
    servers = [world.dial_ok()]
    assert len(world.dials) == 2
    servers += [world.dial_ok(), world.dial_ok()]
    assert not world.dials
    world.check_pool(world.upstream.pools[0])
    for server in servers:
        server.data(OK)
    assert statuses(clients) == [200, 200, 200, 0, 0]
    servers[0].data(OK)
    servers[1].data(OK)
    assert statuses(clients) == [200] * 5
    world.check_settled()


def test_queue_full() -> None:
    """Those beyond the queue are refused at once; those whose connection is being opened stand in no queue."""
    world = World(pool={"max_connections": 2, "queue": 1})
    clients = ask(world, 4)
    assert statuses(clients) == [0, 0, 0, 503]
    assert reasons(world) == ["queue_full"]
    assert world.log[0].resource == "upstream/up#10.0.0.1:80:pool"
    assert b"retry-after:" in bytes(clients[3].sent)
    for _ in range(2):
        world.dial_ok().data(OK)
    next(server for server in world.servers if server.protocol.exchange is not None).data(OK)
    assert statuses(clients) == [200, 200, 200, 503]
    world.check_settled()


def test_no_queue_at_all() -> None:
    """pool.queue = 0 refuses who would wait for others, not who needs a new connection."""
    world = World(pool={"max_connections": 1, "queue": 0})
    clients = ask(world, 2)
    assert statuses(clients) == [0, 503]
    world.dial_ok().data(OK)
    assert statuses(clients) == [200, 503]
    clients = ask(world, 2)
    assert statuses(clients) == [0, 503]


def test_queue_timeout() -> None:
    """Who has waited too long for others is refused; while connections are being opened the dial decides."""
    world = World(pool={"max_connections": 1, "queue_timeout": 1.0})
    clients = ask(world, 2)
    pool = world.upstream.pools[0]
    server = world.dial_ok()
    pool.expire_waiting(world.now + 0.5)
    assert statuses(clients) == [0, 0]
    pool.expire_waiting(world.now + 1.5)
    assert statuses(clients) == [0, 503]
    assert reasons(world) == ["queue_timeout"]
    assert pool.gave_up == 0  # a refusal is counted as such
    server.data(OK)
    world.check_settled()


@pytest.mark.parametrize("most", [2, 9])
def test_queue_timeout_while_others_are_dialed_for(most: int) -> None:
    """A dial that hangs protects only the one that it is for; all others who wait are refused in time."""
    world = World(pool={"max_connections": most, "max_connecting": 1, "queue_timeout": 1.0})
    busy = ask(world, 1)
    server = world.dial_ok()
    clients = ask(world, 3)
    pool = world.upstream.pools[0]
    assert (pool.opened, pool.connecting) == (1, 1)
    pool.expire_waiting(world.now + 0.5)
    assert statuses(clients) == [0, 0, 0]
    pool.expire_waiting(world.now + 1.5)
    assert statuses(clients) == [0, 503, 503]
    assert reasons(world) == ["queue_timeout"] * 2
    pool.expire_waiting(world.now + 100)
    assert statuses(clients) == [0, 503, 503]
    world.dial_failed("upstream_connect_timeout")
    assert statuses(clients) == [504, 503, 503]
    server.data(OK)
    assert statuses(busy) == [200]
    world.check_settled()


def test_the_dial_passes_on_to_who_is_next() -> None:
    """Who gets a connection that has become free leaves its dial to the next in the queue."""
    world = World(pool={"max_connections": 9, "max_connecting": 1, "queue_timeout": 1.0})
    busy = ask(world, 1)
    server = world.dial_ok()
    clients = ask(world, 3)
    server.data(OK)  # now it is the first waiter's
    world.upstream.pools[0].expire_waiting(world.now + 5)
    assert statuses(clients) == [0, 0, 503]
    server.data(OK)
    server.data(OK)
    assert statuses(busy + clients) == [200, 200, 200, 503]
    world.dial_ok()
    world.check_settled()


def test_queue_timeout_begins_anew_at_another_endpoint() -> None:
    """The time that a dial to one endpoint has cost is no time in the queue of the next one."""
    world = World(endpoints=2, pool={"max_connections": 1, "queue_timeout": 1.0})
    ask(world, 2)
    server = world.dial_ok(1)
    (client,) = ask(world, 1)  # waits for the first endpoint, after the one whose dial it is
    first, second = world.upstream.pools
    world.advance(3)
    world.dial_failed("upstream_connect_timeout")
    assert (len(first.waiting), len(second.waiting)) == (0, 2)
    second.expire_waiting(world.now + 0.5)
    assert statuses([client]) == [0]
    second.expire_waiting(world.now + 1.5)
    assert statuses([client]) == [503]
    server.data(OK)
    world.check_settled()


def test_a_failed_dial_concerns_all_if_nothing_works() -> None:
    """With no connection open there is no reason to let the others wait."""
    world = World()
    clients = ask(world, 3)
    world.dial_failed()
    assert statuses(clients) == [502] * 3
    for _ in range(2):
        world.dial_ok()
    assert len(world.upstream.pools[0].idle) == 2
    world.check_settled()


@pytest.mark.parametrize("reason", ["fd_exhausted", "upstream_port_exhausted"])
def test_a_shortage_of_our_own_says_nothing_of_the_endpoint(reason: str) -> None:
    """Who else waits has connections under way, and those may be had; with the last of them all are told."""
    world = World()
    clients = ask(world, 3)
    world.dial_failed(reason)
    assert statuses(clients) == [503, 0, 0]
    server = world.dial_ok()
    server.data(OK)
    server.data(OK)
    assert statuses(clients) == [503, 200, 200]
    world.dial_failed(reason)
    world.check_settled()
    world = World()
    clients = ask(world, 2)
    world.dial_failed(reason)
    assert statuses(clients) == [503, 0]
    world.dial_failed(reason)
    assert statuses(clients) == [503, 503]
    world.check_settled()


def test_a_failed_dial_concerns_one_if_others_work() -> None:
    """The endpoint lives: only the request for whom this connection was meant is affected."""
    world = World()
    clients = ask(world, 3)
    server = world.dial_ok()
    world.dial_failed()
    assert sorted(statuses(clients)) == [0, 0, 502]
    server.data(OK)
    server.data(OK)
    assert sorted(statuses(clients)) == [200, 200, 502]
    world.dial_failed()
    world.check_settled()


@pytest.mark.parametrize("how", ["eof", "reset", "data"])
def test_a_connection_that_is_lost_before_its_dial_is_reported(how: str) -> None:
    """It counts as a failed dial: no request is given to it, and nothing is counted twice or never."""
    world = World()
    clients = ask(world, 1)
    pool = world.dials[0]
    server = world.dial_ok(made_only=True)
    if how == "data":
        server.data(b"HTTP/1.1 408 x\r\n\r\n")
    else:
        getattr(server, how)()
    world.loop.run()
    pool.dialed(server.protocol, 0.0)
    world.loop.run()
    assert statuses(clients) == [502]
    assert reasons(world) == ["upstream_reset"]
    assert (pool.opened, pool.connecting, pool.idle) == (0, 0, [])
    world.check_settled()


@pytest.mark.parametrize("how", ["eof", "reset", "data", "idle", "lifetime", "close", "retired", "max_idle"])
def test_connections_go(how: str) -> None:
    """Whatever ends one: it is closed, forgotten and uncounted."""
    settings: dict[str, Any] = {"idle_timeout": 10.0}
    if how == "max_idle":
        settings["max_idle"] = 0
    world = World(pool=settings)
    pool = world.upstream.pools[0]
    ask(world, 1)
    server = world.dial_ok()
    if how == "lifetime":
        world.upstream.max_lifetime_s = 5.0
        world.advance(6)
    server.data(OK_CLOSE if how == "close" else OK)
    if how in ("eof", "reset"):
        getattr(server, how)()
    elif how == "data":
        server.data(b"x")
    elif how == "idle":
        world.advance(9)
        assert pool.idle
        world.advance(11)
    elif how == "retired":
        pool.retire()
    world.loop.run()
    assert server.lost
    assert (pool.opened, pool.idle) == (0, [])
    world.check_settled()


def test_an_idle_connection_that_has_seen_a_fin_is_not_used() -> None:
    """Not even in the turn of the loop in which it ends."""
    world = World()
    ask(world, 1)
    server = world.dial_ok()
    server.data(OK)
    server.eof()  # connection_lost has not been called yet
    client = world.connect()
    client.data(GET)
    assert server.take().count(b"GET") == 1
    assert world.dials
    world.loop.run()
    world.dial_ok().data(OK)
    assert statuses([client]) == [200]
    world.check_settled()


def test_a_retired_pool_finishes_what_runs() -> None:
    """And then keeps nothing."""
    world = World()
    clients = ask(world, 2)
    server = world.dial_ok()
    pool = world.upstream.pools[0]
    pool.retire()
    server.data(OK)
    world.loop.run()
    assert server.lost
    world.dial_ok().data(OK)
    world.loop.run()
    assert statuses(clients) == [200, 200]
    assert pool.opened == 0
    world.check_settled()


def test_a_freed_place_is_used_for_who_waits() -> None:
    """A connection that cannot be used again makes room for a new one."""
    world = World(pool={"max_connections": 1})
    clients = ask(world, 2)
    world.dial_ok().data(OK_CLOSE)
    world.loop.run()
    world.dial_ok().data(OK)
    assert statuses(clients) == [200, 200]
    world.check_settled()


def test_endpoints_in_turn() -> None:
    """Round robin."""
    world = World(endpoints=3)
    ask(world, 6)
    assert [pool.name for pool in world.dials] == ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"] * 2
    world.upstream.set_pools(world.upstream.pools[:-1], {}, world.now)
    ask(world, 2)
    assert len(world.dials) == 8


def test_shares_are_rounded_up() -> None:
    """A worker's share of the machine's limits is never nothing."""
    from edgeq.config.schema import Upstream, UpstreamPool

    world = World()
    world.upstream.configure(
        Upstream(endpoints=(), pool=UpstreamPool(max_connections=10, max_connecting=1, queue=5)), 4
    )
    upstream = world.upstream
    assert (upstream.max_connections, upstream.max_connecting, upstream.max_waiting) == (3, 1, 2)


def test_snapshot() -> None:
    """What is held, who waits, since when."""
    world = World(pool={"max_connections": 1})
    ask(world, 2)
    pool = world.upstream.pools[0]
    assert pool.snapshot()["connecting"] == 1
    world.dial_ok()
    got = pool.snapshot()
    assert (got["idle"], got["active"], got["connecting"], got["waiting"]) == (0, 1, 0, 1)
    assert got["oldest_wait_s"] >= 0  # type: ignore[operator]
    assert (got["waited"], got["dials"], got["gave_up"]) == (1, 1, 0)
    assert len(got["wait_ms"]) == 3  # type: ignore[arg-type]
    pool.leave(next(iter(pool.waiting)))
    assert pool.snapshot()["gave_up"] == 1
