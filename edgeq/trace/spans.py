"""What is noted of a request for its spans: where it waited, each try, how it ended.

    caller's span --> server span (Trace) --> client span of each try (Try) --> the upstream's span

A worker has a `Tracer` while [trace] is configured, and the relay asks no more than whether there is one. Whether a
request is sampled is decided when that is first needed, most often when it is sent: until then all moments are in the
exchange. Of one that is not sampled nothing is noted but its trace's id.

Who decides: a trusted peer by the sampled flag of its traceparent; for traces that begin here a threshold on the lower
56 bits of the id, so that everybody who samples by the same share chooses the same ones. A peer that is not trusted can
neither choose what is recorded nor add to somebody's trace: a new trace begins, with a link to its own.
Sources: W3C Trace Context (level 1), OpenTelemetry's probability sampling (OTEP 235) and HTTP conventions (v1.44).

Invariants
- Each try is in `Trace.tries` once, and ended when the trace is. Of two at a time one is the exchange's own, the other
  its hedge.
- A finished trace is rendered on the worker's loop in small batches, as the access log's lines are: a thread that did
  it would hold the interpreter's lock for as long, whenever it liked.
"""

from __future__ import annotations

from os import urandom
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Final

from edgeq.wire.h1_request import valid_traceparent

if TYPE_CHECKING:
    from edgeq.response.relay import Exchange
    from edgeq.response.sending import Sending
    from edgeq.upstream.attempt import Attempt
    from edgeq.upstream.connection import UpstreamConnection
    from edgeq.upstream.pool import Pool

BATCH: Final = 32
"""Finished traces that are rendered together: half a millisecond."""
_MAX_EARLY: Final = 512
"""That wait while the exporter begins."""
_POOL: Final = 2048
"""Random bytes, for so many that are made together."""
_SCALE: Final = 1 << 56
_SAMPLED: Final = 1


class Ids:
    """Makes random ids in hexadecimal digits. Many at a time: to ask the kernel for each would take longer than all
    else that is done for a request that is not sampled."""

    __slots__ = ("_at", "_digits")

    def __init__(self) -> None:
        self._digits = b""
        self._at: int = 0

    def make(self, digits: int) -> bytes:
        """32 digits for a trace, 16 for a span. None is all zero, within the age of the universe."""
        at = self._at
        if at + digits > len(self._digits):
            self._digits = urandom(_POOL).hex().encode()
            at = 0
        self._at = at + digits
        return self._digits[at : at + digits]


class Wait:
    """Of a request for a permit. Monotonic seconds."""

    __slots__ = ("begun_at", "ended_at", "resource")

    def __init__(self, resource: str, begun_at: float) -> None:
        self.resource = resource
        self.begun_at: float = begun_at
        self.ended_at: float = 0.0


class Try:
    """One client span. Monotonic seconds, 0.0 where the moment has not come."""

    __slots__ = (
        "begun_at",
        "connect_s",
        "ended_at",
        "first_byte_at",
        "hedge",
        "pool",
        "reason",
        "reused",
        "sent_at",
        "span_id",
        "status",
    )

    def __init__(self, span_id: bytes, pool: Pool, begun_at: float, hedge: bool) -> None:
        self.span_id: bytes = span_id
        self.pool: Pool = pool
        self.begun_at: float = begun_at
        """When it had its permit, and went for a connection."""
        self.connect_s: float = 0.0
        self.sent_at: float = 0.0
        self.reused: bool = False
        self.first_byte_at: float = 0.0
        self.ended_at: float = 0.0
        self.status: int = 0
        """0: no answer was taken."""
        self.reason = ""
        self.hedge: bool = hedge


class Trace:
    """Of one sampled request."""

    __slots__ = (
        "_hedge",
        "_own",
        "_wait",
        "accept_s",
        "ended_at",
        "ids",
        "link",
        "parent_id",
        "span_id",
        "state",
        "trace_id",
        "tries",
        "waits",
    )

    def __init__(self, ids: Ids, trace_id: bytes, parent_id: bytes, state: bytes) -> None:
        """`trace_id` and `parent_id` in hexadecimal digits, the latter empty for a trace that begins here."""
        self.ids: Ids = ids
        self.trace_id: bytes = trace_id
        self.parent_id: bytes = parent_id
        self.state: bytes = state
        """tracestate, passed on as it came."""
        self.span_id: bytes = ids.make(16)
        self.link: tuple[bytes, bytes] | None = None
        """Trace and span of a caller that is not trusted."""
        self.waits: list[Wait] = []
        self.tries: list[Try] = []
        self._wait: Wait | None = None
        self._own: Try | None = None
        """The exchange's own, while it runs."""
        self._hedge: Try | None = None
        self.accept_s: float = 0.0
        """How long its connection had waited to be accepted."""
        self.ended_at: float = 0.0

    def begin_wait(self, resource: str, now: float) -> None:
        """It stands before a limit."""
        self._wait = Wait(resource, now)
        self.waits.append(self._wait)

    def end_wait(self, now: float) -> None:
        """It has got its permit, or never will."""
        wait = self._wait
        if wait is not None:
            self._wait = None
            wait.ended_at = now

    def begin_try(self, exchange: Sending, up: UpstreamConnection, now: float) -> Try:
        """It is about to be sent on `up`."""
        own = exchange.up is up
        tries = exchange.tries
        hedge = None if own or tries is None else tries.hedge
        attempt = exchange if hedge is None else hedge
        if own and self._own is not None:
            # Sent again without a word, as the connection had been closed when it was: RFC 9112 9.3.1.
            if not self._own.reason:
                self._own.reason = "upstream_reset"
            self.end_try(exchange, now)
        made = self.make_try(up.pool, attempt, not own)
        made.sent_at = now
        made.connect_s = attempt.connect_s
        made.reused = up.requests > 1
        if own:
            self._own = made
        else:
            self._hedge = made
        return made

    def make_try(self, pool: Pool, attempt: Attempt, hedge: bool) -> Try:
        """One more client span. It begins with its permit, or when the one before it had ended."""
        begun_at = attempt.granted_at
        if not hedge and self.tries and self.tries[-1].ended_at > begun_at:
            begun_at = self.tries[-1].ended_at
        made = Try(self.ids.make(16), pool, begun_at, hedge)
        self.tries.append(made)
        return made

    def failed(self, exchange: Sending, reason: str, now: float) -> None:
        """The exchange's own try has come to this."""
        own = self._own
        if own is not None:
            own.reason = reason
            self.end_try(exchange, now)

    def answered(self, status: int) -> None:
        """The exchange's own try has an answer that is not passed on."""
        own = self._own
        if own is not None:
            own.status = status

    def end_try(self, exchange: Sending, now: float) -> None:
        """The exchange's own try is over. Calling it again does nothing."""
        own = self._own
        if own is not None:
            self._own = None
            own.ended_at = now
            own.first_byte_at = exchange.first_byte_at
            if exchange.answer_started:
                own.status = exchange.status

    def end_hedge(self, reason: str, status: int, now: float) -> None:
        """The hedge is over, or nobody wants it any more."""
        hedge = self._hedge
        if hedge is not None:
            self._hedge = None
            hedge.ended_at = now
            hedge.reason = reason
            hedge.status = status

    def adopt_hedge(self) -> None:
        """The hedge is the exchange's own try from here on."""
        self._own = self._hedge
        self._hedge = None

    def end(self, exchange: Exchange, now: float) -> None:
        """The request has ended, and all that runs for it."""
        self.end_wait(now)
        self.end_hedge("", 0, now)
        own = self._own
        if own is not None:
            grace = exchange.grace
            if grace is None or not grace.first_reason:  # that is why it has turned to this upstream
                own.reason = exchange.reason
            self.end_try(exchange, now)
        down = exchange.down
        if down.waited and down.requests == 1:
            self.accept_s = (down.peer.kernel_us + down.peer.waited_us) * 1e-6
        self.ended_at = now


class Tracer:
    """Of one worker. `ratio`: of the traces that begin here, the share that is sampled."""

    __slots__ = ("_exporter", "_ids", "_log", "_propagates", "_ring", "_threshold")

    def __init__(self, ratio: float, propagates: bool, exporter: Any, log: Any) -> None:
        # Digits compare as the numbers do; "g" is above all of them.
        self._threshold: bytes = b"%014x" % (_SCALE - int(ratio * _SCALE)) if ratio * _SCALE >= 1.0 else b"g"
        self._propagates: bool = propagates
        """Upstreams are told."""
        self._exporter: Any = exporter
        self._log: Any = log
        self._ids: Ids = Ids()
        self._ring: list[Exchange] = []

    def of(self, exchange: Sending) -> Trace | None:
        """The trace of a request, if it is sampled; the first call decides that."""
        if exchange.trace_id:
            return exchange.trace
        fields = exchange.head.fields
        parent = fields.traceparent
        is_known = len(parent) > 0 and valid_traceparent(parent)
        if is_known and exchange.down.trusted:
            trace_id = parent[3:35]
            sampled = int(parent[53:55], 16) & _SAMPLED != 0
        else:
            trace_id = self._ids.make(32)
            sampled = trace_id[18:] >= self._threshold
        exchange.trace_id = trace_id
        grace = exchange.grace
        if not sampled or (grace is not None and grace.silent):  # for the cache's sake: it has no client
            return None
        if is_known and exchange.down.trusted:
            trace = Trace(self._ids, trace_id, parent[36:52], fields.tracestate)
        else:
            trace = Trace(self._ids, trace_id, b"", b"")
            if is_known:
                trace.link = (parent[3:35], parent[36:52])
        exchange.trace = trace
        return trace

    def lines(self, exchange: Sending, up: UpstreamConnection, now: float) -> bytes:
        """A try is about to be sent: what the upstream is told of its span."""
        trace = self.of(exchange)
        trace_id = exchange.trace_id
        if trace is not None:
            span_id = trace.begin_try(exchange, up, now).span_id
            if not self._propagates:
                return b""
            text = b"".join((b"traceparent: 00-", trace_id, b"-", span_id, b"-01\r\n"))
            return text + b"tracestate: " + trace.state + b"\r\n" if trace.state else text
        if not self._propagates:
            return b""
        fields = exchange.head.fields
        if exchange.down.trusted and fields.traceparent[3:35] == trace_id:  # nobody here stands between them
            text = b"".join((b"traceparent: 00-", trace_id, b"-", fields.traceparent[36:52], b"-00\r\n"))
            return text + b"tracestate: " + fields.tracestate + b"\r\n" if fields.tracestate else text
        return b"".join((b"traceparent: 00-", trace_id, b"-", trace_id[16:], b"-00\r\n"))

    def waits(self, exchange: Sending, resource: str, now: float) -> None:
        """A request stands before a limit."""
        trace = self.of(exchange)
        if trace is not None:
            trace.begin_wait(resource, now)

    def not_connected(self, exchange: Exchange, attempt: Attempt, pool: Pool, reason: str) -> None:
        """No connection to `pool` could be had for a try of `exchange`, which is over with that."""
        trace = self.of(exchange)
        if trace is not None:
            made = trace.make_try(pool, attempt, attempt is not exchange)
            made.reason = reason
            made.ended_at = monotonic()

    def ended(self, exchange: Exchange, now: float) -> None:
        """A request has ended, while it still holds what it held."""
        trace = self.of(exchange)
        if trace is not None:
            trace.end(exchange, now)
            self._ring.append(exchange)
            if len(self._ring) >= BATCH:
                self.flush()

    def flush(self, last: bool = False) -> None:
        """Hand on what has ended; `last`: nobody will ask again. Never raises: a defect costs spans, not requests."""
        ring = self._ring
        if not ring:
            return
        if not self._exporter.ready and not last and len(ring) < _MAX_EARLY:
            return
        for start in range(0, len(ring), BATCH):
            self._hand_on(ring[start : start + BATCH])
        ring.clear()

    def _hand_on(self, batch: list[Exchange]) -> None:
        exporter = self._exporter
        spans = 0
        for exchange in batch:
            trace = exchange.trace
            if trace is not None:
                spans += 1 + len(trace.tries)
        if exporter.takes(spans):
            try:
                exporter.put(exporter.encode(batch, time() - monotonic()), spans)
            except Exception as error:
                exporter.drop(spans)
                self._log.error("trace.span_invalid", exc_info=error)
