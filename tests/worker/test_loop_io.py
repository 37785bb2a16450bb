"""The loop of a worker: what hangs on its tick."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from edgeq.worker.loop_io import WorkerLoop, new_loop


@pytest.fixture
def loop() -> Iterator[WorkerLoop]:
    made = new_loop()
    yield made
    made.close()


def test_between_two_parts_of_a_tick_others_have_their_turn(loop: WorkerLoop) -> None:
    """Or a request that comes then would wait for all that is done twenty times a second."""
    done: list[str] = []
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def come() -> None:
            ours.recv(1)
            done.append("a request")

        def first(_now: float) -> None:
            done.append("first")
            theirs.send(b"x")

        def second(_now: float) -> None:
            done.append("second")
            loop.stop()

        loop.add_reader(ours.fileno(), come)
        loop.on_tick(first)
        loop.on_tick(second)
        loop.run_forever()
        loop.remove_reader(ours.fileno())
    assert done == ["first", "a request", "second"]


def test_a_part_that_fails_takes_no_other_with_it(loop: WorkerLoop) -> None:
    """The defect is told; what comes after it is done, and so is the next tick."""
    told: list[dict[str, Any]] = []
    done: list[str] = []

    def broken(_now: float) -> None:
        raise ValueError("broken")

    def last(_now: float) -> None:
        done.append("last")
        if len(done) == 2:
            loop.stop()

    loop.set_exception_handler(lambda _loop, context: told.append(context))
    loop.on_tick(broken)
    loop.on_tick(last)
    loop.run_forever()
    assert done == ["last", "last"]
    assert [str(one["exception"]) for one in told] == ["broken", "broken"]
