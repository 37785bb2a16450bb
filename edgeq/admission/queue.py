"""Who waits before a bulkhead, and who is next.

    FairQueue -- Level 0 critical  --+-- Flow: requests of one tenant (or of several whose hands of cards collide)
              -- Level 1 default   --+-- ...
              -- Level 2 sheddable

Next is the best class that has anybody; in it the flow that has had the least service for its weight; in it the
oldest, or the newest when the discipline says so. Decisions only: `push` and `take` return; who must be turned away
meanwhile is in `shed`, as pairs of ticket and reason, for the caller to tell once it is done.

Invariants
- Each waiting ticket is linked twice: in its flow and in the order of arrival of all. push, take and remove are a
  handful of stores, whatever the length, and a look at each active flow (at most 65 of a class; one where there is one
  tenant). Only who has lain in the kernel before it came here walks past those who came after it.
- queued = sum of the levels = sum of the flows; queued_bytes likewise. A ticket that left has no links.

Fair queueing between tenants, as Kubernetes' priority and fairness has it (reference overload.md 2.2, KA), in its
start-time form: a flow's tag is the service it has had, in seconds of a place (or, before a token gate, in tokens)
divided by weight. It is charged with the usual time, or the ticket's own cost, when a request is taken, corrected when
that has ended, and raised to the level's virtual time when it becomes active, so an idle tenant saves up nothing.
Tenants are dealt to flows by shuffle sharding: a hand of 4 of 64 cards. Unlike there, a tenant keeps to one flow for as
long as nobody else stands in it: a tenant that floods has one flow, not four, and one tenant alone is served in strict
order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeq.admission import congestion
from edgeq.admission.congestion import Congestion
from edgeq.board.layout import key_hash
from edgeq.worker.wheel import NEVER

if TYPE_CHECKING:
    from edgeq.admission.service import Service
    from edgeq.admission.ticket import Ticket

FIFO: Final = 0
LIFO: Final = 1
ADAPTIVE: Final = 2
DISCIPLINES: Final = {"fifo": FIFO, "lifo": LIFO, "adaptive": ADAPTIVE}

LEVELS: Final = 3
DECK: Final = 64
HAND: Final = 4
OUT_OF_TOKENS: Final = "token_limit_shared"
"""The reason of a queue that is full by `max_cost` alone: costs are tokens."""
_TOO_MUCH: Final = 1.5
"""Times the mean of the flows: of two, three quarters of the queue. About that much each is nobody's fault."""
_USUAL_S: Final = 0.01
"""What a request is charged with while nothing is known."""
_MAX_CORRECTION: Final = 10.0
"""A request that hangs costs its tenant ten usual ones, not the minute that it hangs."""


class Flow:
    """Requests that stand in one line. `tag`: service had, seconds (or cost) by weight."""

    __slots__ = ("congestion", "first", "index", "last", "load", "mixed", "size", "tag", "tenant")

    def __init__(self) -> None:
        self.congestion: Congestion = Congestion()
        self.first: Ticket | None = None
        self.last: Ticket | None = None
        self.size: int = 0
        self.load: float = 0.0
        """What they ask for, in all: by their costs, or by their number where costs are not known before."""
        self.tag: float = 0.0
        self.tenant = b""
        self.mixed: bool = False
        """Several tenants stand in it."""
        self.index: int = -1
        """Its place in the level's active flows."""

    def is_turned(self) -> bool:
        """Its newest are next, if the discipline is adaptive: it is congested, and nobody is left of before."""
        state = self.congestion
        if not state.congested:
            return False
        first = self.first
        return first is None or first.arrived_at >= state.turned_at


class Level:
    """One class of priority."""

    __slots__ = ("_deck", "_nobody", "active", "size", "virtual")

    def __init__(self) -> None:
        self.size: int = 0
        self.virtual: float = 0.0
        """The tag of the flow served last."""
        self.active: list[Flow] = []
        self._nobody: Flow = Flow()
        """For requests without a tenant."""
        self._deck: list[Flow] = []

    def calm(self) -> None:
        """No flow is congested."""
        self._nobody.congestion.calm()
        for flow in self._deck:
            flow.congestion.calm()

    def flow_for(self, tenant: bytes) -> Flow:
        """Where a request of this tenant is to stand."""
        if not tenant:
            return self._nobody
        deck = self._deck
        if not deck:
            for _ in range(DECK):
                deck.append(Flow())
        own: Flow | None = None
        empty: Flow | None = None
        least: Flow | None = None
        for card in deal(hash(tenant) & 0xFFFFFFFFFFFF):
            flow = deck[card]
            if flow.tenant == tenant and not flow.mixed:
                if flow.size:
                    own = flow
                    break
                empty = flow
            elif flow.size == 0 and (empty is None or (empty.tenant != tenant and empty.congestion.congested)):
                empty = flow  # rather none that another tenant has just left congested, and may come back to
            if least is None or flow.size < least.size:
                least = flow
        chosen = own or empty or least
        assert chosen is not None
        return chosen

    def next_flow(self) -> Flow:
        """The flow to serve; there is one."""
        active = self.active
        best = active[0]
        if len(active) == 1:
            return best
        for flow in active:
            if flow.tag < best.tag or (flow.tag == best.tag and flow is not best and goes_before(flow, best)):
                best = flow
        return best

    def longest(self, least: int = 1) -> Flow | None:
        """The flow that asks for most, for its weight, of those in which at least so many wait."""
        best: Flow | None = None
        for flow in self.active:
            if flow.size >= least and (best is None or crowd(flow) > crowd(best)):
                best = flow
        return best

    def exceeds(self, flow: Flow) -> bool:
        """Whether this flow, beside others, takes far more than its share: it is the cause that the queue is full."""
        active = self.active
        if len(active) < 2 or flow.mixed:
            return False
        total = 0.0
        for one in active:
            total += crowd(one)
        return crowd(flow) * len(active) > _TOO_MUCH * total

    def activate(self, flow: Flow, now: float) -> None:
        """It was empty."""
        flow.congestion.filled(now)
        flow.index = len(self.active)
        self.active.append(flow)
        if flow.tag < self.virtual:
            flow.tag = self.virtual

    def retire(self, flow: Flow, now: float) -> None:
        """It is empty now."""
        flow.congestion.emptied(now)
        last = self.active.pop()
        if last is not flow:
            self.active[flow.index] = last
            last.index = flow.index
        flow.index = -1


def deal(number: int) -> list[int]:
    """A hand of HAND different cards of DECK from a number's mixed radix digits (shufflesharding.go)."""
    digits: list[int] = []
    hand: list[int] = []
    for position in range(HAND):
        digit = number % (DECK - position)
        number //= DECK - position
        card = digit
        for before in reversed(digits):  # a digit counts only the cards that were left
            if card >= before:
                card += 1
        digits.append(digit)
        hand.append(card)
    return hand


def goes_before(flow: Flow, other: Flow) -> bool:
    """Of two flows with equal claims, whose turn is it? Many tenants with a request each are served like one queue."""
    is_turned = flow.is_turned()
    if is_turned != other.is_turned():
        return not is_turned
    if is_turned:
        mine, theirs = flow.last, other.last
    else:
        mine, theirs = flow.first, other.first
    if mine is None or theirs is None:
        return False
    return (mine.arrived_at > theirs.arrived_at) == is_turned


def crowd(flow: Flow) -> float:
    """How much is asked for in it, for its weight."""
    first = flow.first
    return flow.load / first.weight if first is not None else 0.0


def load_of(ticket: Ticket) -> float:
    """What it adds to its flow's load."""
    return ticket.cost or 1.0


class Forecast:
    """What was expected of a request that had less time left. In seconds, `at` as an instant."""

    __slots__ = ("at", "left_s", "median_s", "p95_s", "wait_s")

    def __init__(self, at: float, left_s: float, wait_s: float, service: Service) -> None:
        self.at: float = at
        self.left_s: float = left_s
        self.wait_s: float = wait_s
        self.median_s: float = service.median_s()
        self.p95_s: float = service.p95_s()


class FairQueue:
    """A bounded queue. `slots` is the limit of the bulkhead behind it; `busy` in calls: how many of its places serve
    those who wait here.

    Its bounds are those of the machine, of which `elsewhere` wait at other workers. Each worker has its share of them
    in any case, so they can be passed: by less than themselves, when the queue of one worker has taken all of them and
    then those of the others grow as well.
    """

    __slots__ = (
        "_busy_at",
        "_crowd",
        "_crowd_key",
        "_deadlines",
        "_levels",
        "_service",
        "_turned",
        "busy_s",
        "crowds_elsewhere",
        "discipline",
        "elsewhere",
        "elsewhere_bytes",
        "filled_at",
        "infeasible",
        "max_bytes",
        "max_cost",
        "max_queued",
        "max_wait_s",
        "newest_arrival",
        "oldest",
        "patient_until",
        "queued",
        "queued_bytes",
        "queued_cost",
        "rest_s",
        "shed",
        "slots",
        "tenant_share",
        "turns",
        "workers",
    )

    def __init__(self, service: Service, slots: int) -> None:
        self._service: Service = service
        self.slots: int = slots
        self.discipline: int = ADAPTIVE
        self.max_queued: int = 256
        self.max_bytes: int = 16 * 1024 * 1024
        self.max_cost: float = 0.0
        """Sum of the costs of those who wait, in tokens; 0.0: no bound."""
        self.max_wait_s: float = 1.0
        self.rest_s: float = 0.0
        """How long a place is held when no more are let in than are needed (`Rest`); 0.0: as long as it is held."""
        self.patient_until: float = 0.0
        """No flow becomes congested before, and nobody is refused by age: the limit was a guess, and too low when those
        who wait came."""
        self.workers: int = 1
        """Who share the bounds."""
        self.tenant_share: float = 1.0
        """The part of `max_queued` that one tenant may fill in a class, each worker counting its own part of that; 1.0:
        all of it."""
        self.elsewhere: int = 0
        self.elsewhere_bytes: int = 0
        """Requests that wait at other workers, and their memory; to be set before `push`."""
        self.crowds_elsewhere: list[int] = []
        """The keys of tenants whose flows are congested at other workers; to be set before `push`."""
        self.queued: int = 0
        self.queued_bytes: int = 0
        self.queued_cost: float = 0.0
        self.filled_at: float = 0.0
        """Since when it has not been empty."""
        self.busy_s: float = 0.0
        """For how long in all somebody has waited: the limit was binding. Up to the last `advance` or change."""
        self._busy_at: float = 0.0
        self.oldest: Ticket | None = None
        self.newest_arrival: Ticket | None = None
        self.turns: int = 0
        """How often a flow became congested."""
        self.shed: list[tuple[Ticket, str]] = []
        self.infeasible: Forecast | None = None
        """Of the last one whose deadline could not be met."""
        self._levels: list[Level] = [Level() for _ in range(LEVELS)]
        self._turned: bool = False
        """Some flow may be congested."""
        self._crowd: Flow | None = None
        self._crowd_key: int = 0
        """The flow that became congested last, and its tenant's key."""
        self._deadlines: int = 0
        """How many of those who wait have a deadline."""

    def set_discipline(self, discipline: int) -> None:
        """From now on: with another one nobody is congested who was under the last."""
        if discipline == self.discipline:
            return
        self.discipline = discipline
        self._turned = False
        self._crowd = None
        for level in self._levels:
            level.calm()

    def newest_first(self, flow: Flow) -> bool:
        """The order at present."""
        discipline = self.discipline
        return flow.is_turned() if discipline == ADAPTIVE else discipline == LIFO

    def _costs_too_much(self, cost: float) -> bool:
        """Is it as much as those may cost who wait here? What those elsewhere cost is not told: as much as those here.
        The bound is one for who is there before: or the larger one is, the less often there would be room for it."""
        queued = self.queued
        max_cost = self.max_cost
        if not max_cost or not queued:
            return False
        return cost * self.workers >= max_cost and cost * (queued + self.elsewhere) >= max_cost * queued

    def is_full(self, size: int) -> bool:
        """Is there no room for one more, of `size` bytes, whatever it costs?"""
        queued = self.queued
        queued_bytes = self.queued_bytes + size
        if queued + self.elsewhere < self.max_queued and queued_bytes + self.elsewhere_bytes <= self.max_bytes:
            return False
        workers = self.workers
        return queued * workers >= self.max_queued or queued_bytes * workers > self.max_bytes

    def _has_its_share(self, ticket: Ticket, flow: Flow) -> bool:
        """Does the tenant fill its part of the queue? Where several share a flow, none of them is blamed."""
        if flow.mixed or flow.tenant != ticket.tenant:
            return False
        return flow.size >= max(1.0, self.tenant_share * self.max_queued / self.workers)

    def _crowds_elsewhere(self, ticket: Ticket, level: Level, flow: Flow) -> bool:
        """Is the tenant the one who is congested at another worker, and asks for most here as well?"""
        if flow.congestion.congested or (level.size and level.longest() is not flow):
            return False
        return key_hash(ticket.tenant) in self.crowds_elsewhere

    def drain_s(self, now: float, busy: float, runs_here: bool) -> float:
        """How long those who wait will take to be served; 0.0: unknown. `runs_here`: some of the places are this
        worker's; else nothing comes free here, however fast it does elsewhere."""
        hold_s = self._service.hold_s(now, self.filled_at) if runs_here else self._service.mean_s
        return self.queued * hold_s / (busy if busy > 0 else 1.0)

    # -- in -----------------------------------------------------------------------------------------------------------

    def push(self, ticket: Ticket, now: float, busy: float) -> str:
        """Let `ticket` wait. Returns: empty, or the reason why it may not. Others may go to `shed` for it."""
        ticket.flow = None  # until it has a place
        level = self._levels[ticket.priority]
        flow = level.flow_for(ticket.tenant)
        if flow.size == 0 and flow.tenant != ticket.tenant:
            flow.congestion = Congestion()  # what it has is another tenant's
        hold_s = self._service.hold_s(now, self.filled_at if self.queued else now)
        place_s = hold_s / (busy if busy > 0 else 1.0)
        has_deadline = ticket.deadline_at < NEVER
        if has_deadline:
            if ticket.deadline_at <= now:
                return "deadline_expired"
            if self._is_infeasible(ticket, level, flow, now, place_s):
                return "deadline_infeasible"
        size = ticket.size_bytes
        if size > self.max_bytes or self.max_queued < 1:
            return "queue_full"
        if self.tenant_share < 1.0 and self._has_its_share(ticket, flow):
            return "fair_share_exceeded"
        full = self._costs_too_much(self.queued_cost) or self.is_full(size)
        if self.queued == 0:
            self._fill(now)
        if self.discipline == ADAPTIVE and now >= self.patient_until:
            delay_s = self._ahead(ticket, level, flow, False) * place_s
            is_cause = full and level.size > 0 and level.longest() is flow
            turn_s = congestion.turn_s(hold_s, self.slots, self.max_wait_s)
            if self.crowds_elsewhere and self._crowds_elsewhere(ticket, level, flow):
                turn_s *= congestion.CONTAGION
            if flow.congestion.judge(now, delay_s, turn_s, congestion.interval_s(hold_s), is_cause):
                self.turns += 1
                self._turned = True
                self._crowd = flow
                self._crowd_key = key_hash(ticket.tenant)
                if self.slots > congestion.FEW:
                    flow.congestion.turned_at = now
                    flow.congestion.over_at = now + turn_s
        while full:
            victim = self._victim(ticket, level, flow)
            if victim is None:
                if level.size == 0:
                    return "priority_shed"
                if ticket.tenant and level.exceeds(flow):
                    return "fair_share_exceeded"
                return "queue_full" if self.is_full(size) else OUT_OF_TOKENS
            reason = "priority_shed" if victim.priority > ticket.priority else "queue_displaced"
            crowded = victim.flow
            if victim.priority == ticket.priority and victim.tenant and crowded is not None and level.exceeds(crowded):
                reason = "fair_share_exceeded"
            self.remove(victim, now)
            self.shed.append((victim, reason))
            # It has made room for one, whatever both cost. Beside one that alone costs too much all would go in vain.
            full = self.is_full(size)
        if self.queued == 0:  # its victims were all that waited
            self._fill(now)
        if flow.size == 0:
            flow.tenant = ticket.tenant
            flow.mixed = False
            level.activate(flow, now)
        elif flow.tenant != ticket.tenant:
            flow.mixed = True
        self._link(ticket, flow)
        flow.size += 1
        flow.load += load_of(ticket)
        level.size += 1
        self.queued += 1
        self.queued_bytes += size
        self.queued_cost += ticket.cost
        if has_deadline:
            self._deadlines += 1
        return ""

    def _link(self, ticket: Ticket, flow: Flow) -> None:
        """Into its flow and the order of all, each behind who came before it."""
        arrived_at = ticket.arrived_at
        older = flow.last
        while older is not None and older.arrived_at > arrived_at:
            older = older.flow_older
        newer = flow.first if older is None else older.flow_newer
        ticket.flow = flow
        ticket.flow_older = older
        ticket.flow_newer = newer
        if older is None:
            flow.first = ticket
        else:
            older.flow_newer = ticket
        if newer is None:
            flow.last = ticket
        else:
            newer.flow_older = ticket
        elder = self.newest_arrival
        while elder is not None and elder.arrived_at > arrived_at:
            elder = elder.elder
        younger = self.oldest if elder is None else elder.younger
        ticket.elder = elder
        ticket.younger = younger
        if elder is None:
            self.oldest = ticket
        else:
            elder.younger = ticket
        if younger is None:
            self.newest_arrival = ticket
        else:
            younger.elder = ticket

    def _fill(self, now: float) -> None:
        self.filled_at = now
        self._busy_at = now

    def _is_infeasible(self, ticket: Ticket, level: Level, flow: Flow, now: float, place_s: float) -> bool:
        """Would it miss its deadline: predicted wait plus the 95th percentile of service?"""
        service = self._service
        if not service.known:
            return False
        left_s = ticket.deadline_at - now
        need_s = service.p95_s()
        if need_s > left_s:
            # Not the queue's fault: it would not fit in without any wait, and half of such requests are quick enough.
            need_s = service.median_s()
        wait_s = self._ahead(ticket, level, flow, self.newest_first(flow)) * place_s
        if wait_s + need_s <= left_s:
            return False
        self.infeasible = Forecast(now, left_s, wait_s, service)
        return True

    def _ahead(self, ticket: Ticket, level: Level, flow: Flow, newest: bool) -> int:
        """How many places must come free until a newcomer has one. `newest`: its flow is served newest first."""
        ahead = 1
        for better in range(ticket.priority):
            ahead += self._levels[better].size
        if level.size:
            flows = len(level.active) + (1 if flow.size == 0 else 0)
            # Its flow's turn comes once in a round, but nobody waits for more than all who are there.
            turns = flows - 1 if newest else flow.size * flows + flows - 1
            ahead += min(level.size, turns)
        return ahead

    def _victim(self, ticket: Ticket, level: Level, flow: Flow) -> Ticket | None:
        """Who makes room for `ticket`: somebody of a lower class, or of a longer flow, or the oldest of its own when
        the newest go first. None: nobody, it has the least claim itself."""
        worst = LEVELS - 1
        while worst > ticket.priority and self._levels[worst].size == 0:
            worst -= 1
        # Where requests have costs, a tenant's only one has a place, however large it is: when it is served is told by
        # what the tenant has had.
        is_only = self.max_cost > 0 and flow.size == 0
        if worst > ticket.priority and (is_only or not self._costs_too_much(self._cost_from(ticket.priority))):
            lower = self._levels[worst].longest()
            assert lower is not None
            crowded = lower
        elif level.size == 0:
            return None
        else:
            several = level.longest(2 if self.max_cost else 1)
            own = (flow.load + load_of(ticket)) / ticket.weight
            if several is None or several is flow or (not is_only and crowd(several) <= own):
                return flow.first if self.newest_first(flow) else None
            crowded = several
        # The one that would be served last.
        return crowded.first if self.newest_first(crowded) else crowded.last

    def _cost_from(self, priority: int) -> float:
        """What those of this class and of better ones cost."""
        return sum([flow.load for better in range(priority + 1) for flow in self._levels[better].active])

    # -- out ----------------------------------------------------------------------------------------------------------

    def take(self, now: float) -> Ticket | None:
        """Serve the next one; None if nobody is left who is worth serving."""
        ticket = self.first(now)
        if ticket is not None:
            self.serve(ticket, now)
        return ticket

    def first(self, now: float) -> Ticket | None:
        """The next one, who waits on; None if nobody is left who is worth serving. Who is not goes to `shed`."""
        while self.queued:
            level = self._levels[0]
            if level.size == 0:
                level = self._levels[1]
                if level.size == 0:
                    level = self._levels[2]
            flow = level.next_flow()
            ticket = flow.last if self.newest_first(flow) else flow.first
            assert ticket is not None
            reason = self._too_late(ticket, now)
            if not reason:
                return ticket
            self.remove(ticket, now)
            self.shed.append((ticket, reason))
        return None

    def _too_late(self, ticket: Ticket, now: float) -> str:
        """Why it is not worth serving any more; empty: it is."""
        if ticket.deadline_at < NEVER:
            if ticket.deadline_at <= now:
                return "deadline_expired"
            # It would only take the place of one that can still make it.
            if self._service.known and now + self._service.median_s() > ticket.deadline_at:
                self.infeasible = Forecast(now, ticket.deadline_at - now, 0.0, self._service)
                return "deadline_infeasible"
        return "queue_timeout" if now - ticket.arrived_at >= self.max_wait_s else ""

    def serve(self, ticket: Ticket, now: float) -> None:
        """It is its turn: charge its flow."""
        flow = ticket.flow
        assert flow is not None
        self.remove(ticket, now)
        self._levels[ticket.priority].virtual = flow.tag
        cost = ticket.cost
        if cost == 0.0:
            cost = self._service.mean_s or _USUAL_S
        flow.tag += cost / ticket.weight
        ticket.charged_flow = flow
        ticket.charged_s = cost

    def remove(self, ticket: Ticket, now: float) -> None:
        """It waits no more."""
        flow = ticket.flow
        if flow is None:
            return
        level = self._levels[ticket.priority]
        older = ticket.flow_older
        newer = ticket.flow_newer
        if older is None:
            flow.first = newer
        else:
            older.flow_newer = newer
        if newer is None:
            flow.last = older
        else:
            newer.flow_older = older
        flow.size -= 1
        flow.load -= load_of(ticket)
        if flow.size == 0:
            flow.load = 0.0
            level.retire(flow, now)
        level.size -= 1
        elder = ticket.elder
        younger = ticket.younger
        if elder is None:
            self.oldest = younger
        else:
            elder.younger = younger
        if younger is None:
            self.newest_arrival = elder
        else:
            younger.elder = elder
        ticket.flow = None
        ticket.flow_older = None
        ticket.flow_newer = None
        ticket.elder = None
        ticket.younger = None
        self.queued -= 1
        self.queued_bytes -= ticket.size_bytes
        self.queued_cost = self.queued_cost - ticket.cost if self.queued else 0.0
        if ticket.deadline_at < NEVER:
            self._deadlines -= 1
        if self.queued == 0:
            self.busy_s += now - self._busy_at

    def sweep(self, now: float) -> None:
        """Turn away who has waited too long. Looks at the oldest of all and, under congestion, of each flow."""
        oldest = self.oldest
        while oldest is not None and now - oldest.arrived_at >= self.max_wait_s:
            self._turn_away(oldest, "queue_timeout", now)
            oldest = self.oldest
        if not self._turned or self.queued == 0 or not self._service.known or now < self.patient_until:
            return
        hold_s = self._service.hold_s(now, self.filled_at)
        if 0.0 < self.rest_s < self._service.mean_s:
            hold_s *= self.rest_s / self._service.mean_s
        too_old_s = congestion.too_old_s(hold_s, self.slots)
        if too_old_s == NEVER:
            return
        for level in self._levels:
            active = level.active
            is_spared = len(active) <= self.slots
            for index in range(len(active) - 1, -1, -1):  # backwards: a flow that becomes empty leaves the list
                flow = active[index]
                state = flow.congestion
                if not state.congested:
                    continue
                if now >= state.over_at:
                    state.turned_at = 0.0
                first = flow.first
                while first is not None and first.arrived_at < state.turned_at:
                    first = first.flow_newer
                while first is not None and now - first.arrived_at > too_old_s:
                    newer = first.flow_newer
                    if is_spared and newer is None:
                        break
                    self._turn_away(first, "queue_codel_drop", now)
                    first = newer

    def turn_all_away(self, reason: str, now: float) -> None:
        """Turn away everybody."""
        self.turn_away_until(NEVER, reason, now)

    def turn_away_until(self, arrived_at: float, reason: str, now: float) -> None:
        """Turn away everybody who came until then."""
        oldest = self.oldest
        while oldest is not None and oldest.arrived_at <= arrived_at:
            self._turn_away(oldest, reason, now)
            oldest = self.oldest

    def _turn_away(self, ticket: Ticket, reason: str, now: float) -> None:
        self.remove(ticket, now)
        self.shed.append((ticket, "deadline_expired" if ticket.deadline_at <= now else reason))

    def expire(self, now: float) -> None:
        """Turn away everybody whose time is over; looks at all if any has a deadline, so only now and then."""
        self.sweep(now)
        if self._deadlines == 0:
            return
        ticket = self.oldest
        while ticket is not None:
            younger = ticket.younger
            if ticket.deadline_at <= now:
                self.remove(ticket, now)
                self.shed.append((ticket, "deadline_expired"))
            ticket = younger

    def settle_account(self, flow: Flow, charged_s: float, held_s: float, weight: float) -> None:
        """A request that was taken from `flow` has ended after held_s (or has cost that): correct what it was charged
        with."""
        most_s = charged_s * _MAX_CORRECTION
        flow.tag += (min(most_s, held_s) - charged_s) / weight

    def advance(self, now: float) -> None:
        """Bring `busy_s` up to now."""
        if self.queued:
            self.busy_s += now - self._busy_at
            self._busy_at = now

    # -- for people ---------------------------------------------------------------------------------------------------

    def tenants(self) -> dict[bytes, int]:
        """How many wait, by tenant."""
        found: dict[bytes, int] = {}
        ticket = self.oldest
        while ticket is not None:
            found[ticket.tenant] = found.get(ticket.tenant, 0) + 1
            ticket = ticket.younger
        return found

    def overtakes(self) -> bool:
        """Does the next one go before somebody who came earlier, because his tenant has had less than that one's?"""
        oldest = self.oldest
        if oldest is None:
            return False
        level = self._levels[oldest.priority]
        if len(level.active) < 2 or self.best_class() != oldest.priority:
            return False
        flow = level.next_flow()
        return flow is not oldest.flow and not self.newest_first(flow)

    def best_class(self) -> int:
        """The class that is served next; LEVELS: nobody waits."""
        for number in range(LEVELS):
            if self._levels[number].size:
                return number
        return LEVELS

    def crowd_key(self) -> int:
        """The key of the tenant whose flow is congested, the last of them, while somebody waits in it; 0 for nobody."""
        flow = self._crowd
        return self._crowd_key if flow is not None and flow.size and flow.congestion.congested else 0

    def congested_flows(self) -> int:
        """How many flows are served newest first at present."""
        return sum([flow.congestion.congested for level in self._levels for flow in level.active])

    def by_class(self) -> list[int]:
        """How many wait, by class."""
        return [level.size for level in self._levels]
