"""One connection to an endpoint.

    CONNECTING --made--> IDLE --begin--> ACTIVE --answer complete--> IDLE ...
                          |                 |
                          +---- ended ------+--> CLOSED

An idle connection that becomes readable has nothing to say that anybody asked for: it is closed and forgotten.

What this cannot see. An answer that a server sends unasked is taken for that to the next request if it arrives after
the loop has last polled and before the server has read that request. The first part of this window (until we write) is
as long as the turn of the loop; the second (until the server reads) is the network's, and no gateway can close it.
Bytes that are there before the request of the client come first in the same poll (epoll keeps the order of arrival) and
are seen in time. nginx has the same window (its handler of kept connections peeks when their event comes), and so has
Go's net/http ("Unsolicited response received on idle HTTP channel" is said only when it is noticed).
Looked for and not found: something that tells without a system call. uvloop 0.23 writes at once, so its write buffer
is empty by then; its clock counts whole milliseconds; that an answer came faster than the network can be is not safe to
say when a loop that was slow has measured the network. A poll(2) for each request (`probe_io.probe`; those which
must not be sent twice get it) takes 1.2 us, a twentieth of a request, and closes only the first part. What servers
really send unasked, 408 and a close on a connection that was idle for too long, is known by its status (`relay`).
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from edgeq.worker.wheel import NEVER, Timed

if TYPE_CHECKING:
    from edgeq.upstream.attempt import Attempt
    from edgeq.upstream.pool import Pool


class UpstreamConnection(Timed):
    """The upstream's side. A protocol of the event loop: its methods are called by the transport."""

    __slots__ = (
        "buffer",
        "counted",
        "exchange",
        "lost",
        "opened_at",
        "pool",
        "probe",
        "refused",
        "requests",
        "reusable",
        "transport",
    )

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool: Pool = pool
        self.transport: Any = None
        self.probe: Any = None
        """See `Pool.probe`; None: nobody has asked yet."""
        self.exchange: Attempt | None = None
        self.buffer = b""
        """Bytes of an incomplete answer head."""
        self.requests: int = 0
        self.reusable: bool = True
        self.lost: bool = False
        self.refused: bool = False
        """It was lost because the other side does not want us, as TLS 1.3 says only after the handshake."""
        self.counted: bool = False
        """Its pool knows of it, and counts it as opened until it is lost."""
        self.opened_at: float = 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.opened_at = monotonic()

    def has_news(self) -> bool:
        """While it was idle: has the other side closed it, or said what nobody has asked for?"""
        probe = self.probe
        if probe is None:
            probe = self.probe = self.pool.probe(self.transport)
        return bool(probe(0))

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self.discard()
            return
        try:
            exchange.answer_data(data)
        except Exception as error:  # of our own: an answer that is no good comes as Refused
            exchange.end_by_defect(error)

    def eof_received(self) -> bool:
        exchange = self.exchange
        if exchange is not None and exchange.tunnel and exchange.half_close_client():
            return True
        if not self.lost:
            self.lost = True
            self.pool.forget(self)
        if exchange is not None:
            exchange.upstream_ended(True)
            if self.transport.get_write_buffer_size():
                self.transport.abort()  # an upstream that has ended may never read the rest of the request
        return False

    def connection_lost(self, error: Exception | None) -> None:
        first = not self.lost
        self.lost = True
        if first:
            self.pool.forget(self)
        exchange = self.exchange
        if exchange is not None and error is not None and not exchange.tunnel:
            # A server that refuses a body answers and closes; our next write fails, which ends the transport, while
            # the answer still waits to be read.
            unread = self.pool.unread
            data: bytes = unread(self.transport) if unread is not None else b""
            if data:
                self.data_received(data)
                exchange = self.exchange
            refusal = self.pool.refusal
            if refusal is not None and self.requests == 1:
                self.refused = refusal(error)
        if exchange is not None:
            # Without a FIN before it this is no proper end, also if TLS calls it none (RFC 9112 9.8: no closing alert).
            exchange.upstream_ended(False)

    def pause_writing(self) -> None:
        exchange = self.exchange
        if exchange is not None:
            exchange.down.pause_reading()

    def resume_writing(self) -> None:
        exchange = self.exchange
        if exchange is not None:
            exchange.down.resume_reading()

    def expire_after(self, now: float, timeout_s: float) -> None:
        """Expire so many seconds after `now`; 0 or NEVER: do not."""
        at = now + timeout_s if timeout_s else NEVER
        self.expire_at = at
        if at < self.turn_at:
            self.pool.upstream.wheel.schedule(self, at)

    def expire_in(self, timeout_s: float) -> None:
        """Expire after so many seconds from now; 0 or NEVER: do not."""
        self.expire_after(monotonic(), timeout_s)

    def on_expire(self, now: float) -> None:
        exchange = self.exchange
        if exchange is None:
            self.pool.idle_expired(self, now)
        elif exchange.tunnel:
            exchange.fail("upstream_timeout", self.pool.resource, "the tunnel was silent for too long")
        elif exchange.answer_started:
            exchange.answer_stalled()
        elif not exchange.request_done and not exchange.down.paused_reading:
            self.expire_in(self.pool.upstream.first_byte_s)  # it waits for the client, who has a time-out of its own
        else:
            exchange.no_answer()

    def half_close(self) -> None:
        """The client's side of a tunnel has ended: pass the FIN on."""
        self.transport.write_eof()

    def discard(self) -> None:
        """Close at once; an answer that nobody wants is not waited for."""
        if not self.lost:
            self.lost = True
            self.pool.forget(self)
        self.transport.abort()
