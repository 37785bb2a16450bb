"""A second target asked beside the first, because the first event of a model's answer is late.

    sent --time is up--> a place at another target, if one is free at once --its answer has begun--> it is the one
                                                                          --anything else--> as if it had never been

Begun means: status 200 and something of its body. Of a stream that is not yet a word of the model, but more than the
head that servers of streams send at once.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from edgeq.admission.ticket import IGNORED
from edgeq.upstream.attempt import Attempt
from edgeq.wire.errors import Refused
from edgeq.wire.h1_response import find_response_end, parse_response
from edgeq.worker.wheel import Timed

if TYPE_CHECKING:
    from edgeq.llm.exchange import ModelExchange
    from edgeq.llm.plan import Choice
    from edgeq.upstream.connection import UpstreamConnection
    from edgeq.upstream.pool import Pool


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

    __slots__ = ("body", "choice", "exchange")

    def __init__(self, exchange: ModelExchange, choice: Choice, body: bytes, now: float) -> None:
        """`body`: the request in the words of `choice`."""
        super().__init__(exchange.down, exchange.head, now)
        self.exchange: ModelExchange | None = exchange
        self.choice: Choice = choice
        self.body = body
        self.granted_at = now
        self.deadline_at = exchange.deadline_at
        self.priority = exchange.priority
        self.tenant = exchange.tenant
        self.weight = exchange.weight

    def start(self, now: float) -> bool:
        """Take a place and be sent. Returns: False if there is no place."""
        upstream = self.choice.upstream
        if upstream.limited and not upstream.bulkhead.try_acquire(self, now):
            return False
        upstream.submit(self)
        return True

    def begin(self, up: UpstreamConnection, now: float) -> None:
        exchange = self.exchange
        self.up = up
        self.waiting_in = None
        self.sent_at = now
        if exchange is None:
            self._leave(now)
            return
        exchange.write_to(up, self.choice, self.body, now)
        up.expire_after(now, exchange.first_byte_s(up))

    def answer_data(self, data: bytes) -> None:
        up = self.up
        exchange = self.exchange
        if up is None or exchange is None:
            return
        data = up.buffer + data
        try:
            end = find_response_end(data, 0)
            status = 0 if end < 0 else parse_response(data[:end]).status
        except Refused:
            self._lose()
            return
        if end < 0 or (status == 200 and len(data) == end):
            up.buffer = data
        elif status == 200:
            up.buffer = b""
            exchange.second_won(self, data)
        else:
            self._lose()

    def connect_failed(self, reason: str, pool: Pool) -> None:
        self._lose()

    def upstream_ended(self, clean: bool) -> None:
        self._lose()

    def half_close_client(self) -> bool:
        return False

    def no_answer(self) -> None:
        self._lose()

    def fail(self, reason: str, resource: str, detail: str, retry_after_s: float = -1.0, policy: str = "") -> None:
        self._lose()

    def _lose(self) -> None:
        exchange = self.exchange
        self.cancel(monotonic())
        if exchange is not None:
            exchange.second_lost(self)

    def cancel(self, now: float) -> None:
        """Nobody wants its answer any more."""
        self.exchange = None
        self._leave(now)

    def _leave(self, now: float) -> None:
        self.leave_upstream()
        self.release(now, IGNORED)
