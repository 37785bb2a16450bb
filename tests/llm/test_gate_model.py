"""Random histories of gates in several workers: each ticket has one answer, and nobody waits for nothing."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edgeq.admission.ticket import CallbackTicket
from edgeq.config.schema_llm import TokenLimits
from edgeq.llm.message import Usage
from edgeq.llm.provider_limits import TOKENS, Heard
from tests.llm.gates import Machine, claim_of

LIMIT = 6000
MOST_WAIT_S = 5.0


class GateModel(RuleBasedStateMachine):
    """Some tickets end, or bring others, within their callbacks."""

    @initialize(workers=st.integers(1, 3), concurrent=st.sampled_from([0, 3]), ticks=st.booleans())
    def begin(self, workers: int, concurrent: int, ticks: bool) -> None:
        """Without ticks nobody is to be turned away by age: who waits is let in by alarms and bells alone."""
        self.ticks = ticks
        limits = TokenLimits(tokens_per_minute=LIMIT, concurrent=concurrent)
        self.machine = Machine(workers, limits, MOST_WAIT_S if ticks else 10_000.0, 50)
        self.machine.on_grant = self.granted
        self.number = 0
        self.tickets: dict[int, CallbackTicket] = {}
        self.home: dict[int, int] = {}
        self.left: set[int] = set()
        if ticks:
            self.machine.tick()

    def granted(self, ticket: CallbackTicket) -> None:
        self.tickets.setdefault(ticket.number, ticket)
        if ticket.number % 5 == 0:
            claim_of(ticket).settle(Usage(input=10, output=10), 0, self.machine.loop.now)
        if ticket.number % 7 == 0:
            self.enter(self.number % 3, b"again", 10, 10)

    def enter(self, worker: int, tenant: bytes, input_tokens: int, output_tokens: int) -> None:
        self.number += 1
        number = self.number
        worker %= len(self.machine.gates)
        self.home[number] = worker
        self.tickets[number] = self.machine.ask(number, input_tokens, output_tokens, tenant, worker)

    @rule(
        worker=st.integers(0, 2),
        tenant=st.sampled_from([b"", b"a", b"b", b"c"]),
        input_tokens=st.integers(0, 3000),
        output_tokens=st.integers(0, 1000),
        copies=st.integers(1, 6),
    )
    def ask(self, worker: int, tenant: bytes, input_tokens: int, output_tokens: int, copies: int) -> None:
        """Requests arrive, at one worker after the other."""
        for copy in range(copies):
            self.enter(worker + copy, tenant, input_tokens, output_tokens)

    def some(self, pick: int, is_in: bool) -> CallbackTicket | None:
        found = [
            ticket
            for ticket in self.tickets.values()
            if (claim_of(ticket).reservation is not None and claim_of(ticket).reservation.is_open) == is_in  # type: ignore[union-attr]
            and (is_in or ticket.waits_in is not None)
        ]
        return found[pick % len(found)] if found else None

    @rule(pick=st.integers(0, 99), used=st.integers(0, 5000))
    def settle(self, pick: int, used: int) -> None:
        """One ends."""
        ticket = self.some(pick, True)
        if ticket is not None:
            claim_of(ticket).settle(Usage(input=used // 2, output=used // 2), 0, self.machine.loop.now)

    @rule(pick=st.integers(0, 99), sent=st.booleans())
    def give_back(self, pick: int, sent: bool) -> None:
        """One has used nothing."""
        ticket = self.some(pick, True)
        if ticket is not None:
            claim_of(ticket).give_back(self.machine.loop.now, sent)

    @rule(pick=st.integers(0, 99))
    def leave(self, pick: int) -> None:
        """One that waits leaves."""
        ticket = self.some(pick, False)
        if ticket is not None:
            self.left.add(ticket.number)
            self.machine.gates[self.home[ticket.number]].cancel(ticket, self.machine.loop.now)

    @rule(worker=st.integers(0, 2), seconds=st.sampled_from([0.5, 3.0, 20.0]), remaining=st.sampled_from([-1, 0, 500]))
    def hear(self, worker: int, seconds: float, remaining: int) -> None:
        """The provider refuses."""
        heard = Heard()
        heard.retry_after_s = seconds
        heard.limits[TOKENS] = LIMIT
        heard.remaining[TOKENS] = remaining
        self.machine.gates[worker % len(self.machine.gates)].heard(heard, 429, self.machine.loop.now)

    @rule(seconds=st.sampled_from([0.001, 0.05, 1.0, 9.0]))
    def pass_time(self, seconds: float) -> None:
        """Time passes."""
        self.machine.loop.run(seconds)

    @invariant()
    def one_answer(self) -> None:
        """Each ticket waits, or has been answered once, or has left."""
        if not hasattr(self, "machine"):
            return
        answers = self.machine.granted + [number for number, _, _ in self.machine.refused]
        assert len(answers) == len(set(answers))
        waiting = {number for number, ticket in self.tickets.items() if ticket.waits_in is not None}
        assert waiting | set(answers) | self.left == set(self.home)
        assert not waiting & set(answers)
        assert sum(gate.queue.queued for gate in self.machine.gates) == len(waiting)
        if self.ticks:
            for number in waiting:
                assert self.machine.loop.now - self.tickets[number].arrived_at <= MOST_WAIT_S + 0.2

    def teardown(self) -> None:
        """All who run end, and whoever waits is answered, by alarms and bells alone."""
        if not hasattr(self, "machine"):
            return
        machine = self.machine
        for _ in range(2000):
            ticket = self.some(0, True)
            if ticket is not None:
                claim_of(ticket).give_back(machine.loop.now, True)
                continue
            if not any(gate.queue.queued for gate in machine.gates):
                break
            machine.loop.run(5.0)
        for gate in machine.gates:
            queue = gate.queue
            assert (queue.queued, queue.queued_bytes, queue.queued_cost) == (0, 0, 0.0)
            assert (gate.meter.in_flight, gate.meter.reserved_micro) == (0, 0)
        self.one_answer()
        if not self.ticks:
            assert {reason for _, reason, _ in machine.refused} <= {
                "queue_full",
                "token_limit_shared",
                "fair_share_exceeded",
                "queue_displaced",
            }


TestGateModel = GateModel.TestCase
GateModel.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
