"""One connection to an endpoint.

    CONNECTING --made--> IDLE --begin--> ACTIVE --answer complete--> IDLE ...
                          |                 |
                          +---- ended ------+--> CLOSED

An idle connection that becomes readable has nothing to say that anybody asked for: it is closed and forgotten.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from edgeq.worker.wheel import NEVER, Timed

if TYPE_CHECKING:
    from edgeq.response.relay import Exchange
    from edgeq.upstream.pool import Pool


class UpstreamConnection(Timed):
    """The upstream's side. A protocol of the event loop: its methods are called by the transport."""

    __slots__ = ("buffer", "exchange", "lost", "opened_at", "pool", "requests", "reusable", "transport")

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool: Pool = pool
        self.transport: Any = None
        self.exchange: Exchange | None = None
        self.buffer = b""
        """Bytes of an incomplete answer head."""
        self.requests: int = 0
        self.reusable: bool = True
        self.lost: bool = False
        self.opened_at: float = 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.opened_at = monotonic()

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self.discard()
            return
        exchange.answer_data(data)

    def eof_received(self) -> bool:
        exchange = self.exchange
        if exchange is not None:
            if exchange.tunnel and not exchange.down.half_closed:
                exchange.down.half_close()
                return True
            self.lost = True
            self.pool.forget(self)
            exchange.upstream_ended(True)
        return False

    def connection_lost(self, error: Exception | None) -> None:
        first = not self.lost
        self.lost = True
        if first:
            self.pool.forget(self)
        exchange = self.exchange
        if exchange is not None:
            exchange.upstream_ended(error is None)

    def pause_writing(self) -> None:
        exchange = self.exchange
        if exchange is not None:
            exchange.down.pause_reading()

    def resume_writing(self) -> None:
        exchange = self.exchange
        if exchange is not None:
            exchange.down.resume_reading()

    def expire_in(self, timeout_s: float) -> None:
        """Expire after so many seconds from now; 0 or NEVER: do not."""
        wheel = self.pool.upstream.wheel
        wheel.schedule(self, monotonic() + timeout_s if timeout_s else NEVER)

    def on_expire(self, now: float) -> None:
        exchange = self.exchange
        if exchange is None:
            self.pool.idle_expired(self, now)
        elif exchange.tunnel:
            exchange.fail("upstream_timeout", self.pool.resource, "the tunnel was silent for too long")
        elif exchange.answer_started:
            exchange.fail(
                "upstream_timeout", self.pool.resource, "timeouts.body passed between two reads of the answer"
            )
        else:
            exchange.fail("upstream_timeout", self.pool.resource, "timeouts.first_byte passed")

    def half_close(self) -> None:
        """The client's side of a tunnel has ended: pass the FIN on."""
        if not self.lost and self.transport.can_write_eof():
            self.transport.write_eof()

    def discard(self) -> None:
        """Close at once; an answer that nobody wants is not waited for."""
        if not self.lost:
            self.lost = True
            self.pool.forget(self)
        self.transport.abort()
