"""Accepted connections that wait for a place."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgeq.listener.backlog import CLIENT_FULL, FULL, Backlog, Ticket
from edgeq.listener.peer import Peer


def _peer(host: str) -> Peer:
    return Peer(host, 1, "local", 2, False, False, "")


def _push(backlog: Backlog, host: str, fd: int, now: float, max_per_client: int = 0) -> Ticket:
    ticket = backlog.push(fd, _peer(host), now, max_per_client)
    assert not isinstance(ticket, str)
    return ticket


def test_first_come_first_served() -> None:
    """The oldest is next, and stays so until it is removed."""
    backlog = Backlog(10, 1.0)
    first = _push(backlog, "a", 1, 0.0)
    _push(backlog, "b", 2, 0.1)
    assert backlog.oldest() is first
    assert backlog.oldest() is first
    assert backlog.remove(first)
    second = backlog.oldest()
    assert second is not None
    assert second.fd == 2


def test_bounded() -> None:
    """A full queue says so, and a queue of length zero lets nobody wait."""
    backlog = Backlog(1, 1.0)
    _push(backlog, "a", 1, 0.0)
    assert backlog.push(2, _peer("a"), 0.0) == FULL
    assert Backlog(0, 1.0).push(2, _peer("a"), 0.0) == FULL


def test_one_client_cannot_fill_it() -> None:
    """With a limit per client, those of its connections that wait count against it."""
    backlog = Backlog(10, 1.0)
    ticket = _push(backlog, "a", 1, 0.0, 2)
    _push(backlog, "a", 2, 0.0, 2)
    assert backlog.push(3, _peer("a"), 0.0, 2) == CLIENT_FULL
    _push(backlog, "b", 1, 0.0, 2)
    backlog.remove(ticket)
    _push(backlog, "a", 3, 0.0, 2)


def test_a_client_is_who_is_counted_as_one() -> None:
    """Connections of one network wait as one client, if their listener says so."""
    backlog = Backlog(10, 1.0)
    ticket = backlog.push(1, _peer("2001:db8::1"), 0.0, 1, "net")
    assert isinstance(ticket, Ticket)
    assert backlog.push(2, _peer("2001:db8::2"), 0.0, 1, "net") == CLIENT_FULL
    assert isinstance(backlog.push(2, _peer("2001:db8::2"), 0.0, 1, "other net"), Ticket)
    backlog.remove(ticket)
    assert isinstance(backlog.push(2, _peer("2001:db8::2"), 0.0, 1, "net"), Ticket)


def test_expiry_and_age() -> None:
    """Who has waited for the time-out leaves, oldest first; the age of the oldest is visible."""
    backlog = Backlog(10, 1.0)
    assert backlog.oldest_age_s(5.0) == 0.0
    for fd, at in enumerate((0.0, 0.5, 0.9)):
        _push(backlog, "a", fd, at)
    assert backlog.oldest_age_s(0.75) == 0.75
    assert backlog.expire(0.99) == []
    assert [ticket.fd for ticket in backlog.expire(1.5)] == [0, 1]
    assert len(backlog) == 1
    backlog.resize(10, 0.1)
    assert [ticket.fd for ticket in backlog.expire(1.5)] == [2]


def test_remove_from_the_middle_once() -> None:
    """An entry may leave from anywhere, and only once."""
    backlog = Backlog(10, 1.0)
    tickets = [_push(backlog, "a", number, 0.0) for number in range(3)]
    assert backlog.remove(tickets[1])
    assert not backlog.remove(tickets[1])
    assert [ticket.fd for ticket in backlog.expire(2.0)] == [0, 2]


class BacklogModel(RuleBasedStateMachine):
    """Random use against a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.backlog = Backlog(5, 1.0)
        self.model: list[Ticket] = []
        self.now = 0.0
        self.pushed = 0

    @rule(host=st.sampled_from("abc"), per_client=st.integers(0, 3), later=st.floats(0, 0.5))
    def push(self, host: str, per_client: int, later: float) -> None:
        """Queue up."""
        self.now += later
        waiting = sum(ticket.peer.client_host == host for ticket in self.model)
        ticket = self.backlog.push(self.pushed, _peer(host), self.now, per_client)
        self.pushed += 1
        if isinstance(ticket, str):
            assert ticket == (FULL if len(self.model) >= 5 else CLIENT_FULL)
            assert len(self.model) >= 5 or waiting >= per_client > 0
        else:
            self.model.append(ticket)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """Leave from anywhere."""
        ticket = data.draw(st.sampled_from(self.model))
        self.model.remove(ticket)
        assert self.backlog.remove(ticket)

    @rule(later=st.floats(0, 2))
    def expire(self, later: float) -> None:
        """Time passes."""
        self.now += later
        expired = [ticket for ticket in self.model if self.now - ticket.since >= 1.0]
        assert self.backlog.expire(self.now) == expired
        self.model = self.model[len(expired) :]

    @invariant()
    def agrees(self) -> None:
        """Same length, same next one."""
        assert len(self.backlog) == len(self.model)
        assert self.backlog.oldest() is (self.model[0] if self.model else None)


TestBacklogModel = BacklogModel.TestCase
