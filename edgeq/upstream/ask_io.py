"""One GET on a connection of its own: what checks and the readings of engines are made of.

It is dialed like any other (`Dialer`: http, https, unix), h11 reads its answer, and all of it has one bounded time.
Invariant: it ends once, whatever ends it; then its connection is closed and nothing is told any more.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import h11

from edgeq.upstream.connect_io import Dial, Dialer

CUT: Final = "the connection was closed before the end of the answer"


class Ask(asyncio.Protocol):
    """The base: what comes is told by the `on_` methods, which may call `end`. None is called from within `start`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str, host: str, agent: str, timeout_s: float) -> None:
        self.ended = False
        self._path = path
        self._host = host
        self._agent = agent
        self._transport: Any = None
        self._dial: Dial | None = None
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=64 * 1024)
        self._timer = loop.call_later(timeout_s, self.on_timeout)

    def on_undialed(self, reason: str, detail: str) -> None:
        """There is no connection. Reason: of the dial, one of the vocabulary."""
        raise NotImplementedError

    def on_status(self, status: int) -> None:
        """The head of the answer."""
        raise NotImplementedError

    def on_data(self, data: bytes) -> None:
        """A part of its body."""
        raise NotImplementedError

    def on_complete(self) -> None:
        """That was all of it."""
        raise NotImplementedError

    def on_broken(self, detail: str) -> None:
        """It was cut, or is not HTTP."""
        raise NotImplementedError

    def on_timeout(self) -> None:
        """The time is over."""
        raise NotImplementedError

    def start(self, dialer: Dialer, address: Any) -> None:
        """Dial."""
        self._dial = dialer.dial(address, lambda: self, self._dialed)

    def end(self) -> None:
        """Close it; nothing is told any more."""
        self.ended = True
        self._timer.cancel()
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        if self._transport is not None:
            self._transport.abort()

    def _dialed(self, protocol: Any, reason: str) -> None:
        dial = self._dial
        self._dial = None
        if protocol is None and not self.ended:
            self.on_undialed(reason, dial.detail if dial is not None else "")

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        if self.ended:
            transport.abort()
            return
        headers = [("Host", self._host), ("User-Agent", self._agent), ("Connection", "close")]
        request = self._h11.send(h11.Request(method="GET", target=self._path, headers=headers))
        transport.write((request or b"") + (self._h11.send(h11.EndOfMessage()) or b""))

    def data_received(self, data: bytes) -> None:
        self._receive(data)

    def eof_received(self) -> bool:
        self._receive(b"")
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended:
            self.on_broken(CUT)

    def _receive(self, data: bytes) -> None:
        if self.ended:
            return
        try:
            self._h11.receive_data(data)
            while not self.ended:
                event = self._h11.next_event()
                if isinstance(event, h11.Response):
                    self.on_status(event.status_code)
                elif isinstance(event, h11.Data):
                    self.on_data(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    self.on_complete()
                    return
                elif not isinstance(event, h11.InformationalResponse):
                    return  # needs more, or the connection has ended
        except h11.RemoteProtocolError as error:
            self.on_broken(f"not valid HTTP: {error}" if data else CUT)
