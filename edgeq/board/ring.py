"""What the numbers were: a ring of fixed-size records, one for each name and moment, behind the rows of the board.

Invariants
- One writer, the supervisor. A moment is written in all its lanes first and committed last, so a reader never sees a
  half of one. A successor gives up the moment in which its predecessor died: its time is that of the one before.
- Names are interned: each has a lane, and keeps it while it comes and goes. A lane goes to another name only if there
  is no free one, and never from a name that is in use; what it held before is then no longer read (`since`).
- A record carries the number of its moment, so what was never written, or overwritten while it was read, is left out.
- All is in the memory itself: a copy of it is as good as the ring, in another process or in a file (dumps_io.py).

::

    header    magic, version, moments, lanes, the next moment's number; length and bytes of a note
    times     of each moment, monotonic nanoseconds
    names     of each lane: its first moment, the one at which it was left (0: in use), length, crc32, bytes
    lanes     each one record of every moment: its number + 1, and VALUES numbers of 32 bits (of what: history.py)

Pages that were never touched take no memory. Source: the supervisor's memory may go at any moment (kill -9), and what
was before it is what its successor will be asked about.
"""

from __future__ import annotations

import bisect
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

MAGIC: Final = 0x6571_2D72_696E_6730
VERSION: Final = 1
VALUES: Final = 9
MOST: Final = 2**32 - 1
"""Larger values are written as this."""

_HEADER: Final = struct.Struct("<5Q")
_HEADER_BYTES: Final = 4096
_NOTE: Final = struct.Struct("<I")
_NEXT_AT: Final = 4 * 8
_TIME: Final = struct.Struct("<Q")
_NAME: Final = struct.Struct("<QQII")
_NAME_BYTES: Final = 128
_RECORD: Final = struct.Struct(f"<I{VALUES}I")
_TURN: Final = 2**32
MAX_NAME_BYTES: Final = _NAME_BYTES - _NAME.size
MAX_NOTE_BYTES: Final = _HEADER_BYTES - _HEADER.size - _NOTE.size


class Written(NamedTuple):
    """One record with its time, and the time since the moment before (0 for the very first); monotonic nanoseconds."""

    at_ns: int
    span_ns: int
    values: tuple[int, ...]


class Lane(NamedTuple):
    """Whose a lane is: from moment `since` on, up to `until` (not included); 0: it is in use."""

    name: str
    since: int
    until: int


def size_bytes(moments: int, lanes: int) -> int:
    """What a ring takes."""
    return _HEADER_BYTES + _TIME.size * moments + (_NAME_BYTES + _RECORD.size * moments) * lanes


class Ring:
    """A ring over some memory. `Ring.begin` makes an empty one, `Ring.open` takes over what is there."""

    __slots__ = ("_lanes_at", "_memory", "_names_at", "lanes", "moments", "next")

    def __init__(self, memory: memoryview, moments: int, lanes: int, following: int) -> None:
        self._memory = memory
        self.moments: int = moments
        self.lanes: list[Lane | None] = [None] * lanes
        self.next: int = following
        """The number of the moment that is written now."""
        self._names_at: int = _HEADER_BYTES + _TIME.size * moments
        self._lanes_at: int = self._names_at + _NAME_BYTES * lanes

    @classmethod
    def begin(cls, memory: memoryview, moments: int, lanes: int) -> Ring:
        """An empty ring in memory of zeros. Raises ValueError if it has not the size for it."""
        if len(memory) < size_bytes(moments, lanes) or moments < 1 or lanes < 1:
            raise ValueError(f"{moments} moments of {lanes} lanes do not fit into {len(memory)} bytes")
        _HEADER.pack_into(memory, 0, MAGIC, VERSION, moments, lanes, 0)
        return cls(memory, moments, lanes, 0)

    @classmethod
    def open(cls, memory: memoryview) -> Ring:
        """The ring that is there. Raises ValueError if there is none, or not all of it, or one of another version."""
        if len(memory) < _HEADER_BYTES:
            raise ValueError("it is no history: it is too short")
        magic, version, moments, lanes, following = _HEADER.unpack_from(memory, 0)
        if magic != MAGIC:
            raise ValueError("it is no history")
        if version != VERSION:
            raise ValueError(f"its history has version {version}, this program speaks {VERSION}")
        if moments < 1 or lanes < 1 or len(memory) < size_bytes(moments, lanes):
            raise ValueError(f"its history is cut off: {size_bytes(moments, lanes)} bytes, {len(memory)} are there")
        ring = cls(memory, moments, lanes, following)
        ring.lanes = [ring._read_lane(at) for at in range(lanes)]
        return ring

    # What the writer does.

    def resume(self) -> None:
        """Go on after a predecessor: the moment that it may have begun is given up."""
        if self.next:
            self.commit(self._time(self.next - 1))

    def use(self, names: Sequence[str]) -> list[int]:
        """The lanes of the names that are in use from now on, -1 for those that find no room."""
        wanted = dict.fromkeys(names, -1)
        for at, lane in enumerate(self.lanes):
            if lane is None:
                continue
            if lane.name in wanted:
                wanted[lane.name] = at
                if lane.until:
                    self._write_lane(at, lane._replace(until=0))
            elif not lane.until:
                self._write_lane(at, lane._replace(until=self.next or 1))
        for name, at in wanted.items():
            if at < 0 and len(name.encode()) <= MAX_NAME_BYTES and (free := self._free_lane()) >= 0:
                self._write_lane(free, Lane(name, self.next, 0))
                wanted[name] = free
        return [wanted[name] for name in names]

    def write(self, lane: int, values: Sequence[int]) -> None:
        """The record of a lane for the moment that is to be committed: VALUES numbers from 0 to MOST."""
        at = self._record_at(lane, self.next)
        _RECORD.pack_into(self._memory, at, (self.next + 1) % _TURN, *values)

    def commit(self, at_ns: int) -> None:
        """What was written is what was at this time; the next moment begins."""
        _TIME.pack_into(self._memory, self._time_at(self.next), at_ns)
        self.next += 1
        _TIME.pack_into(self._memory, _NEXT_AT, self.next)

    def note(self, text: bytes) -> None:
        """Keep some bytes with it. Raises ValueError if they are more than MAX_NOTE_BYTES."""
        if len(text) > MAX_NOTE_BYTES:
            raise ValueError(f"{len(text)} bytes, of {MAX_NOTE_BYTES} at most")
        _NOTE.pack_into(self._memory, _HEADER.size, len(text))
        start = _HEADER.size + _NOTE.size
        self._memory[start : start + len(text)] = text

    def take_over(self, other: Ring) -> None:
        """Begin with what another ring has kept, as far as there is room: newest moments, lanes in use first."""
        lanes = [(at, lane) for at, lane in enumerate(other.lanes) if lane is not None and not other._is_past(lane)]
        lanes.sort(key=lambda one: one[1].until > 0)
        runs = list(_runs(other._oldest(self.moments), other.next, other.moments, self.moments))
        for first, count in runs:
            self._copy(other, other._time_at(first), self._time_at(first), count * _TIME.size)
        for to, (at, lane) in enumerate(lanes[: len(self.lanes)]):
            for first, count in runs:
                size = count * _RECORD.size
                self._copy(other, other._record_at(at, first), self._record_at(to, first), size)
            self._write_lane(to, lane)
        self.next = other.next
        _TIME.pack_into(self._memory, _NEXT_AT, self.next)

    def copy(self, note: bytes = b"") -> bytearray:
        """All that is readable, as a ring of its own that has no more lanes than it needs."""
        lanes = sum(lane is not None and not self._is_past(lane) for lane in self.lanes)
        memory = bytearray(size_bytes(self.moments, max(1, lanes)))
        ring = Ring.begin(memoryview(memory), self.moments, max(1, lanes))
        ring.take_over(self)
        ring.note(note)
        return memory

    # What readers do.

    def names(self) -> list[str]:
        """Of which something can be read, in the order of their lanes."""
        return [lane.name for lane in self.lanes if lane is not None and not self._is_past(lane)]

    def read(self, name: str, from_ns: int) -> list[Written]:
        """What was since then, the oldest first; empty for a name that is not known."""
        at = next((at for at, lane in enumerate(self.lanes) if lane is not None and lane.name == name), -1)
        lane = self.lanes[at] if at >= 0 else None
        if lane is None:
            return []
        # Of the oldest moment nobody knows any more how long it was, unless there was none before it.
        known = max(lane.since, self._oldest(self.moments) + (self.next > self.moments))
        numbers = range(known, max(known, lane.until or self.next))
        first = numbers.start + bisect.bisect_left(numbers, from_ns, key=self._time)
        before_ns = self._time(first - 1) if first else 0
        found: list[Written] = []
        for begin, count in _runs(first, numbers.stop, self.moments, self.moments):
            number = begin
            times = self._part(self._time_at(begin), count * _TIME.size)
            records = self._part(self._record_at(at, begin), count * _RECORD.size)
            for (at_ns,), record in zip(_TIME.iter_unpack(times), _RECORD.iter_unpack(records), strict=True):
                number += 1
                if record[0] == number % _TURN and at_ns != before_ns:
                    found.append(Written(at_ns, at_ns - before_ns if before_ns else 0, record[1:]))
                before_ns = at_ns
        return found

    def newest_ns(self) -> int:
        """The time of the last moment, 0 if there was none."""
        return self._time(self.next - 1) if self.next else 0

    def noted(self) -> bytes:
        """The note."""
        (size,) = _NOTE.unpack_from(self._memory, _HEADER.size)
        start = _HEADER.size + _NOTE.size
        return bytes(self._memory[start : start + min(size, MAX_NOTE_BYTES)])

    # Where things are.

    def _oldest(self, moments: int) -> int:
        """The oldest moment that is there, if no more than so many are wanted."""
        return max(0, self.next - min(moments, self.moments))

    def _is_past(self, lane: Lane) -> bool:
        """Has all that it held been overwritten?"""
        return 0 < lane.until <= self._oldest(self.moments)

    def _time_at(self, number: int) -> int:
        return _HEADER_BYTES + _TIME.size * (number % self.moments)

    def _time(self, number: int) -> int:
        (at_ns,) = _TIME.unpack_from(self._memory, self._time_at(number))
        return int(at_ns)

    def _record_at(self, lane: int, number: int) -> int:
        return self._lanes_at + _RECORD.size * (lane * self.moments + number % self.moments)

    def _free_lane(self) -> int:
        """One that nobody has; else the one that was left first; -1 if all are in use."""
        best, left = -1, 0
        for at, lane in enumerate(self.lanes):
            if lane is None:
                return at
            if lane.until and (best < 0 or lane.until < left):
                best, left = at, lane.until
        return best

    def _read_lane(self, at: int) -> Lane | None:
        start = self._names_at + _NAME_BYTES * at
        since, until, size, crc = _NAME.unpack_from(self._memory, start)
        name = bytes(self._memory[start + _NAME.size : start + _NAME.size + min(size, MAX_NAME_BYTES)])
        # A name that was just being written when its writer died is nobody's.
        if not name or zlib.crc32(name) != crc:
            return None
        return Lane(name.decode(errors="replace"), since, until)

    def _write_lane(self, at: int, lane: Lane) -> None:
        name = lane.name.encode()
        start = self._names_at + _NAME_BYTES * at
        self._memory[start + _NAME.size : start + _NAME.size + len(name)] = name
        _NAME.pack_into(self._memory, start, lane.since, lane.until, len(name), zlib.crc32(name))
        self.lanes[at] = lane

    def _copy(self, other: Ring, source: int, target: int, size: int) -> None:
        self._memory[target : target + size] = other._part(source, size)

    def _part(self, start: int, size: int) -> memoryview:
        return self._memory[start : start + size]


def _runs(first: int, end: int, one: int, other: int) -> Iterator[tuple[int, int]]:
    """The moments from `first` to `end` in pieces that lie in one piece in two rings of these sizes: (first, count)."""
    while first < end:
        count = min(end - first, one - first % one, other - first % other)
        yield first, count
        first += count
