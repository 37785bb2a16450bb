"""Reads the PROXY header from a socket that has no transport yet, and not one byte more.

The bytes are looked at with MSG_PEEK and then taken, so that TLS or HTTP finds its own first byte in the socket. While
the header is incomplete all that has arrived belongs to it (see proxy_protocol) and is taken at once: bytes that are
only looked at would keep the descriptor readable and the loop spinning.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from edgeq.listener.proxy_protocol import Header, Invalid, NeedMore, parse

_PEEK_BYTES: Final = 536
"""A usual header of version 2 with its TLVs, and any of version 1, fits (section 2.2 of the specification)."""

Outcome = Header | Invalid | None
"""None: the peer left without a byte, as TCP health checks do."""


class PrefaceReader:
    """One connection's header. `done(reader, outcome)` is called exactly once, unless `cancel` comes first."""

    __slots__ = ("_done", "_loop", "_seen", "_timer", "_watching", "connection")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: socket.SocketType,
        done: Callable[[PrefaceReader, Outcome], None],
    ) -> None:
        self.connection = connection
        self._loop = loop
        self._done = done
        self._seen = b""
        self._watching = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self, timeout_s: float) -> None:
        """Read what is there and wait for the rest; 0 means for ever."""
        self._on_readable()
        if self._done_already():
            return
        self._watching = True
        self._loop.add_reader(self.connection.fileno(), self._on_readable)
        if timeout_s > 0:
            self._timer = self._loop.call_later(timeout_s, self._on_timeout)

    def cancel(self) -> socket.SocketType:
        """Stop reading; the caller gets the socket back."""
        self._stop()
        return self.connection

    def _done_already(self) -> bool:
        return self._done is _nothing

    def _stop(self) -> None:
        self._done = _nothing
        if self._watching:
            self._watching = False
            self._loop.remove_reader(self.connection.fileno())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _finish(self, outcome: Outcome) -> None:
        done = self._done
        self._stop()
        done(self, outcome)

    def _on_timeout(self) -> None:
        self._finish(Invalid("timeouts.proxy_header"))

    def _on_readable(self) -> None:
        size = _PEEK_BYTES
        while True:
            try:
                peeked = self.connection.recv(size, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as exc:
                self._finish(Invalid(f"connection lost: {exc.strerror}"))
                return
            if not peeked:
                self._finish(Invalid("closed within the header") if self._seen else None)
                return
            parsed = parse(self._seen + peeked)
            if isinstance(parsed, NeedMore):
                self._take(len(peeked))
                self._seen += peeked
                size = max(parsed.missing, _PEEK_BYTES)
                continue
            if isinstance(parsed, Header):
                self._take(parsed.consumed - len(self._seen))
            self._finish(parsed)
            return

    def _take(self, size: int) -> None:
        """Remove bytes that were peeked: the kernel has them, so one call gets them all."""
        self.connection.recv(size, socket.MSG_DONTWAIT)


def _nothing(_: PrefaceReader, __: Outcome) -> None:
    """Stands for "already done"."""
