"""Who goes when a bounded memory has no room: SIEVE (Zhang et al., NSDI 2024).

A hand moves from the oldest entry to newer ones; who was used since it last came by stays, the others go. New entries
come in at the other end and have to be used once to stay, so a scan passes through without pushing out what is in use,
and a hit moves nothing.

    newest <-> ... <-> ... <-> oldest
                  hand -->  moves to newer ones, then starts again at the oldest

Invariants
- size_bytes is the sum of the entries' sizes plus what is being collected, and never above max_bytes.
- An entry is in the list of all entries exactly as long as its store can find it.
"""

from __future__ import annotations

from typing import Final

COLLECTING_SHARE: Final = 4
"""What is being collected may take a fourth of the room: slow clients and large answers must not empty the store."""


class Kept:
    """What a store may keep. `used`: since the hand last came by. Neighbours in order of arrival are the store's."""

    __slots__ = ("newer", "older", "size_bytes", "used")

    def __init__(self) -> None:
        self.size_bytes: int = 0
        self.used: bool = False
        self.older: Kept | None = None
        self.newer: Kept | None = None


class Sieve:
    """Base of stores: their room, and who goes. How entries are found is theirs: `_unlist` is told who is not any
    more."""

    __slots__ = ("_collecting", "_hand", "_newest", "_oldest", "entries", "evicted", "max_bytes", "size_bytes")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes: int = max_bytes
        self.size_bytes: int = 0
        self.entries: int = 0
        self.evicted: int = 0
        self._collecting: int = 0
        self._newest: Kept | None = None
        self._oldest: Kept | None = None
        self._hand: Kept | None = None

    def _unlist(self, entry: Kept) -> None:
        """It is not to be found any more."""
        raise NotImplementedError

    def resize(self, max_bytes: int) -> None:
        """Another bound; who is too much goes at once."""
        self.max_bytes = max_bytes
        while self.size_bytes > max_bytes and self.entries:
            self._evict()

    def collect(self, size_bytes: int) -> bool:
        """Take room for bytes of an answer that is not complete yet. Returns: False if there is none."""
        if self._collecting + size_bytes > self.max_bytes // COLLECTING_SHARE or not self._make_room(size_bytes):
            return False
        self._collecting += size_bytes
        self.size_bytes += size_bytes
        return True

    def collected(self, size_bytes: int) -> None:
        """Give that room back: the answer is complete, or of no use."""
        self._collecting -= size_bytes
        self.size_bytes -= size_bytes

    def _make_room(self, size_bytes: int) -> bool:
        """Let entries go until so many bytes fit. Returns: do they?"""
        if size_bytes + self._collecting > self.max_bytes:
            return False
        while self.size_bytes + size_bytes > self.max_bytes:
            self._evict()
        return True

    def _evict(self) -> None:
        """Let one entry go; there must be one."""
        entry = self._hand or self._oldest
        if entry is None:
            return
        while entry.used:
            entry.used = False
            entry = entry.newer or self._oldest or entry
        self._hand = entry.newer
        self._drop(entry)
        self.evicted += 1

    def _add(self, entry: Kept) -> None:
        """Take in an entry for which there is room."""
        self.entries += 1
        self.size_bytes += entry.size_bytes
        entry.older = self._newest
        if self._newest is not None:
            self._newest.newer = entry
        self._newest = entry
        if self._oldest is None:
            self._oldest = entry

    def _drop(self, entry: Kept) -> None:
        if self._hand is entry:
            self._hand = entry.newer
        older = entry.older
        newer = entry.newer
        if older is not None:
            older.newer = newer
        else:
            self._oldest = newer
        if newer is not None:
            newer.older = older
        else:
            self._newest = older
        entry.older = None
        entry.newer = None
        self._unlist(entry)
        self.entries -= 1
        self.size_bytes -= entry.size_bytes

    def snapshot(self) -> dict[str, int]:
        """What is held."""
        return {
            "bytes": self.size_bytes,
            "max_bytes": self.max_bytes,
            "collecting_bytes": self._collecting,
            "entries": self.entries,
            "evicted": self.evicted,
        }
