"""One answer on its way, recorded as it comes, and everybody who gets it: its leader, who has asked the upstream, and
followers, who have asked for the same meanwhile.

    leader sends bytes to its client       -> they are recorded, and followers told that there is more
    a follower comes late                  -> takes what was recorded, then follows live
    leader's client leaves, with followers -> the leader's exchange goes on without a client, paced by the fastest
                                              follower, until the last of them has left
    leader fails before the first byte     -> the follower who waits longest leads; once. If that one fails too, each
                                              goes on its own: nobody waits for more than two requests of others
    its answer is complete, and of no use  -> all are told so: it is their answer, too, and paid once
    leader fails later                     -> it is broken for all who have got something; the others go on their own
    complete                               -> followers take the rest, at their own pace

Nobody waits for a slow follower: each has a position of its own in what was recorded. Beyond max_object, or where the
cache has no room to record, the answer is not stored, takes nobody along any more, and what all followers have taken is
forgotten. Then a follower may be behind by LAG_BYTES whatever happens (as much as a connection's buffers hold anyway),
and by max_object while the cache has room; who is further behind is broken as "slow". Late followers are taken along
only up to half of max_object, so that they have the other half to catch up.

Invariants
- What is kept counts in the cache's room, but for LAG_BYTES of each flight.
- A flight ends once: finish, refuse, lost, or with the last of its parties. Then it cannot be joined.
- A party is told nothing after it has left, nor after `alone`, `refused` or `broken`. It may leave from within what it
  is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from edgeq.cache.flight import MAX_JOINED

if TYPE_CHECKING:
    from edgeq.llm.prompt_cache import PromptCache

LAG_BYTES: Final = 64 * 1024
_TAKE_BYTES: Final = 64 * 1024


class Party(Protocol):
    """Who gets the answer, as a flight sees it: an exchange, or what stands for it."""

    def more(self, now: float) -> None:
        """As follower: there is something to take, or the end has come (`Seat.has_ended`)."""

    def lead(self, now: float) -> None:
        """As follower who has got nothing yet: it leads the flight from now on, and goes to the upstream."""

    def alone(self, now: float) -> None:
        """As follower who has got nothing: it is in no flight any more, and goes on its own."""

    def refused(self, reason: str, detail: str, now: float) -> None:
        """As follower who has got nothing: the answer is of no use, by a reason of `edgeq.reasons`."""

    def broken(self, reason: str, now: float) -> None:
        """As follower who has got a part: there will be no more. Reason: "lost" or "slow"."""

    def unwanted(self, now: float) -> None:
        """As leader who has left: nobody wants the upstream's answer any more. Also from within `Flight.add`."""

    def resume(self) -> None:
        """As leader: read on, although the own client is slow, because somebody follows now; or after it has left, when
        those who follow have caught up (`Flight.add` has returned False)."""


class Seat:
    """A follower's place in a flight: how far it has got."""

    __slots__ = ("flight", "index", "party", "taken_bytes")

    def __init__(self, flight: Flight, party: Party) -> None:
        self.flight: Flight = flight
        self.party: Party = party
        self.index: int = 0
        """Of the next piece to take."""
        self.taken_bytes: int = 0

    def take(self) -> bytes:
        """What comes next, about 64 KiB at most; empty: nothing yet, or the end."""
        return self.flight.take(self)

    def has_ended(self) -> bool:
        """Has it got all of a complete answer?"""
        flight = self.flight
        return flight.ended and self.taken_bytes >= flight.total_bytes

    def leave(self, now: float) -> None:
        """Its client has gone, or has got everything. More than once does no harm."""
        self.flight.part(self, now)


class Flight:
    """See above. `fields`: lines of the answer's head that belong to it."""

    __slots__ = (
        "_cache",
        "_first",
        "_kept_bytes",
        "_paused",
        "_pieces",
        "_room_bytes",
        "_whole",
        "begun",
        "content_type",
        "ended",
        "fields",
        "followers",
        "is_led",
        "key",
        "leader",
        "recorded",
        "status",
        "taken_over",
        "target",
        "total_bytes",
    )

    def __init__(self, cache: PromptCache, key: bytes, leader: Party) -> None:
        self._cache: PromptCache = cache
        self.key = key
        self.leader: Party = leader
        self.is_led: bool = True
        """The leader's client is still there."""
        self.followers: dict[Seat, None] = {}
        """In order of arrival."""
        self.taken_over: bool = False
        """A leader has failed, and another one has taken its place."""
        self.begun: bool = False
        self.status: int = 0
        self.content_type = b""
        self.fields = b""
        self.target = ""
        """Who answers."""
        self.total_bytes: int = 0
        self.recorded: bool = True
        """All of it, so far."""
        self.ended: bool = False
        self._pieces: list[bytes] = []
        self._first: int = 0
        """Number of the first piece that is kept."""
        self._kept_bytes: int = 0
        self._room_bytes: int = 0
        """Of the cache's."""
        self._paused: bool = False
        self._whole = b""
        """Once it has ended and was recorded."""

    # -- followers ----------------------------------------------------------------------------------------------------

    def take_along(self, party: Party) -> Seat | None:
        """A follower more. Returns: None if it comes too late, or there are too many."""
        if self.ended or not self.recorded or self.total_bytes > self._cache.max_object // 2:
            return None
        if len(self.followers) >= MAX_JOINED:
            return None
        seat = Seat(self, party)
        self.followers[seat] = None
        if self.is_led and len(self.followers) == 1:
            self.leader.resume()
        return seat

    def take(self, seat: Seat) -> bytes:
        """See `Seat.take`."""
        if self._whole:
            at = seat.taken_bytes
            data = self._whole[at : at + _TAKE_BYTES]
        else:
            pieces = self._pieces
            at = seat.index - self._first
            if at >= len(pieces):
                return b""
            end = at
            size = 0
            while end < len(pieces) and (end == at or size + len(pieces[end]) <= _TAKE_BYTES):
                size += len(pieces[end])
                end += 1
            data = pieces[at] if end == at + 1 else b"".join(pieces[at:end])
            seat.index += end - at
        seat.taken_bytes += len(data)
        if self._paused and self.total_bytes - seat.taken_bytes <= LAG_BYTES // 2:
            self._paused = False
            self.leader.resume()
        return data

    def part(self, seat: Seat, now: float) -> None:
        """See `Seat.leave`."""
        self._remove(seat)
        if not self.is_led and not self.followers and not self.ended:
            self._end()
            self.leader.unwanted(now)

    # -- the leader ---------------------------------------------------------------------------------------------------

    def max_object(self) -> int:
        """How much of an answer the cache keeps."""
        return self._cache.max_object

    def begin(self, status: int, content_type: bytes, fields: bytes = b"", target: str = "") -> None:
        """The head of a good answer is being sent."""
        self.begun = True
        self.status = status
        self.content_type = content_type
        self.fields = fields
        self.target = target

    def add(self, data: bytes, now: float) -> bool:
        """Bytes of the body, without framing, as they are sent. Returns: False: the leader has left, and all followers
        are behind; wait for `resume`."""
        if self.ended or not data:
            return True
        self.total_bytes += len(data)
        if self.recorded or self.followers:
            self._pieces.append(data)
            self._kept_bytes += len(data)
            if self.followers and self._tell(now):
                return True
        if self.recorded and (self.total_bytes > self._cache.max_object or not self._have_room()):
            self.recorded = False
            self._cache.closed(self)
        if not self.recorded:
            self._forget(now)
        if not self.is_led and self.followers:
            self._paused = min([self.total_bytes - seat.taken_bytes for seat in self.followers]) > LAG_BYTES
        return not self._paused

    def finish(self, good: bool, now: float) -> None:
        """The answer is complete. Not good: it is not to be stored (an error of the provider, a cut stream)."""
        if self.ended:
            return
        if self.recorded:
            self._whole = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            if good and self.begun:
                self._give_room_back()
                self._cache.keep(self, self._whole, now)
        self._end()
        self._tell(now)

    def refuse(self, reason: str, detail: str, target: str, now: float) -> None:
        """The whole answer of `target` is here, and of no use to anybody who has asked for it: nothing was sent."""
        if self.ended:
            return
        self.target = target
        self._end()
        for seat in list(self.followers):
            if seat in self.followers:
                self._remove(seat)
                seat.party.refused(reason, detail, now)

    def lost(self, failed: bool, now: float) -> None:
        """There will be no answer, or no more of it: the upstream has failed, or the leader has left before it has
        asked."""
        if self.ended:
            return
        if not self.begun and self.followers and not (failed and self.taken_over):
            self.taken_over = self.taken_over or failed
            heir = next(iter(self.followers))
            del self.followers[heir]
            self.leader = heir.party
            self.is_led = True
            heir.party.lead(now)
            return
        self._end()
        for seat in list(self.followers):
            if seat in self.followers:
                self._break(seat, "lost", now)

    def leave(self, now: float) -> bool:
        """The leader's client has gone.

        Returns: whether its upstream's answer is still wanted: then it goes on with add, finish or lost, until
        `Party.unwanted`.
        """
        if self.ended or not self.is_led:
            return False
        if not self.followers:
            self._end()
            return False
        self.is_led = False
        return True

    def _tell(self, now: float) -> bool:
        """There is something to take, or the end has come. Returns: has the flight ended?"""
        for seat in list(self.followers):
            if seat in self.followers:
                seat.party.more(now)
        return self.ended

    # -- what is kept -------------------------------------------------------------------------------------------------

    def _have_room(self) -> bool:
        """Make what we have of the cache's room equal to what we keep. Returns: False if there is none."""
        wanted = self._kept_bytes - self._room_bytes
        if wanted > 0 and not self._cache.collect(wanted):
            return False
        if wanted < 0:
            self._cache.collected(-wanted)
        self._room_bytes = self._kept_bytes
        return True

    def _give_room_back(self) -> None:
        self._cache.collected(self._room_bytes)
        self._room_bytes = 0

    def _forget(self, now: float) -> None:
        """Not recorded: keep what followers have not taken, and break those who are too far behind."""
        while True:
            slowest: Seat | None = None
            for seat in self.followers:
                if slowest is None or seat.index < slowest.index:
                    slowest = seat
            taken = len(self._pieces) if slowest is None else slowest.index - self._first
            for piece in self._pieces[:taken]:
                self._kept_bytes -= len(piece)
            del self._pieces[:taken]
            self._first += taken
            has_room = self._have_room()
            if slowest is None or (has_room and self._kept_bytes <= self._cache.max_object):
                return
            if self._kept_bytes <= LAG_BYTES or (not self.is_led and len(self.followers) == 1):
                return
            self._break(slowest, "slow", now)

    def _break(self, seat: Seat, reason: str, now: float) -> None:
        self._remove(seat)
        if seat.taken_bytes:
            seat.party.broken(reason, now)
        else:
            seat.party.alone(now)

    def _remove(self, seat: Seat) -> None:
        """A follower less; who was the last one of an answer that has ended takes it along."""
        self.followers.pop(seat, None)
        if self.ended and not self.followers:
            self._let_go()

    def _end(self) -> None:
        """Nothing more comes."""
        self.ended = True
        self._cache.closed(self)
        if self._whole:
            self._pieces = []
        if not self.followers:
            self._let_go()

    def _let_go(self) -> None:
        self._pieces = []
        self._whole = b""
        self._kept_bytes = 0
        self._give_room_back()

    def snapshot(self) -> dict[str, int]:
        """Who is in it, and what is kept."""
        return {"followers": len(self.followers), "bytes": self.total_bytes, "kept_bytes": self._kept_bytes}
