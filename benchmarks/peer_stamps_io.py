"""A provider of models whose streams tell when each of their events was written: what is late is then not its doing.

    python -m benchmarks.peer_stamps_io PORT TOKENS GAP_MS LARGE_BYTES

Each POST gets a stream of TOKENS chat chunks of OpenAI's dialect, one each GAP_MS, the first at once. Their text is the
monotonic nanoseconds of their writing (the clock is the machine's, so any process can compare). Where the request names
LARGE_MODEL, each event is LARGE_BYTES longer. GET /stats tells of requests, and of those that are open.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast

import uvloop

from benchmarks.llm_rows import LARGE_MODEL

END = b"\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNK = '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"%s","choices":[%s]%s}'
DELTA = '{"index":0,"delta":{"content":"%d"},"finish_reason":null}'
STOP = '{"index":0,"delta":{},"finish_reason":"stop"}'


def event(data: str) -> bytes:
    """One event, as a chunk of the body."""
    text = f"data: {data}\n\n"
    return f"{len(text):x}\r\n{text}\r\n".encode()


class Provider:
    """What all connections share."""

    def __init__(self, tokens: int, gap_s: float, large_bytes: int) -> None:
        self.tokens = tokens
        self.gap_s = gap_s
        self.padding = f',"padding":"{"x" * large_bytes}"'
        usage = f',"usage":{{"prompt_tokens":8,"completion_tokens":{tokens},"total_tokens":{tokens + 8}}}'
        self.last = event(CHUNK % ("demo", STOP, "")) + event(CHUNK % ("demo", "", usage)) + event("[DONE]")
        self.requests = 0
        self.open = 0

    def stamped(self, is_large: bool) -> bytes:
        """An event of this moment."""
        text = DELTA % time.monotonic_ns()
        return event(CHUNK % (LARGE_MODEL, text, self.padding) if is_large else CHUNK % ("demo", text, ""))


class Connection(asyncio.Protocol):
    """One connection: one stream at a time."""

    __slots__ = ("_input", "_is_large", "_left", "_paused", "_provider", "_timer", "_transport")

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._input = b""
        self._left = -1
        """Events of the stream under way that are still to be written; -1: there is none."""
        self._is_large = False
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._input += data
        head, found, body = self._input.partition(END)
        if not found or self._transport is None:
            return
        length = head.lower().partition(b"\r\ncontent-length:")[2].split(b"\r\n", 1)[0]
        if len(body) < int(length or b"0"):
            return
        self._input = b""
        provider = self._provider
        if head.startswith(b"GET"):
            told = json.dumps({"requests": provider.requests, "open": provider.open}).encode()
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(told), told))
            return
        provider.requests += 1
        provider.open += 1
        self._left = provider.tokens
        self._is_large = f'"{LARGE_MODEL}"'.encode() in body
        self._transport.write(HEAD)
        self._next()

    def _next(self) -> None:
        """Write an event, and have the next one written a gap later. A blocked stream goes on when it is not."""
        self._timer = None
        transport, provider = self._transport, self._provider
        if transport is None or self._left < 0 or self._paused:
            return
        if self._left == 0:
            self._left = -1
            provider.open -= 1
            transport.write(provider.last + b"0\r\n\r\n")
            return
        self._left -= 1
        transport.write(provider.stamped(self._is_large))
        if not self._paused:
            self._timer = asyncio.get_running_loop().call_later(provider.gap_s, self._next)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._timer is None:
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if self._left >= 0:
            self._left = -1
            self._provider.open -= 1


async def serve(port: int, provider: Provider) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(provider), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Provider(int(sys.argv[2]), float(sys.argv[3]) / 1000, int(sys.argv[4]))))
