"""What a supervisor leaves and its successor finds, without processes: names, notes, the kernel's numbering."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.board.layout import Board
from edgeq.config.schema import Listener
from edgeq.supervisor.legacy_io import Inheritance, Legacy, Mate, inherit
from edgeq.supervisor.shards import ShardOrder
from edgeq.supervisor.sockets_io import Listeners
from edgeq.supervisor.systemd_io import Notifier, Received
from tests.support.gateway import free_port


class Store:
    """Stands in for the manager: keeps duplicates by name."""

    def __init__(self) -> None:
        self.kept: dict[str, int] = {}

    def notifier(self, size: int = 64) -> Notifier:
        store = self

        class Kept(Notifier):
            def store(self, name: str, fd: int) -> bool:
                store.kept[name] = os.dup(fd)
                return True

            def unstore(self, name: str) -> None:
                if name in store.kept:
                    os.close(store.kept.pop(name))

        return Kept("/nowhere", 0.0, size)

    def hand_over(self, without: str = "") -> Inheritance:
        """To the next run; the store keeps its own."""
        return inherit([Received(name, os.dup(fd)) for name, fd in self.kept.items() if name != without])

    def close(self) -> None:
        for fd in self.kept.values():
            os.close(fd)


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    yield made
    made.close()


def begin(store: Store, inheritance: Inheritance) -> tuple[Listeners, Board, Legacy]:
    """A run."""
    board = inheritance.take_board(2) or Board.create(2)
    legacy = Legacy(store.notifier())
    legacy.begin(inheritance, board)
    return Listeners(inheritance, legacy), board, legacy


def reached(listeners: Listeners, one: Listener, slot: int) -> bool:
    """Does a new connection reach this slot's queue when only this slot serves?"""
    listeners.steer({slot})
    host, _, port = one.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10):
        waiting = {queue.slot for queue in listeners.waiting([one.address])}
        listeners.sockets_of(slot, [one.address])[0].accept()[0].close()
    return waiting == {slot}


def test_the_numbering_of_shards_is_inherited(store: Store) -> None:
    """After members have left and others have come, steering in the next run still reaches whom it means."""
    one = Listener(address=f"127.0.0.1:{free_port()}", backlog=16)
    first, board, _ = begin(store, Inheritance())
    first.ensure([one], [0, 1, 2, 3])
    first.remove_slot(0)  # the last one moves into the hole
    first.ensure([one], [1, 2, 3, 7])
    first.close()
    board.close()
    second, board, _ = begin(store, store.hand_over())
    second.ensure([one], [0, 1, 2, 3, 4])
    assert [reached(second, one, slot) for slot in range(5)] == [True] * 5
    second.close()
    board.close()


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_socket_that_was_just_closed_is_numbered_right(store: Store, is_kept: bool) -> None:
    """Killed between the close and the notes of it: the rest is where the kernel has moved it."""
    one = Listener(address=f"127.0.0.1:{free_port()}", backlog=16)
    first, board, _ = begin(store, Inheritance())
    first.ensure([one], [0, 1, 2, 3])
    sock = first.sockets_of(1, [one.address])[0]
    name = f"edgeq/socket/{os.fstat(sock.fileno()).st_ino}"
    sock.shutdown(socket.SHUT_RDWR)
    first.close()
    board.close()
    second, board, _ = begin(store, store.hand_over(without="" if is_kept else name))
    second.ensure([one], [0, 1, 2])
    assert [reached(second, one, slot) for slot in range(3)] == [True] * 3
    second.close()
    board.close()


def test_board_and_workers_go_over(store: Store) -> None:
    """The same memory, and who wrote into it."""
    first, board, legacy = begin(store, Inheritance())
    board.set_learned_limit(3, 77)
    mate = Mate(1, os.getpid(), 12345)
    legacy.note_workers([mate])
    legacy.note_workers([mate, Mate(0, 2, 2)])
    legacy.note_workers([mate])  # shorter than what stood there
    board.close()
    found = store.hand_over()
    assert found.workers == [mate]
    again = found.take_board(2)
    assert again is not None
    assert again.learned_limit(3) == 77
    again.close()
    other = store.hand_over()
    assert other.take_board(3) is None  # another number of slots
    first.close()


def test_unix_sockets_are_found_by_their_path(store: Store, tmp_path: Path) -> None:
    """Where the path is gone nobody can come any more, and a new one is made."""
    one = Listener(address=f"unix:{tmp_path}/s")
    for path_is_there in (True, False):
        first, board, _ = begin(store, store.hand_over())
        first.ensure([one], [0])
        inode = os.stat(f"{tmp_path}/s").st_ino
        first.close()
        board.close()
        if not path_is_there:
            os.unlink(f"{tmp_path}/s")
        second, board, _ = begin(store, store.hand_over())
        second.ensure([one], [0])
        assert (os.stat(f"{tmp_path}/s").st_ino == inode) is path_is_there
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{tmp_path}/s")
            assert len(second.waiting([one.address])) == 1
        second.close()
        board.close()


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 100)), max_size=30))
@settings(max_examples=100)
def test_renaming_changes_nothing_else(steps: list[tuple[int, int]]) -> None:
    """Model: a list in which a leaver's place is taken by the last."""
    order, model = ShardOrder(), list[int]()
    for slot, draw in steps:
        if slot in model:
            at = model.index(slot)
            order.closed(slot)
            last = model.pop()
            if at < len(model):
                model[at] = last
        else:
            order.listened(slot)
            model.append(slot)
        if model and draw % 2:
            at, new = draw % len(model), -2 - draw
            if new not in model:
                order.renamed(model[at], new)
                model[at] = new
        assert list(order.slots) == model
