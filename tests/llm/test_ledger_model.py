"""Random histories of several workers on one board: no limit is passed, nothing is charged twice, all comes to rest."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edgeq.board.gcra_table import GcraTable
from edgeq.board.handover import Neighbours
from edgeq.board.layout import Board
from edgeq.config.schema_llm import TokenLimits
from edgeq.llm.estimate import Estimate
from edgeq.llm.ledger import IDLE_S, Ledger, Reservation, reserve
from edgeq.llm.message import UNKNOWN, Usage
from edgeq.llm.meter import CONCURRENT, MINUTE_NS, MODEL, RESERVED, TARGET, TENANT, TOKENS, Meter

SUBJECTS = ((TENANT, "acme"), (TENANT, "other"), (MODEL, "big"), (TARGET, "openai:big"))
MOST_WORKERS = 3
WALL = 1_800_000_000.0


FIRST = TokenLimits(tokens_per_minute=6000, concurrent=3, money_per_day=0.5)
CLOSE = 1e-6
MOST = 60.0
"""No debt is longer, in minutes."""


class Book:
    """What a subject was granted and has used, by plain arithmetic."""

    def __init__(self) -> None:
        self.limits = FIRST
        self.spent_micro = 0
        self.at = 0.0
        self.minutes = 0.0
        """Until its bucket of tokens is full again, in minutes: the part of the bucket that is used."""

    def advance(self, now: float) -> None:
        self.minutes = max(0.0, self.minutes - (now - self.at) / 60)
        self.at = now


class Held:
    def __init__(
        self, worker: int, subjects: list[tuple[int, str]], estimate: Estimate, reservation: Reservation
    ) -> None:
        self.worker = worker
        self.subjects = subjects
        self.estimate = estimate
        self.reservation = reservation
        self.minutes: dict[tuple[int, str], float] = {}
        """What each subject's bucket was charged."""
        self.counts: dict[tuple[int, str], int] = {}
        """The limits in tokens a minute of then."""


class LedgerModel(RuleBasedStateMachine):
    """Each rule is what one worker does at one moment."""

    @initialize(workers=st.integers(1, MOST_WORKERS))
    def begin(self, workers: int) -> None:
        self.now = 1000.0
        self.board = Board.create(MOST_WORKERS)
        for slot in range(workers):
            self.board.use(slot)
        self.ledgers = [self.ledger(slot) for slot in range(workers)]
        self.books = {subject: Book() for subject in SUBJECTS}
        self.held: list[Held] = []

    def ledger(self, slot: int) -> Ledger:
        made = Ledger(GcraTable(self.board, slot), self.board, Neighbours(self.board, slot, lambda _: None))
        made.tick(self.now, WALL + self.now)
        return made

    def meter(self, worker: int, subject: tuple[int, str]) -> Meter:
        kind, name = subject
        return self.ledgers[worker].meter(kind, name, self.books[subject].limits)

    @rule(
        worker=st.integers(0, MOST_WORKERS - 1),
        subjects=st.lists(st.sampled_from(SUBJECTS), min_size=1, max_size=4, unique=True),
        input_tokens=st.integers(0, 300) | st.just(1500),
        output_tokens=st.integers(0, 1200) | st.just(9000),
        cost=st.integers(0, 300_000),
        copies=st.integers(1, 5),
    )
    def ask(
        self,
        worker: int,
        subjects: list[tuple[int, str]],
        input_tokens: int,
        output_tokens: int,
        cost: int,
        copies: int,
    ) -> None:
        """So many want the same, of one worker after the other."""
        for copy in range(copies):
            self.ask_once((worker + copy) % len(self.ledgers), subjects, input_tokens, output_tokens, cost)

    def ask_once(
        self, worker: int, subjects: list[tuple[int, str]], input_tokens: int, output_tokens: int, cost: int
    ) -> None:
        """Reserve; a grant is within each limit, a refusal has a cause and changes nothing."""
        meters = [self.meter(worker, subject) for subject in subjects]
        before = [meter.snapshot(self.now) for meter in meters]
        estimate = Estimate(input_tokens, output_tokens, cost)
        found = reserve(meters, estimate, self.now)
        if not isinstance(found, Reservation):
            for meter, was in zip(meters, before, strict=True):
                now = meter.snapshot(self.now)
                now["refused"] = was["refused"]
                assert now == was
            assert found.wait_s > 0
            if found.what not in (CONCURRENT, RESERVED) and found.wait_s < 3600:
                again = found.meter.ask(estimate, self.now + found.wait_s + 1e-6)
                assert again is None or again.what != found.what
            return
        held = Held(worker, subjects, estimate, found)
        for subject in subjects:
            book = self.books[subject]
            book.advance(self.now)
            limits = book.limits
            if limits.concurrent:
                assert self.running(subject) < limits.concurrent
            if limits.money_per_day and cost:
                assert book.spent_micro + self.reserved(subject) + cost <= limits.money_per_day * 1e6
            minutes = (input_tokens + output_tokens) / limits.tokens_per_minute
            assert book.minutes + min(1.0, minutes) <= 1.0 + CLOSE
            book.minutes += minutes
            held.minutes[subject] = minutes
            held.counts[subject] = limits.tokens_per_minute
        self.held.append(held)

    def running(self, subject: tuple[int, str]) -> int:
        return sum(subject in one.subjects for one in self.held)

    def reserved(self, subject: tuple[int, str]) -> int:
        return sum(one.estimate.cost_micro for one in self.held if subject in one.subjects)

    @rule(
        pick=st.integers(0, 99),
        input_tokens=st.integers(-1, 1500),
        output_tokens=st.integers(-1, 5000),
        cost=st.integers(0, 300_000),
        twice=st.booleans(),
    )
    def settle(self, pick: int, input_tokens: int, output_tokens: int, cost: int, twice: bool) -> None:
        """One ends, and has used more or less than it had reserved."""
        if not self.held:
            return
        held = self.held.pop(pick % len(self.held))
        held.reservation.settle(Usage(input=input_tokens, output=output_tokens), cost, self.now)
        estimate = held.estimate
        used = estimate.input if input_tokens == UNKNOWN else input_tokens
        used += estimate.output if output_tokens == UNKNOWN else output_tokens
        self.correct(held, used)
        for subject in held.subjects:
            if self.books[subject].limits.money_per_day:
                self.books[subject].spent_micro += cost
        if twice:
            held.reservation.settle(Usage(input=10**6, output=10**6), 10**6, self.now)
            held.reservation.cancel(self.now)

    def correct(self, held: Held, used: int) -> None:
        for subject in held.subjects:
            book = self.books[subject]
            book.advance(self.now)
            count = book.limits.tokens_per_minute
            charged = held.minutes[subject]
            if book.minutes > 1 and held.counts[subject] != count:
                worth, debt = (held.estimate.input + held.estimate.output) / count, book.minutes - 1
                charged = worth if worth <= debt else debt + charged * (worth - debt) / worth
            book.minutes = min(MOST, max(0.0, book.minutes + used / count - charged))

    @rule(pick=st.integers(0, 99), sent=st.booleans())
    def cancel(self, pick: int, sent: bool) -> None:
        """One has used nothing."""
        if self.held:
            held = self.held.pop(pick % len(self.held))
            held.reservation.cancel(self.now, sent)
            self.correct(held, 0)

    @rule(seconds=st.sampled_from([0.0, 0.01, 1.0, 7.0, 61.0, 600.0]))
    def pass_time(self, seconds: float) -> None:
        """And the workers tick."""
        self.now += seconds
        for ledger in self.ledgers:
            ledger.tick(self.now, WALL + self.now)

    @rule(
        subject=st.sampled_from(SUBJECTS),
        tokens=st.sampled_from([300, 1000, 6000, 20_000]),
        concurrent=st.sampled_from([0, 2, 3]),
        money=st.sampled_from([0.0, 0.5, 1.0]),
        requests=st.sampled_from([0, 5]),
    )
    def resize(self, subject: tuple[int, str], tokens: int, concurrent: int, money: float, requests: int) -> None:
        """The limits of a subject change in all workers; what was used counts on, as a part of the minute, and what is
        owed beyond it as tokens."""
        book = self.books[subject]
        book.advance(self.now)
        if book.minutes > 1:
            book.minutes = min(MOST, 1 + (book.minutes - 1) * book.limits.tokens_per_minute / tokens)
        book.limits = TokenLimits(
            tokens_per_minute=tokens, concurrent=concurrent, money_per_day=money, requests_per_minute=requests
        )
        for worker in range(len(self.ledgers)):
            self.meter(worker, subject)

    @rule(worker=st.integers(0, MOST_WORKERS - 1))
    def die(self, worker: int) -> None:
        """A worker is killed and buried, and another one takes its place."""
        worker %= len(self.ledgers)
        for held in [one for one in self.held if one.worker == worker]:
            self.held.remove(held)  # what it had charged to rates stays charged
        self.board.bury(worker)
        self.board.use(worker)
        self.ledgers[worker] = self.ledger(worker)

    @invariant()
    def counted_as_they_run(self) -> None:
        """What the board shows is what runs."""
        for subject in SUBJECTS if hasattr(self, "held") else ():
            book = self.books[subject]
            meter = self.meter(0, subject)
            if book.limits.concurrent or book.limits.money_per_day:
                assert meter.machine_in_flight() == self.running(subject)
            assert meter.spent_micro()[0] == book.spent_micro
            allowance = meter.allowance(TOKENS)
            assert allowance is not None
            book.advance(self.now)
            ahead_ns = allowance.ahead_ns(int(self.now * 1e9))
            assert abs(ahead_ns / MINUTE_NS - book.minutes) < CLOSE

    def teardown(self) -> None:
        """All ends: nothing is held, and after a while nothing was used."""
        if not hasattr(self, "held"):
            return
        for held in self.held:
            held.reservation.cancel(self.now)
            self.correct(held, 0)
        self.held = []
        self.counted_as_they_run()
        for subject in SUBJECTS:
            meter = self.meter(0, subject)
            assert (meter.in_flight, meter.reserved_micro) == (0, 0)
            assert meter.next_end_s(7.0, self.now) == 7.0
        self.now += 3600 * 2
        self.counted_as_they_run()
        assert all(book.minutes == 0 for book in self.books.values())
        for ledger in self.ledgers:
            ledger.tick(self.now + IDLE_S, WALL + self.now + IDLE_S)
            assert len(ledger) == 0
        for slot in range(len(self.ledgers)):
            cells = self.board.row(slot).meters
            assert all(not cells.references(self.hash_of(subject)) for subject in SUBJECTS)
        self.ledgers = []
        self.board.close()

    def hash_of(self, subject: tuple[int, str]) -> int:
        meter = Meter(subject[0], subject[1], TokenLimits(), self.ledgers[0].books)
        return meter.key


TestLedgerModel = LedgerModel.TestCase
LedgerModel.TestCase.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
