"""Four real processes with one ledger on one board: how far a limit is passed, what a race loses, what a kill leaves.

What is asserted does not depend on how fast the machine is: times are the stamps that the processes took.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from functools import partial

import pytest

from edgeq.board.gcra_table import GcraTable
from edgeq.board.handover import Neighbours
from edgeq.board.layout import Board
from edgeq.config.schema_llm import TokenLimits
from edgeq.llm.estimate import Estimate
from edgeq.llm.ledger import Ledger, Reservation, reserve
from edgeq.llm.message import Usage
from edgeq.llm.meter import TENANT, Meter
from tests.support.forked import TIMEOUT_S, Child

WORKERS = 4
TOKENS_A_MINUTE = 600_000
CONCURRENT = 6
SIZE = 1000
GO = 60
"""A cell of the header that nothing else uses."""


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board.create(WORKERS)
    for slot in range(WORKERS):
        made.use(slot)
    yield made
    made.close()


def meter_of(board: Board, slot: int, limits: TokenLimits) -> Meter:
    ledger = Ledger(GcraTable(board, slot), board, Neighbours(board, slot, lambda _: None))
    ledger.tick(time.monotonic(), time.time())
    return ledger.meter(TENANT, "acme", limits)


def work(board: Board, slot: int, seconds: float) -> list[list[float]]:
    """Ask without a pause for `seconds`. Returns for each that was let in: when, when it ended, what it has used."""
    attached = Board.attach(os.dup(board.fd))
    limits = TokenLimits(tokens_per_minute=TOKENS_A_MINUTE, concurrent=CONCURRENT, money_per_day=1e6)
    meter = meter_of(attached, slot, limits)
    go = attached.cells(GO, 1)
    while go[0] == 0:
        os.sched_yield()
    draw = random.Random(slot)
    running: list[tuple[float, float, int, Reservation]] = []
    done: list[list[float]] = []
    now = time.monotonic()
    end = now + seconds
    while now < end or running:
        if running and running[0][1] <= now:
            began, _, used, reservation = running.pop(0)
            ended = time.monotonic()
            reservation.settle(Usage(input=used // 2, output=used - used // 2), used, ended)
            done.append([began, ended, used])
        elif now < end:
            found = reserve([meter], Estimate(SIZE // 2, SIZE // 2, SIZE), now)
            if isinstance(found, Reservation):
                running.append((time.monotonic(), now + 0.002, draw.randint(0, 2 * SIZE), found))
            else:
                os.sched_yield()
        now = time.monotonic()
    return done


def test_limits_of_the_machine(board: Board) -> None:
    """Concurrency is passed by three at most, tokens by what was reserved too little; all money is there, exactly."""
    children = [Child(partial(work, board, slot, 1.5)) for slot in range(WORKERS)]
    board.cells(GO, 1)[0] = 1
    done = sorted(one for child in children for one in child.result())
    assert len(done) > 100
    changes = sorted([(began, 1) for began, _, _ in done] + [(ended, -1) for _, ended, _ in done])
    most = running = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    # A stamp is taken a little after the grant and a little before the release, so they show no more than there was.
    assert most <= CONCURRENT + WORKERS - 1
    used = sum(one[2] for one in done)
    spent_s = done[-1][0] - done[0][0]
    debts = most * SIZE
    assert used <= TOKENS_A_MINUTE * (1 + spent_s / 60) + debts
    meter = meter_of(board, 0, TokenLimits(money_per_day=1e6, concurrent=1))
    assert meter.machine_in_flight() == 0
    assert meter.spent_micro()[0] == used


def hang(board: Board, slot: int) -> None:
    """Reserve, and never settle."""
    attached = Board.attach(os.dup(board.fd))
    meter = meter_of(attached, slot, TokenLimits(concurrent=3, money_per_day=1.0))
    first = reserve([meter], Estimate(1, 1, 100_000), time.monotonic())
    assert isinstance(first, Reservation)
    first.settle(Usage(input=1, output=1), 100_000, time.monotonic())
    for _ in range(3):
        reserve([meter], Estimate(1, 1, 300_000), time.monotonic())
    attached.cells(GO, 1)[0] = 1
    signal.pause()  # it is killed


def test_a_kill_leaves_nothing_but_what_was_spent(board: Board) -> None:
    """After the burial there is room, and money, for others."""
    child = Child(partial(hang, board, 1))
    meter = meter_of(board, 0, TokenLimits(concurrent=3, money_per_day=1.0))
    deadline = time.monotonic() + TIMEOUT_S
    while board.cells(GO, 1)[0] == 0:
        assert time.monotonic() < deadline
        os.sched_yield()
    child.kill()
    assert meter.machine_in_flight() == 3
    assert not isinstance(reserve([meter], Estimate(1, 1, 1), time.monotonic()), Reservation)
    board.bury(1)
    assert meter.machine_in_flight() == 0
    assert meter.spent_micro()[0] == 100_000
    assert isinstance(reserve([meter], Estimate(1, 1, 900_000), time.monotonic()), Reservation)
