"""The queue before one model at one provider's key: a request is let in when there are tokens for it.

    try_acquire --enough is left, and nobody waits--> reservation
    offer ------> queue --the meter admits-----------> reservation, `granted`
                    \\-- full, too late, hopeless ---> `refused`
    claim.settle, claim.give_back: what was not used is let to the next one at once

A ticket says what it needs by its `claim`, and that holds what it was given.

Invariants
- Nobody waits for nothing: if anybody waits and it is this worker's turn, an alarm stands at the moment at which the
  meter will admit who is next, or the pause ends; what is paid back looks at the queue at once.
- Nobody overtakes: while anybody waits, here or in another worker, a newcomer queues.
- The claim of a granted ticket has an open reservation, which `settle` or `give_back` ends, once. The ticket itself
  holds no permit of the gate.

Fair by tokens, machine-wide. A tenant's flow is charged with the tokens that his requests are expected to use, and
corrected once they are settled, in start-time fair queueing (admission/queue.py). The tags of tenants and the virtual
time stand in the table of arrival times, too, in tokens instead of nanoseconds: so a tenant who is connected to all
workers has one share and not four. The worker whose next request has the lowest tag has the turn, and nobody else asks
the meter: a large request gets together what it needs, however small those behind it are. The turn is passed on by the
bells of board/handover.py. A table that is full forgets tags first, as times that have passed: then a tenant begins
anew at the virtual time.

Pauses (`pauses`), by what the provider says (`hearing`) or as it fails: one that is longer than a request may wait
refuses it at once, for another target may do. While a model rests as it fails nobody waits at all: who has no other
target is told when to come again.

Source: reference llm.md 4.4, 5.1; SFQ: Goyal, Vin, Cheng, "Start-time Fair Queueing" (1996).
"""

from __future__ import annotations

from typing import Any, Final

from edgeq.admission.queue import FIFO, OUT_OF_TOKENS, FairQueue
from edgeq.admission.retry_after import RetryAfter
from edgeq.admission.service import Service
from edgeq.admission.ticket import Lobby, Ticket
from edgeq.admission.waits import Waits
from edgeq.board.layout import key_hash
from edgeq.board.resources import LAST, MachineWide, turn_of
from edgeq.llm.estimate import Estimate
from edgeq.llm.hearing import Hearing
from edgeq.llm.ledger import Reservation
from edgeq.llm.message import Usage
from edgeq.llm.meter import BUDGET, REQUESTS, TOKENS, Meter, Refusal
from edgeq.llm.pauses import DISABLED_S, PAUSED_SINCE, Pauses, paused_for
from edgeq.llm.promise import MOST_S, come_again_s
from edgeq.llm.provider_limits import Heard
from edgeq.llm.rests import UNHEARD
from edgeq.policy.tenant import key_of
from edgeq.worker.wheel import NEVER, Alarm, FineWheel

_TAG_UNIT_BITS: Final = 4
_ARRIVAL_BITS: Final = 20
"""Of a turn: 17 minutes in milliseconds, far more than anybody waits."""
_ARRIVAL_MASK: Final = (1 << _ARRIVAL_BITS) - 1
_MOST_TAG: Final = (1 << 40) - 1
"""In units of 16 tokens: years of ten million a minute. Beyond it turns go by arrival."""
_LATEST_TAG: Final = 2**60
_FULL: Final = (OUT_OF_TOKENS, "queue_displaced", "fair_share_exceeded", "priority_shed")
"""Reasons of a queue that is full, perhaps by `max_cost` alone."""


class Claim:
    """What a ticket wants of a gate, and then has of it; `Ticket.claim`. Another try has another claim."""

    __slots__ = ("_gate", "_tag_key", "_weight", "estimate", "reservation")

    def __init__(self, estimate: Estimate) -> None:
        self.estimate: Estimate = estimate
        self.reservation: Reservation | None = None
        """None until it is let in."""
        self._gate: TokenGate | None = None
        # Of the tag that it was charged to, if it had to wait; 0: none.
        self._tag_key: int = 0
        self._weight: float = 1.0

    def let_in(self, gate: TokenGate, now: float) -> None:
        """Charge what the gate's meter was asked for last; for gates only."""
        self._gate = gate
        self.reservation = Reservation([gate.meter], self.estimate, now)

    def charge_tag(self, tag_key: int, weight: float) -> None:
        """It has waited, and its tenant's tag was charged; for gates only."""
        self._tag_key = tag_key
        self._weight = weight

    def settle(self, usage: Usage, cost_micro: int, now: float) -> None:
        """Its request has ended, and has used this (UNKNOWN: what was expected). Who waits is let in at once, if there
        are tokens now. Does nothing if it was not let in, or has ended before."""
        reservation = self.reservation
        if reservation is not None and reservation.is_open:
            reservation.settle(usage, cost_micro, now)
            estimate = self.estimate
            used_input = estimate.input if usage.input < 0 else usage.input
            used_output = estimate.output if usage.output < 0 else usage.output
            self._end(used_input + used_output, now)

    def give_back(self, now: float, sent: bool) -> None:
        """Its request has used nothing: it was not sent, or has failed before the provider counted its tokens."""
        reservation = self.reservation
        if reservation is not None and reservation.is_open:
            reservation.cancel(now, sent)
            self._end(0, now)

    def _end(self, used: int, now: float) -> None:
        gate = self._gate
        assert gate is not None
        if self._tag_key:
            table = gate.meter.books.arrivals
            more = int((used - cost_of(self.estimate)) / self._weight)
            if more > 0:
                table.charge(self._tag_key, more, 0)
            else:
                table.refund(self._tag_key, -more, 0)
        gate.ended(self, now)


def cost_of(estimate: Estimate) -> int:
    """What a tenant's flow is charged with."""
    return max(1, estimate.input + estimate.output)


def _whole_s(seconds: float) -> int:
    """When to come again: no wait is told to be longer than a minute."""
    return int(MOST_S if seconds >= MOST_S else seconds + 1)


class TokenGate(Lobby):
    """One model at one key of a provider, in one worker. Limits and pauses are the machine's."""

    __slots__ = (
        "_again",
        "_alarm",
        "_probe",
        "_retry_after",
        "_serving",
        "_tags",
        "_virtual",
        "_wheel",
        "admitted",
        "hearing",
        "last_refusal",
        "meter",
        "pauses",
        "queue",
        "refusals",
        "shared",
        "waits",
    )

    def __init__(
        self,
        meter: Meter,
        key: str,
        wheel: FineWheel,
        shared: MachineWide | None = None,
        seed: int = 0,
        log: Any = None,
    ) -> None:
        """Args: meter is that of the target; key is the name of the provider's key, for pauses of all its models;
        shared by which workers know of each other's waiters; log for events, if they are to be told."""
        super().__init__(meter.resource, "queue")
        meter.pinned = True
        self.meter: Meter = meter
        self.shared: MachineWide = MachineWide() if shared is None else shared
        self.queue: FairQueue = FairQueue(Service(), 1)
        self.queue.discipline = FIFO
        name = meter.name.encode()
        self.pauses: Pauses = Pauses(meter, key, log)
        self.hearing: Hearing = Hearing(meter, self.pauses)
        self._tags: int = key_hash(b"llm tags", name)
        self._virtual: int = key_hash(b"llm virtual", name)
        self._probe: Claim | None = None
        """Of who finds out how it is."""
        self._wheel: FineWheel = wheel
        self._alarm: Alarm = Alarm(self.dispatch)
        self._retry_after: RetryAfter = RetryAfter(seed)
        self._serving: bool = False
        self._again: bool = False
        """Something has changed while who is next was being served."""
        self.waits: Waits = Waits()
        """Of those who had to wait."""
        self.admitted: int = 0
        self.refusals: dict[str, int] = {}
        self.last_refusal = ""

    def configure(
        self, max_queued: int, max_bytes: int, max_wait_s: float, workers: int = 1, rest_after: int = 3
    ) -> None:
        """Set the queue's bounds, those of the machine. Tokens are bounded by what the limit grants in max_wait_s: more
        could not be served in time. rest_after: failures in a row; 0: it never rests for any."""
        self.pauses.rest_after = rest_after
        queue = self.queue
        queue.max_queued = max_queued
        queue.max_bytes = max_bytes
        queue.max_wait_s = max_wait_s
        queue.workers = workers
        self._bound()

    def _bound(self) -> None:
        self.queue.max_cost = self._rate() * self.queue.max_wait_s

    def _rate(self) -> float:
        """Tokens a second that the meter grants; 0.0: no limit."""
        rate = 0.0
        parts = 0.0
        for one in self.meter.allowances:
            if one.kind == TOKENS:
                rate = one.count / 60
            elif one.kind != REQUESTS:
                parts += one.count / 60
        return min(rate, parts) if rate and parts else rate + parts

    # -- in -----------------------------------------------------------------------------------------------------------

    def try_acquire(self, ticket: Ticket, now: float) -> bool:
        """Let the ticket in if there are tokens for it and nobody waits."""
        if now >= self.hearing.ask_others_at:
            self.hearing.ask_others(now)
            self._bound()
        if self.queue.queued or self._serving or self.shared.others_wait() or self.pauses.hold_s(now) > 0:
            return False
        claim = ticket.claim
        assert claim is not None
        if self.meter.ask(claim.estimate, now) is not None:
            return False
        self._let_in(ticket, claim, now)
        self.shared.admitted(0.0)
        return True

    def would_admit(self, now: float) -> bool:
        """Is it neither paused nor waited for? Whether there are tokens depends on how many."""
        return not (self.queue.queued or self.shared.others_wait() or self.pauses.hold_s(now) > 0)

    def wait_s(self, estimate: Estimate, now: float) -> float:
        """How long it would have to wait here, at least: for choosing a target. NEVER: it does not help to wait."""
        refusal = self._ask(estimate, now)
        wait_s = 0.0 if refusal is None else refusal.wait_s
        return max(wait_s, self.pause_s(now), self.drain_s() if self.queue.queued else 0.0)

    def _ask(self, estimate: Estimate, now: float) -> Refusal | None:
        """What the meter says. One who would never be let in, by what the provider said long ago, finds out."""
        refusal = self.meter.ask(estimate, now)
        if refusal is not None and refusal.wait_s >= NEVER and self.hearing.doubts(refusal.what, now):
            self._bound()
            return self.meter.ask(estimate, now)
        return refusal

    def offer(self, ticket: Ticket, now: float) -> None:
        """Wait for tokens. Calls `granted` or `refused` of the ticket, now or later, unless it is cancelled."""
        ticket.waits_in = self
        queue = self.queue
        claim = ticket.claim
        assert claim is not None
        refusal = self._ask(claim.estimate, now)
        if refusal is not None and self._is_hopeless(refusal, ticket, now):
            self._refuse(ticket, refusal.reason(), now, refusal)
            return
        pause_s = self.pause_s(now)
        if pause_s > self._left_s(ticket, now) or (pause_s > 0.0 and self.pauses.rested):
            self._refuse(ticket, self.pauses.reason(now), now)
            return
        queue.sweep(now)
        shared = self.shared
        queue.elsewhere = shared.others_queued()
        queue.elsewhere_bytes = shared.others_queued_bytes()
        ticket.cost = float(cost_of(claim.estimate))
        reason = queue.push(ticket, now, 1.0)
        if reason:
            queue.shed.append((ticket, reason))
        else:
            flow = ticket.flow
            assert flow is not None
            if flow.size == 1:  # it has come back: it has saved up nothing, here or elsewhere
                self._raise_tag(ticket)
        self.dispatch(now)

    def _left_s(self, ticket: Ticket, now: float) -> float:
        """How much longer it may wait."""
        return min(self.queue.max_wait_s - (now - ticket.arrived_at), ticket.deadline_at - now)

    def _is_hopeless(self, refusal: Refusal, ticket: Ticket, now: float) -> bool:
        """Is it not worth waiting? A place comes free, and tokens are paid back, by those who run; but no money comes
        before the period ends, and no request is given back that was sent."""
        if refusal.wait_s >= NEVER or refusal.what == BUDGET:
            return True
        if refusal.wait_s <= self._left_s(ticket, now):
            return False
        return refusal.what == REQUESTS or not (self.meter.in_flight or self.shared.others_in_flight())

    def cancel(self, ticket: Ticket, now: float) -> None:
        """The ticket waits no more (its client has left)."""
        if ticket.waits_in is not self:
            return
        ticket.waits_in = None
        self.queue.remove(ticket, now)
        ticket.cost = 0.0
        self.dispatch(now)

    def _let_in(self, ticket: Ticket, claim: Claim, now: float) -> None:
        """Charge what the meter was asked for last."""
        claim.let_in(self, now)
        ticket.arrived_at = now
        self.admitted += 1
        if self.pauses.let_in(now):
            self._probe = claim
        self.shared.set_in_flight(self.meter.in_flight, self.meter.in_flight)

    def ended(self, claim: Claim, now: float) -> None:
        """A claim has been settled or given back."""
        if claim is self._probe:
            self._probe = None
            self.pauses.probed(now)
        shared = self.shared
        shared.set_in_flight(self.meter.in_flight, self.meter.in_flight)
        if self.queue.queued or shared.others_wait():
            self.dispatch(now)

    # -- who is next --------------------------------------------------------------------------------------------------

    def _tag_key(self, ticket: Ticket) -> int:
        return (key_of(ticket.tenant) ^ self._tags) or 1

    def _raise_tag(self, ticket: Ticket) -> bool:
        """Bring the tag of a waiting ticket's flow up to what its tenant has had in all workers, and to the virtual
        time. Returns: was it behind?"""
        flow = ticket.flow
        assert flow is not None
        table = self.meter.books.arrivals
        tag = max(table.get(self._tag_key(ticket), _LATEST_TAG), table.get(self._virtual, _LATEST_TAG))
        if flow.tag >= tag:
            return False
        flow.tag = float(tag)
        return True

    def _first(self, now: float) -> Ticket | None:
        """Who is next here. Others may be turned away for it."""
        while True:
            ticket = self.queue.first(now)
            if ticket is None or not self._raise_tag(ticket):
                return ticket

    def dispatch(self, now: float) -> None:
        """Let in who waits, as far as there are tokens, and tell who is turned away. Also to be called by whoever is
        woken by `MachineWide.hand_over` in another worker.

        Raises: what the last callback raised that did, after all others have been called.
        """
        if self._serving:  # from a callback
            self._again = True
            return
        self._serving = True
        failed: Exception | None = None
        queue = self.queue
        shared = self.shared
        while True:
            self._again = False
            queue.sweep(now)
            ticket = self._first(now)
            if queue.shed:
                shed = queue.shed
                queue.shed = []
                for one, reason in shed:
                    try:
                        self._refuse(one, reason, now)
                    except Exception as error:
                        failed = error  # the others are told all the same
                continue
            turn = self._turn(ticket)
            if shared.others_wait():
                self._publish(turn)  # or the other one, who looks at once, would leave the turn to somebody gone
                oldest = queue.oldest
                if shared.hand_over(NEVER if oldest is None else oldest.arrived_at, now, turn):
                    if self._again:  # it is done there already
                        continue
                    break
            if ticket is None:
                break
            wait_s = self.pauses.hold_s(now)
            if wait_s <= 0:
                claim = ticket.claim
                assert claim is not None
                refusal = self.meter.ask(claim.estimate, now)
                if refusal is None:
                    try:
                        self._serve(ticket, claim, now)
                    except Exception as error:
                        failed = error
                    continue
                wait_s = refusal.wait_s
                if self._is_hopeless(refusal, ticket, now):
                    queue.remove(ticket, now)
                    try:
                        self._refuse(ticket, refusal.reason(), now, refusal)
                    except Exception as error:
                        failed = error
                    continue
            self._wheel.schedule(self._alarm, now + wait_s)
            break
        self._serving = False
        if queue.queued == 0:
            self._wheel.remove(self._alarm)
        self._publish(turn)
        if failed is not None:
            raise failed

    def _serve(self, ticket: Ticket, claim: Claim, now: float) -> None:
        """Its turn has come, and the meter, asked last, has admitted it."""
        flow = ticket.flow
        assert flow is not None
        table = self.meter.books.arrivals
        virtual = int(flow.tag)
        table.delay(self._virtual, virtual)
        tag_key = self._tag_key(ticket)
        charged = table.charge(tag_key, max(1, int(ticket.cost / ticket.weight)), virtual)
        self.queue.serve(ticket, now)
        ticket.charged_flow = None  # of other queues, which know nothing of tokens
        flow.tag = float(charged)
        ticket.cost = 0.0
        ticket.waits_in = None
        waited_s = now - ticket.arrived_at
        self._let_in(ticket, claim, now)
        claim.charge_tag(tag_key, ticket.weight)
        self.shared.admitted(waited_s)
        self.waits.record(waited_s, now)
        ticket.granted(self, now)

    def _turn(self, ticket: Ticket | None) -> int:
        """When this worker's turn is among the workers: by class, then by the tag of who is next, then by his arrival:
        requests of one tenant have the same tag in all workers."""
        if ticket is None or ticket.flow is None:
            return LAST
        tag = min(_MOST_TAG, int(ticket.flow.tag) >> _TAG_UNIT_BITS)
        arrived_ms = int(ticket.arrived_at * 1000) & _ARRIVAL_MASK
        return turn_of(ticket.priority, (tag << _ARRIVAL_BITS | arrived_ms) + 1)

    def _publish(self, turn: int) -> None:
        """Show the other workers who waits here."""
        queue = self.queue
        oldest = queue.oldest
        if oldest is None:
            self.shared.set_waiting(0, 0, NEVER)
        else:
            self.shared.set_waiting(queue.queued, queue.queued_bytes, oldest.arrived_at, turn)

    def _refuse(self, ticket: Ticket, reason: str, now: float, refusal: Refusal | None = None) -> None:
        """Tell one that it is turned away, by what it was short of, and of a pause how long it is. refusal: the
        meter's, if it is that which turns it away."""
        ticket.waits_in = None
        ticket.cost = 0.0
        least_s = 0.0
        self.refusals[reason] = self.refusals.get(reason, 0) + 1
        self.shared.refused(reason)
        since = reason in PAUSED_SINCE
        short = None if since else refusal or self._short(ticket, now)
        resource = self._named(short, now)
        wait_s = -1.0
        if since:
            wait_s = self.pause_s(now)
            detail = paused_for(reason, wait_s)
        elif refusal is not None:
            wait_s = refusal.wait_s
            detail = refusal.detail
        else:
            # Whoever asks again will need as much, however few wait then.
            least_s = max(self._come_again_s(ticket, now), 0.0 if short is None else short.wait_s)
            detail = self._crowd(ticket, short, reason, now)
        self.last_refusal = f"{reason}: {detail}"
        retry_s = max(self._retry_after.refused(now, max(self.drain_s(), self.pause_s(now))), _whole_s(least_s))
        if since:
            retry_s = int(wait_s) + 1
        elif refusal is not None:
            if refusal.what == BUDGET or wait_s >= NEVER:
                retry_s = _whole_s(wait_s)
            elif wait_s > MOST_S:  # so far ahead nobody is told to come again
                retry_s = int(wait_s) + 1
            else:
                retry_s = _whole_s(max(wait_s, self._come_again_s(ticket, now)))
        ticket.refused(reason, resource, detail, retry_s)

    def _come_again_s(self, ticket: Ticket, now: float) -> float:
        """In how many seconds one who is turned away is to come again: after those who wait, and after all who were
        told so before."""
        claim = ticket.claim
        queued_s = self.drain_s()
        return queued_s if claim is None else come_again_s([self.meter], claim.estimate, now, queued_s)

    def short_of(self, ticket: Ticket, now: float) -> str:
        return self._named(self._short(ticket, now), now)

    def _short(self, ticket: Ticket, now: float) -> Refusal | None:
        """What keeps it out now, if that is a limit."""
        claim = ticket.claim
        return None if claim is None else self.meter.ask(claim.estimate, now)

    def _named(self, short: Refusal | None, now: float) -> str:
        """What somebody is kept out by: a limit; a pause, which is the target's; else those who wait."""
        if short is not None:
            return short.resource()
        return self.resource if self.pause_s(now) > 0 else self.place

    def _crowd(self, ticket: Ticket, short: Refusal | None, reason: str, now: float) -> str:
        """Who waits, and what for, in words. short: what keeps this one out now."""
        queue = self.queue
        others = self.shared.others_queued()
        waiting = queue.queued + others
        is_short = reason in _FULL and queue.max_cost > 0 and not queue.is_full(ticket.size_bytes)
        crowd = f"{waiting} wait" if is_short else f"{waiting} of at most {queue.max_queued} wait"
        tokens = " tokens"
        if queue.queued_cost and not others:  # how many tokens those want, only their workers know
            crowd += f", for {int(queue.queued_cost)} tokens"
            tokens = ""
        if is_short:
            crowd += f", and no more than {int(queue.max_cost)}{tokens} come free within {queue.max_wait_s:g} s"
        crowd += f"; waited {int((now - ticket.arrived_at) * 1000)} ms"
        return crowd if short is None else f"{short.detail}; {crowd}"

    def drain_s(self) -> float:
        """How long those who wait here will take to be let in; 0.0: unknown, or nobody."""
        queue = self.queue
        longest = 0.0
        rate = self._rate()
        if rate > 0:
            longest = queue.queued_cost / rate
        requests = self.meter.allowance(REQUESTS)
        if requests is not None:
            longest = max(longest, queue.queued * 60 / requests.count)
        return longest

    def refuse_all(self, reason: str, now: float) -> None:
        """Nobody is to wait any longer, for this reason (a token of edgeq.reasons)."""
        self.queue.turn_all_away(reason, now)
        self.dispatch(now)

    def is_unused(self) -> bool:
        """Does nobody wait, and is nothing of it under way?"""
        return not self.queue.queued and not self.meter.in_flight

    def close(self) -> None:
        """Nobody waits here any more, and nobody will."""
        self._wheel.remove(self._alarm)
        self.hearing.close()
        self.meter.pinned = False

    # -- what the provider says, and what comes of requests ------------------------------------------------------------

    def pause_s(self, now: float) -> float:
        """How long nobody is let in, by what the provider has said or as it fails; 0.0: it is not paused."""
        return self.pauses.left_s(now)

    def use_key(self, way: bytes) -> None:
        """How it is asked from now on (`rests.way_of`)."""
        self.pauses.use_key(way)
        self.hearing.use_key(way)

    def heard(self, heard: Heard | None, status: int, now: float, claim: Claim | None = None) -> None:
        """An answer has come, with these limits in its head (None: with none). `claim`: of its request; one that was
        refused is about to give back what it has reserved."""
        sent: Estimate | None = None
        if claim is not None and claim.reservation is not None and claim.reservation.is_open:
            sent = claim.estimate
        pause_s = self.hearing.take(heard, status, now, sent)
        self._bound()
        if pause_s >= 0:
            if status == 429:
                self.pauses.tell_limited(pause_s, now)
            self.pause(pause_s, now)

    def pause(self, seconds: float, now: float) -> None:
        """Let nobody in for so long, in no worker; a longer pause stays."""
        self.pauses.pause(seconds, now)
        self._is_paused(now)

    def failed(self, reason: str, sent_at: float, now: float) -> None:
        """A request that was sent then has failed at this target, by a reason of `edgeq.reasons`."""
        if self.pauses.failed(reason, sent_at, now):
            self._is_paused(now)

    def disable_key(self, is_refused: bool, now: float, seconds: float = DISABLED_S, said: str = "") -> None:
        """The provider refuses our key (401, 403), or its account has no credit left: all models at it are paused."""
        self.pauses.disable_key(is_refused, now, seconds, said)
        self._is_paused(now)

    def _is_paused(self, now: float) -> None:
        self._end_hopeless(now)
        self.dispatch(now)

    def _end_hopeless(self, now: float) -> None:
        """Turn away whose time is over before the pause is: another target may do."""
        pause_s = self.pause_s(now)
        if pause_s > 0:
            queue = self.queue
            if self.pauses.rested:
                queue.turn_all_away(self.pauses.reason(now), now)
                return
            queue.turn_away_until(now + pause_s - queue.max_wait_s, self.pauses.reason(now), now)

    # -- now and then -------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """About ten times a second: end waits that are over, hopeless ones, too."""
        queue = self.queue
        self.hearing.look(now)
        self._bound()
        if queue.queued or queue.shed or self.shared.others_wait():
            queue.expire(now)
            self._end_hopeless(now)
            self.dispatch(now)

    def snapshot(self, now: float) -> dict[str, object]:
        """What do I hold, who waits, since when, why was the last one refused. Times in seconds."""
        queue = self.queue
        oldest = queue.oldest
        pause_s = self.pause_s(now)
        found = self.meter.snapshot(now)
        found.update(
            {
                "resource": self.resource,
                "queued": queue.queued,
                "queued_bytes": queue.queued_bytes,
                "queued_tokens": int(queue.queued_cost),
                "queued_by_class": queue.by_class(),
                "queued_by_tenant": {name.decode("latin-1"): count for name, count in queue.tenants().items()},
                "oldest_wait_s": 0.0 if oldest is None else now - oldest.arrived_at,
                "drain_s": self.drain_s(),
                "paused_s": pause_s,
                "paused_for": self.pauses.reason(now) if pause_s else "",
                "paused_detail": self.pauses.key_said() if pause_s else "",
                "paused": self.pauses.count,
                "fails_by": (self.pauses.failed_by or UNHEARD) if self.pauses.rested else "",
                "fails_detail": self.pauses.failed_detail if self.pauses.rested else "",
                "admitted": self.admitted,
                "wait_ms": self.waits.quantiles_ms(now),
                "refused": dict(self.refusals),
                "last_refusal": self.last_refusal,
            }
        )
        return found
