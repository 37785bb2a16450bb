"""What a client sends in the wrong place does not turn up in the access log."""

from __future__ import annotations

import json

import pytest

from edgeq.response.access_log import render
from tests.support.fake_transport import World


@pytest.mark.parametrize(
    "line",
    [
        b"Authorization: Bearer-SECRET",
        b"Cookie: session=SECRET; more",
        b"GET\thttp://user:SECRET@host/ HTTP/1.1",
        b"CONNECT user:SECRET@host:443 HTTP/1.1",
        b"GET http://user:SECRET@host/ HTTP/1.1",
        b"GET http:/user:SECRET@host HTTP/1.1",
        b"GET user:SECRET@host HTTP/1.1",
    ],
)
@pytest.mark.parametrize("log_format", ["json", "combined"])
def test_a_refused_first_line_is_logged_without_what_may_be_secret(line: bytes, log_format: str) -> None:
    """A field line that comes first (of a body that lost its head) is no request line, and userinfo is no host."""
    world = World()
    client = world.connect()
    client.data(line + b"\r\nHost: a\r\n\r\n")
    world.loop.run()
    assert client.take().startswith(b"HTTP/1.1 40")
    assert b"SECRET" not in render(world.log, log_format, 0.0)


def test_a_refused_request_line_is_logged_all_the_same() -> None:
    """Who looks for the cause of a refusal finds method and path."""
    world = World()
    client = world.connect()
    client.data(b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n")
    world.loop.run()
    record = json.loads(render(world.log, "json", 0.0))
    assert (record["http.request.method"], record["url.path"]) == ("GET", "/a")
