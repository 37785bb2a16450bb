"""One worker: builds and wires all steps of a request's path, and changes them in place.

listener    an Acceptor for each listening socket, connections as protocols of the loop
route       one RouteTable, swapped whole
policy      forwarding policy, trusted networks
upstream    an UpstreamService for each named upstream
response    access records in a ring, written on the tick
"""

from __future__ import annotations

import gc
import socket
from collections.abc import Callable, Collection
from time import monotonic, time
from typing import Any

from edgeq.admission.bulkhead import NO_LIMIT, Bulkhead
from edgeq.admission.pressure import BEGAN, ENDED, IDLE_FROM
from edgeq.admission.tenants import Tenants
from edgeq.board.gate import BoardGate
from edgeq.board.gcra_table import GcraTable
from edgeq.board.handover_io import Doorbell
from edgeq.board.layout import STATE_DRAINING, STATE_SERVING, Board
from edgeq.board.resources import Resources
from edgeq.cache.cache import RouteCache
from edgeq.cache.rules import CacheSettings
from edgeq.config.schema import Config, Protect
from edgeq.config.schema import Rate as RateConfig
from edgeq.config.schema import Route as RouteConfig
from edgeq.config.schema import RouteCache as CacheConfig
from edgeq.config.units import parse_duration, parse_rate
from edgeq.explain import keep
from edgeq.listener.connection import Downstream
from edgeq.listener.hangup_io import HangupWatch
from edgeq.llm.accounts import AccountsHolder
from edgeq.llm.build import ModelBuilder, first_upstream
from edgeq.llm.ledger import Ledger
from edgeq.llm.plan import Models
from edgeq.llm.till import Till
from edgeq.observe import log_io
from edgeq.observe.access_io import AccessLogWriter
from edgeq.policy.deadline import DeadlineHeader
from edgeq.policy.fallback import GROUPS, QUOTA, STATUSES, Fallback, PreparedAnswer
from edgeq.policy.headers import (
    FORWARDED,
    OFF,
    TRACE_BEGIN,
    TRACE_OFF,
    TRACE_PASS,
    TRACE_SPANS,
    X_FORWARDED,
    ForwardPolicy,
)
from edgeq.policy.hedge import HedgePolicy
from edgeq.policy.rate import (
    HEADERS_BOTH,
    HEADERS_IETF,
    HEADERS_OFF,
    HEADERS_X,
    SUBJECTS,
    Rate,
    RateSet,
    windows_of,
)
from edgeq.policy.retry import RetryPolicy
from edgeq.policy.tenant import HEADER, TenantKey
from edgeq.policy.terms import DEFAULT, PRIORITIES, Terms
from edgeq.route.table import Route, RouteTable
from edgeq.supervisor.messages import AccountsTold, Message, SeenConnection, UsageTaken
from edgeq.trace.tracing_io import Tracing
from edgeq.worker import connections, report
from edgeq.worker.listeners_io import Listeners
from edgeq.worker.loop_io import WorkerLoop
from edgeq.worker.readings_io import Readings
from edgeq.worker.shard import NEVER_SLOW_S, Shard
from edgeq.worker.upstreams import Upstreams

_CLIENTS = {"x-forwarded": X_FORWARDED, "forwarded": FORWARDED, "off": OFF}
_TRACES = {"begin": TRACE_BEGIN, "pass": TRACE_PASS, "off": TRACE_OFF}
_SWEEP_S = 1.0
"""Under pressure: between two looks for idle connections."""
_RATE_HEADERS = {"off": HEADERS_OFF, "ratelimit": HEADERS_IETF, "x-ratelimit": HEADERS_X, "both": HEADERS_BOTH}


class App:
    """One worker's whole data plane. Built before the loop runs, started in it."""

    def __init__(
        self,
        slot: int,
        workers: int,
        generation: int,
        config: Config,
        ticket_secret: bytes,
        sockets: dict[str, socket.socket],
        board: Board,
    ) -> None:
        self._slot = slot
        self._workers = workers
        self._config = config
        self._ticket_secret = ticket_secret
        self._sockets = sockets
        """For the listeners, which `start` makes; so is the secret."""
        self._board = board
        self._row = board.row(slot)
        self._log: Any = log_io.get_logger(worker=slot)
        self._access = AccessLogWriter(config.access_log.target, config.access_log.format, log=self._log)
        self._old_access: AccessLogWriter | None = None
        """The one that a reload has replaced, while lines wait in it."""
        self._tracing = Tracing(slot, self._log)
        self._generation = generation
        self._doorbell = Doorbell(board, slot)
        self._resources = Resources(board, self._doorbell.neighbours)
        """By which limits, breakers and so on hold for all workers together."""
        self._bulkheads: dict[str, Bulkhead] = {}
        """Of routes that have a limit of their own, or are paused, or were so until a reload and still have requests
        under it."""
        self._limited: set[str] = set()
        """The former."""
        self._tenants = Tenants(self._resources)
        self._caches: dict[str, tuple[object, RouteCache]] = {}
        """Of routes that have one, each with what its answers come from."""
        self._tenant: TenantKey | None = None
        self._models: Models | None = None
        """Those of the configuration, if it has any."""
        self.accounts = AccountsHolder()
        """Whose virtual keys there are, and what is used: for routes that serve models."""
        self._arrivals = GcraTable(board, slot)
        """What rates know of their keys; stays when rates change."""
        self._ledger = Ledger(self._arrivals, board, self._doorbell.neighbours)
        self._till = Till(self.accounts, self._ledger)
        self._model_builder: ModelBuilder
        self._rates: dict[RateConfig, Rate] = {}
        self._hedges: dict[str, tuple[str, HedgePolicy]] = {}
        """Of routes, each with the word that it is made from."""
        self._hangups = HangupWatch()
        self._drain_done: Callable[[], None] | None = None
        self._drain_deadline = 0.0
        self._readings = Readings(workers)
        self._sweep_at = 0.0
        self._told = report.RefusalsTold()
        self._loop: WorkerLoop
        self._shard: Shard
        self._listeners: Listeners
        self._upstreams: Upstreams

    def start(self, loop: WorkerLoop) -> None:
        """Begin to accept."""
        self._loop = loop
        config = self._config
        self._shard = Shard(_forward_policy(config), self._access.ring, self._log, loop.call_soon, loop.call_later)
        self._shard.flush_log = self._access.flush
        gate = BoardGate(self._board, self._slot)
        self._listeners = Listeners(loop, self._shard, gate, self._ticket_secret, self._sockets, self._log)
        self._ledger.tick(monotonic(), time())
        self.accounts.tick(monotonic(), time())  # what is used before the first tick is of today as well
        self._model_builder = ModelBuilder(self._till, self._resources, self._shard.fine_wheel)
        try:
            self._trace(config)
        except ValueError as error:  # as below
            self._log.error("trace.failed", problem=str(error))
        self._upstreams = Upstreams(loop, self._shard.wheel, config.dns, self._resources, self._log)
        # A worker that replaces a dead one must not fail for what has happened to one upstream's files since then.
        self._configure(self._generation, config, self._board.started)
        self._shard.serving_since = monotonic()
        self._row.set_state(STATE_SERVING)
        loop.on_tick(self._tick)
        self._doorbell.start(loop, self._look)
        # Requests make no cycles, so collections only look in vain; what the rare paths leave is found all the same.
        gc.set_threshold(20_000, 50, 100)

    def apply(
        self,
        generation: int,
        workers: int,
        config: Config,
        sockets: dict[str, socket.socket],
        rereads: bool = True,
    ) -> None:
        """Take over a new configuration in place; `sockets` holds those of listeners that are new to this worker.

        rereads: certificates are read again, even where their names have not changed. It takes tens of milliseconds for
        each TLS of a listener and each different one of upstreams, in which nobody is served.
        """
        old = self._config
        same = set[str]()
        if not rereads and workers == self._workers:
            same = {name for name, one in config.upstream.items() if old.upstream.get(name) == one}
        self._workers = workers
        self._config = config
        self._listeners.add_sockets(sockets)
        if old.access_log != config.access_log:
            if self._old_access is not None:
                self._old_access.close(0.0)
            self._old_access = self._access
            self._old_access.retire()
            self._access = AccessLogWriter(config.access_log.target, config.access_log.format, log=self._log)
            self._shard.ring = self._access.ring
            self._shard.flush_log = self._access.flush
        if old.trace != config.trace or old.forward.trace != config.forward.trace:
            self._trace(config)
        if old.dns != config.dns:
            self._upstreams.configure_dns(config.dns)
        self._shard.forward = _forward_policy(config)
        self._configure(generation, config, False, rereads, same)

    def _configure(
        self,
        generation: int,
        config: Config,
        lenient: bool = False,
        rereads: bool = True,
        same: Collection[str] = (),
    ) -> None:
        """`same`: upstreams that have what they need."""
        shard = self._shard
        shard.log_enabled = config.access_log.target != "off"
        shard.slow_s = float(config.explain.slow) or NEVER_SLOW_S
        self._protect(config.protect)
        self._readings.configure(self._workers)
        self._upstreams.configure(config, self._workers, lenient, rereads, same)
        self._generation = generation
        tenant = config.tenant
        known = self.accounts if config.accounts is not None else None
        self._tenant = TenantKey(tenant.key, tenant.weights, known) if tenant.key else None
        if config.accounts is not None:
            self.accounts.configure(float(config.accounts.flush), config.accounts.log_prompts)
        self._tenants.configure(tenant.limit, tenant.queue.max, float(tenant.queue.timeout), self._workers, monotonic())
        # A rate that has not changed goes on counting.
        self._rates = {rate: self._rates.get(rate) or _rate(rate) for rate in config.rate}
        self._models = self._build_models(config, lenient)
        routes = {route.name: self._route(route) for route in _routes(config)}
        shard.routes = RouteTable([*routes.values(), *self._prompt_routes(config, routes)])
        shard.generation = generation
        hedged = {route.name for route in config.route if route.retry.hedge != "off"}
        self._hedges = {name: one for name, one in self._hedges.items() if name in hedged}
        self._limited = {route.name for route in config.route if _has_bulkhead(route)}
        for name, bulkhead in self._bulkheads.items():
            if name not in self._limited:
                bulkhead.resize(NO_LIMIT, monotonic())  # who waits goes on to its upstream
        cached = {route.name for route in config.route if route.cache is not None}
        self._caches = {name: known for name, known in self._caches.items() if name in cached}
        self._upstreams.retire(config)
        for listener in config.listener:
            self._listeners.configure(listener, rereads)
        self._row.set_generation(generation)

    def _trace(self, config: Config) -> None:
        self._tracing.configure(config)
        self._shard.tracer = self._tracing.tracer

    def _protect(self, config: Protect) -> None:
        pressure = self._shard.pressure
        pressure.lag_full_s = float(config.loop_lag)
        pressure.memory_full = config.memory
        pressure.descriptors_full = config.descriptors
        self._shard.max_collected = int(config.model_bodies)
        self._shard.prepared.clear()

    def _build_models(self, config: Config, lenient: bool) -> Models | None:
        if not config.model:
            return None
        try:
            return self._model_builder.build(
                config, self._workers, self._upstreams.find, self._upstreams.budgets.__getitem__
            )
        except ValueError as error:
            if not lenient:
                raise
            self._log.error("models.failed", problem=str(error))
            return self._models

    def _prompt_routes(self, config: Config, routes: dict[str, Route]) -> list[Route]:
        """A prompt's path belongs to its route, whatever that matches."""
        found: dict[str, Route] = {}
        for prompt in config.prompt:
            own = routes[prompt.route]
            path = prompt.path.encode()
            made = Route(own.name, own.host, path, own.upstream, b"", own.timeout_s, own.body_bytes, own.generation)
            made.terms, made.tenants, made.bulkhead, made.llm = own.terms, own.tenants, own.bulkhead, own.llm
            found[f"{own.name} {prompt.path}"] = made
        return list(found.values())

    def _route(self, config: RouteConfig) -> Route:
        llm = config.llm
        upstream = config.upstream if llm is None else first_upstream(self._config)
        body_bytes = int(config.body_bytes)
        if llm is not None and body_bytes < 0:
            body_bytes = int(llm.body_bytes)
        route = Route(
            config.name,
            config.match.host.lower().encode(),
            config.match.path.encode(),
            self._upstreams.find(upstream),
            config.rewrite.encode(),
            float(config.timeout),
            body_bytes,
            self._generation,
            config.ambiguous_paths == "pass",
        )
        route.terms = self._terms(config)
        if llm is not None and self._models is not None:
            route.llm = self._model_builder.route(config.name, llm, route, self._models)
        route.retry = self._retry(config)
        route.bulkhead = self._route_bulkhead(config)
        if self._config.tenant.limit:
            route.tenants = self._tenants
        route.cache = self._cache(config)
        route.fallback = self._fallback(config, route)
        route.graceful = route.cache is not None or route.fallback is not None
        return route

    def _cache(self, config: RouteConfig) -> RouteCache | None:
        """A route's cache. It stays the same over reloads, with what it holds, unless that may be about something
        else now."""
        if config.cache is None:
            return None
        tenant = self._tenant
        forward = self._config.forward
        written = frozenset(name.lower().encode() for name in (forward.deadline, forward.priority) if name)
        named = tenant.name if tenant is not None and tenant.kind == HEADER else b""
        settings = _cache_settings(config.cache, named, written)
        source = (config.upstream, config.match, config.rewrite)
        known = self._caches.get(config.name)
        if known is not None and known[0] == source:
            cache = known[1]
            cache.configure(settings)
        else:
            cache = RouteCache(settings)
        self._caches[config.name] = (source, cache)
        return cache

    def _fallback(self, config: RouteConfig, route: Route) -> Fallback | None:
        """What a route serves in place of a refusal. The other upstream is reached by a route of its own, which is the
        same but for its terms: the request has met them."""
        fallback = config.fallback
        if fallback is None:
            return None
        answer = None
        if fallback.answer is not None:
            body = fallback.answer.body.encode()
            answer = PreparedAnswer(fallback.answer.status, fallback.answer.content_type, body)
        other = None
        if fallback.upstream:
            other = Route(
                route.name,
                route.host,
                route.path,
                self._upstreams.find(fallback.upstream),
                route.rewrite,
                route.timeout_s,
                route.body_bytes,
                route.generation,
                route.any_reading,
            )
            other.tenants = route.tenants
            if answer is not None:
                statuses = [one for one in fallback.on if one in STATUSES]
                other.fallback = Fallback((*GROUPS, *QUOTA, *statuses), None, answer)
        return Fallback(fallback.on, other, answer)

    def _retry(self, config: RouteConfig) -> RetryPolicy | None:
        """When a request of a route is tried again; None if never."""
        retry = config.retry
        if not retry.on and retry.hedge == "off":
            return None
        statuses = frozenset(int(one) for one in retry.on if one.isdigit())
        return RetryPolicy(
            "reset" in retry.on,
            "timeout" in retry.on,
            statuses,
            retry.attempts,
            float(retry.per_try_timeout),
            int(retry.body),
            self._upstreams.budgets[config.upstream],
            float(retry.backoff),
            float(retry.max_backoff),
            self._hedge(config),
        )

    def _hedge(self, config: RouteConfig) -> HedgePolicy | None:
        """When a request of a route gets a second try. What is measured stays while the policy does."""
        hedge = config.retry.hedge
        if hedge == "off":
            return None
        known = self._hedges.get(config.name)
        if known is None or known[0] != hedge:
            after_s = 0.0 if hedge == "p95" else float(parse_duration(hedge))
            known = self._hedges[config.name] = (hedge, HedgePolicy(after_s))
        return known[1]

    def _route_bulkhead(self, config: RouteConfig) -> Bulkhead | None:
        """A route's own limit; it stays the same over reloads, with who is in it."""
        if not _has_bulkhead(config):
            return None
        bulkhead = self._bulkheads.get(config.name)
        now = monotonic()
        if bulkhead is None:
            name = f"route/{config.name}"
            bulkhead = Bulkhead(name, config.limit or NO_LIMIT, now, self._resources.bind(name))
            self._bulkheads[config.name] = bulkhead
        queue = config.queue
        bulkhead.configure(queue.discipline, queue.max, int(queue.max_bytes), float(queue.timeout), self._workers)
        bulkhead.queue.tenant_share = self._config.tenant.queue_share
        if config.paused:
            bulkhead.pause(now)
        else:
            bulkhead.resize(config.limit, now)
        return bulkhead

    def _terms(self, config: RouteConfig) -> Terms | None:
        """What a request of a route has to meet; None if nothing is configured that concerns it."""
        rates = [rate for one, rate in self._rates.items() if not one.routes or config.name in one.routes]
        priority = PRIORITIES[config.priority.encode()]
        forward = self._shard.forward
        believes = forward.deadline is not None or forward.priority
        if not rates and self._tenant is None and priority == DEFAULT and not believes:
            return None
        rate_set = RateSet(rates, config.cost, self._arrivals) if rates else None
        return Terms(config.name, config.upstream, self._tenant, priority, rate_set)

    def renew_tickets(self, secret: bytes) -> None:
        """Make and take TLS session tickets by this secret from now on."""
        self._listeners.renew_tickets(secret)

    def speak_by(self, send: Callable[[Message], None]) -> None:
        """How to tell the supervisor something, from now on."""
        self.accounts.send = send

    def hear(self, message: AccountsTold | UsageTaken) -> None:
        """What the supervisor tells of accounts."""
        self._ledger.tick(monotonic(), time())  # budgets are of a day, which it must know
        self.accounts.hear(message)

    # -- now and then -------------------------------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        shard = self._shard

        shard.wheel.advance(now)
        self._resources.tick(now)
        self._listeners.tick()
        self._feel(now)
        if shard.unpolled:
            self._hangups.look(shard.unpolled, now)
        self._tenants.tick(now)
        for bulkhead in self._bulkheads.values():
            bulkhead.tick(now)
        if len(self._bulkheads) > len(self._limited):
            self._forget_bulkheads()
        self._upstreams.tick(now)
        self._resources.flush()
        self._access.flush()
        if shard.kept:
            keep.write(shard.kept, self._board.requests(self._slot), time() - monotonic())
        if self._old_access is not None and self._old_access.finish():
            self._old_access = None
        self._tracing.tick()
        wall_s = time()
        self._ledger.tick(now, wall_s)
        self._model_builder.tick(now)
        self.accounts.tick(now, wall_s)
        self._listeners.leave(now, float(self._config.server.drain_idle))
        if self._drain_done is not None:
            self._drain_step(now)

    def _look(self) -> None:
        """Another worker has left a place to one who waits here, or has moved a learned limit."""
        now = monotonic()
        self._tenants.look(now)
        self._model_builder.look(now)
        for bulkhead in self._bulkheads.values():
            bulkhead.dispatch(now)
        self._upstreams.look(now)

    def _forget_bulkheads(self) -> None:
        """Let go of routes' limits that have left the configuration, once nobody is under them."""
        for name in [name for name in self._bulkheads if name not in self._limited]:
            bulkhead = self._bulkheads[name]
            if not bulkhead.in_flight and not bulkhead.queue.queued:
                del self._bulkheads[name]
                self._resources.forget(bulkhead.shared)

    def _feel(self, now: float) -> None:
        """Read how hard this worker is pressed, and close who has been idle for too long for that."""
        shard = self._shard
        pressure = shard.pressure
        fills = [acceptor.fill() for _, acceptor in self._listeners.acceptors()]
        descriptors = self._readings.descriptors(len(shard.downstreams) + self._upstreams.open_connections())
        pressure.update(self._loop.lag_s, self._readings.memory(now), descriptors, max(fills, default=0.0))
        news = pressure.news(now)
        if news == BEGAN:
            self._log.warning(BEGAN, resource=f"worker:{pressure.reason}")
        elif news:
            self._log.info(ENDED, resource=f"worker:{pressure.reason}")
        if pressure.value > IDLE_FROM and now >= self._sweep_at:
            self._sweep_at = now + _SWEEP_S
            for connection in list(shard.downstreams):
                if isinstance(connection, Downstream):
                    connection.drain(now, pressure.idle_s(connection.settings.keepalive_s))

    # -- leaving ------------------------------------------------------------------------------------------------------

    def retire_listener(self, address: str, on_empty: Callable[[], None]) -> None:
        """Accept what waits in the kernel, stop watching, close our descriptor, then call back."""
        self._listeners.retire(address, float(self._config.server.drain_timeout), on_empty)

    def empty_queue(self, address: str, sock: socket.socket, on_empty: Callable[[], None]) -> None:
        """Serve what waits in the socket of a worker that is dead or stuck."""
        self._listeners.empty_queue(address, sock, on_empty)

    def drain(self, timeout_s: float, on_done: Callable[[], None]) -> None:
        """Finish what runs; idle connections are closed once they have been silent for `server.drain_idle`."""
        self._shard.draining = True
        self._row.set_state(STATE_DRAINING)
        self._drain_deadline = monotonic() + timeout_s
        self._drain_done = on_done
        self._drain_step(monotonic())

    def _drain_step(self, now: float) -> None:
        done = self._drain_done
        if done is None:
            return
        idle_s = float(self._config.server.drain_idle)
        for connection in list(self._shard.downstreams):
            if isinstance(connection, Downstream):
                connection.drain(now, idle_s)
        if self._shard.downstreams and now < self._drain_deadline:
            return
        if self._shard.downstreams:
            self._log.warning("drain_timeout", connections=len(self._shard.downstreams))
        self._drain_done = None
        done()

    def reopen_logs(self) -> None:
        """Open the access log's file again (log rotation)."""
        self._access.reopen()

    def stats(self) -> dict[str, int | float]:
        """Counters and gauges of this worker."""
        return {
            "connections": len(self._shard.downstreams),
            "requests": self._shard.requests,
            "in_flight": self._shard.in_flight,
            "lag_s": self._loop.lag_s,
            "refused": self._shard.refusals.total(),
            "retries": sum(budget.retries for budget in self._upstreams.budgets.values()),
            "retries_refused": sum(budget.refused for budget in self._upstreams.budgets.values()),
            "hedges": sum(hedge.sent for _, hedge in self._hedges.values()),
            "hedges_won": sum(hedge.won for _, hedge in self._hedges.values()),
        }

    def report(self) -> dict[str, Any]:
        """What the operator is told of this worker (report.py)."""
        now = monotonic()
        upstreams = self._upstreams.listed()
        caches = {name: cache for name, (_, cache) in self._caches.items()}
        return {
            **self._tracing.snapshot(),
            "refusals": self._told.of(self._shard.refusals),
            "rates": report.rates(self._rates.values()),
            "caches": report.caches(caches),
            "stores": report.stores(caches),
            "listeners": [report.listener(address, acceptor) for address, acceptor in self._listeners.acceptors()],
            "upstreams": report.upstreams(upstreams, self._upstreams.budgets, now),
            "queues": report.queues([*(upstream.bulkhead for upstream in upstreams), *self._bulkheads.values()], now),
            "asking": report.asking(self._shard.downstreams) if self._tenant is not None else {},
            "tenants": self._tenants.busiest(report.MAX_TENANTS, now),
            "targets": report.targets(self._model_builder.gates.values(), now),
            "meters": report.meters(self._ledger, now),
            "llm": self._shard.measures.told(now),
            "bodies": report.bodies(self._shard) if self._model_builder.gates else {},
            "log": self._access.snapshot(),
            "max_lag_us": self._max_lag_us(),
        }

    def connections(self, count: int) -> tuple[SeenConnection, ...]:
        """So many of the clients' connections, those with a request first."""
        open_ones = (one for one in self._shard.downstreams if isinstance(one, Downstream))
        return connections.listed(open_ones, count, monotonic())

    def _max_lag_us(self) -> int:
        """The worst since the last report."""
        lag_s, self._loop.max_lag_s = self._loop.max_lag_s, 0.0
        return int(lag_s * 1e6)

    def refusals(self) -> dict[str, dict[str, int]]:
        """How often something was refused or has failed here: reason to resource to count."""
        return self._shard.refusals.snapshot()

    def close(self) -> None:
        """Cut what is left and write out the log."""
        self._doorbell.close()
        for connection in list(self._shard.downstreams):
            if isinstance(connection, Downstream):
                connection.stop()
        self._upstreams.close()
        refused = self.refusals()
        if refused:  # or nobody would ever know: they end with this worker
            self._log.info("refusals_of_worker", refused=refused)
        self.accounts.finish()
        self._access.flush()
        self._access.close()
        if self._old_access is not None:
            self._old_access.close(0.0)
        self._tracing.close()


def _has_bulkhead(config: RouteConfig) -> bool:
    return config.limit > 0 or config.paused


def _forward_policy(whole: Config) -> ForwardPolicy:
    config = whole.forward
    node = config.node or socket.gethostname() or "gateway"
    deadline = DeadlineHeader(config.deadline.lower().encode()) if config.deadline else None
    return ForwardPolicy(
        _CLIENTS[config.client],
        config.via,
        node.encode(),
        _TRACES[config.trace] if whole.trace is None else TRACE_SPANS,
        deadline,
        config.priority.lower().encode(),
    )


def _cache_settings(config: CacheConfig, tenant_field: bytes, written: frozenset[bytes]) -> CacheSettings:
    return CacheSettings(
        int(config.max_bytes),
        int(config.max_object),
        float(config.default_ttl),
        float(config.stale_while_revalidate),
        float(config.stale_if_error),
        float(config.join),
        config.set_cookie == "strip",
        config.obey_requests,
        tenant_field,
        written,
    )


def _rate(config: RateConfig) -> Rate:
    windows = windows_of(config.name, [parse_rate(text) for text in config.limits])
    headers = _RATE_HEADERS[config.headers]
    return Rate(config.name, SUBJECTS.index(config.by), windows, config.enforce, headers)


def _routes(config: Config) -> tuple[RouteConfig, ...]:
    if config.route:
        return config.route
    return (RouteConfig(name="default", upstream=next(iter(config.upstream))),)
