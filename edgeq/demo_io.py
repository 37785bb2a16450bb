"""An upstream to try things against: a small HTTP/1.1 server that answers in ways a gateway must cope with.

    GET  /                      the request as it arrived, as text
    GET  /slow?ms=1000          the same after a pause
    GET  /stream?chunks=5&ms=200    a chunked answer, a chunk every `ms`
    GET  /bytes/N               N bytes
    GET  /status/N              an answer with status N
    POST /echo                  the request body, streamed back

Not for production: it has bounds on what it is asked for, but no time-outs and no limit on connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs, urlsplit

import h11

from edgeq.config.address import ListenAddress

MAX_MS: Final = 600_000
MAX_CHUNKS: Final = 100_000
MAX_BYTES: Final = 2**30

_PHRASES: Final = {status.value: status.phrase.encode() for status in HTTPStatus}
_PIECE: Final = b"edgeq" * 13_107 + b"\n"  # 64 KiB

Headers = list[tuple[bytes, bytes]]


class BadInput(Exception):
    """The request asks for what this server does not do; the message is the answer's text."""


def bind(address: ListenAddress) -> socket.socket:
    """A listening socket. Raises OSError."""
    if address.family == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(address.path)
    else:
        sock = socket.socket(socket.AF_INET6 if address.family == "ipv6" else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it. asyncio would set it, but not on sockets whose protocol number is 0, as here.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((address.host, address.port))
    sock.listen(1024)
    return sock


def run(sock: socket.socket, with_parent: bool) -> None:
    """Serve until SIGTERM or SIGINT; `with_parent`: also until standard input ends, as it does when the parent dies."""
    asyncio.run(_main(sock, with_parent))


def end_wanted(with_parent: bool) -> asyncio.Event:
    """Set by SIGTERM and SIGINT, and `with_parent` by the end of standard input."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if with_parent:
        loop.add_reader(sys.stdin.fileno(), stop.set)
    return stop


async def _main(sock: socket.socket, with_parent: bool) -> None:
    stop = end_wanted(with_parent)
    sock.setblocking(False)
    server = await (asyncio.start_unix_server if sock.family == socket.AF_UNIX else asyncio.start_server)(
        handle, sock=sock
    )
    await stop.wait()
    server.close()
    # Connections that are still open end with the loop: asyncio.run cancels their tasks.


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, for `asyncio.start_server`."""
    connection = _Connection(reader, writer)
    try:
        while await connection.exchange():
            pass
    except (OSError, h11.ProtocolError, asyncio.CancelledError):
        pass  # the peer left or broke the protocol, or the server stops: nothing to save
    finally:
        writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await writer.wait_closed()


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._h11 = h11.Connection(h11.SERVER)

    async def exchange(self) -> bool:
        """One request and its answer. Returns whether another may follow."""
        request = await self._event()
        if not isinstance(request, h11.Request):
            return False
        try:
            await self._answer(request)
        except BadInput as error:
            await self._text(request, 400, f"{error}\n".encode())
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True

    async def _answer(self, request: h11.Request) -> None:
        if self._h11.they_are_waiting_for_100_continue:  # before an answer's head, which would end the waiting
            await self._write(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
        url = urlsplit(request.target.decode("ascii"))
        query = parse_qs(url.query)
        match url.path.split("/")[1:]:
            case ["echo"]:
                await self._send(request, 200, [(b"transfer-encoding", b"chunked")], self._body())
                return
            case _:
                async for _ in self._body():
                    pass
        match url.path.split("/")[1:]:
            case ["slow"]:
                await asyncio.sleep(_number(query.get("ms", ["1000"])[0], "ms", 0, MAX_MS) / 1000)
                await self._text(request, 200, _describe(request))
            case ["stream"]:
                chunks = _number(query.get("chunks", ["5"])[0], "chunks", 0, MAX_CHUNKS)
                pause_ms = _number(query.get("ms", ["200"])[0], "ms", 0, MAX_MS)
                await self._send(request, 200, [(b"transfer-encoding", b"chunked")], _ticks(chunks, pause_ms))
            case ["bytes", count_text]:
                count = _number(count_text, "the number of bytes", 0, MAX_BYTES)
                length = (b"content-length", str(count).encode())
                await self._send(request, 200, [length], _pieces(count), b"application/octet-stream")
            case ["status", status_text]:
                await self._text(request, _number(status_text, "the status", 200, 599), _describe(request))
            case [""]:
                await self._text(request, 200, _describe(request))
            case _:
                await self._text(request, 404, b"try / /slow?ms= /stream?chunks=&ms= /bytes/N /status/N /echo\n")

    async def _text(self, request: h11.Request, status: int, text: bytes) -> None:
        length = [] if status in (204, 304) else [(b"content-length", str(len(text)).encode())]
        await self._send(request, status, length, _once(text))

    async def _send(
        self,
        request: h11.Request,
        status: int,
        headers: Headers,
        body: AsyncIterator[bytes],
        content_type: bytes = b"text/plain; charset=utf-8",
    ) -> None:
        reason = _PHRASES.get(status, b"")
        head = h11.Response(status_code=status, reason=reason, headers=[(b"content-type", content_type), *headers])
        await self._write(head)
        if request.method != b"HEAD" and status not in (204, 304):
            async for piece in body:
                await self._write(h11.Data(data=piece))
        await self._write(h11.EndOfMessage())

    async def _body(self) -> AsyncIterator[bytes]:
        while isinstance(event := await self._event(), h11.Data):
            yield bytes(event.data)

    async def _event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while True:
            event = self._h11.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._h11.receive_data(await self._reader.read(65536))

    async def _write(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data:
            self._writer.write(data)
            await self._writer.drain()


def _number(text: str, what: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 12 and low <= int(text) <= high):
        raise BadInput(f"{what} must be a number from {low} to {high}")
    return int(text)


def _describe(request: h11.Request) -> bytes:
    """The request as it arrived. A demo shows all fields; it is not for real credentials."""
    lines = [request.method + b" " + request.target + b" HTTP/" + request.http_version]
    lines += [name + b": " + value for name, value in request.headers.raw_items()]
    return b"\n".join(lines) + b"\n"


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _pieces(count: int) -> AsyncIterator[bytes]:
    for start in range(0, count, len(_PIECE)):
        yield _PIECE[: count - start]


async def _ticks(chunks: int, pause_ms: int) -> AsyncIterator[bytes]:
    for number in range(chunks):
        if number:
            await asyncio.sleep(pause_ms / 1000)
        yield f"chunk {number + 1} of {chunks}\n".encode()
