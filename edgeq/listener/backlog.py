"""Accepted connections that wait because the listener is full: bounded, first come first served, with a deadline.

Decides who is next, who has waited too long and who finds no room. Invariants:
- nobody overtakes: places are given in the order of arrival;
- everybody waits for the same time, so the oldest is always the next to expire;
- one client cannot fill the queue: with a limit per client, its waiting connections count against it. Who is one client
  the caller says (`peer.client_key`), at the moment of queueing: a reload may change it.

The classes are not generic: compiled by mypyc 2.4.1, generic ones crashed the collector (seen in the model test).
Why a queue of our own and not the kernel's: that one has no deadline, no order that we can see, and no answer.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from edgeq.listener.peer import Peer

FULL: Final = "conn_limit_listener"
CLIENT_FULL: Final = "conn_limit_client"


class Ticket:
    """A place in the queue: whose descriptor waits, and since when."""

    __slots__ = ("client", "fd", "number", "peer", "since")

    def __init__(self, number: int, fd: int, peer: Peer, client: str, since: float) -> None:
        self.number = number
        self.fd = fd
        self.peer = peer
        self.client = client
        self.since = since


class Backlog:
    """The queue. Times are monotonic seconds; `now` never runs backwards."""

    __slots__ = ("_by_client", "_next_number", "_tickets", "max_waiting", "timeout_s")

    def __init__(self, max_waiting: int, timeout_s: float) -> None:
        self.max_waiting = max_waiting
        self.timeout_s = timeout_s
        self._tickets: OrderedDict[int, Ticket] = OrderedDict()
        self._by_client: dict[str, int] = {}
        self._next_number = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def resize(self, max_waiting: int, timeout_s: float) -> None:
        """New bounds. Who waits already keeps waiting, even above a lowered maximum, under the new time-out."""
        self.max_waiting = max_waiting
        self.timeout_s = timeout_s

    def push(self, fd: int, peer: Peer, now: float, max_per_client: int = 0, client: str = "") -> Ticket | str:
        """Queue up. Returns the ticket, or the reason why there is no room.

        Args: max_per_client 0: no limit; client: for whom it counts, its address if nothing else is said.
        """
        if len(self._tickets) >= self.max_waiting:
            return FULL
        client = client or peer.client_host
        waiting = self._by_client.get(client, 0)
        if 0 < max_per_client <= waiting:
            return CLIENT_FULL
        ticket = Ticket(self._next_number, fd, peer, client, now)
        self._next_number += 1
        self._tickets[ticket.number] = ticket
        self._by_client[client] = waiting + 1
        return ticket

    def oldest(self) -> Ticket | None:
        """Who is next; it stays in the queue."""
        for ticket in self._tickets.values():
            return ticket
        return None

    def remove(self, ticket: Ticket) -> bool:
        """Take a ticket out, wherever it stands. False: it was no longer in the queue."""
        if self._tickets.pop(ticket.number, None) is None:
            return False
        client = ticket.client
        waiting = self._by_client[client] - 1
        if waiting:
            self._by_client[client] = waiting
        else:
            del self._by_client[client]
        return True

    def expire(self, now: float) -> list[Ticket]:
        """Take out all who have waited for `timeout_s` or longer, oldest first."""
        expired: list[Ticket] = []
        while (ticket := self.oldest()) is not None and now - ticket.since >= self.timeout_s:
            self.remove(ticket)
            expired.append(ticket)
        return expired

    def oldest_age_s(self, now: float) -> float:
        """How long the oldest has waited; 0 when nobody waits."""
        ticket = self.oldest()
        return 0.0 if ticket is None else now - ticket.since
