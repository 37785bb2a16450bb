"""Limits of tenants: each waits for himself, who is too many is told that it is his own doing, who is gone is gone."""

from __future__ import annotations

import pytest

from edgeq.admission.bulkhead import Bulkhead
from edgeq.admission.tenants import IDLE_S, MANY, Tenants
from edgeq.admission.ticket import OK
from edgeq.board.handover import Neighbours
from edgeq.board.layout import TENANTS, Board, key_hash
from edgeq.board.resources import Resources
from tests.admission.support import Book, full


def tenants(limit: int, max_queued: int = 1, resources: Resources | None = None, workers: int = 1) -> Tenants:
    made = Tenants(resources)
    made.configure(limit, max_queued, 1.0, workers, 0.0)
    return made


def test_each_has_a_limit_of_his_own() -> None:
    """One who sends too many waits, then is refused by a reason of his own; another one is not concerned."""
    book = Book()
    made = tenants(1)
    noisy, polite = made.bulkhead_of(b"noisy", 0.0), made.bulkhead_of(b"polite", 0.0)
    assert book.enter(noisy, book.ticket(1, 0.0), 0.0)
    assert not book.enter(noisy, book.ticket(2, 0.0), 0.0)
    assert not book.enter(noisy, book.ticket(3, 0.0), 0.0)
    assert book.enter(polite, book.ticket(4, 0.0), 0.0)
    assert book.refused == [(3, "concurrency_limit_client")]
    assert book.details[0][0] == "tenant:queue"
    book.tickets[1].release(0.1, OK)
    assert book.granted == [2]
    assert not book.enter(noisy, book.ticket(5, 0.1), 0.1)
    made.tick(1.2)
    assert book.refused[1:] == [(5, "concurrency_limit_client")]


def test_what_hangs_counts() -> None:
    """Elsewhere the stuck are excused; of a tenant they are what he has in flight."""
    book = Book()
    made = tenants(1)
    bulkhead = made.bulkhead_of(b"a", 0.0)
    assert book.enter(bulkhead, book.ticket(1, 0.0), 0.0)
    for tick in range(1000):
        made.tick(tick / 10)
    assert not bulkhead.try_acquire(book.ticket(2, 100.0), 100.0)


def test_who_is_gone_leaves_nothing() -> None:
    """Nothing is kept of a tenant who had nothing in flight for a moment; who has is kept, also by a new limit."""
    book = Book()
    board = Board.create(1)
    board.use(0)
    resources = Resources(board, Neighbours(board, 0, lambda slot: None))
    made = tenants(1, 1, resources)
    for number in range(2 * TENANTS):  # more than the board has room for
        name = b"t%d" % number
        assert book.enter(made.bulkhead_of(name, 0.0), book.ticket(number, 0.0), 0.0)
        book.tickets[number].release(0.0, OK)
    stays = book.ticket(-1, 0.0)
    assert book.enter(made.bulkhead_of(b"stays", 0.0), stays, 0.0)
    made.tick(0.0)
    assert len(made) == 1
    for number in range(MANY - 1):
        assert book.enter(made.bulkhead_of(b"t%d" % number, 0.0), book.ticket(number, 0.0), 0.0)
        book.tickets[number].release(0.0, OK)
    made.tick(IDLE_S / 2)
    assert len(made) == MANY
    made.tick(IDLE_S)
    assert len(made) == 1
    made.configure(0, 1, 1.0, 1, IDLE_S)
    assert made.bulkhead_of(b"stays", IDLE_S) is stays.held
    stays.release(IDLE_S, OK)
    made.tick(3 * IDLE_S)
    assert len(made) == 0
    keys = [key_hash(b"tenant", b"t%d" % number) for number in range(2 * TENANTS)]
    assert not any(board.row(0).tenants.references(key) for key in keys)
    board.close()


def test_a_limit_of_a_tenant_is_the_machines() -> None:
    """Two workers, one tenant: the place that one frees goes to who waits at the other; a dead one holds none."""
    book = Book()
    board = Board.create(2)
    rung: list[int] = []
    for slot in range(2):
        board.use(slot)
    both = [tenants(1, 4, Resources(board, Neighbours(board, slot, rung.append))) for slot in range(2)]
    one, other = (made.bulkhead_of(b"a", 0.0) for made in both)
    assert book.enter(one, book.ticket(1, 0.0), 0.0)
    assert not book.enter(other, book.ticket(2, 0.1), 0.1)
    assert not book.enter(one, book.ticket(3, 0.2), 0.2)
    book.tickets[1].release(0.3, OK)
    assert (book.granted, rung) == ([], [1])
    both[1].look(0.3)
    assert book.granted == [2]
    board.bury(1)
    both[0].tick(0.4)
    assert book.granted == [2, 3]
    board.close()


def test_a_queue_of_a_tenant_is_the_machines() -> None:
    """Four workers, one tenant: together no more wait than may, and whoever comes when one leaves finds his place."""
    book = Book()
    board = Board.create(4)
    for slot in range(4):
        board.use(slot)
    all_of_them = [Resources(board, Neighbours(board, slot, lambda slot: None)) for slot in range(4)]
    parts = [tenants(1, 8, resources, 4).bulkhead_of(b"a", 0.0) for resources in all_of_them]
    assert book.enter(parts[0], book.ticket(0, 0.0), 0.0)
    for number in range(1, 33):
        book.enter(parts[number % 4], book.ticket(number, 0.0), 0.0)
    assert [number for number, _ in book.refused] == list(range(9, 33))
    assert book.details[0][1].startswith("8 of at most 8 wait")
    parts[1].cancel(book.tickets[1], 0.1)
    book.enter(parts[1], book.ticket(33, 0.1), 0.1)
    book.enter(parts[2], book.ticket(34, 0.1), 0.1)
    assert [number for number, _ in book.refused[24:]] == [34]
    board.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_nobody_fills_more_than_his_part_of_a_queue(workers: int) -> None:
    """With the queue half empty one who has his part is refused, by a reason of his own; others are let in."""
    book = Book()
    bulkhead: Bulkhead = full(book, 1, 0.0)
    bulkhead.configure("fifo", 8 * workers, 1 << 20, 1.0, workers)
    bulkhead.queue.tenant_share = 0.25
    for number in range(1, 4):
        book.enter(bulkhead, book.ticket(number, 0.0, b"a"), 0.0)
    assert book.refused == [(3, "fair_share_exceeded")]
    for number in range(4, 6):
        book.enter(bulkhead, book.ticket(number, 0.0, b"b"), 0.0)
    book.enter(bulkhead, book.ticket(6, 0.0, b"a", priority=0), 0.0)
    assert len(book.refused) == 1
