"""One exchange: a request and its answer, relayed in both directions at once.

    client --request bytes--> Exchange --> upstream connection
    client <---answer bytes-- Exchange <-- upstream connection

Invariants
- The upstream connection belongs to the exchange from `begin` until exactly one of: given back to its pool after the
  last byte of the answer, closed. The exchange ends once, in `_end`, which writes its one access record.
- Bytes of a body are passed on as they come (those of the request: `sending`). When one side's buffer is full the other
  side is not read.
- Before the first byte of the answer has gone to the client a failure becomes a refusal (`rescue`); after it, the
  connection is cut so that the client can see it: never a clean end of an unclean answer.
- A request is sent again at most once, and only if no byte of an answer came (or 408 and a close, which are none), its
  body is not lost, its method is idempotent and the connection had been used before (RFC 9110 9.2.2, RFC 9112 9.3.1);
  more often, or for other failures, only if its route has a retry policy (`tries`).
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from edgeq.admission.ticket import IGNORED, OK
from edgeq.reasons import REASONS
from edgeq.response.rescue import UNKNOWN, refusal
from edgeq.response.sending import Sending
from edgeq.response.tries import Tries
from edgeq.wire.date import date_line
from edgeq.wire.errors import Refused
from edgeq.wire.framing import CHUNKED, LAST_CHUNK, LENGTH, NO_BODY, UNTIL_CLOSE, ChunkedFramer, chunk
from edgeq.wire.h1_response import find_response_end, parse_response
from edgeq.worker.wheel import NEVER

if TYPE_CHECKING:
    from edgeq.listener.connection import Downstream
    from edgeq.policy.retry import RetryPolicy
    from edgeq.response.grace import Grace
    from edgeq.route.table import Route
    from edgeq.upstream.connection import UpstreamConnection
    from edgeq.upstream.pool import Pool
    from edgeq.wire.head import RequestHead, ResponseHead

FULL_READ: Final = 128 * 1024
"""A read of a body that is longer has filled the event loop's buffer (250 KiB), and the loop would read on, 32 times in
one turn: a million chunks of one byte."""
LOG_BATCH: Final = 16
"""Finished exchanges that become lines together: few enough to be still in the processor's caches, and that who comes
meanwhile does not wait for long (0.15 ms for requests for models, 0.05 for others)."""
_MAX_INTERIM: Final = 100
_BIG: Final = 16 * 1024


class Exchange(Sending):
    """One request and its answer."""

    __slots__ = (
        "_answer_chunks",
        "_answer_framer",
        "_answer_kind",
        "_answer_remaining",
        "_interim",
        "_upstream_half_closed",
        "answer_bytes",
        "answer_lines",
        "detail",
        "ended",
        "ended_at",
        "keep_alive",
    )

    # Of an answer that has a body, by its kind (`_answer_kind`).
    _answer_remaining: int
    _answer_framer: ChunkedFramer | None
    _answer_chunks: bool
    _upstream_half_closed: bool
    """Of a tunnel."""
    ended_at: float
    """Set once it has ended."""

    def __init__(self, down: Downstream, head: RequestHead, route: Route | None, now: float) -> None:
        Sending.__init__(self, down, head, route, now)
        self.detail = ""
        """What its client was told of its refusal, beside the reason."""
        self.answer_lines = b""
        """Header lines for the answer that are not the upstream's, each with its CRLF."""
        self.answer_bytes: int = 0
        self._answer_kind: int = -1
        self._interim: int = 0
        self.keep_alive: bool = False
        self.ended: bool = False

    # -- the answer's side --------------------------------------------------------------------------------------------

    def answer_data(self, data: bytes) -> None:
        """Take bytes that the upstream connection has read."""
        kind = self._answer_kind
        now = monotonic()
        if kind < 0:
            self.answer_head(data, now)
            return
        up = self.up
        down = self.down
        if up is None:
            return
        grace = self.grace
        if kind == LENGTH:
            size = len(data)
            remaining = self._answer_remaining
            if size > remaining:
                data = data[:remaining]
                size = remaining
                up.reusable = False
            self._answer_remaining = remaining - size
            self.answer_bytes += size
            if grace is not None:
                grace.body(self, data)
            down.transport.write(data)
            if size == remaining:
                self._complete(now)
                return
        elif kind == CHUNKED:
            framer = self._answer_framer
            if framer is None:
                return
            try:
                out = framer.feed(data)
            except Refused as error:
                self.fail("upstream_protocol_error", up.pool.resource, error.detail)
                return
            self.answer_bytes = framer.payload_bytes
            if out:
                if grace is not None:
                    grace.body(self, out)
                down.transport.write(out)
            if framer.done:
                if framer.excess:
                    up.reusable = False
                self._complete(now)
                return
            if len(data) >= FULL_READ:  # the others have their turn first
                up.transport.pause_reading()
                down.shard.call_soon(self._read_on)
        else:
            self.answer_bytes += len(data)
            down.transport.write(chunk(data) if self._answer_chunks else data)
        if not down.write_blocked or self._is_wanted():  # or it is the client who takes its time
            up.expire_after(now, up.pool.upstream.tunnel_s if self.tunnel else up.pool.upstream.body_s)

    def answer_head(self, data: bytes, now: float) -> None:
        """Bytes of what comes before an answer's body."""
        up = self.up
        if up is None:
            return
        if self.first_byte_at == 0.0:
            self.first_byte_at = now
        pool = up.pool
        memo = pool.memo
        if memo is not None and not up.buffer and data.startswith(memo.raw):
            self.final_head(memo, data, len(memo.raw), now)
            return
        while True:
            if up.buffer:
                seen = len(up.buffer)
                data = up.buffer + data
                up.buffer = b""
            else:
                seen = 0
            try:
                end = find_response_end(data, seen)
                if end < 0:
                    up.buffer = data
                    return
                answer = parse_response(data[:end])
            except Refused as error:
                self.fail(error.reason, pool.resource, error.detail)
                return
            if answer.status >= 200:
                pool.memo = answer
                break
            if answer.status == 101:
                break
            self._interim += 1
            if self._interim > _MAX_INTERIM:
                self.fail("upstream_protocol_error", pool.resource, "too many interim answers")
                return
            self.pass_interim(answer)
            data = data[end:]
            if not data:
                return
        self.final_head(answer, data, end, now)

    def pass_interim(self, answer: ResponseHead) -> None:
        """An interim answer goes on to clients that can know it (RFC 9110 15.2)."""
        if self.head.minor == 1:
            self.down.transport.write(answer.forward + b"\r\n")

    def final_head(self, answer: ResponseHead, data: bytes, end: int, now: float) -> None:
        """The head of an answer is here, up to `end` of what has come."""
        up = self.up
        if up is None:
            return
        down = self.down
        head = self.head
        status = answer.status
        special = answer.is_special
        if special and status == 408 and not answer.keep_alive and self._interim == 0 and self._may_go_again(up):
            # The one answer that a server may send unasked (RFC 9110 15.5.9): it was closing an idle connection.
            self.up = None
            self.first_byte_at = 0.0
            up.exchange = None
            up.discard()
            up.pool.submit(self, True)
            return
        pool = up.pool
        member = pool.member
        if member is not None:
            pool.upstream.answered(member, answer, self.sent_at, self._sent_all, now)
        route = self.route
        if route is not None and route.retry is not None and status in route.retry.statuses:
            if self._tries().after_answer(self, route.retry, answer, up, len(data) - end, now):
                return
        if self.tries is not None:
            self.tries.answered(self, now)
        grace = self.grace
        if grace is not None and grace.replaces(self, up, answer, len(data) - end, now):
            return
        self.status = status
        self.answer_started = True
        held = self.held
        if held is not None and held.watcher is not None:
            held.hear(self)
        kind = answer.body_kind
        size = len(data) - end
        up.reusable = answer.keep_alive
        if special:
            if status == 101:
                asked = head.fields.upgrade if head.minor == 1 and self.request_done else b""
                if not asked or answer.upgrade != asked:
                    self.answer_started = False
                    self.fail("upstream_protocol_error", pool.resource, "101 without being asked for this protocol")
                    return
                self._begin_tunnel(answer, data[end:])
                return
            if status == 503 or status == 429:
                self.reason = "upstream_shed"
                self.resource = pool.resource
            elif status == 204 or status == 304:
                kind = NO_BODY
        if (kind == LENGTH and answer.content_length == 0) or head.method == b"HEAD":
            kind = NO_BODY
        self._answer_kind = kind
        keep = down.may_keep(self)
        extra = b""
        if kind > LENGTH:  # how long it is shows at its end
            if head.minor == 1:
                extra = b"transfer-encoding: chunked\r\n"
            else:
                keep = False
            if kind == CHUNKED:
                self._answer_framer = ChunkedFramer(head.minor == 0, head.fields.te_trailers, 64 * 1024)
            else:
                up.reusable = False
                self._answer_framer = None
                self._answer_chunks = head.minor == 1
        self.keep_alive = keep
        if not answer.is_dated():
            extra += date_line()
        if self.sticky:
            extra += self.sticky
        if not keep:
            extra += b"connection: close\r\n"
        elif head.minor == 0:
            extra += b"connection: keep-alive\r\n"
        if self.answer_lines:
            extra += self.answer_lines
        if grace is not None:
            extra += grace.passes(self, answer, kind, now)
            if down.write_blocked:
                self.pause_answer()
        request_id = self.request_id
        transport = down.transport
        if kind == NO_BODY:
            if size:
                up.reusable = False
            transport.write(b"".join((answer.forward, extra, b"x-request-id: ", request_id, b"\r\n\r\n")))
            self._complete(now)
            return
        if kind == LENGTH:
            remaining = answer.content_length
            if size > remaining:
                data = data[: end + remaining]
                size = remaining
                up.reusable = False
            self._answer_remaining = remaining - size
            self.answer_bytes = size
            if grace is not None:
                grace.body(self, data[end:])
            if size <= _BIG:
                transport.write(
                    b"".join((answer.forward, extra, b"x-request-id: ", request_id, b"\r\n\r\n", data[end:]))
                )
            else:
                transport.writelines(
                    (
                        b"".join((answer.forward, extra, b"x-request-id: ", request_id, b"\r\n\r\n")),
                        memoryview(data)[end:],
                    )
                )
            if size == remaining:
                self._complete(now)
                return
        else:
            out = b""
            rest = data[end:]
            framer = self._answer_framer
            if rest:
                if framer is not None:
                    try:
                        out = framer.feed(rest)
                    except Refused as error:
                        self.answer_started = False
                        self.fail("upstream_protocol_error", up.pool.resource, error.detail)
                        return
                    self.answer_bytes = framer.payload_bytes
                    if grace is not None:
                        grace.body(self, out)
                else:
                    self.answer_bytes = len(rest)
                    out = chunk(rest) if self._answer_chunks else rest
            transport.write(b"".join((answer.forward, extra, b"x-request-id: ", request_id, b"\r\n\r\n", out)))
            if framer is not None and framer.done:
                if framer.excess:
                    up.reusable = False
                self._complete(now)
                return
        if not down.write_blocked or self._is_wanted():
            up.expire_after(now, up.pool.upstream.body_s)

    def _begin_tunnel(self, answer: ResponseHead, rest: bytes) -> None:
        """After 101: bytes both ways until both sides have ended."""
        up = self.up
        down = self.down
        if up is None:
            return
        self.tunnel = True
        self.release(monotonic(), IGNORED)  # it may last for days, and is no work to wait for
        self._upstream_half_closed = False
        self._answer_kind = UNTIL_CLOSE
        self._answer_chunks = False
        up.reusable = False
        down.transport.write(answer.forward + b"x-request-id: " + self.request_id + b"\r\n\r\n" + rest)
        early = down.enter_tunnel()
        if early:
            up.transport.write(early)
        up.expire_in(up.pool.upstream.tunnel_s)
        if down.half_closed:
            self.client_half_closed()

    def tunnel_data(self, data: bytes) -> None:
        """Bytes from the client, after 101."""
        up = self.up
        if up is not None:
            self.request_bytes += len(data)
            up.transport.write(data)
            up.expire_in(up.pool.upstream.tunnel_s)

    def client_half_closed(self) -> None:
        """The client's side of a tunnel has ended."""
        up = self.up
        if up is not None and not self._upstream_half_closed and up.transport.can_write_eof():
            up.half_close()
        else:
            self.upstream_ended(True)

    def half_close_client(self) -> bool:
        """The upstream's side of a tunnel has ended. Returns: whether the other direction lives on."""
        self._upstream_half_closed = not self.down.half_closed and self.down.half_close()
        return self._upstream_half_closed

    def has_passed_fin(self) -> bool:
        """Has the client got our FIN while the other direction of its tunnel lives on?"""
        return self.tunnel and self._upstream_half_closed

    def taken_bytes(self) -> int:
        """What the upstream's kernel has taken of the request's body: grows while the request moves."""
        up = self.up
        if up is None:
            return -1
        left: int = up.transport.get_write_buffer_size()
        return self.request_bytes - left

    def _complete(self, now: float) -> None:
        """The last byte of the answer has been written."""
        up = self.up
        down = self.down
        self.up = None
        if up is not None:
            up.exchange = None
            if not self.request_done or (self.request_bytes and up.transport.get_write_buffer_size()):
                up.discard()  # it still expects the rest of this request's body, or may never read it
            else:
                self._read_for_next(up)
                up.pool.release(up, now)
        grace = self.grace
        if grace is not None:
            grace.whole = True
        self._end(now)  # now, so that who is let in next finds this connection
        down.exchange_done(self, now)

    # -- what goes wrong ----------------------------------------------------------------------------------------------

    def upstream_ended(self, clean: bool) -> None:
        """The upstream connection has ended: by FIN (`clean`) or by a reset."""
        up = self.up
        if up is None:
            return
        self.up = None
        up.exchange = None
        if self.tunnel:
            if not up.lost:
                up.pool.close(up)
            self._end(monotonic())
            self.down.finish_tunnel(clean)
            return
        if self._answer_kind == UNTIL_CLOSE and clean:
            if self._answer_chunks:
                self.down.transport.write(LAST_CHUNK)
            self._end(monotonic())
            self.down.exchange_done(self, monotonic())
            return
        if self.answer_started:
            self.blame(up.pool, "upstream_truncated")
            self.fail("upstream_truncated", up.pool.resource, "the upstream closed within its answer")
            return
        if self.first_byte_at == 0.0 and self._may_go_again(up):
            up.pool.submit(self, True)
            return
        reason = "upstream_reset"
        detail = "the upstream reset the connection"
        if up.refused:
            reason = "upstream_tls_failed"
            detail = "the upstream refused edgeq's certificate, or that it has none"
        elif clean:
            detail = "the upstream closed the connection before its answer"
        self.blame(up.pool, reason)
        retry = self._policy()
        if retry is not None and self._tries().after_reset(self, retry, up.pool):
            return
        self.fail(reason, up.pool.resource, detail)

    def _may_go_again(self, up: UpstreamConnection) -> bool:
        """May the request be sent once more, if no answer to it has begun?"""
        return (
            self.reused
            and self.attempts == 1
            and not up.buffer
            and self._sent_all
            and self.head.idempotent
            and not self.down.closing
        )

    def connect_failed(self, reason: str, pool: Pool) -> None:
        """No connection to one endpoint could be had."""
        tracer = self.down.shard.tracer
        if tracer is not None:
            tracer.not_connected(self, self, pool, reason)
        if not self._tries().after_dial(self, pool):
            self.fail(reason, pool.resource, "")

    def no_answer(self) -> None:
        """The answer to this try should have begun by now."""
        up = self.up
        if up is None:
            return
        retry = self._policy()
        if retry is not None and self._tries().after_timeout(self, retry, up):
            return
        key = "retry.per_try_timeout" if retry is not None and retry.per_try_s else "timeouts.first_byte"
        self.fail("upstream_timeout", up.pool.resource, f"no answer came in time: {key} passed")

    def answer_stalled(self) -> None:
        up = self.up
        if up is not None:
            self.fail("upstream_timeout", up.pool.resource, "timeouts.body passed between two reads of the answer")

    def _tries(self) -> Tries:
        tries = self.tries
        if tries is None:
            tries = self.tries = Tries(self)
        return tries

    def _begin_by(self, retry: RetryPolicy, now: float) -> None:
        """It may have to be sent once more."""
        is_small = len(self.pending) <= retry.body_bytes
        self._sent_all = self.request_done or is_small
        if self.attempts == 1:
            retry.budget.request(now)
            is_whole = self.request_done and is_small and not self.head.fields.upgrade
            if retry.hedge is not None and is_whole and self.is_replayable():
                self._tries().plan_hedge(self, retry.hedge, now)

    def is_replayable(self) -> bool:
        """Could the request be sent once more: is all of it here, may it arrive twice, and has its answer not begun?"""
        return (
            self._sent_all
            and self.head.idempotent
            and not self.answer_started
            and self._interim == 0
            and not self.down.closing
        )

    def again(self) -> None:
        """Ask the same upstream once more: its answer was to another question than the client's."""
        self._tries()
        self.first_byte_at = 0.0
        self.queued_at = monotonic()
        route = self.route
        if route is not None:
            route.upstream.submit(self)

    def put_back(self, up: UpstreamConnection, answer: ResponseHead, size: int, now: float) -> None:
        """An answer is not passed on; `size` bytes of its body are here. Its connection is kept if those are all."""
        if self.trace is not None:
            self.trace.answered(answer.status)
        self.let_go(up)
        whole = size == (answer.content_length if answer.body_kind == LENGTH else 0)
        if answer.body_kind > LENGTH and answer.status != 304:
            whole = False
        unsent: int = up.transport.get_write_buffer_size()
        if whole and answer.keep_alive and self.request_done and not unsent and not self.down.write_blocked:
            up.pool.release(up, now)
        else:
            up.discard()

    def fail(self, reason: str, resource: str, detail: str, retry_after_s: float = UNKNOWN, policy: str = "") -> None:
        """Refuse the request, or cut its answer if it has begun. Arguments are those of `rescue.refusal`."""
        if self.ended:
            return
        self.reason = reason
        self.resource = resource
        up = self.up
        if up is not None:
            self.blame(up.pool, reason)
        self._drop_upstream()
        down = self.down
        if self.answer_started:
            self._end(monotonic())
            down.cut(self.must_reset())
            return
        row = REASONS[reason]
        if row.status == 0:
            self.status = 499
            self._end(monotonic())
            down.cut(False)
            return
        grace = self.grace
        if grace is not None:
            if grace.instead(self, reason, resource, detail, retry_after_s):
                return
            first = grace.first_reason
            if first and REASONS[first].status:  # the fallback has failed as well: the first reason tells more
                detail = f"{REASONS[first].told()}; its fallback failed, too: {reason}"
                reason = first
                resource = grace.first_resource
                row = REASONS[reason]
        self.status = row.status
        second = "" if self.tries is None else self.tries.second_reason
        if second:
            detail = f"{detail or row.told()}; {REASONS[second].title.lower()}: {second}"
        # What breaks the rules of HTTP may be followed by more that does; who asks too often just has to wait.
        is_orderly = row.fault != "C" or row.status == 429
        self.keep_alive = down.may_keep(self) and is_orderly and self.reason != "internal_error"
        self.detail = detail
        text = self.refusal(reason, resource, detail, retry_after_s, policy)
        down.transport.write(text)
        self.answer_bytes = len(text) - text.find(b"\r\n\r\n") - 4
        self._end(monotonic())
        down.exchange_done(self, monotonic())

    def refusal(self, reason: str, resource: str, detail: str, retry_after_s: float, policy: str) -> bytes:
        """The answer that tells the client of it, in the words of whatever it speaks."""
        forward = self.down.shard.forward
        return refusal(
            reason,
            forward.told(resource),
            detail,
            self.request_id,
            forward.node,
            self.keep_alive,
            self.head.method == b"HEAD",
            retry_after_s,
            policy,
            self.answer_lines,
        )

    def own_fields(self) -> bytes:
        """What the access log has to say of this kind of request alone, each field with its comma."""
        return b""

    def kept_fields(self) -> bytes:
        """What `edgeq explain` has to say of it beyond that, each field after a comma."""
        return b""

    def asks_of(self) -> list[str]:
        """What it wants a place or a part of, as resources: who asks for most of one is told by these."""
        route = self.route
        return [] if route is None else [f"upstream/{route.upstream.name}", route.resource]

    def asks_as(self) -> str:
        """By which virtual key it does: the id, and the name after a space if it has one; empty: by none."""
        return ""

    def waits_for_another(self) -> bool:
        """Is its answer on its way to another request, whose end it waits for?"""
        grace = self.grace
        return grace is not None and grace.waits is not None

    def end_by_defect(self, error: Exception) -> None:
        is_over = self.ended
        try:
            super().end_by_defect(error)
        except Exception as another:  # it cannot even be told, and nobody is to wait for it
            self.down.shard.tell_defect(another, self.down.settings.resource)
            is_over = True
            if not self.ended:
                self._drop_upstream()
                self._end(monotonic())
        if is_over:
            self.down.abort()  # what is left undone is not known

    def shed(self, reason: str) -> None:
        """Refuse a request for the worker's own sake: in a hurry, by an answer that is written once."""
        down = self.down
        shard = down.shard
        forward = shard.forward
        self.reason = reason
        self.resource = f"worker:{reason}"
        self.status = REASONS[reason].status
        self.keep_alive = down.may_keep(self)
        if self.head.method == b"HEAD":
            text = refusal(reason, forward.told(self.resource), "", b"", forward.node, self.keep_alive, True)
        else:
            key = f"{reason} {self.keep_alive}"
            text = shard.prepared.get(key, b"")
            if not text:
                text = refusal(reason, forward.told(self.resource), "", b"", forward.node, self.keep_alive, False)
                shard.prepared[key] = text
        down.transport.write(text)
        self.answer_bytes = len(text) - text.find(b"\r\n\r\n") - 4
        self.finish_here()

    def deadline_passed(self) -> None:
        """The answer would be of no use any more."""
        route = self.route
        resource = route.resource if route is not None else ""
        lobby = self.waits_in
        if lobby is not None:
            when = "while it waited for its turn"
            resource = lobby.short_of(self, monotonic())
        elif not self.request_done:
            when = "while its body came"
        elif self.up is not None:
            when = "while the upstream worked on it"
        elif self.waiting_in is not None:
            when = "while it waited for a connection"
        elif self.attempts:
            when = "before it was tried again"
        else:
            when = "before it came here"
        self.fail("deadline_expired", resource, f"its time ran out {when}")

    def ends_with_fin(self) -> bool:
        """Does a FIN after a whole request mean that the client leaves? It may be a half-close (RFC 9112 9.6)."""
        return False

    def must_reset(self) -> bool:
        """Would a FIN now look like the end of the answer to the client?"""
        kind = self._answer_kind
        if kind == UNTIL_CLOSE:
            return not self._answer_chunks
        return kind == CHUNKED and self.head.minor == 0

    def client_gone(self) -> None:
        """The client has left: what runs for it is cancelled."""
        if self.ended:
            return
        if not self.tunnel:
            self.reason = "client_gone"
            self.resource = self.down.settings.resource
            if not self.answer_started:
                self.status = 499
                up = self.up
                if up is not None:
                    self.blame(up.pool, "client_gone")
        self._drop_upstream()
        self._end(monotonic())

    def _drop_upstream(self) -> None:
        self.leave_upstream()
        lobby = self.waits_in
        if lobby is not None:
            lobby.cancel(self, monotonic())

    # -- flow control -------------------------------------------------------------------------------------------------

    def pause_answer(self) -> None:
        """The client does not take more: do not read the upstream."""
        up = self.up
        if up is not None and not self._is_wanted():
            up.transport.pause_reading()
            up.expire_in(NEVER)

    def resume_answer(self) -> None:
        """The client takes more again."""
        up = self.up
        if up is not None:
            up.transport.resume_reading()
            upstream = up.pool.upstream
            if self.tunnel:
                up.expire_in(upstream.tunnel_s)
            else:
                up.expire_in(upstream.body_s if self.answer_started else self.first_byte_s(up))
            return
        grace = self.grace
        if grace is not None:
            grace.resume(self)

    def _read_for_next(self, up: UpstreamConnection) -> None:
        """If it stood still for this one's client: that is not the fault of who is next on this connection."""
        if self.down.write_blocked and not up.lost:
            up.transport.resume_reading()

    def _read_on(self) -> None:
        up = self.up
        if up is not None and (not self.down.write_blocked or self._is_wanted()):
            up.transport.resume_reading()

    def _is_wanted(self) -> bool:
        """Is the answer read on for a cache, although the client does not take it? What it holds is bounded there."""
        grace = self.grace
        return grace is not None and (grace.collector is not None or (grace.fetches and not self.answer_started))

    # -- the end ------------------------------------------------------------------------------------------------------

    def _end(self, now: float) -> None:
        """Write the access record, once."""
        if self.ended:
            return
        self.ended = True
        down = self.down
        shard = down.shard
        shard.in_flight -= 1
        self.pending = b""
        grace = self.grace
        if grace is not None:
            self._end_gracefully(grace, now)
            return
        if self.reason:
            self._count()
        self._tell(now)
        if self.tries is None and self.outer is None and not self.reason:
            if self.held is not None:
                self.held.release(self, now, OK)
        else:
            self.give_up(now)

    def _tell(self, now: float) -> None:
        """To whoever looks later: `explain` if it was refused or slow, the collector of traces, the access log."""
        shard = self.down.shard
        self.ended_at = now
        if self.reason or (self.first_byte_at or now) - self.begun_at >= shard.slow_s:
            shard.keep(self)
        if shard.tracer is not None:
            shard.tracer.ended(self, now)
        if shard.log_enabled:
            ring = shard.ring
            ring.append(self)
            if len(ring) >= LOG_BATCH:
                shard.gather_log()

    def _end_gracefully(self, grace: Grace, now: float) -> None:
        """The same, for what may have been answered by something else than its route's upstream."""
        shard = self.down.shard
        if self.reason and not grace.silent:
            self._count()
        if grace.first_reason and self.reason:
            self._tries().second_reason = self.reason
        self.give_up(now)
        if grace.first_reason:
            self.reason = grace.first_reason
            self.resource = grace.first_resource
            shard.refusals.count(self.reason, self.resource)
        if not grace.silent:
            self._tell(now)
        grace.end(self, now)

    def _count(self) -> None:
        """The request was refused or has failed."""
        refusals = self.down.shard.refusals
        refusals.count(self.reason, self.resource)
        second = "" if self.tries is None else self.tries.second_reason
        route = self.route
        if second and second != self.reason and route is not None:
            refusals.count(second, route.resource + ":retry")

    def finish_here(self) -> None:
        """The answer came from this gateway itself."""
        self._end(monotonic())
        self.down.exchange_done(self, monotonic())

    def stalled(self) -> None:
        """The client has stopped reading for too long."""
        self.reason = "client_stalled"
        self.resource = self.down.settings.resource
        self._drop_upstream()
        self._end(monotonic())
