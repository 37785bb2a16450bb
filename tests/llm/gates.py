"""A machine of token gates with a clock of its own, and a provider that counts for itself."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from edgeq.admission.room import Room, RoomShare
from edgeq.admission.ticket import CallbackTicket
from edgeq.config.schema_llm import TokenLimits
from edgeq.llm.estimate import Estimate
from edgeq.llm.gate import Claim, TokenGate
from edgeq.llm.ledger import Ledger
from edgeq.llm.meter import TARGET
from edgeq.policy.rate import LocalArrivals
from edgeq.worker.wheel import FineWheel


class FakeLoop:
    """Time passes by jumps, and what is due is called."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def clock(self) -> float:
        return self.now

    def call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._due, (self.now + delay_s, self._count, call))

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        until = self.now + seconds
        while self._due and self._due[0][0] <= until:
            self.now, _, call = heapq.heappop(self._due)
            call()
        self.now = until


class Machine:
    """Workers with a gate each before the same target."""

    def __init__(self, workers: int, limits: TokenLimits, max_wait_s: float = 30.0, max_queued: int = 10_000) -> None:
        self.loop = FakeLoop()
        self.arrivals = LocalArrivals()
        room = Room()
        self.gates: list[TokenGate] = []
        self.events: list[tuple[str, dict[str, object]]] = []
        self.ledgers: list[Ledger] = []
        for number in range(workers):
            ledger = Ledger(self.arrivals)
            ledger.tick(self.loop.now, 1_800_000_000.0 + self.loop.now)
            meter = ledger.meter(TARGET, "acme:big", limits)
            share: RoomShare = room.join(lambda number=number: self.wake(number))  # type: ignore[misc]
            wheel = FineWheel(self.loop.clock, self.loop.call_later)
            gate = TokenGate(meter, "acme", wheel, share, log=self)
            gate.configure(max_queued, 1 << 30, max_wait_s, workers)
            self.gates.append(gate)
            self.ledgers.append(ledger)
        tables = [ledger.books.own for ledger in self.ledgers]
        for ledger in self.ledgers:
            ledger.books.others[:] = [table for table in tables if table is not ledger.books.own]
        self.granted: list[int] = []
        self.refused: list[tuple[int, str, int]] = []
        self.refused_by: list[str] = []
        self.on_grant: Callable[[CallbackTicket], None] = lambda _: None

    def warning(self, event: str, **fields: object) -> None:
        """Of a gate's log."""
        self.events.append((event, fields))

    def wake(self, number: int) -> None:
        """A bell: it is heard a little later."""
        self.loop.call_later(0.0001, lambda: self.gates[number].dispatch(self.loop.now))

    def tick(self) -> None:
        """Ten times a second, for ever."""
        for gate in self.gates:
            gate.tick(self.loop.now)
        self.loop.call_later(0.1, self.tick)

    def ask(
        self, number: int, input_tokens: int, output_tokens: int, tenant: bytes = b"", worker: int = 0, cost: int = 0
    ) -> CallbackTicket:
        """A request arrives."""
        now = self.loop.now
        ticket = CallbackTicket(now, self._granted, self._refused, number)
        ticket.tenant = tenant
        ticket.claim = Claim(Estimate(input_tokens, output_tokens, cost))
        self.enter(ticket, worker)
        return ticket

    def enter(self, ticket: CallbackTicket, worker: int = 0) -> None:
        now = self.loop.now
        gate = self.gates[worker]
        if gate.try_acquire(ticket, now):
            self._granted(ticket, now)
        else:
            gate.offer(ticket, now)

    def _granted(self, ticket: CallbackTicket, now: float) -> None:
        claim = ticket.claim
        assert claim is not None
        assert claim.reservation is not None
        assert claim.reservation.is_open
        self.granted.append(ticket.number)
        self.on_grant(ticket)

    def _refused(self, ticket: CallbackTicket, reason: str, resource: str, detail: str, retry_after_s: int) -> None:
        assert retry_after_s >= 1
        self.refused.append((ticket.number, reason, retry_after_s))
        self.refused_by.append(resource)


def claim_of(ticket: CallbackTicket) -> Claim:
    """That it has made."""
    assert ticket.claim is not None
    return ticket.claim


class Bucket:
    """The provider's own limit: a bucket of a minute's tokens that fills evenly."""

    def __init__(self, a_minute: int, now: float) -> None:
        self.a_minute = a_minute
        self.left = float(a_minute)
        self.at = now
        self.used = 0
        self.refused = 0

    def take(self, tokens: int, now: float) -> bool:
        self.left = min(float(self.a_minute), self.left + (now - self.at) * self.a_minute / 60)
        self.at = now
        if tokens > self.left:
            self.refused += 1
            return False
        self.left -= tokens
        self.used += tokens
        return True
