"""One client connection: reads requests, one exchange at a time, answers in order.

                     first byte            head complete            answer complete
    NEW ------------> READING ------------> ACTIVE ---------------> IDLE --> READING ...
     |  head time-out   | refused             |  |  101                |  keep-alive time-out
     v                  v                     |  +----> TUNNEL         v
    CLOSED <--------- LINGERING <-------------+-----------+-------> CLOSED

LINGERING: our FIN is sent and what still arrives is thrown away for a moment. A socket that is closed with unread
bytes, or gets bytes after the close, resets its connection, and that can destroy an answer which is still on its way
(RFC 9112 9.6). So whenever it is us who end a connection after an answer, it lingers; who has asked for the end, or is
silent between two requests, sends nothing more.

A slow client holds what others wait for. Each of its time-outs is also a window in which a number of bytes must come
(or be taken): time-out x limits.min_*_rate. It is counted only while the client has the word: not while we do not read
a body because its upstream is slow, and only what the client's own kernel has acknowledged of an answer. The first
window is the grace; nothing is computed for each read.

A client that resets is gone at once. A FIN may be a half-close whose answer is wanted: the answer gets a short,
configured time to begin before the request is cancelled.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from edgeq.admission.ticket import SHEDDABLE
from edgeq.listener.nobody import Nobody
from edgeq.listener.reset_io import reset
from edgeq.listener.tcp_info_io import taken_bytes
from edgeq.policy.headers import ForwardPolicy, client_lines, forward_prefix, trusted_client_lines
from edgeq.response.grace import Grace
from edgeq.response.relay import FULL_READ, Exchange
from edgeq.response.rescue import options_answer
from edgeq.response.sending import MAX_PENDING
from edgeq.wire.chars import TOKEN
from edgeq.wire.errors import Refused
from edgeq.wire.fields import seen_before
from edgeq.wire.framing import LENGTH
from edgeq.wire.h1_request import find_end, parse_request, parse_whole
from edgeq.wire.head import HeadLimits, RequestFields, RequestHead
from edgeq.worker.wheel import NEVER, Timed

if TYPE_CHECKING:
    from edgeq.listener.early_io import EarlyTransport
    from edgeq.listener.peer import Peer
    from edgeq.listener.settings import ListenerSettings
    from edgeq.worker.shard import Shard

NEW: Final = 0
READING: Final = 1
ACTIVE: Final = 2
IDLE: Final = 3
TUNNEL: Final = 4
LINGERING: Final = 5
CLOSED: Final = 6

_EARLY_S: Final = 0.15
"""Before its deadline a request is handed to the fine wheel: a tick of the coarse one, and one of the loop that turns
it. Most have ended by then."""
LINGER_S: Final = 2.0
LINGER_BYTES: Final = 16 << 20
"""More than is on its way when our answer is written: what both kernels hold of it (tcp_wmem and tcp_rmem allow 4 and
6 MiB). At 1 MiB one of seven uploads by curl over loopback lost its early answer to the reset."""

_LOOK_S: Final = 1.0
"""A client that takes no more is looked at so long after: most have gone on by then, and cost no question."""
_NOT_SEEN: Final = -2

MAX_WHOLE_HEAD: Final = 8 * 1024
"""More bytes than this are looked through for the end of a head first: they may be a thousand pipelined requests, and
to split them all into lines for each of them would take the square of the time."""
MAX_REMEMBERED_HEAD: Final = 1024
MAX_REMEMBERED_HEADS: Final = 256
"""Of a worker, for first requests of connections."""

_NO_FIELDS: Final = RequestFields()


class Downstream(Timed):
    """The client's side. A protocol of the event loop: its methods are called by the transport."""

    __slots__ = (
        "_body_at",
        "_forward",
        "_gone_at",
        "_idle_since",
        "_memo",
        "_received",
        "_stall_at",
        "_taken",
        "_window_at",
        "_write_left",
        "buffer",
        "client_lines",
        "closed",
        "closing",
        "early",
        "exchange",
        "half_closed",
        "log_text",
        "opened_at",
        "paused_reading",
        "peer",
        "requests",
        "settings",
        "shard",
        "state",
        "transport",
        "trusted",
        "waited",
        "write_blocked",
    )

    def __init__(self, shard: Shard, settings: ListenerSettings, peer: Peer, closed: Any) -> None:
        super().__init__()
        self.shard: Shard = shard
        self.settings: ListenerSettings = settings
        self.peer: Peer = peer
        self.waited: bool = peer.waited_us > 0 or peer.kernel_us > 0
        """`peer` says how long, and nobody has logged it."""
        self.closed: Any = closed
        """Called with the peer once the connection is gone."""
        self.transport: Any = None
        self.early: EarlyTransport | None = None
        """The transport, while the event loop does not watch this connection."""
        self.state: int = NEW
        self.buffer = b""
        self.exchange: Exchange | None = None
        self.requests: int = 0
        self.opened_at: float = 0.0
        self.half_closed: bool = False
        self.closing: bool = False
        self.trusted: bool = False
        self.client_lines: bytes = b""
        self._forward: ForwardPolicy = shard.forward
        self._introduce()
        self.log_text = b""
        """This connection's part of access-log lines, once it has been rendered."""
        self._memo: RequestHead | None = None
        self.paused_reading: bool = False
        self.write_blocked: bool = False
        """The client has not taken what was written: nothing more is read for it, and its next request waits."""
        self._write_left: int = 0
        self._taken: int = _NOT_SEEN
        """What the client had taken when the present window began."""
        self._stall_at: float = 0.0
        """While write_blocked: when the client must have taken something."""
        self._body_at: float = 0.0
        """While a request's body comes: when more of it must have come."""
        self._window_at: float = NEVER
        """When enough of the body must have come since the present window began."""
        self._gone_at: float = 0.0
        """While half_closed: when the answer must have begun."""
        self._idle_since: float = 0.0
        self._received: int = 0
        """READING, ACTIVE: bytes of the head or body when the present window began. LINGERING: bytes thrown away."""

    def _introduce(self) -> None:
        """Settle how this client is named to upstreams, and whether it is believed."""
        peer = self.peer
        trusted = self.settings.trusted
        self.trusted = trusted is not None and peer.client_host in trusted
        self._forward = self.shard.forward
        self.client_lines = client_lines(self._forward, peer.client_host, peer.tls)

    def number(self) -> int:
        """No other connection of this machine has it, open or gone, though one may be where this one was in memory."""
        return id(self) ^ int(self.opened_at * 1e9)

    # -- called by the transport --------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        shard = self.shard
        shard.downstreams.add(self)
        now = monotonic()
        self.opened_at = now
        self._idle_since = now
        shard.wheel.schedule(self, now + self.settings.head_timeout_s)

    def data_received(self, data: bytes) -> None:
        state = self.state
        try:
            if state == IDLE:
                if self.buffer or self.write_blocked:
                    self._hold(data)
                else:
                    self._read_head(data)
            elif state in (NEW, READING):
                self._read_head(data)
            elif state == ACTIVE:
                self._active_data(data)
            elif state == TUNNEL:
                exchange = self.exchange
                if exchange is not None:
                    exchange.tunnel_data(data)
            elif state == LINGERING:
                self._received += len(data)
                if self._received > LINGER_BYTES:
                    self.abort()
        except Exception as error:  # of our own: what is refused comes as a value, or as Refused
            self._end_by_defect(data, error)

    def _end_by_defect(self, data: bytes, error: Exception) -> None:
        """Something of ours has failed with these bytes: this client is told, the others notice nothing."""
        resource = self.settings.resource
        self.shard.tell_defect(error, resource)
        exchange = self.exchange
        if exchange is not None:
            exchange.fail("internal_error", resource, "")
        elif self.state in (IDLE, NEW, READING):
            self._refuse_unread(data, "internal_error", "")
        if self.state not in (LINGERING, CLOSED):
            self.abort()

    def awaits_client(self) -> bool:
        """Is more to come from the client before an answer can?"""
        exchange = self.exchange
        return self.state != ACTIVE or exchange is None or not exchange.request_done

    def eof_received(self) -> bool:
        """The client's FIN. True: keep our side open."""
        exchange = self.exchange
        if exchange is None or self.state == LINGERING:
            if self.state == IDLE and self.buffer:  # a pipelined request, whose turn comes in a moment
                self.half_closed = True
                self.shard.unpolled.add(self)
                return True
            self.close()
            return False
        self.half_closed = True
        self.shard.unpolled.add(self)
        if self.state == TUNNEL:
            exchange.client_half_closed()
            return True
        if not exchange.request_done or exchange.ends_with_fin():
            self.exchange = None  # a cut request, or one whose client wants no more
            exchange.client_gone()
            self.cut(exchange.must_reset())
            return False
        if not exchange.answer_started:
            self._gone_at = monotonic() + self.settings.half_close_s
            self.shard.wheel.schedule(self, self._active_deadline())
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self.state = CLOSED
        self.closing = True
        shard = self.shard
        shard.wheel.remove(self)
        shard.downstreams.discard(self)
        if self.paused_reading or self.half_closed:
            shard.unpolled.discard(self)
        exchange = self.exchange
        if exchange is not None:
            self.exchange = None
            exchange.client_gone()
        self._memo = None
        self.buffer = b""
        closed = self.closed
        if closed is not None:
            self.closed = None
            closed(self.peer)

    def pause_writing(self) -> None:
        self.write_blocked = True
        exchange = self.exchange
        if exchange is not None:
            exchange.pause_answer()
        timeout_s = self.settings.write_timeout_s
        self._taken = _NOT_SEEN
        self._stall_at = monotonic() + min(_LOOK_S, timeout_s / 2) if timeout_s else NEVER
        if self._stall_at < self.expire_at:
            self.shard.wheel.schedule(self, self._stall_at)

    def resume_writing(self) -> None:
        self.write_blocked = False
        exchange = self.exchange
        if exchange is not None:
            exchange.resume_answer()
        if self.state == IDLE:
            self._rest(monotonic())
            if self.buffer:
                self.shard.call_soon(self._next_request)

    # -- reading requests ---------------------------------------------------------------------------------------------

    def _read_head(self, data: bytes) -> None:
        memo = self._memo
        seen = 0
        if self.buffer:
            seen = len(self.buffer)
            data = self.buffer + data
            self.buffer = b""
        if memo is not None and data.startswith(memo.raw):
            end = len(memo.raw)
            head = memo
        else:
            limits = self.settings.limits
            try:
                # Most often what has been read is one head and nothing else.
                whole: RequestHead | None = None
                if seen == 0 and len(data) <= MAX_WHOLE_HEAD and data.endswith(b"\r\n\r\n"):
                    if memo is None:
                        whole = self._first_head(data, limits)
                    else:
                        whole = parse_whole(data, memo, limits)
                if whole is not None:
                    if self.requests or whole.limits is not None:
                        # Of its own head only from the second request on: many connections make just one, then idle.
                        self._memo = whole
                    self._begin(whole, data, len(data))
                    return
                end = find_end(data, seen, limits)
                if end < 0:
                    if self.half_closed:
                        self.close()  # the rest of it never comes
                        return
                    self.buffer = data
                    self.resume_reading()  # a head may be larger than what is held of pipelined requests
                    if self.state != READING:
                        if self.state == IDLE:
                            self.shard.wheel.schedule(self, monotonic() + self.settings.head_timeout_s)
                        self.state = READING
                        self._received = 0
                    return
                head = parse_request(data[:end], memo, limits)
            except Refused as error:
                self._refuse_unread(data, error.reason, error.detail)
                return
            self._memo = head
        self._begin(head, data, end)

    def _first_head(self, data: bytes, limits: HeadLimits) -> RequestHead | None:
        """A connection's first head: clients that connect anew for each request send the same one again and again."""
        heads = self.shard.heads
        known = heads.get(data)
        if known is not None and known.limits is limits:
            return known
        head = parse_whole(data, None, limits)
        if head is not None and len(data) <= MAX_REMEMBERED_HEAD and seen_before(data) and not head.fields.private:
            if len(heads) >= MAX_REMEMBERED_HEADS:
                heads.clear()
            head.limits = limits
            heads[data] = head
        return head

    def _begin(self, head: RequestHead, data: bytes, end: int) -> None:
        """A request has begun: find its route and let its upstream have it."""
        shard = self.shard
        now = monotonic()
        self.state = ACTIVE
        self.requests += 1
        shard.requests += 1
        shard.in_flight += 1
        if shard.pressure.shed_share and shard.pressure.must_shed():
            exchange = Exchange(self, head, None, now)
            self.exchange = exchange
            self._take_rest(exchange, data, end)
            exchange.shed(shard.pressure.reason)
            return
        if self._forward is not shard.forward:  # a reload
            self._introduce()
        trusted = self.trusted
        settled = shard.generation * 2 + 1 if trusted else shard.generation * 2
        if head.settled != settled:
            self._settle(head, settled)
        if trusted:
            self.client_lines = trusted_client_lines(shard.forward, head, self.peer.client_host, self.peer.tls)
        route = head.route
        if route is None or route.llm is None:
            exchange = Exchange(self, head, route, now)
        else:
            exchange = route.llm.exchange(self, head, route, now)
        self.exchange = exchange
        if route is None:
            self._take_rest(exchange, data, end)
            reason, resource, detail = shard.routes.refusal(head.host, head.path)
            exchange.fail(reason, resource or self.settings.resource, detail)
            return
        large = False
        fields = head.fields
        if fields.max_forwards == 0 and (head.method == b"OPTIONS" or head.method == b"TRACE"):
            self._answer_here(exchange, data, end)
            return
        if exchange.request_done:
            if len(data) > end:
                self.buffer = data[end:]
        else:
            limit = exchange.body_limit()
            if limit and fields.body_kind == LENGTH and fields.content_length > limit:
                exchange.fail("body_too_large", route.resource, f"the request body is larger than {limit} bytes")
                return
            self._body_at = now + self.settings.body_timeout_s
            self._window_at = NEVER
            large = len(data) >= FULL_READ
            if len(data) > end and not self._body(exchange, data[end:]):
                return
        if route.graceful:
            exchange.grace = Grace(route.cache, route.fallback)
        if self.waited and not self._count_wait(exchange, now):
            return
        terms = route.terms
        if terms is not None and not terms.accept(exchange, now):
            return
        if self.half_closed:
            self._gone_at = now + self.settings.half_close_s
        if exchange.request_done and not self.half_closed and not self.write_blocked:
            at = exchange.deadline_at - _EARLY_S
        else:
            at = self._active_deadline()
        self.expire_at = at
        if at < self.turn_at:
            if at <= now:
                self._expires_soon(exchange)
            else:
                shard.wheel.schedule(self, at)
        grace = exchange.grace
        if grace is not None and grace.answers(exchange, now):
            return
        exchange.queued_at = now
        exchange.enter(now)
        if large:
            self._splice(exchange)

    def _count_wait(self, exchange: Exchange, now: float) -> bool:
        """The first request counts from when it came, not from when this worker had time for it, or a place.

        In queues it counts from when this worker was there at most: a restart is no congestion, so who had to wait for
        it is no reason to turn anybody away.

        Returns: False if its time is over.
        """
        if self.requests > 1:
            return True
        wait_s = self.peer.kernel_us * 1e-6
        exchange.arrived_at = max(now - wait_s, self.shard.serving_since)
        if exchange.deadline_at < NEVER:
            exchange.deadline_at -= wait_s
            if now >= exchange.deadline_at:
                exchange.deadline_passed()
                return False
        return True

    def expect_answer(self) -> None:
        """The request goes on after all: its deadline holds."""
        self.shard.wheel.schedule(self, self._active_deadline())

    def shadow(self, exchange: Exchange, now: float) -> Exchange:
        """A request like that of `exchange`, to go to the upstream; its answer goes to nobody."""
        shard = self.shard
        shard.in_flight += 1
        twin = Downstream(shard, self.settings, self.peer, None)
        twin.transport = Nobody(twin)
        twin.client_lines = self.client_lines
        twin.state = ACTIVE
        made = Exchange(twin, exchange.head, exchange.route, now)
        made.tenant = exchange.tenant
        made.weight = exchange.weight
        made.priority = SHEDDABLE  # nobody waits for it
        made.queued_at = now
        twin.exchange = made
        twin.expect_answer()
        return made

    def detach(self, exchange: Exchange) -> Downstream:
        """The client has left, and what runs for it goes on: for nobody. Returns: who takes the rest."""
        twin = Downstream(self.shard, self.settings, self.peer, None)
        twin.transport = Nobody(twin)
        twin.state = ACTIVE
        twin.exchange = exchange
        twin.expect_answer()
        return twin

    def _settle(self, head: RequestHead, settled: int) -> None:
        """Find the route and make the forwarded prefix; both are used again while the head stays the same."""
        shard = self.shard
        route = shard.routes.find(head.host, head.path)
        head.route = route
        head.settled = settled
        head.prefix = b""
        if route is not None and not route.upstream.hosts_differ:
            head.prefix = forward_prefix(head, route, shard.forward, route.upstream.host, self.trusted)

    def _active_data(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        if exchange.request_done:
            self._hold(data)  # until this answer is complete
            return
        if self._body(exchange, data):
            now = monotonic()
            self._body_at = now + self.settings.body_timeout_s
            if self._window_at == NEVER:
                # Not before the first bytes: until the upstream says 100 the client may wait.
                self._begin_window(exchange, now)
            self.shard.wheel.schedule(self, self._active_deadline())
            if len(data) >= FULL_READ:  # the others have their turn first
                self.transport.pause_reading()
                self.shard.call_soon(self._read_on)
                self._splice(exchange)

    def _splice(self, exchange: Exchange) -> None:
        """Let what more has come of a large body go from socket to socket, if it can."""
        splicer = self.shard.splicer
        left = exchange.body_left()
        up = exchange.up
        if left == 0 or splicer is None or up is None or self.paused_reading or self.peer.tls or up.pool.tls:
            return
        if up.transport.get_write_buffer_size():
            return
        moved, rest, error = splicer.move(self.transport, up.transport, left)
        exchange.body_passed(moved)
        if error is not None:
            up.connection_lost(error)  # as when a transport's write fails: an answer may wait to be read
            up.transport.abort()
        elif rest:
            self._body(exchange, rest)

    def _read_on(self) -> None:
        if not self.paused_reading and not self.closing:
            self.transport.resume_reading()

    def _hold(self, data: bytes) -> None:
        """Pipelined: its turn has not come."""
        self.buffer = self.buffer + data if self.buffer else data
        if len(self.buffer) > MAX_PENDING:
            self.pause_reading()

    def _begin_window(self, exchange: Exchange, now: float) -> None:
        """From now on enough of the body must come, if that is asked for."""
        settings = self.settings
        self._window_at = now + settings.body_timeout_s if settings.least_body_bytes else NEVER
        self._received = exchange.request_bytes

    def _body(self, exchange: Exchange, data: bytes) -> bool:
        """Give body bytes to the exchange. Returns: False if that ended it."""
        try:
            rest = exchange.request_data(data)
        except Refused as error:
            resource = self.settings.resource
            if error.reason == "body_too_large" and exchange.route is not None:
                resource = exchange.route.resource
            exchange.fail(error.reason, resource, error.detail)
            return False
        if rest:
            self.buffer = rest
        return True

    def _take_rest(self, exchange: Exchange, data: bytes, end: int) -> None:
        if exchange.request_done:
            self.buffer = data[end:]

    def _answer_here(self, exchange: Exchange, data: bytes, end: int) -> None:
        """OPTIONS or TRACE with Max-Forwards: 0 ends here (RFC 9110 7.6.2)."""
        self._take_rest(exchange, data, end)
        if exchange.head.method == b"TRACE":
            exchange.fail("method_refused", self.settings.resource, "TRACE is not answered by this gateway")
            return
        exchange.keep_alive = self.may_keep(exchange)
        exchange.status = 200
        self.transport.write(options_answer(exchange.request_id, exchange.keep_alive))
        exchange.finish_here()

    def _refuse_unread(self, data: bytes, reason: str, detail: str) -> None:
        """A request whose head cannot be used: answer, log and close."""
        shard = self.shard
        now = monotonic()
        line = data.lstrip(b"\r\n")[:8192].split(b"\r\n", 1)[0].split(b" ")
        if line[0].translate(None, TOKEN):  # no request line: perhaps a field, and what it says may be secret
            line = [b""]
        method = line[0][:32]
        target = line[1] if len(line) > 1 else b""
        if target[:1] != b"/" and b"://" not in target:
            target = target[target.rfind(b"@") + 1 :]  # no credentials of CONNECT's authority
        target = target[:2048]
        head = RequestHead(b"", 0, method, target, target, b"", b"", 1, _NO_FIELDS, b"")
        head.version = line[2][:16] if len(line) == 3 else b""  # for the log: as it came, not what we speak
        self.state = ACTIVE
        self._memo = None
        self.requests += 1
        shard.requests += 1
        shard.in_flight += 1
        exchange = Exchange(self, head, None, now)
        exchange.request_done = False  # where the next request begins is not known: nothing more is read
        self.exchange = exchange
        exchange.fail(reason, self.settings.resource, detail)

    # -- called by the exchange ---------------------------------------------------------------------------------------

    def may_keep(self, exchange: Exchange) -> bool:
        """May the connection be kept after this exchange's answer?"""
        if not exchange.head.keep_alive or not exchange.request_done or self.closing:
            return False
        if self.half_closed and not self.buffer:
            return False
        limit = self.settings.max_requests
        return not self.shard.draining and (limit == 0 or self.requests < limit)

    def exchange_done(self, exchange: Exchange, now: float) -> None:
        """The answer is written. Next request, wait for one, or close."""
        self.exchange = None
        if not exchange.keep_alive or self.closing or (self.half_closed and not self.buffer):
            self._close_after_answer(exchange)
            return
        self.state = IDLE
        self._rest(now)
        early = self.early
        if early is not None:
            self.early = None
            early.register()
        if self.paused_reading and len(self.buffer) <= MAX_PENDING:
            self.resume_reading()
        if self.buffer:
            # In a turn of its own: many pipelined requests must not nest, nor keep the others waiting.
            self.shard.call_soon(self._next_request)

    def _rest(self, now: float) -> None:
        """Wait for the next request."""
        self._idle_since = now
        at = now + self.settings.trim_s
        self.expire_at = at
        if at < self.turn_at:
            self.shard.wheel.schedule(self, at)

    def _next_request(self) -> None:
        if self.state != IDLE or not self.buffer:
            return
        if self.write_blocked:  # no more answers for who takes none; it has its time-out for that
            self.shard.wheel.schedule(self, self._stall_at)
        else:
            data = self.buffer
            self.buffer = b""
            self.data_received(data)

    def _close_after_answer(self, exchange: Exchange) -> None:
        """End the connection so that what has been answered arrives, whatever the client still sends."""
        if self.closing:
            return
        if exchange.request_done and not self.buffer and not exchange.head.keep_alive:
            self.close()  # as the client has asked: it sends nothing more
            return
        self.linger()  # the client could not know, and its next request may be on its way

    def linger(self) -> None:
        """Send our FIN after what is buffered, and throw away what still comes for a moment."""
        if self.closing:
            return
        if self.half_closed or not self.transport.can_write_eof():
            self.close()
            return
        self.state = LINGERING
        self.buffer = b""
        self._received = 0
        self.transport.write_eof()
        self.resume_reading()
        self._watch_flush(LINGER_S)

    def cut(self, hard: bool) -> None:
        """End an answer that cannot be completed so that the client sees it. `hard`: by a reset, because the answer
        ends at the end of the connection and a FIN would look like its end."""
        exchange = self.exchange
        self.exchange = None
        if hard:
            self.closing = True
            self.state = CLOSED
            reset(self.transport)
        elif exchange is not None:
            self._close_after_answer(exchange)
        else:
            self.linger()

    def close(self) -> None:
        """Write out what is buffered, then close."""
        if not self.closing:
            self.closing = True
            self.state = CLOSED
            self._watch_flush(0.0)
            self.transport.close()

    def _watch_flush(self, least_s: float) -> None:
        """The last bytes are written: after them, or when the client has stopped taking them, the connection ends.

        `least_s`: look no earlier than after so many seconds, but do look then; 0: only if bytes wait.
        """
        left = self.transport.get_write_buffer_size()
        self._write_left = left
        if left:
            self._taken = taken_bytes(self.transport)
        wait_s = self.settings.write_timeout_s if left else least_s
        if wait_s:
            self.shard.wheel.schedule(self, monotonic() + wait_s)
        else:
            self.shard.wheel.schedule(self, NEVER)

    def stop(self, why: str = "the gateway stops and did not wait any longer") -> None:
        """The time is over: what still runs is refused or cut, with its line in the access log."""
        exchange = self.exchange
        if exchange is not None:
            exchange.fail("draining", self.settings.resource, why)
        if self.state != CLOSED:
            self.abort()

    def abort(self) -> None:
        """Close at once, with a reset where something is cut off."""
        exchange = self.exchange
        self.closing = True
        self.state = CLOSED
        if self.transport.get_write_buffer_size() or (exchange is not None and exchange.must_reset()):
            reset(self.transport)
        else:
            self.transport.abort()

    def enter_tunnel(self) -> bytes:
        """After 101. Returns: bytes that the client had sent already."""
        self.state = TUNNEL
        self.expire_at = NEVER
        rest = self.buffer
        self.buffer = b""
        self.resume_reading()
        if self.early is not None:
            self.early.register()
        return rest

    def half_close(self) -> bool:
        """The upstream's side of a tunnel has sent its FIN: pass it on. Returns: False if that cannot be done."""
        if self.closing or not self.transport.can_write_eof():
            return False
        self.transport.write_eof()
        return True

    def finish_tunnel(self, clean: bool) -> None:
        """The upstream's side of a tunnel has ended: by a FIN, or else by a reset, which is passed on."""
        self.cut(not clean)

    def pause_reading(self) -> None:
        """Do not read the client for now."""
        if not self.paused_reading and not self.closing:
            self.paused_reading = True
            self.shard.unpolled.add(self)
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read the client again."""
        if self.paused_reading and not self.closing:
            self.paused_reading = False
            if not self.half_closed:
                self.shard.unpolled.discard(self)
            self.transport.resume_reading()
            if self.state == ACTIVE:
                self._body_at = monotonic() + self.settings.body_timeout_s
                self._window_at = NEVER
                self.shard.wheel.schedule(self, self._active_deadline())

    # -- time ---------------------------------------------------------------------------------------------------------

    def _active_deadline(self) -> float:
        """When an active connection has to be looked at again: before the deadline, and no time-out is shorter."""
        exchange = self.exchange
        expire_at = NEVER
        if exchange is not None:
            expire_at = exchange.deadline_at - _EARLY_S
            if not exchange.request_done and self._waits_for_body():
                if self._body_at < expire_at:
                    expire_at = self._body_at
                if self._window_at < expire_at:
                    expire_at = self._window_at
            if self.half_closed and not exchange.answer_started and self._gone_at < expire_at:
                expire_at = self._gone_at
        if self.write_blocked and self._stall_at < expire_at:
            expire_at = self._stall_at
        return expire_at

    def _waits_for_body(self) -> bool:
        """Must the client send the rest of its body in time?"""
        return not self.paused_reading and self.settings.body_timeout_s > 0.0

    def on_expire(self, now: float) -> None:
        state = self.state
        if state == LINGERING or self.closing:
            if self._has_progress(now):
                self.shard.wheel.schedule(self, now + self.settings.write_timeout_s)
            else:
                self.abort()
        elif self.write_blocked and now >= self._stall_at and not self._has_progress(now):
            self._stalled()
        elif state == IDLE:
            self._idle_expired(now)
        elif state == ACTIVE:
            self._active_expired(now)
        elif state in (NEW, READING):
            if self.buffer.strip(b"\r\n"):
                self._head_expired(now)
            else:
                self.close()  # nothing but an empty line or two after a body (RFC 9112 2.2)
        elif state == TUNNEL:
            self.shard.wheel.schedule(self, self._stall_at if self.write_blocked else NEVER)

    def _head_expired(self, now: float) -> None:
        settings = self.settings
        least = settings.least_head_bytes
        if not least:
            self._refuse_unread(self.buffer, "head_timeout", "")
        elif len(self.buffer) - self._received < least:
            self._refuse_unread(self.buffer, "head_timeout", "slower than limits.min_head_rate")
        else:  # limits.header_bytes is the end of it
            self._received = len(self.buffer)
            self.shard.wheel.schedule(self, now + settings.head_timeout_s)

    def _idle_expired(self, now: float) -> None:
        keepalive_s = self.shard.pressure.idle_s(self.settings.keepalive_s)
        if self.write_blocked:
            self.shard.wheel.schedule(self, self._stall_at)  # its last answer is still on the way
            return
        if keepalive_s and now >= self._idle_since + keepalive_s:
            self.close()
            return
        self._memo = None
        self.log_text = b""
        self.shard.wheel.schedule(self, self._idle_since + keepalive_s if keepalive_s else NEVER)

    def _active_expired(self, now: float) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        if now >= exchange.deadline_at:
            exchange.deadline_passed()
        elif self.half_closed and not exchange.answer_started and now >= self._gone_at:
            self.leave()
        elif not exchange.request_done and self._waits_for_body() and now >= min(self._body_at, self._window_at):
            self._body_expired(exchange, now)
        elif now >= exchange.deadline_at - _EARLY_S:
            self._expires_soon(exchange)
        else:
            self.shard.wheel.schedule(self, self._active_deadline())

    def _expires_soon(self, exchange: Exchange) -> None:
        """Its deadline comes before the wheel could look again. Other time-outs are no worse for a tick."""
        shard = self.shard
        shard.fine_wheel.schedule(_Deadline(exchange), exchange.deadline_at)
        shard.wheel.schedule(self, exchange.deadline_at)

    def _body_expired(self, exchange: Exchange, now: float) -> None:
        settings = self.settings
        if now >= self._body_at:
            exchange.fail("body_timeout", settings.resource, "nothing came within timeouts.body")
        elif exchange.request_bytes - self._received < settings.least_body_bytes:
            exchange.fail("body_timeout", settings.resource, "slower than limits.min_body_rate")
        else:
            self._begin_window(exchange, now)
            self.shard.wheel.schedule(self, self._active_deadline())

    def _has_progress(self, now: float) -> bool:
        """Has the client taken enough since this was last asked, and is something left for it?"""
        left = self.transport.get_write_buffer_size()
        if left == 0:
            return False
        taken = taken_bytes(self.transport)
        if self._taken == _NOT_SEEN:
            enough = True  # the window begins
        elif taken >= 0 and self._taken >= 0:
            enough = taken - self._taken >= self.settings.least_answer_bytes
        else:
            enough = left < self._write_left
        self._taken = taken
        self._write_left = left
        timeout_s = self.settings.write_timeout_s
        self._stall_at = now + timeout_s if timeout_s else NEVER
        return enough

    def _stalled(self) -> None:
        exchange = self.exchange
        if exchange is not None:
            self.exchange = None
            exchange.stalled()
        self.abort()

    def leave(self) -> None:
        """The client has left, although its end has not been read: what runs for it is cancelled."""
        exchange = self.exchange
        if exchange is not None:
            self.exchange = None
            exchange.client_gone()
        self.abort()

    def drain(self, now: float, idle_s: float) -> bool:
        """While worker or listener drains: close if idle for `idle_s`. Returns: True if it is closed."""
        if (self.state == IDLE or self.state == NEW) and not self.buffer and now - self._idle_since >= idle_s:
            self.close()
            return True
        return False


class _Deadline(Timed):
    """The end of one request's time, to within a tick of the fine wheel; nothing if it has ended before."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self._exchange: Exchange = exchange

    def on_expire(self, now: float) -> None:
        exchange = self._exchange
        if not exchange.ended:
            exchange.deadline_passed()


class DownstreamFactory:
    """Makes the connections of one listener."""

    __slots__ = ("_settings", "_shard", "released")

    def __init__(self, shard: Shard, settings: ListenerSettings) -> None:
        self._shard: Shard = shard
        self._settings: ListenerSettings = settings
        self.released: Any = None
        """Called with the peer once a connection is gone: one bound method for all."""

    def make(self, peer: Peer) -> Downstream:
        """The protocol of a new connection."""
        return Downstream(self._shard, self._settings, peer, self.released)
