"""Answers that could be taken for another request's, or for more than they are."""

from __future__ import annotations

import pytest

from tests.support.fake_transport import World

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize("line", [b"Content-Length: 43", b"Transfer-Encoding: chunked"])
def test_a_204_that_announces_a_body_does_not_keep_its_connection(line: bytes) -> None:
    """The body that a wrong 204 announces would be read as the answer to the next request (RFC 9112 6.3)."""
    world = World()
    client, server = world.request(GET)
    server.data(b"HTTP/1.1 204 No Content\r\n%b\r\n\r\n" % line)
    world.loop.run()
    assert client.take().startswith(b"HTTP/1.1 204")
    assert server.closing
    world.check_settled()


def test_an_interim_answer_passes_without_a_length() -> None:
    """RFC 9110 8.6: no Content-Length in a 1xx; a client that obeys it would swallow the answer."""
    world = World()
    client, server = world.request(GET)
    server.data(b"HTTP/1.1 103 Early Hints\r\nContent-Length: 38\r\nLink: </a>\r\n\r\n" + OK)
    world.loop.run()
    seen = client.take()
    interim, _, rest = seen.partition(b"\r\n\r\n")
    assert b"Link: </a>" in interim
    assert b"ontent-" not in interim
    assert rest.endswith(b"ok")
