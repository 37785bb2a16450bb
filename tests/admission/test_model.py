"""Random histories: whatever happens, nothing is lost, nobody overtakes, and all comes to rest at zero."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edgeq.admission.bulkhead import Bulkhead
from edgeq.admission.room import Room
from edgeq.admission.ticket import DROPPED, IGNORED, OK, CallbackTicket, Ticket
from edgeq.board.handover import Neighbours
from edgeq.board.layout import Board
from edgeq.board.reading import read
from edgeq.board.resources import MachineWide, Resources
from edgeq.upstream.upstream import Upstream
from edgeq.worker.wheel import NEVER, Wheel

WAITING, HOLDING, GONE = "waiting", "holding", "gone"
MAX_WAIT_S = 1.0


class Workers(RuleBasedStateMachine):
    """Several workers with one limit; some requests end, or begin others, within their callbacks."""

    @initialize(
        count=st.integers(1, 3),
        limit=st.integers(1, 5),
        discipline=st.sampled_from(["fifo", "lifo", "adaptive"]),
        max_queued=st.integers(0, 8),
        max_bytes=st.integers(0, 30),
    )
    def begin(self, count: int, limit: int, discipline: str, max_queued: int, max_bytes: int) -> None:
        """A machine."""
        self.now = 100.0
        self.wheel = Wheel(self.now, 0.1, 16)
        self.workers: list[Bulkhead] = []
        self.configured = (discipline, max_queued, max_bytes, MAX_WAIT_S, count)
        for share in self.shares(count):
            self.workers.append(self.worker(share, limit))
        self.state: dict[CallbackTicket, str] = {}
        self.home: dict[CallbackTicket, Bulkhead] = {}
        self.answers: dict[CallbackTicket, int] = {}

    def shares(self, count: int) -> list[MachineWide]:
        """By which the workers know of each other."""
        room = Room()
        return [room.join(lambda index=index: self.workers[index].dispatch(self.now)) for index in range(count)]  # type: ignore[misc]

    def worker(self, share: MachineWide, limit: int) -> Bulkhead:
        """A new one."""
        bulkhead = Bulkhead("upstream/api", limit, self.now, share)
        bulkhead.configure(*self.configured)
        return bulkhead

    def _granted(self, ticket: CallbackTicket, now: float) -> None:
        assert self.state[ticket] == WAITING
        self.answers[ticket] += 1
        assert ticket.deadline_at > now
        self.state[ticket] = HOLDING
        if ticket.number % 5 == 0:
            self._end(ticket, OK)
        if ticket.number % 7 == 0:
            self._enter(self.home[ticket], ticket.number + 1, b"again", 1, NEVER, 1)

    def _refused(self, ticket: CallbackTicket, reason: str, resource: str, detail: str, retry_after_s: int) -> None:
        assert self.state[ticket] == WAITING
        self.answers[ticket] += 1
        assert 1 <= retry_after_s <= 60
        self.state[ticket] = GONE
        if ticket.number % 11 == 0:
            self._enter(self.home[ticket], ticket.number + 1, b"again", 1, NEVER, 1)

    def _end(self, ticket: CallbackTicket, outcome: int) -> None:
        self.state[ticket] = GONE
        ticket.release(self.now, outcome)

    def _enter(
        self,
        bulkhead: Bulkhead,
        number: int,
        tenant: bytes,
        priority: int,
        deadline_at: float,
        size: int,
        late_s: float = 0.0,
    ) -> None:
        ticket = CallbackTicket(self.now - late_s, self._granted, self._refused, number)
        ticket.tenant, ticket.priority, ticket.deadline_at, ticket.size_bytes = tenant, priority, deadline_at, size
        self.home[ticket] = bulkhead
        self.answers[ticket] = 0
        if bulkhead.try_acquire(ticket, self.now):
            self.state[ticket] = HOLDING
        else:
            self.state[ticket] = WAITING
            bulkhead.offer(ticket, self.now)

    @rule(
        worker=st.integers(0, 2),
        number=st.integers(1, 80),
        tenant=st.sampled_from([b"", b"a", b"b", b"c"]),
        priority=st.integers(0, 2),
        deadline_s=st.sampled_from([NEVER, NEVER, 0.0, 0.05, 0.5]),
        size=st.integers(0, 9),
        copies=st.integers(1, 4),
        late_s=st.sampled_from([0.0, 0.0, 0.01, 0.3, 2.0]),
    )
    def enter(
        self,
        worker: int,
        number: int,
        tenant: bytes,
        priority: int,
        deadline_s: float,
        size: int,
        copies: int,
        late_s: float,
    ) -> None:
        """Requests arrive; some have lain in the kernel."""
        home = self.workers[worker % len(self.workers)]
        for copy in range(copies):
            self._enter(home, number + copy, tenant, priority, self.now + deadline_s, size, late_s)

    def _some(self, state: str, pick: int) -> CallbackTicket | None:
        found = [ticket for ticket, at in self.state.items() if at == state]
        return found[pick % len(found)] if found else None

    @rule(pick=st.integers(0, 99), outcome=st.sampled_from([OK, OK, DROPPED, IGNORED]))
    def end(self, pick: int, outcome: int) -> None:
        """One ends."""
        ticket = self._some(HOLDING, pick)
        if ticket is not None:
            self._end(ticket, outcome)

    @rule(pick=st.integers(0, 99))
    def leave(self, pick: int) -> None:
        """One that waits leaves."""
        ticket = self._some(WAITING, pick)
        if ticket is not None:
            self.state[ticket] = GONE
            self.home[ticket].cancel(ticket, self.now)

    @rule(worker=st.integers(0, 2), guesses=st.booleans())
    def watch(self, worker: int, guesses: bool) -> None:
        """The limit becomes a guess, or is known."""
        home = self.workers[worker % len(self.workers)]
        home.watch(Upstream("api", self.wheel) if guesses else None)

    @rule(pick=st.integers(0, 99))
    def hear(self, pick: int) -> None:
        """An answer begins."""
        ticket = self._some(HOLDING, pick)
        if ticket is not None and self.home[ticket].watcher is not None:
            self.home[ticket].hear(ticket)

    @rule(limit=st.integers(0, 6))
    def resize(self, limit: int) -> None:
        """The limit changes, in one worker after the other."""
        for worker in self.workers:
            worker.resize(limit, self.now)

    @rule(seconds=st.sampled_from([0.001, 0.02, 0.1, 0.7, 3.0]))
    def pass_time(self, seconds: float) -> None:
        """Time passes, and the workers tick."""
        self.now += seconds
        self.tick()

    def tick(self) -> None:
        """Of all workers."""
        for worker in self.workers:
            worker.tick(self.now)
        for ticket, state in self.state.items():
            assert state != WAITING or self.now - ticket.arrived_at < MAX_WAIT_S

    @invariant()
    def in_the_order_of_arrival(self) -> None:
        """All, and each flow, forwards and backwards."""
        for worker in getattr(self, "workers", []):
            forwards: list[Ticket] = []
            ticket = worker.queue.oldest
            while ticket is not None:
                forwards.append(ticket)
                if ticket.flow_newer is not None:
                    assert ticket.flow_newer.flow_older is ticket
                    assert ticket.flow_newer.flow is ticket.flow
                    assert ticket.flow_newer.arrived_at >= ticket.arrived_at
                ticket = ticket.younger
            backwards: list[Ticket] = []
            ticket = worker.queue.newest_arrival
            while ticket is not None:
                backwards.append(ticket)
                ticket = ticket.elder
            assert backwards[::-1] == forwards
            assert len(forwards) == worker.queue.queued
            assert forwards == sorted(forwards, key=lambda one: one.arrived_at)

    @invariant()
    def sums(self) -> None:
        """Each worker counts what is there."""
        for worker in getattr(self, "workers", []):
            mine = [ticket for ticket, home in self.home.items() if home is worker]
            waiting = [ticket for ticket in mine if self.state[ticket] == WAITING]
            assert worker.in_flight == sum(self.state[ticket] == HOLDING for ticket in mine)
            assert worker.counted == worker.in_flight - worker.excused
            assert worker.excused <= worker.stuck
            assert worker.queue.queued == len(waiting) == sum(worker.queue.by_class())
            assert worker.queue.queued_bytes == sum(ticket.size_bytes for ticket in waiting)
            assert sum(worker.queue.tenants().values()) == len(waiting)
            assert all((ticket.waits_in is worker) == (ticket in waiting) for ticket in mine)
            assert not worker.queue.shed
            heard = [ticket for ticket in mine if ticket.heard]
            assert worker.heard == len(heard)
            assert all(self.state[ticket] == HOLDING for ticket in heard)

    @invariant()
    def who_waits_for_long_answers_starves(self) -> None:
        """At once if all answers have begun; else only after a silence."""
        for worker in getattr(self, "workers", []):
            starves = worker.starves(self.now, self.now, 0.0)
            waits = worker.queue.queued or worker.shared.others_oldest_at() < NEVER
            long = 0 < worker.in_flight == worker.heard
            assert starves == bool(worker.watcher is not None and waits and long)

    @invariant()
    def never_a_waiter_beside_a_free_place(self) -> None:
        """On the whole machine."""
        workers = getattr(self, "workers", [])
        if any(worker.queue.queued for worker in workers):
            assert sum(worker.counted for worker in workers) >= workers[0].limit

    @invariant()
    def each_is_answered_once(self) -> None:
        """Granted or refused, never both, never twice."""
        assert all(count <= 1 for count in getattr(self, "answers", {}).values())

    def teardown(self) -> None:
        """Everything ends, and nothing is left."""
        if not hasattr(self, "workers"):
            return
        for _ in range(10_000):
            ticket = self._some(HOLDING, 0)
            if ticket is None:
                break
            self._end(ticket, OK)
        self.sums()
        for worker in self.workers:
            assert (worker.in_flight, worker.counted, worker.stuck, worker.queue.queued) == (0, 0, 0, 0)
            assert worker.queue.queued_bytes == 0
            assert worker.repairs == 0
            assert worker.queue.oldest is None


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class WorkersOnABoard(Workers):
    """The same over the cells of a real board; bells are heard at once, and workers die."""

    board: Board

    def shares(self, count: int) -> list[MachineWide]:
        """By which the workers know of each other."""
        self.board = Board.create(count)
        self.board.assign_resources(["upstream/api"])
        for slot in range(count):
            self.board.use(slot)
        self.resources = [self.resources_of(slot) for slot in range(count)]
        return [one.bind("upstream/api") for one in self.resources]

    def resources_of(self, slot: int) -> Resources:
        """Of a new worker."""
        return Resources(self.board, Neighbours(self.board, slot, self.ring))

    def ring(self, slot: int) -> None:
        """A worker looks, unless it is about to be made."""
        if slot < len(self.workers):
            self.resources[slot].neighbours.answer(int(self.now * 1e9))
            self.workers[slot].dispatch(self.now)

    def tick(self) -> None:
        """Of all workers."""
        for resources, worker in zip(self.resources, self.workers, strict=True):
            resources.tick(self.now)
            worker.tick(self.now)

    @precondition(lambda self: len(self.workers) > 1)
    @rule(worker=st.integers(0, 2))
    def die(self, worker: int) -> None:
        """kill -9: its requests are gone without a word, a new worker takes its row, the others tick."""
        slot = worker % len(self.workers)
        dead = self.workers[slot]
        for ticket in [ticket for ticket, home in self.home.items() if home is dead]:
            self.state[ticket] = GONE
            del self.home[ticket]
        self.board.bury(slot)
        self.resources[slot] = self.resources_of(slot)
        self.workers[slot] = self.worker(self.resources[slot].bind("upstream/api"), dead.limit)
        self.tick()

    @invariant()
    def the_board_says_so(self) -> None:
        """Its sums are those of the workers, at once if there are several; and never above limit and bounds."""
        workers = getattr(self, "workers", [])
        if len(workers) > 1:
            reading = read(self.board, 0, False)
            assert reading.in_flight == sum(worker.in_flight for worker in workers)
            assert reading.counted == sum(worker.counted for worker in workers)
            assert reading.queued == sum(worker.queue.queued for worker in workers)
            assert reading.queued_bytes == sum(worker.queue.queued_bytes for worker in workers)
            assert reading.queued < 2 * max(1, self.configured[1]) + len(workers)

    def teardown(self) -> None:
        """Everything ends, and the board is empty."""
        super().teardown()
        if hasattr(self, "workers"):
            self.tick()
            for resources in self.resources:
                resources.flush()
            reading = read(self.board, 0, False)
            assert (reading.in_flight, reading.counted, reading.queued, reading.oldest_ns) == (0, 0, 0, 0)
            self.board.close()


TestWorkersOnABoard = WorkersOnABoard.TestCase
TestWorkersOnABoard.settings = TestWorkers.settings
