"""The upstream of uploads and event streams: a small uvloop server whose answers are made in advance.

    python -m benchmarks.peer_upstream_io PORT EVENTS GAP_MS

POST: the body is read and forgotten, the answer is "ok". GET /events: an event stream of EVENTS chunks, one each
GAP_MS, each written on its own. GET ..._echo: what arrived (request id, X-Forwarded-For, X-Forwarded-Proto, number of
the request on its connection). GET /_status: a page like that of nginx's stub_status.
Only a proxy and the harness talk to it, so requests are read without suspicion.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

EVENT_MARK = b"\x1e"
"""Once in each event and nowhere else, so that a reader can count events without parsing them."""


def event(index: int) -> bytes:
    """One event as a language model's answer has it, about 190 bytes."""
    return (
        b'data: {"id":"chatcmpl-7f3a9e51c2","object":"chat.completion.chunk","created":1700000000,"model":"bench",'
        b'"choices":[{"index":0,"delta":{"content":" word%02d%s"},"finish_reason":null}]}\n\n'
        % (index % 100, EVENT_MARK)
    )


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


STREAM_FIELDS = b"Content-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\n" + STREAM_FIELDS + b"\r\n"
OK = answer(b"ok")


class Settings:
    """What all connections share: the stream's chunks in order, the gap between them, the loop."""

    __slots__ = ("accepts", "chunks", "gap_s", "loop")

    def __init__(self, events: int, gap_s: float, loop: asyncio.AbstractEventLoop) -> None:
        self.chunks = [chunk(event(index)) for index in range(events)]
        self.chunks[-1] += b"0\r\n\r\n"
        self.gap_s = gap_s
        self.accepts = 0
        self.loop = loop


class Connection(asyncio.BufferedProtocol):
    """One connection of the proxy."""

    __slots__ = ("_body_left", "_buffer", "_head", "_requests", "_settings", "_transport")

    def __init__(self, settings: Settings, buffer: bytearray) -> None:
        self._settings = settings
        self._buffer = buffer
        self._head = b""
        self._body_left = 0
        self._requests = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._settings.accepts += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._body_left:
            self._body_left -= nbytes
        else:
            self._head += self._buffer[:nbytes]
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, rest = self._head[: end + 2], len(self._head) - end - 4
            self._head = b""
            self._requests += 1
            if not head.startswith(b"POST"):
                self._get(head)
                return
            self._body_left = int(field(head, b"content-length")) - rest
        if self._body_left == 0 and self._transport is not None:
            self._transport.write(OK)

    def _get(self, head: bytes) -> None:
        assert self._transport is not None
        if b"_echo " in head:
            names = (b"x-request-id", b"x-forwarded-for", b"x-forwarded-proto")
            shown = [field(head, name) for name in names] + [b"%d" % self._requests]
            self._transport.write(answer(b"|".join(shown)))
        elif b" /_status " in head:
            accepts = self._settings.accepts
            self._transport.write(
                answer(b"Active connections: 1\nserver accepts handled\n %d %d\n" % (accepts, accepts))
            )
        else:
            self._transport.write(STREAM_HEAD)
            self._settings.loop.call_later(self._settings.gap_s, self._next_chunk, 0)

    def _next_chunk(self, index: int) -> None:
        if self._transport is None:
            return
        self._transport.write(self._settings.chunks[index])
        if index + 1 < len(self._settings.chunks):
            self._settings.loop.call_later(self._settings.gap_s, self._next_chunk, index + 1)


def field(head: bytes, name: bytes) -> bytes:
    """Value of a header field, or nothing. `name` is in lower case."""
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip()
    return b""


async def serve(port: int, events: int, gap_s: float) -> None:
    loop = asyncio.get_running_loop()
    settings = Settings(events, gap_s, loop)
    # Everything is read into the same memory: a body's bytes are never looked at, and a head is copied at once.
    buffer = bytearray(1024 * 1024)
    server = await loop.create_server(lambda: Connection(settings, buffer), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000))
