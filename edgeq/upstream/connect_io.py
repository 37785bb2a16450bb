"""Opening a connection to one address: TCP or Unix, then TLS, in one bounded time, with a reason when it fails.

Decides the options of an upstream's sockets and which reason an error gets. Invariants:

- `done` is called exactly once, never within `dial`, and not at all after `cancel`.
- Whatever ends a dial, its socket is closed or belongs to the transport of the protocol that `done` got.
- ``timeouts.connect`` covers TCP and TLS together.

::

    CONNECTING --writable--> WRAPPING --connection_made--> ENDED, done(protocol, "")
        |                       |
        +--error, timeout-------+------------------------> ENDED, done(None, reason)
        +--cancel---------------+------------------------> ENDED, silently

WRAPPING is one turn of the loop, or the TLS handshake. `done` may come a turn after connection_made, so a protocol can
have been lost again by then.

Kernel facts: SO_RCVBUF shapes the window that a SYN announces only when it is set before connect (tcp(7)); the kernel
doubles it, so half is asked for, and caps it at net.core.rmem_max. connect(2) of a Unix socket answers EAGAIN when the
listener's backlog is full, while TCP drops the SYN and sends it again after a second, so there only the time-out shows
it. A connect to a free port of the ephemeral range on this machine can meet itself (simultaneous open, RFC 9293 3.5):
that is "refused".

In TLS 1.3 a server that refuses our certificate says so after the handshake is complete for us: the connection is made,
and then lost with an ssl.SSLError.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

from edgeq.upstream.endpoint import Address

if TYPE_CHECKING:
    from edgeq.config.schema import Upstream

NOTSENT_LOWAT_BYTES: Final = 128 * 1024
TLS_SHUTDOWN_S: Final = 5.0
"""For the peer's close_notify; uvloop's 30 s would keep a closed connection's descriptor that long."""
_TCP_NOTSENT_LOWAT: Final = 25
_TCP_INFO_RETRANS: Final = struct.Struct("=100xI")
"""tcpi_total_retrans of struct tcp_info (linux/tcp.h)."""

_FAMILIES: Final = {"inet": socket.AF_INET, "inet6": socket.AF_INET6, "unix": socket.AF_UNIX}
_REASONS: Final = {
    errno.ECONNREFUSED: "upstream_connect_refused",
    errno.ENOENT: "upstream_connect_refused",  # a Unix socket that its server has not made yet
    errno.ETIMEDOUT: "upstream_connect_timeout",
    errno.EADDRNOTAVAIL: "upstream_port_exhausted",
    errno.EMFILE: "fd_exhausted",
    errno.ENFILE: "fd_exhausted",
}

Phase = Literal["connecting", "wrapping", "ended"]
MakeProtocol = Callable[[], asyncio.BaseProtocol]
Done = Callable[[Any, str], None]
"""(protocol, "") or (None, reason)."""


def connect_reason(code: int, family: str) -> str:
    """The reason for an errno of socket(2) or connect(2)."""
    if code == errno.EAGAIN and family == "unix":
        return "upstream_backlog_full"
    return _REASONS.get(code, "upstream_connect_failed")


def met_itself(sock: socket.socket) -> bool:
    """Whether a connected TCP socket is its own peer."""
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:
        return False  # reset already: the transport will find out


def alert(error: Exception) -> str:
    """The alert by which a TLS connection was ended; empty: it was something else."""
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    return reason.lower().replace("_", " ") if reason and "_ALERT_" in reason else ""


class Dialer:
    """Opens the connections of one upstream. `upstream` and `context` may be replaced; new dials follow them.

    With a context every TCP address is dialed with TLS, without one none is.
    """

    __slots__ = ("_dials", "context", "loop", "upstream")

    def __init__(self, loop: asyncio.AbstractEventLoop, upstream: Upstream, context: ssl.SSLContext | None) -> None:
        self.loop: Final = loop
        self.upstream = upstream
        self.context = context
        self._dials: set[Dial] = set()

    def dial(self, address: Address, make_protocol: MakeProtocol, done: Done) -> Dial:
        """Begin to connect. `done` gets the protocol after its `connection_made`, or None and a reason (reasons.py)."""
        dial = Dial(self, address, make_protocol, done)
        self._dials.add(dial)
        dial.start()
        return dial

    def close(self) -> None:
        """Cancel every dial."""
        for dial in list(self._dials):
            dial.cancel()

    def ended(self, dial: Dial) -> None:
        self._dials.discard(dial)

    def snapshot(self) -> list[dict[str, Any]]:
        """What is being opened, the oldest first."""
        return [dial.snapshot() for dial in sorted(self._dials, key=lambda dial: dial.started_s)]


class Dial:
    """One connection being opened. `connect_s`, `tls_s` (seconds in each phase), `reason` and `detail` outlast it."""

    __slots__ = (
        "_context",
        "_dialer",
        "_done",
        "_handle",
        "_make_protocol",
        "_server_name",
        "_sock",
        "_task",
        "_timeout_s",
        "address",
        "connect_s",
        "detail",
        "phase",
        "reason",
        "started_s",
        "tls_s",
    )

    def __init__(self, dialer: Dialer, address: Address, make_protocol: MakeProtocol, done: Done) -> None:
        tcp = address.family != "unix"
        self.address: Final = address
        # Not loop.time(): uvloop's is the time of the turn, in whole milliseconds.
        self.started_s: Final = time.monotonic()
        self.phase: Phase = "connecting"
        self.connect_s = 0.0
        self.tls_s = 0.0
        self.reason = ""
        self.detail = ""
        self._dialer = dialer
        self._make_protocol = make_protocol
        self._done: Done | None = done
        self._context = dialer.context if tcp else None
        self._server_name = dialer.upstream.tls.server_name or address.name
        self._timeout_s = float(dialer.upstream.timeouts.connect)
        self._sock: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._handle: asyncio.Handle | None = None

    def start(self) -> None:
        """Called by the dialer, once."""
        loop = self._dialer.loop
        try:
            self._sock = self._open()
            target: Any = self.address.host
            if self.address.family != "unix":
                target = (self.address.host, self.address.port)
            code = self._sock.connect_ex(target)
        except OSError as error:
            self._handle = loop.call_soon(self._fail_errno, error.errno or errno.EINVAL)
            return
        if code == 0:
            self._connected()
        elif code == errno.EINPROGRESS:
            loop.add_writer(self._sock, self._writable)
            self._handle = loop.call_later(self._timeout_s, self._expired)
        else:
            self._handle = loop.call_soon(self._fail_errno, code)

    def cancel(self) -> None:
        """Give up; `done` is not called. Idempotent, and without effect once it was called."""
        if self.phase != "ended":
            self.detail = "cancelled"
            self._end()

    def snapshot(self) -> dict[str, Any]:
        return {
            "address": str(self.address),
            "phase": self.phase,
            "age_s": round(time.monotonic() - self.started_s, 3),
            "reason": self.reason,
            "detail": self.detail,
        }

    def _open(self) -> socket.socket:
        sock = socket.socket(_FAMILIES[self.address.family], socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            if self.address.family != "unix":
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES)
                if self._dialer.upstream.receive_buffer > 0:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._dialer.upstream.receive_buffer // 2)
        except BaseException:
            sock.close()
            raise
        return sock

    # CONNECTING

    def _writable(self) -> None:
        assert self._sock is not None
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code == errno.EINPROGRESS:
            return
        self._stop_waiting()
        if code:
            self._fail_errno(code)
        elif met_itself(self._sock):
            self._fail("upstream_connect_refused", "the socket connected to itself: nothing listens there")
        else:
            self._connected()

    def _connected(self) -> None:
        loop = self._dialer.loop
        self.connect_s = time.monotonic() - self.started_s
        if self._context is not None:
            left_s = max(0.0, self._timeout_s - self.connect_s)
            self._handle = loop.call_later(left_s, self._expired)
        else:
            self._handle = None
        self._task = loop.create_task(self._wrap())

    def _stop_waiting(self) -> None:
        """Before the socket is closed or handed over: a watched descriptor must not come to mean something else."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._sock is not None:
            self._dialer.loop.remove_writer(self._sock)

    # WRAPPING

    async def _wrap(self) -> None:
        loop = self._dialer.loop
        sock = self._sock
        if sock is None:
            return  # ended before this task had its first turn
        self.phase = "wrapping"
        try:
            try:
                protocol = self._make_protocol()
                transport = await self._transport(sock.dup(), protocol)
            finally:
                sock.close()  # before anybody hears of the end: the transport's descriptor is the only one left
                self._sock = None
        except asyncio.CancelledError:  # the loop ends
            self._end()
        except OSError as error:  # ssl.SSLError and ssl.CertificateError are too
            self._fail_wrapping(error)
        except Exception as error:
            loop.call_exception_handler({"message": f"dialing {self.address} failed", "exception": error})
            self._fail("internal_error", type(error).__name__)
        else:
            done = self._done
            if done is None:
                transport.abort()  # cancelled in the last moment
            else:
                self._end()
                done(protocol, "")

    async def _transport(self, handed: socket.socket, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        """Make the transport. Whatever happens, `handed` is detached: libuv owns the descriptor, and closes it.

        uvloop 0.23 forgets to detach when the peer is gone before create_connection returns. The socket object would
        then keep, and one day close, a number that means another connection by then.
        """
        loop = self._dialer.loop
        try:
            if self._context is None:
                transport, _ = await loop.create_connection(lambda: protocol, sock=handed)
                return transport
            transport, _ = await loop.create_connection(
                lambda: protocol,
                sock=handed,
                ssl=self._context,
                server_hostname=self._server_name,
                ssl_handshake_timeout=self._timeout_s + 1,  # our own timer ends it sooner
                ssl_shutdown_timeout=TLS_SHUTDOWN_S,
            )
        finally:
            handed.detach()
        self.tls_s = time.monotonic() - self.started_s - self.connect_s
        if transport.get_extra_info("ssl_object") is None:
            raise ConnectionResetError(errno.ECONNRESET, "connection lost in the handshake")
        return transport

    def _fail_wrapping(self, error: OSError) -> None:
        if self._context is None or error.errno in (errno.EMFILE, errno.ENFILE):
            self._fail_errno(error.errno or errno.EINVAL)
        elif isinstance(error, ssl.SSLCertVerificationError):
            self._fail("upstream_tls_failed", error.verify_message)
        elif isinstance(error, ssl.SSLError):
            self._fail("upstream_tls_failed", error.reason or "TLS error")
        else:
            self._fail("upstream_tls_failed", "the connection was closed in the handshake")

    # ENDED

    def _expired(self) -> None:
        self._handle = None
        detail = f"TLS handshake not complete after {self._timeout_s:g} s"
        if self.phase == "connecting":
            detail = f"not connected after {self._timeout_s:g} s, SYN sent again {self._retransmits()} times"
        self._fail("upstream_connect_timeout", detail)

    def _retransmits(self) -> int:
        assert self._sock is not None
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_RETRANS.size)
            return int(_TCP_INFO_RETRANS.unpack(info)[0])
        except (OSError, struct.error):
            return 0

    def _fail_errno(self, code: int) -> None:
        self._fail(connect_reason(code, self.address.family), f"{errno.errorcode.get(code, code)}: {os.strerror(code)}")

    def _fail(self, reason: str, detail: str) -> None:
        done = self._done
        if done is not None:
            self.reason, self.detail = reason, detail
            self._end()
            done(None, reason)

    def _end(self) -> None:
        phase, self.phase = self.phase, "ended"
        self._done = None
        self._dialer.ended(self)
        if phase == "connecting":
            self._stop_waiting()
            if self._sock is not None:
                self._sock.close()
                self._sock = None
        elif phase == "wrapping":
            if self._handle is not None:
                self._handle.cancel()
                self._handle = None
            # The transport being made has a descriptor of its own. Without TLS it is ready in this turn, and the
            # coroutine aborts it. A handshake is cut short by its end of file. Cancelling the task would be wrong in
            # uvloop 0.23 while the plain transport is made: the handshake would go on above a closed one.
            if self._context is not None and self._sock is not None:
                with contextlib.suppress(OSError):  # ENOTCONN: reset already, and its failure on the way
                    self._sock.shutdown(socket.SHUT_RDWR)
