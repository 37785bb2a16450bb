"""From an accepted descriptor to a transport with the downstream protocol on it, plain or through a TLS handshake.

Invariants: a descriptor that is given to `open_plain` or `open_tls` is closed by exactly one party, whatever happens;
for each connection either the protocol gets connection_made (and answers for its place from then on), or `failed` is
called once.

`loop.connect_accepted_socket` is a coroutine. Driven by a Task it costs a Task, a future's callback and two turns of
the loop; here it is stepped by hand: the first step makes the transport and schedules connection_made, the second one,
after it, only collects the result. All plain connections of a turn share one call_soon for their second step.

uvloop takes the handle's type from the socket's address family. For AF_INET it makes a TCP handle, and pays three
system calls for each connection: TCP_NODELAY (which we set once on the listening socket), getsockname and getpeername
(accept told us). A pipe handle is libuv's plain stream handle, same read, write and shutdown, without these: so every
connection is presented as AF_UNIX. accept_io.py has the measurement. In consequence the transport's "peername" and
"sockname" are empty and its "socket" is good for fileno() only; Peer has the addresses.

None of this is needed for a connection whose first request is there already and is its only one: early_io.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, ClassVar, Final, cast

from edgeq.listener.connection import Downstream
from edgeq.listener.descriptor_io import socket_of
from edgeq.listener.early_io import EarlyTransport, Handover
from edgeq.listener.peer import Peer
from edgeq.listener.tcp_info_io import data_wait_us
from edgeq.listener.tls_io import DESCRIPTOR, NamedSSLObject

_SHUTDOWN_S: Final = 5.0
"""How long a closed TLS connection waits for the client's close_notify; uvloop's default of 30 s holds descriptors."""
_FIRST_BYTES: Final = 16 * 1024
"""Most first requests are smaller; what does not fit is read by the loop."""
_FOREVER_S: Final = 365 * 86400.0
"""uvloop wants a positive handshake time-out."""

MakeProtocol = Callable[[Peer], asyncio.BaseProtocol]
Failed = Callable[[Peer, BaseException], None]


class AcceptedSocket:
    """What uvloop asks of a socket, for a bare descriptor: a socket object would cost 1.3 microseconds more.

    uvloop closes the descriptor itself and then calls close(), which therefore does nothing.
    """

    __slots__ = ("_fd",)

    family: ClassVar[int] = int(socket.AF_UNIX)
    type: ClassVar[int] = int(socket.SOCK_STREAM)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def close(self) -> None:
        """Called after the transport has closed the descriptor."""


class Opener:
    """Makes transports for one listener."""

    __slots__ = (
        "_arrived",
        "_early",
        "_ended",
        "_failed",
        "_loop",
        "_make_protocol",
        "_opening",
        "_serves_early",
        "_settled",
        "_turn",
        "handshaking",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        make_protocol: MakeProtocol,
        failed: Failed,
        settled: Callable[[], None],
    ) -> None:
        """`settled()` is called whenever `pending()` may have become zero."""
        self._loop = loop
        self._make_protocol = make_protocol
        self._failed = failed
        self._settled = settled
        self._opening: list[tuple[Coroutine[Any, Any, object], asyncio.Future[object], EarlyTransport | None]] = []
        self._arrived: list[tuple[int, Downstream]] = []
        self._early: dict[EarlyTransport, None] = {}
        self._ended: list[tuple[Downstream, Exception | None]] = []
        self._turn: int = 0
        self._serves_early: bool = True
        self.handshaking = 0

    def pending(self) -> int:
        """Connections that have no protocol yet."""
        return self.handshaking + len(self._opening) + len(self._arrived)

    def open_plain(self, fd: int, peer: Peer) -> None:
        """Serve the request that comes with the connection, or give the descriptor to a transport; connection_made
        follows in the next turn of the loop, or the one after."""
        try:
            protocol = self._make_protocol(peer)
        except Exception as exc:
            _close(fd)
            self._failed(peer, exc)
            return
        if self._serves_early and isinstance(protocol, Downstream):
            # Most clients send right after the handshake that has woken us: at the end of this turn it is mostly there.
            if not self._arrived:
                self._loop.call_soon(self._look_at_arrived)
            self._arrived.append((fd, protocol))
        else:
            self._open(fd, protocol, peer)

    def _open(self, fd: int, protocol: Any, peer: Peer) -> None:
        try:
            self._give_to_loop(fd, protocol, None)
        except Exception as exc:  # the transport's: the descriptor is still ours
            _close(fd)
            self._failed(peer, exc)

    def _look_at_arrived(self) -> None:
        """Has the first request come? Then serve it."""
        arrived = self._arrived
        self._arrived = []
        for fd, protocol in arrived:
            sock = socket_of(fd)
            try:
                data = sock.recv(_FIRST_BYTES, socket.MSG_DONTWAIT)
            except OSError:
                data = b""  # it has not come yet, or the client is gone: the loop will tell
            if data:
                peer = protocol.peer
                if peer.late:
                    peer.kernel_us = data_wait_us(sock)
                    protocol.waited = protocol.waited or peer.kernel_us > 0
                self._serve_early(sock, protocol, data)
            else:
                sock.detach()
                self._open(fd, protocol, protocol.peer)
        self._settled()

    def _serve_early(self, sock: socket.SocketType, protocol: Downstream, data: bytes) -> None:
        early = EarlyTransport(self, sock, protocol, self._turn)
        self._early[early] = None
        protocol.early = early
        try:
            protocol.connection_made(early)
            protocol.data_received(data)
        except Exception as exc:
            self._loop.call_exception_handler({"message": "a first request failed", "exception": exc})
            early.abort()
            return
        if protocol.awaits_client():
            early.register()

    def hand_over(self, early: EarlyTransport, fd: int) -> None:
        """Give the descriptor of an early connection to a transport."""
        self._early.pop(early, None)
        try:
            self._give_to_loop(fd, Handover(early), early)
        except Exception as exc:
            _close(fd)
            early.fail(exc)

    def ended(self, early: EarlyTransport, protocol: Downstream, error: Exception | None) -> None:
        """An early connection is closed: its protocol is told in a turn of its own."""
        self._early.pop(early, None)
        if not self._ended:
            self._loop.call_soon(self._tell_ended)
        self._ended.append((protocol, error))

    def _tell_ended(self) -> None:
        ended = self._ended
        self._ended = []
        for protocol, error in ended:
            try:
                protocol.connection_lost(error)
            except Exception as exc:
                self._loop.call_exception_handler({"message": "the end of a connection failed", "exception": exc})

    def tick(self) -> None:
        """Let the loop watch the early connections that were there at the last tick: their clients may leave."""
        for early in list(self._early):
            if early.turn == self._turn:
                break
            early.register()
        self._turn += 1

    def retire(self) -> None:
        """No more ticks will come: the loop watches every connection from the beginning."""
        self._serves_early = False
        for early in list(self._early):
            early.register()

    def _give_to_loop(self, fd: int, protocol: Any, early: EarlyTransport | None) -> None:
        opening = self._loop.connect_accepted_socket(
            partial(_itself, protocol), cast("socket.socket", AcceptedSocket(fd))
        )
        waiter = cast("asyncio.Future[object]", opening.send(None))
        if not self._opening:
            self._loop.call_soon(self._collect)
        self._opening.append((opening, waiter, early))

    def open_tls(self, fd: int, peer: Peer, context: ssl.SSLContext, timeout_s: float) -> None:
        """The same after a handshake; the protocol is made when the client's server name is known."""
        greeter = TlsGreeter(self._make_protocol, peer)
        opening = self._loop.connect_accepted_socket(
            partial(_itself, greeter),
            cast("socket.socket", AcceptedSocket(fd)),
            ssl=context,
            ssl_handshake_timeout=timeout_s if timeout_s > 0 else _FOREVER_S,
            ssl_shutdown_timeout=_SHUTDOWN_S,
        )
        token = DESCRIPTOR.set(fd)
        try:
            waiter = cast("asyncio.Future[object]", opening.send(None))
        except Exception as exc:
            _close(fd)
            self._failed(peer, exc)
            return
        finally:
            DESCRIPTOR.reset(token)
        self.handshaking += 1
        waiter.add_done_callback(partial(self._on_handshake, opening, greeter))

    def _collect(self) -> None:
        opened = self._opening
        self._opening = []
        for opening, waiter, early in opened:
            if not waiter.done():
                # Opened later in the same turn, so its connection_made comes after this call: one turn more.
                if not self._opening:
                    self._loop.call_soon(self._collect)
                self._opening.append((opening, waiter, early))
                continue
            try:
                opening.send(None)
            except StopIteration:
                pass
            except Exception:
                pass  # the protocol has closed its transport within connection_made: not our affair
            if early is not None:
                early.reading_began()
        self._settled()

    def _on_handshake(
        self, opening: Coroutine[Any, Any, object], greeter: TlsGreeter, _: asyncio.Future[object]
    ) -> None:
        self.handshaking -= 1
        error: BaseException = ConnectionResetError("closed within the handshake")
        try:
            opening.send(None)
        except StopIteration:
            pass
        except Exception as exc:
            error = exc
        if not greeter.greeted:
            # The waiter may well have succeeded: uvloop ends it without an error when the client leaves quietly.
            self._failed(greeter.peer, greeter.error or error)
        self._settled()


class TlsGreeter(asyncio.Protocol):
    """Holds the place of the downstream protocol until the handshake is done and the server name is known."""

    __slots__ = ("_make_protocol", "error", "greeted", "peer")

    def __init__(self, make_protocol: MakeProtocol, peer: Peer) -> None:
        self._make_protocol = make_protocol
        self.peer = peer
        self.greeted = False
        self.error: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is done: make the protocol and step aside."""
        peer = self.peer
        connection = transport.get_extra_info("ssl_object")
        name = connection.requested_name if isinstance(connection, NamedSSLObject) else ""
        named = peer.named(name)
        try:
            protocol = self._make_protocol(named)
        except Exception as exc:
            self.error = exc
            cast("asyncio.Transport", transport).abort()
            return
        self.greeted = True
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


def _itself(protocol: Any) -> Any:
    return protocol


def _close(fd: int) -> None:
    with contextlib.suppress(OSError):
        os.close(fd)
