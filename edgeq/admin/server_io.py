"""The admin socket: a Unix socket that tells HTTP from text by the first line; and a TCP address for metrics only.

One command per connection, then it closes: `echo "show queues" | nc -U PATH` ends by itself, as with HAProxy's socket.
A client that says "Connection: keep-alive" may send further requests. Plain coroutines: this is the control plane,
where a few milliseconds do not matter. Only who polls is answered without one (`Polled`), because a thousand reads a
second shall cost the gateway next to nothing: 30 us of processor time each instead of 90, where reading and writing
alone take 17 (2026-11-26, benchmarks/admin_reads.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import gzip
import os
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple, TypeAlias

import h11
import orjson

from edgeq.admin.command import STREAM, Answer, Command, Found
from edgeq.admin.control import Client, Control
from edgeq.admin.find import find_http, find_text
from edgeq.admin.render import Body, Record
from edgeq.admin.rights import Rights, peer_of
from edgeq.config.address import parse_listen
from edgeq.config.schema import Server
from edgeq.errors import StartError
from edgeq.observe import log_io
from edgeq.supervisor.sockets_io import UnixPath, peer

_log = log_io.get_logger()
_MAX_LINE_BYTES: Final = 8 * 1024
_MAX_REQUEST_BYTES: Final = 64 * 1024
_TIMEOUT_S: Final = 10.0
"""For a client to send its request, and to take its answer."""
HELD_S: Final = 0.01
_BACKLOG: Final = 512
"""Of a Unix socket that is full, a client that waits for a limited time is refused at once (EAGAIN)."""
_MAX_STREAMS: Final = 16
_HTTP_BEGINS: Final = re.compile(rb"[A-Z]+ /")
_JSON: Final = "application/json"
_LEAST_GZIPPED: Final = 1400
"""Bytes: less goes in one packet as it is."""
_REFUSED: Final = re.compile(rb"q=0(\.0*)?")
_NO_METRICS: Final = Answer(404, {"ok": False, "error": "only GET /metrics is here"})


Handle: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class Request(NamedTuple):
    """What of a request matters here."""

    method: str
    target: str
    accept: str
    if_match: str
    gzips: bool
    """It takes an answer that is compressed."""
    keep: bool
    """The connection shall be kept."""
    in_one_piece: bool
    """It came whole in what had been read already."""


class Polled(asyncio.StreamReaderProtocol):
    """A connection of which a coroutine waits for the next request. Whoever polls sends the same bytes each time: then
    they are answered here, and the coroutine waits on. An answer that was the same twice holds for HELD_S more, as it
    is made of numbers that are kept for longer than that (fresh.py)."""

    def __init__(self, handle: Handle, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(asyncio.StreamReader(limit=_MAX_LINE_BYTES, loop=loop), handle, loop=loop)
        self.request = b""
        """Which bytes; empty while the coroutine is at work."""
        self.again: Callable[[], bytes] = bytes
        """The answer to them, empty to have the coroutine see to it."""
        self.count = 0
        """How often that has happened."""
        self.slow = b""
        """The last request whose answer took a wait, and will again."""
        self._answer = b""
        self._held_until_s = 0.0
        self._out: Any
        """uvloop's transports are asyncio.Transport only by their methods."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client is there."""
        self._out = transport
        super().connection_made(transport)

    def forget(self) -> None:
        """The coroutine is at work again."""
        self.request = self._answer = b""
        self.again = bytes
        self._held_until_s = 0.0

    def data_received(self, data: bytes) -> None:
        """One that does not take its answers is left to the coroutine, which waits for it."""
        if data == self.request and not self._out.get_write_buffer_size():
            now_s = time.monotonic()
            if now_s >= self._held_until_s:
                last, self._answer = self._answer, self.again()
                if self._answer is last:
                    self._held_until_s = now_s + HELD_S
            if self._answer:
                self.count += 1
                self._out.write(self._answer)
                return
            self.slow = data
        super().data_received(data)


class Service:
    """Answers connections from the table of commands. Who may do what is a subclass's."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams = 0
        self._last: tuple[Body, bytes] = ((), b"")

    async def close(self) -> None:
        """End what is open; answers that are ready get out first."""
        if self._server is not None:
            self._server.close()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=0.5)
            for task in self._tasks:
                task.cancel()

    def _find(self, method: str, target: str) -> Found | Answer:
        """What a request asks for."""
        return find_http(method, target)

    def _refusal(self, command: Command, writer: asyncio.StreamWriter) -> str:
        """Why the client may not use a command; empty if it may."""
        raise NotImplementedError

    def _client(self, writer: asyncio.StreamWriter) -> Client:
        """Who asks."""
        return Client()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                line = await _first_line(reader)
            if len(line) > _MAX_LINE_BYTES:
                _write(writer, _too_long(line))
            elif b" HTTP/1." in line:
                await self._speak_http(line, reader, writer)
            elif line.strip():
                await self._speak_text(line.decode(errors="replace"), writer)
            await _flush(writer)
        except TimeoutError:
            writer.transport.abort()  # what it has not taken is not waited for
        except (OSError, ValueError):
            pass  # the client left: there is nobody to tell
        finally:
            self._tasks.discard(task)
            with contextlib.suppress(OSError):
                writer.close()

    async def _speak_text(self, line: str, writer: asyncio.StreamWriter) -> None:
        found = find_text(line)
        if isinstance(found, str):
            _write(writer, f"error: {found}\n".encode())
            return
        if found.command.level == "admin" and not line.endswith("\n"):
            _write(writer, b"error: the line has no end, so nothing was done: it may be a part of another one\n")
            return
        answer = await self._run(found, self._client(writer), writer)
        if answer.stream is not None:
            async for text in self._lines(answer.stream):
                _write(writer, text)
                await _flush(writer)
        elif answer.text:
            _write(writer, answer.text)
        elif isinstance(answer.body, Mapping) and answer.status >= 400 and "error" in answer.body:
            _write(writer, f"error: {answer.body['error']}\n".encode())
        elif found.json:
            _write(writer, _as_json(answer))
        else:
            _write(writer, found.command.text(answer.body).encode())

    async def _speak_http(self, line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_REQUEST_BYTES)
        connection.receive_data(line)
        received = line
        known: tuple[bytes, Request] | None = None
        while True:
            if not received and not connection.trailing_data[0]:
                received = await self._received(known, reader, writer)
                connection.receive_data(received)
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    request = await _next_request(connection, reader)
            except h11.RemoteProtocolError as error:
                problem = Answer(error.error_status_hint, {"ok": False, "error": str(error)})
                # Of a connection of its own: this one's state is that of an error.
                _write(writer, _http(h11.Connection(h11.SERVER), problem, False))
                return
            if request is None:
                return
            answer = await self._answer(request, writer)
            if answer.stream is not None:
                await self._stream(connection, request, answer.stream, writer)
                return
            packs = request.gzips
            _write(writer, _http(connection, answer, request.keep, packs, with_content=request.method != "HEAD"))
            await _flush(writer)
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()
            # Who sends hundreds of requests in one piece has one answered in a turn: others and the workers need some.
            await asyncio.sleep(0)
            if request.in_one_piece and received.startswith(b"GET ") and not connection.trailing_data[0]:
                known = (received, request)
            received = b""

    async def _received(
        self, known: tuple[bytes, Request] | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        """Wait for what comes next, but for requests like the `known` one. Raises TimeoutError if nothing comes."""
        polled = writer.transport.get_protocol()
        assert isinstance(polled, Polled)
        if known is not None and known[0] != polled.slow:
            polled.request, request = known
            polled.again = lambda: self._at_once(request, writer)
        try:
            while True:
                count = polled.count
                try:
                    async with asyncio.timeout(_TIMEOUT_S):
                        return await reader.read(_MAX_LINE_BYTES)
                except TimeoutError:
                    if polled.count == count:
                        raise
        finally:
            polled.forget()

    def _at_once(self, request: Request, writer: asyncio.StreamWriter) -> bytes:
        """What is written in answer to a request whose connection is kept; empty if that takes a wait, as hardly any
        read does: then it is begun in vain."""
        answer = self._answer(request, writer)
        try:
            answer.send(None)
        except StopIteration as done:
            return self._repeated(done.value, request.gzips)
        answer.close()
        return b""

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> Answer:
        found = self._find(request.method, request.target)
        if isinstance(found, Answer):
            return found
        client = self._client(writer)._replace(accept=request.accept, if_match=request.if_match)
        return await self._run(found, client, writer)

    def _repeated(self, answer: Answer, gzips: bool) -> bytes:
        """What is written of an answer whose connection is kept; made once for the same records."""
        body, written = self._last
        if answer.text or answer.etag or answer.status != 200 or body is not answer.body:
            written = _http(h11.Connection(h11.SERVER), answer, True, gzips)
            self._last = (answer.body, written)
        return written

    async def _stream(
        self, connection: h11.Connection, request: Request, stream: AsyncIterator[Record], writer: asyncio.StreamWriter
    ) -> None:
        headers = [("content-type", STREAM), ("transfer-encoding", "chunked"), ("connection", "close")]
        _write(writer, connection.send(h11.Response(status_code=200, headers=headers, reason="OK")) or b"")
        if request.method == "HEAD":
            return
        async for text in self._lines(stream):
            _write(writer, connection.send(h11.Data(data=text)) or b"")
            await _flush(writer)

    async def _lines(self, stream: AsyncIterator[Record]) -> AsyncIterator[bytes]:
        """An empty record is an empty line: a sign of life, by which a client that has left is found out."""
        self._streams += 1
        try:
            async for record in stream:
                yield orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) if record else b"\n"
        finally:
            self._streams -= 1

    async def _run(self, found: Found, client: Client, writer: asyncio.StreamWriter) -> Answer:
        command = found.command
        if refusal := self._refusal(command, writer):
            return Answer(403, {"ok": False, "error": refusal})
        try:
            answer = await command.run(self._control, found.arguments, client)
        except Exception:  # the client is told that it is not its mistake
            _log.exception("admin command failed", command=command.words)
            return Answer(500, {"ok": False, "error": "a defect of edgeq: see the event log"})
        if answer.stream is not None and self._streams >= _MAX_STREAMS:
            return Answer(503, {"ok": False, "error": f"{_MAX_STREAMS} streams are open already"})
        return answer


class AdminServer(Service):
    """The Unix socket."""

    def __init__(self, settings: Server, control: Control) -> None:
        """Bind it. Raises StartError."""
        super().__init__(control)
        self._failure = f"cannot open the admin socket {settings.admin}"
        # Closed to all until its group is right.
        self._path = UnixPath(settings.admin, 0o600)
        self._sock: socket.socket | None = self._path.bind(self._failure)
        self._address = settings.admin
        self._rights = Rights(os.geteuid(), os.getegid(), 0o600)
        try:
            self.configure(settings)
        except StartError:
            self._sock.close()
            self._path.unlink()
            raise

    def configure(self, settings: Server) -> None:
        """Take over mode and group, also of connections that are open. Raises StartError."""
        mode = int(settings.admin_mode, 8)
        try:
            gid = grp.getgrnam(settings.admin_group).gr_gid if settings.admin_group else os.getegid()
        except KeyError:
            raise StartError(f"{self._failure}: there is no group {settings.admin_group!r}") from None
        try:
            if os.stat(self._address).st_gid != gid:  # the unit for systemd allows no chown(2)
                os.chown(self._address, -1, gid)
            os.chmod(self._address, mode)
        except OSError as error:
            raise StartError(f"{self._failure}: group or mode: {error.strerror}") from error
        self._rights = Rights(os.geteuid(), gid, mode)

    async def start(self) -> None:
        """Begin to answer."""
        sock, self._sock = self._sock, None
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: Polled(self._handle, loop), sock=sock, backlog=_BACKLOG)

    async def close(self) -> None:
        """Take the path away, too."""
        self._path.unlink()
        if self._sock is not None:
            self._sock.close()
        await super().close()

    def _client(self, writer: asyncio.StreamWriter) -> Client:
        pid, uid, _gid = peer(writer.get_extra_info("socket"))
        return Client(uid=uid, pid=pid)

    def _refusal(self, command: Command, writer: asyncio.StreamWriter) -> str:
        who = peer_of(writer.get_extra_info("socket"))
        refusal = self._rights.refusal(who, command.level)
        if refusal or command.level == "admin":
            allowed = not refusal
            _log.info("admin command", command=command.words, peer_pid=who.pid, uid=who.uid, allowed=allowed)
        return refusal


class MetricsServer(Service):
    """A TCP address with /metrics and nothing else: it knows nobody's rights, and numbers are no secret."""

    async def start(self, address: str) -> None:
        """Begin to answer. Raises StartError."""
        where = parse_listen(address)
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: Polled(self._handle, loop), where.host, where.port, backlog=_BACKLOG
            )
        except OSError as error:
            raise StartError(f"cannot serve metrics on {address}: {error.strerror}") from error

    def _find(self, method: str, target: str) -> Found | Answer:
        found = super()._find(method, target)
        return found if isinstance(found, Found) and found.command.path == "/metrics" else _NO_METRICS

    async def _speak_text(self, line: str, writer: asyncio.StreamWriter) -> None:
        """It speaks HTTP only."""

    def _refusal(self, command: Command, writer: asyncio.StreamWriter) -> str:
        return ""


async def _next_request(connection: h11.Connection, reader: asyncio.StreamReader) -> Request | None:
    """Read one whole request. Returns None if the client has left."""
    request: Request | None = None
    received = 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(_MAX_LINE_BYTES)
            received += len(data)
            if received > _MAX_REQUEST_BYTES:
                raise h11.RemoteProtocolError("request too large", error_status_hint=413)
            if connection.they_are_waiting_for_100_continue:
                raise h11.RemoteProtocolError("no body is needed", error_status_hint=417)
            connection.receive_data(data)
        elif isinstance(event, h11.Request):
            headers = dict(event.headers)
            request = Request(
                event.method.decode(),
                event.target.decode(errors="replace"),
                headers.get(b"accept", b"").decode("latin-1"),
                headers.get(b"if-match", b"").decode("latin-1").strip().strip('"'),
                _takes_gzip(headers.get(b"accept-encoding", b"")),
                headers.get(b"connection", b"").lower() == b"keep-alive",
                False,
            )
        elif isinstance(event, h11.EndOfMessage):
            assert request is not None
            return request._replace(in_one_piece=received == 0)
        elif isinstance(event, h11.ConnectionClosed):
            return None


async def _first_line(reader: asyncio.StreamReader) -> bytes:
    """With its end, if there is one; of one that is too long its beginning, when the client has sent all (or much)."""
    try:
        return await reader.readuntil()
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError:
        line = rest = await reader.read(2 * _MAX_LINE_BYTES)
        end = b"\r\n\r\n" if _HTTP_BEGINS.match(line) else b"\n"
        # A client that still sends does not hear why; one that waits for an answer has sent the end.
        while rest and end not in line and len(line) < _MAX_REQUEST_BYTES:
            rest = await reader.read(_MAX_REQUEST_BYTES)
            line += rest
        return line


def _too_long(line: bytes) -> bytes:
    problem = f"a line has {_MAX_LINE_BYTES} bytes at most"
    if _HTTP_BEGINS.match(line):
        return _http(h11.Connection(h11.SERVER), Answer(414, {"ok": False, "error": problem}), False)
    return f"error: {problem}\n".encode()


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Raises: ConnectionResetError if the client has left, which is found out while nothing is written, too; a write
    would then be a defect (uvloop: RuntimeError)."""
    if writer.is_closing():
        raise ConnectionResetError
    writer.write(data)


async def _flush(writer: asyncio.StreamWriter) -> None:
    async with asyncio.timeout(_TIMEOUT_S):
        await writer.drain()


def _as_json(answer: Answer) -> bytes:
    return orjson.dumps(answer.body, option=orjson.OPT_APPEND_NEWLINE)


def _takes_gzip(accepts: bytes) -> bool:
    """By an Accept-Encoding (RFC 9110 12.5.3); Prometheus sends "gzip"."""
    said = [one.replace(b" ", b"").lower().partition(b";") for one in accepts.split(b",")]
    return any(coding == b"gzip" and not _REFUSED.fullmatch(weight) for coding, _, weight in said)


def _http(
    connection: h11.Connection, answer: Answer, keep: bool, gzips: bool = False, *, with_content: bool = True
) -> bytes:
    """`gzips`: texts, which numbers of metrics are, may be compressed; records hardly ever are long."""
    body = answer.text or _as_json(answer)
    headers = [("content-type", answer.media or _JSON)]
    if gzips and len(answer.text) >= _LEAST_GZIPPED:
        body = gzip.compress(body, 1)
        headers.append(("content-encoding", "gzip"))
    headers.append(("content-length", str(len(body))))
    if answer.etag:
        headers.append(("etag", f'"{answer.etag}"'))
    headers.append(("connection", "keep-alive" if keep else "close"))
    response = h11.Response(status_code=answer.status, headers=headers, reason=HTTPStatus(answer.status).phrase)
    content = [h11.Data(data=body)] if with_content else []
    parts = [connection.send(event) for event in (response, *content, h11.EndOfMessage())]
    return b"".join(part for part in parts if part)
