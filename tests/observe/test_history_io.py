"""The history is told in turns, so that nobody waits until that of all is read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
import pytest

from edgeq.config.base import Duration
from edgeq.config.schema import Server
from edgeq.observe import history_io
from edgeq.observe.history import ALL
from tests.observe.recorded import CONFIG, Bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    made.tick(20)
    yield made
    made.board.close()


def test_others_have_turns(bench: Bench) -> None:
    """One after each resource; what is told is the same."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def ask() -> object:
        other = asyncio.create_task(count())
        told = await history_io.records(bench.recorder, ALL, 10, 10)
        other.cancel()
        return told

    assert asyncio.run(ask()) == bench.recorder.records(ALL, 10, 10)
    assert turns == len(bench.recorder.names()) == 6


def test_a_reload_meanwhile(bench: Bench) -> None:
    """The ring is replaced by none: nothing more is told, and nobody touches what was."""

    async def ask() -> object:
        asking = asyncio.create_task(history_io.records(bench.recorder, ALL, 10, 10))
        await asyncio.sleep(0)
        bench.config = msgspec.structs.replace(CONFIG, server=Server(history=Duration(0)))
        bench.recorder.configure()
        return await asking

    told = asyncio.run(ask())
    assert isinstance(told, list)
    assert len(told) == 1
    assert asyncio.run(history_io.records(bench.recorder, ALL, 10, 10)) == "no history is kept: server.history is 0"


def test_one_resource(bench: Bench) -> None:
    """And one that is not known."""
    told = asyncio.run(history_io.records(bench.recorder, "upstream/u", 10, 1))
    assert told == bench.recorder.records("upstream/u", 10)
    assert str(asyncio.run(history_io.records(bench.recorder, "upstream/x", 10, 1))).startswith("no history of")
