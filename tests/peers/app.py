"""An upstream on Python's own http.server: tells what it got, and sends events one at a time when told to.

    any method  /...            JSON: method, target, version, fields (names in lower case), body size and SHA-256
    any method  /refuse         413 at once, the body is thrown away
    any method  /reset          413 at once, then the connection is reset because of the body that nobody reads
    GET         /events/NAME/N  an event stream of N events; each waits until the one before it is confirmed
    POST        /confirm/NAME   confirms one event

`Expect: 100-continue` is answered by http.server itself as soon as the head is there, except for /refuse.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import http.server
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

_TIMEOUT_S = 30.0


class App(http.server.ThreadingHTTPServer):
    """The server; `confirm` is the side channel of event streams."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self._lock = threading.Lock()
        self._confirmed: collections.defaultdict[str, threading.Semaphore] = collections.defaultdict(
            lambda: threading.Semaphore(0)
        )

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def confirmed(self, name: str) -> threading.Semaphore:
        """Counts the confirmed events of a stream."""
        with self._lock:
            return self._confirmed[name]

    def confirm(self, name: str) -> None:
        """An event has arrived: the next one may go."""
        self.confirmed(name).release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A gateway that hangs up is no error of this server."""


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: App

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Be silent."""

    def handle_expect_100(self) -> bool:
        if self.path == "/refuse":
            self._refuse()
            return False
        return super().handle_expect_100()

    def do_GET(self) -> None:
        """Whatever the method: GET, HEAD, POST or PUT."""
        what = self.path.partition("?")[0].split("/")[1:]
        if what[0] == "events":
            self._send_events(what[1], int(what[2]))
        elif what[0] == "refuse":
            self._refuse()
        elif what[0] == "reset":
            self.close_connection = True
            self._answer(413, b'{"refused": true}')  # then it closes with unread bytes
        else:
            if what[0] == "confirm":
                self.server.confirm(what[1])
            self._tell()

    do_HEAD = do_GET  # noqa: N815 - http.server looks for these names
    do_POST = do_GET  # noqa: N815
    do_PUT = do_GET  # noqa: N815

    def _tell(self) -> None:
        digest = hashlib.sha256()
        size = 0
        for piece in self._body():
            digest.update(piece)
            size += len(piece)
        fields: dict[str, str] = {}
        for name, value in self.headers.items():
            name = name.lower()
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        told = {
            "method": self.command,
            "target": self.path,
            "version": self.request_version,
            "fields": fields,
            "size": size,
            "sha256": digest.hexdigest(),
        }
        self._answer(200, json.dumps(told).encode())

    def _refuse(self) -> None:
        self.close_connection = True
        self._answer(413, b'{"refused": true}')
        # As a server should (RFC 9112 9.6): closing with unread bytes would be a reset, which can destroy the answer.
        self.connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while self.connection.recv(1 << 20):
                continue

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                continue
            return
        left = int(self.headers.get("Content-Length", 0))
        while left and (piece := self.rfile.read(min(left, 65536))):
            left -= len(piece)
            yield piece

    def _send_events(self, name: str, count: int) -> None:
        confirmed = self.server.confirmed(name)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(count):
            event = f"id: {number}\ndata: {name} {number}\n\n".encode()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
            self.wfile.flush()
            if not confirmed.acquire(timeout=_TIMEOUT_S):
                self.close_connection = True  # without an end: the client sees that something is missing
                return
        self.wfile.write(b"0\r\n\r\n")


@contextlib.contextmanager
def app() -> Iterator[App]:
    """A running server."""
    with App() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(_TIMEOUT_S)
