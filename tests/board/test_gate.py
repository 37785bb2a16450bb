"""The gate on the board: limits, and places that are given back whatever a reload did meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgeq.board.gate import BoardGate
from edgeq.board.layout import Board
from edgeq.config.schema import Listener

A = "127.0.0.1:8080"
B = "127.0.0.1:8081"
UNIX = "unix:/run/http.sock"


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board.create(2)
    made.assign_listeners([A, B, UNIX])
    for slot in range(2):
        made.use(slot)
    yield made
    made.close()


def opened(board: Board, address: str) -> int:
    return board.listener_total(board.listener_index(address))


def test_limits_hold_for_all_workers(board: Board) -> None:
    """What one worker has admitted counts for the other, per listener and per client; the client's reason is first."""
    first, second = BoardGate(board, 0), BoardGate(board, 1)
    for gate in (first, second):
        gate.configure(Listener(address=A, max_connections=3, max_connections_per_client=2))
    assert first.try_open(A, "10.0.0.1") is None
    assert second.try_open(A, "10.0.0.1") is None
    assert first.try_open(A, "10.0.0.1") == "conn_limit_client"
    assert first.try_open(A, "10.0.0.2") is None
    assert second.try_open(A, "10.0.0.3") == "conn_limit_listener"
    second.close(A, "10.0.0.1")
    assert first.try_open(A, "10.0.0.1") is None
    assert opened(board, A) == 3


def test_zero_is_no_limit(board: Board) -> None:
    """Connections are counted all the same: the limit may be switched on later."""
    gate = BoardGate(board, 0)
    gate.configure(Listener(address=A, max_connections=0))
    assert [gate.try_open(A, "10.0.0.1") for _ in range(50)] == [None] * 50
    gate.configure(Listener(address=A, max_connections=50))
    assert gate.try_open(A, "10.0.0.1") == "conn_limit_listener"


def test_a_name_that_moves_on_takes_no_places_along(board: Board) -> None:
    """A listener's connections stay its own when a reload gives it another name and its old name to another one."""
    gate = BoardGate(board, 0)
    gate.configure(Listener(address=A, name="front", max_connections=2))
    assert gate.try_open(A, "10.0.0.1") is None
    gate.configure(Listener(address=B, name="front", max_connections=2))
    gate.configure(Listener(address=A, name="back", max_connections=2))
    assert gate.try_open(B, "10.0.0.1") is None
    assert (opened(board, A), opened(board, B)) == (1, 1)
    gate.close(A, "10.0.0.1")
    assert (opened(board, A), opened(board, B)) == (0, 1)
    gate.close(B, "10.0.0.1")
    assert (opened(board, A), opened(board, B)) == (0, 0)


def test_a_limit_per_client_that_is_switched_meanwhile(board: Board) -> None:
    """Connections from before count for nobody, those from meanwhile are given back: nothing is left behind."""
    gate = BoardGate(board, 0)
    gate.configure(Listener(address=A))
    assert gate.try_open(A, "10.0.0.1") is None
    gate.configure(Listener(address=A, max_connections_per_client=1))
    assert gate.try_open(A, "10.0.0.1") is None
    assert gate.try_open(A, "10.0.0.1") == "conn_limit_client"
    gate.configure(Listener(address=A))
    gate.close(A, "10.0.0.1")
    gate.close(A, "10.0.0.1")
    gate.configure(Listener(address=A, max_connections_per_client=1))
    assert gate.try_open(A, "10.0.0.1") is None
    assert opened(board, A) == 1


@pytest.mark.parametrize(
    ("prefix", "first", "second", "together"),
    [
        (64, "2001:db8:1:2::1", "2001:db8:1:2:ffff::2", True),
        (64, "2001:db8:1:2::1", "2001:db8:1:3::1", False),
        (48, "2001:db8:1:2::1", "2001:db8:1:3::1", True),
        (48, "2001:db8:1:2::1", "2001:db8:2:2::1", False),
        (63, "2001:db8:1:2::1", "2001:db8:1:3::1", True),
        (128, "2001:db8::1", "2001:db8::2", False),
        (1, "2001:db8::1", "::ffff:10.0.0.1", False),
        (64, "10.0.0.1", "10.0.0.2", False),
        (64, "10.0.0.1", "::ffff:10.0.0.1", True),
        (64, "::ffff:10.0.0.1", "::ffff:a00:1", True),
        (64, "::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        (64, "::ffff:10.0.0.1", "::1", False),
    ],
)
def test_ipv6_clients_are_counted_by_their_network(
    board: Board, prefix: int, first: str, second: str, together: bool
) -> None:
    """Who has a /64 has 2**64 addresses, and is one client; IPv4 in whatever spelling is counted by address."""
    gate = BoardGate(board, 0)
    gate.configure(Listener(address=A, max_connections_per_client=1, ipv6_client_prefix=prefix))
    assert gate.try_open(A, first) is None
    assert gate.try_open(A, second) == ("conn_limit_client" if together else None)
    gate.close(A, first)
    if not together:
        gate.close(A, second)
    assert [gate.try_open(A, host) for host in (second, first)] == [None, "conn_limit_client" if together else None]


def test_a_prefix_that_is_changed_meanwhile(board: Board) -> None:
    """Each connection gives back what it was counted for: nothing is left behind under the old prefix or the new."""
    gate = BoardGate(board, 0)

    def configure(prefix: int) -> None:
        gate.configure(Listener(address=A, max_connections_per_client=2, ipv6_client_prefix=prefix))

    configure(64)
    assert gate.try_open(A, "2001:db8:1:2::1") is None
    configure(48)
    assert gate.try_open(A, "2001:db8:1:2::1") is None
    assert gate.try_open(A, "2001:db8:1:3::1") is None
    assert gate.try_open(A, "2001:db8:1:4::1") == "conn_limit_client"
    for host in ("2001:db8:1:2::1", "2001:db8:1:2::1", "2001:db8:1:3::1"):
        gate.close(A, host)
    for prefix in (64, 48):
        configure(prefix)
        assert [gate.try_open(A, "2001:db8:1:2::9") for _ in range(3)] == [None, None, "conn_limit_client"]
        for _ in range(2):
            gate.close(A, "2001:db8:1:2::9")
    assert opened(board, A) == 0


def test_clients_of_a_unix_socket_have_one_name(board: Board) -> None:
    """So the limit per client is not theirs; the listener's is, and so is a proxied client's."""
    gate = BoardGate(board, 0)
    gate.configure(Listener(address=UNIX, max_connections=3, max_connections_per_client=1))
    assert gate.try_open(UNIX, "unix:") is None
    assert gate.try_open(UNIX, "unix:") is None
    assert gate.try_open(UNIX, "10.0.0.1") is None
    assert gate.try_open(UNIX, "10.0.0.1") == "conn_limit_client"
    assert gate.try_open(UNIX, "unix:") == "conn_limit_listener"
    for client in ("unix:", "10.0.0.1", "unix:"):
        gate.close(UNIX, client)
    assert opened(board, UNIX) == 0
    assert gate.try_open(UNIX, "10.0.0.1") is None
