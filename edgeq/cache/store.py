"""A bounded memory of answers: by key, and by what the request said in the fields by which answers vary.

Invariants
- size_bytes is the sum of the entries' sizes plus what is being collected, and never above max_bytes.
- An entry is in the dictionary of its resource and in the list of all entries, or in neither.
- A resource has an entry at least and MAX_VARIANTS at most; all of them vary by the same fields.

Who goes when there is no room: SIEVE (Zhang et al., NSDI 2024). A hand moves from the oldest entry to newer ones; who
was used since it last came by stays, the others go. New entries come in at the other end and have to be used once to
stay, so a scan passes through without pushing out what is in use, and a hit moves nothing.

    newest <-> ... <-> ... <-> oldest
                  hand -->  moves to newer ones, then starts again at the oldest
"""

from __future__ import annotations

from typing import Final

from edgeq.cache.entry import Entry
from edgeq.cache.wish import Wish

MAX_VARIANTS: Final = 16
"""Of one resource: an answer that varies by User-Agent must not fill the store with its copies."""
COLLECTING_SHARE: Final = 4
"""What is being collected may take a fourth of the room: slow clients and large answers must not empty the store."""


class Resource:
    """The answers that are stored under one key."""

    __slots__ = ("variants", "vary")

    def __init__(self, vary: list[bytes]) -> None:
        self.vary: list[bytes] = vary
        self.variants: dict[bytes, Entry] = {}
        """In order of arrival."""


class Store:
    """All answers of one route, in one worker."""

    __slots__ = (
        "_collecting",
        "_hand",
        "_newest",
        "_oldest",
        "_resources",
        "entries",
        "evicted",
        "max_bytes",
        "size_bytes",
    )

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes: int = max_bytes
        self.size_bytes: int = 0
        self.entries: int = 0
        self.evicted: int = 0
        self._collecting: int = 0
        self._resources: dict[bytes, Resource] = {}
        self._newest: Entry | None = None
        self._oldest: Entry | None = None
        self._hand: Entry | None = None

    def resource(self, key: bytes) -> Resource | None:
        """What is stored under a key."""
        return self._resources.get(key)

    def find(self, key: bytes, wish: Wish) -> Entry | None:
        """The answer that a request selects (RFC 9111 4.1), however old it is."""
        resource = self._resources.get(key)
        if resource is None:
            return None
        entry = resource.variants.get(wish.variant(resource.vary) if resource.vary else b"")
        if entry is not None:
            entry.used = True
        return entry

    def put(self, entry: Entry) -> bool:
        """Store an answer in place of the one that the same requests select. Returns: False if it is too large."""
        resource = self._resources.get(entry.key)
        if resource is not None:
            if resource.vary != entry.vary:  # the upstream has changed its mind; the newer answer tells (RFC 9111 4.1)
                self.forget(entry.key)
            else:
                known = resource.variants.get(entry.variant)
                if known is not None:
                    entry.used = known.used
                    self._drop(known)
        if not self._make_room(entry.size_bytes):
            return False
        resource = self._resources.get(entry.key)  # it may have gone to make room
        if resource is None:
            resource = Resource(entry.vary)
            self._resources[entry.key] = resource
        elif len(resource.variants) >= MAX_VARIANTS:
            for oldest in resource.variants.values():
                self._drop(oldest)
                self.evicted += 1
                break
        resource.variants[entry.variant] = entry
        self.entries += 1
        self.size_bytes += entry.size_bytes
        entry.older = self._newest
        if self._newest is not None:
            self._newest.newer = entry
        self._newest = entry
        if self._oldest is None:
            self._oldest = entry
        return True

    def forget(self, key: bytes) -> bool:
        """Drop all that is stored under a key. Returns: was there something?"""
        resource = self._resources.get(key)
        if resource is None:
            return False
        for entry in list(resource.variants.values()):
            self._drop(entry)
        return True

    def remove(self, entry: Entry) -> bool:
        """Drop one entry. Returns: was it still stored?"""
        resource = self._resources.get(entry.key)
        if resource is None or resource.variants.get(entry.variant) is not entry:
            return False
        self._drop(entry)
        return True

    def clear(self) -> None:
        """Drop everything that is stored."""
        for key in list(self._resources):
            self.forget(key)

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

    def _drop(self, entry: Entry) -> None:
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
        resource = self._resources[entry.key]
        del resource.variants[entry.variant]
        if not resource.variants:
            del self._resources[entry.key]
        self.entries -= 1
        self.size_bytes -= entry.size_bytes

    def snapshot(self) -> dict[str, int]:
        """What is held."""
        return {
            "bytes": self.size_bytes,
            "max_bytes": self.max_bytes,
            "collecting_bytes": self._collecting,
            "entries": self.entries,
            "resources": len(self._resources),
            "evicted": self.evicted,
        }
