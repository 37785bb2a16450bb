"""The board: one writer per row, sums over all rows, and a client table that never leaks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edgeq.board.keyed import PROBE
from edgeq.board.layout import CLIENTS, LISTENERS, STATE_SERVING, Board, stable_hash


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board.create(4)
    for slot in range(4):
        made.use(slot)
    yield made
    made.close()


def test_attach_sees_what_create_wrote(board: Board) -> None:
    """A second mapping of the same descriptor is the same memory."""
    other = Board.attach(os.dup(board.fd))
    board.row(2).begin(pid=77, generation=5)
    board.row(2).set_state(STATE_SERVING)
    board.row(2).beat(now_ns=10, lag_us=3, requests=8, in_flight=2)
    assert other.slots == 4
    assert other.row(2).snapshot() == {
        "slot": 2, "pid": 77, "state": "serving", "generation": 5, "connections": 0, "accepted": 0,
        "requests": 8, "in_flight": 2, "lag_us": 3,
    }  # fmt: skip
    assert other.row(2).heartbeat_ns == 10
    other.close()


def test_attach_refuses_foreign_memory() -> None:
    """A descriptor which is no board is an error, not a crash later."""
    fd = os.memfd_create("other")
    os.ftruncate(fd, 4096)
    with pytest.raises(ValueError, match="not a board"):
        Board.attach(fd)
    os.close(fd)


def test_bury_zeroes_gauges_and_keeps_counters(board: Board) -> None:
    """What a dead worker held is free at once; what it did stays in the totals."""
    row = board.row(1)
    client = stable_hash("192.0.2.1")
    row.add_connection(0, client)
    row.add_connection(0, client)
    row.beat(1, 0, requests=9, in_flight=2)
    board.row(0).add_connection(0, client)
    assert (board.listener_total(0), board.client_total(client)) == (3, 3)
    board.bury(1)
    assert (board.listener_total(0), board.client_total(client)) == (1, 1)
    assert (board.requests_total(), board.connections_total()) == (9, 3)
    assert row.in_flight == 0


def test_listener_keeps_its_index(board: Board) -> None:
    """An index belongs to an address over reloads, and is given away only when nothing is open on it."""
    board.assign_listeners(["a", "b"])
    a, b = board.listener_index("a"), board.listener_index("b")
    assert a != b
    board.assign_listeners(["b", "c"])
    assert board.listener_index("b") == b
    board.assign_listeners(["a"])
    assert board.listener_index("a") == a
    board.row(0).add_connection(b)
    board.assign_listeners([f"x{n}" for n in range(LISTENERS)])
    assert board.listener_index("b") == b
    assert board.listener_index("a") != a


def test_full_window_loses_a_client_but_never_leaks(board: Board) -> None:
    """A client without room is not counted, and its end changes nobody else's count."""
    row = board.row(0)
    home = 5
    clients = [home + CLIENTS * (n + 1) for n in range(PROBE + 1)]
    for client in clients:
        row.add_connection(0, client)
    assert row.untracked == 1
    assert [row.client_count(client) for client in clients] == [1] * PROBE + [0]
    for client in clients:
        row.remove_connection(0, client)
    assert [row.client_count(client) for client in clients] == [0] * (PROBE + 1)
    assert row.listener_count(0) == 0
    row.add_connection(0, clients[-1])
    assert row.client_count(clients[-1]) == 1


@settings(max_examples=50)
@given(st.text(max_size=40))
def test_stable_hash_is_a_nonzero_cell(text: str) -> None:
    """0 means a free cell, so no client may hash to it."""
    assert 0 < stable_hash(text) < 2**62


class BoardModel(RuleBasedStateMachine):
    """Random connections on random workers against plain counters."""

    # Few homes, so that chains collide and wrap around the end of the table.
    clients = st.integers(1, 20).map(lambda n: (CLIENTS - 3 + n % 5) + CLIENTS * n)
    slots = st.integers(0, 2)
    indices = st.integers(0, 3)

    @initialize()
    def create(self) -> None:
        self.board = Board.create(3)
        for slot in range(3):
            self.board.use(slot)
        self.open: list[tuple[int, int, int]] = []
        self.accepted = 0

    @rule(slot=slots, index=indices, client=clients)
    def connect(self, slot: int, index: int, client: int) -> None:
        self.board.row(slot).add_connection(index, client)
        self.open.append((slot, index, client))
        self.accepted += 1

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def disconnect(self, data: st.DataObject) -> None:
        slot, index, client = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        self.board.row(slot).remove_connection(index, client)

    @rule(slot=slots)
    def die(self, slot: int) -> None:
        self.board.bury(slot)
        self.open = [one for one in self.open if one[0] != slot]

    @invariant()
    def totals_agree(self) -> None:
        listeners = Counter(index for _, index, _ in self.open)
        clients = Counter(client for _, _, client in self.open)
        own = Counter((slot, client) for slot, _, client in self.open)
        for index in range(4):
            assert self.board.listener_total(index) == listeners[index]
        for client in [(CLIENTS - 3 + n % 5) + CLIENTS * n for n in range(1, 21)]:
            assert self.board.client_total(client) == clients[client]
            assert self.board.row(0).client_count(client) == own[0, client]
        assert self.board.connections_total() == self.accepted

    def teardown(self) -> None:
        if hasattr(self, "board"):
            self.board.close()


TestBoardModel = BoardModel.TestCase
TestBoardModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
