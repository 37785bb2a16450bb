"""One exchange by script: what the client sends, what the upstream answers, what each of them gets."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import pytest

from edgeq.wire.framing import LAST_CHUNK
from edgeq.worker.loop_io import TICK_S as LOOP_TICK_S
from edgeq.worker.wheel import FINE_TICK_S
from tests.support.fake_transport import CLOCK, HIGH_WATER, World, frozen_time


@pytest.fixture(autouse=True)
def _time_stands_still() -> Iterator[None]:
    with frozen_time():
        yield


GET = b"GET /a HTTP/1.1\r\nHost: a.example\r\n\r\n"
GET_CLOSE = b"GET /a HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"
GET_10 = b"GET /a HTTP/1.0\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\n"
POST_CHUNKED = b"POST /a HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"
WEBSOCKET = b"GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def body_of(data: bytes) -> bytes:
    """What follows the first head."""
    return data.partition(b"\r\n\r\n")[2]


def status_of(data: bytes) -> int:
    """The first answer's status."""
    return int(data.split(b" ", 2)[1])


def lines_of(data: bytes) -> list[bytes]:
    """The lines of the first head, names in lower case."""
    return data.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")


def busy(world: World) -> World:
    """A world with an idle upstream connection that has served one request."""
    client, server = world.request(GET)
    server.data(OK)
    world.loop.run()
    client.eof()
    world.loop.run()
    world.ring.clear()
    world.shard.requests = 0
    server.take()
    return world


# -- the plain way there and back -------------------------------------------------------------------------------------


def test_a_request_and_its_answer() -> None:
    """Forwarded with our lines, answered with the request id, the connection kept on both sides, one record."""
    world = World()
    client, server = world.request(GET)
    sent = server.take()
    record_id = [line for line in lines_of(sent) if line.startswith(b"x-request-id: ")]
    assert lines_of(sent) == [
        b"get /a http/1.1",
        b"host: a.example",
        b"x-forwarded-host: a.example",
        b"via: 1.1 gw",
        b"x-forwarded-for: 192.0.2.7",
        b"x-forwarded-proto: http",
        *record_id,
    ]
    server.data(OK)
    got = client.take()
    dated = [line for line in lines_of(got) if line.startswith(b"date: ")]
    assert lines_of(got) == [b"http/1.1 200 ok", b"content-length: 2", *dated, *record_id]
    assert body_of(got) == b"ok"
    assert not client.closing
    assert world.upstream.pools[0].idle == [server.protocol]
    assert [(entry.status, entry.reason, entry.answer_bytes, entry.attempts) for entry in world.log] == [
        (200, "", 2, 1)
    ]
    world.check_settled()


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize(
    ("answer", "body", "framing"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world", b"hello world", b"content-length: 11"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x\r\n world\r\n0\r\n\r\n",
            b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
            b"transfer-encoding: chunked",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", b"", b"content-length: 99"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", b"content-length: 0"),
    ],
)
def test_answers_in_any_pieces(answer: bytes, body: bytes, framing: bytes, size: int) -> None:
    """The client gets the same however the answer comes, and the upstream connection is kept."""
    world = World()
    client, server = world.request(GET)
    for at in range(0, len(answer), size):
        server.data(answer[at : at + size])
    got = client.take()
    assert body_of(got) == body
    assert not framing or framing in lines_of(got)
    assert not client.closing
    assert len(world.upstream.pools[0].idle) == 1
    world.check_settled()


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize(
    ("head", "body"),
    [(POST, b"hello"), (POST_CHUNKED, b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"), (POST_CHUNKED, b"0\r\nX-Sum: 1\r\n\r\n")],
)
def test_request_bodies_in_any_pieces(head: bytes, body: bytes, size: int) -> None:
    """The upstream gets the same however the request comes, before and after its connection is there."""
    for dial_at in (0, 1, 2, 1000):
        world = World()
        client = world.connect()
        server = None
        data = head + body
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        for number, piece in enumerate(pieces):
            client.data(piece)
            if world.dials and (number >= len(pieces) - 1 or number >= dial_at):
                server = world.dial_ok()
        assert server is not None
        assert body_of(server.take()) == body
        server.data(OK)
        assert body_of(client.take()) == b"ok"
        assert world.log[0].request_bytes == (5 if b"hel" in body else 0)
        world.check_settled()


def test_pipelined_requests_are_answered_in_order() -> None:
    """One at a time, each with its own record."""
    world = World()
    client = world.connect()
    client.data(GET + POST + b"hello" + GET.replace(b"/a", b"/last"))
    server = world.dial_ok()
    for number in range(3):
        assert (b"/last" in server.take()) is (number == 2)
        server.data(OK.replace(b"ok", b"%02d" % number))
        world.loop.run()
    got = client.take()
    assert [got.index(b"\r\n\r\n%02d" % number) for number in range(3)] == sorted(
        got.index(b"\r\n\r\n%02d" % number) for number in range(3)
    )
    assert [entry.status for entry in world.log] == [200] * 3
    world.check_settled()


def test_a_request_that_comes_while_the_next_one_waits_for_its_turn() -> None:
    """Bytes that arrive between an answer's end and the next request's turn are a request of their own."""
    world = World()
    client = world.connect()
    client.data(GET + GET.replace(b"/a", b"/b"))
    server = world.dial_ok()
    server.data(OK)
    client.data(GET.replace(b"/a", b"/c"))  # before the loop has turned
    world.loop.run()
    server.data(OK)
    world.loop.run()
    server.data(OK)
    world.loop.run()
    assert [(entry.head.target, entry.status) for entry in world.log] == [(b"/a", 200), (b"/b", 200), (b"/c", 200)]
    world.check_settled()


# -- answers whose end needs thought ----------------------------------------------------------------------------------


def test_a_close_delimited_answer_becomes_chunked() -> None:
    """Its end is then visible to the client, whose connection can be kept."""
    world = World()
    client, server = world.request(GET)
    server.data(b"HTTP/1.1 200 OK\r\n\r\nhel")
    server.data(b"lo")
    server.eof()
    world.loop.run()
    got = client.take()
    assert b"transfer-encoding: chunked" in lines_of(got)
    assert body_of(got) == b"3\r\nhel\r\n2\r\nlo\r\n" + LAST_CHUNK
    assert not client.closing
    world.check_settled()


def test_a_reset_close_delimited_answer_is_visibly_cut() -> None:
    """No last chunk, and the connection closed."""
    world = World()
    client, server = world.request(GET)
    server.data(b"HTTP/1.1 200 OK\r\n\r\nhel")
    server.reset()
    world.loop.run()
    assert not body_of(client.take()).endswith(LAST_CHUNK)
    assert client.fin_sent
    assert (world.log[0].reason, world.log[0].status) == ("upstream_truncated", 200)
    world.check_settled()


def test_tls_that_ends_without_an_alert_is_no_end() -> None:
    """RFC 9112 9.8: without close_notify (connection_lost, but no eof_received) a close-delimited answer is cut."""
    world = World()
    client, server = world.request(GET)
    server.data(b"HTTP/1.1 200 OK\r\n\r\nhel")
    server.abort()  # what uvloop does then
    world.loop.run()
    assert not body_of(client.take()).endswith(LAST_CHUNK)
    assert world.log[0].reason == "upstream_truncated"
    world.check_settled()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n0\r\nX: a\r\n",
    ],
)
@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("request_bytes", [GET, GET_10])
def test_a_truncated_answer_never_ends_cleanly(answer: bytes, hard: bool, request_bytes: bytes) -> None:
    """By its framing where there is one; by a reset where the end of the connection would be the end of the answer."""
    world = World()
    client, server = world.request(request_bytes)
    server.data(answer)
    if hard:
        server.reset()
    else:
        server.eof()
    world.loop.run()
    got = client.take()
    assert b"0\r\n\r\n" not in body_of(got)
    assert client.is_reset is (request_bytes is GET_10 and b"chunked" in answer)
    assert client.fin_sent is not client.is_reset
    assert (world.log[0].reason, world.log[0].status) == ("upstream_truncated", 200)
    world.check_settled()


def test_a_cut_close_delimited_answer_to_http_1_0_is_reset() -> None:
    """A FIN would look like its end."""
    world = World()
    client, server = world.request(GET_10)
    server.data(b"HTTP/1.1 200 OK\r\n\r\nhel")
    server.reset()
    world.loop.run()
    assert client.is_reset
    world.check_settled()


@pytest.mark.parametrize("how", ["stalled", "cut request", "worker leaves"])
def test_however_a_close_delimited_answer_is_cut_it_is_reset(how: str) -> None:
    """Its end must not look like its end to anybody."""
    world = World(timeouts={"write": 10})
    head = b"POST /a HTTP/1.0\r\nContent-Length: 5\r\n\r\nhe" if how == "cut request" else GET_10
    client, server = world.request(head)
    if how == "stalled":
        client.block()
    server.data(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * HIGH_WATER * 2)
    if how == "stalled":
        world.advance(2)
        world.advance(11)
    elif how == "cut request":
        client.eof()
    else:
        client.protocol.abort()
    world.loop.run()
    assert client.is_reset
    assert server.lost
    world.check_settled()


def test_http_1_0_gets_no_chunks() -> None:
    """A chunked answer is decoded and ends with the connection."""
    world = World()
    client, server = world.request(GET_10)
    assert b"host: default.example" in lines_of(server.take())
    server.data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n")
    world.loop.run()
    got = client.take()
    assert b"connection: close" in lines_of(got)
    assert body_of(got) == b"hello"
    assert client.fin_sent
    assert not client.is_reset
    assert len(world.upstream.pools[0].idle) == 1
    world.check_settled()


def test_http_1_0_keep_alive() -> None:
    """RFC 9112 9.3: told that it is granted."""
    world = World()
    client, server = world.request(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    server.data(OK)
    assert b"connection: keep-alive" in lines_of(client.take())
    assert not client.closing
    client.data(GET_10)
    server.data(OK)
    world.loop.run()
    assert b"connection: close" in lines_of(client.take())
    assert client.fin_sent
    world.check_settled()


@pytest.mark.parametrize("framing", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b""])
def test_head_has_no_body(framing: bytes) -> None:
    """Whatever the fields say (RFC 9110 9.3.2), and both connections are kept."""
    world = World()
    client, server = world.request(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    server.data(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n")
    assert body_of(client.take()) == b""
    assert not client.closing
    assert len(world.upstream.pools[0].idle) == 1
    world.check_settled()


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"more",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nmore",
        b"HTTP/1.1 204 No Content\r\n\r\nmore",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nmore",
    ],
)
def test_more_than_the_answer_is_not_passed_on(answer: bytes) -> None:
    """And such a connection is not used again."""
    world = World()
    client, server = world.request(GET)
    server.data(answer)
    world.loop.run()
    assert not client.take().endswith(b"more")
    assert server.closing
    world.check_settled()


def test_bytes_on_an_idle_connection_close_it() -> None:
    """Nobody asked for them."""
    world = busy(World())
    server = world.servers[0]
    server.data(b"HTTP/1.1 408 Timeout\r\n\r\n")
    world.loop.run()
    assert server.closing
    world.check_settled()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\nb\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxx\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 101,
        SWITCH,
    ],
)
def test_a_wrong_answer_becomes_502(answer: bytes) -> None:
    """Before the first byte of it has gone to the client; the client's connection is kept."""
    world = World()
    client, server = world.request(GET)
    server.data(answer)
    world.loop.run()
    got = client.take()
    assert b"\r\nproxy-status: gw; error=http_protocol_error" in got
    assert b"HTTP/1.1 200" not in got
    assert server.closing
    assert not client.closing
    assert (world.log[0].status, world.log[0].reason) == (502, "upstream_protocol_error")
    world.check_settled()


def test_a_wrong_chunk_later_cuts_the_answer() -> None:
    """After its first byte the only way is a visible truncation."""
    world = World()
    client, server = world.request(GET)
    server.data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    server.data(b"nonsense\r\n")
    world.loop.run()
    assert body_of(client.take()) == b"5\r\nhello\r\n"
    assert client.fin_sent
    assert server.closing
    assert world.log[0].reason == "upstream_protocol_error"
    world.check_settled()


@pytest.mark.parametrize(("end", "detail"), [("eof", b"closed the connection"), ("reset", b"reset the connection")])
def test_an_upstream_that_leaves_before_its_answer_is_502(end: str, detail: bytes) -> None:
    """Not sent again: the connection was new, so the request may have been processed."""
    world = World()
    client, server = world.request(GET)
    getattr(server, end)()
    world.loop.run()
    got = client.take()
    assert status_of(got) == 502
    assert detail in got
    assert not client.closing
    assert not world.dials
    assert (world.log[0].reason, world.log[0].attempts) == ("upstream_reset", 1)
    world.check_settled()


# -- interim answers and Expect ---------------------------------------------------------------------------------------


def test_interim_answers_are_passed_on() -> None:
    """RFC 9110 15.2: to clients that can know them."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
    for request_bytes, expected in ((GET, 1), (GET_10, 0)):
        world = World()
        client, server = world.request(request_bytes)
        server.data(hints[:10])
        server.data(hints[10:] + OK)
        got = client.take()
        assert got.count(b"103 Early Hints") == expected
        assert got.endswith(b"ok")
        world.check_settled()


def test_expect_waits_for_the_upstream() -> None:
    """The expectation goes to the upstream, its 100 to the client, then the body."""
    world = World()
    client, server = world.request(POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert b"expect: 100-continue" in lines_of(server.take())
    server.data(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert client.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.data(b"hello")
    assert server.take() == b"hello"
    server.data(OK)
    assert body_of(client.take()) == b"ok"
    assert not client.closing
    world.check_settled()


def test_expect_that_is_refused_closes() -> None:
    """Where the body would begin is then unknown: it may come or not."""
    world = World()
    client, server = world.request(POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    server.data(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
    world.loop.run()
    assert b"connection: close" in lines_of(client.take())
    assert client.eof_written
    assert server.closing
    client.data(b"hello")
    client.eof()
    world.loop.run()
    assert client.lost
    world.check_settled()


# -- early answers ----------------------------------------------------------------------------------------------------


def test_an_early_answer_ends_the_request() -> None:
    """The client gets it and a lingering close; the upstream connection, which still expects a body, is closed."""
    world = World()
    client, server = world.request(POST + b"he")
    server.data(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
    world.loop.run()
    got = client.take()
    assert status_of(got) == 413
    assert b"connection: close" in lines_of(got)
    assert client.eof_written
    assert not client.closing
    assert server.closing
    world.check_settled()
    client.data(b"llo")
    world.advance(3)
    assert client.lost
    assert world.gone


def test_an_early_answer_does_not_wait_for_an_upstream_that_does_not_read() -> None:
    """Request bytes that nobody will read must not hold the closed connection open for ever."""
    world = World()
    client, server = world.request(POST_CHUNKED)
    server.block()
    size = HIGH_WATER * 2
    client.data(b"%x\r\n" % size + b"x" * size + b"\r\n")
    server.data(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
    world.loop.run()
    assert server.lost
    assert client.reading
    world.check_settled()


def test_an_answer_while_request_bytes_still_wait_does_not_free_the_connection() -> None:
    """The next request must not stand behind bytes that the upstream may never read."""
    world = World()
    client, server = world.request(POST_CHUNKED)
    server.block()
    size = HIGH_WATER * 2
    client.data(b"%x\r\n" % size + b"x" * size + b"\r\n0\r\n\r\n")
    server.data(OK)
    world.loop.run()
    assert body_of(client.take()) == b"ok"
    assert server.lost
    assert client.reading
    assert not client.closing
    world.check_settled()


def test_an_early_close_delimited_answer() -> None:
    """The same where the upstream ends the connection itself, with request bytes still unread."""
    world = World()
    client, server = world.request(POST_CHUNKED)
    server.block()
    size = HIGH_WATER * 2
    client.data(b"%x\r\n" % size + b"x" * size + b"\r\n")
    server.data(b"HTTP/1.1 413 Content Too Large\r\n\r\nno")
    server.eof()
    world.loop.run()
    assert client.take().endswith(LAST_CHUNK)
    assert server.lost
    world.check_settled()


# -- body limits and bad bodies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (POST.replace(b": 5", b": 11"), 413, "body_too_large"),
        (POST_CHUNKED + b"b\r\n" + b"x" * 11, 413, "body_too_large"),
        (POST_CHUNKED + b"x\r\n", 400, "request_malformed"),
        (POST_CHUNKED + b"1\r\naX", 400, "request_malformed"),
        (POST_CHUNKED + b"0\r\nX: " + b"a" * 9000, 431, "trailer_bytes_exceeded"),
        (POST_CHUNKED + b"0\r\nX : a\r\n\r\n", 400, "request_malformed"),
    ],
)
def test_refused_bodies(data: bytes, status: int, reason: str) -> None:
    """Refused with its own reason, before or while an upstream has the request; the rest is thrown away."""
    for dial_first in (False, True):
        world = World(limits={"body_bytes": 10})
        client = world.connect()
        head, _, body = data.partition(b"\r\n\r\n")
        client.data(head + b"\r\n\r\n")
        server = world.dial_ok() if dial_first and world.dials else None
        if body:
            client.data(body)
        world.loop.run()
        got = client.take()
        assert status_of(got) == status
        assert b"connection: close" in lines_of(got)
        assert client.eof_written
        assert server is None or server.closing
        entry = world.log[0]
        assert (entry.status, entry.reason) == (status, reason)
        client.eof()
        world.loop.run()
        while world.dials:
            world.dial_ok()
        world.check_settled()


def test_a_body_of_the_limit_passes() -> None:
    """The limit itself is allowed, in both framings."""
    for data in (POST + b"hello", POST_CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"):
        world = World(limits={"body_bytes": 5})
        client, server = world.request(data)
        server.data(OK)
        assert status_of(client.take()) == 200
        world.check_settled()


def test_a_route_overrides_the_body_limit() -> None:
    """Its own limit names the route as the resource; 0 means none."""
    world = World(limits={"body_bytes": 100}, body_bytes=4)
    client = world.connect()
    client.data(POST)
    assert status_of(client.take()) == 413
    assert world.log[0].resource == "route/r"
    world = World(limits={"body_bytes": 4}, body_bytes=0)
    client, server = world.request(POST + b"hello")
    server.data(OK)
    assert status_of(client.take()) == 200


# -- sent again -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["eof", "reset"])
def test_a_stale_connection_costs_an_idempotent_request_nothing(end: str) -> None:
    """Closed while the request was on its way: the request goes again, once, on a fresh connection."""
    world = busy(World())
    client, old = world.request(b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
    first = old.take()
    getattr(old, end)()
    world.loop.run()
    fresh = world.dial_ok()
    assert fresh.take() == first
    fresh.data(OK)
    world.loop.run()
    assert status_of(client.take()) == 200
    entry = world.log[0]
    assert (entry.attempts, entry.reused, entry.reason) == (2, False, "")
    world.check_settled()


def test_only_once() -> None:
    """The second time the upstream's doing is told."""
    world = busy(World())
    client, old = world.request(GET)
    old.reset()
    world.loop.run()
    world.dial_ok().reset()
    world.loop.run()
    assert status_of(client.take()) == 502
    assert world.log[0].attempts == 2
    assert not world.dials
    world.check_settled()


def test_a_post_is_never_sent_twice() -> None:
    """RFC 9110 9.2.2."""
    world = busy(World())
    client, old = world.request(POST + b"hello")
    old.reset()
    world.loop.run()
    assert status_of(client.take()) == 502
    assert not world.dials
    world.check_settled()


def test_a_post_asks_first_whether_an_idle_connection_is_alive() -> None:
    """It is not risked on one that the upstream has closed already."""
    world = busy(World())
    old = world.servers[0]
    world.stale.add(old)
    client, fresh = world.request(POST + b"hello")
    assert fresh is not old
    assert old.closing
    assert old.take() == b""
    fresh.data(OK)
    assert status_of(client.take()) == 200
    world.check_settled()


TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def test_a_408_of_a_connection_that_was_idle_is_no_answer() -> None:
    """It was on its way when the request was sent: that goes again, on a new connection, once."""
    world = busy(World())
    client, old = world.request(GET)
    old.data(TIMED_OUT)
    world.loop.run()
    assert old.closing
    assert client.take() == b""
    fresh = world.dial_ok()
    assert fresh.take().startswith(b"GET /a ")
    fresh.data(TIMED_OUT)
    world.loop.run()
    assert status_of(client.take()) == 408
    entry = world.log[0]
    assert (entry.attempts, entry.reused, entry.status) == (2, False, 408)
    world.check_settled()


@pytest.mark.parametrize(
    ("request_head", "answer"),
    [
        (POST + b"hello", TIMED_OUT),
        (GET, b"HTTP/1.1 100 Continue\r\n\r\n" + TIMED_OUT),
        (GET, TIMED_OUT.replace(b"Connection: close\r\n", b"")),
        (GET, TIMED_OUT.replace(b"408", b"503")),
    ],
)
def test_other_answers_are_answers(request_head: bytes, answer: bytes) -> None:
    """A request that must not be sent twice, one that was begun to be answered, a server that does not close."""
    world = busy(World())
    client, old = world.request(request_head)
    old.data(answer)
    world.loop.run()
    assert not world.dials
    assert b"HTTP/1.1 408 " in client.take() or b"503" in answer
    world.check_settled()


@pytest.mark.parametrize("part", [b"H", b"HTTP/1.1 200 OK\r\n"])
def test_not_again_after_a_byte_of_an_answer(part: bytes) -> None:
    """Then the request was processed, at least in part."""
    world = busy(World())
    client, old = world.request(GET)
    old.data(part)
    old.eof()
    world.loop.run()
    assert status_of(client.take()) == 502
    assert not world.dials
    world.check_settled()


def test_not_again_after_an_interim_answer() -> None:
    """The same for 1xx."""
    world = busy(World())
    client, old = world.request(GET)
    old.data(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    old.eof()
    world.loop.run()
    assert b"HTTP/1.1 502 " in client.take()
    assert not world.dials
    world.check_settled()


def test_not_again_if_a_part_of_the_body_is_gone() -> None:
    """A body that was passed on in pieces is not kept."""
    world = busy(World())
    client, old = world.request(b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe")
    client.data(b"llo")
    old.reset()
    world.loop.run()
    assert status_of(client.take()) == 502
    world.check_settled()


def test_a_client_that_left_meanwhile_is_not_served() -> None:
    """Nothing is sent again for nobody."""
    world = busy(World())
    client, old = world.request(GET)
    client.reset()
    world.loop.run()
    assert old.closing
    assert not world.dials
    assert (world.log[0].status, world.log[0].reason) == (499, "client_gone")
    world.check_settled()


# -- the client leaves ------------------------------------------------------------------------------------------------


def test_a_reset_cancels_at_once() -> None:
    """Waiting for a connection, waiting for an answer, within an answer."""
    for stage in range(3):
        world = World()
        client = world.connect()
        client.data(GET)
        if stage >= 1:
            server = world.dial_ok()
        if stage == 2:
            server.data(OK[:-1])
        client.reset()
        world.loop.run()
        if stage == 0:
            assert not world.upstream.pools[0].waiting
            server = world.dial_ok()
            assert world.upstream.pools[0].idle
        else:
            assert server.aborted
        entry = world.log[0]
        assert (entry.reason, entry.status) == ("client_gone", 200 if stage == 2 else 499)
        assert world.gone == [world.peer]
        world.check_settled()


def test_a_half_close_still_gets_its_answer() -> None:
    """A FIN after a complete request is no departure; the answer says that the connection ends."""
    world = World()
    client, server = world.request(GET)
    client.eof()
    server.data(OK)
    world.loop.run()
    got = client.take()
    assert body_of(got) == b"ok"
    assert b"connection: close" in lines_of(got)
    assert client.fin_sent
    world.check_settled()


def test_a_half_close_with_pipelined_requests_gets_all_answers() -> None:
    """What was sent before the FIN is answered; the last answer says that the connection ends."""
    world = World()
    client = world.connect()
    client.data(GET * 3)
    client.eof()
    server = world.dial_ok()
    for _ in range(3):
        server.data(OK)
        world.loop.run()
    got = client.take()
    assert got.count(b"HTTP/1.1 200 OK") == 3
    assert got.count(b"connection: close") == 1
    assert client.fin_sent
    world.check_settled()


def test_a_half_close_within_a_pipelined_request_ends_there() -> None:
    """A cut request is none; nobody waits for the rest of it."""
    world = World()
    client = world.connect()
    client.data(GET + GET[:10])
    client.eof()
    world.dial_ok().data(OK)
    world.loop.run()
    assert client.take().count(b"HTTP/1.1 ") == 1
    assert client.closing
    world.check_settled()


def test_after_a_grace_a_half_closed_client_is_gone() -> None:
    """A FIN cannot be told from a departure: the answer gets a second to begin."""
    world = World(timeouts={"half_close": 1})
    client, server = world.request(GET)
    client.eof()
    world.advance(0.5)
    assert not client.closing
    world.advance(1)
    assert client.lost
    assert server.closing
    assert (world.log[0].status, world.log[0].reason) == (499, "client_gone")
    world.check_settled()


def test_an_answer_that_has_begun_outlives_the_grace() -> None:
    """The client is there for all we know."""
    world = World(timeouts={"half_close": 1})
    client, server = world.request(GET)
    client.eof()
    server.data(OK[:-1])
    world.advance(2)
    server.data(OK[-1:])
    world.loop.run()
    assert body_of(client.take()) == b"ok"
    world.check_settled()


@pytest.mark.parametrize("answered", [False, True])
def test_a_fin_within_a_request_cancels_it(answered: bool) -> None:
    """The rest of the body never comes; an answer that arrives in the same turn of the loop is for nobody."""
    world = World()
    client, server = world.request(POST + b"he")
    client.eof()
    if answered:
        server.data(OK)
    world.loop.run()
    assert client.lost
    assert server.aborted
    assert (world.log[0].status, world.log[0].reason) == (499, "client_gone")
    world.check_settled()


# -- flow control -----------------------------------------------------------------------------------------------------


def test_a_slow_client_stops_the_upstream() -> None:
    """And is not mistaken for a slow upstream, however long it takes, as long as it reads something."""
    world = World(upstream_timeouts={"body": 10}, timeouts={"write": 60})
    client, server = world.request(GET)
    client.block()
    size = HIGH_WATER * 4
    server.data(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    server.data(b"x" * (size // 2))
    assert not server.reading
    for _ in range(5):
        client.drain(1000)
        world.advance(59)
        assert not client.closing
    client.drain()
    assert server.reading
    server.data(b"x" * (size // 2))
    world.loop.run()
    assert len(body_of(client.take())) == size
    assert world.log[0].reason == ""
    world.check_settled()


def test_a_client_that_stops_reading_is_cut() -> None:
    """After timeouts.write without progress."""
    world = World(timeouts={"write": 60})
    client, server = world.request(GET)
    client.block()
    server.data(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n" + b"x" * HIGH_WATER * 2)
    world.advance(2)
    world.advance(61)
    assert client.lost
    assert server.closing
    assert world.log[0].reason == "client_stalled"
    world.check_settled()


def test_a_connection_whose_last_answer_was_slow_is_read_again() -> None:
    """The client takes the end of an answer slowly: the upstream connection goes back to the pool, able to be read."""
    world = World()
    client, server = world.request(GET)
    client.block()
    size = HIGH_WATER * 2
    server.data(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    server.data(b"x" * size)
    world.loop.run()
    assert world.upstream.pools[0].idle
    assert server.reading
    other, same = world.request(GET)
    assert same is server
    server.data(OK)
    world.loop.run()
    assert body_of(other.take()) == b"ok"
    client.drain()
    world.loop.run()
    world.check_settled()


def test_requests_of_a_client_that_does_not_read_do_not_fill_the_memory() -> None:
    """A second request waits until the first answer has been taken."""
    world = World()
    client = world.connect()
    client.block()
    client.data(GET + GET)
    server = world.dial_ok()
    size = HIGH_WATER * 2
    server.data(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
    world.loop.run()
    assert world.shard.in_flight == 0
    client.data(GET)
    assert world.shard.in_flight == 0
    client.drain()
    world.loop.run()
    assert world.shard.in_flight == 1
    server.data(OK)
    world.loop.run()
    assert world.shard.in_flight == 1
    server.data(OK)
    world.loop.run()
    assert client.take().endswith(b"ok")
    world.check_settled()


def test_a_long_read_of_an_answer_ends_the_turn() -> None:
    """However small its chunks are; and who has stopped reading meanwhile is not written to."""
    world = World()
    client, server = world.request(GET)
    many = b"1\r\nx\r\n" * 40000
    server.data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    server.data(many)
    assert not server.reading
    world.loop.run()
    assert server.reading
    client.block()
    server.data(many)
    world.loop.run()
    assert not server.reading
    client.drain()
    world.loop.run()
    assert server.reading
    server.data(many)
    server.data(b"0\r\n\r\n")
    world.loop.run()
    assert client.take().endswith(b"\r\n0\r\n\r\n")
    world.check_settled()


def test_a_slow_upstream_stops_the_client() -> None:
    """In a request's body."""
    world = World()
    client, server = world.request(POST_CHUNKED)
    server.block()
    size = HIGH_WATER * 2
    client.data(b"%x\r\n" % size + b"x" * size)
    assert not client.reading
    server.drain()
    world.loop.run()
    assert client.reading
    client.data(b"\r\n0\r\n\r\n")
    server.data(OK)
    world.loop.run()
    assert status_of(client.take()) == 200
    world.check_settled()


def test_while_there_is_no_connection_a_large_body_waits_in_the_client() -> None:
    """At most about MAX_PENDING bytes are held."""
    world = World()
    client = world.connect()
    client.data(POST_CHUNKED)
    for _ in range(3):
        client.data(b"a000\r\n" + b"x" * 0xA000 + b"\r\n")
    assert not client.reading
    server = world.dial_ok()
    world.loop.run()
    assert client.reading
    client.data(b"0\r\n\r\n")
    assert len(body_of(server.take())) == 3 * (0xA000 + 8) + 5
    server.data(OK)
    world.check_settled()


# -- time -------------------------------------------------------------------------------------------------------------


def test_first_byte_timeout() -> None:
    """504, the upstream connection closed, the client's kept."""
    world = World(upstream_timeouts={"first_byte": 5})
    client, server = world.request(GET)
    world.advance(6)
    assert status_of(client.take()) == 504
    assert server.aborted
    assert not client.closing
    assert world.log[0].reason == "upstream_timeout"
    world.check_settled()


def test_a_slow_client_is_not_the_upstreams_fault() -> None:
    """timeouts.first_byte counts from the end of the request: a client that takes its time gets its own time-out."""
    world = World(upstream_timeouts={"first_byte": 5}, timeouts={"body": 20})
    client, server = world.request(POST + b"he")
    world.advance(7)
    assert not client.take()
    world.advance(15)
    got = client.take()
    assert status_of(got) == 408
    assert server.aborted
    assert world.log[0].reason == "body_timeout"
    world.check_settled()


def test_an_upstream_that_does_not_take_the_request_is_at_fault() -> None:
    """The client is not read then, so it cannot be late."""
    world = World(upstream_timeouts={"first_byte": 5}, timeouts={"body": 2})
    client, server = world.request(POST_CHUNKED)
    server.block()
    client.data(b"fffff\r\n" + b"x" * HIGH_WATER * 2)
    world.advance(3)
    assert not client.take()
    world.advance(3)
    assert status_of(client.take()) == 504
    assert world.log[0].reason == "upstream_timeout"
    world.check_settled()


def test_the_body_timeout_runs_again_after_a_pause() -> None:
    """Once the upstream takes bytes again, the client has to send some."""
    world = World(upstream_timeouts={"first_byte": 600}, timeouts={"body": 2})
    client, server = world.request(POST_CHUNKED)
    server.block()
    client.data(b"fffff\r\n" + b"x" * HIGH_WATER * 2)
    server.drain()
    world.advance(3)
    assert status_of(client.take()) == 408
    assert world.log[0].reason == "body_timeout"
    world.check_settled()


def test_answer_body_timeout_cuts() -> None:
    """Silence within an answer."""
    world = World(upstream_timeouts={"body": 5})
    client, server = world.request(GET)
    server.data(OK[:-1])
    world.advance(6)
    assert client.fin_sent
    assert server.aborted
    assert (world.log[0].reason, world.log[0].status) == ("upstream_timeout", 200)
    world.check_settled()


@pytest.mark.parametrize("blocked", [False, True])
def test_the_routes_deadline_is_for_the_whole_request(blocked: bool) -> None:
    """Also while the client reads slowly."""
    world = World(route_timeout_s=5, timeouts={"write": 60})
    client, server = world.request(GET)
    if blocked:
        client.block()
        server.data(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n" + b"x" * HIGH_WATER * 2)
    world.advance(6)
    client.drain()
    world.loop.run()
    got = client.take()
    assert status_of(got) == (200 if blocked else 504)
    assert client.fin_sent is blocked
    assert server.closing
    assert world.log[0].reason == "deadline_expired"
    world.check_settled()


@pytest.mark.parametrize("timeout_s", [0.05, 0.2, 5.0])
@pytest.mark.parametrize("request_line", [GET, POST_CHUNKED])
def test_a_deadline_is_kept_to_the_hundredth_of_a_second(timeout_s: float, request_line: bytes) -> None:
    """The wheel of all time-outs turns ten times a second, which of 50 ms would make 200."""
    world = World(route_timeout_s=timeout_s)
    client, server = world.request(request_line)
    end_at = world.now + timeout_s
    while world.now < end_at - LOOP_TICK_S:
        world.advance(LOOP_TICK_S)
    world.advance(end_at - 0.001 - world.now)
    assert not client.take()
    world.advance(0.001 + 2 * FINE_TICK_S)
    assert status_of(client.take()) == 504
    assert server.closing
    assert world.log[0].reason == "deadline_expired"


def test_who_is_answered_before_his_deadline_is_not_asked_again() -> None:
    """Its end is on its way when the answer comes: the next request of the connection has a time of its own."""
    world = World(route_timeout_s=0.1)
    client, server = world.request(GET)
    world.advance(0.05)
    server.data(OK)
    assert status_of(client.take()) == 200
    client.data(GET)
    world.advance(0.06)
    assert not client.take()
    server.data(OK)
    assert status_of(client.take()) == 200
    world.advance(1.0)
    assert not client.closing
    assert world.shard.fine_wheel.is_idle()
    world.check_settled()


def test_a_deadline_in_the_queue() -> None:
    """A request that waits for a connection leaves the queue."""
    world = World(route_timeout_s=5)
    client = world.connect()
    client.data(GET)
    world.advance(6)
    assert status_of(client.take()) == 504
    world.dial_ok()
    world.check_settled()


@pytest.mark.parametrize("queued_for", ["a place", "a connection"])
def test_a_deadline_says_where_it_was_missed(queued_for: str) -> None:
    """In the queue of its upstream, whose resource is named then, or on its way to a connection."""
    world = World(route_timeout_s=5)
    client = world.connect()
    if queued_for == "a place":
        world.upstream.bulkhead.pause(CLOCK.now_s)
    client.data(GET)
    world.advance(6)
    told = json.loads(body_of(client.take()))
    assert told["reason"] == "deadline_expired"
    if queued_for == "a place":
        assert (told["resource"], told["detail"]) == (
            "upstream/up:queue",
            "its time ran out while it waited for its turn",
        )
    else:
        assert told["detail"] == "its time ran out while it waited for a connection"


# -- Date -------------------------------------------------------------------------------------------------------------


def test_an_answer_without_a_date_gets_one() -> None:
    """RFC 9110 6.6.1: that of its arrival; one that has come is kept, also in small letters."""
    world = World()
    client, server = world.request(GET)
    server.data(OK)
    (date,) = re.findall(rb"\r\ndate: ([^\r]+)\r\n", client.take())
    assert abs(parsedate_to_datetime(date.decode()).timestamp() - time.time()) < 60
    client.data(GET)
    server.data(b"HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n")
    assert re.findall(rb"(?i)\r\ndate: ([^\r]+)\r\n", client.take()) == [b"Sun, 06 Nov 1994 08:49:37 GMT"]


# -- tunnels ----------------------------------------------------------------------------------------------------------


def test_a_tunnel_passes_bytes_both_ways() -> None:
    """What came with the request or the answer is not lost."""
    world = World()
    client, server = world.request(WEBSOCKET + b"early")
    server.take()
    server.data(SWITCH + b"hi")
    assert body_of(client.take()) == b"hi"
    assert server.take() == b"early"
    client.data(b"to upstream")
    server.data(b"to client")
    assert (server.take(), client.take()) == (b"to upstream", b"to client")
    client.eof()
    assert server.eof_written
    server.data(b"last")
    assert client.take() == b"last"
    server.eof()
    world.loop.run()
    assert client.lost
    assert server.lost
    entry = world.log[0]
    assert (entry.status, entry.reason) == (101, "")
    world.check_settled()


def test_a_tunnel_whose_upstream_ends_first() -> None:
    """The FIN is passed on, the other direction lives until the client ends it too; then both are closed."""
    world = World()
    client, server = world.request(WEBSOCKET)
    server.data(SWITCH)
    server.eof()
    assert client.eof_written
    client.data(b"more")
    assert server.take().endswith(b"more")
    client.eof()
    world.loop.run()
    assert client.lost
    assert server.lost
    assert world.log[0].status == 101
    world.check_settled()


def test_a_client_that_ended_before_the_switch() -> None:
    """Its FIN reaches the upstream all the same."""
    world = World()
    client, server = world.request(WEBSOCKET)
    client.eof()
    server.data(SWITCH)
    assert server.eof_written
    server.eof()
    world.loop.run()
    assert client.lost
    assert server.lost
    world.check_settled()


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_reset_of_one_side_ends_a_tunnel(who: str) -> None:
    """On both sides."""
    world = World()
    client, server = world.request(WEBSOCKET)
    server.data(SWITCH)
    (client if who == "client" else server).reset()
    world.loop.run()
    assert client.is_reset is (who == "server")
    assert client.lost
    assert server.lost
    world.check_settled()


def test_tls_cannot_half_close_a_tunnel() -> None:
    """A FIN of the upstream then ends it."""
    world = World(tls=True)
    client, server = world.request(WEBSOCKET)
    server.data(SWITCH)
    server.eof()
    world.loop.run()
    assert client.lost
    assert server.lost
    world.check_settled()


def test_a_silent_tunnel_ends() -> None:
    """timeouts.tunnel, in both directions."""
    world = World(upstream_timeouts={"tunnel": 100})
    client, server = world.request(WEBSOCKET)
    server.data(SWITCH)
    world.advance(99)
    assert not client.closing
    world.advance(10)
    assert client.lost
    assert server.lost
    assert world.log[0].reason == "upstream_timeout"
    world.check_settled()


def test_a_tunnel_holds_back_who_is_too_fast() -> None:
    """In both directions."""
    world = World()
    client, server = world.request(WEBSOCKET)
    server.data(SWITCH)
    server.block()
    client.data(b"x" * HIGH_WATER * 2)
    assert not client.reading
    server.drain()
    assert client.reading
    client.block()
    server.data(b"x" * HIGH_WATER * 2)
    assert not server.reading
    client.drain()
    assert server.reading
    client.reset()
    world.loop.run()
    world.check_settled()


def test_http_1_0_cannot_upgrade() -> None:
    """RFC 9110 7.8: ignored there."""
    world = World()
    client, server = world.request(WEBSOCKET.replace(b"1.1", b"1.0"))
    assert b"upgrade: websocket" not in lines_of(server.take())
    server.data(SWITCH)
    world.loop.run()
    assert status_of(client.take()) == 502
    world.check_settled()


def test_no_tunnel_before_the_request_is_complete() -> None:
    """RFC 9110 7.8: the protocol cannot change in the middle of a message."""
    world = World()
    client, server = world.request(WEBSOCKET.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n") + b"he")
    server.data(SWITCH)
    world.loop.run()
    assert status_of(client.take()) == 502
    world.check_settled()


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket, h2c"])
def test_only_the_asked_protocol(protocol: bytes) -> None:
    """A switch to anything else is the upstream's error."""
    world = World()
    client, server = world.request(WEBSOCKET)
    server.data(SWITCH.replace(b"websocket", protocol))
    world.loop.run()
    assert status_of(client.take()) == 502
    world.check_settled()


def test_a_refused_upgrade_is_an_ordinary_answer() -> None:
    """And the connection goes on as HTTP."""
    world = World()
    client, server = world.request(WEBSOCKET)
    server.data(OK)
    world.loop.run()
    assert body_of(client.take()) == b"ok"
    assert not client.closing
    world.check_settled()


# -- no upstream ------------------------------------------------------------------------------------------------------


def test_a_failed_dial_tries_another_endpoint() -> None:
    """Nothing was sent, so any request may go elsewhere; with the last failure its reason is told."""
    world = World(endpoints=2)
    client = world.connect()
    client.data(POST + b"hello")
    world.dial_failed()
    server = world.dial_ok()
    assert body_of(server.take()) == b"hello"
    server.data(OK)
    assert status_of(client.take()) == 200
    assert world.log[0].endpoint == "10.0.0.2:80"
    client.data(POST + b"hello")
    world.dial_failed()  # the first endpoint's turn again
    server.data(OK)
    assert [entry.status for entry in world.log] == [200, 200]
    world.check_settled()


def test_all_dials_failed() -> None:
    """The reason of the last one, and a kept client."""
    world = World(endpoints=2)
    client = world.connect()
    client.data(GET)
    world.dial_failed("upstream_connect_timeout")
    world.dial_failed("upstream_connect_refused")
    got = client.take()
    assert status_of(got) == 502
    assert b"error=connection_refused" in got
    assert not client.closing
    world.check_settled()


def test_no_endpoints() -> None:
    """The upstream's own reason."""
    world = World(endpoints=0)
    world.upstream.unresolved = "dns_error"
    client = world.connect()
    client.data(GET)
    assert status_of(client.take()) == 502
    assert (world.log[0].reason, world.log[0].resource) == ("dns_error", "upstream/up")


def test_trace_ids() -> None:
    """A trace that begins here has the request id as its id; one that came is passed on."""
    from edgeq.policy.headers import TRACE_BEGIN, X_FORWARDED, ForwardPolicy

    world = World(forward=ForwardPolicy(X_FORWARDED, False, b"gw", TRACE_BEGIN))
    client, server = world.request(GET)
    sent = lines_of(server.take())
    server.data(OK)
    entry = world.log[0]
    assert b"traceparent: 00-" + entry.request_id + b"-" + entry.request_id[16:] + b"-01" in sent
    assert entry.trace_id == entry.request_id
    parent = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-00"
    client.data(GET.replace(b"\r\n\r\n", b"\r\ntraceparent: " + parent + b"\r\ntracestate: x=y\r\n\r\n"))
    sent = lines_of(server.take())
    assert b"traceparent: " + parent in sent
    assert b"tracestate: x=y" in sent
    server.data(OK)
    assert world.log[1].trace_id == b"a" * 32


def test_the_log_is_flushed_when_the_ring_is_long() -> None:
    """Between two ticks too."""
    world = World()
    client, server = world.request(GET)
    server.data(OK)
    for _ in range(600):
        client.data(GET)
        server.data(OK)
    assert world.flushes
