"""Requests that note what happens to them."""

from __future__ import annotations

from edgeq.admission.bulkhead import Bulkhead
from edgeq.admission.ticket import DEFAULT, OK, CallbackTicket
from edgeq.worker.wheel import NEVER


class Book:
    """What was granted and refused, in order."""

    def __init__(self) -> None:
        self.granted: list[int] = []
        self.refused: list[tuple[int, str]] = []
        self.details: list[tuple[str, str, int]] = []
        self.tickets: dict[int, CallbackTicket] = {}

    def ticket(
        self,
        number: int,
        now: float,
        tenant: bytes = b"",
        priority: int = DEFAULT,
        deadline_at: float = NEVER,
        size_bytes: int = 0,
        weight: float = 1.0,
    ) -> CallbackTicket:
        """A new request."""
        ticket = CallbackTicket(now, self._granted, self._refused, number)
        ticket.tenant = tenant
        ticket.priority = priority
        ticket.deadline_at = deadline_at
        ticket.size_bytes = size_bytes
        ticket.weight = weight
        self.tickets[number] = ticket
        return ticket

    def _granted(self, ticket: CallbackTicket, now: float) -> None:
        self.granted.append(ticket.number)

    def _refused(self, ticket: CallbackTicket, reason: str, resource: str, detail: str, retry_after_s: int) -> None:
        self.refused.append((ticket.number, reason))
        self.details.append((resource, detail, retry_after_s))

    def enter(self, bulkhead: Bulkhead, ticket: CallbackTicket, now: float) -> bool:
        """As a request does it. Returns: is it in at once?"""
        if bulkhead.try_acquire(ticket, now):
            return True
        bulkhead.offer(ticket, now)
        return False


def taught(bulkhead: Bulkhead, held_s: float, now: float, count: int = 64) -> None:
    """Let the bulkhead know how long a place is held."""
    for _ in range(count):
        bulkhead.service.finished(held_s, True, now)


def full(book: Book, limit: int, now: float, service_s: float = 0.02) -> Bulkhead:
    """A bulkhead whose places are all taken, by requests 0, -1, -2..."""
    bulkhead = Bulkhead("upstream/api", limit, now)
    taught(bulkhead, service_s, now)
    for number in range(limit):
        assert bulkhead.try_acquire(book.ticket(-number, now), now)
    return bulkhead


def free_one(book: Book, bulkhead: Bulkhead, now: float) -> int:
    """One that is in flight ends. Returns: who got its place, or 0."""
    before = len(book.granted)
    holder = next(ticket for ticket in book.tickets.values() if ticket.held is bulkhead)
    holder.release(now, OK)
    return book.granted[before] if len(book.granted) > before else 0
