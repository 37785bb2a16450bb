"""Which endpoint gets the next request.

A `Balancer` chooses among the members in use (`members`, never empty when asked). Members that are saturated (a request
would have to wait there for another one to end) are skipped while others have room, and are never taken for dead.

    p2c-ewma         of two random members, the one with the lower load: cost x (pending + 1) / weight
    least-requests   the fewest pending requests for its weight; who fails seems to have more
    round-robin      in turn, by weight (smoothly, as nginx does: a a b a, not a a a b)
    consistent-hash  the same key to the same member, while that has at most 125 % of the average load

Sources: Mitzenmacher, The Power of Two Choices (2001); Thaler and Ravishankar, Using Name-Based Mappings (rendezvous
hashing, 1998), weighted by Schindelhauer and Schomaker (2005); Mirrokni, Thorup, Zadimoghaddam, Consistent Hashing with
Bounded Loads (2016); nginx ngx_http_upstream_round_robin.c.
"""

from __future__ import annotations

import hashlib
from math import log
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edgeq.upstream.member import Member
    from edgeq.upstream.pool import Pool

BOUND: Final = 1.25
SLACK: Final = 4.0
"""Requests that a preferred member may have beyond its bound: engines of models run several at hardly any cost."""
_MASK: Final = 0x3FFFFFFF
_RANGE: Final = 1073741824.0
_DRAWS: Final = 256
"""Length of the table of a draw by weight, about."""


class Balancer:
    """The p2c-ewma balancer, and what is common to all."""

    __slots__ = ("_draw", "_random", "members")

    def __init__(self, seed: int = 1) -> None:
        self.members: list[Member] = []
        self._draw: list[Member] = []
        """The members, each as often as its share demands; drawn from with equal chances."""
        self._random: int = (seed & 0x7FFFFFFF) | 1

    def rebuild(self, members: list[Member]) -> None:
        """From now on choose among these; also called when shares have changed."""
        self.members = members
        self._draw = by_share(members)

    def choose(self, key: bytes, now: float) -> Member:
        """The member for the next request. `key` matters to consistent-hash only; empty: no key."""
        draw = self._draw
        count = len(draw)
        if count == 1:
            return draw[0]
        first = draw[self._below(count)]
        second = first
        for _ in range(4):  # equal shares: at most rarely in vain
            second = draw[self._below(count)]
            if second is not first:
                break
        if second is first:
            if len(self.members) == 1:
                return first
            second = self._next_to(first)
        better = second if second.load(now) < first.load(now) else first
        if better.has_room():
            return better
        other = first if better is second else second
        return other if other.has_room() else self._least_loaded(better, now)

    def choose_other(self, tried: list[Pool], key: bytes, now: float) -> Member | None:
        """The best member whose pool is not one of `tried`; None: there is none."""
        best: Member | None = None
        for member in self.members:
            if member.pool not in tried and (best is None or self._before(member, best, now)):
                best = member
        return best

    def prefer(self, name: str, now: float) -> Member | None:
        """The member of that name, if it is in use and has not much more to do than the others: to whom something
        speaks for it a few requests more are worth it, no queue is. None: choose."""
        members = self.members
        found: Member | None = None
        total = 0.0
        for member in members:
            total += member.crowd(now)
            if member.name == name:
                found = member
        if found is None or not found.has_room() or found.crowd(now) > BOUND * total / len(members) + SLACK:
            return None
        return found

    def _before(self, member: Member, other: Member, now: float) -> bool:
        """Is `member` the better one? Room first."""
        room = member.has_room()
        if room != other.has_room():
            return room
        return member.load(now) < other.load(now)

    def _least_loaded(self, best: Member, now: float) -> Member:
        """Of all with room; `best` if none has."""
        found = False
        least = 0.0
        for member in self.members:
            if member.has_room():
                load = member.load(now)
                if not found or load < least:
                    found = True
                    least = load
                    best = member
        return best

    def _next_to(self, member: Member) -> Member:
        index = self.members.index(member) + 1
        return self.members[index if index < len(self.members) else 0]

    def _below(self, count: int) -> int:
        """A number from 0 to count - 1. A congruential generator (Marsaglia's 69069, modulo 2^30: compiled, products of
        larger factors are Python objects): its upper bits are good enough to draw, and cost a twentieth of a call into
        `random`."""
        self._random = (self._random * 69069 + 1) & 0x3FFFFFFF
        return (self._random >> 10) % count


class LeastRequests(Balancer):
    """The fewest pending requests for its weight; among equals, in turn."""

    __slots__ = ("_next",)

    def __init__(self, seed: int = 1) -> None:
        super().__init__(seed)
        self._next: int = 0

    def choose(self, key: bytes, now: float) -> Member:
        members = self.members
        count = len(members)
        start = self._next
        if start >= count:
            start = 0
        best = members[start]
        best_at = start
        room = best.has_room()
        least = best.crowd(now)
        for offset in range(1, count):
            index = start + offset
            if index >= count:
                index -= count
            member = members[index]
            load = member.crowd(now)
            if load < least and (member.has_room() or not room):
                best, best_at, least, room = member, index, load, member.has_room()
            elif not room and member.has_room():
                best, best_at, least, room = member, index, load, True
        self._next = best_at + 1
        return best


class RoundRobin(Balancer):
    """In turn; by weight, if they have different ones."""

    __slots__ = ("_equal", "_next")

    def __init__(self, seed: int = 1) -> None:
        super().__init__(seed)
        self._next: int = 0
        self._equal: bool = True

    def rebuild(self, members: list[Member]) -> None:
        self.members = members
        self._equal = all(member.share == members[0].share for member in members)

    def choose(self, key: bytes, now: float) -> Member:
        if not self._equal:
            return self._by_weight()
        members = self.members
        count = len(members)
        index = self._next
        for _ in range(count):
            if index >= count:
                index = 0
            member = members[index]
            index += 1
            if member.has_room():
                self._next = index
                return member
        if index >= count:  # all are full
            index = 0
        self._next = index + 1
        return members[index]

    def _by_weight(self) -> Member:
        total = 0.0
        best: Member | None = None
        for member in self.members:
            member.credit += member.share
            total += member.share
            if (best is None or member.credit > best.credit) and member.has_room():
                best = member
        if best is None:  # all are full
            best = max(self.members, key=_credit)
        best.credit -= total
        return best

    def choose_other(self, tried: list[Pool], key: bytes, now: float) -> Member | None:
        """The one whose turn is next: so the others share what was meant for one that cannot be reached."""
        members = self.members
        count = len(members)
        for offset in range(count):
            index = (self._next + offset) % count
            if members[index].pool not in tried:
                self._next = index + 1
                return members[index]
        return None


class ConsistentHash(Balancer):
    """The same key to the same member, unless that has more than its part of the load.

    Weighted rendezvous hashing: each member has a score for each key, the highest one of those with room gets it. A
    member that leaves moves only its own keys, to all others alike, and gets them back when it returns; and there is no
    ring to build when one does. The price is a score for each member and request, 0.1 us compiled. By weight, not by
    share: a slow start must not move the keys twice, and the bound limits its load all the same.

    Requests without a key go by p2c-ewma.
    """

    __slots__ = ("_seeds",)

    def __init__(self, seed: int = 1) -> None:
        super().__init__(seed)
        self._seeds: list[int] = []

    def rebuild(self, members: list[Member]) -> None:
        super().rebuild(members)
        self._seeds = [hash_of(member.name.encode()) for member in members]

    def choose(self, key: bytes, now: float) -> Member:
        member = self._highest(key, None) if key else None
        return member if member is not None else super().choose(key, now)

    def choose_other(self, tried: list[Pool], key: bytes, now: float) -> Member | None:
        member = self._highest(key, tried) if key else None
        return member if member is not None else super().choose_other(tried, key, now)

    def _highest(self, key: bytes, tried: list[Pool] | None) -> Member | None:
        """Of the members below their bounds, and with room, the one with the highest score; None: there are none."""
        total = 1
        shares = 0.0
        for member in self.members:
            total += member.pending()
            shares += member.share
        bound = BOUND * total / shares
        seeds = self._seeds
        hashed = hash_of(key)
        best: Member | None = None
        highest = 0.0
        for index, member in enumerate(self.members):
            score = member.weight / -log((mixed(hashed ^ seeds[index]) + 0.5) / _RANGE)
            if (
                score > highest
                and member.pending() < bound * member.share
                and member.has_room()
                and (tried is None or member.pool not in tried)
            ):
                best = member
                highest = score
        return best


def hash_of(data: bytes) -> int:
    """30 bits, the same in every process and after every start, so that the keys' caches stay useful."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=4).digest(), "big") & _MASK


def mixed(bits: int) -> int:
    """30 bits of which each depends on each of `bits` (30): two rounds of a multiplying hash, within small integers."""
    bits ^= bits >> 15
    bits = (bits * 0x2545F491) & _MASK
    bits ^= bits >> 13
    bits = (bits * 0x1B873593) & _MASK
    return bits ^ (bits >> 16)


def by_share(members: list[Member]) -> list[Member]:
    """Each member about as often as its share demands, at least once; once each if they are equal."""
    if not members:
        return []
    first = members[0].share
    total = 0.0
    equal = True
    for member in members:
        total += member.share
        if member.share != first:
            equal = False
    if equal:
        return list(members)
    unit = total / max(_DRAWS, 4 * len(members))
    drawn: list[Member] = []
    for member in members:
        drawn.extend([member] * max(1, round(member.share / unit)))
    return drawn


def _credit(member: Member) -> float:
    return member.credit


def make_balancer(name: str, seed: int) -> Balancer:
    """By the name that the configuration uses. A sticky upstream chooses by p2c-ewma for who has no cookie yet."""
    if name == "least-requests":
        return LeastRequests(seed)
    if name == "round-robin":
        return RoundRobin(seed)
    if name == "consistent-hash":
        return ConsistentHash(seed)
    return Balancer(seed)
