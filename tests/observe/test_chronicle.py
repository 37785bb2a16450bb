"""Events of all processes in one place."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from edgeq.board.layout import Board
from edgeq.config.schema import EventLog
from edgeq.observe import log_io
from edgeq.observe.chronicle import KEPT, Chronicle


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board.create(2)
    made.use(1)
    yield made
    made.close()


def line(second: int, event: str) -> bytes:
    return json.dumps({"timestamp": f"2026-01-01T00:00:{second:02}Z", "event": event}).encode()


def names(events: list[dict[str, Any]]) -> list[str]:
    return [str(event["event"]) for event in events]


def test_own_and_workers_by_time(board: Board) -> None:
    """Within one look the events of all processes are in their order."""
    chronicle = Chronicle(board)
    chronicle.take(line(3, "own"))
    board.events(0).append(line(1, "zero"))
    board.events(1).append(line(2, "one"))
    board.events(1).append(b"no json")
    assert names(chronicle.last(10)) == ["zero", "one", "own"]
    assert names(chronicle.last(1)) == ["own"]
    board.events(1).append(line(2, "later"))
    assert names(chronicle.last(10)) == ["zero", "one", "own", "later"]


def test_last_words_and_the_next_worker(board: Board) -> None:
    """What a worker said before it died is kept when its row is cleared, and its successor's events follow."""
    chronicle = Chronicle(board)
    board.events(1).append(line(1, "last words"))
    chronicle.bury(1)
    board.bury(1)
    board.events(1).append(line(2, "first words"))
    assert names(chronicle.last(10)) == ["last words", "first words"]


def test_bounded(board: Board) -> None:
    """So many are kept, and what a worker has overwritten is counted."""
    chronicle = Chronicle(board)
    for number in range(2 * KEPT):
        chronicle.take(line(1, str(number)))
        board.events(0).append(line(2, "x" * 100))
    assert len(chronicle.last(10 * KEPT)) == KEPT
    assert chronicle.lost_bytes > 0


def test_followers_get_each_event_once(board: Board) -> None:
    """From the moment they come, in order."""
    chronicle = Chronicle(board)
    chronicle.take(line(1, "before"))
    chronicle.look()

    async def follow() -> list[str]:
        stream = chronicle.follow()
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        chronicle.take(line(2, "a"))
        board.events(0).append(line(3, "b"))
        return [str((await first)["event"]), str((await anext(stream))["event"])]

    assert asyncio.run(follow()) == ["a", "b"]


def test_the_tap_gets_what_is_logged(board: Board, capfd: pytest.CaptureFixture[str]) -> None:
    """In either format one line of JSON; below the level nothing; a long event without what it carries; and a tap that
    raises breaks nothing."""
    chronicle = Chronicle(board)
    log_io.tap(chronicle.take, 300)
    try:
        for form in ("json", "console"):
            log_io.configure(EventLog(format=form))
            log_io.get_logger(worker=1).info(form, resource="upstream/u")
            log_io.get_logger().debug("not this")
        log_io.get_logger().info("long", text="x" * 1000)
        log_io.tap(lambda line: [][1])
        lost = log_io.sink.lost
        log_io.get_logger().info("still written")
        assert log_io.sink.lost == lost + 1
    finally:
        log_io.tap(None)
    events = chronicle.last(10)
    assert names(events) == ["json", "console", "long"]
    assert events[0]["resource"] == "upstream/u"
    assert events[2]["cut"] is True
    assert "text" not in events[2]
    assert "still written" in capfd.readouterr().err
