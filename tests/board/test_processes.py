"""Four real processes on one board: how far a limit is passed, in which order slots go, what a rate loses, who dies.

What is asserted does not depend on how fast the machine is: order and overlap come from the stamps that the processes
took, and the rate is compared with the same attempts in one process.
"""

from __future__ import annotations

import heapq
import os
import random
import select
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from edgeq.board.gcra_table import GcraTable
from edgeq.board.handover import Neighbours
from edgeq.board.handover_io import Bells
from edgeq.board.layout import Board
from edgeq.board.reading import read
from edgeq.board.resources import ResourceCells, Resources
from edgeq.board.spent import SpentTable
from edgeq.worker.wheel import NEVER
from tests.support.forked import TIMEOUT_S, Child

WORKERS = 4
LIMIT = 3
API = "upstream/api"
SERVICE_S = 0.002
TICK_S = 0.05
GO = 60
"""A cell of the header that nothing else uses: 0 until all may begin; then how many must be done before any leaves."""


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board.create(WORKERS)
    made.assign_resources([API])
    bells = Bells()
    bells.ensure(WORKERS - 1)
    made.bells.extend(bells.fds)
    for slot in range(WORKERS):
        made.use(slot)
    yield made
    bells.close()
    made.close()


class Queue:
    """A worker with a queue, by the rules of resources.py."""

    def __init__(self, board: Board, slot: int) -> None:
        def ring(other: int) -> None:
            os.eventfd_write(board.bells[other], 1)

        # Patience without end: a machine that is busy with other things must not change the order.
        self.resources = Resources(board, Neighbours(board, slot, ring, patience_ns=10**12))
        self.cells: ResourceCells = self.resources.bind(API)
        self.bell = board.bells[slot]
        self.waiting: list[float] = []
        self.ends: list[tuple[float, float, float, float]] = []
        """When, arrived, looked, began."""
        self.done: list[tuple[float, float, float, float]] = []
        """Arrived, looked (for its turn, which it had), began, ended."""
        self.limit = 0

    def arrive(self, arrived_at: float) -> None:
        self.waiting.append(arrived_at)
        self.publish()

    def publish(self) -> None:
        self.cells.set_waiting(len(self.waiting), 0, self.waiting[0] if self.waiting else NEVER)

    def look(self) -> None:
        while len(self.ends) + self.cells.others_in_flight() < self.limit:
            oldest_at = self.waiting[0] if self.waiting else NEVER
            looked = time.monotonic()
            if self.cells.hand_over(oldest_at, looked) or not self.waiting:
                break
            self.cells.set_in_flight(len(self.ends) + 1, len(self.ends) + 1)
            began = time.monotonic()
            heapq.heappush(self.ends, (began + SERVICE_S, self.waiting.pop(0), looked, began))
            self.publish()

    def run(self, is_over: Callable[[], bool]) -> list[tuple[float, float, float, float]]:
        """Until nothing waits or runs here and it is over. Returns what was done."""
        poll = select.poll()
        poll.register(self.bell, select.POLLIN)
        next_tick = 0.0
        while self.waiting or self.ends or not is_over():
            now = time.monotonic()
            until = min(next_tick, self.ends[0][0]) if self.ends else next_tick
            if poll.poll(max(0.0, until - now) * 1000):
                os.eventfd_read(self.bell)
                self.resources.neighbours.answer(time.monotonic_ns())
                self.look()
            now = time.monotonic()
            while self.ends and self.ends[0][0] <= now:
                _, arrived, looked, began = self.ends[0]
                self.done.append((arrived, looked, began, time.monotonic()))
                heapq.heappop(self.ends)
                self.cells.set_in_flight(len(self.ends), len(self.ends))
                self.cells.finished(now - began, 1)
                self.look()
            if now >= next_tick:
                next_tick = now + TICK_S
                self.resources.tick(now)
                self.look()
        self.resources.tick(time.monotonic())
        return self.done


def waiters(slot: int, count: int, base: float) -> list[float]:
    """Arrivals of one worker; those of all workers lie between each other, at random."""
    draw = random.Random(slot)
    return sorted(base + draw.random() for _ in range(count))


def serve(board: Board, slot: int, count: int, base: float) -> list[tuple[float, float, float, float]]:
    queue = Queue(Board.attach(os.dup(board.fd), board.bells), slot)
    for arrived_at in waiters(slot, count, base):
        queue.arrive(arrived_at)
    go = board.cells(GO, 1)
    while go[0] == 0:
        os.sched_yield()
    queue.limit = LIMIT
    # Nobody leaves before all are served: also who has nothing left frees slots for others.
    return queue.run(lambda: sum(read(board, queue.cells.index, False).counters[1:2]) >= go[0])


def wait_until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not what():
        assert time.monotonic() < deadline
        os.sched_yield()


def overlap(spans: list[tuple[float, float]]) -> int:
    """The most that ran at one moment."""
    changes = sorted([(began, 1) for began, _ in spans] + [(ended, -1) for _, ended in spans])
    most = running = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    return most


def test_one_queue_for_the_machine(board: Board) -> None:
    """Overshoot is workers - 1 at most, and slots go to who has waited longest, wherever that is."""
    count = 60
    base = time.monotonic() - 10.0
    children = [Child(partial(serve, board, slot, count, base)) for slot in range(WORKERS)]
    index = board.resource_index(API)
    wait_until(lambda: read(board, index, False).queued == WORKERS * count)
    board.cells(GO, 1)[0] = WORKERS * count
    done = [tuple(one) for child in children for one in child.result()]
    assert len(done) == WORKERS * count
    assert overlap([(began, ended) for _, _, began, ended in done]) <= LIMIT + WORKERS - 1
    # Those who begin in the same moment have no order among them: a worker may lose its processor between its look and
    # its stamp, and others begin meanwhile.
    for arrived, looked, began, _ in done:
        assert sum(other[0] > arrived and other[2] < looked for other in done) < LIMIT + WORKERS, "was overtaken"
        assert sum(other[0] < arrived and other[1] > began for other in done) < LIMIT + WORKERS, "has overtaken"
    reading = read(board, index)
    assert (reading.in_flight, reading.queued, reading.oldest_ns) == (0, 0, 0)
    assert reading.services().count == WORKERS * count


def test_kill_under_load_leaves_no_permit(board: Board) -> None:
    """A worker dies with permits and waiters; after its burial the others use the whole limit and finish."""
    count = 60
    base = time.monotonic() - 10.0
    children = [Child(partial(serve, board, slot, count, base)) for slot in range(WORKERS)]
    index = board.resource_index(API)
    wait_until(lambda: read(board, index, False).queued == WORKERS * count)
    board.cells(GO, 1)[0] = 2**40
    victim = board.resource_block(2, index)
    wait_until(lambda: victim[0] > 0 and victim[1] < count - 5)
    children[2].kill()
    assert victim[0] + victim[1] > 0
    board.bury(2)
    assert victim[0] + victim[1] == 0
    wait_until(lambda: read(board, index, False).queued == 0)
    wait_until(lambda: read(board, index, False).in_flight == 0)
    board.cells(GO, 1)[0] = 1
    done = [tuple(one) for slot in (0, 1, 3) for one in children[slot].result()]
    assert len(done) == 3 * count
    reading = read(board, index)
    assert (reading.in_flight, reading.counted, reading.queued, reading.oldest_ns) == (0, 0, 0, 0)


RATE = 1000
BURST = 100
EACH_NS = 10**9 // RATE
KEY = 12345


def attempt(table: Any, now_ns: int) -> bool:
    """GCRA, as policy/rate.py has it."""
    if max(table.get(KEY), now_ns) + EACH_NS - BURST * EACH_NS > now_ns:
        return False
    table.charge(KEY, EACH_NS, now_ns)
    return True


def ask(board: Board, slot: int) -> list[tuple[int, bool]]:
    """Attempts at random moments, 500/s, for two seconds."""
    table = GcraTable(Board.attach(os.dup(board.fd)), slot)
    draw = random.Random(slot)
    made = []
    at = time.monotonic()
    end = at + 2.0
    while at < end:
        time.sleep(max(0.0, at - time.monotonic()))  # the load's own clock, nothing waits for it
        now_ns = time.monotonic_ns()
        made.append((now_ns, attempt(table, now_ns)))
        at += draw.expovariate(500)
    return made


class OneTable(dict[int, int]):
    """The same with nobody else."""

    def get(self, key: int, default: Any = 0) -> Any:
        return super().get(key, 0)

    def charge(self, key: int, cost_ns: int, now_ns: int) -> None:
        self[key] = max(self.get(key), now_ns) + cost_ns


def test_a_rate_of_the_machine_is_off_by_less_than_one_percent(board: Board) -> None:
    """Twice as much as allowed is asked for by four workers; as many are admitted as if one had decided."""
    children = [Child(partial(ask, board, slot)) for slot in range(WORKERS)]
    made = sorted((at_ns, admitted) for child in children for at_ns, admitted in child.result())
    table = OneTable()
    ideal = sum(attempt(table, at_ns) for at_ns, _ in made)
    actual = sum(admitted for _, admitted in made)
    assert ideal < len(made)
    assert abs(actual - ideal) / ideal < 0.01


CHARGES = 20_000


def charge(board: Board, slot: int) -> None:
    """Charge one key and pay it back, and spend, without a pause."""
    attached = Board.attach(os.dup(board.fd))
    table, spent = GcraTable(attached, slot), SpentTable(attached, slot)
    go = attached.cells(GO, 1)
    while go[0] == 0:
        os.sched_yield()
    for count in range(CHARGES):
        table.charge(KEY, 1 + count % 7, 0)
        table.refund(KEY, count % 7, 0)
        spent.add(KEY, 1000, count % 5, 0)


def test_nothing_that_is_charged_is_lost(board: Board) -> None:
    """However often four workers are between a load and a store at the same moment."""
    table, spent = GcraTable(board, 0), SpentTable(board, 0)
    table.delay(KEY, 10**15)
    children = [Child(partial(charge, board, slot)) for slot in range(WORKERS)]
    board.cells(GO, 1)[0] = 1
    for child in children:
        child.result()
    assert table.get(KEY) == 10**15 + WORKERS * CHARGES
    assert spent.spent(KEY, 1000) == WORKERS * sum(count % 5 for count in range(CHARGES))
