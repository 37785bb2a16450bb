"""A random walk over all that can happen to clients, requests, upstream connections, dials and time.

Whatever the order: no protocol method raises, nothing is written after its transport was closed, each request gives one
record, nothing is held once all is over, and no client takes a cut answer for a whole one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edgeq.config.schema import Breaker
from edgeq.policy.rate import BY_CLIENT, HEADERS_IETF, LocalArrivals, Rate, RateSet, Window
from edgeq.policy.retry import RetryBudget, RetryPolicy
from edgeq.policy.terms import Terms
from edgeq.response.relay import Exchange
from edgeq.wire.errors import Refused
from edgeq.wire.framing import ChunkedFramer
from tests.support.fake_transport import HIGH_WATER, FakeTransport, World, frozen_time


@pytest.fixture(autouse=True)
def _time_stands_still() -> Iterator[None]:
    with frozen_time():
        yield


REQUESTS = [
    b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET /a HTTP/1.0\r\n\r\n",
    b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200000,
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
    b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n".replace(b"/none", b"*"),
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n",
    b"\r\n",
    b"nonsense\r\n\r\n",
]
ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200000,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n186a0\r\n" + b"x" * 100000 + b"\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nuntil close",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhi",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more",
    b"garbage\r\n\r\n",
]
SMALL = dict.fromkeys(("proxy_header", "handshake", "head", "body", "write", "keepalive"), 5.0)


def check_stream(data: bytes, ended: bool, asked: list[Exchange]) -> None:
    """What a client got is a sequence of whole answers; only the last may be incomplete, and then visibly so.

    `ended`: the client has seen a FIN (not a reset). `asked`: its requests, in order, as they are in the log.
    """
    index = 0
    while data:
        head, found, rest = data.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.lower().split(b"\r\n")
        status = int(lines[0].split(b" ")[1])
        if status == 101:
            return
        if status < 200:
            data = rest
            continue
        fields = dict(line.split(b": ", 1) for line in lines[1:])
        if status in (204, 304) or (index < len(asked) and asked[index].head.method == b"HEAD"):
            data = rest
        elif b"content-length" in fields:
            data = rest[int(fields[b"content-length"]) :]
        elif fields.get(b"transfer-encoding") == b"chunked":
            framer = ChunkedFramer(True, True, 1000)
            try:
                framer.feed(rest)
            except Refused as error:
                raise AssertionError("a client got a malformed chunked body") from error
            data = framer.excess
        else:
            assert not ended or not asked[index].reason, "a client takes a cut answer for a whole one"
            return
        index += 1


class Walk(RuleBasedStateMachine):
    """The world and what the test must remember of it."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World
        self.got: dict[int, bytearray] = {}
        self.asked: dict[int, bytes] = {}
        self.answers: dict[int, bytes] = {}

    @initialize(
        connections=st.sampled_from([1, 2, 9]),
        queue=st.sampled_from([0, 1, 9]),
        max_requests=st.sampled_from([0, 2]),
        endpoints=st.sampled_from([0, 1, 1, 2]),
        deadline=st.sampled_from([0.0, 20.0]),
        tls=st.booleans(),
        path=st.sampled_from([b"/*", b"/*", b"/a"]),
        retry=st.sampled_from([0, 0, 2, 3]),
        rate=st.sampled_from([0, 0, 2]),
        balance=st.sampled_from(["p2c-ewma", "least-requests", "round-robin", "sticky", "consistent-hash"]),
        watched=st.booleans(),
    )
    def begin(
        self,
        connections: int,
        queue: int,
        max_requests: int,
        endpoints: int,
        deadline: float,
        tls: bool,
        path: bytes,
        retry: int,
        rate: int,
        balance: str,
        watched: bool,
    ) -> None:
        self.world = World(
            listener={"max_requests": max_requests},
            timeouts={**SMALL, "half_close": 1.0},
            limits={"body_bytes": 1000000},
            pool={
                "max_connections": connections,
                "queue": queue,
                "max_idle": 2,
                "max_connecting": 2,
                "idle_timeout": 30.0,
            },
            upstream_timeouts={"first_byte": 8.0, "body": 8.0, "tunnel": 40.0, "connect": 2.0},
            endpoints=endpoints,
            route_timeout_s=deadline,
            path=path,
            tls=tls,
            balance={"balance": balance, "breaker": Breaker(min_requests=3) if balance == "sticky" else None},
        )
        if watched:
            self.world.upstream.bulkhead.watch(self.world.upstream)
        route = self.world.shard.routes.routes[0]
        if retry:
            again = frozenset(
                (200, 503)
            )  # also answers that are good: all that may happen to an answer happens to these
            route.retry = RetryPolicy(True, True, again, retry, 5.0, 100_000, RetryBudget(0.5, 0.5))
        if rate:
            rates = [Rate("r", BY_CLIENT, [Window("r", rate, 1.0, 3)], True, HEADERS_IETF)]
            route.terms = Terms("r", "up", None, 1, RateSet(rates, 1, LocalArrivals()))

    # -- what can happen

    def client(self, number: int) -> FakeTransport | None:
        alive = [client for client in self.world.clients if not client.lost]
        return alive[number % len(alive)] if alive else None

    def server(self, number: int, busy: bool) -> FakeTransport | None:
        alive = [
            server
            for server in self.world.servers
            if not server.lost and (not busy or server.protocol.exchange is not None)
        ]
        return alive[number % len(alive)] if alive else None

    @precondition(lambda self: len(self.world.clients) < 6)
    @rule()
    def connect(self) -> None:
        self.world.connect()

    @rule(number=st.integers(0, 5), which=st.sampled_from(REQUESTS), cut=st.integers(0, 400), turn=st.booleans())
    def request(self, number: int, which: bytes, cut: int, turn: bool) -> None:
        """Bytes of a client: a rest that is due, or a new request, whole or in part."""
        client = self.client(number)
        if client is None:
            return
        data = self.asked.pop(id(client), b"") or which
        if cut and cut < len(data):
            self.asked[id(client)] = data[cut:]
            data = data[:cut]
        client.data(data)
        if turn:
            self.world.loop.run()

    @rule(number=st.integers(0, 9), which=st.sampled_from(ANSWERS), cut=st.integers(0, 300), turn=st.booleans())
    def answer(self, number: int, which: bytes, cut: int, turn: bool) -> None:
        """Bytes of an upstream: a rest that is due, or a new answer, whole or in part."""
        server = self.server(number, True)
        if server is None:
            return
        data = self.answers.pop(id(server), b"") or which
        if cut and cut < len(data):
            self.answers[id(server)] = data[cut:]
            data = data[:cut]
        server.data(data)
        if turn:
            self.world.loop.run()

    @rule(number=st.integers(0, 9))
    def unasked(self, number: int) -> None:
        """Bytes on any upstream connection."""
        server = self.server(number, False)
        if server is not None:
            server.data(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")

    @precondition(lambda self: self.world.dials)
    @rule(number=st.integers(0, 9), how=st.sampled_from(["ok", "ok", "ok", "failed", "lost"]))
    def dialed(self, number: int, how: str) -> None:
        world = self.world
        index = number % len(world.dials)
        if how == "ok":
            world.dial_ok(index)
        elif how == "failed":
            world.dial_failed("upstream_connect_refused", index)
        else:
            pool = world.dials[index]
            server = world.dial_ok(index, made_only=True)
            server.reset()
            world.loop.run()
            pool.dialed(server.protocol, 0.0)

    @rule(number=st.integers(0, 9), server=st.booleans(), how=st.sampled_from(["eof", "reset"]), turn=st.booleans())
    def leave(self, number: int, server: bool, how: str, turn: bool) -> None:
        transport = self.server(number, False) if server else self.client(number)
        if transport is not None:
            if server:
                self.world.stale.add(transport)
            getattr(transport, how)()
            if turn:
                self.world.loop.run()

    @rule(number=st.integers(0, 9), server=st.booleans(), size=st.sampled_from([0, 100, HIGH_WATER, 1 << 30]))
    def reading(self, number: int, server: bool, size: int) -> None:
        """The other side stops reading, or reads a little, or all."""
        transport = self.server(number, False) if server else self.client(number)
        if transport is not None:
            if size:
                transport.drain(size)
            else:
                transport.block()

    @rule(seconds=st.sampled_from([0.2, 1.5, 3.0, 6.0, 30.0]))
    def time(self, seconds: float) -> None:
        self.world.advance(seconds)
        for pool in self.world.upstream.pools:
            pool.expire_waiting(self.world.now)
        self.world.upstream.tick(self.world.now)

    @rule()
    def turn(self) -> None:
        self.world.loop.run()

    @rule()
    def reload(self) -> None:
        self.world.shard.generation += 1

    @precondition(lambda self: len(self.world.upstream.pools) > 1)
    @rule()
    def retire(self) -> None:
        *pools, last = self.world.upstream.pools
        self.world.upstream.set_pools(pools, {}, self.world.now)
        last.retire()

    # -- what must hold

    @invariant()
    def counts(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        pools: list[Any] = list({id(pool): pool for pool in [*world.upstream.pools, *world.dials]}.values())
        for pool in pools:
            world.check_pool(pool)
        running = [client.protocol.exchange for client in world.clients if client.protocol.exchange is not None]
        assert world.shard.in_flight == len(running) == world.shard.requests - len(world.ring)
        for exchange in running:
            assert not exchange.ended
            assert exchange.up is None or exchange.up.exchange is exchange
            assert exchange.waiting_in is None or exchange in exchange.waiting_in.waiting
            assert exchange.up is None or exchange.waiting_in is None
            assert exchange.up is not None or exchange.waiting_in is not None, "an exchange that nobody will end"
            assert len(exchange.pending) <= 2 * 200000 + HIGH_WATER
        bulkhead = world.upstream.bulkhead
        held = [exchange for exchange in running if exchange.held is bulkhead]
        assert bulkhead.in_flight == len(held)
        if bulkhead.watcher is not None:
            assert bulkhead.heard == len([one for one in held if one.answer_started])
        for exchange in world.ring:
            assert exchange.ended
            assert exchange.up is None
            assert exchange.waiting_in is None
            assert exchange.status
        for server in world.servers:
            exchange = server.protocol.exchange
            assert exchange is None or (exchange.up is server.protocol and not exchange.ended)
            if exchange is not None and not exchange.down.write_blocked:
                assert server.reading or server.closing or exchange.tunnel, "an answer that nobody reads"
        for client in world.clients:
            assert client.get_write_buffer_size() < 900_000, "more is buffered for a client than two answers"

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        world.loop.run()
        for client in world.clients:
            client.drain()
            if not client.lost and not client.closing:
                client.eof()
            world.loop.run()
        for client in world.clients:
            asked = [exchange for exchange in world.ring if exchange.down is client.protocol]
            check_stream(bytes(client.sent), client.fin_sent and not client.is_reset, asked)
            if not client.lost:
                client.protocol.abort()
            world.loop.run()
        while world.dials:
            world.dial_ok()
        for server in world.servers:
            if not server.lost and not server.closing:
                server.reading = True
                server.reset()
            server.drain()
            world.loop.run()
        world.check_settled()
        assert len(world.gone) == len(world.clients)
        assert not world.shard.downstreams


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
