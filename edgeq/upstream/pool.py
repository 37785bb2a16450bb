"""The connections of one worker to one endpoint, and the requests that wait for one.

    request --> an idle connection, the one used last (it is the least likely to have been closed by the upstream)
            --> else a new one, while there are fewer than `max_connections`, at most `max_connecting` at a time
            --> meanwhile the request waits in the queue, in order of arrival, bounded in number and time

Last-in-first-out lets the connections that are not needed grow old and be closed. Decisions only: dialing is done by
`dial`, which the shell provides and which answers by `dialed` or `dial_failed`.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from edgeq.admission.waits import Waits
from edgeq.reasons import REASONS
from edgeq.wire.head import ResponseHead

if TYPE_CHECKING:
    from edgeq.upstream.attempt import Attempt
    from edgeq.upstream.connection import UpstreamConnection
    from edgeq.upstream.member import Member
    from edgeq.upstream.upstream import Upstream


class Pool:
    """Connections to one address. Invariant: opened = idle + active; while a request waits for whichever connection
    comes first no connection is idle."""

    __slots__ = (
        "address",
        "connecting",
        "dial",
        "dials",
        "gave_up",
        "host",
        "idle",
        "member",
        "memo",
        "name",
        "opened",
        "priority",
        "probe",
        "refusal",
        "resource",
        "retired",
        "tls",
        "unread",
        "upstream",
        "waiting",
        "waits",
    )

    def __init__(self, upstream: Upstream, address: Any, name: str, dial: Any, probe: Any) -> None:
        self.upstream: Upstream = upstream
        self.address: Any = address
        self.name = name
        self.resource = f"upstream/{upstream.name}#{name}"
        self.tls: bool = False
        self.priority: int = 0
        """Who has a higher one is used while too few of those with a lower one are well."""
        self.host = b""
        """The endpoint's own Host, for upstreams whose endpoints have different ones."""
        self.dial: Any = dial
        """Called with this pool to open one connection."""
        self.probe: Any = probe
        """Called with a transport, tells whom to ask (with how long to wait) whether the other side has closed it, or
        sent something, while it was idle."""
        self.unread: Any = None
        """Called with a transport that has failed: what of its bytes has not been read? None: that cannot be told."""
        self.refusal: Any = None
        """Called with why a connection was lost during its first request: did its peer refuse us? None: it does not."""
        self.idle: list[UpstreamConnection] = []
        self.opened: int = 0
        self.connecting: int = 0
        self.waiting: dict[Attempt, float] = {}
        """Since when, the longest first. The connections that are being opened are for the first `connecting` of them:
        each dial's end, good or bad, concerns the first."""
        self.waits: Waits = Waits()
        """Of those who have got a connection after they had waited for one."""
        self.gave_up: int = 0
        """Those who have waited and gone without one, but for those that are refused as they have waited too long."""
        self.dials: int = 0
        self.memo: ResponseHead | None = None
        """The last answer's head: most answers repeat it byte for byte."""
        self.member: Member | None = None
        """Who wants to know how this endpoint answers; None: nobody, as it is the only one."""
        self.retired: bool = False
        """Its address is no longer in use: connections close as they become idle."""

    def submit(self, exchange: Attempt, fresh: bool) -> None:
        """Let a request begin on a connection, or wait for one. `fresh`: not on one that was idle."""
        idle = self.idle
        if not fresh:
            while idle:
                connection = idle.pop()
                # A request that must not be sent twice does not go to a connection that is closed already.
                if exchange.head.idempotent or not connection.has_news():
                    connection.requests += 1
                    connection.exchange = exchange
                    exchange.begin(connection, exchange.granted_at if exchange.tries is None else monotonic())
                    return
                connection.discard()
        # Who gets a connection that is being opened does not count: only those who wait for others to finish.
        if len(self.waiting) - self.connecting >= self.upstream.max_waiting and not self._may_open():
            self.upstream.submit_beside(exchange, self)
            return
        # Not queued_at: what another endpoint has cost it (a dial that timed out) is no time in this queue.
        self.waiting[exchange] = monotonic()
        exchange.waiting_in = self
        self._open_more()

    def has_place(self) -> bool:
        """Is there a connection for one more request, or a place in the queue?"""
        if self.idle or self._may_open():
            return True
        return len(self.waiting) - self.connecting < self.upstream.max_waiting

    def _may_open(self) -> bool:
        upstream = self.upstream
        return self.connecting < upstream.max_connecting and self.connecting + self.opened < upstream.max_connections

    def _open_more(self) -> None:
        while self.connecting < len(self.waiting) and self._may_open():
            self.connecting += 1
            self.dials += 1
            self.dial(self)

    def leave(self, exchange: Attempt) -> None:
        """A waiting request is no longer wanted."""
        exchange.waiting_in = None
        if self.waiting.pop(exchange, None) is not None:
            self.gave_up += 1

    def dialed(self, connection: UpstreamConnection, connect_s: float) -> None:
        """A connection that was asked for is open."""
        if connection.lost:  # again, before anybody could use it
            self.dial_failed("upstream_reset")
            return
        self.connecting -= 1
        self.opened += 1
        connection.counted = True
        if self.waiting:
            for exchange in self.waiting:
                exchange.connect_s = connect_s
                break
        self._give(connection, monotonic(), True)
        if self.waiting:
            self._open_more()

    def dial_failed(self, reason: str) -> None:
        """A connection could not be opened. Those who wait go elsewhere or are told, unless others are still served."""
        self.connecting -= 1
        member = self.member
        if member is not None:
            self.upstream.dial_failed(member, reason)
        if self.opened or (self.connecting and REASONS[reason].fault != "U"):
            # The endpoint works for some, or is not to blame: only the one for whom this connection was meant is
            # affected.
            affected = list(self.waiting)[:1] if len(self.waiting) > self.connecting else []
        else:
            affected = list(self.waiting)
        for exchange in affected:
            self.leave(exchange)
            exchange.connect_failed(reason, self)
        self._open_more()

    def release(self, connection: UpstreamConnection, now: float) -> None:
        """An answer is complete: keep the connection for the next request, or close it."""
        if connection.lost:
            return
        lifetime_s = self.upstream.max_lifetime_s
        if (
            not connection.reusable
            or connection.buffer
            or self.retired
            or (lifetime_s and now - connection.opened_at > lifetime_s)
        ):
            self.close(connection)
        else:
            self._give(connection, now, False)

    def _give(self, connection: UpstreamConnection, now: float, fresh: bool) -> None:
        """To the one who waits longest, or to the idle ones. `fresh`: it was opened just now."""
        if self.waiting:
            waiting = self.waiting
            for exchange, since in waiting.items():
                # A used connection has failed this one before, and it has no third try: it gets the one being opened.
                if exchange.attempts and not fresh and self.connecting:
                    continue
                del waiting[exchange]
                self.waits.record(now - since, now)
                connection.requests += 1
                connection.exchange = exchange
                exchange.begin(connection, now)
                return
        idle = self.idle
        upstream = self.upstream
        if self.retired or len(idle) >= upstream.max_idle:
            self.close(connection)
            return
        idle.append(connection)
        connection.expire_after(now, upstream.idle_s)

    def close(self, connection: UpstreamConnection) -> None:
        """Close a connection that has nothing to do."""
        if not connection.lost:
            connection.lost = True
            self.forget(connection)
        connection.transport.close()

    def forget(self, connection: UpstreamConnection) -> None:
        """A connection is closed or closing: it no longer counts."""
        self.upstream.wheel.remove(connection)
        if not connection.counted:
            return
        self.opened -= 1
        if connection.exchange is None and connection in self.idle:
            self.idle.remove(connection)
        if self.waiting:
            self._open_more()

    def idle_expired(self, connection: UpstreamConnection, now: float) -> None:
        """An idle connection has been idle for too long."""
        self.close(connection)

    def expire_waiting(self, now: float) -> None:
        """Refuse those who have waited too long for a connection that is in use by others; called on each tick.

        For the first in the queue connections are being opened, and there the connect time-out decides: one that dials
        into nothing holds up nobody else.
        """
        timeout_s = self.upstream.queue_timeout_s
        if not timeout_s or len(self.waiting) <= self.connecting:
            return
        dialed_for = self.connecting
        late: list[Attempt] = []
        for exchange, since in self.waiting.items():
            if dialed_for:
                dialed_for -= 1
            elif now - since < timeout_s:
                break
            else:
                late.append(exchange)
        for exchange in late:
            exchange.waiting_in = None
            self.waiting.pop(exchange, None)
            exchange.fail("queue_timeout", self.resource + ":pool", "no connection became free in time")

    def retire(self) -> None:
        """The address is no longer in use. Requests that run finish; idle connections go."""
        self.retired = True
        while self.idle:
            self.close(self.idle.pop())

    def snapshot(self) -> dict[str, int | float | str | list[float]]:
        """What is held and who waits."""
        now = monotonic()
        oldest = 0.0
        for since in self.waiting.values():
            oldest = now - since
            break
        return {
            "endpoint": self.name,
            "idle": len(self.idle),
            "active": self.opened - len(self.idle),
            "connecting": self.connecting,
            "waiting": len(self.waiting),
            "oldest_wait_s": oldest,
            "waited": self.waits.count,
            "wait_ms": self.waits.quantiles_ms(now),
            "gave_up": self.gave_up,
            "dials": self.dials,
        }
