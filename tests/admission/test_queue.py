"""The fair queue: classes, tenants, disciplines, bounds."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.admission.bulkhead import Bulkhead
from edgeq.admission.queue import DECK, HAND, deal
from edgeq.admission.ticket import CRITICAL, DEFAULT, OK, SHEDDABLE, CallbackTicket
from tests.admission.support import Book, free_one, full


@given(st.integers(0, 2**48 - 1))
def test_a_hand_has_different_cards(number: int) -> None:
    """So a tenant that shares one flow with a noisy neighbour has three others."""
    hand = deal(number)
    assert len(set(hand)) == HAND
    assert all(0 <= card < DECK for card in hand)


def test_hands_are_spread_evenly() -> None:
    """Each card is dealt about as often as any other."""
    random = Random(1)
    counts = Counter(card for _ in range(10_000) for card in deal(random.getrandbits(48)))
    assert max(counts.values()) < 1.3 * min(counts.values())


def test_tenants_take_turns() -> None:
    """However many one tenant has in the queue, the other is served every second time."""
    book = Book()
    bulkhead = full(book, 1, 0.0)
    bulkhead.configure("fifo", 256, 1 << 20, 60.0)
    for number in range(1, 9):
        book.enter(bulkhead, book.ticket(number, 0.0, b"noisy"), 0.0)
    book.enter(bulkhead, book.ticket(101, 0.001, b"polite"), 0.001)
    book.enter(bulkhead, book.ticket(102, 0.001, b"polite"), 0.001)
    now = 0.0
    order = []
    for _ in range(6):
        now += 0.02
        order.append(free_one(book, bulkhead, now))
    assert order.index(101) <= 1
    assert order.index(102) <= 3
    assert [number for number in order if number < 100] == [1, 2, 3, 4]


def test_weights_are_shares() -> None:
    """A tenant of weight 3 is served three times as often."""
    book = Book()
    bulkhead = full(book, 1, 0.0)
    bulkhead.configure("fifo", 256, 1 << 20, 60.0)
    for number in range(40):
        book.enter(bulkhead, book.ticket(1000 + number, 0.0, b"heavy", weight=3.0), 0.0)
        book.enter(bulkhead, book.ticket(2000 + number, 0.0, b"light"), 0.0)
    now = 0.0
    for _ in range(40):
        now += 0.02
        free_one(book, bulkhead, now)
    assert 28 <= sum(number < 2000 for number in book.granted) <= 32


def test_long_requests_cost_more_of_a_share() -> None:
    """Who holds places three times as long gets a third as many: the charge is corrected when a request has ended."""
    book = Book()
    bulkhead = full(book, 1, 0.0)
    bulkhead.configure("fifo", 512, 1 << 20, 600.0)
    for number in range(100):
        book.enter(bulkhead, book.ticket(1000 + number, 0.0, b"long"), 0.0)
        book.enter(bulkhead, book.ticket(2000 + number, 0.0, b"short"), 0.0)
    now = 0.0
    for _ in range(80):
        holder = next(ticket for ticket in book.tickets.values() if ticket.held is bulkhead)
        now += 0.06 if holder.tenant == b"long" else 0.02
        holder.release(now, OK)
    assert 17 <= sum(number < 2000 for number in book.granted) <= 24


def test_an_idle_tenant_saves_up_nothing() -> None:
    """Who comes late is served at once, but has no claim on the past."""
    book = Book()
    bulkhead = full(book, 1, 0.0)
    bulkhead.configure("fifo", 256, 1 << 20, 60.0)
    now = 0.0
    for number in range(1, 61):
        book.enter(bulkhead, book.ticket(number, now, b"early"), now)
    for _ in range(40):
        now += 0.02
        free_one(book, bulkhead, now)
    for number in range(101, 121):
        book.enter(bulkhead, book.ticket(number, now, b"late"), now)
    order = []
    for _ in range(8):
        now += 0.02
        order.append(free_one(book, bulkhead, now))
    assert sum(number > 100 for number in order) in {4, 5}


def test_many_tenants_with_a_request_each_are_one_queue() -> None:
    """Keyed by client address, say: the order of arrival holds, as far as hands of cards do not collide."""
    book = Book()
    bulkhead = full(book, 1, 0.0)
    bulkhead.configure("fifo", 256, 1 << 20, 60.0)
    for number in range(1, 11):
        book.enter(bulkhead, book.ticket(number, number / 1000, b"tenant-%d" % number), number / 1000)
    order = [free_one(book, bulkhead, 0.02 + step * 0.02) for step in range(10)]
    assert order == list(range(1, 11))


@pytest.mark.parametrize(("discipline", "order"), [("fifo", [1, 2, 3]), ("lifo", [3, 2, 1]), ("adaptive", [1, 2, 3])])
def test_disciplines(discipline: str, order: list[int]) -> None:
    """Adaptive is in order of arrival while all is calm."""
    book = Book()
    bulkhead = full(book, 1, 0.0)
    bulkhead.configure(discipline, 256, 1 << 20, 60.0)
    for number in (1, 2, 3):
        book.enter(bulkhead, book.ticket(number, 0.0), 0.0)
    assert [free_one(book, bulkhead, 0.01) for _ in range(3)] == order


@pytest.mark.parametrize("discipline", ["fifo", "lifo"])
def test_another_discipline_ends_congestion(discipline: str) -> None:
    """Who waits, and who comes, is not refused by what the last one has seen; nor when that comes back."""
    book = Book()
    bulkhead = crowded(book)
    bulkhead.configure(discipline, 256, 1 << 20, 60.0)
    bulkhead.tick(1.0)
    assert (bulkhead.snapshot(1.0)["congested_flows"], book.refused) == (0, [])
    assert free_one(book, bulkhead, 1.0) == (1 if discipline == "fifo" else 82)
    bulkhead.configure("adaptive", 256, 1 << 20, 60.0)
    bulkhead.tick(1.1)
    assert (bulkhead.snapshot(1.1)["congested_flows"], book.refused) == (0, [])


def crowded(book: Book) -> Bulkhead:
    """16 places of 20 ms: with an interval's work in the queue, 80, the order turns; 80 to 82 come after it."""
    bulkhead = full(book, 16, 0.0)
    for number in range(1, 80):
        now = number / 5000
        book.enter(bulkhead, book.ticket(number, now), now)
    assert bulkhead.snapshot(now)["congested_flows"] == 0
    for number in range(80, 83):
        now = number / 5000
        book.enter(bulkhead, book.ticket(number, now), now)
    assert bulkhead.snapshot(now)["congested_flows"] == 1
    assert book.refused == []
    return bulkhead


def test_who_came_before_the_turn_keeps_his() -> None:
    """In order of arrival, while who comes then is refused when he has waited for 10 ms."""
    book = Book()
    bulkhead = crowded(book)
    assert free_one(book, bulkhead, 0.0165) == 1
    assert free_one(book, bulkhead, 0.03) == 2
    assert book.refused == [(80, "queue_codel_drop"), (81, "queue_codel_drop")]  # the newest is next at some time


@settings(max_examples=150, deadline=None)
@given(
    slots=st.sampled_from([1, 2, 3, 6, 16]),
    most=st.sampled_from([10, 60, 256]),
    steps=st.lists(st.tuples(st.sampled_from(["enter", "late", "end", "leave", "time"]), st.integers(1, 30))),
)
def test_turns_are_kept_in_any_history(slots: int, most: int, steps: list[tuple[str, int]]) -> None:
    """Who came before the order turned is served in order, and is refused by age only if that takes too long."""
    book = Book()
    bulkhead = full(book, slots, 0.0)
    bulkhead.configure("adaptive", most, 1 << 20, 1.0)
    now, number = 0.0, 0
    for what, size in steps:
        now += size / 400 if what == "time" else 0.0005
        for _ in range(1 if what == "time" else size):
            state = bulkhead.queue._levels[DEFAULT]._nobody.congestion
            turned_at, over_at = state.turned_at if state.congested else 0.0, state.over_at
            waiting = [one.number for one in book.tickets.values() if one.waits_in is bulkhead]
            early = [one for one in waiting if book.tickets[one].arrived_at < turned_at]
            early.sort(key=lambda one: (book.tickets[one].arrived_at, one))
            granted, refused = len(book.granted), len(book.refused)
            if what == "end" and bulkhead.in_flight:
                free_one(book, bulkhead, now)
            elif what == "leave" and waiting:
                bulkhead.cancel(book.tickets[waiting[size % len(waiting)]], now)
            elif what in ("enter", "late"):
                number += 1
                ticket = book.ticket(number, now - size / 1000 if what == "late" else now)
                book.enter(bulkhead, ticket, now)
            else:
                bulkhead.tick(now)
            if early and now < over_at:
                gone = {one for one, reason in book.refused[refused:] if reason == "queue_codel_drop"}
                assert not gone & set(early)
                assert book.granted[granted:] in ([], early[:1])
    for _ in range(number + slots):
        now += 0.0001
        if bulkhead.in_flight:
            free_one(book, bulkhead, now)
    assert (bulkhead.in_flight, bulkhead.queue.queued, bulkhead.repairs) == (0, 0, 0)


def test_under_congestion_the_newest_go_first_and_the_old_are_refused() -> None:
    """And nobody keeps a turn for longer than he would have waited."""
    book = Book()
    bulkhead = crowded(book)
    for number in range(83, 86):
        now = 0.12 + number / 5000
        book.enter(bulkhead, book.ticket(number, now), now)
    assert book.refused == [(number, "queue_codel_drop") for number in range(1, 83)]
    assert free_one(book, bulkhead, 0.138) == 85


def test_few_places_refuse_nobody_by_age() -> None:
    """With two places or fewer the order turns, but waiting lasts until the time-out."""
    book = Book()
    bulkhead = full(book, 2, 0.0, service_s=0.2)
    for number in range(1, 10):
        book.enter(bulkhead, book.ticket(number, number / 12), number / 12)
    assert book.refused == []
    assert bulkhead.snapshot(0.8)["congested_flows"] == 1
    assert free_one(book, bulkhead, 0.81) == 9


def test_calm_returns_when_the_queue_is_empty_for_a_while() -> None:
    """A fifth of an interval; then arrivals are in order again."""
    book = Book()
    bulkhead = full(book, 16, 0.0)
    for number in range(1, 100):
        book.enter(bulkhead, book.ticket(number, 0.0), 0.0)
    assert bulkhead.snapshot(0.0)["congested_flows"] == 1
    while bulkhead.queue.queued:
        free_one(book, bulkhead, 0.005)
    for number in (201, 202, 203):
        book.enter(bulkhead, book.ticket(number, 0.2), 0.2)
    assert bulkhead.snapshot(0.2)["congested_flows"] == 0
    assert free_one(book, bulkhead, 0.201) == 201


def test_a_polite_tenant_is_not_congested_by_a_noisy_one() -> None:
    """Beside a flow that is refused by age it keeps its order, and its place."""
    book = Book()
    bulkhead = full(book, 16, 0.0)
    book.enter(bulkhead, book.ticket(1001, 0.0, b"polite"), 0.0)
    book.enter(bulkhead, book.ticket(1002, 0.0, b"polite"), 0.0)
    for number in range(1, 200):
        book.enter(bulkhead, book.ticket(number, 0.0, b"noisy"), 0.0)
    bulkhead.dispatch(0.012)
    assert book.refused
    assert all(number < 1000 for number, _ in book.refused)
    order = [free_one(book, bulkhead, 0.013) for _ in range(3)]
    assert [number for number in order if number > 1000] == [1001, 1002][: sum(number > 1000 for number in order)]
    assert 1001 in order


def test_a_full_queue_displaces_who_has_less_claim() -> None:
    """A lower class first, then the longest flow of one's own class; else the newcomer is refused."""
    book = Book()
    bulkhead = full(book, 1, 0.0)
    bulkhead.configure("fifo", 3, 1 << 20, 60.0)
    book.enter(bulkhead, book.ticket(1, 0.0, b"a", SHEDDABLE), 0.0)
    book.enter(bulkhead, book.ticket(2, 0.0, b"a", DEFAULT), 0.0)
    book.enter(bulkhead, book.ticket(3, 0.0, b"a", DEFAULT), 0.0)
    book.enter(bulkhead, book.ticket(4, 0.0, b"a", CRITICAL), 0.0)
    assert book.refused == [(1, "priority_shed")]
    book.enter(bulkhead, book.ticket(5, 0.0, b"a", SHEDDABLE), 0.0)
    assert book.refused[1:] == [(5, "priority_shed")]
    book.enter(bulkhead, book.ticket(6, 0.0, b"b", DEFAULT), 0.0)
    assert book.refused[2:] == [(3, "queue_displaced")]
    book.enter(bulkhead, book.ticket(7, 0.0, b"b", DEFAULT), 0.0)
    assert book.refused[3:] == [(7, "queue_full")]


def test_a_tenant_that_fills_the_queue_is_told_so() -> None:
    """Nine of ten are its own: what it sends beyond them is its own doing (429); with a fifth each it is nobody's."""
    book = Book()
    bulkhead = full(book, 1, 0.0)
    bulkhead.configure("fifo", 10, 1 << 20, 60.0)
    book.enter(bulkhead, book.ticket(1, 0.0, b"polite"), 0.0)
    for number in range(2, 12):
        book.enter(bulkhead, book.ticket(number, 0.0, b"noisy"), 0.0)
    assert book.refused == [(11, "fair_share_exceeded")]
    book.enter(bulkhead, book.ticket(12, 0.0, b"polite"), 0.0)
    assert book.refused[1:] == [(10, "fair_share_exceeded")]
    even = Book()
    bulkhead = full(even, 1, 0.0)
    bulkhead.configure("fifo", 10, 1 << 20, 60.0)
    for number in range(1, 12):
        even.enter(bulkhead, even.ticket(number, 0.0, b"tenant %d" % (number % 5)), 0.0)
    assert even.refused == [(11, "queue_full")]


def test_bytes_are_bounded() -> None:
    """By as many displacements as it takes, and not at all for what can never fit in."""
    book = Book()
    bulkhead = full(book, 1, 0.0)
    bulkhead.configure("fifo", 100, 1000, 60.0)
    for number in range(1, 4):
        book.enter(bulkhead, book.ticket(number, 0.0, priority=SHEDDABLE, size_bytes=300), 0.0)
    book.enter(bulkhead, book.ticket(4, 0.0, size_bytes=600), 0.0)
    assert book.refused == [(3, "priority_shed"), (2, "priority_shed")]
    assert bulkhead.queue.queued_bytes == 900
    book.enter(bulkhead, book.ticket(5, 0.0, priority=CRITICAL, size_bytes=1001), 0.0)
    assert book.refused[2:] == [(5, "queue_full")]


def test_a_queue_of_none_refuses_at_once() -> None:
    """Only the limit is left."""
    book = Book()
    bulkhead = full(book, 1, 0.0)
    bulkhead.configure("adaptive", 0, 1000, 60.0)
    book.enter(bulkhead, book.ticket(1, 0.0), 0.0)
    assert book.refused == [(1, "queue_full")]
    bulkhead.is_learned = True
    book.enter(bulkhead, book.ticket(2, 0.0), 0.0)
    assert book.refused[1:] == [(2, "adaptive_limit")]


def test_only_what_waits_elsewhere_counts_from_its_grant() -> None:
    """The wait in the queue of a route is not held against a request in the queue of its upstream."""
    book = Book()
    upstream = full(Book(), 1, 0.0)
    route = full(book, 1, 0.0)
    ticket = book.ticket(7, 0.0)
    book.enter(route, ticket, 0.0)
    next(iter(book.tickets.values())).release(0.9, OK)
    assert ticket.held is route
    upstream.offer(ticket, 0.9)
    upstream.tick(1.5)
    assert book.refused == []
    upstream.tick(1.91)
    assert book.refused == [(7, "queue_timeout")]


def costing(book: Book, number: int, tenant: bytes, cost: float, priority: int = DEFAULT) -> CallbackTicket:
    """A request of so many tokens."""
    ticket = book.ticket(number, 0.0, tenant, priority)
    ticket.cost = cost
    return ticket


def of_costs(book: Book, discipline: str = "fifo") -> Bulkhead:
    """One in whose queue as many wait as want 1000 tokens."""
    bulkhead = full(book, 1, 0.0)
    bulkhead.configure(discipline, 256, 1 << 20, 60.0)
    bulkhead.queue.max_cost = 1000.0
    return bulkhead


def test_nobody_is_displaced_in_vain_beside_one_that_costs_more_than_the_bound() -> None:
    """One makes room for one: that those who are left still cost too much is not their doing."""
    book = Book()
    bulkhead = of_costs(book)
    for number in range(1, 9):
        book.enter(bulkhead, costing(book, number, b"bc"[number % 2 :][:1], 100.0), 0.0)
    book.enter(bulkhead, costing(book, 9, b"a", 5000.0), 0.0)
    book.enter(bulkhead, costing(book, 10, b"d", 100.0), 0.0)
    assert [reason for _, reason in book.refused] == ["queue_displaced"]
    assert bulkhead.queue.queued == 9
    book.enter(bulkhead, costing(book, 11, b"d", 300.0), 0.0)
    assert book.refused[1:] == [(11, "token_limit_shared")]


def test_a_class_whose_own_cost_too_much_displaces_no_lower_one() -> None:
    """It would not have room after that, either; a tenant's only one has."""
    book = Book()
    bulkhead = of_costs(book)
    for number in range(1, 10):
        book.enter(bulkhead, costing(book, number, b"low", 100.0, SHEDDABLE), 0.0)
    for number in (11, 12, 13, 14):
        book.enter(bulkhead, costing(book, number, b"high", 500.0), 0.0)
    assert book.refused == [(9, "priority_shed"), (13, "token_limit_shared"), (14, "token_limit_shared")]
    book.enter(bulkhead, costing(book, 15, b"other", 500.0), 0.0)
    assert book.refused[3:] == [(8, "priority_shed")]


def test_the_newest_of_a_tenant_has_the_place_of_the_oldest_where_requests_cost() -> None:
    """Also if there is only one of it, and nobody has more."""
    book = Book()
    bulkhead = of_costs(book, "lifo")
    book.enter(bulkhead, costing(book, 1, b"a", 1000.0), 0.0)
    book.enter(bulkhead, costing(book, 2, b"a", 1000.0), 0.0)
    assert book.refused == [(1, "queue_displaced")]
