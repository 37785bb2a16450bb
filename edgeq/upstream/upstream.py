"""A named service: a limit on requests in flight with its queue, its endpoints' pools, and who gets a request.

    request --> is the circuit open? --> limit, or its queue (admission.bulkhead)
            --> breaker, again --> sticky cookie, or the balancer's choice among the endpoints in use --> pool

The breaker is asked twice, because nobody should wait for an upstream that is known to be down, and what has waited
must not be sent to one that has gone down meanwhile; only who is sent is a probe. Those in the queue are told when the
circuit opens.

An endpoint is in use unless it is ejected (outlier.py) or its checks are bad (health.py); if fewer than the panic
threshold are, all of them are. Where SRV records rank them (RFC 2782), only those of the first rank of which enough are
well are in use; those behind them get the requests that these have failed. An upstream that has a single endpoint, and
neither checks nor a breaker, has nothing to choose and nothing to remember: `only` is set, and a request goes straight
to it.
"""

from __future__ import annotations

import hashlib
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from edgeq.admission.bulkhead import MAX_STUCK, NO_LIMIT, Bulkhead, Watcher
from edgeq.admission.elsewhere import Elsewhere
from edgeq.admission.learned import learned
from edgeq.admission.limits import Learner, Totals
from edgeq.admission.rest import Rest
from edgeq.board.resources import MachineWide, Resources
from edgeq.config.schema import Upstream as UpstreamConfig
from edgeq.reasons import REASONS
from edgeq.upstream.balancer import Balancer, make_balancer
from edgeq.upstream.breaker import CLOSED, NAMES, OPEN, Breaker
from edgeq.upstream.health import adopt_health
from edgeq.upstream.member import Member
from edgeq.upstream.outlier import Ejector
from edgeq.upstream.shared import ANSWERED, BAD, FAILED, UNKNOWN, LocalCells, SharedCells
from edgeq.wire.head import field_value, find_cookie, retry_after_s

if TYPE_CHECKING:
    from edgeq.upstream.attempt import Attempt
    from edgeq.upstream.pool import Pool
    from edgeq.wire.head import ResponseHead
    from edgeq.worker.wheel import Wheel

_KEY_NONE: Final = 0
_KEY_CLIENT: Final = 1
_KEY_PATH: Final = 2
_KEY_HEADER: Final = 3
_KEY_COOKIE: Final = 4

_OF_CONNECTION: Final = frozenset(("upstream_reset", "upstream_tls_failed"))
"""What ends a request that has been sent, and is not the doing of one model."""


class Upstream(Watcher):
    """Its limit is the machine's, those of pools are this worker's share; time-outs are seconds, 0 for none."""

    __slots__ = (
        "_checked",
        "_config",
        "_cookie",
        "_ejector",
        "_elsewhere",
        "_key_kind",
        "_key_name",
        "_kind",
        "_learner",
        "_panic_threshold",
        "_ramp_s",
        "_rest",
        "_seed",
        "_tokens",
        "_totals",
        "balancer",
        "body_s",
        "breaker",
        "bulkhead",
        "cells",
        "default_host",
        "events",
        "first_byte_s",
        "forget_cells",
        "host",
        "hosts_differ",
        "idle_s",
        "is_shared",
        "limited",
        "make_cells",
        "max_connecting",
        "max_connections",
        "max_idle",
        "max_lifetime_s",
        "max_waiting",
        "members",
        "name",
        "only",
        "panics",
        "pools",
        "queue_timeout_s",
        "reserve",
        "resource",
        "shared",
        "tunnel_s",
        "unresolved",
        "unresolved_names",
        "wheel",
    )

    def __init__(self, name: str, wheel: Wheel, seed: int = 1, resources: Resources | None = None) -> None:
        """`resources`: by which workers know of each other. None: this one is alone."""
        self.name = name
        self.resource = f"upstream/{name}"
        self.wheel: Wheel = wheel
        self.pools: list[Pool] = []
        """Change it by `set_pools`."""
        self.only: Pool | None = None
        """The pool of every request, if there is nothing to choose and nothing to remember."""
        self.members: list[Member] = []
        """One for each pool, in the same order; none if there is an `only` one."""
        self.make_cells: Any = None if resources is None else resources.bind_endpoint
        """Called with a resource's name: the `SharedCells` of it. None: this worker is alone."""
        self.forget_cells: Any = None if resources is None else resources.forget_endpoint
        """Called with `SharedCells` that are not needed any more."""
        self._seed: int = seed
        self.balancer: Balancer = Balancer(seed)
        self.breaker: Breaker | None = None
        self.is_shared: bool = False
        """By models that fail each for itself, and are left alone each for itself (llm/gate.py): what one of them
        answers, or does not in time, says nothing of the others. The breaker learns of connections."""
        self.cells: SharedCells | None = None
        self._ejector: Ejector | None = None
        self._tokens: dict[bytes, Member] = {}
        self._cookie = b""
        self._key_kind: int = _KEY_NONE
        self._key_name = b""
        self.reserve: list[Member] = []
        """Who is well and would be used if those in use were not, in this order."""
        self.panics: bool = False
        """Too few endpoints are in use, so all of them are."""
        self.events: list[tuple[str, dict[str, Any]]] = []
        """What the operator should read, for the shell to log."""
        self.unresolved = "upstream_none_healthy"
        """Why there are no pools: dns_error, dns_timeout, config_error or upstream_none_healthy."""
        self.unresolved_names: list[tuple[str, str, str, str]] = []
        """Of which no address is known: name, URL, dns_error or dns_timeout, and what the resolver says."""
        self.host = b""
        """Host header instead of the client's; empty: the client's."""
        self.hosts_differ: bool = False
        """Each endpoint gets a Host of its own (`Pool.host`): what is sent is settled when the endpoint is."""
        self.default_host = b""
        """Host header for HTTP/1.0 requests that have none."""
        self.shared: MachineWide = MachineWide() if resources is None else resources.bind(self.resource)
        self.bulkhead: Bulkhead = Bulkhead(self.resource, 1, monotonic(), self.shared)
        self.limited: bool = False
        """Is there a limit? If not the bulkhead is passed by, and who has passed it so is not counted."""
        self._kind = ""
        """Of the limit, if it is learned: its name in the configuration."""
        self._learner: Learner | None = None
        self._rest: Rest = Rest()
        """Of that limit, in the worker that learns it for all."""
        self._elsewhere: Elsewhere = Elsewhere(self.shared)
        self._totals: Totals = Totals()
        self._config: UpstreamConfig | None = None
        self.configure(UpstreamConfig(endpoints=()), 1)

    def configure(self, config: UpstreamConfig, workers: int) -> None:
        """Take over limits and time-outs; connections that are open see them at their next step."""
        timeouts = config.timeouts
        self.first_byte_s: float = float(timeouts.first_byte)
        self.body_s: float = float(timeouts.body)
        self.tunnel_s: float = float(timeouts.tunnel)
        pool = config.pool
        self.max_connections: int = -(-pool.max_connections // workers)
        self.max_idle: int = -(-pool.max_idle // workers)
        self.max_connecting: int = -(-pool.max_connecting // workers)
        self.max_waiting: int = -(-pool.queue // workers)
        self.idle_s: float = float(pool.idle_timeout)
        self.max_lifetime_s: float = float(pool.max_lifetime)
        self.queue_timeout_s: float = float(pool.queue_timeout)
        queue = config.queue
        self.bulkhead.configure(queue.discipline, queue.max, int(queue.max_bytes), float(queue.timeout), workers)
        now = monotonic()
        limit = config.limit
        self.limited = limit != 0
        kind = "" if isinstance(limit, int) else limit
        self.bulkhead.is_learned = kind != ""
        self.bulkhead.max_stuck = MAX_STUCK if kind else 0
        if kind != self._kind:
            before = self._config.limit if self._config is not None else None
            if self._kind:  # what another kind has learned means nothing to this one
                self.shared.publish_limit(0)
            elif isinstance(before, int) and self.shared.learned_limit() == 0:
                # The number that held until now is the best guess; without one, what is in flight.
                self.shared.publish_limit(before or self._in_flight())
            self._kind = kind
            self._learner = None
            self._rest = Rest()
            self.bulkhead.watch(self if kind and learned(kind).is_starting else None)
        if isinstance(limit, int):
            self.bulkhead.queue.patient_until = 0.0  # a number is no guess
            self.bulkhead.queue.rest_s = 0.0  # and none is tried beside it
            self.bulkhead.resize(limit or NO_LIMIT, now)
        else:
            self._follow(now)
        self._configure_choice(config, now)

    def _in_flight(self) -> int:
        """Of the machine, as far as it is known here."""
        return self.bulkhead.in_flight + self.shared.others_in_flight()

    def learn(self, now: float) -> None:
        """Move the limit, and look after those who wait for it; called on each tick."""
        self.bulkhead.tick(now)
        if not self._kind:
            return
        if self.shared.leads(now):
            self._lead(now)
        else:
            self._learner = None
            self.bulkhead.watch(None)
        self._follow(now)

    def _lead(self, now: float) -> None:
        """Learn for the machine, and publish. Who takes over goes on from what was published."""
        shared = self.shared
        learner = self._learner
        published = shared.learned_limit()
        # Another limit than ours: somebody else has led meanwhile.
        if learner is None or (published and published != learner.limit.value):
            self._elsewhere = Elsewhere(shared)
            self._count(now)
            learner = Learner(learned(self._kind, published), now, self._totals)
            self._learner = learner
        else:
            self._count(now)
            learner.tick(now, self._totals)
        totals = self._totals
        usual_s = totals.service_s / totals.ok if totals.ok else 0.0
        if self.bulkhead.starves(now, self._elsewhere.finished_at, usual_s):
            learner.limit.nudge()
        self.bulkhead.watch(self if learner.limit.is_starting else None)
        shared.publish_limit(learner.limit.value)

    def enough(self, now: float) -> None:
        """A limit that is a guess does not wait for the tick."""
        if self._learner is not None:
            self._lead(now)
            self._follow(now)

    def _count(self, now: float) -> None:
        """Bring the machine's totals up to now."""
        self.bulkhead.totals(now, self._totals)
        self._elsewhere.add_to(self._totals, now)

    def _follow(self, now: float) -> None:
        """Set the limit that was learned, here or in another worker."""
        if self._kind == "observe":
            self.bulkhead.resize(NO_LIMIT, now)
        else:
            limit = self.shared.learned_limit() or learned(self._kind).value
            learner = self._learner
            bulkhead = self.bulkhead
            if learner is None:
                bulkhead.queue.rest_s = 0.0
            else:
                first_s, is_raised = learner.limit.rest_s, limit > learner.limit.settled
                bulkhead.queue.rest_s = self._rest.look(first_s, is_raised, bulkhead.service.mean_s, bulkhead.ok)
            self.bulkhead.resize(limit, now)

    def look(self, now: float) -> None:
        """Another worker has left a place to one who waits here, or has moved the limit."""
        if not self.limited:
            return
        bulkhead = self.bulkhead
        if self._kind and self._learner is None:
            limit = bulkhead.limit
            self._follow(now)
            if bulkhead.limit != limit:  # what was counted until now is not of the new one
                bulkhead.tell(now)
                self.shared.flush()
        bulkhead.dispatch(now)

    def leave(self) -> None:
        """Nothing of it is in use any more."""
        if self.cells is not None and self.forget_cells is not None:
            self.forget_cells(self.cells)

    def _configure_choice(self, config: UpstreamConfig, now: float) -> None:
        """What endpoints are chosen by. What is known of them stays known."""
        old = self._config
        self._config = config
        self._checked: bool = config.health is not None
        self._panic_threshold: float = config.panic_threshold
        self._ramp_s: float = float(config.slow_start)
        self._cookie = config.sticky_cookie.encode() if config.balance == "sticky" else b""
        kind, _, name = config.hash_key.partition(":")
        self._key_name = name.lower().encode() if kind == "header" else name.encode()
        self._key_kind = _KEY_NONE
        if config.balance == "consistent-hash":
            self._key_kind = {"path": _KEY_PATH, "header": _KEY_HEADER, "cookie": _KEY_COOKIE}.get(kind, _KEY_CLIENT)
        if old is None or old.balance != config.balance:
            self.balancer = make_balancer(config.balance, self._seed)
        if old is None or old.eject != config.eject:
            eject = config.eject
            self._ejector = Ejector(eject) if eject.failures or eject.deviations else None
        if config.breaker is None:
            self.breaker = None
        elif self.breaker is None:
            if self.cells is None:
                self.cells = self._cells_of(self.resource)
            self.breaker = Breaker(config.breaker, self.cells, now)
        else:
            self.breaker.configure(config.breaker)
            if old is not None and _urls(old).isdisjoint(_urls(config)) and self.breaker.begin(now):
                self._tell_circuit()
        if self.pools:
            self.set_pools(self.pools, {member.pool: member.weight for member in self.members}, now)

    def set_pools(self, pools: list[Pool], weights: dict[Pool, float], now: float) -> None:
        """From now on these are the endpoints; who has no weight has 1, who has 0 is drained: it is in use for those
        who stick to it, and for nobody else. What is known of those that stay is kept."""
        known = set(self.pools)
        self.pools = pools
        watched = self.breaker is not None or self._checked or 0.0 in weights.values()
        old = {member.pool: member for member in self.members}
        if len(pools) <= 1 and not watched:
            for pool in pools:
                pool.member = None
            self.members = []
            self._tokens = {}
            self.only = pools[0] if pools else None
            self._forget(old)
            return
        self.only = None
        members: list[Member] = []
        for pool in pools:
            weight = weights.get(pool, 1.0)
            member = old.get(pool)
            if member is None:
                member = Member(pool, self._cells_of(pool.resource), weight)
                if self._checked:
                    adopt_health(member)
                if self._ejector is not None:
                    self._ejector.adopt(member, now)
                if known and pool not in known:  # not at the start, when all are new
                    member.start_slowly(now, self._ramp_s)
            elif member.weight != weight:
                was_drained = member.weight <= 0.0
                member.weight = weight
                if was_drained:
                    member.start_slowly(now, self._ramp_s)
                else:
                    member.grow(now)
            if not self._checked:
                member.health = UNKNOWN
            pool.member = member
            members.append(member)
        self.members = members
        self._forget(old)
        self._tokens = {_token(self.name, member.name): member for member in members} if self._cookie else {}
        self.review(now)

    def _forget(self, old: dict[Pool, Member]) -> None:
        """Give back the cells of those that are no members any more."""
        forget = self.forget_cells
        if forget is None:
            return
        kept = [member.cells for member in self.members]
        for member in old.values():
            # Two pools of one address, by two names, have the same cells.
            if not any(cells is member.cells for cells in kept):
                forget(member.cells)

    def _cells_of(self, resource: str) -> SharedCells:
        if self.make_cells is None:
            return LocalCells()
        cells: SharedCells = self.make_cells(resource)
        return cells

    # -- a request ----------------------------------------------------------------------------------------------------

    def submit(self, exchange: Attempt) -> None:
        """Give a request to the endpoint that should have it."""
        only = self.only
        if only is not None:
            only.submit(exchange, False)
            return
        if self._admits(exchange):
            self._choose(exchange)

    def submit_again(self, exchange: Attempt, failed: list[Pool]) -> None:
        """The same for one that `failed` have failed: to another endpoint, or if there is none the list is emptied."""
        only = self.only
        if only is not None:
            failed.clear()
            only.submit(exchange, False)
        elif self._admits(exchange) and not self.submit_other(exchange, failed):
            failed.clear()
            self._choose(exchange)

    def has_other(self, failed: list[Pool]) -> bool:
        """Is an endpoint in use that is none of these?"""
        if self.members:
            for member in self.balancer.members:  # not any(): a generator is an object for mypyc
                if member.pool not in failed:
                    return True
            for member in self.reserve:
                if member.pool not in failed:
                    return True
        return False

    def other(self, tried: list[Pool], key: bytes, now: float) -> Member | None:
        """The best endpoint that is none of these; None: there is none."""
        member = self.balancer.choose_other(tried, key, now)
        if member is None:
            for one in self.reserve:
                if one.pool not in tried:
                    return one
        return member

    def spare(self, exchange: Attempt, tried: list[Pool]) -> Pool | None:
        """An endpoint with room that is none of these, for a try beside another one; never for a client that sticks."""
        breaker = self.breaker
        if not self.members or self._cookie or (breaker is not None and breaker.state != CLOSED):
            return None
        key = self._key(exchange) if self._key_kind else b""
        member = self.balancer.choose_other(tried, key, monotonic())
        return member.pool if member is not None and member.has_room() else None

    def in_flight(self) -> int:
        """Requests of this worker that run or wait here. Counted anew: for what is rare."""
        count = self.bulkhead.queue.queued
        for pool in self.pools:
            count += pool.opened - len(pool.idle) + len(pool.waiting)
        return count

    def _admits(self, exchange: Attempt) -> bool:
        """Does the breaker let it through? If not it has been refused."""
        breaker = self.breaker
        if breaker is None or breaker.state == CLOSED:
            return True
        now = monotonic()
        state = breaker.state
        admitted = breaker.admit(now)
        if breaker.state != state:
            self._tell_circuit()
        if not admitted:
            self.refuse_circuit(exchange, now)
            return False
        # Sent now, not when its limit let it through: a probe that began before the breaker let it would not count.
        exchange.granted_at = now
        return True

    def _choose(self, exchange: Attempt) -> None:
        balancer = self.balancer
        if not self.members:
            exchange.fail(self.unresolved, self.resource, "")
            return
        now = monotonic()
        if self._cookie:
            stuck_to = self._stick(exchange, now)
            if stuck_to is not None:
                stuck_to.pool.submit(exchange, False)
                return
        if not balancer.members:
            exchange.fail("upstream_none_healthy", self.resource, "all endpoints are ejected, unhealthy or drained")
            return
        if exchange.prefers:
            preferred = balancer.prefer(exchange.prefers, now)
            if preferred is not None:
                preferred.pool.submit(exchange, False)
                return
        key = self._key(exchange) if self._key_kind else b""
        balancer.choose(key, now).pool.submit(exchange, False)

    def is_down(self, exchange: Attempt, now: float) -> bool:
        """Need `exchange` not wait for a place, as the circuit is open? Then it has been refused."""
        breaker = self.breaker
        if breaker is None or not breaker.is_shut(now):
            return False
        breaker.refused += 1
        self.refuse_circuit(exchange, now)
        return True

    def refuse_circuit(self, exchange: Attempt, now: float) -> None:
        """Tell when the circuit is tried again."""
        breaker = self.breaker
        wait_s = 0.0 if breaker is None else breaker.retry_after_s(now)
        exchange.fail(
            "circuit_open",
            self.resource + ":breaker",
            f"too much of it has failed; it is tried again in {wait_s:.1f} s",
            wait_s,
        )

    def submit_beside(self, exchange: Attempt, full: Pool) -> None:
        """`full` has neither a connection nor a place in its queue: another endpoint may. Not for one that sticks."""
        now = monotonic()
        best: Member | None = None
        if not self._cookie:
            for member in self.balancer.members:
                if member.pool.has_place() and (best is None or member.load(now) < best.load(now)):
                    best = member
        if best is not None:
            best.pool.submit(exchange, False)
        elif self._cookie or len(self.members) < 2:
            exchange.fail("queue_full", full.resource + ":pool", f"{len(full.waiting)} requests wait for a connection")
        else:
            count = len(self.balancer.members)
            detail = (
                f"{count} of {len(self.members)} endpoints are in use, each with all its connections and a full queue"
            )
            exchange.fail("upstream_saturated", self.resource + ":pool", detail)

    def submit_other(self, exchange: Attempt, tried: list[Pool]) -> bool:
        """Give a request to the best endpoint that is none of `tried`. Returns: is there one?"""
        if not self.members:
            return False  # the only endpoint was tried
        now = monotonic()
        key = self._key(exchange) if self._key_kind else b""
        member = self.other(tried, key, now)
        if member is None:
            return False
        if self._cookie:
            exchange.sticky = self._set_cookie(exchange, member)
        member.pool.submit(exchange, False)
        return True

    def _key(self, exchange: Attempt) -> bytes:
        """What a consistent hash is made of; empty: the request has no such thing."""
        kind = self._key_kind
        if kind == _KEY_CLIENT:
            return exchange.down.peer.client_host.encode()
        head = exchange.head
        if kind == _KEY_PATH:
            return head.path
        if kind == _KEY_HEADER:
            return field_value(head, self._key_name)
        return find_cookie(head, self._key_name)

    def _stick(self, exchange: Attempt, now: float) -> Member | None:
        """The endpoint that the client's cookie names, if it is in use; else another one, and a new cookie. None: there
        is none."""
        token = find_cookie(exchange.head, self._cookie)
        member = self._tokens.get(token) if token else None
        if member is not None and (member in self.balancer.members or (member.weight <= 0.0 and member.is_well())):
            return member
        if not self.balancer.members:
            return None
        member = self.balancer.choose(b"", now)
        exchange.sticky = self._set_cookie(exchange, member)
        return member

    def _set_cookie(self, exchange: Attempt, member: Member) -> bytes:
        secure = b"; Secure" if exchange.down.peer.tls else b""
        token = _token(self.name, member.name)
        return b"set-cookie: %b=%b; Path=/; HttpOnly; SameSite=Lax%b\r\n" % (self._cookie, token, secure)

    # -- how it went --------------------------------------------------------------------------------------------------

    def answered(self, member: Member, answer: ResponseHead, sent_at: float, sent_whole: bool, now: float) -> None:
        """The head of an answer is there. `sent_whole`: the request was sent in one piece at `sent_at`, so that what
        passed since then is the endpoint's time, not the client's."""
        status = answer.status
        if status >= 500 or status == 429:
            if status == 429 or status == 503:
                after_s = retry_after_s(answer)
                if status == 429 or after_s >= 0.0:
                    member.busy(after_s, now)
                    return
            if status != 501 and status != 505:  # those are about the request
                self._failure(member, sent_at, now, self.is_shared, f"status {status}")
                if self.is_shared:
                    self._is_reached(sent_at, now)
                return
        if sent_whole:
            member.took(now - sent_at, now)
        member.succeeded()
        self._is_reached(sent_at, now)

    def _is_reached(self, sent_at: float, now: float) -> None:
        """It has answered, and the breaker learns of it."""
        breaker = self.breaker
        if breaker is not None and breaker.succeeded(sent_at, now):
            self._tell_circuit()

    def failed(self, member: Member, reason: str, sent_at: float, answered: bool, now: float) -> None:
        """A request has ended without an answer, or within it. `sent_at`: when it was sent."""
        if not answered:
            member.took_longer(now - sent_at, now)
        if REASONS[reason].fault == "U":
            self._failure(member, sent_at, now, self.is_shared and reason not in _OF_CONNECTION, reason)

    def dial_failed(self, member: Member, reason: str) -> None:
        """A connection could not be opened."""
        now = monotonic()
        if reason == "upstream_backlog_full":
            member.busy(-1.0, now)
        elif REASONS[reason].fault == "U":
            self._failure(member, now, now, False, reason)

    def _failure(self, member: Member, sent_at: float, now: float, is_models: bool, by: str) -> None:
        """`is_models`: it is the endpoint's, but of one model there, and no matter of the breaker's."""
        peers_s = 0.0
        for other in self.members:
            if other is not member and other.seen:
                peers_s = max(peers_s, other.cost(now))
        member.punish(peers_s, now, by)
        ejector = self._ejector
        if ejector is not None and ejector.failed(member, self.members, now):
            self._tell_ejected(member, f"{member.consecutive} failures in a row", now)
            self.review(now)
        breaker = self.breaker
        if not is_models and breaker is not None and breaker.failed(sent_at, now):
            self._tell_circuit()

    # -- now and then -------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Look after ejections, slow starts, and what other workers have found out."""
        members = self.members
        breaker = self.breaker
        if breaker is not None:
            if breaker.adopt():
                self._tell_circuit()
            if breaker.state == OPEN and self.bulkhead.queue.queued:
                self.bulkhead.refuse_all("circuit_open", now)
        if not members:
            return
        ejector = self._ejector
        changed = False
        for member in members:
            cells = member.cells
            cells.put(ANSWERED, member.answered)
            cells.put(FAILED, member.failed)
            if member.ramp_s and member.grow(now):
                changed = True
            if self._checked and adopt_health(member):
                self.health_changed(member, "another worker's check", now)
            if ejector is not None:
                if ejector.adopt(member, now):
                    changed = True
                if ejector.returns(member, now):
                    changed = True
                    member.start_slowly(now, self._ramp_s)
                    self.events.append(("endpoint_returned", {"endpoint": member.name}))
            elif member.ejected_until:  # a reload has switched it off
                member.ejected_until = 0.0
                changed = True
        if ejector is not None:
            for member in ejector.review(members, now):
                changed = True
                self._tell_ejected(member, "success rate below the others'", now)
        if changed:
            self.review(now)

    def health_changed(self, member: Member, detail: str, now: float) -> None:
        """The checks of an endpoint have come to another result."""
        if member.health == BAD:
            self.events.append(("endpoint_unhealthy", {"endpoint": member.name, "detail": detail}))
        else:
            member.start_slowly(now, self._ramp_s)
            self.events.append(("endpoint_healthy", {"endpoint": member.name}))
        self.review(now)

    def review(self, now: float) -> None:
        """Find out which endpoints are in use: the well ones of the first priority that has enough of them."""
        members = [member for member in self.members if member.weight > 0.0]
        in_use = [member for member in members if member.is_well()]
        panics = len(in_use) < self._panic_threshold * len(members)
        chosen = members if panics else in_use
        self.reserve = []
        priorities = {member.pool.priority for member in members}
        if len(priorities) > 1:
            for priority in sorted(priorities):
                well = [member for member in in_use if member.pool.priority == priority]
                count = len([member for member in members if member.pool.priority == priority])
                if well and len(well) >= self._panic_threshold * count:
                    panics = False
                    chosen = well
                    behind = [member for member in in_use if member.pool.priority > priority]
                    self.reserve = sorted(behind, key=_priority)
                    break
        if panics != self.panics:
            self.panics = panics
            fields: dict[str, Any] = {"in_use": len(in_use), "endpoints": len(members)}
            self.events.append(("upstream_panic" if panics else "upstream_panic_over", fields))
        self.balancer.rebuild(chosen)

    def _tell_ejected(self, member: Member, why: str, now: float) -> None:
        seconds = round(member.ejected_until - now, 1)
        self.events.append(("endpoint_ejected", {"endpoint": member.name, "why": why, "seconds": seconds}))

    def _tell_circuit(self) -> None:
        breaker = self.breaker
        if breaker is not None:
            self.events.append(("circuit_" + NAMES[breaker.state].replace("-", "_"), {}))

    def snapshot(self, now: float) -> dict[str, Any]:
        """What its endpoints are worth, and why."""
        breaker = self.breaker
        return {
            "members": [member.snapshot(now) for member in self.members],
            "in_use": len(self.balancer.members) if self.members else len(self.pools),
            "panic": self.panics,
            "breaker": breaker.snapshot(now) if breaker is not None else None,
            "learned_limit": self._learner.limit.value if self._learner is not None else None,
        }


def _urls(config: UpstreamConfig) -> set[str]:
    return {one if isinstance(one, str) else one.url for one in config.endpoints}


def _priority(member: Member) -> int:
    return member.pool.priority


def _token(upstream: str, endpoint: str) -> bytes:
    """What a cookie says of an endpoint: the same after every start, and not its address."""
    return hashlib.blake2b(f"{upstream} {endpoint}".encode(), digest_size=8).hexdigest().encode()
