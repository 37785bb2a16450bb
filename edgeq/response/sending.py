"""The way of a request to its upstream: through the limits, with its body as it comes, try by try.

    limit of its tenant -> of its route -> of its upstream --`begin`--> upstream connection
                                                <--`turn`, `again`, `end_try`-- another try, or another upstream

Invariants
- It takes its permits in this order, each once, and waits before one at a time.
- Bytes of a body are passed on as they come. While there is no upstream connection they are held, up to `MAX_PENDING`,
  and kept for another try as its route's retry policy says.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from edgeq.admission.bulkhead import Bulkhead
from edgeq.admission.ticket import DROPPED, IGNORED, OK, Lobby
from edgeq.policy.headers import TRACE_BEGIN, TRACE_OFF, TRACE_SPANS, forward_prefix, trace_lines
from edgeq.reasons import OVERLOAD
from edgeq.upstream.attempt import Attempt
from edgeq.wire.errors import Refused
from edgeq.wire.framing import LENGTH, NO_BODY, ChunkedFramer
from edgeq.worker.wheel import NEVER

if TYPE_CHECKING:
    from edgeq.listener.connection import Downstream
    from edgeq.policy.retry import RetryPolicy
    from edgeq.response.grace import Grace
    from edgeq.route.table import Route
    from edgeq.trace.spans import Trace
    from edgeq.upstream.connection import UpstreamConnection
    from edgeq.upstream.pool import Pool
    from edgeq.upstream.upstream import Upstream
    from edgeq.wire.head import RequestHead

MAX_PENDING: Final = 64 * 1024
"""Request bytes held while there is no upstream connection, and pipelined bytes held while an answer is on its way."""


class Sending(Attempt):
    """A request, until its answer begins. Times are monotonic seconds, 0.0 where the moment has not come. What most
    requests do not need is not set at first (see `Ticket`)."""

    __slots__ = (
        "_passed",
        "_request_framer",
        "_request_remaining",
        "_sent_all",
        "begun_at",
        "endpoint",
        "first_byte_at",
        "grace",
        "pending",
        "prefix",
        "queued_at",
        "reason",
        "request_bytes",
        "request_id",
        "resource",
        "reused",
        "route",
        "status",
        "trace",
        "trace_id",
        "waited_in",
    )

    # Of a request that has a body.
    _request_remaining: int
    _request_framer: ChunkedFramer | None

    def __init__(self, down: Downstream, head: RequestHead, route: Route | None, now: float) -> None:
        Attempt.__init__(self, down, head, now)
        self.route: Route | None = route
        # Taken now: the head may be shared, and meanwhile be settled for another client or configuration.
        self.prefix: bytes = head.prefix
        self.request_id: bytes = head.fields.request_id or down.shard.ids.make()
        self.trace_id = b""
        self.trace: Trace | None = None
        """None unless it is sampled."""
        self.begun_at: float = now
        self._passed: int = 0
        """Past the limit of its tenant: 1; past that of the route as well: 2."""
        if route is not None and route.timeout_s:
            self.deadline_at = now + route.timeout_s
        self.queued_at: float = 0.0
        self.waited_in = ""
        """Where it was let in last, if it had to wait."""
        self.first_byte_at: float = 0.0
        self.reused: bool = False
        self.endpoint = ""
        self.pending = b""
        """Request body bytes that no upstream connection has got yet, or all of them if they may have to go again."""
        self.request_bytes: int = 0
        self._sent_all: bool = False
        """`pending` has all body bytes so far, and they are sent."""
        self.grace: Grace | None = None
        """None unless its route has a cache or a fallback."""
        self.status: int = 0
        """Of its answer; 0: not yet known."""
        self.reason = ""
        self.resource = ""
        kind = head.fields.body_kind
        if kind != NO_BODY:
            self.request_done = False
            if kind == LENGTH:
                self._request_remaining = head.fields.content_length
                self._request_framer = None
            else:
                self._request_framer = ChunkedFramer(False, True, down.settings.trailer_bytes)

    # -- through the limits -------------------------------------------------------------------------------------------

    def enter(self, now: float) -> None:
        """Past the limits of its tenant and of the route, if they have one, then that of its upstream; it may have to
        wait before each."""
        route = self.route
        if route is None:
            return
        upstream = route.upstream
        if upstream.breaker is not None and upstream.is_down(self, now):
            return
        full: Bulkhead | None = None
        if route.tenants is not None or route.bulkhead is not None:
            full = self._pass(route, now)
        if full is None:
            if not upstream.limited:
                self.granted_at = now
                self._submit(upstream)
                return
            full = upstream.bulkhead
            if full.try_acquire(self, now):
                self._submit(upstream)
                return
        self.size_bytes = len(self.head.raw) + len(self.pending)
        tracer = self.down.shard.tracer
        if tracer is not None:
            tracer.waits(self, full.resource, now)
        full.offer(self, now)

    def _pass(self, route: Route, now: float) -> Bulkhead | None:
        """Take the permits of tenant and route. Returns: the limit before which it has to wait, if there is one."""
        if self._passed == 0:
            self._passed = 1
            tenants = route.tenants
            if tenants is not None:
                bulkhead = tenants.bulkhead_of(self.tenant, now)
                if not bulkhead.try_acquire(self, now):
                    return bulkhead
        if self._passed == 1:
            self._passed = 2
            own = route.bulkhead
            if own is not None and not own.try_acquire(self, now):
                return own
        return None

    def granted(self, lobby: Lobby, now: float) -> None:
        """The wait is over."""
        if self.trace is not None:
            self.trace.end_wait(now)
        self.waited_in = lobby.place
        route = self.route
        try:
            if route is not None and lobby is route.upstream.bulkhead:
                self._submit(route.upstream)
            else:
                self.enter(now)
        except Exception as error:  # of our own; whoever made room for this one has no part in it
            self.end_by_defect(error)

    def _submit(self, upstream: Upstream) -> None:
        tries = self.tries
        if tries is None:
            upstream.submit(self)
        else:
            upstream.submit_again(self, tries.failed)

    def refused(self, reason: str, resource: str, detail: str, retry_after_s: int) -> None:
        """Turned away by a limit or its queue."""
        route = self.route
        if reason == "circuit_open" and route is not None:
            route.upstream.refuse_circuit(self, monotonic())
        else:
            self.fail(reason, resource, detail, retry_after_s)

    # -- the request's side -------------------------------------------------------------------------------------------

    def body_limit(self) -> int:
        """Bytes that this request's body may have; 0: any number."""
        route = self.route
        if route is not None and route.body_bytes >= 0:
            return route.body_bytes
        return self.down.settings.body_bytes

    def request_data(self, data: bytes) -> bytes:
        """Take bytes of the request's body; gives back what follows the message (a pipelined request).

        Raises: Refused for a malformed or too large body.
        """
        framer = self._request_framer
        rest = b""
        if framer is None:
            size = len(data)
            remaining = self._request_remaining
            if size > remaining:
                rest = data[remaining:]
                data = data[:remaining]
                size = remaining
            self._request_remaining = remaining - size
            self.request_bytes += size
            if size == remaining:
                self.request_done = True
        else:
            data = framer.feed(data)
            self.request_bytes = framer.payload_bytes
            limit = self.body_limit()
            if limit and framer.payload_bytes + framer.remaining > limit:  # as soon as it is announced
                raise Refused("body_too_large", f"the request body is larger than {limit} bytes")
            if framer.done:
                self.request_done = True
                rest = framer.excess
        if data or self.request_done:
            self.take_body(data)
        return rest

    def body_left(self) -> int:
        """Bytes of the request's body that are still to come and may go to the upstream unseen; 0: none may."""
        if self.request_done or self.pending or self._sent_all or self._request_framer is not None:
            return 0
        return self._request_remaining

    def body_passed(self, size: int) -> None:
        """So many of them have gone."""
        self._request_remaining -= size
        self.request_bytes += size
        if self._request_remaining == 0:
            self.request_done = True

    def take_body(self, data: bytes) -> None:
        """More of the request's body has come, and perhaps its end."""
        up = self.up
        if not data:
            return
        if up is not None:
            retry = self._policy()
            if retry is not None and self._sent_all and len(self.pending) + len(data) <= retry.body_bytes:
                self.pending += data
            else:
                self._sent_all = False
                self.pending = b""
            up.transport.write(data)
            up.expire_in(self.first_byte_s(up))
        else:
            self.pending = self.pending + data if self.pending else data
            if len(self.pending) > MAX_PENDING:
                self.down.pause_reading()

    def begin(self, up: UpstreamConnection, now: float) -> None:
        """Send the request on `up`, which belongs to this exchange from here on."""
        down = self.down
        self.up = up
        self.waiting_in = None
        self.attempts += 1
        self.sent_at = now
        self.reused = up.requests > 1
        pool = up.pool
        self.endpoint = pool.name
        self.send(up, now)
        self._sent_all = self.request_done
        route = self.route
        if route is None or route.retry is None:
            up.expire_after(now, pool.upstream.first_byte_s)
        else:
            self._begin_by(route.retry, now)
            up.expire_after(now, self.first_byte_s(up))
        if not self.request_done:
            if not self._sent_all:
                self.pending = b""
            down.resume_reading()
        if down.write_blocked:  # by the end of the last answer
            self.pause_answer()

    def send(self, up: UpstreamConnection, now: float) -> None:
        """Write the head, and what there is of the body."""
        shard = self.down.shard
        forward = shard.forward
        request_id = self.request_id
        fields = self.head.fields
        prefix = self.prefix
        if not prefix:  # it depends on the endpoint
            prefix = self._prefix_for(up.pool.host)
        grace = self.grace
        if grace is not None:
            prefix = grace.prefix(prefix)
        lines = self.down.client_lines
        kind = forward.trace
        if forward.deadline is not None and self.deadline_at < NEVER:
            lines += forward.deadline.line(self.deadline_at - now)
        if kind == TRACE_BEGIN and not fields.traceparent and not fields.request_id:
            # An id that was made here is the trace id as well: one id to search for.
            self.trace_id = request_id
            out = (
                prefix,
                lines,
                b"x-request-id: ",
                request_id,
                b"\r\ntraceparent: 00-",
                request_id,
                b"-",
                request_id[16:],
                b"-01\r\n\r\n",
                self.pending,
            )
            up.transport.write(b"".join(out))
        else:
            trace = b"" if kind == TRACE_OFF else self.trace_lines(up, now)
            up.transport.write(
                b"".join((prefix, lines, b"x-request-id: ", request_id, b"\r\n", trace, b"\r\n", self.pending))
            )

    def trace_lines(self, up: UpstreamConnection, now: float) -> bytes:
        """The field lines by which the upstream's spans join the trace of this request."""
        shard = self.down.shard
        forward = shard.forward
        kind = forward.trace
        tracer = shard.tracer
        if tracer is not None and kind == TRACE_SPANS:
            return tracer.lines(self, up, now)
        if kind == TRACE_OFF:
            return b""
        lines = trace_lines(self.head, forward, shard.ids.make())
        self.trace_id = lines[16:48]
        return lines

    def first_byte_s(self, up: UpstreamConnection) -> float:
        """How long the answer to this try may take to begin; 0: any time."""
        retry = self._policy()
        if retry is not None and retry.per_try_s:
            return retry.per_try_s
        return up.pool.upstream.first_byte_s

    def _begin_by(self, retry: RetryPolicy, now: float) -> None:
        """It may have to be sent once more."""
        raise NotImplementedError

    def pause_answer(self) -> None:
        """The client does not take more: do not read the upstream."""
        raise NotImplementedError

    def _policy(self) -> RetryPolicy | None:
        """When this request is tried again; None: its route says nothing of that."""
        route = self.route
        return None if route is None else route.retry

    def _prefix_for(self, host: bytes) -> bytes:
        """The first part of the forwarded head for an endpoint with a Host of its own."""
        route = self.route
        if route is None:
            return b""
        down = self.down
        return forward_prefix(self.head, route, down.shard.forward, host, down.trusted)

    def let_go(self, up: UpstreamConnection) -> None:
        """A try is over; its connection belongs to nobody."""
        if self.trace is not None:
            self.trace.end_try(self, monotonic())
        self.up = None
        up.exchange = None

    def turn(self, route: Route, now: float) -> None:
        """Go on to another upstream, by limits of its own. Nothing of an answer may have been passed on; the caller has
        seen to it that the request may go there."""
        self.leave_route(route, now)
        down = self.down
        upstream = route.upstream
        if not upstream.hosts_differ:
            self.prefix = forward_prefix(self.head, route, down.shard.forward, upstream.host, down.trusted)
        down.expect_answer()
        self.enter(now)

    def leave_route(self, route: Route, now: float) -> None:
        """Nothing is left of what was tried: `route` is next."""
        if self.trace is not None:
            self.trace.end_try(self, now)
        self.give_up(now)
        self.tries = None
        self.route = route
        self.reason = ""
        self.resource = ""
        self._passed = 0
        self.arrived_at = now
        self.queued_at = now
        self.sent_at = 0.0
        self.first_byte_at = 0.0
        self.connect_s = 0.0
        self.prefix = b""

    def give_up(self, now: float) -> None:
        """Nothing more is expected of this upstream: no other try is of use, and its places are free."""
        if self.tries is not None:
            self.tries.end(self, now)
        if self.held is not None:
            self.release(now, self.outcome(self.reason) if self.reason else OK)

    def end_try(self, outcome: int, now: float) -> None:
        """Another try is to follow. Its place at the upstream is free for who waits, and what it took is a service time
        of its own: a limit that is learned must not take the sum for one."""
        if self.trace is not None:
            self.trace.end_try(self, now)
        route = self.route
        if route is not None and self.held is route.upstream.bulkhead:
            self.held.release(self, now, outcome)
        self.sent_at = 0.0
        self.first_byte_at = 0.0
        self.connect_s = 0.0

    def go_on_with(self, other: Attempt) -> None:
        """Another try of this request has become the only one: take over its connection and its place."""
        up = other.up
        if up is None:
            return
        other.up = None
        self.take_over(other)
        if self.trace is not None:
            self.trace.adopt_hedge()
        self.up = up
        up.exchange = self
        self.sent_at = other.sent_at
        self.connect_s = other.connect_s
        self.reused = up.requests > 1
        self.endpoint = up.pool.name
        if self.down.write_blocked:
            self.pause_answer()

    def outcome(self, reason: str) -> int:
        """What a limit learns from a try."""
        if not reason or reason == "upstream_failed":
            return OK
        route = self.route
        if reason == "upstream_shed" and route is not None:
            route.upstream.bulkhead.refused_beyond()
        return DROPPED if self.sent_at and reason in OVERLOAD else IGNORED

    def blame(self, pool: Pool, reason: str) -> None:
        """Tell the balancer how a request has ended at an endpoint, if not by its answer."""
        if self.trace is not None:
            self.trace.failed(self, reason, monotonic())
        member = pool.member
        if member is not None:
            pool.upstream.failed(member, reason, self.sent_at, self.answer_started, monotonic())
