"""A connection whose first request came with it: served before the event loop knows of it.

By the time a busy worker accepts a connection its first request has mostly arrived. It is read at once, and its answer
is written straight to the socket; only then is it settled whether the loop has to watch the connection at all:

    accepted --request is there--> EARLY --answer written, the client does not keep it--> closed
                                     |
                                     +--anything else--> handed over to a transport of the loop

"Anything else": the rest of a request is awaited, the connection is kept or becomes a tunnel, the client does not take
all that was written, or a tick of the worker has passed, because a client that leaves must be noticed. So a connection
for a single request costs no poll registration, no transport and no coroutine (benchmarks row churn).

Invariants: the descriptor is closed by exactly one party, this transport or, after `register`, the loop's; what was
written goes out in order; the protocol gets connection_lost once, in a turn of its own, as asyncio does it.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from edgeq.listener.connection import Downstream
    from edgeq.listener.open_io import Opener

_FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class EarlyTransport:
    """What a `Downstream` needs of a transport, on a bare socket that nobody reads."""

    __slots__ = ("_aborted", "_closing", "_eof", "_opener", "_options", "_pending", "_protocol", "_sock", "turn")

    def __init__(self, opener: Opener, sock: socket.SocketType, protocol: Downstream, turn: int) -> None:
        self._opener = opener
        self._sock: socket.SocketType | None = sock
        """None once the descriptor is closed, or is the loop's."""
        self._protocol = protocol
        self._pending: list[bytes] = []
        """What the socket did not take. Not empty only while the loop takes over."""
        self._options: list[tuple[int, int, bytes]] = []
        self._closing: bool = False
        self._aborted: bool = False
        self._eof: bool = False
        self.turn: int = turn
        """The tick after which it was opened."""

    # -- what the protocol calls

    def write(self, data: bytes) -> None:
        """Send, as far as the socket takes it now; the loop sends the rest."""
        sock = self._sock
        if sock is None:
            self._keep(data)
            return
        try:
            sent = sock.send(data, _FLAGS)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._end(error)
            return
        if sent < len(data):
            self._keep(data[sent:])
            self.register()

    def writelines(self, parts: tuple[Any, ...]) -> None:
        """Send several parts as one."""
        sock = self._sock
        if sock is None:
            self.write(b"".join(parts))
            return
        try:
            sent = sock.sendmsg(parts, (), _FLAGS)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._end(error)
            return
        if sent < sum([len(part) for part in parts]):
            self._keep(b"".join(parts)[sent:])
            self.register()

    def _keep(self, data: bytes) -> None:
        """Hold what the socket has not taken, and see to it that it stays the only thing to hold: an upstream's socket
        is read thirty times in one turn of the loop if nobody says stop."""
        if not self._closing:
            self._pending.append(data)
            if len(self._pending) == 1:
                self._protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        """Bytes that the socket has not taken."""
        return sum([len(data) for data in self._pending])

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """They stay: what is written is sent at once in any case."""

    def pause_reading(self) -> None:
        """Nothing is read anyway; who takes over looks at `paused_reading`."""

    def resume_reading(self) -> None:
        """The protocol wants to be told what comes."""
        self.register()

    def can_write_eof(self) -> bool:
        """Always: it is a plain socket."""
        return True

    def write_eof(self) -> None:
        """Send a FIN after what was written; the other direction goes on."""
        self._eof = True
        self.register()

    def close(self) -> None:
        """Close after what was written."""
        if not self._closing:
            self._closing = True
            if self._sock is not None:
                self._end(None)

    def abort(self) -> None:
        """Close at once."""
        self._aborted = True
        self.close()

    def is_closing(self) -> bool:
        """Has it been closed?"""
        return self._closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Only "socket", which is good for `fileno` and `setsockopt`."""
        return self if name == "socket" else default

    def fileno(self) -> int:
        """The descriptor; -1 if it is not ours."""
        sock = self._sock
        return -1 if sock is None else sock.fileno()

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        """Now, or as soon as the loop has it."""
        sock = self._sock
        if sock is not None:
            sock.setsockopt(level, option, value)
        else:
            self._options.append((level, option, value))

    # -- handing over

    def register(self) -> None:
        """Let the loop watch this connection; from its next turn on it has a transport of the loop."""
        sock = self._sock
        if sock is not None and not self._closing:
            self._sock = None
            self._opener.hand_over(self, sock.detach())

    def handed_over(self, transport: Any) -> None:
        """The loop's transport is there: it gets the protocol, and what was asked for meanwhile."""
        protocol = self._protocol
        protocol.transport = transport
        transport.set_protocol(protocol)
        for level, option, value in self._options:
            transport.get_extra_info("socket").setsockopt(level, option, value)
        if self._aborted:
            transport.abort()
            return
        if self._pending:
            for data in self._pending:
                transport.write(data)
            self._pending.clear()
            if transport.get_write_buffer_size() <= transport.get_write_buffer_limits()[1]:
                protocol.resume_writing()  # or the transport has said stop itself, and will say when to go on
        if self._eof:
            transport.write_eof()
        if self._closing:
            transport.close()

    def reading_began(self) -> None:
        """uvloop has begun to read, which it does after connection_made, whatever was asked for there."""
        if self._protocol.paused_reading and not self._closing:
            self._protocol.transport.pause_reading()

    def fail(self, error: Exception) -> None:
        """The loop could not take over; the descriptor is closed."""
        self._closing = True
        self._opener.ended(self, self._protocol, error)

    def _end(self, error: Exception | None) -> None:
        self._closing = True
        sock = self._sock
        if sock is not None:
            self._sock = None
            sock.close()
        self._opener.ended(self, self._protocol, error)


class Handover:
    """The protocol of a transport of the loop until the early one has stepped aside."""

    __slots__ = ("_early",)

    def __init__(self, early: EarlyTransport) -> None:
        self._early = early

    def connection_made(self, transport: Any) -> None:
        """Step aside."""
        self._early.handed_over(transport)

    def data_received(self, data: bytes) -> None:
        """Never called: the protocol is another one by then."""

    def eof_received(self) -> bool:
        """Never called."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Only if the transport ended before it began."""
        self._early.fail(error or ConnectionResetError())
