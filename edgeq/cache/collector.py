"""Collects an answer while it passes on its way to the client, to be stored once it is complete.

It never holds up what passes: when the answer is too large, or there is no room, it gives up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeq.wire.framing import ChunkedFramer

if TYPE_CHECKING:
    from edgeq.cache.rules import Judgement
    from edgeq.cache.store import Store


class Collector:
    """One answer, as far as it has come."""

    __slots__ = (
        "_max_object",
        "_parts",
        "_store",
        "dropped",
        "forward",
        "is_chunked",
        "judgement",
        "key",
        "now",
        "size_bytes",
        "status",
        "wall",
    )

    def __init__(
        self,
        store: Store,
        max_object: int,
        key: bytes,
        status: int,
        forward: bytes,
        is_chunked: bool,
        judgement: Judgement,
        wall: float,
        now: float,
    ) -> None:
        """Args: forward is the status line and lines to pass on; is_chunked: what is added has chunk framing; wall and
        now are when the head came."""
        self._store: Store = store
        self._max_object: int = max_object
        self._parts: list[bytes] = []
        self.key = key
        self.status: int = status
        self.forward = forward
        self.is_chunked: bool = is_chunked
        self.judgement: Judgement = judgement
        self.wall: float = wall
        self.now: float = now
        self.size_bytes: int = 0
        self.dropped: bool = False
        """It is not to be stored, whatever still comes."""

    def add(self, data: bytes) -> bool:
        """Bytes of the body. Returns: False once it has given up."""
        if self.dropped:
            return False
        size = len(data)
        if self.size_bytes + size > self._max_object or not self._store.collect(size):
            self.drop()
            return False
        self.size_bytes += size
        self._parts.append(data)
        return True

    def drop(self) -> None:
        """It is of no use any more."""
        self.dropped = True
        self._store.collected(self.size_bytes)
        self.size_bytes = 0
        self._parts = []

    def take(self) -> bytes:
        """The complete body, once; gives its room back. Its framing was found good as it passed."""
        body = b"".join(self._parts)
        self.drop()
        if self.is_chunked:
            body = ChunkedFramer(True, False, 1 << 20).feed(body)
        return body
