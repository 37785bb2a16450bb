"""A worker's heart: what it flushes, and that nothing which fails there stops it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from edgeq.board.layout import Board
from edgeq.worker.run_io import Pulse
from tests.support.fake_app import FakeApp


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board.create(1)
    made.use(0)
    yield made
    made.close()


class App(FakeApp):
    """Reports what a test says."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = {}
        self.reports = 0
        self.loop = asyncio.new_event_loop()

    def stats(self) -> dict[str, int | float]:
        return {"requests": 7, "in_flight": 2}

    def report(self) -> Iterator[dict[str, Any]]:
        self.reports += 1
        for name, value in self.document.items():
            yield {name: value}

    def turn(self) -> None:
        """Let the loop do what it was asked for."""
        for _ in range(5):
            self.loop.run_until_complete(asyncio.sleep(0))


@pytest.fixture
def pulse(board: Board) -> Iterator[tuple[Pulse, App]]:
    app = App()
    yield Pulse(app.loop, app, board.row(0), board.report(0)), app
    app.loop.close()


def test_numbers_and_report(board: Board, pulse: tuple[Pulse, App]) -> None:
    """Numbers on each beat, the report on each second one."""
    heart, app = pulse
    app.document = {"refusals": {"draining": {"a": 1}}, "log": {}}
    for _ in range(4):
        heart.beat()
        app.turn()
    assert (board.row(0).requests, board.row(0).in_flight) == (7, 2)
    assert json.loads(board.report(0).read()) == app.document
    assert app.reports == 2


def test_a_report_that_fails(board: Board, pulse: tuple[Pulse, App], capfd: pytest.CaptureFixture[str]) -> None:
    """It is told once, the last good one stays, and the heart beats on."""
    heart, app = pulse
    app.document = {"refusals": {}}
    heart.beat()
    app.turn()
    app.document = {"refusals": {"x": object()}}
    before = board.row(0).heartbeat_ns
    for _ in range(6):
        heart.beat()
        app.turn()
    assert board.row(0).heartbeat_ns > before
    assert json.loads(board.report(0).read()) == {"refusals": {}}
    seen = capfd.readouterr()
    assert (seen.out + seen.err).count("no report") == 1
