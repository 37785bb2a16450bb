"""One try of a request, as upstreams, pools and connections see it: it waits for a connection, begins on it, and hears
what comes of it.

    Exchange (response.relay)   the request itself, one try after the other; Sending (response.sending) is its base
    Hedge (response.hedge)      a second try beside the first
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeq.admission.ticket import Ticket

if TYPE_CHECKING:
    from edgeq.listener.connection import Downstream
    from edgeq.response.tries import Tries
    from edgeq.upstream.connection import UpstreamConnection
    from edgeq.upstream.pool import Pool
    from edgeq.wire.head import RequestHead


class Attempt(Ticket):
    """Base class of both. Times are monotonic seconds."""

    __slots__ = (
        "answer_started",
        "attempts",
        "connect_s",
        "down",
        "head",
        "prefers",
        "request_done",
        "sent_at",
        "sticky",
        "tries",
        "tunnel",
        "up",
        "waiting_in",
    )

    def __init__(self, down: Downstream, head: RequestHead, now: float) -> None:
        Ticket.__init__(self, now)  # not super(): interpreted it costs as much as ten stores
        self.down: Downstream = down
        self.head: RequestHead = head
        self.tries: Tries | None = None
        """None until something has failed, or is to be hedged."""
        self.waiting_in: Pool | None = None
        """The pool in whose queue this stands."""
        self.connect_s: float = 0.0
        """How long its connection took to open, if one was opened for it."""
        self.up: UpstreamConnection | None = None
        """The connection that belongs to this, from `begin` until it is given back or closed."""
        self.sent_at: float = 0.0
        """0.0: nothing was sent, or what was sent is over and another try has not begun."""
        self.attempts: int = 0
        self.request_done: bool = True
        """The whole request has come from the client."""
        self.answer_started: bool = False
        """Something of the answer is on its way to the client."""
        self.tunnel: bool = False
        self.prefers = ""
        """Name of the endpoint that has cached something of it; empty: all are alike."""
        self.sticky = b""
        """The field line of a cookie that the client gets with the answer, so that it comes back to this endpoint."""

    def leave_upstream(self) -> None:
        """Its connection is cut, its wait for one is over."""
        up = self.up
        if up is not None:
            self.up = None
            up.exchange = None
            up.discard()
        pool = self.waiting_in
        if pool is not None:
            pool.leave(self)

    def begin(self, up: UpstreamConnection, now: float) -> None:
        """`up` is its own from here on: send the request."""
        raise NotImplementedError

    def connect_failed(self, reason: str, pool: Pool) -> None:
        """No connection to one endpoint could be had."""
        raise NotImplementedError

    def answer_data(self, data: bytes) -> None:
        """Bytes have come from the upstream."""
        raise NotImplementedError

    def upstream_ended(self, clean: bool) -> None:
        """The upstream connection has ended: by FIN (`clean`) or by a reset."""
        raise NotImplementedError

    def half_close_client(self) -> bool:
        """The upstream's side of a tunnel has ended. Returns: whether the other direction lives on."""
        raise NotImplementedError

    def no_answer(self) -> None:
        """The answer to this try should have begun by now."""
        raise NotImplementedError

    def answer_stalled(self) -> None:
        """Nothing more of an answer that has begun has come for too long."""
        self.no_answer()

    def fail(self, reason: str, resource: str, detail: str, retry_after_s: float = -1.0, policy: str = "") -> None:
        """It cannot go on, by a token of `edgeq.reasons`."""
        raise NotImplementedError

    def end_by_defect(self, error: Exception) -> None:
        """Something of ours has failed with its answer: it is over, and the others notice nothing."""
        self.down.shard.tell_defect(error, self.down.settings.resource)
        self.fail("internal_error", self.down.settings.resource, "")
