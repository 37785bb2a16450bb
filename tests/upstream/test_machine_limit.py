"""A limit of the machine that one worker learns: the workers' upstreams over one board, with a clock of their own."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import pytest

from edgeq.admission.elsewhere import Elsewhere
from edgeq.admission.limits import Totals
from edgeq.admission.ticket import DROPPED, OK, CallbackTicket
from edgeq.board import resources as counters
from edgeq.board.handover import Neighbours
from edgeq.board.layout import STATE_SERVING, Board
from edgeq.board.reading import read
from edgeq.board.resources import Resources
from edgeq.config.base import Duration
from edgeq.config.schema import Queue
from edgeq.config.schema import Upstream as UpstreamConfig
from edgeq.upstream.upstream import Upstream
from edgeq.worker.wheel import Wheel

LEARNED = UpstreamConfig(endpoints=(), limit="adaptive")
TICK_S = 0.05


class Worker:
    """One worker's upstream and board."""

    def __init__(self, board: Board, slot: int, ring: list[int]) -> None:
        board.use(slot)
        self.row = board.row(slot)
        self.row.begin(1000 + slot, 1)
        self.row.set_state(STATE_SERVING)
        self.resources = Resources(board, Neighbours(board, slot, ring.append))
        self.upstream = Upstream("u", Wheel(0.0, 0.1, 16), 1, self.resources)
        self.refused = 0

    def tick(self, now: float) -> None:
        self.row.beat(int(now * 1e9), 0, 0, 0)
        self.resources.tick(now)
        self.upstream.learn(now)

    def ask(self, now: float) -> CallbackTicket:
        """A request: gets a place, or waits."""
        ticket = CallbackTicket(now, lambda ticket, now: None, self._refused)
        if not self.upstream.bulkhead.try_acquire(ticket, now):
            self.upstream.bulkhead.offer(ticket, now)
        return ticket

    def _refused(self, ticket: CallbackTicket, reason: str, resource: str, detail: str, retry_after_s: int) -> None:
        self.refused += 1


class Machine:
    """Two workers that tick; bells are heard in the order in which they were rung."""

    def __init__(self) -> None:
        self.board = Board.create(2)
        self.board.assign_resources(["upstream/u"])
        for slot in range(2):
            self.board.use(slot)
        self.rung: list[int] = []
        self.workers = [Worker(self.board, slot, self.rung) for slot in range(2)]
        self.now = monotonic()

    def configure(self, config: UpstreamConfig) -> None:
        for worker in self.workers:
            worker.upstream.configure(config, 2)

    def hear(self) -> None:
        while self.rung:
            worker = self.workers[self.rung.pop(0)]
            worker.resources.neighbours.answer(int(self.now * 1e9))
            worker.upstream.look(self.now)

    def tick(self) -> None:
        self.now += TICK_S
        for worker in self.workers:
            worker.tick(self.now)
            self.hear()

    @property
    def limits(self) -> list[int]:
        return [worker.upstream.bulkhead.limit for worker in self.workers]


@pytest.fixture
def two() -> Iterator[Machine]:
    machine = Machine()
    yield machine
    machine.board.close()


def test_the_others_follow(two: Machine) -> None:
    """Who leads publishes what it has learned from both; the other one has it as soon as its bell is heard."""
    two.configure(LEARNED)
    two.tick()
    holding: list[CallbackTicket] = []
    seen: set[int] = set()
    for _ in range(60):
        for worker in two.workers:
            holding += [worker.ask(two.now) for _ in range(10)]
        # Whoever has a place is answered after a tick, however many they are: there is no knee.
        for ticket in [ticket for ticket in holding if ticket.held is not None]:
            holding.remove(ticket)
            ticket.release(two.now, OK)
        two.hear()
        two.tick()
        assert two.limits[0] == two.limits[1] == two.board.learned_limit(0)
        seen.add(two.limits[0])
    assert max(seen) > 8
    totals = Totals()
    two.workers[0].upstream.bulkhead.totals(two.now, totals)
    assert 0 < totals.ok < read(two.board, 0, False).counters[counters.OK]


def test_another_one_goes_on(two: Machine) -> None:
    """When the leader is dead the next one learns from its limit on; when it is back, it does."""
    two.configure(LEARNED)
    two.tick()
    two.workers[0].upstream.shared.publish_limit(7)
    two.tick()
    assert two.limits == [7, 7]
    two.board.bury(0)
    other = two.workers.pop(1)
    two.workers[0] = other
    for _ in range(3):
        two.tick()
    assert (other.upstream.bulkhead.limit, two.board.learned_limit(0)) == (7, 7)
    assert other.upstream.shared.leads(two.now)
    two.workers[:] = [Worker(two.board, 0, two.rung), other]
    two.workers[0].upstream.configure(LEARNED, 2)
    two.tick()
    two.tick()
    assert two.limits == [7, 7]
    assert [worker.upstream.shared.leads(two.now) for worker in two.workers] == [True, False]


def test_a_limit_of_the_configuration_is_not_taken_for_a_learned_one(two: Machine) -> None:
    """A reload from a learned limit to a number and back begins anew."""
    two.configure(LEARNED)
    two.workers[0].upstream.shared.publish_limit(7)
    two.configure(UpstreamConfig(endpoints=(), limit=3))
    two.tick()
    assert (two.limits, two.board.learned_limit(0)) == ([3, 3], 0)
    two.configure(LEARNED)
    two.tick()
    assert two.limits == [two.board.learned_limit(0)] * 2 != [7, 7]


@pytest.mark.parametrize(("number", "expected"), [(5, 5), (0, 3)])
def test_learning_goes_on_from_what_held_before(two: Machine, number: int, expected: int) -> None:
    """From the number of the configuration, or from what is in flight: nobody is refused for a new beginning."""
    two.configure(UpstreamConfig(endpoints=(), limit=number))
    two.tick()
    asked = [worker.ask(two.now) for worker in (*two.workers, two.workers[0])]
    two.tick()
    two.configure(LEARNED)
    assert two.limits == [expected, expected]
    two.tick()
    assert two.limits == [expected, expected]
    assert all(ticket.held is not None for ticket in asked)


@pytest.mark.parametrize("slot", [0, 1])
def test_a_waiter_that_starves_anywhere_is_let_in(slot: int) -> None:
    """Nothing comes back: the leader raises the limit also for who waits at the other one."""
    two = Machine()
    two.configure(UpstreamConfig(endpoints=(), limit="adaptive", queue=Queue(timeout=Duration(1.0))))
    two.tick()
    asked = [two.workers[slot].ask(two.now) for _ in range(4)]
    for _ in range(30):
        two.tick()
    assert all(ticket.held is not None for ticket in asked)
    assert two.workers[slot].refused == 0
    two.board.close()


@pytest.mark.parametrize("slot", [0, 1])
def test_streams_after_a_few_quick_answers_are_let_in(slot: int) -> None:
    """Answers of a moment say nothing of those that take longer than a waiter's patience: they are not refused."""
    two = Machine()
    two.configure(UpstreamConfig(endpoints=(), limit="adaptive", queue=Queue(timeout=Duration(1.0))))
    two.tick()
    for _ in range(3):
        ticket = two.workers[slot].ask(two.now)
        two.now += 0.001
        ticket.release(two.now, OK)
        two.tick()
    asked = [two.workers[slot].ask(two.now) for _ in range(128)]
    for _ in range(30):
        two.tick()
    assert all(ticket.held is not None for ticket in asked)
    assert two.workers[slot].refused == 0
    two.board.close()


def test_answers_that_have_begun_are_long_and_not_late(two: Machine) -> None:
    """One stream was heard of to its end; 128 come at once, and each begins as soon as it is let in."""
    two.configure(UpstreamConfig(endpoints=(), limit="adaptive", queue=Queue(timeout=Duration(1.0))))
    two.tick()
    mine = two.workers[0]
    bulkhead = mine.upstream.bulkhead
    ticket = mine.ask(two.now)
    bulkhead.hear(ticket)
    two.now += 1.3
    ticket.release(two.now, OK)
    two.tick()
    asked = [mine.ask(two.now) for _ in range(128)]
    for _ in range(20):
        for ticket in asked:
            if ticket.held is not None:
                bulkhead.hear(ticket)
        two.tick()
    assert all(ticket.held is not None for ticket in asked)
    assert mine.refused == 0


def test_the_stuck_are_excused_for_the_machine(two: Machine) -> None:
    """No more of them than `max_stuck` do not count, whatever worker has them; and who ends makes room for another."""
    two.configure(UpstreamConfig(endpoints=(), limit=100))
    held = []
    for worker in two.workers:
        worker.upstream.bulkhead.max_stuck = 3
        held.append([worker.ask(two.now) for _ in range(2)])
    for _ in range(700):
        two.tick()
    reading = read(two.board, 0, False)
    assert (reading.in_flight, reading.counted) == (4, 1)
    held[0][0].release(two.now, DROPPED)
    two.tick()
    two.tick()
    reading = read(two.board, 0, False)
    assert (reading.in_flight, reading.counted) == (3, 0)


def test_totals_of_the_machine(two: Machine) -> None:
    """What the other one counts is added; what it had counted before is not; a successor in its slot begins at 0."""
    two.configure(UpstreamConfig(endpoints=(), limit=2))
    mine, theirs = two.workers
    first = theirs.ask(two.now)
    two.now += 1.0
    first.release(two.now, OK)
    two.tick()
    two.tick()
    elsewhere = Elsewhere(mine.upstream.shared)

    def totals() -> Totals:
        found = Totals()
        mine.upstream.bulkhead.totals(two.now, found)
        elsewhere.add_to(found, two.now)
        return found

    assert (totals().ok, elsewhere.finished_at) == (0, 0.0)
    tickets = [theirs.ask(two.now), theirs.ask(two.now), mine.ask(two.now)]
    two.now += 1.0
    tickets[0].release(two.now, OK)
    two.hear()
    theirs.upstream.bulkhead.refused_beyond()
    tickets[1].release(two.now, DROPPED)
    two.now += 1.0
    two.tick()
    two.tick()
    found = totals()
    assert (found.ok, found.dropped, found.busy, found.busy_beside, found.bound_ok) == (1, 0, 1, 1, 1)
    assert found.service_s == pytest.approx(1.0, abs=1e-4)
    assert found.in_flight_s == pytest.approx(2.0, abs=1e-4)
    assert found.bound_s == pytest.approx(1.0, abs=1e-4)
    assert elsewhere.finished_at == two.now
    two.board.bury(1)
    two.workers[1] = theirs = Worker(two.board, 1, two.rung)
    theirs.upstream.configure(UpstreamConfig(endpoints=(), limit=2), 2)
    theirs.ask(two.now).release(two.now, OK)
    two.tick()
    two.tick()
    assert (totals().ok, totals().busy) == (2, 1)


def test_time_at_the_limit_is_the_mean_by_what_each_has_in_flight(two: Machine) -> None:
    """A worker with nothing in flight notices late whether the limit is reached; it hardly weighs."""
    two.configure(UpstreamConfig(endpoints=(), limit=2))
    mine, theirs = two.workers
    elsewhere = Elsewhere(mine.upstream.shared)
    found = Totals()
    held = [theirs.ask(two.now), theirs.ask(two.now)]
    for _ in range(20):
        two.tick()
        mine.upstream.bulkhead.totals(two.now, found)
        elsewhere.add_to(found, two.now)
    assert found.bound_s == pytest.approx(1.0, abs=2.5 * TICK_S)
    for ticket in held:
        ticket.release(two.now, OK)
    bound_s = found.bound_s
    for _ in range(20):
        two.tick()
        mine.upstream.bulkhead.totals(two.now, found)
        elsewhere.add_to(found, two.now)
    assert found.bound_s == pytest.approx(bound_s, abs=2.5 * TICK_S)


def test_who_leads_learns_also_where_it_has_no_requests_itself(two: Machine) -> None:
    """All traffic is at the other one, and the upstream answers four in a tick: the limit does not run away."""
    two.configure(UpstreamConfig(endpoints=(), limit="adaptive", queue=Queue(timeout=Duration(1.0))))
    asked: list[CallbackTicket] = []
    highest = 0
    for tick in range(400):
        asked += [two.workers[1].ask(two.now) for _ in range(8)]
        at_work = [ticket for ticket in asked if ticket.held is not None]
        for ticket in at_work[:4]:
            asked.remove(ticket)
            ticket.release(two.now, OK)
        asked = [ticket for ticket in asked if ticket.held is not None or ticket.waits_in is not None]
        two.hear()
        two.tick()
        if tick > 100:
            highest = max(highest, two.limits[1])
    assert 4 <= two.limits[1]
    assert highest <= 32
