"""Whatever answers on the path of an admin socket: numbers, or an error that says why not."""

from __future__ import annotations

import http.server
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeq.errors import EdgeqError
from edgeq.top.gateway_io import Denied, Gateway, Unreachable
from tests.support.builds import ONCE

pytestmark = ONCE


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the server's `answers` say."""

    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        status, body = self.server.answers.get(self.path, (404, b'{"ok": false, "error": "nothing here"}'))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
        pass


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    answers: dict[str, tuple[int, bytes]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(str(tmp_path / "s"), Handler)
    made.answers = {"/v1/version": (200, b'{"version": "9"}')}
    made.answers |= {f"/v1/{name}": (200, b"[]") for name in ("queues", "upstreams", "reasons", "workers")}
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def test_numbers(server: Server, tmp_path: Path) -> None:
    """All subjects."""
    assert Gateway(str(tmp_path / "s")).look() == ("9", [], [], [], [])


@pytest.mark.parametrize(
    ("subject", "status", "body", "error", "says"),
    [
        ("queues", 403, b'{"ok": false, "error": "user 7 may not read"}', Denied, "user 7 may not read"),
        ("queues", 500, b'{"ok": false, "error": "a defect"}', Unreachable, "a defect"),
        ("queues", 200, b"<html>", Unreachable, "not reachable"),
        ("queues", 502, b"[]", Unreachable, "status 502"),
        ("version", 200, b"[]", Unreachable, "not edgeq"),
        ("version", 200, b'{"name": "other"}', Unreachable, "not edgeq"),
    ],
)
def test_errors(
    server: Server, tmp_path: Path, subject: str, status: int, body: bytes, error: type[EdgeqError], says: str
) -> None:
    """Each says what it was."""
    server.answers[f"/v1/{subject}"] = (status, body)
    with pytest.raises(error, match=says):
        Gateway(str(tmp_path / "s")).look()


def test_nobody(tmp_path: Path) -> None:
    """There is no such path."""
    with pytest.raises(Unreachable, match="No such file") as raised:
        Gateway(str(tmp_path / "none")).look()
    assert raised.value.exit_code == 69
    with pytest.raises(Unreachable):
        Gateway(str(tmp_path / "none")).explain("upstream/a")
