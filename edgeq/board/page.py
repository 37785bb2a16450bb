"""Text on the board: what a worker says of itself beside its numbers. Both kinds have one writer, the row's worker.

`Page` is a document that is replaced whole: names and numbers that no other worker decides by (pools, refusals by
resource). `Lines` are the newest lines of a log.

Nobody locks, and a writer may be stopped or killed between any two stores. So a page has two halves, of which a reader
takes the one that was written last, with its checksum; a worker that was frozen while it wrote the other one is still
read. Lines have two counters: what is about to be overwritten is given up first (`begun`), then written, then shown
(`written`); what a reader has copied is good as far as `begun` has not passed it meanwhile.

    page     turn, then twice: length, crc32, bytes..        turn & 1 is the half that holds; 0: nothing was written
    lines    begun, written, bytes..                          counters of bytes since the worker's start

Written now and then, never for a request: a page costs the encoding of its document.
"""

from __future__ import annotations

import zlib
from typing import Final, NamedTuple

_TRIES: Final = 4
"""Between two of its writes a worker does other things for half a second; a reader needs microseconds."""


class Page:
    """One document over a range of cells."""

    __slots__ = ("_bytes", "_cells", "_half", "max_bytes")

    def __init__(self, cells: memoryview) -> None:
        """`cells`: of 64 bits, a few at least."""
        self._cells: memoryview = cells
        self._bytes: memoryview = cells.cast("B")
        self._half: int = (len(cells) - 1) // 2
        self.max_bytes: int = (self._half - 2) * 8

    def write(self, document: bytes) -> None:
        """Replace the document. Raises ValueError if it is longer than `max_bytes`; then nothing has changed."""
        if len(document) > self.max_bytes:
            raise ValueError(f"{len(document)} bytes, of {self.max_bytes} at most")
        cells = self._cells
        turn = int(cells[0]) + 1
        at = 1 + (turn & 1) * self._half
        cells[at] = len(document)
        cells[at + 1] = zlib.crc32(document)
        start = (at + 2) * 8
        self._bytes[start : start + len(document)] = document
        cells[0] = turn

    def read(self) -> bytes:
        """The document; empty if there is none. For any process."""
        cells = self._cells
        for _ in range(_TRIES):
            turn = int(cells[0])
            if turn == 0:
                break
            at = 1 + (turn & 1) * self._half
            size = int(cells[at])
            start = (at + 2) * 8
            document = bytes(self._bytes[start : start + min(size, self.max_bytes)])
            if len(document) == size and zlib.crc32(document) == int(cells[at + 1]):
                return document
        return b""


class Tail(NamedTuple):
    """Whole lines, where to go on reading, and how many bytes were overwritten before they were read."""

    lines: list[bytes]
    position: int
    lost_bytes: int


class Lines:
    """The newest lines over a range of cells."""

    __slots__ = ("_bytes", "_cells", "size_bytes")

    def __init__(self, cells: memoryview) -> None:
        self._cells: memoryview = cells
        self._bytes: memoryview = cells.cast("B")[16:]
        self.size_bytes: int = (len(cells) - 2) * 8

    @property
    def max_line_bytes(self) -> int:
        """A longer line would push out too many others."""
        return self.size_bytes // 8

    def append(self, line: bytes) -> None:
        """Add one line, given without its end. Raises ValueError if it is longer than `max_line_bytes`."""
        if len(line) > self.max_line_bytes:
            raise ValueError(f"{len(line)} bytes, of {self.max_line_bytes} at most")
        cells, size = self._cells, self.size_bytes
        text = line.replace(b"\n", b" ") + b"\n"
        written = int(cells[1])
        end = written + len(text)
        cells[0] = end
        at = written % size
        first = min(len(text), size - at)
        self._bytes[at : at + first] = text[:first]
        self._bytes[: len(text) - first] = text[first:]
        cells[1] = end

    def read(self, position: int) -> Tail:
        """What was written since `position`, which an earlier reading returned; 0 for all there is. For any process.

        A position beyond the end is one of an earlier worker in this row: all there is, again.
        """
        cells, size = self._cells, self.size_bytes
        end = int(cells[1])
        if position > end:
            position = 0
        start = max(position, end - size)
        at, count = start % size, end - start
        first = min(count, size - at)
        text = bytes(self._bytes[at : at + first]) + bytes(self._bytes[: count - first])
        torn = int(cells[0]) - size - start
        if torn > 0:  # overwritten while it was copied
            text = text[torn:]
            start += torn
        if start > position:  # it begins within a line
            cut = text.find(b"\n") + 1 or len(text)
            text = text[cut:]
            start += cut
        return Tail(text.split(b"\n")[:-1], end, start - position)
