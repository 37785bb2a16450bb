"""Several workers in one process, sharing a limit: for tests and simulations of what the board does between many."""

from __future__ import annotations

from collections.abc import Callable

from edgeq.board.resources import LAST, MachineWide


class Room:
    """A limit that several bulkheads share."""

    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts: list[RoomShare] = []

    def join(self, wake: Callable[[], None]) -> RoomShare:
        """One more worker; `wake` is called when a place is handed over to it."""
        share = RoomShare(self, wake)
        self.parts.append(share)
        return share


class RoomShare(MachineWide):
    """One worker's part of a `Room`."""

    __slots__ = ("count", "crowd", "queued", "room", "turn", "wake")

    def __init__(self, room: Room, wake: Callable[[], None]) -> None:
        super().__init__()
        self.alone = False
        self.is_late = False
        self.room: Room = room
        self.wake = wake
        self.count: int = 0
        self.turn: int = 0
        self.queued: int = 0
        self.crowd: int = 0

    def others_in_flight(self) -> int:
        return sum([part.count for part in self.room.parts if part is not self])

    def others_queued(self) -> int:
        return sum([part.queued for part in self.room.parts if part is not self])

    def others_crowds(self) -> list[int]:
        return [part.crowd for part in self.room.parts if part is not self and part.crowd]

    def others_wait(self) -> bool:
        return any(part.turn for part in self.room.parts if part is not self)

    def hand_over(self, oldest_at: float, now: float, turn: int = 0) -> bool:
        first: RoomShare | None = None
        for part in self.room.parts:
            if part is not self and part.turn and part.turn < (turn or LAST):
                first = part
                turn = part.turn
        if first is None:
            return False
        first.wake()
        return True

    def set_in_flight(self, counted: int, in_flight: int) -> None:
        self.count = counted

    def set_waiting(self, queued: int, queued_bytes: int, oldest_at: float, turn: int = 0) -> None:
        self.turn = turn
        self.queued = queued

    def set_crowd(self, key: int) -> None:
        self.crowd = key
