"""Access-log lines of requests that were refused before they could be read, through the real connection."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgeq.response import access_log
from tests.support.fake_transport import World, frozen_time


def line_of(data: bytes) -> tuple[dict[str, Any], str]:
    """What is logged of these bytes from a client: in JSON and in the combined format."""
    with frozen_time():
        world = World()
        world.connect().data(data)
        world.loop.run()
        (done,) = world.ring
        fields: dict[str, Any] = json.loads(access_log.render([done], "json", 0.0))
        return fields, access_log.render([done], "combined", 0.0).decode()


def test_credentials_of_a_refused_target_are_not_logged() -> None:
    """Userinfo in an absolute-form target is refused (RFC 9110 4.2.4), and no log line repeats it."""
    fields, combined = line_of(b"GET http://user:secret@h.example/a?b HTTP/1.1\r\nHost: h.example\r\n\r\n")
    assert fields["edgeq.reason"] == "host_invalid"
    assert (fields["url.path"], fields["url.query"]) == ("/a", "b")
    assert "secret" not in str(fields) + combined


@pytest.mark.parametrize(
    ("line", "version"),
    [
        (b"GET / HTTP/1.0", "1.0"),
        (b"GET / HTTP/1.1", "1.1"),
        (b"GET / HTTP/2.0", "2.0"),
        (b"GET / FTP", "FTP"),
        (b"GET /", None),
        (b"GET / a b HTTP/1.1", None),
    ],
)
def test_version_as_it_came(line: bytes, version: str | None) -> None:
    """The log says which version a refused request line named, not the one that this gateway speaks."""
    fields, _ = line_of(line + b"\r\nHost: a b\r\n\r\n")
    assert fields.get("network.protocol.version") == version
    assert fields["http.response.status_code"] >= 400
