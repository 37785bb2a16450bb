"""Text on the board: a page is old or new, never both; lines are whole lines, whatever was overwritten meanwhile."""

from __future__ import annotations

import os
import signal
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.board.layout import Board
from edgeq.board.page import Lines, Page


def cells(count: int) -> memoryview:
    return memoryview(bytearray(8 * count)).cast("Q")


@given(st.lists(st.binary(max_size=64)))
def test_a_page_is_what_was_written_last(documents: list[bytes]) -> None:
    """Longer, shorter, empty: the last one holds."""
    page = Page(cells(21))
    assert page.max_bytes == 64
    assert page.read() == b""
    for document in documents:
        page.write(document)
        assert page.read() == document


def test_what_is_too_long_changes_nothing() -> None:
    """The worker's defect must not take the last good report away."""
    page = Page(cells(21))
    page.write(b"good")
    with pytest.raises(ValueError, match="65 bytes, of 64"):
        page.write(bytes(65))
    assert page.read() == b"good"


def test_a_writer_that_stops_anywhere_leaves_the_old_document() -> None:
    """Each state that a write passes through is read as the document before it, or as the new one."""
    memory = cells(21)
    page = Page(memory)
    page.write(b"the first one")
    page.write(b"the second one")
    before = memory.tolist()
    page.write(b"a third one that is longer")
    after = memory.tolist()
    changed = [at for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    # The turn, the cell that says who holds, is written last; the others in any order.
    assert changed[0] == 0
    for count in range(len(changed)):
        for at, value in enumerate(before):
            memory[at] = value
        for at in changed[1 : count + 1]:
            memory[at] = after[at]
        assert page.read() == b"the second one"
    memory[0] = after[0]
    assert page.read() == b"a third one that is longer"


def test_a_torn_document_is_none() -> None:
    """A reader that is overtaken twice sees a wrong checksum, and not a mixture."""
    memory = cells(21)
    page = Page(memory)
    page.write(b"abc")
    memory[1 + 10 + 2] ^= 1
    assert page.read() == b""
    memory[1 + 10 + 1] = zlib.crc32(b"\x60bc")
    assert page.read() == b"\x60bc"


@given(st.lists(st.lists(st.binary(max_size=15).map(lambda line: line.replace(b"\n", b"")))))
def test_lines_come_whole_and_in_order(batches: list[list[bytes]]) -> None:
    """What is read is a tail of what was written; what was lost is told; a reader that keeps up loses nothing."""
    lines = Lines(cells(2 + 16))
    position, seen, written = 0, 0, 0
    lost = False
    for batch in batches:
        for line in batch:
            lines.append(line)
            written += len(line) + 1
        tail = lines.read(position)
        assert batch[len(batch) - len(tail.lines) :] == tail.lines
        assert tail.position == written
        read = sum(len(line) + 1 for line in tail.lines)
        assert read + tail.lost_bytes == written - position
        lost = lost or tail.lost_bytes > 0
        if sum(len(line) + 1 for line in batch) <= lines.size_bytes:
            assert tail.lines == batch
        position = tail.position
        seen += read
    assert lost or seen == written


def test_a_new_worker_begins_anew() -> None:
    """The row was cleared: a position of the dead worker means nothing there."""
    lines = Lines(cells(2 + 16))
    lines.append(b"only")
    assert lines.read(500).lines == [b"only"]


def test_a_line_without_room_or_end() -> None:
    """Too long is an error; a line feed within one does not make two of it."""
    lines = Lines(cells(2 + 16))
    with pytest.raises(ValueError, match="17 bytes, of 16"):
        lines.append(bytes(17))
    lines.append(b"a\nb")
    assert lines.read(0).lines == [b"a b"]


def test_both_outlive_kill_9_and_end_with_the_row() -> None:
    """Written in another process, which is killed; gone when the row is buried, but for what is kept of the dead."""
    board = Board.create(2)
    try:
        board.use(1)
        pid = os.fork()
        if pid == 0:
            board.report(1).write(b"{}")
            board.events(1).append(b"last words")
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        board.report(board.slots).write(b"of the dead")
        assert (board.report(1).read(), board.events(1).read(0).lines) == (b"{}", [b"last words"])
        board.bury(1)
        assert (board.report(1).read(), board.events(1).read(0).lines) == (b"", [])
        assert board.report(board.slots).read() == b"of the dead"
    finally:
        board.close()
