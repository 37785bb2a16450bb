"""Messages between processes: what they must not show."""

from __future__ import annotations

from edgeq.supervisor.messages import (
    Credentials,
    RenewTickets,
    Spawn,
    TicketSecret,
    decode_spawn,
    decode_to_worker,
    encode_message,
)
from edgeq.supervisor.spawner_io import _Child

VALUE = b"\x00the secret\xff" * 3


def test_the_secret_arrives() -> None:
    """Whole, in both messages that carry it."""
    tickets = TicketSecret(VALUE)
    spawn = decode_spawn(encode_message(Spawn(1, 2, 3, ("a",), b"config", tickets, Credentials(1, 2, (3,)))))
    assert spawn.tickets.value == VALUE
    renew = decode_to_worker(encode_message(RenewTickets(tickets)))
    assert isinstance(renew, RenewTickets)
    assert renew.tickets.value == VALUE


def test_the_secret_is_not_shown() -> None:
    """Not by a message, nor by what holds one, such as the exception that a traceback of a new worker would print."""
    tickets = TicketSecret(VALUE)
    spawn = Spawn(1, 2, 3, ("a",), b"config", tickets)
    for one in (tickets, spawn, RenewTickets(tickets), _Child(spawn, []), [tickets], {"tickets": tickets}):
        assert "the secret" not in repr(one)
        assert "the secret" not in str(one)
        assert "the secret" not in f"{one}"
        assert "(...)" in repr(one)


def test_secrets_are_random() -> None:
    """And long enough for a key."""
    made = {TicketSecret.make().value for _ in range(100)}
    assert len(made) == 100
    assert {len(value) for value in made} == {32}
