"""One exchange's part in an answer that several get: it leads, for itself and for others, or it follows.

    sought --stored--> answered from the cache
           --in flight--> it follows: what the leader sends is written here, too, as far as this client takes it
           --neither--> it leads: what it sends is recorded

The flight (`flight.py`) decides who is what; here it is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeq.cache.directives import parse_directives

if TYPE_CHECKING:
    from edgeq.llm.asking import ModelRequest
    from edgeq.llm.degrade import Degraded
    from edgeq.llm.flight import Flight, Seat
    from edgeq.llm.prompt_cache import PromptCache

STREAM = b"text/event-stream"
WHOLE = b"application/json"


class Wish:
    """What a client wants of a prompt cache, by its Cache-Control; empty: all that it can give."""

    __slots__ = ("is_only_stored", "most_s", "takes_known", "takes_part")

    def __init__(self, control: bytes) -> None:
        said = parse_directives(control) if control else None
        self.takes_part: bool = said is None or not said.no_store
        """Its answer may be kept, and be one that was."""
        self.is_only_stored: bool = said is not None and said.only_if_cached
        """No provider is to be asked."""
        self.takes_known: bool = said is None or not (said.no_cache or said.max_age == 0)
        """An answer that is here, or on its way, will do."""
        self.most_s: float = -1.0 if said is None else float(said.max_age)
        """How old it may be at most; below 0: as old as the cache keeps any."""


class Share:
    """Of one exchange, until it has ended. A `Party` of the flight."""

    __slots__ = ("_parts", "exchange", "flight", "seat")

    def __init__(self, exchange: ModelRequest) -> None:
        self.exchange: ModelRequest = exchange
        self.flight: Flight | None = None
        """The one that it leads."""
        self.seat: Seat | None = None
        """In the one that it follows."""
        self._parts: list[bytes] = []
        """Of a whole answer that is followed: its length must be known before it is written."""

    def enter(self, cache: PromptCache, key: bytes, joins: bool = True) -> bool:
        """Follow whoever asks the same just now, if it `joins`, or lead. Returns: whether it follows."""
        self.seat = cache.join(key, self) if joins else None
        if self.seat is None:
            self.flight = cache.lead(key, self)
            return False
        return True

    # -- as leader ----------------------------------------------------------------------------------------------------

    def begin(self, streams: bool, about: bytes, target: str) -> None:
        """A good answer of `target` begins; `about` are field lines of its head."""
        flight = self.flight
        if flight is not None:
            flight.begin(200, STREAM if streams else WHOLE, about, target)

    def add(self, data: bytes, now: float) -> None:
        """Bytes of it, as they are sent."""
        flight = self.flight
        if flight is not None and not flight.add(data, now):
            self.exchange.hold_back()

    def finish(self, good: bool, now: float) -> None:
        """It is complete."""
        flight = self.flight
        if flight is not None:
            self.flight = None
            flight.finish(good, now)

    def refuse(self, reason: str, detail: str, target: str, now: float) -> None:
        """The answer of `target` is complete, and of no use."""
        flight = self.flight
        if flight is not None:
            self.flight = None
            flight.refuse(reason, detail, target, now)

    def is_followed(self) -> bool:
        """Do others get what it sends?"""
        flight = self.flight
        return flight is not None and len(flight.followers) > 0

    def may_lag(self, waiting_bytes: int) -> bool:
        """Do others get what it sends, so that its own client may be so many bytes behind?"""
        flight = self.flight
        return flight is not None and self.is_followed() and waiting_bytes < flight.max_object()

    def go_on_without_client(self, now: float) -> bool:
        """The leader's client has left. Returns: whether others still want the answer."""
        flight = self.flight
        return flight is not None and flight.leave(now)

    def end(self, failed: bool, now: float) -> None:
        """The exchange has ended. `failed`: by the upstream."""
        flight = self.flight
        if flight is not None:
            self.flight = None
            flight.lost(failed, now)
        self._leave(now)

    def _leave(self, now: float) -> None:
        seat = self.seat
        if seat is not None:
            self.seat = None
            seat.leave(now)

    # -- as follower: what the flight says ----------------------------------------------------------------------------

    def more(self, now: float) -> None:
        """There is something to take, or the end has come."""
        seat = self.seat
        if seat is None:
            return
        exchange = self.exchange
        flight = seat.flight
        is_whole = flight.content_type == WHOLE
        degraded = _degraded(flight)
        if degraded is not None and not exchange.bill.may_use(degraded.model, degraded.model):
            self._leave(now)
            exchange.go_alone(now)
            return
        while is_whole or not exchange.down.write_blocked:
            data = seat.take()
            if not data:
                break
            exchange.is_given(flight.fields, flight.target, degraded)
            if is_whole:
                self._parts.append(data)
                continue
            exchange.pass_on(data, now)
            if self.seat is not seat:
                return
        if not seat.has_ended():
            return
        self._leave(now)
        if is_whole:
            exchange.answer_shared(b"".join(self._parts), now)
        else:
            exchange.end_shared(now)

    def lead(self, now: float) -> None:
        """Who led has failed, and this is to ask in its place."""
        seat = self.seat
        if seat is not None:
            self.seat = None
            self.flight = seat.flight
            self.exchange.go_alone(now)

    def alone(self, now: float) -> None:
        """There is nobody to follow any more."""
        self.seat = None
        self.exchange.go_alone(now)

    def refused(self, reason: str, detail: str, now: float) -> None:
        """What was answered is no answer, and this is its client's, too."""
        seat = self.seat
        if seat is None:
            return
        self.seat = None
        exchange = self.exchange
        degraded = _degraded(seat.flight)
        if degraded is not None and not exchange.bill.may_use(degraded.model, degraded.model):
            exchange.go_alone(now)
            return
        exchange.is_given(b"", seat.flight.target, degraded)
        exchange.fail(reason, exchange.own_resource(), detail)

    def broken(self, reason: str, now: float) -> None:
        """A part has come, and there will be no more."""
        self.seat = None
        exchange = self.exchange
        exchange.fail("upstream_truncated", exchange.own_resource(), f"the answer was another's, too: {reason}")

    def unwanted(self, now: float) -> None:
        """Its client has left, and all who followed have, too."""
        self.flight = None
        self.exchange.drop_unwanted()

    def resume(self) -> None:
        """Those who follow have caught up."""
        self.exchange.resume_answer()


def _degraded(flight: Flight) -> Degraded | None:
    """The smaller model that answers who leads it; None: it is the one that was asked for."""
    leader = flight.leader
    return leader.exchange.degraded if isinstance(leader, Share) else None
