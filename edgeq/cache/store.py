"""A bounded memory of answers: by key, and by what the request said in the fields by which answers vary.

Invariants, beside those of the sieve
- An entry is in the dictionary of its resource and in the list of all entries, or in neither.
- A resource has an entry at least and MAX_VARIANTS at most; all of them vary by the same fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeq.cache.entry import Entry
from edgeq.cache.sieve import Sieve

if TYPE_CHECKING:
    from edgeq.cache.sieve import Kept
    from edgeq.cache.wish import Wish

MAX_VARIANTS: Final = 16
"""Of one resource: an answer that varies by User-Agent must not fill the store with its copies."""


class Resource:
    """The answers that are stored under one key."""

    __slots__ = ("variants", "vary")

    def __init__(self, vary: list[bytes]) -> None:
        self.vary: list[bytes] = vary
        self.variants: dict[bytes, Entry] = {}
        """In order of arrival."""


class Store(Sieve):
    """All answers of one route, in one worker."""

    __slots__ = ("_resources",)

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self._resources: dict[bytes, Resource] = {}

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
        self._add(entry)
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

    def _unlist(self, entry: Kept) -> None:
        if not isinstance(entry, Entry):
            return
        resource = self._resources[entry.key]
        del resource.variants[entry.variant]
        if not resource.variants:
            del self._resources[entry.key]

    def snapshot(self) -> dict[str, int]:
        """What is held."""
        return {**super().snapshot(), "resources": len(self._resources)}
