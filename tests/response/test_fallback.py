"""A route with a fallback, by script: what is served in place of a refusal or a failure, and what never is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgeq.cache.cache import RouteCache
from edgeq.cache.rules import CacheSettings
from edgeq.config.schema import Upstream as UpstreamConfig
from edgeq.policy.fallback import CHOICES, FAILED, SHED, Fallback, PreparedAnswer
from edgeq.reasons import REASONS
from edgeq.response.access_log import render
from edgeq.route.table import Route
from edgeq.upstream.pool import Pool
from edgeq.upstream.upstream import Upstream
from tests.response.test_cache import Got, ask, get, ok
from tests.support.fake_transport import CLOCK, World, frozen_time

GET = get()
POST = b"POST /a HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello"
PREPARED = PreparedAnswer(200, "text/html", b"<p>later</p>")


@pytest.fixture(autouse=True)
def _time_stands_still() -> Iterator[None]:
    with frozen_time():
        yield


class Backed(World):
    """A worker whose route has a fallback: an upstream named `backup`, a prepared answer, or both."""

    def __init__(
        self,
        backup: bool = True,
        answer: PreparedAnswer | None = None,
        on: tuple[str, ...] = ("shed", "failed"),
        limit: int = 0,
        route_timeout_s: float = 0.0,
    ) -> None:
        super().__init__(route_timeout_s=route_timeout_s)
        self.backup = Upstream("backup", self.wheel)
        self.backup.configure(UpstreamConfig(endpoints=(), limit=limit), 1)
        self.backup.host = b"backup.example"
        self.backup.set_pools(
            [Pool(self.backup, "10.9.9.9:80", "10.9.9.9:80", self.dials.append, self._probe)], {}, CLOCK.now_s
        )
        self.route = self.shard.routes.routes[0]
        other = None
        if backup:
            other = Route("r", b"*", b"/*", self.backup, b"", route_timeout_s, -1)
            if answer is not None:
                other.fallback = Fallback(CHOICES, None, answer)
        self.route.fallback = Fallback(on, other, answer)
        self.route.graceful = True

    def quiet(self) -> None:
        """Nothing runs or waits, no permit is left behind."""
        self.loop.run()
        self.check_settled()
        for upstream in (self.upstream, self.backup):
            assert upstream.bulkhead.in_flight == 0
            assert all(not pool.waiting for pool in upstream.pools)


def line_of(world: World) -> bytes:
    """The last line of the access log."""
    return render(world.log[-1:], "json", 0.0)


def test_another_upstream_answers() -> None:
    """Once, by its own name; answer and log tell why, and what was served."""
    made = Backed()
    client = ask(made)
    made.dial_failed()
    server = made.dial_ok()
    sent = server.take()
    assert sent.startswith(b"GET /a HTTP/1.1\r\nHost: backup.example\r\n")
    server.data(ok(b"from backup"))
    made.loop.run()
    got = Got(client.take())
    assert (got.status, got.body) == (200, b"from backup")
    assert got.fields[b"proxy-status"] == (
        b"gw; edgeq-reason=upstream_connect_refused; "
        b'edgeq-resource="upstream/up#10.0.0.1:80"; edgeq-fallback="upstream/backup"'
    )
    line = line_of(made)
    assert b'"edgeq.reason":"upstream_connect_refused"' in line
    assert b'"edgeq.fallback":"upstream/backup"' in line
    assert b'"edgeq.upstream":"backup"' in line
    assert b'"edgeq.endpoint":"10.9.9.9:80"' in line
    assert b'"http.response.status_code":200' in line
    made.quiet()


def test_a_prepared_answer() -> None:
    """With our words on why; HEAD gets no body; the connection is kept."""
    made = Backed(backup=False, answer=PREPARED)
    client = ask(made)
    made.dial_failed()
    got = Got(client.take())
    assert (got.status, got.body, got.fields[b"content-type"]) == (200, b"<p>later</p>", b"text/html")
    assert b"error=connection_refused" in got.fields[b"proxy-status"]
    assert b'edgeq-fallback="answer"' in got.fields[b"proxy-status"]
    assert got.fields[b"cache-control"] == b"no-store"
    assert not client.closing
    ask(made, get(method=b"HEAD"), client)
    made.dial_failed()
    got = Got(client.take())
    assert (got.body, got.fields[b"content-length"]) == (b"", b"12")
    line = line_of(made)
    assert b'"edgeq.fallback":"answer"' in line
    assert b'"edgeq.reason":"upstream_connect_refused"' in line
    made.quiet()


@pytest.mark.parametrize("with_answer", [True, False])
def test_the_other_upstream_fails_as_well(with_answer: bool) -> None:
    """Then the prepared answer, or a refusal with the first reason; nothing goes in circles."""
    made = Backed(answer=PREPARED if with_answer else None)
    client = ask(made)
    made.dial_failed()
    made.dial_failed("upstream_connect_timeout")
    assert not made.dials
    got = Got(client.take())
    assert got.status == (200 if with_answer else 502)
    assert b"edgeq-reason=upstream_connect_refused" in got.fields[b"proxy-status"]
    line = line_of(made)
    assert b'"edgeq.reason":"upstream_connect_refused"' in line
    assert b'"edgeq.second_reason":"upstream_connect_timeout"' in line
    made.quiet()


def test_what_may_have_arrived_is_not_sent_twice() -> None:
    """The rules of retries: a POST that an upstream had is refused; one that was never sent goes with its body."""
    made = Backed()
    client, server = made.request(POST)
    server.reset()
    made.loop.run()
    assert not made.dials
    assert Got(client.take()).status == 502
    client = ask(made, POST)
    made.dial_failed()
    server = made.dial_ok()
    assert server.take().endswith(b"\r\n\r\nhello")
    server.data(ok(b"ok"))
    made.loop.run()
    assert Got(client.take()).status == 200
    made.quiet()


def test_a_safe_request_goes_on_after_a_reset() -> None:
    """Nothing of an answer had come."""
    made = Backed()
    client, server = made.request(GET)
    server.reset()
    made.loop.run()
    made.dial_ok().data(ok(b"again"))
    made.loop.run()
    assert Got(client.take()).body == b"again"
    made.quiet()


def test_a_body_that_still_comes_goes_on_to_the_other_upstream() -> None:
    """A request that was shed before it was sent may come to its end there."""
    made = Backed()
    client = ask(made, POST[:-3])
    made.dial_failed()
    server = made.dial_ok()
    client.data(b"llo")
    made.loop.run()
    assert server.take().endswith(b"\r\n\r\nhello")
    server.data(ok(b"ok"))
    made.loop.run()
    assert Got(client.take()).status == 200
    made.quiet()


def test_after_the_first_byte_nothing_is_replaced() -> None:
    """A cut answer is cut."""
    made = Backed(answer=PREPARED)
    client, server = made.request(GET)
    server.data(ok(b"hello")[:-1])
    server.reset()
    made.loop.run()
    assert client.fin_sent
    assert not made.dials
    assert Got(client.take()).body == b"hell"
    made.quiet()


def test_the_other_upstream_has_limits_of_its_own() -> None:
    """The permit of the first one is given back before the request waits there."""
    made = Backed(limit=1)
    made.upstream.configure(UpstreamConfig(endpoints=(), limit=1), 1)
    first = ask(made)
    server = made.dial_ok()
    assert made.upstream.bulkhead.in_flight == 1
    server.reset()
    made.loop.run()
    assert (made.upstream.bulkhead.in_flight, made.backup.bulkhead.in_flight) == (0, 1)
    second = ask(made)
    made.dial_ok(1).reset()
    made.loop.run()
    assert (made.upstream.bulkhead.in_flight, made.backup.bulkhead.queue.queued) == (0, 1)
    made.dial_ok().data(ok(b"one"))
    made.loop.run()
    made.servers[-1].data(ok(b"two"))
    made.loop.run()
    assert [Got(client.take()).body for client in (first, second)] == [b"one", b"two"]
    made.quiet()


def test_deadlines_hold_for_all_of_it() -> None:
    """When the time is over no other upstream is asked; what is prepared is served."""
    made = Backed(answer=PREPARED, route_timeout_s=2.0)
    client = ask(made)
    made.dial_failed()
    made.dial_ok()
    made.advance(2.2)
    got = Got(client.take())
    assert got.body == b"<p>later</p>"
    assert b"edgeq-reason=upstream_connect_refused" in got.fields[b"proxy-status"]
    client = ask(made)
    made.advance(2.2)
    got = Got(client.take())
    assert b"edgeq-reason=deadline_expired" in got.fields[b"proxy-status"]
    assert made.dials == [made.upstream.pools[0]]
    made.dial_failed()
    made.quiet()


@pytest.mark.parametrize("status", [b"500 No", b"503 No", b"429 No"])
def test_an_upstreams_own_failure(status: bytes) -> None:
    """Its answer is replaced only if that status is named; its connection is kept."""
    for on, replaced in (((status[:3].decode(),), True), (("shed", "failed"), False)):
        made = Backed(answer=PREPARED, backup=False, on=on)
        client, server = made.request(GET)
        server.data(ok(b"no", control=b"", status=status))
        made.loop.run()
        got = Got(client.take())
        assert got.body == (b"<p>later</p>" if replaced else b"no")
        assert len(made.upstream.pools[0].idle) == 1
        reason = "upstream_failed" if status.startswith(b"500") else "upstream_shed"
        assert made.log[-1].reason == (reason if replaced or reason == "upstream_shed" else "")
        made.quiet()


def test_an_upstreams_own_failure_and_a_dead_backup() -> None:
    """Nothing is left of the answer that was put away: the other upstream's failure is told."""
    made = Backed(on=("500", "503"))
    for status, reason in ((b"500 No", b"upstream_failed"), (b"503 No", b"upstream_shed")):
        client, server = made.request(GET)
        server.data(ok(b"no", control=b"", status=status))
        made.loop.run()
        made.dial_failed()
        got = Got(client.take())
        assert got.status == 502
        assert b"edgeq-reason=upstream_connect_refused" in got.fields[b"proxy-status"]
        assert b'"edgeq.reason":"%b"' % reason in line_of(made)
        assert b'"edgeq.second_reason":"upstream_connect_refused"' in line_of(made)
    made.quiet()


def test_an_upstreams_own_failure_to_a_request_that_may_not_be_repeated() -> None:
    """It is passed on if there is nothing but another upstream."""
    made = Backed(on=("500",))
    client, server = made.request(POST)
    server.data(ok(b"no", control=b"", status=b"500 No"))
    made.loop.run()
    assert Got(client.take()).status == 500
    made.quiet()


def test_a_client_that_leaves_while_the_other_upstream_works() -> None:
    """Cancels it there."""
    made = Backed()
    client = ask(made)
    made.dial_failed()
    server = made.dial_ok()
    client.reset()
    made.loop.run()
    assert server.lost
    assert made.log[-1].status == 499
    made.quiet()


def test_stale_goes_before_fallback() -> None:
    """What is stored is nearer to what was asked for."""
    made = Backed(answer=PREPARED)
    settings = CacheSettings(1 << 20, 1 << 16, stale_if_error_s=60.0)
    made.route.cache = RouteCache(settings)
    client, server = made.request(GET)
    server.data(ok(b"old"))
    made.loop.run()
    client.take()
    made.advance(65)
    client = ask(made)
    made.dial_failed()
    assert Got(client.take()).body == b"old"
    made.advance(61)
    client = ask(made)
    made.dial_failed()
    made.dial_ok().data(ok(b"backup", control=b"max-age=99"))
    made.loop.run()
    assert Got(client.take()).body == b"backup"
    found = made.route.cache.store.snapshot()
    assert found["entries"] == 1  # what is stored is what the route's own upstream has said
    assert not made.route.cache.flights
    made.quiet()


def test_who_waits_for_a_leader_that_turns_away_leads_on() -> None:
    """The other upstream's answer is not for the cache."""
    made = Backed()
    made.route.cache = RouteCache(CacheSettings(1 << 20, 1 << 16))
    clients = [ask(made) for _ in range(4)]
    made.dial_failed()
    while made.dials:
        if made.dials[0] is made.backup.pools[0]:
            made.dial_ok().data(ok(b"backup"))
            made.loop.run()
        else:
            made.dial_failed()
    for server in made.servers:
        while server.protocol.exchange is not None:
            server.data(ok(b"backup"))
            made.loop.run()
    assert [Got(client.take()).body for client in clients] == [b"backup"] * 4
    assert made.route.cache.store.entries == 0
    made.quiet()


def test_the_groups() -> None:
    """Nothing that is the client's fault, nor what happens before there is a route or when all is over."""
    for token in SHED | FAILED:
        assert REASONS[token].fault in "SU"
        assert REASONS[token].status
    assert not {"draining", "loop_lag", "no_route", "config_error", "request_malformed"} & set(CHOICES)


def test_each_refusal_is_counted_once() -> None:
    """Why the fallback was asked, whether it serves or not, and that it has failed."""
    made = Backed()
    client = ask(made)
    made.dial_failed()
    made.dial_ok().data(ok(b"from backup"))
    made.loop.run()
    first = {"upstream_connect_refused": {"upstream/up#10.0.0.1:80": 1}}
    assert made.shard.refusals.snapshot() == first
    ask(made, GET, client)
    made.dial_failed()
    server = next(one for one in made.servers if one.protocol.exchange is not None)
    server.data(b"nonsense\r\n\r\n")
    made.loop.run()
    assert made.shard.refusals.snapshot() == {
        "upstream_connect_refused": {"upstream/up#10.0.0.1:80": 2},
        "upstream_protocol_error": {"upstream/backup#10.9.9.9:80": 1},
    }
    made.quiet()


def test_a_prepared_answer_is_counted_as_what_it_replaces() -> None:
    """It is no less a refusal."""
    made = Backed(backup=False, answer=PREPARED)
    ask(made)
    made.dial_failed()
    assert made.shard.refusals.snapshot() == {"upstream_connect_refused": {"upstream/up#10.0.0.1:80": 1}}
    made.quiet()
