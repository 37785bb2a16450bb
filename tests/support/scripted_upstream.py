"""An upstream that keeps every byte it received and does exactly what its script says.

A script is a function of one connection, run in that connection's own thread, written with the steps below: read a
head, a request, n bytes; send; half-close; reset; stall until released. `serve(handler)` makes a script that answers
requests one after another. Requests are read by h11, which is only an oracle here: what it cannot read, and what a
strict reader would not take, is kept in `problems`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import h11

_READ = 256 * 1024
# Stopping wakes every thread by a shutdown of its socket, so this may be long: a thousand threads may wait.
_POLL_MS = 1000
_REQUEST_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [\x21-\x7e\x80-\xff]+ HTTP/1\.[01]\Z")
_FIELD_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t \x21-\x7e\x80-\xff]*\Z")


@dataclasses.dataclass(slots=True)
class SeenRequest:
    """One request as h11 reads it; `head` is its exact bytes."""

    method: bytes
    target: bytes
    version: bytes
    headers: list[tuple[bytes, bytes]]
    head: bytes
    body: bytes = b""
    complete: bool = False
    trailers: list[tuple[bytes, bytes]] = dataclasses.field(default_factory=list)

    def get(self, name: bytes) -> bytes | None:
        """All values of a field joined by ", ", or None."""
        values = [value for key, value in self.headers if key == name.lower()]
        return b", ".join(values) if values else None


class PeerGone(Exception):
    """The gateway closed (or reset) the connection, or the upstream is being stopped."""


def strict_problems(head: bytes) -> list[str]:
    """What a gateway must never send upstream although many servers take it."""
    problems: list[str] = []
    lines = head.split(b"\r\n")
    if not _REQUEST_LINE.match(lines[0]):
        problems.append(f"request line {lines[0]!r}")
    names: list[bytes] = []
    for line in lines[1:]:
        if not _FIELD_LINE.match(line):
            problems.append(f"field line {line!r}")
        names.append(line.partition(b":")[0].strip().lower())
    single = (b"host", b"content-length", b"transfer-encoding")
    problems.extend(f"{name.decode()} twice" for name in single if names.count(name) > 1)
    if b"host" not in names:
        problems.append("no host")
    if b"content-length" in names and b"transfer-encoding" in names:
        problems.append("content-length and transfer-encoding")
    return problems


class UpstreamConnection:
    """One accepted connection: steps for scripts, and what was seen for tests."""

    def __init__(self, upstream: ScriptedUpstream, sock: socket.socket, number: int, peer: tuple[str, int]) -> None:
        self.upstream = upstream
        self.socket = sock
        self.peer = peer
        self.number = number
        self.received = bytearray()
        self.requests: list[SeenRequest] = []
        self.problems: list[str] = []
        self.sent_bytes = 0
        self.peer_ended: str | None = None
        """None while open, else "fin" or "reset"."""
        self.ended = threading.Event()
        """The gateway's end of this connection is over."""
        self.closed = False
        self.over = threading.Event()
        """Either end is closed: this connection serves nothing more."""
        self._pending = b""

    # -- reading ---------------------------------------------------------------------------------------------------
    def _recv(self, timeout_s: float = 60.0) -> bytes:
        """Next bytes; b"" at the peer's FIN. Raises PeerGone on a reset, on stop and after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not self.upstream.stopping.is_set() and time.monotonic() < deadline:
            try:
                if not _wait(self.socket, select.POLLIN):
                    continue
                data = self.socket.recv(_READ)
            except OSError as error:
                self._note_end("reset" if isinstance(error, ConnectionError) else "fin")
                raise PeerGone from error
            if not data:
                self._note_end("fin")
            self.received += data
            self.upstream.notice()
            return data
        raise PeerGone

    def _note_end(self, how: str) -> None:
        self.peer_ended = self.peer_ended or how
        self.ended.set()
        self.over.set()
        self.upstream.notice()

    def _events(self, want_body: bool) -> SeenRequest | None:
        oracle = h11.Connection(h11.SERVER, max_incomplete_event_size=1024 * 1024)
        request: SeenRequest | None = None
        raw = bytearray(self._pending)
        if raw:
            oracle.receive_data(bytes(raw))
        self._pending = b""
        while True:
            try:
                event = oracle.next_event()
            except h11.RemoteProtocolError as error:
                if self.peer_ended is None:
                    self.problems.append(f"unreadable: {error}: {bytes(raw[:300])!r}")
                raise PeerGone from error
            if event is h11.NEED_DATA:
                data = self._recv()
                raw += data
                oracle.receive_data(data)
            elif isinstance(event, h11.Request):
                end = raw.find(b"\r\n\r\n")
                head = bytes(raw[:end]) if end >= 0 else bytes(raw)
                self.problems += strict_problems(head)
                headers = [(bytes(name), bytes(value)) for name, value in event.headers]
                request = SeenRequest(
                    bytes(event.method), bytes(event.target), bytes(event.http_version), headers, head
                )
                self.requests.append(request)
                self.upstream.notice()
                if not want_body:
                    # The rest of this request is read by the script itself, as raw bytes.
                    self._pending = bytes(raw[end + 4 :])
                    return request
            elif isinstance(event, h11.Data):
                assert request is not None
                request.body += bytes(event.data)
                self.upstream.notice()
            elif isinstance(event, h11.EndOfMessage):
                assert request is not None
                request.complete = True
                request.trailers = [(bytes(name), bytes(value)) for name, value in event.headers]
                self._pending = oracle.trailing_data[0]
                self.upstream.notice()
                return request
            else:  # ConnectionClosed, PAUSED
                return None

    def read_request(self) -> SeenRequest | None:
        """The next request with its body; None when the gateway closed instead. Raises PeerGone."""
        return self._events(want_body=True)

    def read_head(self) -> SeenRequest | None:
        """The next request's head only; its body is then read with `read_bytes`."""
        return self._events(want_body=False)

    def read_bytes(self, count: int) -> bytes:
        """Exactly `count` raw bytes, fewer at the peer's FIN."""
        while len(self._pending) < count:
            data = self._recv()
            if not data:
                break
            self._pending += data
        taken, self._pending = self._pending[:count], self._pending[count:]
        return taken

    def read_to_end(self) -> None:
        """Read until the gateway closes."""
        with contextlib.suppress(PeerGone):
            while self._recv():
                pass

    # -- writing ---------------------------------------------------------------------------------------------------
    def send(self, data: bytes, piece_bytes: int = 0) -> None:
        """Send all, in pieces of `piece_bytes` if given. Raises PeerGone."""
        step = piece_bytes or len(data) or 1
        for start in range(0, len(data), step):
            view = memoryview(data)[start : start + step]
            while view:
                if self.upstream.stopping.is_set():
                    raise PeerGone
                try:
                    if not _wait(self.socket, select.POLLOUT):
                        continue
                    count = self.socket.send(view, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    continue
                except OSError as error:
                    self._note_end("reset")
                    raise PeerGone from error
                self.sent_bytes += count
                view = view[count:]

    def half_close(self) -> None:
        """FIN, but keep reading."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """RST."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """FIN and no more reading."""
        self.closed = True
        self.over.set()
        with contextlib.suppress(OSError):
            self.socket.close()

    def gateway_has_closed(self) -> bool:
        """Whether the gateway's FIN or RST is there, whatever the script is doing."""
        if self.ended.is_set() or self.socket.fileno() < 0:
            return True
        poller = select.poll()
        poller.register(self.socket, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        return bool(poller.poll(0))

    def stall(self) -> None:
        """Neither read nor write until the gateway goes away or the upstream is stopped."""
        poller = select.poll()
        poller.register(self.socket, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        while not self.upstream.stopping.is_set():
            if poller.poll(_POLL_MS):
                self._note_end("fin")
                return

    def wait(self, event: threading.Event, timeout_s: float = 30.0) -> None:
        """Wait for a test's event. Raises TimeoutError."""
        if not event.wait(timeout_s):
            raise TimeoutError("the test never set the event")


def _wait(sock: socket.socket, what: int) -> bool:
    if sock.fileno() < 0:
        raise OSError("closed")
    poller = select.poll()
    poller.register(sock, what)
    return bool(poller.poll(_POLL_MS))


Handler = Callable[[UpstreamConnection, SeenRequest], None]
Script = Callable[[UpstreamConnection], None]


class ScriptedUpstream:
    """Listens on a free loopback port; `script` says what each connection does and may be changed at any time."""

    def __init__(self, script: Script | None = None, backlog: int = 2048, send_buffer_bytes: int = 0) -> None:
        self.script = script or serve(echo)
        self._send_buffer_bytes = send_buffer_bytes
        self.connections: list[UpstreamConnection] = []
        self.stopping = threading.Event()
        self._changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True, name="upstream-accept")
        self._accepting.start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[SeenRequest]:
        """All requests of all connections."""
        return [request for connection in list(self.connections) for request in list(connection.requests)]

    @property
    def problems(self) -> list[str]:
        return [problem for connection in list(self.connections) for problem in list(connection.problems)]

    def notice(self) -> None:
        """Something was seen: tests that wait look again."""
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, fact: Callable[[], bool], timeout_s: float = 60.0, what: str = "") -> None:
        """Wait until `fact()` holds, looking whenever something was seen. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(fact, timeout_s):
                raise TimeoutError(f"upstream: not within {timeout_s} s: {what or fact}")

    def drop_idle(self, timeout_s: float = 2.0) -> None:
        """Close every connection and wait until the gateway has closed its side too, so that it must connect anew."""
        for connection in list(self.connections):
            if not connection.over.is_set():
                connection.half_close()
        for connection in list(self.connections):
            connection.over.wait(timeout_s)

    def settle(self) -> None:
        """Wait until everybody who has connected is known, and what those have sent who have left is read."""
        with socket.create_connection(("127.0.0.1", self.port)) as last:
            name = last.getsockname()
            self.wait_for(lambda: any(one.peer == name for one in list(self.connections)), what="is accepted")
        for connection in list(self.connections):
            if not connection.over.is_set() and connection.gateway_has_closed():
                connection.over.wait(2.0)

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                if not _wait(self._listener, select.POLLIN):
                    continue
                sock, peer = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._send_buffer_bytes:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer_bytes)
            connection = UpstreamConnection(self, sock, len(self.connections), peer)
            self.connections.append(connection)
            thread = threading.Thread(target=self._run, args=(connection, self.script), daemon=True)
            self._threads.append(thread)
            thread.start()
            self.notice()

    def _run(self, connection: UpstreamConnection, script: Script) -> None:
        with contextlib.suppress(PeerGone):
            script(connection)
        if not connection.closed:
            connection.close()
        self.notice()

    @property
    def sent_bytes(self) -> int:
        """All that the gateway's kernel took from this upstream."""
        return sum(connection.sent_bytes for connection in list(self.connections))

    def stop(self) -> None:
        """Close everything and join the threads."""
        self.stopping.set()
        for sock in (self._listener, *(connection.socket for connection in self.connections)):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._accepting.join(5)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)
        for connection in self.connections:
            connection.close()

    def __enter__(self) -> ScriptedUpstream:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextlib.contextmanager
def upstream(script: Script | None = None, send_buffer_bytes: int = 0) -> Iterator[ScriptedUpstream]:
    """A running upstream."""
    server = ScriptedUpstream(script, send_buffer_bytes=send_buffer_bytes)
    try:
        yield server
    finally:
        server.stop()


# -- ready-made behaviours ---------------------------------------------------------------------------------------------
def serve(handler: Handler) -> Script:
    """Answer requests one after another with `handler` until the gateway closes."""

    def script(connection: UpstreamConnection) -> None:
        while not connection.closed and (request := connection.read_request()) is not None:
            handler(connection, request)

    return script


def answer(body: bytes = b"", status: bytes = b"200 OK", *fields: bytes) -> bytes:
    """A plain answer with Content-Length."""
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(*chunks: bytes, trailers: tuple[bytes, ...] = ()) -> bytes:
    """A chunked body."""
    parts = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks]
    return b"".join(parts) + b"0\r\n" + b"".join(line + b"\r\n" for line in trailers) + b"\r\n"


def echo(connection: UpstreamConnection, request: SeenRequest) -> None:
    """Answer with the request's body (no body for HEAD)."""
    body = request.body
    head = answer(body, b"200 OK", b"X-Path: " + request.target)
    connection.send(head[: -len(body)] if request.method == b"HEAD" and body else head)


def reply(data: bytes) -> Handler:
    """Answer each request with these bytes."""

    def handler(connection: UpstreamConnection, request: SeenRequest) -> None:
        connection.send(data)

    return handler


def reply_then(data: bytes, end: str) -> Handler:
    """Answer with these bytes, then "close", "reset" or "half-close"."""

    def handler(connection: UpstreamConnection, request: SeenRequest) -> None:
        if data:
            connection.send(data)
        finish(connection, end)

    return handler


def finish(connection: UpstreamConnection, end: str) -> None:
    """End a connection: "keep", "close", "reset", "half-close" or "stall"."""
    if end == "close":
        connection.close()
    elif end == "reset":
        connection.reset()
    elif end == "half-close":
        connection.half_close()
    elif end == "stall":
        connection.stall()


def trickle(data: bytes, gate: threading.Event, piece_bytes: int = 1) -> Handler:
    """Send the first piece at once, the rest piece by piece after the test opens the gate."""

    def handler(connection: UpstreamConnection, request: SeenRequest) -> None:
        connection.send(data[:piece_bytes])
        connection.wait(gate)
        connection.send(data[piece_bytes:], piece_bytes)

    return handler


def early(data: bytes, end: str = "close") -> Script:
    """Answer as soon as the head is there, without reading the body, then close (or otherwise end)."""

    def script(connection: UpstreamConnection) -> None:
        if connection.read_head() is not None:
            connection.send(data)
            finish(connection, end)

    return script


def stalled(connection: UpstreamConnection) -> None:
    """Read one request and never answer."""
    connection.read_request()
    connection.stall()
