"""A request as limits and queues see it: who it is for, how urgent, what it holds and where it waits.

    bulkhead.try_acquire(ticket, now)   -> True: it holds a permit; False: `bulkhead.offer(ticket, now)`
    bulkhead.offer(ticket, now)         -> later, or at once: exactly one of `granted` and `refused` is called
    bulkhead.cancel(ticket, now)        -> it waits no more; neither is called
    ticket.release(now, outcome)        -> everything that it holds is given back, each permit once

Invariants
- A ticket waits in at most one lobby (a bulkhead, or a token gate). It may hold permits of several bulkheads (tenant,
  route, upstream), taken in that order.
- The permits are known here and nowhere else, so whoever ends a request needs to know nothing about its limits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from edgeq.worker.wheel import NEVER

if TYPE_CHECKING:
    from edgeq.admission.bulkhead import Bulkhead, Cohort
    from edgeq.admission.queue import Flow
    from edgeq.llm.gate import Claim

CRITICAL: Final = 0
DEFAULT: Final = 1
SHEDDABLE: Final = 2

OK: Final = 1
"""Served: the upstream has answered, whatever the status, unless it said that it is overloaded."""
DROPPED: Final = 2
"""A sign of overload: time-out, reset, 429 or 503 of the upstream."""
IGNORED: Final = 3
"""Says nothing about the upstream: the client left, or this gateway ended it."""


class Lobby:
    """Where a ticket can wait: whatever has a queue. Base class."""

    __slots__ = ("place", "resource")

    def __init__(self, resource: str, part: str) -> None:
        self.resource = resource
        """As refusals name it, without the part: ``upstream/api``."""
        self.place: str = f"{resource}:{part}"
        """With it: ``upstream/api:queue``."""

    def short_of(self, ticket: Ticket, now: float) -> str:
        """What a ticket waits for that waits here, as refusals name it."""
        return self.place

    def cancel(self, ticket: Ticket, now: float) -> None:
        """The ticket waits no more (its client has left)."""
        raise NotImplementedError


class Ticket:
    """Base class of a request. Times are monotonic seconds.

    Most requests never wait and meet one limit, and interpreted each store costs 30 ns: what is not set here is set by
    whoever uses it first, the links by the queue, what a permit brings by its grant.
    """

    __slots__ = (
        "arrived_at",
        "charged_flow",
        "charged_s",
        "claim",
        "cohort",
        "cost",
        "deadline_at",
        "elder",
        "flow",
        "flow_newer",
        "flow_older",
        "granted_at",
        "heard",
        "held",
        "outer",
        "priority",
        "size_bytes",
        "tenant",
        "waits_in",
        "weight",
        "younger",
    )

    size_bytes: int
    """Memory that it holds while it waits: set by who lets it wait."""
    # Of the permit taken last, if there is one.
    cohort: Cohort
    charged_s: float
    """By which `charged_flow` was charged, if there is one."""
    # Links of the queue: set by `FairQueue.push`.
    flow: Flow | None
    flow_older: Ticket | None
    flow_newer: Ticket | None
    elder: Ticket | None
    younger: Ticket | None

    def __init__(self, arrived_at: float) -> None:
        self.arrived_at: float = arrived_at
        """From when waiting counts: the arrival, minus what it has waited in the kernel. A grant sets it to its
        moment, so the next queue counts its own wait; a retry sets it to now."""
        self.deadline_at: float = NEVER
        """By when the answer must be there."""
        self.priority: int = DEFAULT
        self.tenant = b""
        """Whose request; empty: nobody said, all of those share one queue."""
        self.weight: float = 1.0
        """The tenant's share, relative to others."""
        self.cost: float = 0.0
        """What its tenant's flow is charged with, where that is known before (tokens); 0.0: the usual time of a place.
        Must not change while it waits."""
        self.claim: Claim | None = None
        """What it needs of a token gate, and has of it."""
        self.waits_in: Lobby | None = None
        # The permit taken last, and those before it.
        self.held: Bulkhead | None = None
        self.granted_at: float = 0.0
        self.charged_flow: Flow | None = None
        self.heard: bool = False
        """The answer has begun under the permit taken last; see `Bulkhead.hear`."""
        self.outer: list[Held] | None = None

    def granted(self, lobby: Lobby, now: float) -> None:
        """It has waited and now has what it waited for: a permit of this bulkhead, tokens of this gate."""
        raise NotImplementedError

    def refused(self, reason: str, resource: str, detail: str, retry_after_s: int) -> None:
        """It was turned away, by a token of `edgeq.reasons`; it waits no more and holds what it held before."""
        raise NotImplementedError

    def cover(self) -> None:
        """Another permit is about to be taken: keep what is known of the last one."""
        held = self.held
        if held is not None:
            if self.outer is None:
                self.outer = []
            self.outer.append(Held(self, held))
            self.charged_flow = None

    def take_over(self, other: Ticket) -> None:
        """Hold the permit that `other` has taken last, instead of it; nothing if it has none."""
        if other.held is not None:
            self.cover()
            self.held = other.held
            self.granted_at = other.granted_at
            self.cohort = other.cohort
            self.charged_flow = other.charged_flow
            if other.charged_flow is not None:
                self.charged_s = other.charged_s
            other.held = None

    def release(self, now: float, outcome: int) -> None:
        """Give back all permits, the last one first. Calling it again does nothing."""
        while self.held is not None:
            self.held.release(self, now, outcome)


class Held:
    """A permit that was taken before the last one; rare, since few requests meet more than one limit."""

    __slots__ = ("bulkhead", "charged_flow", "charged_s", "cohort", "granted_at")

    def __init__(self, ticket: Ticket, bulkhead: Bulkhead) -> None:
        self.bulkhead: Bulkhead = bulkhead
        self.granted_at: float = ticket.granted_at
        self.cohort: Cohort = ticket.cohort
        self.charged_flow: Flow | None = ticket.charged_flow
        self.charged_s: float = 0.0 if ticket.charged_flow is None else ticket.charged_s


class CallbackTicket(Ticket):
    """A ticket that calls back; for tests and simulations, which cannot derive from a compiled class."""

    __slots__ = ("_granted", "_refused", "number")

    def __init__(
        self,
        arrived_at: float,
        granted: Callable[[CallbackTicket, float], None],
        refused: Callable[[CallbackTicket, str, str, str, int], None],
        number: int = 0,
    ) -> None:
        super().__init__(arrived_at)
        self.size_bytes = 0
        self._granted = granted
        self._refused = refused
        self.number: int = number

    def granted(self, lobby: Lobby, now: float) -> None:
        self._granted(self, now)

    def refused(self, reason: str, resource: str, detail: str, retry_after_s: int) -> None:
        self._refused(self, reason, resource, detail, retry_after_s)
