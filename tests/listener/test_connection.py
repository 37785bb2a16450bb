"""The client's connection by script: reading heads, keeping, lingering, closing, time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgeq.listener.connection import LINGER_BYTES, Downstream
from edgeq.listener.peer import Peer
from edgeq.policy.headers import OFF, TRACE_OFF, ForwardPolicy
from edgeq.response.sending import MAX_PENDING
from edgeq.route.table import Route, RouteTable
from tests.support.fake_transport import HIGH_WATER, World, frozen_time


@pytest.fixture(autouse=True)
def _time_stands_still() -> Iterator[None]:
    with frozen_time():
        yield


GET = b"GET /a HTTP/1.1\r\nHost: a.example\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def status_of(data: bytes) -> int:
    return int(data.split(b" ", 2)[1])


def lines_of(data: bytes) -> list[bytes]:
    return data.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_a_head_in_any_pieces(size: int) -> None:
    """The upstream gets the same however the head comes."""
    world = World()
    client = world.connect()
    for at in range(0, len(GET), size):
        assert not world.dials
        client.data(GET[at : at + size])
    server = world.dial_ok()
    server.data(OK)
    assert status_of(client.take()) == 200
    world.check_settled()


def test_a_connection_is_not_another_one_at_the_same_place() -> None:
    """Its number is its own, though the one before may have been where it is in memory."""
    world = World()
    client = world.connect()
    down = client.protocol
    first = down.number()
    client.data(GET)
    assert down.number() == first
    world.advance(0.001)
    down.connection_made(client)
    assert down.number() != first


def test_the_same_head_again_and_a_different_one() -> None:
    """What is remembered of the last head does not leak into the next one."""
    world = World()
    client, server = world.request(GET)
    seen: list[list[bytes]] = []
    for raw in (GET, GET, GET.replace(b"/a", b"/b"), GET.replace(b"Host", b"X-One: 1\r\nHost"), GET):
        if raw is not GET or seen:
            client.data(raw)
        sent = server.take()
        seen.append([line for line in lines_of(sent) if not line.startswith(b"x-request-id")])
        server.data(OK)
    assert seen[0] == seen[1] == seen[4]
    assert seen[2][0] == b"get /b http/1.1"
    assert b"x-one: 1" in seen[3]
    world.check_settled()


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, "request_malformed"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "host_invalid"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "request_ambiguous",
        ),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505, "version_unsupported"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method_refused"),
        (b"GET /" + b"a" * 9000, 414, "request_line_too_long"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 40000, 431, "header_bytes_exceeded"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 100 + b"\r\n", 431, "header_count_exceeded"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", 417, "expectation_unknown"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, "transfer_coding_unknown"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, "request_malformed"),
        (b"\r\n\r\n\r\n\r\n", 400, "request_malformed"),
    ],
)
def test_refused_heads(data: bytes, status: int, reason: str) -> None:
    """Answered, logged, our FIN sent, and what still comes thrown away for a moment."""
    world = World()
    client = world.connect()
    client.data(data)
    world.loop.run()
    got = client.take()
    assert status_of(got) == status
    assert b"connection: close" in lines_of(got)
    assert b'"reason":"%s"' % reason.encode() in got
    assert client.eof_written
    assert not client.closing
    client.data(b"more" * 100)
    assert not client.take()
    world.advance(3)
    assert client.lost
    assert [(entry.status, entry.reason) for entry in world.log] == [(status, reason)]
    assert world.gone == [world.peer]
    assert not world.shard.downstreams
    world.check_settled()


def test_a_refused_request_after_a_good_one() -> None:
    """The first is answered before the second is refused, and nothing after it is read."""
    world = World()
    client, server = world.request(GET + b"BAD\r\n\r\n" + GET)
    server.data(OK)
    world.loop.run()
    got = client.take()
    assert got.index(b"200 OK") < got.index(b"400 Bad Request")
    assert [entry.status for entry in world.log] == [200, 400]
    world.check_settled()


def test_lingering_has_a_limit() -> None:
    """Who sends without end is cut."""
    world = World()
    client = world.connect()
    client.data(b"BAD\r\n\r\n")
    client.data(b"x" * LINGER_BYTES)
    assert not client.closing
    client.data(b"x")
    assert client.aborted


def test_lingering_ends_with_the_clients_fin() -> None:
    """Both have said all."""
    world = World()
    client = world.connect()
    client.data(b"BAD\r\n\r\n")
    client.eof()
    world.loop.run()
    assert client.lost


def test_tls_closes_without_lingering() -> None:
    """It cannot send a FIN alone."""
    world = World(tls=True)
    client = world.connect()
    client.data(b"BAD\r\n\r\n")
    world.loop.run()
    assert client.lost
    assert status_of(client.take()) == 400


def test_no_route() -> None:
    """404, kept; with a body to come: closed."""
    world = World(path=b"/only/*")
    client = world.connect()
    client.data(GET)
    assert status_of(client.take()) == 404
    client.data(POST.replace(b"/a", b"/only/a"))
    server = world.dial_ok()
    client.data(b"hello")
    server.data(OK)
    assert status_of(client.take()) == 200
    client.data(POST)
    assert status_of(client.take()) == 404
    assert client.eof_written
    assert [entry.reason for entry in world.log] == ["no_route", "", "no_route"]
    world.check_settled()


def test_pipelined_requests_have_a_turn_each() -> None:
    """However fast they come and are answered: others are served between them, and little is read ahead."""
    world = World(path=b"/only/*")
    client = world.connect()
    client.data(GET * 3000)
    client.data(GET * 3000)
    client.data(GET * 3000)
    assert len(world.log) == 1
    protocol = client.protocol
    assert protocol.paused_reading
    assert len(protocol.buffer) <= 6000 * len(GET)
    world.loop.run()
    assert client.take().count(b"HTTP/1.1 404 ") == 9000
    assert [entry.reason for entry in world.log] == ["no_route"] * 9000
    world.check_settled()


def test_a_long_read_of_a_body_ends_the_turn() -> None:
    """However small its chunks are, one client's upload is one read of the others' time; a pause for another reason
    outlasts that."""
    world = World()
    client, server = world.request(POST.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked"))
    many = b"1\r\nx\r\n" * 40000
    client.data(many)
    assert not client.reading
    client.data(many)
    assert len(server.sent) < 300_000
    world.loop.run()
    assert client.reading
    server.take()
    client.data(b"1\r\nx\r\n" * 100)
    assert client.reading
    server.block()
    client.data(many)
    world.loop.run()
    assert not client.reading
    server.drain()
    world.loop.run()
    assert client.reading
    client.data(many + b"0\r\n\r\n")
    server.data(OK)
    world.loop.run()
    assert status_of(client.take()) == 200
    world.check_settled()


@pytest.mark.parametrize("path", [b"/only/*", b"/*"])
def test_who_takes_no_answers_gets_no_more(path: bytes) -> None:
    """What is written for a client is bounded also when this gateway answers by itself, and nothing is lost."""
    world = World(path=path)
    client = world.connect()
    client.block()
    get = GET if path != b"/*" else b"OPTIONS /a HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n"
    for _ in range(20):
        client.data(get * 100)
        world.loop.run()
    assert client.get_write_buffer_size() < 2 * HIGH_WATER
    answered = len(world.log)
    assert 0 < answered < 2000
    client.data(get)
    world.loop.run()
    assert len(world.log) == answered
    while len(world.log) < 2001:
        client.drain()
        world.loop.run()
    assert client.take().count(b"HTTP/1.1 ") == 2001
    world.check_settled()


@pytest.mark.parametrize(("method", "status"), [(b"OPTIONS", 200), (b"TRACE", 405)])
def test_max_forwards_ends_here(method: bytes, status: int) -> None:
    """RFC 9110 7.6.2; other methods go on."""
    world = World()
    client = world.connect()
    client.data(method + b" / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n")
    got = client.take()
    assert status_of(got) == status
    assert any(line.startswith(b"allow: ") for line in lines_of(got))
    assert not world.dials
    client, server = world.request(b"GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n")
    server.data(OK)
    world.loop.run()
    world.check_settled()


# -- keeping ----------------------------------------------------------------------------------------------------------


def test_max_requests() -> None:
    """The last answer says so."""
    world = World(listener={"max_requests": 2})
    client, server = world.request(GET)
    server.data(OK)
    assert b"connection: close" not in lines_of(client.take())
    client.data(GET)
    server.data(OK)
    world.loop.run()
    assert b"connection: close" in lines_of(client.take())
    assert client.fin_sent
    world.check_settled()


@pytest.mark.parametrize("how", ["max_requests", "draining", "asked", "half_closed"])
def test_who_could_not_know_of_the_end_may_still_send(how: str) -> None:
    """An end that is our decision lingers, so that a request on its way resets nothing; one that was asked for does
    not, and costs no system call more."""
    world = World(listener={"max_requests": 1 if how == "max_requests" else 0})
    client, server = world.request(GET.replace(b"Host", b"Connection: close\r\nHost") if how == "asked" else GET)
    world.shard.draining = how == "draining"
    if how == "half_closed":
        client.eof()
    server.data(OK)
    world.loop.run()
    assert b"connection: close" in lines_of(client.take())
    assert client.lost is (how in ("asked", "half_closed"))
    if not client.lost:
        assert client.fin_sent
        client.data(GET)
        assert not client.take()
        client.eof()
        world.loop.run()
        assert client.lost
    world.check_settled()


def test_draining_closes_after_the_answer() -> None:
    """Announced, and idle connections go once they have been silent for long enough."""
    world = World()
    client, server = world.request(GET)
    idle = world.connect()
    world.shard.draining = True
    for connection in list(world.shard.downstreams):
        connection.drain(world.now + 0.5, 1.0)  # type: ignore[attr-defined]
    assert not idle.closing
    for connection in list(world.shard.downstreams):
        connection.drain(world.now + 1.5, 1.0)  # type: ignore[attr-defined]
    world.loop.run()
    assert idle.lost
    assert not client.closing
    server.data(OK)
    world.loop.run()
    assert b"connection: close" in lines_of(client.take())
    assert client.fin_sent
    world.check_settled()


def test_a_removed_listener_announces_the_end() -> None:
    """With the next answer, on the connections that it has and on those that still wait to be accepted."""
    world = World()
    client, server = world.request(GET)
    server.data(OK)
    assert b"connection: close" not in lines_of(client.take())
    world.settings.retire()
    client.data(GET)
    server.data(OK)
    world.loop.run()
    late, _ = world.request(GET)
    server.data(OK)
    world.loop.run()
    for one in (client, late):
        assert b"connection: close" in lines_of(one.take())
        assert one.fin_sent
    world.check_settled()


def test_pipelined_bytes_are_bounded() -> None:
    """While an answer is on its way the client is read only so far; it is read again afterwards."""
    world = World()
    client, server = world.request(GET)
    big = b"POST /a HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000\r\n\r\n"
    client.data(big + b"x" * (MAX_PENDING - 10))
    assert not client.reading
    server.data(OK)
    world.loop.run()
    assert client.reading
    client.data(b"x" * (100000 - MAX_PENDING + 10))
    server.data(OK)
    world.loop.run()
    assert client.take().count(b"200 OK") == 2
    assert world.log[1].request_bytes == 100000
    world.check_settled()


def test_a_reload_changes_open_connections() -> None:
    """Routes, forwarding and trust of a connection that was open before."""
    world = World(forward=ForwardPolicy(OFF, False, b"gw", TRACE_OFF))
    client, server = world.request(GET)
    assert b"x-forwarded-for: 192.0.2.7" not in lines_of(server.take())
    server.data(OK)
    other = World(listener={"trusted": ("192.0.2.0/24",)})
    world.settings.update(other.config)
    world.shard.forward = other.shard.forward
    world.shard.generation += 1
    client.data(GET)
    assert b"x-forwarded-for: 192.0.2.7" in lines_of(server.take())
    server.data(OK)
    client.data(GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n"))
    assert b"x-forwarded-for: 9.9.9.9, 192.0.2.7" in lines_of(server.take())
    server.data(OK)
    world.check_settled()


def test_trusted_claims_do_not_stick() -> None:
    """What a trusted peer says of one request's client is not said of the next one's."""
    world = World(listener={"trusted": ("192.0.2.7",)})
    client, server = world.request(GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n"))
    assert b"x-forwarded-for: 9.9.9.9, 192.0.2.7" in lines_of(server.take())
    server.data(OK)
    client.data(GET)
    assert b"x-forwarded-for: 192.0.2.7" in lines_of(server.take())
    server.data(OK)


def test_equal_heads_of_different_clients_stay_apart() -> None:
    """What is remembered of a head must not carry one client's trust, or one configuration's route, to another."""
    raw = GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-Host: claimed\r\n\r\n")
    world = World(listener={"trusted": ("10.0.0.0/8",)}, pool={"max_connections": 1})
    stranger = world.peer
    world.connect().data(raw)  # waits for a connection
    world.peer = Peer("10.0.0.1", 4711, "127.0.0.1", 80, False, False, "")
    world.connect().data(raw)
    other = Route("new", b"*", b"/*", world.upstream, b"/new/", 0.0, -1)
    world.shard.routes = RouteTable([other])
    world.shard.generation += 1
    world.peer = stranger
    world.connect().data(raw)
    server = world.dial_ok()
    seen = []
    for _ in range(3):
        lines = lines_of(server.take())
        seen.append((lines[0], [line for line in lines if line.startswith(b"x-forwarded-host")]))
        server.data(OK)
    assert seen == [
        (b"get /a http/1.1", [b"x-forwarded-host: a.example"]),
        (b"get /a http/1.1", [b"x-forwarded-host: claimed"]),
        (b"get /new/a http/1.1", [b"x-forwarded-host: a.example"]),
    ]
    world.check_settled()


# -- time -------------------------------------------------------------------------------------------------------------


def test_a_connection_that_never_speaks() -> None:
    """Closed without a word after timeouts.head."""
    world = World(timeouts={"head": 5})
    client = world.connect()
    world.advance(4)
    assert not client.closing
    world.advance(5)
    assert client.lost
    assert not client.take()
    assert not world.log


@pytest.mark.parametrize("before", [b"", GET])
def test_a_head_that_never_ends(before: bytes) -> None:
    """408 after timeouts.head, counted from accept or from its first byte."""
    world = World(timeouts={"head": 5, "keepalive": 60})
    client = world.connect()
    if before:
        client.data(before)
        world.dial_ok().data(OK)
        client.take()
    client.data(GET[:20])
    world.advance(3)
    client.data(GET[20:22])
    world.advance(3)
    assert status_of(client.take()) == 408
    assert world.log[-1].reason == "head_timeout"
    world.check_settled()


def test_a_fin_within_a_head_is_the_end() -> None:
    """Without an answer, also if its time-out comes in the same turn of the loop."""
    world = World(timeouts={"head": 5})
    client = world.connect()
    client.data(GET[:10])
    client.eof()
    world.advance(6)
    assert client.lost
    assert not client.take()
    assert not world.log


def test_an_empty_line_after_a_body_is_no_request() -> None:
    """RFC 9112 2.2: nobody is refused for it."""
    world = World(timeouts={"head": 5})
    client, server = world.request(POST + b"hello\r\n")
    server.data(OK)
    world.loop.run()
    client.take()
    world.advance(6)
    assert client.lost
    assert not client.take()
    assert len(world.log) == 1


@pytest.mark.parametrize("keepalive", [1, 30])
def test_keepalive_timeout(keepalive: float) -> None:
    """Also where it is shorter than the time after which memory is given back."""
    world = World(timeouts={"keepalive": keepalive})
    client, server = world.request(GET)
    server.data(OK)
    world.advance(keepalive * 0.9)
    assert not client.closing
    world.advance(keepalive * 0.2)
    assert client.lost
    world.check_settled()


def test_a_request_late_in_the_keepalive() -> None:
    """What was forgotten in the silence is found again."""
    world = World(timeouts={"keepalive": 30})
    client, server = world.request(GET)
    server.data(OK)
    client.take()
    world.advance(20)
    client.data(GET)
    server.data(OK)
    assert status_of(client.take()) == 200
    world.check_settled()


@pytest.mark.parametrize("size", [1000, HIGH_WATER * 3])
@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"])
def test_the_end_of_an_answer_may_take_its_time(size: int, close: bytes) -> None:
    """However slowly it is read: the last buffered bytes are not cut off while there is progress."""
    world = World(timeouts={"write": 10, "keepalive": 12 if size > HIGH_WATER else 1000})
    client, server = world.request(GET.replace(b"Host", close + b"Host"))
    client.block()
    server.data(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
    world.loop.run()
    for _ in range(9):
        client.drain(100)
        world.advance(9)
        assert not client.aborted
    client.drain()
    world.loop.run()
    assert client.take().endswith(b"x" * size)
    world.check_settled()


@pytest.mark.parametrize("size", [1000, HIGH_WATER * 3])
@pytest.mark.parametrize("kind", ["close", "keep", "linger"])
def test_the_end_of_an_answer_that_nobody_reads(size: int, kind: str) -> None:
    """Does not hold its connection for ever."""
    world = World(timeouts={"write": 10, "keepalive": 12})
    raw = GET.replace(b"Host", b"Connection: close\r\nHost") if kind == "close" else GET if kind == "keep" else POST
    client, server = world.request(raw)
    client.block()
    server.data(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
    world.loop.run()
    for _ in range(4):
        world.advance(12)
    assert client.lost
    assert world.gone
    world.check_settled()


def test_a_lingering_client_may_read_slowly() -> None:
    """The answer to a refused upload is not cut off after the linger time while it is being read."""
    world = World(timeouts={"write": 10})
    client, server = world.request(POST)
    client.block()
    server.data(b"HTTP/1.1 413 No\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000)
    world.loop.run()
    for _ in range(4):
        client.drain(500)
        world.advance(9)
        assert not client.aborted
    client.drain()
    assert client.take().endswith(b"x" * 5000)
    world.advance(12)
    assert client.lost
    world.check_settled()


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"])
def test_what_a_stopping_worker_cuts_is_told(part: bytes) -> None:
    """What runs when the drain's time is over has its line, with the reason; who has no answer gets one."""
    world = World()
    client, server = world.request(GET)
    if part:
        server.data(part)
    for connection in list(world.shard.downstreams):
        assert isinstance(connection, Downstream)
        connection.stop()
    assert [exchange.reason for exchange in world.log] == ["draining"]
    assert status_of(client.take()) == (200 if part else 503)
    world.loop.run()
    world.check_settled()


# -- what was before accept --------------------------------------------------------------------------------------------


def test_the_first_request_counts_from_when_it_came() -> None:
    """What it has waited in the kernel belongs to its deadline."""
    world = World(route_timeout_s=10)
    world.peer.kernel_us = 250_000
    client = world.connect()
    for number in range(2):
        _, server = world.request(GET, client)
        exchange = server.protocol.exchange
        late_s = 0.25 if number == 0 else 0.0
        assert exchange.deadline_at == pytest.approx(world.now + 10 - late_s)
        assert exchange.begun_at == world.now
        server.data(OK)
    world.check_settled()


def test_whose_time_was_over_before_accept_is_not_served() -> None:
    """Nor does it cost its upstream anything; the connection goes on."""
    world = World(route_timeout_s=2)
    world.peer.kernel_us = 3_000_000
    client = world.connect()
    client.data(GET)
    world.loop.run()
    assert not world.dials
    got = client.take()
    assert status_of(got) == 504
    assert b"deadline_expired" in got
    _, server = world.request(GET, client)
    server.data(OK)
    assert status_of(client.take()) == 200
    world.check_settled()


def test_the_wait_before_accept_is_a_part_of_the_wait_in_a_queue() -> None:
    """Of a second that a request may wait for the limit, what it lay in the kernel is gone."""
    world = World()
    bulkhead = world.upstream.bulkhead
    bulkhead.configure("fifo", 8, 1 << 20, 1.0)
    bulkhead.resize(1, world.now)
    world.request(GET)
    prompt = world.connect()
    world.peer.kernel_us = 900_000
    late = world.connect()
    prompt.data(GET)
    late.data(GET)
    for refused in (late, prompt):
        assert not refused.take()
        world.advance(1.0 if refused is prompt else 0.2)
        bulkhead.tick(world.now)
        assert b"queue_timeout" in refused.take()


def test_the_wait_for_a_worker_that_was_not_there_is_no_wait_in_a_queue() -> None:
    """After a restart who lay in the kernel is not late: there is no congestion in that. Its deadline has begun."""
    world = World(route_timeout_s=10)
    bulkhead = world.upstream.bulkhead
    bulkhead.configure("fifo", 8, 1 << 20, 1.0)
    bulkhead.resize(1, world.now)
    world.shard.serving_since = world.now
    world.advance(0.3)
    world.request(GET)
    world.peer.kernel_us = 2_000_000
    late = world.connect()
    late.data(GET)
    world.advance(0.6)
    bulkhead.tick(world.now)
    assert not late.take()
    world.advance(0.2)
    bulkhead.tick(world.now)
    assert b"queue_timeout" in late.take()
    (exchange,) = (one for one in world.log if one.reason)
    assert exchange.deadline_at == pytest.approx(world.now + 10 - 2.0 - 0.8)
