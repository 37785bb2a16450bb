"""A second target asked beside the first, because the first event of a model's answer is late.

    sent --time is up--> tokens and a place at another target, if they are free at once
             --its first event comes first--> it is the one
             --anything else----------------> as if it had never been

The first event is a word of the model; of an answer that is no stream, its last byte. What has said no word yet may
still fail, and the other target would have been given up for it.
"""

from __future__ import annotations

from time import monotonic, time
from typing import TYPE_CHECKING

from edgeq.admission.ticket import IGNORED
from edgeq.llm.attempt import Attempt as Tried
from edgeq.llm.dialects.errors import decode_error, kind_of
from edgeq.llm.gate import Claim
from edgeq.llm.message import Failed
from edgeq.llm.provider import has_no_model, judge, told
from edgeq.llm.provider_limits import hear
from edgeq.llm.unfinished import used_until
from edgeq.upstream.attempt import Attempt
from edgeq.wire.errors import Refused
from edgeq.wire.h1_response import find_response_end, parse_response
from edgeq.worker.wheel import Timed

if TYPE_CHECKING:
    from edgeq.llm.estimate import Estimate
    from edgeq.llm.exchange import ModelExchange
    from edgeq.llm.incoming import Incoming
    from edgeq.llm.plan import Choice
    from edgeq.upstream.connection import UpstreamConnection
    from edgeq.upstream.pool import Pool
    from edgeq.wire.head import ResponseHead


class HedgeClock(Timed):
    """Rings when it is time for a second target."""

    __slots__ = ("exchange",)

    def __init__(self, exchange: ModelExchange) -> None:
        super().__init__()
        self.exchange: ModelExchange | None = exchange

    def on_expire(self, now: float) -> None:
        exchange = self.exchange
        if exchange is not None:
            exchange.ask_second(now)


class ModelHedge(Attempt):
    """Of one exchange, for as long as that knows of it."""

    __slots__ = ("_incoming", "_status", "_streams", "body", "choice", "dropped", "exchange")

    def __init__(
        self, exchange: ModelExchange, choice: Choice, body: bytes, dropped: list[str], streams: bool, now: float
    ) -> None:
        """`body`: the request in the words of `choice`, without what is `dropped`; streams: it asks for a stream."""
        super().__init__(exchange.down, exchange.head, now)
        self.exchange: ModelExchange | None = exchange
        self.choice: Choice = choice
        self.body = body
        self.dropped: list[str] = dropped
        self._incoming: Incoming | None = None
        self._status: int = 0
        """Of its answer; 0: there is none yet."""
        self._streams: bool = streams
        self.granted_at = now
        self.deadline_at = exchange.deadline_at
        self.priority = exchange.priority
        self.tenant = exchange.tenant
        self.weight = exchange.weight

    def start(self, estimate: Estimate | None, now: float) -> bool:
        """Take tokens and a place, and be sent. Returns: False if there are none at once."""
        if estimate is not None:
            self.claim = Claim(estimate)
            if not self.choice.gate.try_acquire(self, now):
                return False
        upstream = self.choice.upstream
        if upstream.limited and not upstream.bulkhead.try_acquire(self, now):
            self._give_back(now)
            return False
        upstream.submit(self)
        return True

    def begin(self, up: UpstreamConnection, now: float) -> None:
        exchange = self.exchange
        self.up = up
        self.waiting_in = None
        if exchange is None:
            self._leave(now)
            return
        self.attempts += 1
        exchange.attempts += 1
        self.sent_at = now
        exchange.write_to(up, self.choice, self.body, now)
        up.expire_after(now, exchange.first_byte_s(up))

    def answer_data(self, data: bytes) -> None:
        up = self.up
        exchange = self.exchange
        if up is None or exchange is None:
            return
        now = monotonic()
        incoming = self._incoming
        try:
            if incoming is None:
                data = up.buffer + data
                up.buffer = b""
                end = find_response_end(data, 0)
                if end < 0:
                    up.buffer = data
                    return
                incoming = self._heard(exchange, up, parse_response(data[:end]), now)
                data = data[end:]
            out = b"" if incoming is None else incoming.feed(data)
        except (Refused, ValueError):
            self._lose("upstream_protocol_error")
            return
        if incoming is None:
            status = self._status
            self._lose_by(Failed(status, kind_of(status), ""))
        elif incoming.failed is not None:
            self._lose_by(incoming.failed)
        elif incoming.begun:
            exchange.second_won(self, incoming, out, now)
        elif incoming.is_done:
            self._all_came(exchange, incoming, now)

    def _all_came(self, exchange: ModelExchange, incoming: Incoming, now: float) -> None:
        """The last byte of its answer is here, and no word of it was seen before: of a stream only the empty line may
        be missing after its only event."""
        status = incoming.head.status
        is_answer = False
        if status != 200:
            failed = decode_error(self.choice.dialect, status, incoming.body())
            self._refused(failed, now)
            self._lose_by(failed)
            return
        if incoming.is_stream():
            incoming.ended()
            is_answer = incoming.begun and incoming.stopped and incoming.failed is None
        else:
            is_answer = exchange.is_answer(self.choice, incoming)
        if is_answer:
            exchange.second_won(self, incoming, b"", now)
        else:
            self._lose("upstream_truncated")

    def _heard(
        self, exchange: ModelExchange, up: UpstreamConnection, answer: ResponseHead, now: float
    ) -> Incoming | None:
        """The head of its answer is here. Returns: None if it is not what was asked for, and why is known."""
        status = self._status = answer.status
        if status == 429 or status < 400:
            self.choice.gate.heard(hear(answer.raw, time()), status, now, self.claim)
        elif status == 401 or status == 402:  # it is about our key
            self.choice.gate.disable_key(status == 401, now)
        elif status >= 500:
            self.choice.gate.failed("upstream_error", self.sent_at, now)
        if status not in (200, 403, 404):
            return None
        up.reusable = answer.keep_alive
        self._incoming = exchange.incoming(self.choice, answer)
        return self._incoming

    def _refused(self, failed: Failed, now: float) -> None:
        """With 403 or 404: that may be about our key, this model, or the request."""
        said = told(self.choice.without_secrets(failed), failed.message)
        reason = judge(failed).reason
        if reason == "upstream_auth":
            self.choice.gate.disable_key(True, now, said=said)
        elif reason == "upstream_error" and has_no_model(failed):
            self.choice.gate.failed(reason, self.sent_at, now)

    def connect_failed(self, reason: str, pool: Pool) -> None:
        self._lose(reason, pool.resource)

    def upstream_ended(self, clean: bool) -> None:
        up = self.up
        exchange = self.exchange
        incoming = self._incoming
        if not clean or up is None or exchange is None or incoming is None or not incoming.ends_with_connection():
            self._lose("upstream_reset")
            return
        up.reusable = False
        incoming.is_done = True
        self._all_came(exchange, incoming, monotonic())

    def half_close_client(self) -> bool:
        return False

    def no_answer(self) -> None:
        exchange = self.exchange
        now = monotonic()
        tried = self._tried("upstream_timeout", "", "", now)
        self.cancel(now)
        if exchange is not None:
            exchange.second_lost(self, tried)

    def fail(self, reason: str, resource: str, detail: str, retry_after_s: float = -1.0, policy: str = "") -> None:
        self._lose(reason, resource, detail)

    def _lose_by(self, failed: Failed) -> None:
        """By what the provider has said."""
        verdict = judge(self.choice.without_secrets(failed))
        self._lose(verdict.reason or "model_request_invalid", "", verdict.detail)

    def _lose(self, reason: str, resource: str = "", detail: str = "") -> None:
        exchange = self.exchange
        now = monotonic()
        tried = self._tried(reason, resource, detail, now)
        self.exchange = None
        self._leave(now)
        if exchange is not None:
            exchange.second_lost(self, tried)

    def _tried(self, reason: str, resource: str, detail: str, now: float) -> Tried:
        """What has become of it. Args: resource is that of its connection, if it has one."""
        up = self.up
        where = resource if up is None else up.pool.resource
        return Tried(self.choice.name, reason, where, detail, self._status, now - self.granted_at)

    def cancel(self, now: float) -> None:
        """Nobody wants its answer any more, or waits for it."""
        self.exchange = None
        claim = self.claim
        if claim is not None and self.sent_at > 0.0:
            usage = used_until(claim.estimate, self._incoming, self._streams, now - self.sent_at)
            if usage is not None:
                self.claim = None
                claim.settle(usage, self.choice.tariff.of_usage(usage), now)
        self._leave(now)

    def _leave(self, now: float) -> None:
        self.leave_upstream()
        self.release(now, IGNORED)
        self._give_back(now)

    def _give_back(self, now: float) -> None:
        claim = self.claim
        if claim is not None:
            self.claim = None
            claim.give_back(now, self.attempts > 0)
