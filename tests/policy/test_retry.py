"""Trying again: what is safe, what the budget allows, and what the client sees when nothing helps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.policy.retry import WINDOW_S, RetryBudget, RetryPolicy
from edgeq.response.access_log import render
from edgeq.wire.h1_response import parse_response
from tests.support.fake_transport import FakeTransport, World, frozen_time

MANY = 1 << 20
"""Requests in flight: of those at once there may always be more."""
GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def sorry(status: bytes = b"503 Service Unavailable", *lines: bytes, body: bytes = b"sorry") -> bytes:
    """An answer that is no good."""
    return b"\r\n".join((b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *lines, b"", body))


@pytest.fixture(autouse=True)
def _time_stands_still() -> Iterator[None]:
    with frozen_time():
        yield


def world(
    *statuses: int,
    attempts: int = 2,
    per_try_s: float = 0.0,
    body_bytes: int = 100,
    budget: RetryBudget | None = None,
    reset: bool = True,
    **more: Any,
) -> World:
    """A worker whose only route has this policy, and two endpoints."""
    made = World(**{"endpoints": 2, **more})
    policy = RetryPolicy(
        reset, True, frozenset(statuses), attempts, per_try_s, body_bytes, budget or RetryBudget(0.2, 3.0)
    )
    made.shard.routes.routes[0].retry = policy
    return made


def begin(made: World, request: bytes) -> tuple[FakeTransport, FakeTransport]:
    """A new client's request, at an upstream."""
    client = made.connect()
    client.data(request)
    made.loop.run()
    return client, server_of(made)


def server_of(made: World) -> FakeTransport:
    """The upstream connection that has the request now."""
    if made.dials:
        return made.dial_ok()
    return next(server for server in made.servers if server.protocol.exchange is not None)


# -- the budget -------------------------------------------------------------------------------------------------------


def test_a_share_and_a_reserve() -> None:
    """A fifth of the requests and three a second, over ten seconds."""
    budget = RetryBudget(0.2, 3.0)
    assert sum(budget.take(1000.0, MANY) for _ in range(99)) == 30
    for _ in range(100):
        budget.request(1001.0)
    assert sum(budget.take(1002.0, MANY) for _ in range(99)) == 20
    assert not budget.take(1009.9, MANY)
    assert sum(budget.take(1010.0, MANY) for _ in range(99)) == 30
    assert budget.snapshot() == {
        "requests": 100,
        "retries": 50,
        "running": 80,
        "allowed": 50.0,
        "refused": 69 + 79 + 1 + 69,
    }
    budget.tick(2000.0)
    assert (budget.requests, budget.retries) == (0, 0)


class Others:
    """Other workers, as one of them sees them."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []
        self.counts = (0, 0)

    def publish(self, requests: int, retries: int) -> None:
        self.told.append((requests, retries))

    def requests(self) -> int:
        return self.counts[0]

    def retries(self) -> int:
        return self.counts[1]


def test_one_budget_for_all_workers() -> None:
    """What others have spent is spent, what others have earned may be used; each tells of its own."""
    others = Others()
    budget = RetryBudget(0.5, 0.1, others)
    budget.request(1000.0)
    others.counts = (3, 2)
    assert budget.take(1000.0, MANY)
    assert others.told == [(1, 1)]
    assert not budget.take(1000.0, MANY)
    others.counts = (5, 2)
    assert budget.take(1000.0, MANY)
    budget.tick(1001.0)
    assert others.told[-1] == (1, 2)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 4)), max_size=120), st.floats(0, 1), st.floats(0, 1))
def test_no_ten_seconds_have_more(steps: list[tuple[bool, float]], share: float, reserve: float) -> None:
    """Whenever one is allowed, those of the last ten seconds are within the budget; when one is not, one more is not
    (model: all moments)."""
    budget = RetryBudget(share, reserve)
    now = 1000.0
    requests: list[int] = []
    retries: list[int] = []
    for is_request, gap in steps:
        now += gap
        first = int(now) - WINDOW_S + 1
        if is_request:
            budget.request(now)
            requests.append(int(now))
            continue
        before = sum(second >= first for second in retries)
        allowed = before + 1 <= share * sum(second >= first for second in requests) + reserve * WINDOW_S
        assert budget.take(now, MANY) == allowed
        if allowed:
            retries.append(int(now))


# -- what is tried again ----------------------------------------------------------------------------------------------


def test_a_reset_goes_to_another_endpoint() -> None:
    """The client sees only the answer of the other one."""
    made = world()
    client, server = begin(made, GET)
    server.reset()
    made.loop.run()
    other = server_of(made)
    assert other.protocol.pool is not server.protocol.pool
    other.data(OK)
    assert client.take().startswith(b"HTTP/1.1 200")
    assert (made.log[0].attempts, made.log[0].reason) == (2, "")
    made.check_settled()


def test_only_idempotent_methods() -> None:
    """A POST that an upstream may have worked on is not sent again."""
    made = world(503)
    client, server = begin(made, POST)
    server.reset()
    made.loop.run()
    assert client.take().startswith(b"HTTP/1.1 502")
    client, server = begin(made, POST)
    server.data(sorry())
    assert client.take().startswith(b"HTTP/1.1 503")
    made.check_settled()


def test_a_status_that_is_no_good() -> None:
    """Its connection is kept for others, if all of the answer is there; the client gets the other endpoint's."""
    made = world(503)
    client, server = begin(made, GET)
    server.data(sorry())
    assert server.protocol.pool.idle == [server.protocol]
    server_of(made).data(OK)
    assert client.take().startswith(b"HTTP/1.1 200")
    made.check_settled()


@pytest.mark.parametrize(
    "rest", [sorry()[:-2], b"HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n", b"HTTP/1.1 503 X\r\n\r\n"]
)
def test_a_status_whose_body_is_still_to_come(rest: bytes) -> None:
    """It is not waited for: the connection goes."""
    made = world(503)
    client, server = begin(made, GET)
    server.data(rest)
    made.loop.run()
    assert server.closing
    server_of(made).data(OK)
    assert client.take().startswith(b"HTTP/1.1 200")
    made.check_settled()


def test_the_last_answer_is_passed_on() -> None:
    """After the last attempt the client gets what the upstream says, and the log says whose refusal it was."""
    made = world(503)
    client, server = begin(made, GET)
    server.data(sorry())
    server_of(made).data(sorry(b"503 Still", body=b"second"))
    assert client.take().endswith(b"second")
    assert (made.log[0].reason, made.log[0].attempts) == ("upstream_shed", 2)
    made.check_settled()


def test_three_attempts_at_two_endpoints() -> None:
    """When all have failed, the first is asked again."""
    made = world(502, attempts=3)
    client, first = begin(made, GET)
    first.data(sorry(b"502 Bad"))
    second = server_of(made)
    second.data(sorry(b"502 Bad"))
    third = server_of(made)
    third.data(OK)
    names = [made.servers[0].protocol.pool.name, second.protocol.pool.name, third.protocol.pool.name]
    assert names[0] == names[2] != names[1]
    assert client.take().startswith(b"HTTP/1.1 200")
    made.check_settled()


@pytest.mark.parametrize(
    ("answer", "again"),
    [
        (sorry(), True),
        (sorry(b"503 S", b"Retry-After: 5"), True),  # but not at once: see below
        (sorry(b"503 S", b'Proxy-Status: b; error=x; details="d"; edgeq-reason=queue_full'), False),
        (sorry(b"503 S", b"proxy-status: b; edgeq-reason=rate_limited; edgeq-resource=x"), False),
        (sorry(b"503 S", b"Proxy-Status: b; edgeq-reason=upstream_none_healthy"), True),
        (sorry(b"503 S", b"Proxy-Status: b; edgeq-reason=upstream_saturated"), False),
        (sorry(b"503 S", b"Proxy-Status: b; edgeq-reason=of_tomorrow"), False),
        (sorry(b"500 S"), False),
    ],
)
def test_answers_that_allow_another_try(answer: bytes, again: bool) -> None:
    """What another edgeq has shed does not."""
    policy = RetryPolicy(False, False, frozenset((503,)), 2, 0.0, 0, RetryBudget(0.2, 3.0))
    head = parse_response(answer[: answer.find(b"\r\n\r\n") + 4])
    assert policy.is_safe_after(head) == again


def test_a_try_has_its_own_time() -> None:
    """The per-try time-out is that of each try; the last one's failure names it."""
    made = world(per_try_s=1.0)
    client, server = begin(made, GET)
    made.advance(1.2)
    assert server.closing
    other = server_of(made)
    made.advance(0.5)
    assert not client.take()
    made.advance(0.7)
    assert other.closing
    assert b"retry.per_try_timeout passed" in client.take()
    assert made.log[0].reason == "upstream_timeout"
    made.check_settled()


def test_no_try_after_the_deadline() -> None:
    """The whole request has its time-out, whatever the tries have."""
    made = world(per_try_s=1.0, route_timeout_s=1.5, attempts=9)
    client, _ = begin(made, GET)
    made.advance(1.1)
    server_of(made)
    made.advance(0.6)
    assert client.take().startswith(b"HTTP/1.1 504")
    assert (made.log[0].reason, made.log[0].attempts) == ("deadline_expired", 2)
    assert not made.dials
    made.check_settled()


def test_nothing_after_an_answer_has_begun() -> None:
    """A body that is cut is cut."""
    made = world()
    client, server = begin(made, GET)
    server.data(OK[:-1])
    server.reset()
    made.loop.run()
    assert made.log[0].reason == "upstream_truncated"
    assert not made.dials
    client.take()


def test_nothing_for_a_client_that_has_left() -> None:
    """Its request is cancelled, not tried again."""
    made = world()
    client, server = begin(made, GET)
    client.reset()
    made.loop.run()
    assert server.closing
    assert not made.dials
    made.check_settled()


# -- bodies -----------------------------------------------------------------------------------------------------------


def put(size: int, *first: bytes) -> bytes:
    """The head of a PUT, and the first bytes of its body."""
    return b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"".join(first)


def body_of(server: FakeTransport) -> bytes:
    """What an upstream has got of a body."""
    return server.take().partition(b"\r\n\r\n")[2]


def test_a_body_is_sent_again_while_it_comes() -> None:
    """The second endpoint gets all of it, although the first has had a part, and the rest follows."""
    made = world()
    client, server = begin(made, put(6, b"ab"))
    client.data(b"cd")
    made.loop.run()
    assert body_of(server) == b"abcd"
    server.reset()
    made.loop.run()
    other = server_of(made)
    client.data(b"ef")
    made.loop.run()
    assert body_of(other) == b"abcdef"
    other.data(OK)
    assert client.take().startswith(b"HTTP/1.1 200")
    made.check_settled()


def test_a_chunked_body_is_sent_again() -> None:
    """As it was framed for the first."""
    made = world()
    head = b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    client, server = begin(made, head + b"2\r\nab\r\n")
    client.data(b"0\r\n\r\n")
    made.loop.run()
    first = body_of(server)
    server.reset()
    made.loop.run()
    other = server_of(made)
    assert body_of(other) == first == b"2\r\nab\r\n0\r\n\r\n"
    other.data(OK)
    assert client.take().startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("at_once", [True, False])
def test_a_body_beyond_the_bound_is_not_kept(at_once: bool) -> None:
    """A large upload is not held in memory for a retry that may never be."""
    made = world(body_bytes=4)
    client, server = begin(made, put(6, b"abcdef" if at_once else b"ab"))
    if not at_once:
        client.data(b"cdef")
    made.loop.run()
    assert server.protocol.exchange.pending == (b"abcdef" if at_once else b"")
    server.reset()
    made.loop.run()
    assert client.take().startswith(b"HTTP/1.1 502")
    made.check_settled()


# -- when the budget is spent -----------------------------------------------------------------------------------------


def empty() -> RetryBudget:
    """Nothing is allowed."""
    return RetryBudget(0.0, 0.0)


def test_a_failure_that_is_not_tried_again_says_so() -> None:
    """The first reason stays; the second is told beside it, to the client and in the log."""
    made = world(budget=empty())
    client, server = begin(made, GET)
    server.reset()
    made.loop.run()
    problem = json.loads(client.take().partition(b"\r\n\r\n")[2])
    assert problem["reason"] == "upstream_reset"
    assert "not tried again: retry_budget_exhausted" in problem["detail"]
    line = json.loads(render(made.log, "json", 0.0))
    assert (line["edgeq.reason"], line["edgeq.second_reason"]) == ("upstream_reset", "retry_budget_exhausted")


@pytest.mark.parametrize(
    ("status", "reason", "resource"),
    [
        (b"502 Bad", "retry_budget_exhausted", "route/r:retry"),
        (b"503 Busy", "upstream_shed", "upstream/up#10.0.0.1:80"),
    ],
)
def test_an_answer_that_is_passed_on_for_want_of_budget(status: bytes, reason: str, resource: str) -> None:
    """The client gets the upstream's answer, the log why it is the last one."""
    made = world(502, 503, budget=empty())
    client, server = begin(made, GET)
    server.data(sorry(status))
    assert client.take().endswith(b"sorry")
    entry = made.log[0]
    assert (entry.reason, entry.resource) == (reason, resource)
    assert entry.tries is not None
    assert entry.tries.second_reason == "retry_budget_exhausted"
    made.check_settled()


def test_without_a_policy_nothing_is_tried_again() -> None:
    """A status is passed on, a reset is told."""
    made = World(endpoints=2)
    client, server = begin(made, GET)
    server.reset()
    made.loop.run()
    assert client.take().startswith(b"HTTP/1.1 502")
    client, server = begin(made, GET)
    server.data(sorry())
    assert client.take().endswith(b"sorry")
    assert made.log[1].reason == "upstream_shed"
    made.check_settled()


def test_each_try_has_its_time_from_its_own_beginning() -> None:
    """A second try on a connection that was kept is not late already because the first one took its time."""
    made = world(503, upstream_timeouts={"first_byte": 10.0})
    first, one = begin(made, GET)
    second, other = begin(made, GET)
    one.data(OK)
    other.data(OK)
    first.take(), second.take(), one.take(), other.take()
    first.data(GET)
    made.advance(8.0)
    one.data(sorry())
    assert b"GET /a" in other.take()
    made.advance(8.0)
    assert first.take() == b""
    other.data(OK)
    assert first.take().endswith(b"ok")
    assert made.log[-1].sent_at == made.now - 8.0
    made.check_settled()
