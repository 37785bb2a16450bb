"""One route's answers of models, or one prompt's, in one worker: what was answered before, and what is being now.

    request --> look --found--> answered from here, at no cost: nothing is reserved, nothing is settled
                  |--> join --a flight--> gets what its leader gets, as it comes; at no cost, either
                         |--> lead ----> to the upstream, and what comes is recorded

Invariants
- Only complete answers are stored, and only if their exchange says that they are good; nothing of a failure.
- Keys tell tenants apart (`cache_key`), so nobody can get or join what is another tenant's, unless `share` says so.
  Whether somebody may use the model at all is asked before.
- Answers and recordings together stay below max_bytes (`Sieve`); an answer leaves when its time is over or it is not
  used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeq.cache.sieve import Kept, Sieve
from edgeq.llm.flight import Flight

if TYPE_CHECKING:
    from edgeq.config.schema_llm import PromptCache as Settings
    from edgeq.llm.flight import Party, Seat

OVERHEAD_BYTES: Final = 600
"""Of an answer beside its bytes: the object, its key, its place in the dictionary."""


class Stored(Kept):
    """An answer that may be given again. `body`: all bytes as they were sent, of a stream, too; `fields`: lines of its
    head that belong to it (each with its CRLF); `target`: whose it is."""

    __slots__ = ("body", "content_type", "fields", "key", "status", "stored_at", "target")

    def __init__(
        self, key: bytes, status: int, content_type: bytes, fields: bytes, body: bytes, now: float, target: str
    ) -> None:
        super().__init__()
        self.target = target
        self.key = key
        self.status: int = status
        self.content_type = content_type
        self.fields = fields
        self.body = body
        self.stored_at: float = now
        self.size_bytes = len(body) + len(fields) + len(content_type) + OVERHEAD_BYTES

    def age_s(self, now: float) -> int:
        """For the Age field: whole seconds."""
        return int(now - self.stored_at)


class PromptCache(Sieve):
    """One cache. Times are monotonic seconds."""

    __slots__ = ("_stored", "flights", "hits", "joined", "joins", "max_object", "misses", "shares", "stored", "ttl_s")

    def __init__(self, settings: Settings) -> None:
        super().__init__(int(settings.max_bytes))
        self._stored: dict[bytes, Stored] = {}
        self.flights: dict[bytes, Flight] = {}
        """Those that may be joined."""
        self.max_object: int = int(settings.max_object)
        self.ttl_s: float = float(settings.ttl)
        self.joins: bool = settings.join
        self.shares: bool = settings.share == "all"
        """A tenant may get what another one was answered."""
        self.hits: int = 0
        self.misses: int = 0
        """Who has led; `joined` are neither hits nor misses."""
        self.joined: int = 0
        self.stored: int = 0

    def configure(self, settings: Settings) -> None:
        """Take over other settings; what is stored stays, as far as there is room."""
        self.max_object = int(settings.max_object)
        self.ttl_s = float(settings.ttl)
        self.joins = settings.join
        self.shares = settings.share == "all"
        self.resize(int(settings.max_bytes))

    def look(self, key: bytes, now: float, most_s: float = -1.0) -> Stored | None:
        """The answer to this request, if there is a fresh one; with `most_s`, one that is not older than that."""
        found = self._stored.get(key)
        if found is None:
            return None
        if now - found.stored_at >= self.ttl_s:
            self._drop(found)
            return None
        if 0.0 <= most_s < now - found.stored_at:
            return None
        found.used = True
        self.hits += 1
        return found

    def join(self, key: bytes, party: Party) -> Seat | None:
        """Follow the flight of the same request; None: there is none that takes others along.

        The party then takes what has come (`Seat.take`), is told of more, and leaves in the end.
        """
        flight = self.flights.get(key) if self.joins else None
        seat = flight.take_along(party) if flight is not None else None
        if seat is not None:
            self.joined += 1
        return seat

    def lead(self, key: bytes, party: Party) -> Flight:
        """Go to the upstream, for oneself and for who comes after; to be ended by finish, lost or leave."""
        self.misses += 1
        flight = Flight(self, key, party)
        self.flights[key] = flight
        return flight

    def keep(self, flight: Flight, body: bytes, now: float) -> bool:
        """Store the answer of a flight in place of an older one. Returns: False if there is no room."""
        answer = Stored(flight.key, flight.status, flight.content_type, flight.fields, body, now, flight.target)
        known = self._stored.get(answer.key)
        if known is not None:
            answer.used = known.used
            self._drop(known)
        self.expire(now)
        if not self._make_room(answer.size_bytes):
            return False
        self._stored[answer.key] = answer
        self._add(answer)
        self.stored += 1
        return True

    def expire(self, now: float) -> None:
        """Drop what may not be given any more: answers are not to lie in memory for longer than was asked for."""
        oldest = self._oldest
        while isinstance(oldest, Stored) and now - oldest.stored_at >= self.ttl_s:
            self._drop(oldest)
            oldest = self._oldest

    def clear(self) -> None:
        """Drop everything that is stored; what is in flight goes on, and is stored."""
        for one in list(self._stored.values()):
            self._drop(one)

    def closed(self, flight: Flight) -> None:
        """Nobody can join it any more."""
        if self.flights.get(flight.key) is flight:
            del self.flights[flight.key]

    def _unlist(self, entry: Kept) -> None:
        if isinstance(entry, Stored):
            del self._stored[entry.key]

    def snapshot(self) -> dict[str, int]:
        """What is held, who is in flight, and how it went."""
        return {
            **super().snapshot(),
            "flights": len(self.flights),
            "hits": self.hits,
            "misses": self.misses,
            "joined": self.joined,
            "stored": self.stored,
        }

    def waiting(self) -> int:
        """Who follows another one's request."""
        return sum([len(flight.followers) for flight in self.flights.values()])
