"""The heartbeat of a stream that has nothing to say: a comment now and then, so that nobody takes it for dead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeq.worker.wheel import Timed

if TYPE_CHECKING:
    from edgeq.llm.asking import ModelRequest

COMMENT = b": waiting\n\n"
"""Legal in every dialect: both official SDKs skip lines that begin with a colon."""


class Pulse(Timed):
    """Of one exchange, on the worker's coarse wheel."""

    __slots__ = ("exchange",)

    def __init__(self, exchange: ModelRequest) -> None:
        super().__init__()
        self.exchange: ModelRequest | None = exchange

    def on_expire(self, now: float) -> None:
        exchange = self.exchange
        if exchange is not None:
            exchange.beat(now)
