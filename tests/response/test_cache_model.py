"""Any order of events around a route with a cache and a fallback: nothing is left behind, and nobody gets what is
another's.

Each answer of the upstream says in its body what it was made for, so that a client can tell whether it may have it.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import edgeq.cache.cache
from edgeq.cache.cache import RouteCache
from edgeq.cache.rules import CacheSettings
from tests.response.test_cache import WALL, Got, get, ok
from tests.response.test_fallback import PREPARED, Backed
from tests.support.fake_transport import CLOCK, FakeTransport, frozen_time

CACHE: Any = edgeq.cache.cache
TARGETS = [b"/a", b"/b"]
CREDENTIALS = [b"", b"", b"", b"red", b"blue"]
CODINGS = [b"", b"gzip"]
FRESH = [b"max-age=60", b"max-age=5", b"max-age=60, public", b"no-cache", b"max-age=3, stale-while-revalidate=20"]
OWN = [b"private", b"no-store", b""]


class Model(RuleBasedStateMachine):
    """One worker, some clients, two upstreams."""

    def __init__(self) -> None:
        super().__init__()
        self._time = frozen_time()
        self._time.__enter__()
        self._known_time = CACHE.time
        CACHE.time = lambda: WALL + CLOCK.now_s
        self.made = Backed(answer=PREPARED, on=("shed", "failed", "500"))
        self.cache = RouteCache(CacheSettings(20_000, 4000, stale_if_error_s=30.0, join_s=4.0))
        self.made.route.cache = self.cache
        self.clients: list[tuple[FakeTransport, bytes, bytes, bytes]] = []
        self.served: list[FakeTransport] = []

    @rule(
        path=st.sampled_from(TARGETS),
        credential=st.sampled_from(CREDENTIALS),
        coding=st.sampled_from(CODINGS),
        line=st.sampled_from([b"", b"", b"", b'If-None-Match: "e"', b"Cache-Control: no-cache", b"Range: bytes=0-1"]),
        method=st.sampled_from([b"GET", b"GET", b"GET", b"GET", b"HEAD", b"DELETE"]),
    )
    def ask(self, path: bytes, credential: bytes, coding: bytes, line: bytes, method: bytes) -> None:
        lines = [line] if line else []
        if credential:
            lines.append(b"Authorization: " + credential)
        if coding:
            lines.append(b"Accept-Encoding: " + coding)
        client = self.made.connect()
        client.data(get(*lines, target=path, method=method))
        self.made.loop.run()
        self.clients.append((client, path, credential, coding))

    def busy(self) -> list[FakeTransport]:
        return [one for one in self.made.servers if one.protocol.exchange is not None and not one.closing]

    def answer(self, server: FakeTransport, kind: str, control: bytes, size: int, vary: bool, cut: int) -> None:
        head = server.protocol.exchange.head
        coding = b"gzip" if b"gzip" in head.raw else b""
        owner = b""
        for credential in (b"red", b"blue"):
            if b"Authorization: " + credential in head.raw:
                owner = credential
        shared = control != b"" and control not in OWN and (not owner or b"public" in control)
        body = b"|".join([head.target, owner, coding if vary else b"any", b"shared" if shared else b"own", b"x" * size])
        lines = [b'ETag: "e%d"' % (size % 3)]
        if vary:
            lines.append(b"Vary: Accept-Encoding")
        if head.method == b"HEAD":
            data = ok(body, *lines, control=control)[: -len(body)]
        elif kind == "304":
            data = b"HTTP/1.1 304 Not Modified\r\n\r\n"
        elif kind == "500":
            data = ok(body, control=b"", status=b"500 No")
        elif kind == "chunked":
            data = ok(body, *lines, control=control).replace(
                b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked"
            )[: -len(body)]
            data += b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        else:
            data = ok(body, *lines, control=control)
        cut = cut % len(data)
        server.data(data[:cut])
        if not server.closing and server.protocol.exchange is not None:
            server.data(data[cut:])
        self.made.loop.run()

    @precondition(lambda self: bool(self.busy()))
    @rule(
        which=st.integers(0, 9),
        kind=st.sampled_from(["plain", "plain", "plain", "chunked", "304", "500"]),
        control=st.sampled_from(FRESH + OWN),
        size=st.sampled_from([0, 1, 50, 1000, 3000, 6000]),
        vary=st.booleans(),
        cut=st.integers(0, 5000),
    )
    def upstream_answers(self, which: int, kind: str, control: bytes, size: int, vary: bool, cut: int) -> None:
        busy = self.busy()
        self.answer(busy[which % len(busy)], kind, control, size, vary, cut)

    @precondition(lambda self: bool(self.busy()))
    @rule(which=st.integers(0, 9), within=st.booleans())
    def upstream_resets(self, which: int, within: bool) -> None:
        busy = self.busy()
        server = busy[which % len(busy)]
        if within and server.protocol.exchange.head.method == b"GET":
            server.data(ok(b"x" * 100)[:-50])
        server.reset()
        self.made.loop.run()

    @precondition(lambda self: bool(self.made.dials))
    @rule(which=st.integers(0, 9), works=st.booleans())
    def dialed(self, which: int, works: bool) -> None:
        index = which % len(self.made.dials)
        if works:
            self.made.dial_ok(index)
        else:
            self.made.dial_failed(index=index)

    @precondition(lambda self: bool(self.clients))
    @rule(which=st.integers(0, 99), how=st.sampled_from(["reset", "block", "drain"]))
    def client_acts(self, which: int, how: str) -> None:
        client = self.clients[which % len(self.clients)][0]
        if how == "reset":
            client.reset()
        elif how == "block":
            client.block()
        else:
            client.drain()
        self.made.loop.run()

    @rule(seconds=st.sampled_from([0.2, 1.0, 3.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.made.advance(seconds)

    @invariant()
    def bounds_hold(self) -> None:
        snapshot = self.cache.snapshot(CLOCK.now_s)
        size: Any = snapshot["bytes"]
        assert 0 <= size <= 20_000
        waiting = {one for flight in self.cache.flights.values() for one in flight.joined}
        for exchange in waiting:
            assert not exchange.ended
            assert exchange.up is None
        for flight in self.cache.flights.values():
            assert not flight.leader.ended

    @invariant()
    def nobody_gets_what_is_anothers(self) -> None:
        for client, target, credential, coding in self.clients:
            data = client.take()
            if not data or client in self.served:
                continue
            self.served.append(client)
            got = Got(data)
            if got.status != 200 or not got.body.startswith(b"/"):
                continue
            said, owner, variant, shared, _ = got.body.split(b"|", 4)
            assert said == target
            assert shared == b"shared" or owner == credential
            assert variant in (b"any", coding)

    def teardown(self) -> None:
        try:
            for _ in range(200):
                for client, *_rest in self.clients:
                    client.drain()
                while self.made.dials:
                    self.made.dial_ok()
                for server in self.busy():
                    self.answer(server, "plain", b"max-age=60", 1, False, 0)
                if not self.made.dials and not self.busy():
                    break
            self.made.advance(5)
            while self.made.dials:
                self.made.dial_ok()
            for server in self.busy():
                self.answer(server, "plain", b"max-age=60", 1, False, 0)
            self.made.quiet()
            assert not self.cache.flights
            snapshot = self.cache.snapshot(CLOCK.now_s)
            assert (snapshot["collecting"], snapshot["collecting_bytes"]) == (0, 0)
            for client, *_rest in self.clients:
                assert client in self.served or client.take() or client.closing
        finally:
            CACHE.time = self._known_time
            self._time.__exit__(None, None, None)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
