"""The kernel's numbering of the sockets in one SO_REUSEPORT group.

The index of a socket is the order of its listen(). When one closes, the *last* one moves into the hole (man 7 socket).
Whoever attaches a steering program must follow that numbering exactly: an index that is off by one feeds a shard which
nobody empties any more.
"""

from __future__ import annotations

from collections.abc import Container


class ShardOrder:
    """Slots in the kernel's order."""

    __slots__ = ("_slots",)

    def __init__(self) -> None:
        self._slots: list[int] = []

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def slots(self) -> tuple[int, ...]:
        """Slots by index."""
        return tuple(self._slots)

    def listened(self, slot: int) -> None:
        """A member joined."""
        if slot in self._slots:
            raise ValueError(f"slot {slot} is in the group")
        self._slots.append(slot)

    def renamed(self, old: int, new: int) -> None:
        """A member's socket has got another slot; its index stays."""
        if new in self._slots:
            raise ValueError(f"slot {new} is in the group")
        self._slots[self._slots.index(old)] = new

    def closed(self, slot: int) -> None:
        """A member left; the last one takes its index."""
        hole = self._slots.index(slot)
        last = self._slots.pop()
        if last != slot:
            self._slots[hole] = last

    def steering(self, serving: Container[int]) -> list[int] | None:
        """Indices that may get new connections; None if all may, or if there is no better choice than any."""
        indices = [index for index, slot in enumerate(self._slots) if slot in serving]
        return indices if 0 < len(indices) < len(self._slots) else None

    def steering_while_closing(self, slot: int, serving: Container[int]) -> list[int] | None:
        """Indices that are right both before and after this slot's socket closes, if there are any."""
        hole = self._slots.index(slot)
        last = len(self._slots) - 1
        indices = [index for index, one in enumerate(self._slots) if one in serving and index not in (hole, last)]
        return indices or None
