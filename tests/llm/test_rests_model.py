"""Random histories of a target that fails, is refused, is woken and answers again: whoever has to wait waits no longer
than is told, one finds out at a time, and in the end somebody is let in."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edgeq.admission.ticket import CallbackTicket
from edgeq.config.schema_llm import TokenLimits
from edgeq.llm.message import Usage
from edgeq.llm.rests import TIMES, of_target
from tests.llm.gates import Machine, claim_of

LONGEST_REST_S = 60.0
DAY_S = 86_400.0


class RestModel(RuleBasedStateMachine):
    """Two workers before one target."""

    @initialize(limit=st.sampled_from([0, 60_000]), rest_after=st.integers(0, 3))
    def begin(self, limit: int, rest_after: int) -> None:
        self.machine = Machine(2, TokenLimits(tokens_per_minute=limit))
        for gate in self.machine.gates:
            gate.configure(100, 1 << 30, 1.0, 2, rest_after)
        self.machine.on_grant = self.granted
        self.rest_after = rest_after
        self.number = 0
        self.running: list[tuple[int, float, CallbackTicket]] = []
        self.worker_of: dict[int, int] = {}
        self.paused_until = 0.0
        """By the provider's word."""

    def granted(self, ticket: CallbackTicket) -> None:
        now = self.machine.loop.now
        worker = self.worker_of[ticket.number]
        self.running.append((worker, now, ticket))

    def moment_ns(self) -> int:
        return self.machine.arrivals.get(of_target("acme:big", b""))

    @rule(worker=st.integers(0, 1))
    def ask(self, worker: int) -> None:
        """One is let in at once, or waits, or is told when to come."""
        now = self.machine.loop.now
        pause_s = self.machine.gates[worker].pause_s(now)
        rests = self.moment_ns() & TIMES
        self.number += 1
        self.worker_of[self.number] = worker
        before = len(self.machine.granted)
        self.machine.ask(self.number, 10, 10, worker=worker)
        if pause_s > 0.0:
            assert len(self.machine.granted) == before
        elif rests and self.number in self.machine.granted:
            assert self.machine.gates[1 - worker].pause_s(now) > 0.0, "it finds out alone"
        if self.machine.refused and self.machine.refused[-1][0] == self.number:
            assert self.machine.refused[-1][2] <= max(pause_s, LONGEST_REST_S) + 1.0

    @rule(pick=st.integers(0, 99), end=st.sampled_from(["fails", "answers", "leaves", "refused"]))
    def end(self, pick: int, end: str) -> None:
        """One of those that run."""
        if not self.running:
            return
        worker, sent_at, ticket = self.running.pop(pick % len(self.running))
        gate, now = self.machine.gates[worker], self.machine.loop.now
        if end == "answers":
            is_known = gate.pause_s(now) > 0.0 and gate.pauses.rested > 0
            gate.pauses.answered(now)
            assert not is_known or not self.moment_ns() & TIMES
            gate.heard(None, 200, now)
            claim_of(ticket).settle(Usage(input=10, output=10), 0, now)
            return
        if end == "fails":
            gate.failed("upstream_error", sent_at, now)
        elif end == "refused":
            gate.heard(None, 429, now, claim_of(ticket))
            self.paused_until = max(self.paused_until, now + 30.0)
        claim_of(ticket).give_back(now, True)

    @rule(worker=st.integers(0, 1), seconds=st.sampled_from([0.0, 0.5, 7.0, 3600.0, 1e9]))
    def pause(self, worker: int, seconds: float) -> None:
        """The provider says for how long."""
        now = self.machine.loop.now
        self.machine.gates[worker].pause(seconds, now)
        self.paused_until = max(self.paused_until, now + min(seconds, DAY_S))

    @rule()
    def wake(self) -> None:
        """Somebody ends what keeps it."""
        now_ns = int(self.machine.loop.now * 1e9)
        if self.moment_ns() > now_ns:
            self.machine.arrivals.hasten(of_target("acme:big", b""), now_ns & ~TIMES)
        self.paused_until = 0.0
        assert not any(gate.pause_s(self.machine.loop.now) for gate in self.machine.gates)

    @rule(seconds=st.sampled_from([0.001, 0.3, 1.1, 5.0, 11.0, 61.0]))
    def pass_time(self, seconds: float) -> None:
        """Who waits waits a second at most."""
        self.machine.loop.run(seconds)
        for gate in self.machine.gates:
            gate.tick(self.machine.loop.now)

    @invariant()
    def bounded(self) -> None:
        """All workers see the same pause, and none that nobody has asked for."""
        if not hasattr(self, "machine"):
            return
        now = self.machine.loop.now
        first, second = (gate.pause_s(now) for gate in self.machine.gates)
        assert first == second
        assert first <= max(self.paused_until - now, LONGEST_REST_S if self.rest_after else 0.0) + 0.001
        assert self.moment_ns() & TIMES <= 5

    def teardown(self) -> None:
        """Whatever was, at last somebody is let in, and an answer opens it for all."""
        if not hasattr(self, "machine"):
            return
        for _, _, ticket in self.running:
            claim_of(ticket).give_back(self.machine.loop.now, True)
        self.running.clear()
        self.pass_time(2.0)
        self.running.clear()
        left_s = self.machine.gates[0].pause_s(self.machine.loop.now)
        self.machine.loop.now += left_s + 5.0
        self.ask(0)
        self.machine.loop.run(1.5)
        assert self.running, self.machine.refused[-3:]
        for worker, _, _ in list(self.running):
            self.machine.gates[worker].pauses.answered(self.machine.loop.now)
        assert not any(gate.pause_s(self.machine.loop.now) for gate in self.machine.gates)


TestRests = RestModel.TestCase
TestRests.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
