"""The demo provider's sockets: HTTP/1.1 on uvloop, a timer for each answer that takes time, nothing else.

A request is read whole, also while an answer goes on (it waits for its turn), so a client that leaves is noticed at
once. Slots are a queue in order of arrival; a waiter that leaves gives up its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections import deque
from typing import Final, cast

import uvloop

from edgeq.demo_io import end_wanted
from edgeq.llm.demo import reply
from edgeq.llm.demo.app import App, Options, Reply, Request, query_key
from edgeq.wire.errors import Refused
from edgeq.wire.framing import CHUNKED, ChunkedFramer
from edgeq.wire.h1_request import find_end, parse_request
from edgeq.wire.head import HeadLimits, RequestHead, field_value

MAX_BODY: Final = 32 * 1024 * 1024
_LIMITS: Final = HeadLimits(8192, 65536, 200)
_BACKLOG: Final = 4096
_TOO_LARGE: Final = b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_BAD: Final = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_LINGER_RESET: Final = struct.pack("ii", 1, 0)


class Provider:
    """What all connections share."""

    def __init__(self, options: Options, loop: asyncio.AbstractEventLoop) -> None:
        self.app = App(options)
        self.loop = loop
        self._waiters: deque[Connection] = deque()

    def enter(self, connection: Connection) -> bool:
        """Take a slot, or wait for one: then `connection.start` is called when it is there."""
        if self.app.options.slots and self.app.running >= self.app.options.slots:
            self._waiters.append(connection)
            self.app.waiting = len(self._waiters)
            return False
        self.app.running += 1
        return True

    def leave(self) -> None:
        """Give a slot back; the first who waits gets it."""
        if self._waiters:
            first = self._waiters.popleft()
            self.app.waiting = len(self._waiters)
            first.start()
        else:
            self.app.running -= 1

    def give_up(self, connection: Connection) -> None:
        """Wait no longer."""
        with contextlib.suppress(ValueError):
            self._waiters.remove(connection)
        self.app.waiting = len(self._waiters)


class Connection(asyncio.Protocol):
    """One connection: one request at a time."""

    __slots__ = (
        "_body",
        "_close",
        "_framer",
        "_has_slot",
        "_head",
        "_index",
        "_input",
        "_length",
        "_paused",
        "_previous",
        "_provider",
        "_reply",
        "_seen",
        "_timer",
        "_transport",
        "_waits",
    )

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._transport: asyncio.Transport | None = None
        self._input = b""
        self._seen = 0
        """Bytes of an incomplete head that were looked at."""
        self._head: RequestHead | None = None
        self._previous: RequestHead | None = None
        self._body: list[bytes] = []
        self._length = 0
        """Bytes of the body that are missing; of a chunked one, those that came."""
        self._framer: ChunkedFramer | None = None
        self._reply: Reply | None = None
        self._index = 0
        """Of the piece that is sent next."""
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._close = False
        self._paused = False
        self._waits = False
        self._has_slot = False

    # -- asyncio.Protocol -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=256 * 1024)

    def data_received(self, data: bytes) -> None:
        self._input = self._input + data if self._input else data
        if self._reply is None:
            self._read()
        elif len(self._input) > MAX_BODY and self._transport is not None:
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._reply is not None:
            if self._reply.account is not None:
                self._reply.account.cancelled += 1
            self._finish()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._reply is not None and self._timer is None and not self._waits:
            self._timer = self._provider.loop.call_soon(self._next)

    # -- requests ---------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Read requests until one is answered."""
        try:
            while self._reply is None and self._transport is not None and self._input:
                if self._head is None and not self._read_head():
                    return
                if not self._read_body():
                    return
                self._answer()
        except Refused:
            self._stop(_BAD)

    def _read_head(self) -> bool:
        assert self._transport is not None
        end = find_end(self._input, self._seen, _LIMITS)
        if end < 0:
            self._seen = len(self._input)
            return False
        self._seen = 0
        self._head = parse_request(self._input[:end], self._previous, _LIMITS)
        self._input = self._input[end:]
        fields = self._head.fields
        self._framer = None
        self._length = fields.content_length
        if fields.body_kind == CHUNKED:
            self._framer = ChunkedFramer(decode=True, keep_trailers=False, max_trailer_bytes=8192)
            self._length = 0
        if self._length > MAX_BODY:
            self._stop(_TOO_LARGE)
            return False
        if fields.expect_continue:
            self._transport.write(_CONTINUE)
        return True

    def _read_body(self) -> bool:
        """Take what is there. Returns whether the body is complete."""
        if self._framer is not None:
            if self._input:
                part = self._framer.feed(self._input)
                self._body.append(part)
                self._length += len(part)
                self._input = self._framer.excess
            if self._length > MAX_BODY:
                self._stop(_TOO_LARGE)
                return False
            return self._framer.done
        if self._length:
            part = self._input[: self._length]
            self._body.append(part)
            self._length -= len(part)
            self._input = self._input[len(part) :]
        return not self._length

    def _answer(self) -> None:
        head = self._head
        assert head is not None
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        self._head, self._previous = None, head
        self._close = not head.keep_alive
        request = Request(head.method, head.path, head.query, body)
        request.anthropic_version = field_value(head, b"anthropic-version")
        request.directives = field_value(head, b"x-mock")
        request.key = _key(head)
        made = self._provider.app.answer(request, time.monotonic(), time.time())
        self._reply = made
        self._index = 0
        if made.account is not None:
            made.account.open += 1
        if made.works:
            if not self._provider.enter(self):
                self._waits = True
                return
            self._has_slot = True
        self._begin()

    def start(self) -> None:
        """The slot is there."""
        self._waits = False
        self._has_slot = True
        self._begin()

    # -- answers ----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        made = self._reply
        assert made is not None
        assert self._transport is not None
        wait_s = made.plan.first_s + made.delay_s
        if not made.plan.pieces:
            return  # it hangs, without a head
        if not wait_s and not made.plan.early and len(made.plan.pieces) == 1:
            self._transport.write(made.plan.head + made.lines + b"\r\n" + made.plan.pieces[0])
            self._index = 1
            self._end()
            return
        if made.plan.early:
            self._transport.write(made.plan.head + made.lines + b"\r\n")
        self._timer = self._provider.loop.call_later(wait_s, self._next) if wait_s else None
        if self._timer is None:
            self._next()

    def _next(self) -> None:
        """Send a piece."""
        self._timer = None
        made = self._reply
        if made is None or self._transport is None or self._paused:
            return  # resume_writing goes on
        plan = made.plan
        if self._index == len(plan.pieces):
            self._end()
            return
        piece = plan.pieces[self._index]
        if self._index == 0 and not plan.early:
            piece = plan.head + made.lines + b"\r\n" + piece
        self._transport.write(piece)
        self._index += 1
        if self._index == len(plan.pieces):
            self._end()
        elif not self._paused:
            self._timer = self._provider.loop.call_later(plan.gap_s, self._next)

    def _end(self) -> None:
        made, transport = self._reply, self._transport
        assert made is not None
        assert transport is not None
        end = made.plan.end
        if end == reply.HANG:
            return  # until the client leaves
        self._finish()
        if end == reply.RESET:
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
            # What was written must be on its way before the reset takes the rest.
            self._provider.loop.call_soon(transport.abort)
        elif end == reply.CLOSE or self._close:
            transport.close()
        else:
            transport.resume_reading()
            if self._input:
                self._timer = self._provider.loop.call_soon(self._read_again)

    def _read_again(self) -> None:
        self._timer = None
        if self._reply is None:
            self._read()

    def _finish(self) -> None:
        """The answer is over, in whatever way."""
        made, self._reply = self._reply, None
        if made is not None and made.account is not None:
            made.account.open -= 1
        if self._waits:
            self._waits = False
            self._provider.give_up(self)
        elif self._has_slot:
            self._has_slot = False
            self._provider.leave()

    def _stop(self, answer: bytes) -> None:
        if self._transport is not None:
            self._transport.write(answer)
            self._transport.close()
            self._transport = None


def _key(head: RequestHead) -> bytes:
    """The key of a request, wherever its dialect puts it."""
    value = field_value(head, b"authorization")
    if value:
        return value.partition(b" ")[2].strip() if value[:7].lower() == b"bearer " else value
    for name in (b"x-api-key", b"x-goog-api-key", b"api-key"):
        value = field_value(head, name)
        if value:
            return value
    return query_key(head.query) if b"key=" in head.query else b""


async def start(sock: socket.socket, options: Options) -> tuple[asyncio.Server, Provider]:
    """Serve on a listening socket, in the running loop."""
    loop = asyncio.get_running_loop()
    provider = Provider(options, loop)
    sock.setblocking(False)
    create = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
    server = await create(lambda: Connection(provider), sock=sock, backlog=_BACKLOG)
    return server, provider


def run(sock: socket.socket, options: Options, with_parent: bool) -> None:
    """Serve until SIGTERM or SIGINT; `with_parent`: also until standard input ends, as it does when the parent dies."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(sock, options, with_parent))


async def _main(sock: socket.socket, options: Options, with_parent: bool) -> None:
    stop = end_wanted(with_parent)
    server, _ = await start(sock, options)
    await stop.wait()
    server.close()  # connections that are still open end with the loop
