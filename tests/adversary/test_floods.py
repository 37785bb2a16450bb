"""Clients that send more than anybody has asked for: what is held for one of them has a bound."""

from __future__ import annotations

from edgeq.response.sending import MAX_PENDING
from tests.support.fake_transport import World

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def _get(number: int) -> bytes:
    return b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number


def test_pipelined_requests_are_read_as_they_are_answered() -> None:
    """One answer does not open the door for as many bytes as a read may bring: that would be 256 KiB for each 26."""
    world = World()
    total = 6000
    client, server = world.request(b"".join(map(_get, range(total // 2))))
    client.data(b"".join(map(_get, range(total // 2, total))))
    assert not client.reading
    answered = 0
    while world.shard.requests != total or server.protocol.exchange is not None:
        server.data(OK)
        answered += 1
        world.loop.run()
        if len(client.protocol.buffer) > MAX_PENDING:
            assert not client.reading
    assert answered == total
    assert client.reading
    assert client.take().count(b"ok") == total
    asked = server.take()
    assert [asked.count(b"GET /%d HTTP" % number) for number in range(total)] == [1] * total
    world.check_settled()


def test_a_large_head_behind_pipelined_requests_is_read_to_its_end() -> None:
    """A head may be larger than what is held of pipelined requests: then reading goes on for it."""
    world = World(limits={"header_bytes": 4 * MAX_PENDING})
    large = b"GET /large HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"x" * (2 * MAX_PENDING))
    cut = MAX_PENDING + 1000
    client, server = world.request(_get(1))
    client.data(large[:cut])
    client.data(large[cut:])
    assert not client.reading
    server.data(OK)
    world.loop.run()
    assert b"GET /large" in server.take()
    server.data(OK)
    world.loop.run()
    assert client.take().count(b"ok") == 2
    world.check_settled()


def test_a_body_behind_pipelined_requests_is_read_to_its_end() -> None:
    """The same for a body."""
    world = World()
    body = b"x" * (3 * MAX_PENDING)
    upload = b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    cut = MAX_PENDING + 1000
    client, server = world.request(_get(1))
    client.data(upload[:cut])
    client.data(upload[cut:])
    assert not client.reading
    server.data(OK)
    world.loop.run()
    assert server.take().endswith(body)
    server.data(OK)
    world.loop.run()
    assert client.take().count(b"ok") == 2
    world.check_settled()
