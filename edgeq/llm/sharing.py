"""One exchange's part in an answer that several get: it leads, for itself and for others, or it follows.

    sought --stored--> answered from the cache
           --in flight--> it follows: what the leader sends is written here, too, as far as this client takes it
           --neither--> it leads: what it sends is recorded

The flight (`flight.py`) decides who is what; here it is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeq.llm.flight import Flight, Party

if TYPE_CHECKING:
    from edgeq.llm.exchange import ModelExchange
    from edgeq.llm.prompt_cache import PromptCache

STREAM = b"text/event-stream"
WHOLE = b"application/json"


class Share(Party):
    """Of one exchange, until it has ended."""

    __slots__ = ("_parts", "exchange", "flight", "leads")

    def __init__(self, exchange: ModelExchange) -> None:
        super().__init__()
        self.exchange: ModelExchange = exchange
        self.flight: Flight | None = None
        self.leads: bool = False
        self._parts: list[bytes] = []
        """Of a whole answer that is followed: its length must be known before it is written."""

    def enter(self, cache: PromptCache, key: bytes) -> bool:
        """Follow whoever asks the same just now, or lead. Returns: whether it follows."""
        flight = cache.join(key, self)
        if flight is None:
            self.flight = cache.lead(key, self)
            self.leads = True
            return False
        self.flight = flight
        return True

    # -- as leader ----------------------------------------------------------------------------------------------------

    def begin(self, streams: bool) -> None:
        """A good answer begins."""
        flight = self.flight
        if flight is not None and self.leads:
            flight.begin(200, STREAM if streams else WHOLE)

    def add(self, data: bytes, now: float) -> None:
        """Bytes of it, as they are sent."""
        flight = self.flight
        if flight is not None and self.leads and not flight.add(data, now):
            self.exchange.hold_back()

    def finish(self, good: bool, now: float) -> None:
        """It is complete."""
        flight = self.flight
        if flight is not None and self.leads:
            self.flight = None
            flight.finish(good, now)

    def go_on_without_client(self, now: float) -> bool:
        """The leader's client has left. Returns: whether others still want the answer."""
        flight = self.flight
        return flight is not None and self.leads and flight.leave(self, now)

    def end(self, failed: bool, now: float) -> None:
        """The exchange has ended. `failed`: by the upstream."""
        flight = self.flight
        if flight is None:
            return
        self.flight = None
        if self.leads:
            flight.lost(failed, now)
        else:
            flight.leave(self, now)

    # -- as follower: what the flight says ----------------------------------------------------------------------------

    def more(self, now: float) -> None:
        flight = self.flight
        if flight is None:
            return
        exchange = self.exchange
        if flight.content_type == WHOLE:
            self._collect(flight, now)
            return
        while not exchange.down.write_blocked:
            data = flight.take(self)
            if not data:
                break
            exchange.pass_on(data, now)
            if self.flight is not flight:
                return
        if flight.has_ended(self):
            self.flight = None
            flight.leave(self, now)
            exchange.end_shared(now)

    def _collect(self, flight: Flight, now: float) -> None:
        while data := flight.take(self):
            self._parts.append(data)
        if flight.has_ended(self):
            self.flight = None
            flight.leave(self, now)
            self.exchange.answer_shared(b"".join(self._parts), now)

    def lead(self, now: float) -> None:
        self.leads = True
        self.exchange.go_alone(now)

    def alone(self, now: float) -> None:
        self.flight = None
        self.exchange.go_alone(now)

    def broken(self, reason: str, now: float) -> None:
        self.flight = None
        self.exchange.fail("upstream_truncated", self.exchange.own_resource(), f"who asked the same first: {reason}")

    def unwanted(self, now: float) -> None:
        self.flight = None
        self.exchange.drop_unwanted()

    def resume(self) -> None:
        self.exchange.resume_answer()
