"""The limit and its queue: who gets in, who waits, who is turned away, and that nothing is lost."""

from __future__ import annotations

from time import monotonic

import pytest

from edgeq.admission.bulkhead import Bulkhead
from edgeq.admission.limits import Totals
from edgeq.admission.rest import Rest
from edgeq.admission.room import Room
from edgeq.admission.ticket import CRITICAL, DEFAULT, DROPPED, IGNORED, OK, SHEDDABLE, CallbackTicket
from edgeq.board.handover import Neighbours
from edgeq.board.layout import Board
from edgeq.board.resources import Resources, turn_of
from edgeq.config.schema import Upstream as UpstreamConfig
from edgeq.upstream.upstream import Upstream
from edgeq.worker.wheel import Wheel
from tests.admission.support import Book, free_one, full, taught


def test_as_many_as_the_limit_then_in_order_of_arrival() -> None:
    """Who finds all places taken waits, and each place that comes free goes to the one who has waited longest."""
    book = Book()
    bulkhead = Bulkhead("upstream/api", 2, 0.0)
    entered = [book.enter(bulkhead, book.ticket(number, 0.0), 0.0) for number in range(1, 6)]
    assert entered == [True, True, False, False, False]
    assert (bulkhead.in_flight, bulkhead.queue.queued) == (2, 3)
    for number in (1, 2, 3):
        book.tickets[number].release(0.01, OK)
    assert book.granted == [3, 4, 5]
    assert bulkhead.queue.queued == 0


def test_nobody_overtakes() -> None:
    """A newcomer that finds a free place beside somebody who waits, queues: here one who comes from a callback."""
    book = Book()
    bulkhead = Bulkhead("upstream/api", 1, 0.0)
    order: list[str] = []

    def ended(ticket: CallbackTicket, now: float) -> None:
        order.append("first")
        ticket.release(now, OK)  # the place is free again, and somebody else has waited for it
        book.enter(bulkhead, book.ticket(9, now), now)

    holder = book.ticket(1, 0.0)
    book.enter(bulkhead, holder, 0.0)
    bulkhead.offer(CallbackTicket(0.0, ended, lambda *_: None), 0.0)
    book.enter(bulkhead, book.ticket(2, 0.0), 0.0)
    holder.release(0.01, OK)
    assert order == ["first"]
    assert book.granted == [2]
    book.tickets[2].release(0.02, OK)
    assert book.granted == [2, 9]


def test_a_permit_is_released_once() -> None:
    """Whoever ends a request may do so twice."""
    book = Book()
    bulkhead = Bulkhead("upstream/api", 1, 0.0)
    ticket = book.ticket(1, 0.0)
    book.enter(bulkhead, ticket, 0.0)
    ticket.release(0.1, OK)
    ticket.release(0.1, DROPPED)
    bulkhead.release(ticket, 0.1, IGNORED)
    assert (bulkhead.in_flight, bulkhead.counted, bulkhead.ok, bulkhead.dropped, bulkhead.ignored) == (0, 0, 1, 0, 0)


def test_permits_of_several_limits() -> None:
    """Tenant, route and upstream: all are given back together, or one of them alone."""
    book = Book()
    tenant, route, upstream = (Bulkhead(name, 1, 0.0) for name in ("tenant/a", "route/r", "upstream/u"))
    ticket = book.ticket(1, 0.0)
    for bulkhead in (tenant, route, upstream):
        assert bulkhead.try_acquire(ticket, 0.0)
    route.release(ticket, 0.5, OK)
    assert [bulkhead.in_flight for bulkhead in (tenant, route, upstream)] == [1, 0, 1]
    ticket.release(1.0, DROPPED)
    assert [bulkhead.in_flight for bulkhead in (tenant, route, upstream)] == [0, 0, 0]
    assert [(bulkhead.ok, bulkhead.dropped) for bulkhead in (tenant, route, upstream)] == [(0, 1), (1, 0), (0, 1)]
    assert tenant.held_s == pytest.approx(1.0)
    assert ticket.held is None
    assert ticket.outer is None


def test_a_client_that_leaves_the_queue_goes_at_once() -> None:
    """It is told nothing, and its bytes are free."""
    book = Book()
    bulkhead = full(book, 1, 0.0)
    waiting = book.ticket(1, 0.0, size_bytes=1000)
    book.enter(bulkhead, waiting, 0.0)
    assert bulkhead.queue.queued_bytes == 1000
    bulkhead.cancel(waiting, 0.01)
    bulkhead.cancel(waiting, 0.01)
    assert (bulkhead.queue.queued, bulkhead.queue.queued_bytes, waiting.waits_in) == (0, 0, None)
    assert free_one(book, bulkhead, 0.02) == 0
    assert book.refused == []


def test_a_raised_limit_lets_in_who_waits() -> None:
    """And a lowered one cuts nobody."""
    book = Book()
    bulkhead = full(book, 2, 0.0)
    for number in (1, 2, 3):
        book.enter(bulkhead, book.ticket(number, 0.0), 0.0)
    bulkhead.resize(4, 0.01)
    assert book.granted == [1, 2]
    bulkhead.resize(1, 0.02)
    assert bulkhead.in_flight == 4
    for _ in range(3):
        assert free_one(book, bulkhead, 0.03) == 0
    assert free_one(book, bulkhead, 0.03) == 3


def test_a_refusal_says_what_by_whom_and_until_when() -> None:
    """Reason, resource, a sentence with numbers, Retry-After."""
    book = Book()
    bulkhead = full(book, 1, 0.0)
    bulkhead.configure("fifo", 1, 1 << 20, 1.0)
    book.enter(bulkhead, book.ticket(1, 0.0), 0.0)
    book.enter(bulkhead, book.ticket(2, 0.0), 0.0)
    assert book.refused == [(2, "queue_full")]
    resource, detail, retry_after_s = book.details[0]
    assert resource == "upstream/api:queue"
    assert detail == "1 of at most 1 wait, the limit is 1; waited 0 ms"
    assert 1 <= retry_after_s <= 2
    assert bulkhead.refusals == {"queue_full": 1}
    assert bulkhead.snapshot(0.5)["oldest_wait_s"] == 0.5


def test_a_refusal_tells_bytes_where_these_fill_the_queue() -> None:
    """Who would raise the number of requests in vain reads which bound it was; and of a body that can never wait."""
    book = Book()
    bulkhead = full(book, 1, 0.0)
    bulkhead.configure("fifo", 100, 1000, 1.0)
    for number, size in ((1, 600), (2, 500), (3, 1001)):
        ticket = book.ticket(number, 0.0)
        ticket.size_bytes = size
        book.enter(bulkhead, ticket, 0.0)
    assert book.refused == [(2, "queue_full"), (3, "queue_full")]
    assert [detail for _, detail, _ in book.details] == [
        "1 of at most 100 wait, with 600 of at most 1000 bytes, and this one has 500, the limit is 1; waited 0 ms",
        "its 1001 bytes, head and body, are more than the 1000 that may wait, the limit is 1; waited 0 ms",
    ]


def test_waits_end() -> None:
    """At the queue's time-out and at the request's deadline; a tick sees it if nothing else does."""
    book = Book()
    bulkhead = full(book, 1, 0.0)
    taught(bulkhead, 0.001, 0.0)
    book.enter(bulkhead, book.ticket(1, 0.0), 0.0)
    book.enter(bulkhead, book.ticket(2, 0.0, deadline_at=0.4), 0.0)
    bulkhead.tick(0.3)
    assert book.refused == []
    bulkhead.tick(0.4)
    assert book.refused == [(2, "deadline_expired")]
    bulkhead.tick(1.0)
    assert book.refused[1:] == [(1, "queue_timeout")]
    assert bulkhead.queue.queued == 0


def test_a_deadline_that_cannot_be_met_is_refused_on_entry() -> None:
    """Predicted wait plus the 95th percentile of service; if not even that fits in, the median counts."""
    book = Book()
    bulkhead = full(book, 2, 0.0, service_s=0.1)
    for number in range(1, 5):
        book.enter(bulkhead, book.ticket(number, 0.0), 0.0)
    # Four wait before it: a place comes free each 50 ms, so it would be done after 350 ms.
    book.enter(bulkhead, book.ticket(5, 0.0, deadline_at=0.34), 0.0)
    book.enter(bulkhead, book.ticket(6, 0.0, deadline_at=0.36), 0.0)
    book.enter(bulkhead, book.ticket(7, 0.0, deadline_at=0.0), 0.0)
    book.enter(bulkhead, book.ticket(8, 0.0, CRITICAL.to_bytes(), CRITICAL, deadline_at=0.16), 0.0)
    assert book.refused == [(5, "deadline_infeasible"), (7, "deadline_expired")]
    seen = bulkhead.queue.infeasible
    assert seen is not None
    assert (seen.at, seen.left_s, round(seen.wait_s, 3), seen.p95_s) == (0.0, 0.34, 0.25, 0.1)


def test_a_request_that_missed_its_time_is_not_dispatched() -> None:
    """Its place goes to one that can still make it."""
    book = Book()
    bulkhead = full(book, 1, 0.0, service_s=0.1)
    book.enter(bulkhead, book.ticket(1, 0.0, deadline_at=0.25), 0.0)
    book.enter(bulkhead, book.ticket(2, 0.0), 0.0)
    assert free_one(book, bulkhead, 0.2) == 2
    assert book.refused == [(1, "deadline_infeasible")]
    seen = bulkhead.queue.infeasible
    assert seen is not None
    assert (seen.at, round(seen.left_s, 3), seen.wait_s, seen.median_s) == (0.2, 0.05, 0.0, 0.1)


def test_the_stuck_do_not_take_the_places_of_others() -> None:
    """Requests in flight for twice the usual do not count, up to a cap."""
    book = Book()
    bulkhead = full(book, 4, 0.0)
    bulkhead.max_stuck = 3
    book.enter(bulkhead, book.ticket(1, 0.0), 0.0)
    bulkhead.tick(0.03)
    assert (bulkhead.stuck, book.granted) == (0, [])
    bulkhead.cancel(book.tickets[1], 0.035)
    book.enter(bulkhead, book.ticket(2, 0.035), 0.035)
    for twentieth in range(2, 4):
        bulkhead.tick(twentieth / 20)
    assert (bulkhead.stuck, bulkhead.in_flight, bulkhead.counted) == (4, 5, 2)
    assert book.granted == [2]
    for number in range(4):
        book.tickets[-number].release(2.0, DROPPED)
    assert (bulkhead.stuck, bulkhead.in_flight, bulkhead.counted) == (0, 1, 1)
    assert bulkhead.service.mean_s == pytest.approx(0.02)


def test_nobody_waits_until_the_tick_for_the_place_of_one_that_is_stuck() -> None:
    """Who comes and finds no place has the stuck looked for; and those who wait already have the places."""
    book = Book()
    bulkhead = full(book, 2, 0.0)
    bulkhead.max_stuck = 2
    bulkhead.tick(0.0)
    book.enter(bulkhead, book.ticket(1, 0.02), 0.02)  # closes the cohort of the two
    bulkhead.tick(0.02)
    assert book.granted == []
    book.enter(bulkhead, book.ticket(2, 0.07), 0.07)
    assert book.granted == [1, 2]
    assert (bulkhead.stuck, bulkhead.in_flight, bulkhead.counted) == (2, 4, 2)


def test_the_stuck_are_left_out_of_what_a_limit_is_learned_from() -> None:
    """Nobody waits for them to finish: a window of three answers for each in flight need not be that long."""
    book = Book()
    bulkhead = full(book, 2, 0.0)
    bulkhead.max_stuck = 2
    totals = Totals()
    for hundredth in range(0, 101, 10):
        bulkhead.tick(hundredth / 100)
    bulkhead.totals(1.0, totals)
    assert bulkhead.stuck == 2
    assert totals.in_flight_s == pytest.approx(2 * 0.2)
    bulkhead.totals(2.0, totals)
    assert totals.in_flight_s == pytest.approx(2 * 0.2)


def test_slow_is_not_stuck_while_nothing_is_known() -> None:
    """A model that takes ten seconds for its first answer keeps its limit."""
    book = Book()
    bulkhead = Bulkhead("upstream/model", 1, 0.0)
    book.enter(bulkhead, book.ticket(1, 0.0), 0.0)
    for second in range(1, 21):
        bulkhead.tick(float(second))
    assert bulkhead.stuck == 0


def test_a_callback_that_fails_does_not_stop_the_others() -> None:
    """The error comes out once everybody has been served."""
    book = Book()
    bulkhead = full(book, 1, 0.0)

    def fails(ticket: CallbackTicket, now: float) -> None:
        ticket.release(now, IGNORED)
        raise RuntimeError("callback")

    bulkhead.offer(CallbackTicket(0.0, fails, lambda *_: None), 0.0)
    book.enter(bulkhead, book.ticket(1, 0.0), 0.0)
    with pytest.raises(RuntimeError, match="callback"):
        book.tickets[0].release(0.01, OK)
    assert book.granted == [1]


def test_two_workers_share_a_limit_and_the_order_of_arrival() -> None:
    """Nobody who arrives overtakes who waits in another worker; a place goes to the one who has waited longest."""
    book = Book()
    room = Room()
    workers: list[Bulkhead] = []
    clock = [0.0]
    for index in range(2):
        share = room.join(lambda index=index: workers[index].dispatch(clock[0]))  # type: ignore[misc]
        workers.append(Bulkhead("upstream/api", 1, 0.0, share))
    assert book.enter(workers[0], book.ticket(1, 0.0), 0.0)
    for number, worker in ((2, 1), (3, 0), (4, 1)):
        clock[0] = number / 10
        assert not book.enter(workers[worker], book.ticket(number, clock[0]), clock[0])
    for number in (1, 2, 3, 4):
        clock[0] += 0.01
        book.tickets[number].release(clock[0], OK)
    assert book.granted == [2, 3, 4]
    assert [worker.in_flight for worker in workers] == [0, 0]


def test_who_has_had_less_goes_before_older_ones_of_other_workers() -> None:
    """A tenant who has had less than a noisy one at his worker gets the next place of the machine, although that one
    waits for longer everywhere; and no other one before the noisy one has been served there again."""
    book = Book()
    room = Room()
    workers: list[Bulkhead] = []
    clock = [0.0]
    for index in range(2):
        share = room.join(lambda index=index: workers[index].dispatch(clock[0]))  # type: ignore[misc]
        workers.append(Bulkhead("upstream/api", 1, 0.0, share))
        workers[index].configure("fifo", 64, 1 << 20, 60.0, 2)

    def arrive(number: int, worker: int, tenant: bytes) -> None:
        clock[0] += 0.001
        book.enter(workers[worker], book.ticket(number, clock[0], tenant), clock[0])

    def end(number: int, held_s: float) -> None:
        clock[0] = book.tickets[number].granted_at + held_s
        book.tickets[number].release(clock[0], OK)

    arrive(1, 0, b"noisy")
    arrive(2, 1, b"noisy")
    end(1, 0.01)
    arrive(3, 0, b"noisy")
    arrive(4, 0, b"noisy")
    arrive(5, 1, b"noisy")
    arrive(6, 1, b"polite")
    arrive(7, 1, b"polite")
    end(2, 0.02)
    assert book.granted == [2, 6]
    end(6, 0.05)
    for number in (3, 4, 5):
        end(number, 0.02)
    assert book.granted == [2, 6, 3, 4, 5, 7]


def test_what_ran_before_the_second_worker_came_counts_for_it() -> None:
    """A worker that is alone tells nobody what is in flight; with the tick on which it sees another one it does."""
    board = Board.create(2)
    board.assign_resources(["upstream/api"])
    board.use(0)
    first = Resources(board, Neighbours(board, 0, lambda _: None))
    alone = Bulkhead("upstream/api", 2, 0.0, first.bind("upstream/api"))
    book = Book()
    book.enter(alone, book.ticket(1, 0.0), 0.0)
    book.enter(alone, book.ticket(2, 0.0), 0.0)
    board.use(1)
    newcomer = Bulkhead(
        "upstream/api", 2, 0.0, Resources(board, Neighbours(board, 1, lambda _: None)).bind("upstream/api")
    )
    first.tick(0.1)
    alone.tick(0.1)
    assert newcomer.places() == 0
    book.tickets[1].release(0.2, OK)
    assert newcomer.places() == 1
    board.close()


def test_places_on_their_way_to_another_worker_are_no_sign_of_congestion() -> None:
    """All places have just come free, and the other worker has been called for them: the queue is as short as ever.

    Taken for a machine in which one place serves all who wait, the order turned, and who came after that was refused
    after 10 ms (seen as `queue_codel_drop` with 32 clients at an idle upstream, on a machine short of processors).
    """
    board = Board.create(2)
    board.assign_resources(["upstream/api"])
    board.use(0)
    board.use(1)
    here, there = (Resources(board, Neighbours(board, slot, lambda _: None)) for slot in range(2))
    there.bind("upstream/api").set_waiting(4, 0, 0.5, turn_of(DEFAULT, 500_000_000))
    bulkhead = Bulkhead("upstream/api", 10, 0.0, here.bind("upstream/api"))
    taught(bulkhead, 0.009, 1.0)
    book = Book()
    for number in range(16):
        at = 1.0 if number < 12 else 1.001
        assert not book.enter(bulkhead, book.ticket(number, at), at)
    assert bulkhead.queue.turns == 0
    bulkhead.queue.sweep(1.02)
    assert bulkhead.queue.shed == []
    board.close()


def test_a_lost_wake_up_costs_two_ticks() -> None:
    """A place that was handed over to a worker that does not come for it is taken after all."""
    book = Book()
    room = Room()
    deaf = Bulkhead("upstream/api", 1, 0.0, room.join(lambda: None))
    mine = Bulkhead("upstream/api", 1, 0.0, room.join(lambda: None))
    assert book.enter(mine, book.ticket(1, 0.0), 0.0)
    book.enter(deaf, book.ticket(2, 0.0), 0.0)
    book.enter(mine, book.ticket(3, 0.1), 0.1)
    book.tickets[1].release(0.2, OK)
    assert book.granted == []
    mine.tick(0.3)
    assert (book.granted, mine.repairs) == ([], 0)
    mine.tick(0.4)
    assert (book.granted, mine.repairs) == ([3], 1)


def test_counters_for_learning_a_limit() -> None:
    """Time-averaged in-flight and the share of time in which somebody waited."""
    book = Book()
    bulkhead = Bulkhead("upstream/api", 2, 0.0)
    one, two, three = (book.ticket(number, arrived) for number, arrived in ((1, 0.0), (2, 1.0), (3, 1.5)))
    book.enter(bulkhead, one, 0.0)
    book.enter(bulkhead, two, 1.0)
    book.enter(bulkhead, three, 1.5)
    one.release(2.0, OK)
    two.release(3.0, DROPPED)
    bulkhead.advance(4.0)
    assert bulkhead.area_s == pytest.approx(1 + 2 + 2 + 1)
    assert bulkhead.queue.busy_s == pytest.approx(0.5)
    assert bulkhead.held_s == pytest.approx(2.0 + 2.0)
    assert (bulkhead.ok, bulkhead.dropped, bulkhead.in_flight) == (1, 1, 1)
    assert bulkhead.snapshot(4.0)["admitted"] == 3


def test_priority_goes_first() -> None:
    """Critical before default before sheddable, whenever they came."""
    book = Book()
    bulkhead = full(book, 1, 0.0)
    for number, priority in ((1, SHEDDABLE), (2, 1), (3, CRITICAL), (4, CRITICAL)):
        book.enter(bulkhead, book.ticket(number, 0.0, priority=priority), 0.0)
    assert [free_one(book, bulkhead, 0.01) for _ in range(4)] == [3, 4, 2, 1]


def test_a_wait_without_a_time_out_of_its_own_goes_by_the_service() -> None:
    """A second at first; of an upstream that takes 10 s for its answers 20 s; never more than 30 s."""
    book = Book()
    bulkhead = Bulkhead("upstream/model", 4, 0.0)
    bulkhead.configure("adaptive", 16, 1 << 20, 0.0)
    assert bulkhead.queue.max_wait_s == 1.0
    now = 0.0
    for held_s, patience_s in ((10.0, 20.0), (100.0, 30.0), (0.01, 1.0)):
        for number in range(100):
            book.enter(bulkhead, book.ticket(number, now), now)
            now += held_s
            book.tickets.pop(number).release(now, OK)
        bulkhead.tick(now)
        assert bulkhead.queue.max_wait_s == patience_s


@pytest.mark.parametrize("timeout_s", [0.0, 1.0, 30.0])
def test_a_guess_holds_nobody_back_for_long_who_may_wait_for_long(timeout_s: float) -> None:
    """Fewer wait than are in flight, and no answer comes: after half a second another one is let in, even where
    requests may wait for half a minute. A model's first answers may take as long, and its limit be nowhere near."""
    book = Book()
    bulkhead = full(book, 4, 0.0)
    bulkhead.configure("adaptive", 16, 1 << 20, timeout_s)
    book.enter(bulkhead, book.ticket(9, 0.0), 0.0)
    bulkhead.watch(Upstream("api", Wheel(0.0, 0.05, 64)))
    assert not bulkhead.starves(0.4, 0.0, 0.0)
    assert bulkhead.starves(0.6, 0.0, 0.0)


def test_nobody_is_refused_by_age_while_the_limit_is_a_guess() -> None:
    """It doubles without a tick; then it is known, and for a second those who have waited for it keep their turns."""
    book = Book()
    upstream = Upstream("api", Wheel(0.0, 0.05, 64))
    start = now = monotonic() + 1.0
    upstream.learn(now)
    bulkhead = upstream.bulkhead
    bulkhead.configure("adaptive", 1000, 1 << 20, 1.0)
    for number in range(200):
        book.enter(bulkhead, book.ticket(number, now), now)
    while bulkhead.limit < 8:
        now += 0.02
        assert now < start + 0.5
        for ticket in [ticket for ticket in book.tickets.values() if ticket.held is bulkhead]:
            ticket.release(now, OK)
    bulkhead.watch(None)
    for number in range(200, 300):
        book.enter(bulkhead, book.ticket(number, now), now)
    bulkhead.dispatch(start + 0.99)
    assert book.refused == []
    for number in range(300, 700):
        book.enter(bulkhead, book.ticket(number, now + 1.01), now + 1.01)
    bulkhead.dispatch(now + 1.5)
    assert {reason for _, reason in book.refused} >= {"queue_codel_drop"}


def test_a_guess_that_was_not_raised_is_no_reason_for_patience() -> None:
    """What came until now was less than the limit takes, so it is as high as it has to be: who waits beyond is refused
    by age from the first moment, whoever still watches."""
    book = Book()
    bulkhead = full(book, 16, 0.0)
    bulkhead.watch(Upstream("api", Wheel(0.0, 0.05, 64)))
    for number in range(1, 201):
        book.enter(bulkhead, book.ticket(number, 0.0), 0.0)
    for number in range(201, 211):
        book.enter(bulkhead, book.ticket(number, 0.2), 0.2)
    bulkhead.dispatch(0.25)
    assert {reason for _, reason in book.refused} == {"queue_codel_drop"}


def test_after_many_answers_a_raise_is_no_reason_for_patience_either() -> None:
    """A quiet time teaches nothing, so the guess lasts; when too much comes then, it is raised, and is no beginning."""
    for answers, refused in ((1, False), (600, True)):
        book = Book()
        bulkhead = Bulkhead("upstream/api", 16, 0.0)
        bulkhead.configure("adaptive", 1000, 1 << 20, 1.0)
        taught(bulkhead, 0.02, 0.0)
        bulkhead.ok = answers
        bulkhead.watch(Upstream("api", Wheel(0.0, 0.05, 64)))
        for number in range(1, 201):
            book.enter(bulkhead, book.ticket(number, 0.0), 0.0)
        bulkhead.resize(32, 0.0)
        for number in range(201, 411):
            book.enter(bulkhead, book.ticket(number, 0.01), 0.01)
        bulkhead.dispatch(0.3)
        assert ("queue_codel_drop" in {reason for _, reason in book.refused}) == refused


def test_a_limit_that_is_too_high_makes_nobody_wait_longer_for_a_refusal() -> None:
    """A guess, or one that is tried. Answers take 20 ms while nobody waits at the upstream; 32 are let in where 16 are
    needed, and each place is held for 40: too old is who would be with 16."""
    for rest, refused in ((0.0, 0), (0.02, 9), (0.04, 0)):
        book = Book()
        bulkhead = full(book, 32, 0.0, 0.04)
        bulkhead.queue.rest_s = rest
        for number in range(1, 201):
            book.enter(bulkhead, book.ticket(number, 0.0), 0.0)
        bulkhead.queue.turn_all_away("queue_timeout", 0.0)
        bulkhead.dispatch(0.0)
        book.refused.clear()
        for number in range(201, 211):
            book.enter(bulkhead, book.ticket(number, 0.05), 0.05)
        bulkhead.dispatch(0.065)
        assert len(book.refused) == refused


def test_how_long_a_place_is_held_at_rest() -> None:
    """While a guess lasts, what its first answers took; during a trial, what it was before; and both for as long after
    it as the mean takes to forget."""
    rest = Rest()
    assert rest.look(0.0, False, 0.02, 3) == 0.0
    assert rest.look(0.02, False, 0.04, 20) == 0.02
    assert rest.look(0.0, False, 0.04, 21) == 0.02
    assert rest.look(0.0, False, 0.021, 20 + Rest.AFTER) == 0.0
    assert rest.look(0.0, True, 0.021, 200) == 0.021
    assert rest.look(0.0, True, 0.042, 300) == 0.021
    assert rest.look(0.0, False, 0.042, 300 + Rest.AFTER - 1) == 0.021
    assert rest.look(0.0, True, 0.03, 300 + Rest.AFTER - 1) == 0.021
    assert rest.look(0.0, False, 0.02, 1000) == 0.0


def test_what_was_tried_by_a_learned_limit_ends_with_it() -> None:
    """A number takes its place while twice as much is tried: places are held as long as they are held."""
    upstream = Upstream("api", Wheel(0.0, 0.05, 64))
    upstream.configure(UpstreamConfig(endpoints=()), 1)
    upstream.bulkhead.queue.rest_s = 0.02
    upstream.configure(UpstreamConfig(endpoints=(), limit=8), 1)
    assert (upstream.bulkhead.limit, upstream.bulkhead.queue.rest_s) == (8, 0.0)


def test_a_pause_keeps_everybody_in_turn() -> None:
    """Who comes meanwhile waits, far beyond the age at which a limit would refuse him; nobody is let in, who runs ends;
    afterwards all are let in, the oldest first."""
    book = Book()
    bulkhead = full(book, 2, 0.0, 0.01)
    bulkhead.configure("adaptive", 16, 1 << 20, 0.0)
    bulkhead.pause(0.0)
    for number in range(10, 14):
        assert not book.enter(bulkhead, book.ticket(number, 0.0), 0.0)
    book.granted.clear()
    for ticket in [one for one in book.tickets.values() if one.held is bulkhead]:
        ticket.release(0.1, OK)
    for moment in (1.0, 5.0, 20.0):
        bulkhead.configure("adaptive", 16, 1 << 20, 0.0)  # a reload of anything
        bulkhead.pause(moment)
        bulkhead.tick(moment)
    assert (bulkhead.in_flight, bulkhead.queue.queued, book.granted, book.refused) == (0, 4, [], [])
    bulkhead.resize(2, 20.0)
    bulkhead.tick(20.1)
    assert (book.granted, book.refused) == ([10, 11], [])
    book.tickets[10].release(20.2, OK)
    book.tickets[11].release(20.2, OK)
    assert book.granted == [10, 11, 12, 13]


def test_a_pause_is_bounded() -> None:
    """By the queue's length and time-out; who is refused is told that it is a pause."""
    book = Book()
    bulkhead = Bulkhead("route/r", 1 << 30, 0.0)
    bulkhead.configure("fifo", 1, 1 << 20, 2.0)
    bulkhead.pause(0.0)
    for number in range(2):
        book.enter(bulkhead, book.ticket(number, 0.0), 0.0)
    assert book.refused == [(1, "queue_full")]
    bulkhead.tick(1.9)
    assert len(book.refused) == 1
    bulkhead.tick(2.1)
    assert book.refused[1] == (0, "queue_timeout")
    assert all("it is paused" in detail for _, detail, _ in book.details)


def test_a_worker_where_nothing_runs_does_not_take_its_silence_for_slow_answers() -> None:
    """All places are at the other worker, where they come free twice a second: who is refused here is told when the
    queue will be empty, however long nothing has come free here."""
    book = Book()
    room = Room()
    workers: list[Bulkhead] = []
    for index in range(2):
        share = room.join(lambda index=index: workers[index].dispatch(9.0))  # type: ignore[misc]
        workers.append(Bulkhead("upstream/api", 1, 0.0, share))
        workers[index].configure("fifo", 4, 1 << 20, 60.0, 1)
        taught(workers[index], 0.5, 0.0)
    assert book.enter(workers[1], book.ticket(1, 0.0), 0.0)
    for number in (2, 3, 4, 5, 6):
        book.enter(workers[0], book.ticket(number, 0.0), 9.0 if number == 6 else 0.0)
    ((number, reason),) = book.refused
    assert (number, reason) == (6, "queue_full")
    assert 2 <= book.details[0][2] <= 4
