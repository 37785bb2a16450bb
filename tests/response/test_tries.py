"""Between two tries: the pause, the place that is given up, what the upstream has asked for, and how many at once."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgeq.response.tries
from edgeq.config.base import Duration
from edgeq.config.schema import Breaker, Eject, Queue
from edgeq.config.schema import Upstream as UpstreamConfig
from edgeq.policy.retry import RetryBudget, RetryPolicy
from edgeq.upstream.breaker import OPEN
from edgeq.worker.wheel import FINE_TICK_S
from tests.policy.test_retry import GET, OK, begin, server_of, sorry, world
from tests.support.fake_transport import World, frozen_time

LONG = UpstreamConfig(endpoints=(), limit=1, queue=Queue(timeout=Duration(60)), eject=Eject(failures=0, deviations=0.0))


@pytest.fixture(autouse=True)
def _time_stands_still(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """And what is drawn at random is always a half."""
    monkeypatch.setattr(edgeq.response.tries, "random", lambda: 0.5)
    with frozen_time():
        yield


def paused(made: World, backoff_s: float = 0.1, max_backoff_s: float = 0.4) -> RetryPolicy:
    """Make the only route pause between two tries."""
    policy = made.shard.routes.routes[0].retry
    assert policy is not None
    policy.backoff_s = backoff_s
    policy.max_backoff_s = max_backoff_s
    return policy


# -- pauses -----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 100), st.floats(0, 1, exclude_max=True), st.floats(0, 10), st.floats(0, 10))
def test_a_pause_is_bounded(tries: int, draw: float, backoff_s: float, max_backoff_s: float) -> None:
    """From 0 to the bound of this try, which doubles up to the bound of all."""
    policy = RetryPolicy(True, True, frozenset(), 2, 0.0, 0, RetryBudget(0.2, 3.0), backoff_s, max_backoff_s)
    pause_s = policy.pause_s(tries, draw)
    assert 0 <= pause_s <= max_backoff_s
    assert pause_s <= backoff_s * 2 ** (tries - 1)
    assert policy.pause_s(tries, 0.0) == 0


def test_a_try_waits_for_the_end_of_its_pause() -> None:
    """Half of 100 ms, then of 200 ms, then of 400 ms twice: the bound. Late by a tick of the wheel at most."""
    made = world(503, attempts=5)
    paused(made)
    client, server = begin(made, GET)
    for pause_s in (0.05, 0.1, 0.2, 0.2):
        server.take()
        server.data(sorry())
        made.advance(pause_s - 0.001)
        assert not made.dials
        assert all(not one.sent for one in made.servers)
        made.advance(0.001 + 2 * FINE_TICK_S)
        server = server_of(made)
        assert server.sent
    server.data(OK)
    assert client.take().endswith(b"ok")
    assert made.log[0].attempts == 5
    assert made.log[0].queued_at == pytest.approx(made.now, abs=0.001)
    made.check_settled()
    assert made.shard.fine_wheel.is_idle()


def test_a_pause_may_be_as_long_as_it_is_configured() -> None:
    """The bound on what an upstream may ask for is none on what the operator wants."""
    made = world(503)
    paused(made, 60.0, 60.0)
    client, server = begin(made, GET)
    server.data(sorry())
    assert not client.sent
    made.advance(31.0)
    server_of(made).data(OK)
    assert client.take().endswith(b"ok")


def test_no_pause_goes_beyond_the_deadline() -> None:
    """What would come too late is not begun: the client gets what the upstream has said."""
    made = world(503, route_timeout_s=1.0)
    paused(made, 3.0, 3.0)
    client, server = begin(made, GET)
    server.data(sorry())
    assert client.take().endswith(b"sorry")
    assert made.log[0].attempts == 1
    made.check_settled()


def test_time_that_runs_out_behind_the_pause() -> None:
    """The queue after it may take longer than the deadline."""
    made = world(503, route_timeout_s=1.0)
    made.upstream.configure(LONG, 1)
    paused(made)
    client, server = begin(made, GET)
    server.data(sorry())
    other, _ = begin(made, GET)
    made.advance(0.2)
    assert made.upstream.bulkhead.queue.queued == 1
    made.advance(1.0)
    assert client.take().startswith(b"HTTP/1.1 504")
    assert other.take().startswith(b"HTTP/1.1 504")
    made.check_settled()


def test_who_leaves_during_the_pause_leaves_nothing_behind() -> None:
    """No timer, no retry that still counts, no place."""
    made = world(503)
    policy = paused(made)
    client, server = begin(made, GET)
    server.data(sorry())
    assert policy.budget.running == 1
    client.reset()
    made.loop.run()
    assert (policy.budget.running, made.upstream.bulkhead.in_flight) == (0, 0)
    made.advance(1.0)
    assert made.shard.fine_wheel.is_idle()
    assert not made.dials
    made.check_settled()


# -- places -----------------------------------------------------------------------------------------------------------


def test_each_try_is_a_service_time_of_its_own() -> None:
    """During the pause the place is another request's, and what the limit is learned from has two short times."""
    made = world(500, 503)
    made.upstream.configure(LONG, 1)
    paused(made)
    bulkhead = made.upstream.bulkhead
    client, server = begin(made, GET)
    second = made.connect()
    second.data(GET)
    assert bulkhead.queue.queued == 1
    made.advance(2.0)
    server.data(sorry(b"500 No"))
    assert (bulkhead.in_flight, bulkhead.queue.queued, bulkhead.ok, bulkhead.ok_held_s) == (1, 0, 1, 2.0)
    made.advance(0.2)
    assert bulkhead.queue.queued == 1  # the place is taken: the retry waits for its turn like everybody
    server = server_of(made)
    made.advance(1.0)
    server.data(OK)
    assert second.take().endswith(b"ok")
    server = server_of(made)
    made.advance(3.0)
    server.data(sorry())
    assert client.take().endswith(b"sorry")
    assert (bulkhead.in_flight, bulkhead.ok, round(bulkhead.ok_held_s, 6)) == (0, 2, 3.2)
    assert (bulkhead.dropped, bulkhead.busy, round(bulkhead.held_s, 6)) == (1, 1, 6.2)
    made.check_settled()


def test_a_retry_that_we_shed_ourselves_is_shed() -> None:
    """The queue has no place for it: that is the end, whatever is left of attempts and budget."""
    made = world(503, attempts=9)
    config = UpstreamConfig(endpoints=(), limit=1, queue=Queue(max=0), eject=Eject(failures=0, deviations=0.0))
    made.upstream.configure(config, 1)
    policy = paused(made)
    client, server = begin(made, GET)
    server.data(sorry())
    begin(made, GET)
    made.advance(0.2)
    told = json.loads(client.take().partition(b"\r\n\r\n")[2])
    assert (told["reason"], told["resource"]) == ("queue_full", "upstream/up:queue")
    assert (made.log[0].attempts, policy.budget.running) == (1, 0)


def test_the_balancer_hears_of_answers_that_are_tried_again() -> None:
    """A failure is a failure of its endpoint, also if the client does not see it."""
    made = world(500)
    _, server = begin(made, GET)
    server.data(sorry(b"500 No"))
    assert [member.failed for member in made.upstream.members] == [1, 0]


# -- what the upstream has asked for ----------------------------------------------------------------------------------

DATES = (b"Date: Thu, 26 Nov 2026 10:00:00 GMT", b"Retry-After: Thu, 26 Nov 2026 10:00:02 GMT")


@pytest.mark.parametrize("lines", [(b"Retry-After: 2",), DATES], ids=["seconds", "date"])
def test_a_lone_endpoint_is_asked_when_it_has_said(lines: tuple[bytes, ...]) -> None:
    """Two seconds, by its own clock if it has given a date."""
    made = world(503, endpoints=1)
    client, server = begin(made, GET)
    server.take()
    server.data(sorry(b"503 Busy", *lines))
    made.advance(1.99)
    assert not server.sent
    made.advance(0.02)
    assert server_of(made).sent
    server.data(OK)
    assert client.take().endswith(b"ok")
    made.check_settled()


@pytest.mark.parametrize(
    ("timeout_s", "after_s", "again"), [(3.0, 2, True), (2.0, 2, False), (0.0, 10, True), (0.0, 11, False)]
)
def test_it_is_believed_within_the_deadline(timeout_s: float, after_s: int, again: bool) -> None:
    """What comes later is the client's to wait for: it gets the answer, with its Retry-After."""
    made = world(503, endpoints=1, route_timeout_s=timeout_s)
    client, server = begin(made, GET)
    server.data(sorry(b"503 Busy", b"Retry-After: %d" % after_s))
    assert (b"Retry-After: %d" % after_s in client.take()) != again


def test_another_endpoint_has_not_said_so() -> None:
    """It is asked at once; when it says the same, there is nobody else."""
    made = world(503, attempts=3)
    client, server = begin(made, GET)
    server.data(sorry(b"503 Busy", b"Retry-After: 2"))
    other = server_of(made)
    assert other.protocol.pool is not server.protocol.pool
    server.take(), other.take()
    other.data(sorry(b"503 Busy", b"Retry-After: 1"))
    made.advance(0.99)
    assert not server.sent
    assert not other.sent
    made.advance(0.02)
    server_of(made).data(OK)
    assert client.take().endswith(b"ok")
    made.check_settled()


# -- how many at once -------------------------------------------------------------------------------------------------


def test_a_fifth_of_those_in_flight_or_three() -> None:
    """With few in flight three may run; the fourth is passed on with its reason, until one of the three has ended."""
    made = world(503, budget=RetryBudget(1.0, 100.0))
    policy = paused(made, 10.0, 10.0)
    running = [begin(made, GET) for _ in range(5)]
    for _, server in running[:4]:
        server.data(sorry())
    assert [client.take()[9:12] for client, _ in running[:4]] == [b""] * 3 + [b"503"]
    tries = made.log[0].tries
    assert tries is not None
    assert tries.second_reason == "retry_budget_exhausted"
    assert (policy.budget.running, policy.budget.refused) == (3, 1)
    running[0][0].reset()
    made.loop.run()
    running[4][1].data(sorry())
    assert running[4][0].take() == b""
    assert policy.budget.running == 3


def test_more_in_flight_more_retries() -> None:
    """A fifth of thirty is six."""
    budget = RetryBudget(1.0, 100.0)
    assert sum(budget.take(1000.0, 30) for _ in range(30)) == 6
    budget.ended()
    assert [budget.take(1000.0, 30) for _ in range(2)] == [True, False]


def test_no_retry_for_an_upstream_that_is_down() -> None:
    """The failure that opens the circuit is told as it is."""
    made = world(500, attempts=5)
    breaker = Breaker(min_requests=1, window=Duration(10), open=Duration(5), probes=1)
    eject = Eject(failures=0, deviations=0.0)
    made.upstream.configure(UpstreamConfig(endpoints=(), breaker=breaker, eject=eject), 1)
    client, server = begin(made, GET)
    server.data(sorry(b"500 No"))
    assert client.take().endswith(b"sorry")
    assert made.upstream.breaker is not None
    assert made.upstream.breaker.state == OPEN
    tries = made.log[0].tries
    assert tries is not None
    assert tries.second_reason == "circuit_open"
