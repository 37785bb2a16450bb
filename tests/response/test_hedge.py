"""Two tries of one request at once: who wins, what becomes of the other, and when there is no second one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgeq.admission.bulkhead import Bulkhead
from edgeq.config.schema import Breaker, Eject, Queue
from edgeq.config.schema import Upstream as UpstreamConfig
from edgeq.policy.hedge import HedgePolicy
from edgeq.policy.retry import RetryBudget, RetryPolicy
from edgeq.response.access_log import render
from edgeq.worker.wheel import NEVER
from tests.policy.test_retry import GET, OK, POST, begin, put, server_of, sorry, world
from tests.support.fake_transport import FakeTransport, World, frozen_time

EJECT = Eject(failures=0, deviations=0.0)
AFTER_S = 0.15
LATE_S = 0.17
"""Its tick has come as well."""


@pytest.fixture(autouse=True)
def _time_stands_still() -> Iterator[None]:
    with frozen_time():
        yield


def hedging(*statuses: int, after_s: float = AFTER_S, **more: Any) -> World:
    """A worker whose only route hedges."""
    made = world(*statuses, **more)
    policy_of(made).hedge = HedgePolicy(after_s)
    return made


def policy_of(made: World) -> RetryPolicy:
    policy = made.shard.routes.routes[0].retry
    assert policy is not None
    return policy


def limited(made: World, limit: int, **keys: Any) -> Bulkhead:
    made.upstream.configure(UpstreamConfig(**{"endpoints": (), "limit": limit, "eject": EJECT, **keys}), 1)
    return made.upstream.bulkhead


def two(made: World, request: bytes = GET) -> tuple[FakeTransport, FakeTransport, FakeTransport]:
    """A client whose request is at two endpoints."""
    client, first = begin(made, request)
    made.advance(LATE_S)
    second = made.dial_ok()
    assert second.protocol.pool is not first.protocol.pool
    return client, first, second


def settled(made: World, hedge: str, attempts: int = 2) -> None:
    """Everything is given back, and the log says how it went."""
    made.loop.run()
    made.check_settled()
    assert policy_of(made).budget.running == 0
    assert (made.upstream.bulkhead.in_flight, made.upstream.bulkhead.counted) == (0, 0)
    made.advance(1.0)
    assert made.shard.fine_wheel.is_idle()
    line = json.loads(render(made.log[-1:], "json", 0.0))
    assert (line.get("edgeq.hedge", ""), line["edgeq.attempts"]) == (hedge, attempts)


# -- who wins ---------------------------------------------------------------------------------------------------------


def test_the_second_answers_first() -> None:
    """The client gets its answer, the first is cut, and the balancer knows that it would have taken longer."""
    made = hedging()
    client, first, second = two(made)
    assert first.sent == second.sent
    made.advance(0.1)
    second.data(OK)
    made.loop.run()
    assert client.take().endswith(b"ok")
    assert first.aborted
    assert second.protocol.pool.idle == [second.protocol]
    assert [member.failed for member in made.upstream.members] == [0, 0]
    assert made.upstream.members[0].cost_s == pytest.approx(0.27)
    assert made.upstream.members[1].cost_s == pytest.approx(0.1)
    assert made.log[0].endpoint == second.protocol.pool.name
    budget = policy_of(made).budget
    assert (budget.taken, budget.hedges, budget.hedges_won) == (1, 1, 1)
    settled(made, "won")


def test_the_first_answers_after_all() -> None:
    """The second is cut as soon as an answer begins, not when it is over."""
    made = hedging()
    client, first, second = two(made)
    first.data(OK[:-1])
    made.loop.run()
    assert second.aborted
    assert policy_of(made).budget.running == 0
    first.data(OK[-1:])
    assert client.take().endswith(b"ok")
    settled(made, "lost")


def test_the_first_answers_while_the_second_has_no_connection() -> None:
    """Nobody is left in a pool's queue."""
    made = hedging()
    client, first = begin(made, GET)
    made.advance(LATE_S)
    first.data(OK)
    assert client.take().endswith(b"ok")
    assert not any(pool.waiting for pool in made.upstream.pools)
    assert made.dial_ok().sent == b""
    settled(made, "lost")


def test_an_answer_in_pieces_wins_when_its_head_is_whole() -> None:
    """Cut at every byte; interim answers are not passed on."""
    made = hedging()
    client, first, second = two(made)
    for byte in b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" + OK:
        second.data(bytes([byte]))
    assert client.take().count(b"HTTP/1.1 ") == 1
    assert first.aborted
    settled(made, "won")


@pytest.mark.parametrize(
    "answer", [sorry(b"500 No"), sorry(b"429 No"), sorry(b"404 No"), b"HTTP/1.1 101 X\r\n\r\n", b"?\r\n\r\n"]
)
def test_a_bad_answer_does_not_win(answer: bytes) -> None:
    """A fast failure is no reason to cut a try that may still succeed. 404 is what this route tries again."""
    made = hedging(404)
    client, first, second = two(made)
    second.data(answer)
    made.loop.run()
    assert second.closing
    assert not client.sent
    first.data(OK)
    assert client.take().endswith(b"ok")
    settled(made, "lost")


@pytest.mark.parametrize("end", ["reset", "fin", "timeout"])
def test_the_second_fails(end: str) -> None:
    """As if it had never been, but that its endpoint has failed."""
    made = hedging(upstream_timeouts={"first_byte": 1.0})
    client, first = begin(made, GET)
    made.advance(0.9)
    second = made.dial_ok()
    if end == "reset":
        second.reset()
    elif end == "fin":
        second.eof()
    made.loop.run()
    if end == "timeout":
        first.data(b"HTTP/1.1 200 OK\r\nContent-Length: 2")
        first.protocol.expire_in(9.0)
        made.advance(1.2)
    assert not client.sent
    first.data(b"\r\n\r\nok" if end == "timeout" else OK)
    assert client.take().endswith(b"ok")
    assert [member.failed for member in made.upstream.members] == [0, 1]
    settled(made, "lost")


@pytest.mark.parametrize("end", ["reset", "status", "timeout"])
def test_the_first_fails(end: str) -> None:
    """The second is the only try from there on; no retry is needed."""
    made = hedging(503, per_try_s=1.0)
    client, first, second = two(made)
    if end == "reset":
        first.reset()
    elif end == "status":
        first.data(sorry())
    else:
        second.protocol.expire_in(9.0)
        made.advance(1.0)
    made.loop.run()
    assert not client.sent
    assert not made.dials
    assert second.protocol.exchange is not None
    assert second.protocol.exchange.up is second.protocol
    second.data(OK)
    assert client.take().endswith(b"ok")
    settled(made, "lost")


def test_the_first_fails_before_the_second_has_a_connection() -> None:
    """The request waits for that connection, and goes on with it."""
    made = hedging()
    client, first = begin(made, GET)
    made.advance(LATE_S)
    first.reset()
    made.loop.run()
    assert not client.sent
    made.dial_ok().data(OK)
    assert client.take().endswith(b"ok")
    settled(made, "lost")


@pytest.mark.parametrize("attempts", [2, 3])
def test_both_fail(attempts: int) -> None:
    """A third try, if the policy has one; else what failed last."""
    made = hedging(attempts=attempts)
    client, first = begin(made, GET)
    made.advance(LATE_S)
    first.reset()
    made.loop.run()
    made.dial_failed()
    if attempts == 3:
        server_of(made).data(OK)
        assert client.take().endswith(b"ok")
        settled(made, "lost", 3)
    else:
        assert json.loads(client.take().partition(b"\r\n\r\n")[2])["reason"] == "upstream_connect_refused"
        settled(made, "lost")


def test_a_body_goes_to_both() -> None:
    """All of it."""
    made = hedging()
    client, first, second = two(made, put(4, b"abcd"))
    assert first.take().endswith(b"\r\n\r\nabcd")
    assert second.take().endswith(b"\r\n\r\nabcd")
    second.data(OK)
    assert client.take().endswith(b"ok")
    settled(made, "won")


def test_who_leaves_cancels_both() -> None:
    """Nothing runs for nobody."""
    made = hedging()
    client, first, second = two(made)
    client.reset()
    made.loop.run()
    assert first.aborted
    assert second.aborted
    settled(made, "lost")


# -- places and budget ------------------------------------------------------------------------------------------------


def test_a_hedge_has_a_place_of_its_own() -> None:
    """Two are taken while both run, one after one has won, and the first teaches the limit nothing."""
    made = hedging()
    bulkhead = limited(made, 2)
    client, first, second = two(made)
    assert bulkhead.in_flight == 2
    made.advance(0.1)
    second.data(OK[:-1])
    assert (bulkhead.in_flight, bulkhead.ok, bulkhead.ignored) == (1, 0, 1)
    second.data(OK[-1:])
    assert client.take().endswith(b"ok")
    assert (bulkhead.in_flight, bulkhead.ok, round(bulkhead.ok_held_s, 6)) == (0, 1, 0.1)
    assert first.aborted
    settled(made, "won")


@pytest.mark.parametrize("wins", [True, False])
def test_the_route_has_its_place_as_well(wins: bool) -> None:
    """One for the request, whoever answers it."""
    made = hedging()
    route = made.shard.routes.routes[0]
    route.bulkhead = Bulkhead("route/r", 1, made.now)
    limited(made, 2)
    client, first, second = two(made)
    assert (route.bulkhead.in_flight, made.upstream.bulkhead.in_flight) == (1, 2)
    (second if wins else first).data(OK[:-1])
    assert (route.bulkhead.in_flight, made.upstream.bulkhead.in_flight) == (1, 1)
    (second if wins else first).data(OK[-1:])
    assert client.take().endswith(b"ok")
    assert (route.bulkhead.in_flight, route.bulkhead.ok) == (0, 1)
    settled(made, "won" if wins else "lost")


def test_no_hedge_at_the_limit() -> None:
    """It does not wait, and takes nothing from those who do."""
    made = hedging()
    bulkhead = limited(made, 1, queue=Queue(max=5))
    client, first = begin(made, GET)
    made.advance(LATE_S)
    assert (bulkhead.in_flight, bulkhead.queue.queued, policy_of(made).budget.retries) == (1, 0, 0)
    assert not made.dials
    first.data(OK)
    assert client.take().endswith(b"ok")
    settled(made, "", 1)


def test_hedges_and_retries_have_one_budget() -> None:
    """What is spent is spent."""
    made = hedging(budget=RetryBudget(0.0, 0.1))
    client, _, second = two(made)
    second.data(OK)
    assert client.take().endswith(b"ok")
    client, first = begin(made, GET)
    made.advance(LATE_S)
    assert not made.dials
    assert policy_of(made).budget.refused == 1
    first.data(OK)
    assert client.take().endswith(b"ok")
    settled(made, "", 1)


@pytest.mark.parametrize(
    "why", ["post", "endpoint", "full", "sticky", "circuit", "body", "large", "deadline", "begun", "upgrade"]
)
def test_no_hedge(why: str) -> None:
    """Only what may arrive twice, elsewhere, where there is room, and in time."""
    more: dict[str, Any] = {"endpoints": 1} if why == "endpoint" else {}
    if why == "deadline":
        more["route_timeout_s"] = AFTER_S
    if why == "full":
        more["pool"] = {"max_connections": 1}
    made = hedging(**more)
    if why == "sticky":
        limited(made, 9, balance="sticky")
    if why == "circuit":
        limited(made, 9, breaker=Breaker())
    if why == "full":
        begin(made, GET)
    request = {
        "post": POST,
        "body": put(2, b"h"),
        "large": put(101, b"h" * 101),
        "upgrade": GET[:-2] + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    }.get(why, GET)
    _, first = begin(made, request)
    if why == "circuit":
        breaker = made.upstream.breaker
        assert breaker is not None
        breaker.state = 1
    if why == "begun":
        first.data(b"HTTP/1.1 200 OK\r\n")
    made.advance(LATE_S)
    assert not made.dials
    assert policy_of(made).budget.retries == 0


# -- when -------------------------------------------------------------------------------------------------------------


def test_the_95th_percentile_is_learned() -> None:
    """Nothing is known at first; then nineteen of twenty are quick enough, whatever quick is."""
    policy = HedgePolicy(0.0)
    assert policy.after_s() == NEVER
    for number in range(64):
        policy.answered(0.3 if number % 20 == 7 else 0.02, 1.0)
    assert policy.after_s() == pytest.approx(0.02)
    for _ in range(64):
        policy.answered(0.5, 2.0)
    assert policy.after_s() == 0.5
    for _ in range(64):
        policy.answered(0.0001, 3.0)
    assert policy.after_s() == 0.001


def test_a_hedge_by_percentile() -> None:
    """Twenty answers of 40 ms: the next request is hedged after as much, and its rescue counts from its beginning."""
    made = hedging(after_s=0.0)
    for _ in range(20):
        client, server = begin(made, GET)
        made.advance(0.04)
        server.data(OK)
        assert client.take().endswith(b"ok")
    client, first = begin(made, GET)
    made.advance(0.03)
    assert sum(server.protocol.exchange is not None for server in made.servers) == 1
    made.advance(0.02)
    second = next(one for one in made.servers if one.protocol.exchange is not None and one is not first)
    second.data(OK)
    assert client.take().endswith(b"ok")
    settled(made, "won")


# -- anything ---------------------------------------------------------------------------------------------------------


class Anything(RuleBasedStateMachine):
    """Clients, endpoints and time do what they like: in the end nothing is held, and each request had one answer."""

    def __init__(self) -> None:
        super().__init__()
        self.time = frozen_time()
        self.time.__enter__()
        self.made = hedging(503, attempts=4, endpoints=3, per_try_s=0.5, route_timeout_s=3.0)
        policy = policy_of(self.made)
        policy.backoff_s = 0.05
        policy.max_backoff_s = 0.1
        self.bulkhead = limited(self.made, 3, queue=Queue(max=4))
        route = self.made.shard.routes.routes[0]
        route.bulkhead = Bulkhead("route/r", 5, self.made.now)
        self.clients: list[FakeTransport] = []

    def busy(self) -> list[FakeTransport]:
        return [one for one in self.made.servers if one.protocol.exchange is not None and not one.closing]

    @rule(request=st.sampled_from([GET, POST, put(3, b"abc"), put(3, b"a")]))
    def ask(self, request: bytes) -> None:
        client = self.made.connect()
        client.data(request)
        self.clients.append(client)
        self.made.loop.run()

    @rule(seconds=st.sampled_from([0.01, 0.06, 0.16, 0.6]))
    def wait(self, seconds: float) -> None:
        self.made.advance(seconds)
        self.made.upstream.learn(self.made.now)

    @rule(good=st.booleans(), pick=st.integers(0, 9))
    def dial(self, good: bool, pick: int) -> None:
        if self.made.dials:
            index = pick % len(self.made.dials)
            if good:
                self.made.dial_ok(index)
            else:
                self.made.dial_failed(index=index)

    @rule(
        data=st.sampled_from(
            [OK, OK[:20], OK[:-1], sorry(), sorry(b"500 No"), b"?\r\n\r\n", b"HTTP/1.1 103 X\r\n\r\n"]
        ),
        pick=st.integers(0, 9),
    )
    def answer(self, data: bytes, pick: int) -> None:
        busy = self.busy()
        if busy:
            busy[pick % len(busy)].data(data)
            self.made.loop.run()

    @rule(by_reset=st.booleans(), pick=st.integers(0, 9))
    def end(self, by_reset: bool, pick: int) -> None:
        busy = self.busy()
        if busy:
            server = busy[pick % len(busy)]
            (server.reset if by_reset else server.eof)()
            self.made.loop.run()

    @rule(pick=st.integers(0, 9))
    def leave(self, pick: int) -> None:
        if self.clients:
            client = self.clients.pop(pick % len(self.clients))
            if not client.closing:
                client.reset()
            self.made.loop.run()

    @invariant()
    def is_sound(self) -> None:
        for pool in self.made.upstream.pools:
            self.made.check_pool(pool)
        assert 0 <= self.bulkhead.in_flight <= 3
        assert not (self.bulkhead.queue.queued and self.bulkhead.in_flight < 3)
        running = sum(len(pool.waiting) for pool in self.made.upstream.pools) + len(self.busy())
        assert running <= self.bulkhead.in_flight
        assert 0 <= policy_of(self.made).budget.running <= 3

    def teardown(self) -> None:
        made = self.made
        while made.dials:
            made.dial_ok()
        for _ in range(5):
            made.advance(2.0)
            made.upstream.learn(made.now)
            while made.dials:
                made.dial_failed()
        for client in self.clients:
            if not client.closing:
                client.reset()
        made.loop.run()
        made.advance(20.0)
        made.check_settled()
        route = made.shard.routes.routes[0]
        assert route.bulkhead is not None
        assert (self.bulkhead.in_flight, self.bulkhead.queue.queued, route.bulkhead.in_flight) == (0, 0, 0)
        assert policy_of(made).budget.running == 0
        assert made.shard.fine_wheel.is_idle()
        assert made.shard.requests == len(made.ring)
        self.time.__exit__(None, None, None)


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
