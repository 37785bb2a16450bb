"""A limit on requests in flight, of an upstream, a route or a tenant, and the queue before it.

    try_acquire --a place is free and nobody waits--> permit
    offer ------> queue ------dispatch--------------> permit, `granted`
                    \\-- full, too late, too old ----> `refused`
    release ----> a place is free: dispatch

Invariants
- Never a waiter and a free place: whatever frees a place or raises the limit dispatches. `tick` checks it and counts
  `repairs`; the only legal exception is a place that was handed over to a worker whose waiter is older.
- Nobody overtakes: while anybody waits, here or in another worker, a newcomer queues.
- A permit is released once, by the ticket that holds it; a second release does nothing.
- The callbacks of tickets may call anything here. They are called once the state is whole, one after the other.

The stuck, requests in flight for longer than nearly all (2 x 95th percentile of answers, 40 ms or more), do not count
against the limit, up to `max_stuck`: a path that hangs must not take the places of healthy ones beside it. Both are the
machine's, whatever the number of workers. The queue's bounds are the machine's, too; but each worker has its share of
them in any case, for a crowd at another worker is nothing that it could make room in. The stuck are
told apart by cohort: a permit belongs to the cohort that was open when it was granted, so neither granting nor
releasing costs more than a counter, and a tick moves whole cohorts.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from edgeq.admission.limits import TIMES, Totals
from edgeq.admission.queue import DISCIPLINES, FairQueue
from edgeq.admission.retry_after import RetryAfter
from edgeq.admission.service import Service
from edgeq.admission.ticket import DROPPED, OK, Held, Lobby, Ticket
from edgeq.admission.waits import Waits
from edgeq.board.resources import (
    BINDING_US,
    BOUND_OK,
    BOUND_US,
    BUSY,
    BUSY_BESIDE,
    IN_FLIGHT_US,
    LAST,
    MachineWide,
    turn_of,
)
from edgeq.worker.wheel import NEVER

NO_LIMIT: Final = 1 << 30
PAUSED: Final = 0
"""Instead of a limit; see `Bulkhead.pause`."""
MAX_STUCK: Final = 512
"""A path that hangs and is asked 100 times a second has 200 in flight, if its clients give up after 1 s and may only
have half closed, so that they stay for another second."""
_NOT_OVERTAKING: Final = 1 << 60
"""More than the nanoseconds of any arrival: 36 years from the start of the machine."""
_STUCK_S: Final = 0.04
_STUCK_TIMES: Final = 2.0
_STUCK_UNKNOWN_S: Final = 30.0
"""While nothing has been answered, slow is not told from stuck: a model may take its time for the first answer."""
_COHORT_S: Final = 0.01
_COHORTS: Final = 10.0
"""So many of them, or more, until one is stuck."""
ENOUGH: Final = 4
YOUNG: Final = 512
"""Good answers; before these a limit that is too low is a beginning."""
_LEAST_PATIENT_S: Final = 1.0
_MOST_PATIENT_S: Final = 30.0
SILENT_S: Final = 0.5
"""Or as long as an answer takes: half of what requests wait at most, where no queue.timeout is said."""
UNHEARD_S: Final = 0.05
UNHEARD_TIMES: Final = 8.0
"""While nothing comes back, nobody waits on account of a limit that is a guess for longer than 50 ms, or for as many
times as long as what has come back took. Answers of a millisecond say nothing of the streams after them."""


class Cohort:
    """The permits granted in one stretch of time."""

    __slots__ = ("began_at", "count", "ended_at", "stuck")

    def __init__(self, began_at: float) -> None:
        self.began_at: float = began_at
        self.ended_at: float = 0.0
        """The last one was granted before; 0.0 for the open one."""
        self.count: int = 0
        """Of them, those still held."""
        self.stuck: bool = False


class Watcher:
    """Who learns a limit."""

    __slots__ = ()

    def enough(self, now: float) -> None:
        """Some answers have come since the last look."""
        raise NotImplementedError


class Bulkhead(Lobby):
    """One resource in one worker. The limit is the machine's; counters are this worker's, from its start."""

    __slots__ = (
        "_again",
        "_bound",
        "_bound_at",
        "_cohort",
        "_cohort_s",
        "_cohort_until",
        "_cohorts",
        "_idle_place",
        "_patient_until",
        "_retry_after",
        "_settling",
        "_stuck_after_s",
        "_stuck_at",
        "_stuck_s",
        "_told",
        "_told_waited_s",
        "_waits_by_service",
        "area_at",
        "area_s",
        "bound_ok",
        "bound_s",
        "busy",
        "busy_beside",
        "counted",
        "dropped",
        "excused",
        "heard",
        "held_s",
        "ignored",
        "in_flight",
        "is_callers_own",
        "is_learned",
        "last_refusal",
        "limit",
        "max_stuck",
        "ok",
        "ok_held_s",
        "queue",
        "refusals",
        "repairs",
        "service",
        "shared",
        "stuck",
        "times",
        "waits",
        "watcher",
    )

    def __init__(self, resource: str, limit: int, now: float, shared: MachineWide | None = None, seed: int = 0) -> None:
        super().__init__(resource, "queue")
        self.limit: int = limit
        self.is_callers_own: bool = False
        """Is the caller himself the only one by whom it is reached? Then that is what he is told."""
        self.is_learned: bool = False
        """The limit is not a number of the configuration."""
        self.max_stuck: int = 0
        """A number of the configuration means what it says; a learned limit has `MAX_STUCK`."""
        self.in_flight: int = 0
        self.stuck: int = 0
        self.excused: int = 0
        """Those of the stuck that do not count against the limit."""
        self.counted: int = 0
        """What of in_flight counts against the limit: all but the excused."""
        self.service: Service = Service()
        self.queue: FairQueue = FairQueue(self.service, limit)
        self.shared: MachineWide = MachineWide() if shared is None else shared
        self._retry_after: RetryAfter = RetryAfter(seed)
        self._cohort: Cohort = Cohort(now)
        self._cohort_s: float = _COHORT_S
        self._cohort_until: float = now + _COHORT_S
        self._cohorts: deque[Cohort] = deque()
        """Closed ones with permits, the oldest first."""
        self._stuck_after_s: float = _STUCK_UNKNOWN_S
        self._stuck_s: float = 0.0
        """Integral of stuck over time, up to `_stuck_at`."""
        self._stuck_at: float = now
        self._waits_by_service: bool = False
        self._patient_until: float = 0.0
        """While it is paused, and for as long after it as those who came then may still wait."""
        self._settling: bool = False
        self._again: bool = False
        """Something has changed while who is next was being settled."""
        # What the board has been told of the sums.
        self._told: Totals = Totals()
        self._told_waited_s: float = 0.0
        self.waits: Waits | None = None
        """Of those who had to wait, where the board does not keep them: tenants'."""
        self._idle_place: bool = False
        """The last tick left a waiter beside a free place, for another worker."""
        # For whoever learns the limit (a window is the difference of two readings), and for people.
        self.heard: int = 0
        """Of those in flight, whose answers have begun while somebody watched; see `hear`."""
        self.ok: int = 0
        self.dropped: int = 0
        self.ignored: int = 0
        self.held_s: float = 0.0
        """Sum of how long permits were held, of those that are released."""
        self.area_s: float = 0.0
        """Integral of in_flight over time, up to area_at; see `advance`."""
        self.area_at: float = now
        self.ok_held_s: float = 0.0
        """Sum of how long the OK ones were held."""
        self.watcher: Watcher | None = None
        """See `watch`."""
        self.times: list[float] = []
        self.busy: int = 0
        """Of the dropped ones, those that the upstream itself refused for load; see `refused_beyond`."""
        self.busy_beside: int = 0
        """Sum over these of the requests in flight at that moment."""
        self.bound_s: float = 0.0
        """Time in which the limit was reached, up to the last moment at which it was left; see `totals`."""
        self.bound_ok: int = 0
        """OK ones that came meanwhile."""
        self._bound: bool = False
        self._bound_at: float = now
        self.refusals: dict[str, int] = {}
        self.repairs: int = 0
        self.last_refusal = ""

    def configure(self, discipline: str, max_queued: int, max_bytes: int, max_wait_s: float, workers: int = 1) -> None:
        """Set the queue's bounds, those of the machine; who waits already is measured by the new ones at the next
        occasion.

        max_wait_s 0.0: twice as long as an answer takes, 1 s at least and 30 s at most.
        Raises: KeyError for an unknown discipline.
        """
        self._waits_by_service = max_wait_s == 0.0
        if self._waits_by_service:
            max_wait_s = self._patience_s(self.area_at)
        queue = self.queue
        queue.set_discipline(DISCIPLINES[discipline])
        queue.max_queued = max_queued
        queue.max_bytes = max_bytes
        queue.max_wait_s = max_wait_s
        queue.workers = workers

    def _patience_s(self, now: float) -> float:
        """The longest wait that makes sense: who asks for what takes 10 s does not mind one more, and near capacity
        many would be refused after it that there is a place for soon."""
        if now < self._patient_until:
            return _MOST_PATIENT_S
        return min(_MOST_PATIENT_S, max(_LEAST_PATIENT_S, 2.0 * self.service.median_s()))

    # -- in -----------------------------------------------------------------------------------------------------------

    def try_acquire(self, ticket: Ticket, now: float) -> bool:
        """Take a place if one is free and nobody waits for it."""
        room = self.places()
        if room <= 0:
            return False
        self._grant(ticket, now, room)
        self.shared.admitted(0.0)
        return True

    def places(self) -> int:
        """How many places could `try_acquire` take now? None if 0 or less."""
        if self.queue.queued or self._settling:
            return 0
        room = self.limit - self.counted
        shared = self.shared
        if not shared.alone:
            room = 0 if shared.others_wait() else room - shared.others_in_flight()
        return room

    def offer(self, ticket: Ticket, now: float) -> None:
        """Wait for a place. Calls `granted` or `refused` of the ticket, now or later, unless it is cancelled."""
        cohorts = self._cohorts
        if cohorts and now - cohorts[0].ended_at >= self._stuck_after_s:
            self._find_stuck(now)  # nobody is to wait until the tick for a place that somebody stuck has
        ticket.waits_in = self
        queue = self.queue
        shared = self.shared
        queue.sweep(now)
        queue.elsewhere = shared.others_queued()
        queue.elsewhere_bytes = shared.others_queued_bytes()
        queue.crowds_elsewhere = shared.others_crowds()
        reason = queue.push(ticket, now, self._places(1))
        if reason:
            if self.is_learned and queue.max_queued < 1 and reason == "queue_full":
                reason = "adaptive_limit"  # there is no queue
            queue.shed.append((ticket, reason))
        self.dispatch(now)
        if not self._bound:
            self._look_at_bound(now)

    def cancel(self, ticket: Ticket, now: float) -> None:
        """The ticket waits no more (its client has left)."""
        if ticket.waits_in is not self:
            return
        ticket.waits_in = None
        self.queue.remove(ticket, now)
        self.dispatch(now)

    def _grant(self, ticket: Ticket, now: float, room: int) -> None:
        """`room`: the places that are free, this one among them."""
        if ticket.held is not None:
            ticket.cover()
        cohort = self._cohort
        if now >= self._cohort_until:
            cohort = self._next_cohort(now)
        cohort.count += 1
        ticket.held = self
        ticket.granted_at = now
        ticket.arrived_at = now
        ticket.cohort = cohort
        in_flight = self.in_flight
        self.area_s += in_flight * (now - self.area_at)
        self.area_at = now
        in_flight += 1
        self.in_flight = in_flight
        counted = self.counted + 1
        self.counted = counted
        if room <= 1 and not self._bound:
            self._bound = True
            self._bound_at = now
        if not self.shared.is_late:
            self.shared.set_in_flight(counted, in_flight)

    # -- out ----------------------------------------------------------------------------------------------------------

    def release(self, ticket: Ticket, now: float, outcome: int) -> None:
        """Give a permit back; nothing if the ticket holds none of this bulkhead. Who waits is let in at once."""
        if ticket.held is self:
            cohort = ticket.cohort
            held_s = now - ticket.granted_at
            flow = ticket.charged_flow
            if flow is not None:
                self.queue.settle_account(flow, ticket.charged_s, held_s, ticket.weight)
                ticket.charged_flow = None
            if ticket.heard:
                ticket.heard = False
                self.heard -= 1
            outer = ticket.outer
            if outer is None:
                ticket.held = None
            else:
                self._uncover(ticket, outer)
        else:
            found = self._take_outer(ticket)
            if found is None:
                return
            cohort = found.cohort
            held_s = now - found.granted_at
            flow = found.charged_flow
            if flow is not None:
                self.queue.settle_account(flow, found.charged_s, held_s, ticket.weight)
        cohort.count -= 1
        in_flight = self.in_flight
        self.area_s += in_flight * (now - self.area_at)
        self.area_at = now
        in_flight -= 1
        self.in_flight = in_flight
        if cohort.stuck:
            self._advance_stuck(now)
            self.stuck -= 1
            self._excuse()
        else:
            self.counted -= 1
            self.service.finished(held_s, outcome == OK, now)
        if outcome == OK:
            self.ok += 1
            self.ok_held_s += held_s
            if self.watcher is not None and len(self.times) < TIMES:
                self.times.append(held_s)
            if self._bound:
                self.bound_ok += 1
        elif outcome == DROPPED:
            self.dropped += 1
        else:
            self.ignored += 1
        self.held_s += held_s
        shared = self.shared
        shared.finished(held_s, outcome)
        if not shared.is_late:
            shared.set_in_flight(self.counted, in_flight)
        if self.queue.queued or (not shared.alone and shared.others_wait()):
            self.dispatch(now)
        if self._bound and not self._is_reached():
            self._leave_bound(now)
        # Who is not held back has no use for a quick decision: the tick is early enough.
        watcher = self.watcher
        if watcher is not None and self._bound and (len(self.times) >= ENOUGH or self.ok == 1):
            watcher.enough(now)

    def watch(self, watcher: Watcher | None) -> None:
        """The limit is a guess, and this is who wants to know the times of single answers at once; None: not any more.

        In the beginning, whoever waits as it is raised keeps his turn, and so do those who come as long after that as
        the queue may hold him: nobody is refused by age for what was our mistake. After many answers it is none: what
        came until then was less than the limit takes, and what is too much now is not to wait.
        """
        self.watcher = watcher

    def hear(self, ticket: Ticket) -> None:
        """The answer to one in flight begins; to be called while there is a `watcher`. Who is sent again has another
        permit by then, and has not begun."""
        if not ticket.heard:
            ticket.heard = True
            self.heard += 1

    def refused_beyond(self) -> None:
        """The upstream itself has refused one of those in flight for load; to be called before its release."""
        self.busy += 1
        self.busy_beside += self.in_flight + self.shared.others_in_flight()

    def _leave_bound(self, now: float) -> None:
        self._bound = False
        self.bound_s += now - self._bound_at

    def totals(self, now: float, totals: Totals) -> None:
        """Fill in what a limit is learned from, of this worker."""
        self.advance(now)
        self._advance_stuck(now)
        totals.ok = self.ok
        totals.dropped = self.dropped - self.busy
        totals.busy = self.busy
        totals.busy_beside = self.busy_beside
        totals.service_s = self.ok_held_s
        totals.times = self.times
        totals.stuck = self.stuck
        totals.in_flight_s = self.area_s - self._stuck_s
        totals.bound_s = self.bound_s + (now - self._bound_at if self._bound else 0.0)
        totals.bound_ok = self.bound_ok

    def _uncover(self, ticket: Ticket, outer: list[Held]) -> None:
        """The permit taken last is gone; the one before it becomes the last."""
        held = outer.pop()
        if not outer:
            ticket.outer = None
        ticket.held = held.bulkhead
        ticket.granted_at = held.granted_at
        ticket.cohort = held.cohort
        ticket.charged_flow = held.charged_flow
        ticket.charged_s = held.charged_s

    def _take_outer(self, ticket: Ticket) -> Held | None:
        outer = ticket.outer
        if outer is None:
            return None
        for held in outer:
            if held.bulkhead is self:
                outer.remove(held)
                if not outer:
                    ticket.outer = None
                return held
        return None

    def _excuse(self) -> None:
        """Find out how many of the stuck do not count: all, as long as there are not too many in the machine. Who is
        excused stays so, or two workers that have too many at the same moment would both take them back."""
        room = self.max_stuck - self.shared.others_excused()
        self.excused = min(self.stuck, max(self.excused, room))
        self.counted = self.in_flight - self.excused

    def _room(self) -> int:
        """Places that are free, for whoever comes first; none if 0 or less."""
        room = self.limit - self.counted
        shared = self.shared
        return room if shared.alone else room - shared.others_in_flight()

    def _places(self, more: int) -> float:
        """How many of the machine's places serve those who wait here and `more`: the part of it that they are of all
        who wait, since places go by arrival.

        While somebody waits all of the limit serves: what is free at this moment is on its way to another worker. And
        more than the limit, as long as more are in flight than it has become.
        """
        shared = self.shared
        if shared.alone:
            return float(max(self.limit, self.counted))
        here = self.queue.queued + more
        everywhere = here + shared.others_queued()
        places = max(self.limit, self.counted + shared.others_in_flight())
        return places * here / everywhere if everywhere else float(places)

    # -- who is next --------------------------------------------------------------------------------------------------

    def dispatch(self, now: float) -> None:
        """Let in who waits while places are free, and tell who is turned away. Also to be called by whoever is woken by
        `MachineWide.hand_over` in another worker.

        Raises: what the last callback raised that did, after all others have been called.
        """
        self._settle(now, True)

    def _settle(self, now: float, defer: bool) -> None:
        if self._settling:  # from a callback
            self._again = True
            return
        self._settling = True
        failed: Exception | None = None
        queue = self.queue
        shared = self.shared
        while True:
            queue.sweep(now)
            if queue.shed:
                shed = queue.shed
                queue.shed = []
                for ticket, reason in shed:
                    try:
                        self._refuse(ticket, reason, now)
                    except Exception as error:
                        failed = error  # the others are told all the same
                continue
            room = self._room()
            if room <= 0:
                break
            self._again = False
            oldest = queue.oldest
            if defer and shared.others_wait():
                self._publish()  # or the other one, who looks at once, would leave the place to somebody gone
                if shared.hand_over(NEVER if oldest is None else oldest.arrived_at, now, self._turn()):
                    if self._again:  # it is done there already
                        continue
                    break
            if oldest is None:
                break
            next_one = queue.take(now)
            if next_one is None:
                continue
            next_one.waits_in = None
            waited_s = now - next_one.arrived_at
            self._grant(next_one, now, room)
            shared.admitted(waited_s)
            if self.waits is not None:
                self.waits.record(waited_s, now)
            try:
                next_one.granted(self, now)
            except Exception as error:
                failed = error
        self._settling = False
        self._publish()
        if failed is not None:
            raise failed

    def _publish(self) -> None:
        """Show the other workers who waits here."""
        queue = self.queue
        oldest = queue.oldest
        if oldest is None:
            self.shared.set_waiting(0, 0, NEVER)
        else:
            self.shared.set_waiting(queue.queued, queue.queued_bytes, oldest.arrived_at, self._turn())
        self.shared.set_crowd(queue.crowd_key())

    def _turn(self) -> int:
        """When this worker's turn is among the workers: by class, then by the oldest; but before all of these where who
        is next overtakes the oldest, because his tenant has had less than that one's.

        The older ones elsewhere belong to that tenant, too, or have overtaken nobody there. And one whom it goes
        before must be served here until another one does: by then the first one's tenant has had as much.
        """
        queue = self.queue
        oldest = queue.oldest
        if oldest is None:
            return LAST
        order = int(oldest.arrived_at * 1e9)
        if self.shared.alone or not queue.overtakes():
            order += _NOT_OVERTAKING
        return turn_of(queue.best_class(), order)

    def refuse_all(self, reason: str, now: float) -> None:
        """Nobody is to wait any longer, for this reason (a token of edgeq.reasons)."""
        self.queue.turn_all_away(reason, now)
        self.dispatch(now)

    def _refuse(self, ticket: Ticket, reason: str, now: float) -> None:
        """Tell one that it is turned away."""
        ticket.waits_in = None
        if self.is_callers_own and not reason.startswith("deadline_"):
            reason = "concurrency_limit_client"
        self.refusals[reason] = self.refusals.get(reason, 0) + 1
        self.shared.refused(reason)
        waited_ms = int((now - ticket.arrived_at) * 1000)
        limit = "it is paused" if self.limit == PAUSED else f"the limit is {self.limit}"
        detail = f"{self._fullness(ticket)}, {limit}; waited {waited_ms} ms"
        self.last_refusal = f"{reason}: {detail}"
        retry_s = self._retry_after.refused(now, self._drain_s(now))
        ticket.refused(reason, self.place, detail, retry_s)

    def _drain_s(self, now: float) -> float:
        """How long those who wait will take to be served; 0.0: unknown."""
        return self.queue.drain_s(now, self._places(0), self.in_flight > 0)

    def _fullness(self, ticket: Ticket) -> str:
        """How full the queue is, in words: by bytes as well where these fill it first."""
        queue = self.queue
        size = ticket.size_bytes
        if size > queue.max_bytes:
            return f"its {size} bytes, head and body, are more than the {queue.max_bytes} that may wait"
        waiting = queue.queued + self.shared.others_queued()
        told = f"{waiting} of at most {queue.max_queued} wait"
        waiting_bytes = queue.queued_bytes + self.shared.others_queued_bytes()
        if (waiting_bytes + size) * queue.max_queued > (waiting + 1) * queue.max_bytes:
            told = f"{told}, with {waiting_bytes} of at most {queue.max_bytes} bytes, and this one has {size}"
        return told

    # -- now and then -------------------------------------------------------------------------------------------------

    def resize(self, limit: int, now: float) -> None:
        """Set the limit, at least 1. More: who waits is let in. Less: those in flight finish, none is cut."""
        limit = max(1, limit)
        if limit == self.limit:
            return
        if self.limit == PAUSED:
            self._be_patient(now + self.queue.max_wait_s)
        elif self.watcher is not None and limit > self.limit and self.ok < YOUNG:
            self.queue.patient_until = now + self.queue.max_wait_s
        self.limit = limit
        self.queue.slots = limit
        self.dispatch(now)
        self._look_at_bound(now)

    def pause(self, now: float) -> None:
        """Let nobody in until the next `resize`. Who comes waits, and keeps his turn: that nobody is served says
        nothing of the upstream."""
        if self.limit != PAUSED:
            self.limit = PAUSED
            self._be_patient(NEVER)
            self._look_at_bound(now)

    def _be_patient(self, until: float) -> None:
        self._patient_until = until
        self.queue.patient_until = until
        if self._waits_by_service:
            self.queue.max_wait_s = _MOST_PATIENT_S

    def _look_at_bound(self, now: float) -> None:
        """Is the limit reached? Others may have reached or left it."""
        reached = self._is_reached()
        if self._bound and not reached:
            self._leave_bound(now)
        elif reached and not self._bound:
            self._bound = True
            self._bound_at = now

    def _is_reached(self) -> bool:
        """Does the limit keep anybody from being in flight? A place that is free because it has been handed over, and
        whose new owner has not come yet, is as good as taken."""
        return self.queue.queued > 0 or self._room() <= 0 or self.shared.others_wait()

    def tick(self, now: float) -> None:
        """About ten times a second: find the stuck, end waits that are over, check that nobody waits for nothing."""
        self._find_stuck(now)
        queue = self.queue
        if self._waits_by_service:
            queue.max_wait_s = self._patience_s(now)
        shared = self.shared
        self.tell(now)
        if not shared.alone:
            self._look_at_bound(now)
        if queue.queued or queue.shed or shared.others_wait():
            queue.expire(now)
            self._settle(now, True)
            if queue.queued and self._room() > 0:
                if self._idle_place:  # the other worker has had a whole tick
                    self.repairs += 1
                    self._settle(now, False)
                self._idle_place = queue.queued > 0 and self._room() > 0
            else:
                self._idle_place = False

    def tell(self, now: float) -> None:
        """Count by what the sums have grown, for the board, and show who is in flight."""
        self.advance(now)
        queue = self.queue
        shared = self.shared
        shared.set_in_flight(self.counted, self.in_flight)  # it may have been late until just now
        told = self._told
        shared.add(BINDING_US, int((queue.busy_s - self._told_waited_s) * 1e6))
        self._told_waited_s = queue.busy_s
        bound_s = self.bound_s + (now - self._bound_at if self._bound else 0.0)
        shared.add(IN_FLIGHT_US, int((self.area_s - told.in_flight_s) * 1e6))
        shared.add(BOUND_US, int((bound_s - told.bound_s) * 1e6))
        shared.add(BOUND_OK, self.bound_ok - told.bound_ok)
        shared.add(BUSY, self.busy - told.busy)
        shared.add(BUSY_BESIDE, self.busy_beside - told.busy_beside)
        told.in_flight_s = self.area_s
        told.bound_s = bound_s
        told.bound_ok = self.bound_ok
        told.busy = self.busy
        told.busy_beside = self.busy_beside

    def starves(self, now: float, finished_elsewhere_at: float, usual_s: float) -> bool:
        """Has the oldest waiter of the machine waited for long, and no place come free meanwhile? While the limit is a
        guess (nobody watches a known one) it is better let in than refused.

        `usual_s`: how long a place is held, by the answers of all workers; 0.0 if there are none.
        """
        if self.watcher is None:
            return False
        queue = self.queue
        shared = self.shared
        oldest = queue.oldest
        oldest_at = shared.others_oldest_at()
        if oldest is not None and oldest.arrived_at < oldest_at:
            oldest_at = oldest.arrived_at
        if oldest_at >= NEVER:
            return False
        if 0 < self.in_flight <= self.heard:
            return True  # the upstream has begun to answer all that it was given: they are long, not late
        silent_s = now - max(oldest_at, self.service.finished_at, finished_elsewhere_at)
        # Who may wait for longer than others is not to be held back for longer by a guess.
        if silent_s > min(queue.max_wait_s / 2, max(SILENT_S, usual_s)):
            return True
        # Few arrivals can wait for an answer; an upstream of one slot would be busy with them for long.
        if silent_s <= max(UNHEARD_S, UNHEARD_TIMES * usual_s):
            return False
        return queue.queued + shared.others_queued() >= self.in_flight + shared.others_in_flight()

    def _next_cohort(self, now: float) -> Cohort:
        """Those who come from now on belong to another one than those before."""
        cohort = self._cohort
        self._cohort_until = now + self._cohort_s
        if cohort.count:
            cohort.ended_at = now
            self._cohorts.append(cohort)
            cohort = self._cohort = Cohort(now)
        else:
            cohort.began_at = now
        return cohort

    def _find_stuck(self, now: float) -> None:
        service = self.service
        after_s = _STUCK_UNKNOWN_S
        if service.known:
            after_s = max(_STUCK_S, _STUCK_TIMES * service.p95_s())
        self._stuck_after_s = after_s
        self._cohort_s = max(_COHORT_S, after_s / _COHORTS)
        if now >= min(self._cohort_until, self._cohort.began_at + self._cohort_s):
            self._next_cohort(now)
        cohorts = self._cohorts
        while cohorts and cohorts[0].count == 0:
            cohorts.popleft()
        while cohorts and now - cohorts[0].ended_at >= after_s:
            stuck = cohorts.popleft()
            stuck.stuck = True
            self._advance_stuck(now)
            self.stuck += stuck.count
        if self.stuck > self.excused:
            before = self.counted
            self._excuse()
            if self.counted != before:
                self.shared.set_in_flight(self.counted, self.in_flight)
                self.dispatch(now)

    def advance(self, now: float) -> None:
        """Bring the sums over time (`area_s`, `queue.busy_s`) up to now."""
        self.queue.advance(now)
        self.area_s += self.in_flight * (now - self.area_at)
        self.area_at = now

    def _advance_stuck(self, now: float) -> None:
        self._stuck_s += self.stuck * (now - self._stuck_at)
        self._stuck_at = now

    def snapshot(self, now: float) -> dict[str, object]:
        """What do I hold, who waits, since when, why was the last one refused. Times in seconds."""
        queue = self.queue
        service = self.service
        oldest = queue.oldest
        return {
            "resource": self.resource,
            "limit": self.limit,
            "in_flight": self.in_flight,
            "stuck": self.stuck,
            "queued": queue.queued,
            "queued_bytes": queue.queued_bytes,
            "queued_by_class": queue.by_class(),
            "queued_by_tenant": {name.decode("latin-1"): count for name, count in queue.tenants().items()},
            "oldest_wait_s": 0.0 if oldest is None else now - oldest.arrived_at,
            "congested_flows": queue.congested_flows(),
            "congested_times": queue.turns,
            "drain_s": self._drain_s(now),
            "service_mean_s": service.mean_s,
            "service_median_s": service.median_s(),
            "service_p95_s": service.p95_s(),
            "admitted": self.in_flight + self.ok + self.dropped + self.ignored,
            "ok": self.ok,
            "dropped": self.dropped,
            "ignored": self.ignored,
            "refused": dict(self.refusals),
            "last_refusal": self.last_refusal,
            "repairs": self.repairs,
        }
