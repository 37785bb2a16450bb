"""A second try of a request beside the first one, at another endpoint: whoever answers first is the one.

    sent --a good answer begins--> it wins: the exchange goes on with its connection and its place, the first is cut
      |
      +--a bad answer, a reset, a time-out--> it is gone, as if it had never been
      +--the first fails--> it is the exchange's only try, and goes on as that

Invariants
- A hedge has a place of its own, taken without waiting, and counts as a retry while it runs.
- It has a connection only while the exchange has one, too: from then on it is told apart by whom the connection belongs
  to, and nothing of the relay knows of it.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from edgeq.admission.ticket import DROPPED, IGNORED, OK
from edgeq.reasons import OVERLOAD
from edgeq.upstream.attempt import Attempt
from edgeq.wire.errors import Refused
from edgeq.wire.h1_response import find_response_end, parse_response

if TYPE_CHECKING:
    from edgeq.response.relay import Exchange
    from edgeq.response.tries import Tries
    from edgeq.upstream.connection import UpstreamConnection
    from edgeq.upstream.pool import Pool


class Hedge(Attempt):
    """It is over when `Tries.hedge` is another one, or None."""

    __slots__ = ()

    def __init__(self, exchange: Exchange, tries: Tries, now: float) -> None:
        super().__init__(exchange.down, exchange.head, now)
        self.tries = tries
        self.granted_at = now
        self.deadline_at = exchange.deadline_at
        self.priority = exchange.priority
        self.tenant = exchange.tenant
        self.weight = exchange.weight

    def begin(self, up: UpstreamConnection, now: float) -> None:
        self.up = up
        self.waiting_in = None
        self.sent_at = now
        exchange = self._exchange()
        exchange.send(up, now)
        up.expire_after(now, exchange.first_byte_s(up))
        tries = self.tries
        if exchange.up is None and tries is not None:
            tries.adopt(exchange, self)

    def answer_data(self, data: bytes) -> None:
        """Wins with the head of a good answer. Interim answers are not passed on: the other try may send its own."""
        up = self.up
        tries = self.tries
        if up is None or tries is None:
            return
        seen = len(up.buffer)
        data = up.buffer + data
        up.buffer = b""
        while True:
            try:
                end = find_response_end(data, seen)
                if end < 0:
                    up.buffer = data
                    return
                answer = parse_response(data[:end])
            except Refused as error:
                self._lose(error.reason, "", "")
                return
            if answer.status >= 200:
                break
            if answer.status == 101:
                self._lose("upstream_protocol_error", "", "")
                return
            data = data[end:]
            seen = 0
        exchange = self._exchange()
        route = exchange.route
        policy = None if route is None else route.retry
        if answer.status >= 500 or answer.status == 429 or policy is None or answer.status in policy.statuses:
            now = monotonic()
            member = up.pool.member
            if member is not None:
                up.pool.upstream.answered(member, answer, self.sent_at, True, now)
            outcome = OK
            if answer.status in (429, 503):
                outcome = DROPPED
                if self.held is not None:
                    self.held.refused_beyond()
            if exchange.trace is not None:
                exchange.trace.end_hedge("", answer.status, now)
            self._leave(now, outcome)
            tries.hedge_lost(exchange, up.pool, "", "", "")
            return
        tries.hedge_won(exchange, self, data)

    def connect_failed(self, reason: str, pool: Pool) -> None:
        tracer = self.down.shard.tracer
        if tracer is not None:
            tracer.not_connected(self._exchange(), self, pool, reason)
        self._leave(monotonic(), IGNORED)
        tries = self.tries
        if tries is not None:
            tries.hedge_lost(self._exchange(), pool, reason, pool.resource, "")

    def upstream_ended(self, clean: bool) -> None:
        self._lose("upstream_reset", "", "")

    def half_close_client(self) -> bool:
        return False

    def no_answer(self) -> None:
        self._lose("upstream_timeout", "", "")

    def fail(self, reason: str, resource: str, detail: str, retry_after_s: float = -1.0, policy: str = "") -> None:
        self._lose(reason, resource, detail)

    def _lose(self, reason: str, resource: str, detail: str) -> None:
        """The first try is the only one again."""
        now = monotonic()
        up = self.up
        pool: Pool | None = None
        outcome = IGNORED
        if up is not None:
            pool = up.pool
            resource = pool.resource
            if pool.member is not None:
                pool.upstream.failed(pool.member, reason, self.sent_at, False, now)
            if reason in OVERLOAD:
                outcome = DROPPED
        trace = self._exchange().trace
        if trace is not None:
            trace.end_hedge(reason, 0, now)
        self._leave(now, outcome)
        tries = self.tries
        if tries is not None:
            tries.hedge_lost(self._exchange(), pool, reason, resource, detail)

    def cancel(self, now: float) -> None:
        """Nobody wants its answer any more."""
        trace = self._exchange().trace
        if trace is not None:
            trace.end_hedge("", 0, now)
        self._leave(now, IGNORED)

    def _leave(self, now: float, outcome: int) -> None:
        self.leave_upstream()
        self.release(now, outcome)

    def _exchange(self) -> Exchange:
        tries = self.tries
        exchange = None if tries is None else tries.exchange
        assert exchange is not None, "a hedge that outlives its request"
        return exchange
