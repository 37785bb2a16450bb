"""Resources: each worker writes its own, everybody reads all, turns go in order, and the dead hold nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edgeq.board import resources
from edgeq.board.handover import PATIENCE_NS, Neighbours
from edgeq.board.layout import RESOURCES, STATE_DRAINING, STATE_SERVING, Board
from edgeq.board.reading import read
from edgeq.board.resources import DROPPED, IGNORED, LAST, OK, MachineWide, Resources, turn_of
from edgeq.worker.wheel import NEVER

PATIENCE_S = PATIENCE_NS / 1e9
API = "upstream/api"
SLOW = "upstream/slow"


class Machine:
    """A board with workers that ring each other's bells by a list."""

    def __init__(self, workers: int, names: list[str] | None = None) -> None:
        self.board = Board.create(4)
        self.board.assign_resources(names or [API, SLOW])
        self.rung: list[int] = []
        for slot in range(workers):
            self.board.use(slot)
        self.workers = [self.worker(slot) for slot in range(workers)]

    def worker(self, slot: int) -> Resources:
        return Resources(self.board, Neighbours(self.board, slot, self.rung.append))

    def tick(self, now: float = 0.0) -> None:
        for worker in self.workers:
            worker.tick(now)


@pytest.fixture
def two() -> Iterator[Machine]:
    machine = Machine(2)
    yield machine
    machine.board.close()


def test_in_flight_is_seen_by_the_others_at_once(two: Machine) -> None:
    """Limits of the machine depend on it; nothing of another resource is mixed in."""
    mine, theirs = (worker.bind(API) for worker in two.workers)
    two.workers[1].bind(SLOW).set_in_flight(100, 100)
    theirs.set_in_flight(3, 3)
    mine.set_in_flight(2, 2)
    assert (mine.others_in_flight(), theirs.others_in_flight()) == (3, 2)
    assert read(two.board, mine.index).in_flight == 5


def test_who_is_alone_asks_nobody() -> None:
    """One worker has no others until it has seen one on its tick."""
    machine = Machine(1)
    cells = machine.workers[0].bind(API)
    assert (cells.alone, cells.others_in_flight(), cells.others_wait(), cells.hand_over(NEVER, 1.0)) == (
        True, 0, False, False,
    )  # fmt: skip
    machine.board.use(1)
    machine.worker(1).bind(API).set_in_flight(4, 4)
    machine.tick()
    assert (cells.alone, cells.others_in_flight()) == (False, 4)
    machine.board.close()


def test_the_interface_alone_is_a_stand_in() -> None:
    """A bulkhead without a board works with this."""
    shared = MachineWide()
    shared.set_in_flight(3, 3)
    shared.set_waiting(1, 10, 5.0)
    assert (shared.others_in_flight(), shared.others_wait(), shared.oldest_elsewhere(LAST)) == (0, False, -1)


def test_counters_reach_the_board_on_the_tick(two: Machine) -> None:
    """By outcome, by reason, with both histograms; readers see all workers."""
    one, other = (worker.bind(API) for worker in two.workers)
    for cells in (one, other):
        cells.admitted(0.0)
        cells.admitted(0.002)
        cells.finished(0.02, OK)
        cells.finished(1.0, DROPPED)
        cells.refused("queue_full")
    other.finished(5e-06, IGNORED)
    other.refused("no such reason")
    assert read(two.board, one.index).counters[resources.ADMITTED] == 0
    two.tick()
    two.tick()
    reading = read(two.board, one.index)
    assert reading.snapshot(0) == {
        "in_flight": 0, "counted": 0, "queued": 0, "queued_bytes": 0, "queued_high": 0, "oldest_ms": 0,
        "admitted": 4, "ok": 2, "dropped": 2, "ignored": 1, "refused": {"queue_full": 2, "other": 1},
        "wait_us": {"p50": 0, "p95": pytest.approx(2000, rel=0.04), "p99": pytest.approx(2000, rel=0.04)},
        "service_us": {key: pytest.approx(20_000, rel=0.04) for key in ("p50", "p95", "p99")},
    }  # fmt: skip
    assert reading.counters[resources.SERVICE_US] == 40_000
    assert reading.counters[resources.WAIT_US] == 4000


def test_a_window_between_two_readings(two: Machine) -> None:
    """What a learned limit is made of: only what came since; a short reading has the sums only."""
    cells = two.workers[0].bind(API)
    cells.finished(0.0005, OK)
    two.tick()
    before, short_before = read(two.board, cells.index), read(two.board, cells.index, histograms=False)
    cells.finished(0.003, OK)
    cells.set_in_flight(7, 7)
    two.tick()
    window = read(two.board, cells.index).since(before)
    assert (window.counters[OK], window.in_flight, window.services().count) == (1, 7, 1)
    assert window.services().quantile(0.5) == pytest.approx(3000, rel=0.04)
    short = read(two.board, cells.index, histograms=False).since(short_before)
    assert short.counters[resources.SERVICE_US] == 3000
    with pytest.raises(ValueError, match="buckets"):
        short.services()


def test_high_water_is_of_the_machine_and_survives(two: Machine) -> None:
    """The most that waited at the same time, wherever they waited, whoever is dead."""
    one, other = (worker.bind(API) for worker in two.workers)
    one.set_waiting(3, 300, 10.0)
    other.set_waiting(4, 400, 20.0)
    one.set_waiting(1, 100, 11.0)
    reading = read(two.board, one.index)
    assert (reading.queued, reading.queued_bytes, reading.queued_high, reading.oldest_ns) == (5, 500, 7, 11 * 10**9)
    two.board.bury(1)
    reading = read(two.board, one.index)
    assert (reading.queued, reading.queued_high) == (1, 7)


def test_high_water_begins_anew(two: Machine) -> None:
    """In each worker at its next tick, at what waits now in all of them; also what the dead have left is forgotten."""
    mine, theirs = (worker.bind(API) for worker in two.workers)
    mine.set_waiting(5, 0, 1.0)
    theirs.set_waiting(4, 0, 1.0)
    two.board.bury(1)
    two.workers[1] = two.worker(1)
    theirs = two.workers[1].bind(API)
    theirs.set_waiting(1, 0, 1.0)
    mine.set_waiting(2, 0, 1.0)
    assert read(two.board, mine.index).queued_high == 9
    two.board.begin_highs()
    two.tick()
    assert read(two.board, mine.index).queued_high == 3
    mine.set_waiting(0, 0, NEVER)
    theirs.set_waiting(4, 0, 1.0)
    two.tick()
    assert read(two.board, mine.index).queued_high == 4


def test_who_crowds_a_queue_is_known_to_the_others_while_he_does(two: Machine) -> None:
    """By a key; a dead worker's crowd is gone."""
    one, other = (worker.bind(API) for worker in two.workers)
    one.set_crowd(77)
    assert (one.others_crowds(), other.others_crowds()) == ([], [77])
    other.set_crowd(78)
    one.set_crowd(0)
    assert (one.others_crowds(), other.others_crowds()) == ([78], [])
    two.board.bury(1)
    assert one.others_crowds() == []


def test_burial_frees_permits_and_keeps_what_was_done(two: Machine) -> None:
    """Gauges of the dead are gone in all tables, counters stay, also of two deaths in one slot."""
    mine = two.workers[0].bind(API)
    for life in (1, 2):
        worker = two.worker(1)
        cells = worker.bind(API)
        cells.set_in_flight(5, 5)
        cells.set_waiting(2, 20, 30.0)
        cells.finished(0.0001, OK)
        worker.bind_tenant("upstream/api", b"acme").set_in_flight(5, 5)
        worker.bind_endpoint("api#1").put(0, 9)
        worker.tick(0.0)
        two.board.bury(1)
        assert (mine.others_in_flight(), mine.others_wait()) == (0, False)
        reading = read(two.board, mine.index)
        assert (reading.in_flight, reading.queued, reading.oldest_ns) == (0, 0, 0)
        assert (reading.counters[OK], reading.services().count) == (life, life)
        assert two.workers[0].bind_tenant("upstream/api", b"acme").others_in_flight() == 0
        assert two.workers[0].bind_endpoint("api#1").total(0) == 0


def test_a_turn_is_given_to_who_waits_longest(two: Machine) -> None:
    """Only if it is before our own; and who arrives sees that somebody waits."""
    mine, theirs = (worker.bind(API) for worker in two.workers)
    theirs.set_waiting(1, 0, 10.0)
    assert mine.others_wait()
    turn = 10 * 10**9
    assert (mine.oldest_elsewhere(turn + 1), mine.oldest_elsewhere(turn), mine.oldest_elsewhere(turn - 1)) == (
        1,
        -1,
        -1,
    )
    assert mine.hand_over(15.0, 100.0)
    assert not mine.hand_over(5.0, 100.0)
    assert two.rung == [1]
    theirs.set_waiting(0, 0, NEVER)
    assert not mine.others_wait()


def test_one_ring_is_enough_until_it_is_answered(two: Machine) -> None:
    """Who has been rung looks at everything at once."""
    mine, theirs = (worker.bind(API) for worker in two.workers)
    theirs.set_waiting(1, 0, 0.1)
    assert mine.hand_over(NEVER, 1.0)
    assert mine.hand_over(NEVER, 1.001)
    assert two.rung == [1]
    two.workers[1].neighbours.answer(1_002_000_000)
    assert mine.hand_over(NEVER, 1.003)
    assert two.rung == [1, 1]


def test_who_does_not_look_is_passed_over_until_it_does(two: Machine) -> None:
    """A stuck worker must not keep the slots of the machine free; its waiters do not count meanwhile."""
    mine, theirs = (worker.bind(API) for worker in two.workers)
    theirs.set_waiting(1, 0, 0.1)
    assert mine.hand_over(NEVER, 1.0)
    assert mine.hand_over(NEVER, 1.0 + 0.9 * PATIENCE_S)
    assert not mine.hand_over(NEVER, 1.0 + 1.1 * PATIENCE_S)
    assert not mine.others_wait()
    two.workers[0].tick(1.1)
    assert not mine.others_wait()
    two.workers[1].tick(1.2)
    two.workers[0].tick(1.2001)
    assert mine.others_wait()
    assert mine.hand_over(NEVER, 1.3)


def test_the_next_one_in_order_is_asked_when_the_first_is_stuck() -> None:
    """Three workers wait; the first two in order do not hear."""
    machine = Machine(4)
    cells = [worker.bind(API) for worker in machine.workers]
    for slot in (1, 2, 3):
        cells[slot].set_waiting(1, 0, 0.1 + slot)
    assert cells[0].hand_over(NEVER, 1.0)
    machine.workers[3].tick(1.001)
    later = 1.0 + 1.1 * PATIENCE_S
    assert cells[0].hand_over(NEVER, later)
    assert machine.rung == [1, 2]
    assert cells[0].hand_over(NEVER, later + 1.1 * PATIENCE_S)
    assert machine.rung == [1, 2, 3]
    machine.board.close()


def test_turns_by_class_then_by_order() -> None:
    """Critical ones first; oldest or newest first inside a class; all fit a cell and come before LAST."""
    old, new = 10**15, 2 * 10**15
    turns = [
        turn_of(0, old),
        turn_of(0, new),
        turn_of(1, old),
        turn_of(2, new, newest_first=True),
        turn_of(2, old, newest_first=True),
    ]
    assert turns == sorted(turns)
    assert 0 < turns[0]
    assert turns[-1] < LAST


def test_a_tenant_is_counted_by_resource_and_name(two: Machine) -> None:
    """Machine-wide, and gone when the last worker lets go."""
    mine, theirs = (worker.bind_tenant("upstream/api", b"acme") for worker in two.workers)
    other = two.workers[1].bind_tenant("route/acme", b"")
    theirs.set_in_flight(2, 2)
    other.set_in_flight(9, 9)
    theirs.set_waiting(1, 10, 0.0, turn=77)
    assert mine.others_in_flight() == 2
    assert (mine.others_wait(), mine.oldest_elsewhere(80), mine.oldest_elsewhere(70)) == (True, 1, -1)
    assert two.workers[1].bind_tenant("upstream/api", b"acme") is theirs
    two.workers[1].forget_tenant(theirs)
    assert (mine.others_in_flight(), mine.others_wait()) == (0, False)


def test_endpoints_tell_the_newest_and_the_sum(two: Machine) -> None:
    """As ejections and counters of answers need it, with one who leads."""
    for slot in (0, 1):
        two.board.row(slot).begin(100 + slot, 1)
    one, other = (worker.bind_endpoint("upstream/api#10.0.0.7:9000") for worker in two.workers)
    one.put(0, 500)
    other.put(0, 700)
    assert (one.newest(0), one.total(0), one.newest(1)) == (700, 1200, 0)


def test_the_lowest_fresh_serving_slot_leads(two: Machine) -> None:
    """Who starts, drains or hangs does not."""
    board, second = two.board, 10**9
    assert board.leader(second) == -1
    for slot in (0, 1):
        board.row(slot).set_state(STATE_SERVING)
        board.row(slot).beat(second, 0, 0, 0)
    assert (board.leader(second), two.workers[0].leads(1.0), two.workers[1].leads(1.0)) == (0, True, False)
    board.row(1).beat(2 * second, 0, 0, 0)
    assert board.leader(2 * second + 1) == 1
    board.row(0).beat(2 * second, 0, 0, 0)
    board.row(0).set_state(STATE_DRAINING)
    assert board.leader(2 * second + 1) == 1


def test_a_learned_limit_outlives_its_leader(two: Machine) -> None:
    """The next one goes on from it."""
    two.workers[0].bind(API).publish_limit(16)
    two.board.bury(0)
    assert two.workers[1].bind(API).learned_limit() == 16
    assert two.workers[1].bind(SLOW).learned_limit() == 0


def test_an_index_in_use_is_kept_and_a_reused_one_begins_at_zero() -> None:
    """More names come than there are indices: the first one is busy, the second is gone and idle."""
    machine = Machine(1, ["busy", "idle"])
    worker = machine.workers[0]
    busy, idle = worker.bind("busy"), worker.bind("idle")
    busy.set_in_flight(1, 1)
    idle.finished(0.0001, OK)
    idle.publish_limit(9)
    machine.tick()
    machine.board.assign_resources([f"new/{n}" for n in range(RESOURCES)])
    assert machine.board.resource_index("busy") == busy.index
    successor = next(n for n in range(RESOURCES) if machine.board.resource_index(f"new/{n}") == idle.index)
    cells = worker.bind(f"new/{successor}")
    assert (cells.learned_limit(), read(machine.board, cells.index).counters[OK]) == (0, 0)
    cells.finished(0.0001, OK)
    machine.tick()
    machine.board.bury(0)
    assert read(machine.board, cells.index).counters[OK] == 1
    machine.board.close()


def test_resources_beyond_the_last_index_are_counted_together_and_limited_alone() -> None:
    """No sum of strangers becomes a limit."""
    machine = Machine(2)
    ones, twos = ([worker.bind(name) for worker in machine.workers] for name in ("one", "two"))
    assert all(cells.is_apart and cells.alone for cells in (*ones, *twos))
    ones[0].set_in_flight(5, 5)
    assert ones[1].others_in_flight() == 0
    for cells in (*ones, *twos):
        cells.refused("queue_full")
        cells.publish_limit(4)
        assert cells.learned_limit() == 4  # its own
    assert machine.board.learned_limit(RESOURCES - 1) == 0
    machine.tick()
    assert read(machine.board, RESOURCES - 1).refusals() == {"queue_full": 4}
    machine.board.close()


def test_bound_once_by_name(two: Machine) -> None:
    """A reload finds what runs; a forgotten name is flushed and bound anew."""
    worker = two.workers[0]
    cells = worker.bind(API)
    cells.finished(1e-06, OK)
    assert worker.bind(API) is cells
    worker.forget(worker.bind(API))
    assert worker.bind(API) is not cells
    assert read(two.board, cells.index).counters[OK] == 1


class MiniBulkhead:
    """The smallest queue with a limit that follows the rules of resources.py."""

    def __init__(self, cells: resources.MachineWide, limit: int) -> None:
        self.cells = cells
        self.limit = limit
        self.running: list[float] = []
        self.waiting: list[float] = []

    def arrive(self, now: float) -> None:
        self.waiting.append(now)
        self._publish()
        self.look(now)

    def release(self, now: float) -> None:
        self.running.pop()
        self._publish()
        self.look(now)

    def look(self, now: float) -> list[float]:
        admitted: list[float] = []
        while len(self.running) + self.cells.others_in_flight() < self.limit:
            oldest_at = self.waiting[0] if self.waiting else NEVER
            if self.cells.hand_over(oldest_at, now) or not self.waiting:
                break
            admitted.append(self.waiting[0])
            self.running.append(self.waiting.pop(0))
            self._publish()
        return admitted

    def _publish(self) -> None:
        self.cells.set_in_flight(len(self.running), len(self.running))
        self.cells.set_waiting(len(self.waiting), 0, self.waiting[0] if self.waiting else NEVER)


class HandoverModel(RuleBasedStateMachine):
    """Random arrivals, ends and deaths at three workers; bells ring when they ring. One queue, in order of arrival."""

    slots = st.integers(0, 2)

    @initialize(limit=st.integers(1, 4), tenant=st.booleans())
    def create(self, limit: int, tenant: bool) -> None:
        self.machine = Machine(3)
        self.limit = limit
        self.tenant = tenant
        self.now = 1.0
        self.queues = [self.queue(worker) for worker in self.machine.workers]

    def queue(self, worker: Resources) -> MiniBulkhead:
        cells: resources.MachineWide = worker.bind_tenant("r", b"t") if self.tenant else worker.bind(API)
        return MiniBulkhead(cells, self.limit)

    def step(self) -> float:
        self.now += 0.001
        return self.now

    @rule(slot=slots)
    def arrive(self, slot: int) -> None:
        self.queues[slot].arrive(self.step())

    @precondition(lambda self: any(queue.running for queue in self.queues))
    @rule(slot=slots)
    def release(self, slot: int) -> None:
        running = [queue for queue in self.queues if queue.running]
        running[slot % len(running)].release(self.step())

    @precondition(lambda self: self.machine.rung)
    @rule(which=st.integers(0, 5))
    def hear(self, which: int) -> None:
        slot = self.machine.rung.pop(which % len(self.machine.rung))
        self.machine.workers[slot].neighbours.answer(int(self.step() * 1e9))
        others = [queue.waiting[0] for queue in self.queues if queue.waiting and queue is not self.queues[slot]]
        for arrived_at in self.queues[slot].look(self.now):
            assert all(arrived_at < other for other in others)

    @rule(slot=slots)
    def die(self, slot: int) -> None:
        self.machine.board.bury(slot)
        self.machine.workers[slot] = self.machine.worker(slot)
        self.queues[slot] = self.queue(self.machine.workers[slot])

    @invariant()
    def never_above_the_limit(self) -> None:
        assert sum(len(queue.running) for queue in self.queues) <= self.limit

    def teardown(self) -> None:
        if not hasattr(self, "machine"):
            return
        # Let all run dry: ticks alone must admit everybody, and nothing must stay behind.
        for _ in range(200):
            for worker, queue in zip(self.machine.workers, self.queues, strict=True):
                worker.tick(self.step())
                queue.look(self.now)
                if queue.running:
                    queue.release(self.step())
            if not any(queue.running or queue.waiting for queue in self.queues):
                break
        assert not any(queue.running or queue.waiting for queue in self.queues)
        assert all(queue.cells.others_in_flight() == 0 for queue in self.queues)
        self.machine.board.close()


TestHandoverModel = HandoverModel.TestCase
TestHandoverModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
