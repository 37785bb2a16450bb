"""The last events of all processes, in the supervisor: its own, and those that the workers leave on the board.

A worker's lines are taken from its row on each look, and once more before the row is cleared, so its last words are
here. What a worker has overwritten between two looks is lost, and `lost_bytes` says how much that was.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final, NamedTuple

import orjson

from edgeq.board.layout import Board

KEPT: Final = 1000
LOOK_S: Final = 0.1
"""Of somebody who follows."""
ALIVE_S: Final = 10.0
"""Without an event, until a follower gets a sign of life."""


class Entry(NamedTuple):
    """An event and its number, which only grows."""

    number: int
    event: dict[str, Any]


class Chronicle:
    """Events in the order in which they were seen here; within one look by their time."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._own: deque[bytes] = deque(maxlen=KEPT)
        self._positions: dict[int, int] = {}
        self._count = 0
        self.lost_bytes = 0

    def take(self, line: bytes) -> None:
        """An event of this process; a `log_io.tap`."""
        self._own.append(line)

    def look(self) -> None:
        """Take what is new."""
        lines = [*self._own]
        self._own.clear()
        for slot in range(self._board.rows_used):
            lines.extend(self._lines_of(slot))
        self._add(lines)

    def bury(self, slot: int) -> None:
        """A worker is dead: its row is about to be cleared."""
        self._add(self._lines_of(slot))
        self._positions.pop(slot, None)

    def last(self, count: int) -> list[dict[str, Any]]:
        """The newest ones, the oldest of them first."""
        self.look()
        return [entry.event for entry in list(self._entries)[-count:]] if count > 0 else []

    def since(self, number: int) -> list[Entry]:
        """What came after the event with this number."""
        self.look()
        return [entry for entry in self._entries if entry.number > number]

    async def follow(self) -> AsyncIterator[dict[str, Any]]:
        """Events from now on, without an end; an empty one if there was none for a while."""
        number = self.newest
        quiet_s = 0.0
        while True:
            entries = self.since(number)
            for entry in entries:
                number = entry.number
                yield entry.event
            quiet_s = 0.0 if entries else quiet_s + LOOK_S
            if quiet_s >= ALIVE_S:
                quiet_s = 0.0
                yield {}
            await asyncio.sleep(LOOK_S)

    @property
    def newest(self) -> int:
        """The number of the last event, 0 if there was none."""
        return self._count

    def _lines_of(self, slot: int) -> list[bytes]:
        tail = self._board.events(slot).read(self._positions.get(slot, 0))
        self._positions[slot] = tail.position
        self.lost_bytes += tail.lost_bytes
        return tail.lines

    def _add(self, lines: Iterable[bytes]) -> None:
        events: list[dict[str, Any]] = []
        for line in lines:
            with contextlib.suppress(orjson.JSONDecodeError):
                events.append(orjson.loads(line))
        for event in sorted(events, key=lambda one: str(one.get("timestamp", ""))):
            self._count += 1
            self._entries.append(Entry(self._count, event))
