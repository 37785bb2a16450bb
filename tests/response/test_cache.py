"""A route with a cache, by script: who is answered from it, who waits, who goes to the upstream."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

import edgeq.cache.cache
from edgeq.cache.cache import RouteCache
from edgeq.cache.rules import CacheSettings
from tests.response.test_hedge import hedging, two
from tests.support.fake_transport import CLOCK, HIGH_WATER, FakeTransport, World, frozen_time

WALL = 1_800_000_000.0
GET = b"GET /a HTTP/1.1\r\nHost: a.example\r\n\r\n"


@pytest.fixture(autouse=True)
def _time_stands_still(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with frozen_time():
        monkeypatch.setattr(edgeq.cache.cache, "time", lambda: WALL + CLOCK.now_s)
        yield


def world(**settings: float | bool) -> World:
    """A worker whose only route has a cache."""
    made = World()
    chosen = CacheSettings(1 << 20, 64 * 1024)
    for name, value in settings.items():
        setattr(chosen, name, value)
    route = made.shard.routes.routes[0]
    route.cache = RouteCache(chosen)
    route.graceful = True
    return made


def cache_of(made: World) -> RouteCache:
    cache = made.shard.routes.routes[0].cache
    assert cache is not None
    return cache


def get(*lines: bytes, method: bytes = b"GET", target: bytes = b"/a", minor: int = 1) -> bytes:
    head = b"%b %b HTTP/1.%d\r\nHost: a.example\r\n" % (method, target, minor)
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def ok(body: bytes = b"hello", *lines: bytes, control: bytes = b"max-age=60", status: bytes = b"200 OK") -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Length: %d\r\n" % (status, len(body))
    if control:
        head += b"Cache-Control: " + control + b"\r\n"
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


class Got:
    """One answer, as a client sees it."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        self.status = int(lines[0].split(b" ")[1])
        self.fields: dict[bytes, bytes] = {}
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            known = self.fields.get(name.lower())
            self.fields[name.lower()] = value.strip() if known is None else known + b", " + value.strip()

    @property
    def cache(self) -> bytes:
        """Cache-Status without our name and the time to live."""
        said = self.fields.get(b"cache-status", b"").partition(b"; ")[2]
        return re.sub(rb"; ttl=-?\d+", b"", said)

    @property
    def age(self) -> int:
        return int(self.fields[b"age"])


def ask(made: World, request: bytes = GET, client: FakeTransport | None = None) -> FakeTransport:
    """A client sends a request; what becomes of it is seen later."""
    client = client or made.connect()
    client.data(request)
    made.loop.run()
    return client


def fetch(made: World, answer: bytes, request: bytes = GET) -> tuple[Got, bytes]:
    """A request that goes to the upstream: what the client got, what the upstream got."""
    client, server = made.request(request)
    sent = server.take()
    server.data(answer)
    made.loop.run()
    return Got(client.take()), sent


def hit(made: World, request: bytes = GET) -> Got:
    """A request that must be answered without the upstream."""
    client = ask(made, request)
    assert not made.dials
    assert not any(server.protocol.exchange for server in made.servers)
    return Got(client.take())


def answer_all(made: World, answer: bytes) -> None:
    """Every request that is at the upstream, or on its way there, gets this answer."""
    while made.dials:
        made.dial_ok()
    for server in made.servers:
        if server.protocol.exchange is not None:
            server.data(answer)
    made.loop.run()


def quiet(made: World) -> None:
    """Nothing runs or waits any more."""
    made.loop.run()
    made.check_settled()
    cache = cache_of(made)
    assert not cache.flights
    snapshot = cache.snapshot(CLOCK.now_s)
    assert (snapshot["collecting"], snapshot["collecting_bytes"]) == (0, 0)


# -- stored, and used again -------------------------------------------------------------------------------------------


def test_a_second_request_is_answered_here() -> None:
    """With its age, the same lines and body; the log says so; neither limits nor the upstream see it."""
    made = world()
    first, _ = fetch(made, ok(b"hello", b'ETag: "a"', b"X-Y: z"))
    assert (first.status, first.body, first.cache) == (200, b"hello", b"fwd=uri-miss; stored")
    made.advance(5)
    second = hit(made)
    assert (second.status, second.body, second.cache, second.age) == (200, b"hello", b"hit", 5)
    assert (second.fields[b"etag"], second.fields[b"x-y"], second.fields[b"content-length"]) == (b'"a"', b"z", b"5")
    assert b"date" in second.fields
    assert second.fields[b"x-request-id"] != first.fields[b"x-request-id"]
    log = made.log
    assert [(one.status, one.answer_bytes, one.attempts) for one in log] == [(200, 5, 1), (200, 5, 0)]
    assert [one.grace.how for one in log if one.grace is not None] == ["miss", "hit"]
    quiet(made)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_however_the_answer_came_it_is_stored_whole(size: int) -> None:
    """With a length or in chunks, in any pieces; given out with a length."""
    chunked = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=9\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n"
    chunked += b"5;e=f\r\nhello\r\n6\r\n world\r\n0\r\nX: y\r\n\r\n"
    for answer in (ok(b"hello world"), chunked):
        for request in (GET, get(b"TE: trailers", b"Connection: TE"), get(minor=0)):
            made = world()
            client, server = made.request(request)
            for at in range(0, len(answer), size):
                server.data(answer[at : at + size])
            made.loop.run()
            client.take()
            got = hit(made)
            assert (got.body, got.fields[b"content-length"], got.cache) == (b"hello world", b"11", b"hit")
            assert b"transfer-encoding" not in got.fields
            assert b"trailer" not in got.fields
            quiet(made)


def test_an_answer_that_ends_with_the_connection_is_not_stored() -> None:
    """Whether it was complete cannot be told; nor is one that was cut."""
    for answer in (b"HTTP/1.1 200 OK\r\nCache-Control: max-age=9\r\n\r\nhello", ok(b"hello")[:-1]):
        made = world()
        _, server = made.request(GET)
        server.data(answer)
        server.eof()
        made.loop.run()
        assert cache_of(made).store.entries == 0
        quiet(made)


def test_head_is_answered_from_a_get() -> None:
    """Without the body; a HEAD itself stores nothing."""
    made = world()
    got, _ = fetch(
        made, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nCache-Control: max-age=60\r\n\r\n", get(method=b"HEAD")
    )
    assert got.cache == b"fwd=uri-miss"
    fetch(made, ok())
    got = hit(made, get(method=b"HEAD"))
    assert (got.status, got.body, got.fields[b"content-length"], got.cache) == (200, b"", b"5", b"hit")
    quiet(made)


@pytest.mark.parametrize(
    ("conditions", "status"),
    [
        ((b'If-None-Match: "a"',), 304),
        ((b'If-None-Match: W/"a", "x"',), 304),
        ((b"If-None-Match: *",), 304),
        ((b'If-None-Match: "b"',), 200),
        ((b"If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT",), 304),
        ((b"If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT",), 200),
        ((b"If-Modified-Since: junk",), 200),
        ((b'If-None-Match: "b"', b"If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"), 200),
    ],
)
def test_a_client_that_has_it_gets_304(conditions: tuple[bytes, ...], status: int) -> None:
    """RFC 9110 13.2.2: If-None-Match goes before If-Modified-Since."""
    made = world()
    fetch(made, ok(b"hello", b'ETag: "a"', b"Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", b"X-Y: z"))
    got = hit(made, get(*conditions))
    assert (got.status, got.body) == ((304, b"") if status == 304 else (200, b"hello"))
    assert (b"x-y" in got.fields) is (status == 200)
    assert (b"content-length" in got.fields) is (status == 200)
    assert got.fields[b"etag"] == b'"a"'
    assert got.fields[b"cache-control"] == b"max-age=60"
    quiet(made)


def test_what_is_asked_for_the_cache_is_asked_whole() -> None:
    """The client's conditions do not go on with it, or others would get its 304."""
    made = world()
    got, sent = fetch(made, ok(), get(b'If-None-Match: "a"', b"If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"))
    assert b"if-none-match" not in sent.lower()
    assert b"if-modified-since" not in sent.lower()
    assert got.status == 200
    assert hit(made).body == b"hello"


@pytest.mark.parametrize(
    "lines",
    [
        (b"Range: bytes=0-1",),
        (b'If-Match: "a"',),
        (b"If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT",),
        (b'If-Range: "a"', b"Range: bytes=0-1"),
    ],
)
def test_what_only_the_upstream_can_answer_passes_through(lines: tuple[bytes, ...]) -> None:
    """Neither answered from the cache nor stored."""
    made = world()
    fetch(made, ok(b"whole"))
    got, sent = fetch(made, ok(b"wh", status=b"206 Partial Content"), get(*lines))
    assert lines[0].lower() in sent.lower()
    assert (got.status, got.cache) == (206, b"fwd=bypass")
    assert hit(made).body == b"whole"
    quiet(made)


def test_variants_by_vary() -> None:
    """Each its own answer; who asks for one that is not there goes on."""
    made = world()
    fetch(made, ok(b"gzip", b"Vary: Accept-Encoding"), get(b"Accept-Encoding: gzip"))
    got, _ = fetch(made, ok(b"plain", b"Vary: Accept-Encoding"), get())
    assert got.cache == b"fwd=vary-miss; stored"
    assert hit(made, get(b"Accept-Encoding: gzip")).body == b"gzip"
    assert hit(made, get()).body == b"plain"
    quiet(made)


def test_the_key_is_scheme_host_and_target() -> None:
    """Another host, another query: another answer. What an untrusted client claims changes nothing."""
    made = world()
    fetch(made, ok(b"a"))
    fetch(made, ok(b"b"), GET.replace(b"a.example", b"b.example"))
    fetch(made, ok(b"q"), get(target=b"/a?q"))
    assert hit(made).body == b"a"
    assert hit(made, get(b"X-Forwarded-Host: evil", b"X-Forwarded-Proto: https")).body == b"a"
    assert hit(made, get(target=b"/a?q")).body == b"q"
    quiet(made)


def test_answers_of_one_user_are_nobody_elses() -> None:
    """With a credential: neither stored nor answered from the cache, unless the answer says that it is for anyone."""
    made = world()
    mine = get(b"Authorization: Bearer one")
    fetch(made, ok(b"mine"), mine)
    assert cache_of(made).store.entries == 0
    fetch(made, ok(b"anonymous"))
    got, _ = fetch(made, ok(b"mine"), mine)
    assert (got.body, got.cache) == (b"mine", b"fwd=bypass")
    fetch(made, ok(b"all", control=b"max-age=9, public"), get(b"X-Api-Key: k", target=b"/public"))
    assert hit(made, get(target=b"/public")).body == b"all"
    assert hit(made, get(b"Authorization: Basic x", target=b"/public")).body == b"all"
    quiet(made)


def test_the_field_that_names_tenants_is_a_credential() -> None:
    """Tenants may see different things under one address."""
    made = world()
    cache_of(made).settings.tenant_field = b"x-tenant"
    fetch(made, ok(b"one"), get(b"X-Tenant: 1"))
    assert cache_of(made).store.entries == 0
    quiet(made)


def test_a_field_that_is_not_forwarded_chooses_no_variant() -> None:
    """Connection may name a field to be removed: the answer is that to a request without it (cache poisoning)."""
    made = world()
    _, sent = fetch(made, ok(b"none", b"Vary: X-Kind"), get(b"X-Kind: 1", b"Connection: X-Kind"))
    assert b"x-kind" not in sent.lower()
    assert hit(made, get()).body == b"none"
    got, _ = fetch(made, ok(b"one", b"Vary: X-Kind"), get(b"X-Kind: 1"))
    assert got.body == b"one"


@pytest.mark.parametrize("name", [b"X-Forwarded-For", b"forwarded", b"X-Request-Id", b"traceparent", b"Grpc-Timeout"])
def test_what_this_gateway_writes_itself_chooses_no_variant(name: bytes) -> None:
    """It differs from request to request: such an answer is for one client."""
    made = world()
    cache_of(made).settings.written = frozenset((b"grpc-timeout",))
    fetch(made, ok(b"hello", b"Vary: Accept, " + name))
    assert cache_of(made).store.entries == 0
    fetch(made, ok(b"hello", b"Vary: User-Agent, X-Forwarded-Host, Host"))
    assert cache_of(made).store.entries == 1
    quiet(made)


def test_a_slow_client_that_led_keeps_nobody_waiting() -> None:
    """What is stored is good again, but its client has not read the answer before: the others have theirs at once."""
    made = World()
    route = made.shard.routes.routes[0]
    route.cache = RouteCache(CacheSettings(4 << 20, 512 * 1024))
    route.graceful = True
    big = get(target=b"/big")
    fetch(made, ok(b"x" * (HIGH_WATER * 2)), big)
    stale(made, b'ETag: "a"')
    fetch(made, ok(b"x" * (HIGH_WATER * 2)), big)
    leader = made.connect()
    leader.block()
    leader.data(big + GET)
    made.loop.run()
    joined = ask(made)
    (server,) = [one for one in made.servers if one.protocol.exchange is not None]
    server.data(b"HTTP/1.1 304 Not Modified\r\n\r\n")
    made.loop.run()
    assert Got(joined.take()).body == b"old"
    leader.drain()
    made.loop.run()
    assert leader.take().endswith(b"old")
    quiet(made)


def test_cookies_are_not_stored() -> None:
    """An answer that sets one is not stored, or without it."""
    made = world()
    fetch(made, ok(b"hello", b"Set-Cookie: a=b"))
    assert cache_of(made).store.entries == 0
    made = world(strip_cookies=True)
    got, _ = fetch(made, ok(b"hello", b"Set-Cookie: a=b"))
    assert got.fields[b"set-cookie"] == b"a=b"
    assert b"set-cookie" not in hit(made).fields


@pytest.mark.parametrize(
    ("control", "passes"),
    [
        (b"no-cache", True),
        (b"max-age=0", True),
        (b"max-age=4", True),
        (b"max-age=5", False),
        (b"min-fresh=55", False),
        (b"min-fresh=56", True),
    ],
)
def test_a_request_may_ask_for_more(control: bytes, passes: bool) -> None:
    """Its Cache-Control counts (RFC 9111 5.2.1), or not if the route says so."""
    for obeys in (True, False):
        made = world(obey_requests=obeys)
        fetch(made, ok(b"old"))
        made.advance(5)
        request = get(b"Cache-Control: " + control)
        if passes and obeys:
            got, _ = fetch(made, ok(b"new"), request)
            assert (got.body, got.cache) == (b"new", b"fwd=request; stored")
            assert hit(made).body == b"new"
        else:
            assert hit(made, request).body == b"old"
        quiet(made)


def test_pragma_is_an_old_no_cache() -> None:
    """Where there is no Cache-Control (RFC 9111 5.4)."""
    made = world()
    fetch(made, ok(b"old"))
    got, _ = fetch(made, ok(b"new"), get(b"Pragma: no-cache"))
    assert got.body == b"new"
    assert hit(made, get(b"Pragma: no-cache", b"Cache-Control: max-age=60")).body == b"new"


def test_no_store_of_a_request() -> None:
    """Its answer is not stored."""
    made = world()
    fetch(made, ok(), get(b"Cache-Control: no-store"))
    assert cache_of(made).store.entries == 0
    quiet(made)


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"PATCH"])
@pytest.mark.parametrize("status", [b"204 No Content", b"303 See Other", b"404 Not Found", b"500 No"])
def test_unsafe_requests_invalidate(method: bytes, status: bytes) -> None:
    """If they succeed (RFC 9111 4.4), also what Location names on the same host."""
    made = world()
    fetch(made, ok(b"a"))
    fetch(made, ok(b"b"), get(target=b"/b"))
    fetch(made, ok(b"c"), get(target=b"/c"))
    lines = (b"Location: /b", b"Content-Location: http://a.example/c")
    answer = ok(b"", *lines, control=b"", status=status)
    if status.startswith(b"204"):
        answer = answer.replace(b"Content-Length: 0\r\n", b"")
    got, _ = fetch(made, answer, get(b"Content-Length: 0", method=method))
    assert b"cache-status" not in got.fields
    gone = status[:1] in b"23"
    assert cache_of(made).store.entries == (0 if gone else 3)
    quiet(made)


def test_what_was_on_its_way_when_it_was_changed_is_not_stored() -> None:
    """It may be what was there before the change."""
    made = world()
    client, server = made.request(GET)
    server.data(ok(b"hello")[:-2])
    other = made.connect()
    other.data(get(b"Content-Length: 0", method=b"PUT"))
    made.dial_ok().data(ok(b"", control=b""))
    made.loop.run()
    server.data(b"lo")
    made.loop.run()
    assert client.take().endswith(b"hello")
    assert cache_of(made).store.entries == 0
    quiet(made)


def test_a_large_answer_only_passes() -> None:
    """Known beforehand or found on the way: the room that it took is given back."""
    for head in (b"Content-Length: 200000\r\n", b"Transfer-Encoding: chunked\r\n"):
        made = world()
        client, server = made.request(GET)
        server.data(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=9\r\n" + head + b"\r\n")
        body = b"x" * 200_000 if b"Length" in head else b"186a0\r\n" + b"x" * 100_000 + b"\r\n" + b"0\r\n\r\n"
        for at in range(0, len(body), 10_000):
            server.data(body[at : at + 10_000])
            assert cache_of(made).store.size_bytes <= 70_000
        made.loop.run()
        assert client.take().count(b"x") >= 100_000
        assert cache_of(made).store.entries == 0
        quiet(made)


# -- stale ------------------------------------------------------------------------------------------------------------


def stale(made: World, *lines: bytes, control: bytes = b"max-age=60") -> None:
    """Something is stored, and its time is over by five seconds."""
    fetch(made, ok(b"old", *lines, control=control))
    made.advance(65)


def test_stale_is_asked_for_again_by_its_validators() -> None:
    """304: what is here is good again, for the client as well; the connection is kept."""
    made = world()
    stale(made, b'ETag: "a"', b"Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT")
    got, sent = fetch(made, b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nCache-Control: max-age=90\r\n\r\n')
    assert b'if-none-match: "a"\r\n' in sent
    assert b"if-modified-since: Sun, 06 Nov 1994 08:49:37 GMT\r\n" in sent
    assert (got.status, got.body, got.cache, got.age) == (200, b"old", b"fwd=stale; fwd-status=304", 0)
    assert got.fields[b"cache-control"] == b"max-age=90"
    assert len(made.upstream.pools[0].idle) == 1
    made.advance(80)
    assert hit(made).body == b"old"
    quiet(made)


def test_stale_and_another_one_now() -> None:
    """200: it takes the place of what was stored."""
    made = world()
    stale(made, b'ETag: "a"')
    got, _ = fetch(made, ok(b"new", b'ETag: "b"'))
    assert (got.body, got.cache) == (b"new", b"fwd=stale; stored")
    assert hit(made).body == b"new"
    assert cache_of(made).store.entries == 1


@pytest.mark.parametrize(("status", "control", "kept"), [("404", b"", 0), ("200", b"private", 0), ("500", b"", 1)])
def test_what_cannot_be_stored_takes_the_place_of_what_was(status: str, control: bytes, kept: int) -> None:
    """What is stored is not what the upstream says now; only a failure leaves it, to stand in for others."""
    made = world()
    stale(made, b'ETag: "a"')
    got, _ = fetch(made, ok(b"now", control=control, status=status.encode() + b" X"))
    assert got.body == b"now"
    assert cache_of(made).store.entries == kept
    quiet(made)


def test_a_304_about_something_else_is_no_answer() -> None:
    """RFC 9111 4.3.4: it is asked once more, without conditions."""
    made = world()
    stale(made, b'ETag: "a"')
    client, server = made.request(GET)
    server.take()
    server.data(b'HTTP/1.1 304 Not Modified\r\nETag: "other"\r\n\r\n')
    made.loop.run()
    assert client.take() == b""
    sent = server.take()
    assert sent.startswith(b"GET /a ")
    assert b"if-none-match" not in sent
    server.data(ok(b"new"))
    made.loop.run()
    assert Got(client.take()).body == b"new"
    quiet(made)


def test_a_revalidated_answer_meets_the_clients_own_conditions() -> None:
    """Who has it gets 304, and not the body."""
    made = world()
    stale(made, b'ETag: "a"')
    got, sent = fetch(made, b"HTTP/1.1 304 Not Modified\r\n\r\n", get(b'If-None-Match: "x", "a"'))
    assert sent.count(b"if-none-match") == 1
    assert (got.status, got.body) == (304, b"")
    quiet(made)


def test_no_cache_is_asked_for_each_time() -> None:
    """Stored for its body's sake."""
    made = world()
    fetch(made, ok(b"hello", b'ETag: "a"', control=b"no-cache"))
    got, sent = fetch(made, b"HTTP/1.1 304 Not Modified\r\n\r\n")
    assert b'if-none-match: "a"' in sent
    assert got.body == b"hello"
    quiet(made)


def test_stale_while_revalidate() -> None:
    """Answered at once, asked for once behind it; the next one gets what came; no line in the log for that."""
    made = world(stale_while_revalidate_s=10.0)
    stale(made, b'ETag: "a"')
    first, second = ask(made), ask(made)
    for client in (first, second):
        got = Got(client.take())
        assert (got.body, got.cache, got.age) == (b"old", b"hit; detail=stale-while-revalidate", 65)
    server = made.dial_ok()
    assert not made.dials
    assert b'if-none-match: "a"' in server.take()
    server.data(ok(b"new"))
    made.loop.run()
    assert hit(made).body == b"new"
    assert len(made.log) == 4
    assert [one.grace.how for one in made.log if one.grace is not None] == ["miss", "stale", "stale", "hit"]
    quiet(made)


@pytest.mark.parametrize("how", ["refused", "reset", "500", "304"])
def test_however_a_refresh_ends(how: str) -> None:
    """It leaves nothing behind, and who comes next may try again."""
    made = world(stale_while_revalidate_s=10.0)
    stale(made, b'ETag: "a"')
    ask(made)
    if how == "refused":
        made.dial_failed()
    else:
        server = made.dial_ok()
        if how == "reset":
            server.reset()
        elif how == "304":
            server.data(b"HTTP/1.1 304 Not Modified\r\n\r\n")
        else:
            server.data(ok(b"no", control=b"", status=b"500 No"))
    made.loop.run()
    assert not cache_of(made).flights
    got = Got(ask(made).take())
    assert got.body == b"old"
    assert got.cache == (b"hit" if how == "304" else b"hit; detail=stale-while-revalidate")
    assert made.shard.in_flight == (0 if how == "304" else 1)


def test_after_stale_while_revalidate_it_is_asked_first() -> None:
    """The time for that is over."""
    made = world(stale_while_revalidate_s=4.0)
    stale(made)
    got, _ = fetch(made, ok(b"new"))
    assert got.body == b"new"
    quiet(made)


@pytest.mark.parametrize("how", ["refused", "reset", "500", "503", "garbage", "timeout"])
def test_stale_if_error(how: str) -> None:
    """Whatever the upstream's failure is; the log keeps the reason, and the answer tells it."""
    made = world(stale_if_error_s=30.0)
    stale(made, b'ETag: "a"')
    client = ask(made)
    reason = "upstream_reset"
    if how == "refused":
        made.dial_failed()
        reason = "upstream_connect_refused"
    else:
        server = made.dial_ok()
        if how == "reset":
            server.reset()
        elif how == "garbage":
            server.data(b"junk junk\r\n\r\n")
            reason = "upstream_protocol_error"
        elif how == "timeout":
            made.advance(10)
            made.upstream.first_byte_s = 60.0
            assert client.take() == b""
            server.protocol.exchange.no_answer()
            reason = "upstream_timeout"
        else:
            server.data(ok(b"no", control=b"", status=how.encode() + b" No"))
            reason = "upstream_failed" if how == "500" else "upstream_shed"
    made.loop.run()
    got = Got(client.take())
    assert (got.status, got.body, got.cache) == (200, b"old", b"fwd=stale; detail=stale-if-error")
    assert b"edgeq-reason=" + reason.encode() in got.fields[b"proxy-status"]
    last = made.log[-1]
    assert (last.reason, last.status) == (reason, 200)
    assert last.grace is not None
    assert last.grace.how == "stale-if-error"
    quiet(made)


def test_stale_if_error_has_an_end() -> None:
    """And must-revalidate allows none at all."""
    for wait_s, control in ((31, b"max-age=60"), (0, b"max-age=60, must-revalidate")):
        made = world(stale_if_error_s=30.0)
        stale(made, control=control)
        made.advance(wait_s)
        client = ask(made)
        made.dial_failed()
        assert Got(client.take()).status == 502
        quiet(made)


def test_after_the_first_byte_nothing_is_replaced() -> None:
    """An answer that is cut is cut for the client, too."""
    made = world(stale_if_error_s=30.0)
    stale(made)
    client, server = made.request(GET)
    server.data(ok(b"new")[:-1])
    server.reset()
    made.loop.run()
    assert client.fin_sent
    assert Got(client.take()).body == b"ne"
    assert made.log[-1].reason == "upstream_truncated"
    quiet(made)


# -- identical requests on their way ----------------------------------------------------------------------------------


def test_identical_requests_join() -> None:
    """One goes to the upstream; all are answered by what it brings, each by its own conditions."""
    made = world()
    clients = [ask(made), ask(made), ask(made, get(method=b"GET")), ask(made, get(b'If-None-Match: "a"'))]
    server = made.dial_ok()
    assert not made.dials
    server.data(ok(b"hello", b'ETag: "a"'))
    made.loop.run()
    got = [Got(client.take()) for client in clients]
    assert [one.status for one in got] == [200, 200, 200, 304]
    assert [one.body for one in got] == [b"hello", b"hello", b"hello", b""]
    assert got[1].cache == b"fwd=uri-miss; collapsed"
    assert [one.grace.how for one in made.log if one.grace is not None] == ["miss", "joined", "joined", "joined"]
    counts = cache_of(made).snapshot(CLOCK.now_s)
    assert (counts["misses"], counts["hits"], counts["collapsed"], counts["stored"]) == (1, 3, 3, 1)
    quiet(made)


def test_nobody_waits_for_what_cannot_be_shared() -> None:
    """As soon as the head tells it all go on their own; and for a while nobody waits for this again."""
    made = world()
    clients = [ask(made) for _ in range(3)]
    server = made.dial_ok()
    server.data(ok(b"hello", control=b"private")[:-3])
    made.loop.run()
    assert len(made.dials) == 2
    server.data(b"llo")
    answer_all(made, ok(b"hello", control=b"private"))
    assert [Got(client.take()).body for client in clients] == [b"hello"] * 3
    ask(made)
    ask(made)
    busy = [server for server in made.servers if server.protocol.exchange is not None]
    assert len(busy) == 2
    for one in busy:
        one.data(ok(b"shared"))  # now it can be: those who come next join again
    made.loop.run()
    assert hit(made).body == b"shared"
    made.advance(61)
    before = len(made.dials)
    ask(made)
    ask(made)
    assert len(made.dials) - before == 1


def test_variants_do_not_share() -> None:
    """Who waits for another variant looks again, and one of them leads for the others."""
    made = world()
    zipped = get(b"Accept-Encoding: gzip")
    clients = [ask(made), ask(made, zipped), ask(made, zipped), ask(made)]
    made.dial_ok().data(ok(b"plain", b"Vary: Accept-Encoding"))
    made.loop.run()
    server = next(server for server in made.servers if server.protocol.exchange is not None)
    assert not made.dials
    server.data(ok(b"gzip", b"Vary: Accept-Encoding"))
    made.loop.run()
    assert [Got(client.take()).body for client in clients] == [b"plain", b"gzip", b"gzip", b"plain"]
    quiet(made)


def test_a_leader_that_leaves_is_followed() -> None:
    """The one who waits longest leads on, however often that happens."""
    made = world()
    clients = [ask(made) for _ in range(4)]
    for leaver in clients[:3]:
        server = made.dial_ok()
        leaver.reset()
        made.loop.run()
        assert server.lost
    server = made.dial_ok()
    server.data(ok())
    made.loop.run()
    assert Got(clients[3].take()).body == b"hello"
    assert [one.reason for one in made.log] == ["client_gone"] * 3 + [""]
    quiet(made)


def test_one_who_waits_may_leave() -> None:
    """And is gone at once."""
    made = world()
    clients = [ask(made) for _ in range(3)]
    clients[1].reset()
    made.loop.run()
    assert [one.reason for one in made.log] == ["client_gone"]
    made.dial_ok().data(ok())
    made.loop.run()
    assert Got(clients[2].take()).body == b"hello"
    quiet(made)


def test_a_leader_that_fails_is_followed_once() -> None:
    """No chain of failures, one after the other: after the second one each goes on its own."""
    made = world()
    clients = [ask(made) for _ in range(5)]
    made.dial_ok().reset()
    made.loop.run()
    assert Got(clients[0].take()).status == 502
    assert len(made.dials) == 1
    made.dial_ok().reset()
    made.loop.run()
    assert Got(clients[1].take()).status == 502
    assert len(made.dials) == 3
    answer_all(made, ok())
    assert [Got(client.take()).status for client in clients[2:]] == [200] * 3
    quiet(made)


def test_when_a_leader_fails_all_get_what_is_stale() -> None:
    """Nobody else has to try the upstream that has just failed."""
    made = world(stale_if_error_s=60.0)
    stale(made)
    clients = [ask(made) for _ in range(3)]
    made.dial_failed()
    assert not made.dials
    assert [Got(client.take()).body for client in clients] == [b"old"] * 3
    quiet(made)


def test_a_wait_has_an_end() -> None:
    """Each one's own: who has waited for `join` goes on alone, and its answer is stored all the same."""
    made = world(join_s=5.0)
    leader, second = ask(made), ask(made)
    slow = made.dial_ok()
    made.advance(3)
    third = ask(made)
    made.advance(2.2)
    server = made.dial_ok()
    assert not made.dials
    server.data(ok(b"mine"))
    made.loop.run()
    assert Got(second.take()).body == b"mine"
    slow.data(ok(b"slow"))
    made.loop.run()
    assert Got(leader.take()).body == b"slow"
    assert Got(third.take()).body == b"slow"
    quiet(made)


def test_a_deadline_ends_a_wait() -> None:
    """The route's time-out holds for who waits, as for any other request."""
    made = World(route_timeout_s=2.0)
    route = made.shard.routes.routes[0]
    route.cache = RouteCache(CacheSettings(1 << 20, 1 << 16))
    route.graceful = True
    leader = ask(made)
    made.advance(1)
    joined = ask(made)
    made.dial_ok()
    made.advance(1.2)
    assert Got(leader.take()).status == 504
    assert len(made.dials) == 1  # the one that waited leads on
    made.advance(1)
    assert Got(joined.take()).status == 504
    assert not cache_of(made).flights


def test_joining_may_be_off() -> None:
    """Then each goes on its own from the start."""
    made = world(join_s=0.0)
    ask(made)
    ask(made)
    assert len(made.dials) == 2


@pytest.mark.parametrize("line", [b"Authorization: x", b"Cache-Control: no-cache", b"Cache-Control: no-store"])
def test_who_does_not_join(line: bytes) -> None:
    """A credential's owner, and who wants an answer of his own."""
    made = world()
    ask(made)
    ask(made, get(line))
    assert len(made.dials) == 2


# -- slow and pipelining clients --------------------------------------------------------------------------------------


def test_a_slow_leader_does_not_hold_up_the_others() -> None:
    """Its answer is read to the end for the cache; when it is too large for that its client's pace counts again."""
    made = World()
    route = made.shard.routes.routes[0]
    route.cache = RouteCache(CacheSettings(4 << 20, 512 * 1024))
    route.graceful = True
    leader = ask(made)
    leader.block()
    joined = ask(made)
    server = made.dial_ok()
    body = b"x" * (HIGH_WATER * 4)
    answer = ok(body)
    for at in range(0, len(answer), 32 * 1024):
        server.data(answer[at : at + 32 * 1024])
    made.loop.run()
    assert Got(joined.take()).body == body
    leader.drain()
    assert Got(leader.take()).body == body
    quiet(made)


def test_when_it_is_too_large_for_the_cache_the_client_sets_the_pace() -> None:
    """Back-pressure as without a cache."""
    made = world()
    leader = ask(made)
    leader.block()
    server = made.dial_ok()
    server.data(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=9\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(4):
        server.data(b"8000\r\n" + b"x" * 32768 + b"\r\n")
    assert not server.reading
    leader.drain()
    made.loop.run()
    assert server.reading
    server.data(b"0\r\n\r\n")
    made.loop.run()
    quiet(made)


def test_answers_wait_for_a_client_that_reads() -> None:
    """Pipelined requests for what is stored: the next answer is written once the last one has been taken."""
    made = World()
    route = made.shard.routes.routes[0]
    route.cache = RouteCache(CacheSettings(4 << 20, 512 * 1024))
    route.graceful = True
    body = b"x" * (HIGH_WATER * 2)
    fetch(made, ok(body))
    client = made.connect()
    client.block()
    client.data(GET * 10)
    made.loop.run()
    assert client.protocol.transport.get_write_buffer_size() < 2 * len(body)
    for _ in range(10):
        client.drain()
        made.loop.run()
        client.block()
    client.drain()
    made.loop.run()
    assert client.take().count(body) == 10
    quiet(made)


def test_a_client_that_stops_reading_is_cut_off() -> None:
    """While an answer from the cache waits for it; its next request has not begun."""
    made = World(timeouts={"write": 10})
    route = made.shard.routes.routes[0]
    route.cache = RouteCache(CacheSettings(4 << 20, 512 * 1024))
    route.graceful = True
    fetch(made, ok(b"x" * (HIGH_WATER * 2)))
    client = made.connect()
    client.block()
    client.data(GET + GET)
    made.loop.run()
    made.advance(2)
    made.advance(11)
    assert client.lost
    assert [one.reason for one in made.log] == ["", ""]
    quiet(made)


def test_http_1_0_gets_its_own_framing() -> None:
    """Keep-alive is granted only if it was asked for."""
    made = world()
    fetch(made, ok())
    client = ask(made, get(minor=0))
    got = Got(client.take())
    assert (got.body, got.fields[b"connection"]) == (b"hello", b"close")
    assert client.fin_sent
    client = ask(made, get(b"Connection: keep-alive", minor=0))
    assert Got(client.take()).fields[b"connection"] == b"keep-alive"
    quiet(made)


# -- with tries beside and after each other ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["new", "304", "500"])
@pytest.mark.parametrize("second_wins", [True, False])
def test_hedges(kind: str, second_wins: bool) -> None:
    """Whichever try answers: it is stored, or tells that what is stored is good, or that it must do."""
    made = hedging()
    route = made.shard.routes.routes[0]
    route.cache = RouteCache(CacheSettings(1 << 20, 1 << 16, stale_if_error_s=60.0))
    route.graceful = True
    stale(made, b'ETag: "a"')
    client, first, second = two(made, GET)
    joined = ask(made)
    assert b'if-none-match: "a"' in first.sent
    assert first.sent == second.sent
    server = second if second_wins else first
    if kind == "new":
        server.data(ok(b"new"))
    elif kind == "304":
        server.data(b"HTTP/1.1 304 Not Modified\r\n\r\n")
    else:
        for one in (second, first) if second_wins else (first, second):
            one.data(ok(b"no", control=b"", status=b"500 No"))
    made.loop.run()
    want = {"new": b"new", "304": b"old", "500": b"old"}[kind]
    assert [Got(one.take()).body for one in (client, joined)] == [want, want]
    assert made.upstream.bulkhead.in_flight == 0
    assert not cache_of(made).flights
    quiet(made)
