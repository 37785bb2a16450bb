"""The routes of one worker, from what the configuration says of them.

A table of routes is built anew for each configuration and never changed, so that a request has the same route to its
end. What routes hold outlives it: who is in their limits and queues, what their rates have counted, what their caches
keep, what was measured for a second try. It stays while the configuration says the same of it.
"""

from __future__ import annotations

from collections.abc import Collection
from time import monotonic
from typing import Any, Final

from edgeq.admission.bulkhead import NO_LIMIT, Bulkhead
from edgeq.admission.tenants import Tenants
from edgeq.board.gcra_table import GcraTable
from edgeq.board.resources import Resources
from edgeq.cache.cache import RouteCache
from edgeq.cache.rules import CacheSettings
from edgeq.config.schema import Config
from edgeq.config.schema import Rate as RateConfig
from edgeq.config.schema import Route as RouteConfig
from edgeq.config.schema import RouteCache as CacheConfig
from edgeq.config.units import parse_duration, parse_rate
from edgeq.llm.accounts import AccountsHolder
from edgeq.llm.build import ModelBuilder, first_upstream
from edgeq.llm.plan import Models
from edgeq.policy.fallback import GROUPS, QUOTA, STATUSES, Fallback, PreparedAnswer
from edgeq.policy.headers import ForwardPolicy
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
from edgeq.worker.upstreams import Upstreams

_RATE_HEADERS: Final = {"off": HEADERS_OFF, "ratelimit": HEADERS_IETF, "x-ratelimit": HEADERS_X, "both": HEADERS_BOTH}


class Routes:
    """All of this worker, with what they hold."""

    def __init__(
        self,
        upstreams: Upstreams,
        model_builder: ModelBuilder,
        resources: Resources,
        arrivals: GcraTable,
        accounts: AccountsHolder,
        log: Any,
    ) -> None:
        """Args: resources: by which limits hold for all workers together; arrivals: what rates know of their keys."""
        self._upstreams = upstreams
        self._model_builder = model_builder
        self._resources = resources
        self._arrivals = arrivals
        self._accounts = accounts
        self._log = log
        self._config: Config
        self._generation: int
        self._workers: int
        self._forward: ForwardPolicy
        self._models: Models | None = None
        """Those of the configuration, if it has any."""
        self.tenant: TenantKey | None = None
        self.tenants = Tenants(resources)
        self._rates: dict[RateConfig, Rate] = {}
        self._bulkheads: dict[str, Bulkhead] = {}
        """Of routes that have a limit of their own, or are paused, or were so until a reload and still have requests
        under it."""
        self._limited: set[str] = set()
        """The former."""
        self._caches: dict[str, tuple[object, RouteCache]] = {}
        """Of routes that have one, each with what its answers come from."""
        self._hedges: dict[str, tuple[str, HedgePolicy]] = {}
        """Of routes, each with the word that it is made from."""

    def build(self, config: Config, generation: int, workers: int, forward: ForwardPolicy, lenient: bool) -> RouteTable:
        """The table of a configuration whose upstreams are there. `settle` once it is in use.

        lenient: models that cannot be used are no error. Raises: ValueError, for a secret that cannot be read.
        """
        self._config = config
        self._generation = generation
        self._workers = workers
        self._forward = forward
        tenant = config.tenant
        known = self._accounts if config.accounts is not None else None
        self.tenant = TenantKey(tenant.key, tenant.weights, known) if tenant.key else None
        self.tenants.configure(tenant.limit, tenant.queue.max, float(tenant.queue.timeout), workers, monotonic())
        # A rate that has not changed goes on as it is, another of its name with what was counted.
        before = {rate.name: rate for rate in self._rates.values()}
        self._rates = {rate: self._rates.get(rate) or _rate(rate, before.get(rate.name)) for rate in config.rate}
        self._models = self._build_models(config, lenient)
        routes = {route.name: self._route(route) for route in _routes(config)}
        return RouteTable([*routes.values(), *_prompt_routes(config, routes)])

    def settle(self) -> None:
        """The table is in use: let go of what only the last one needed."""
        config = self._config
        hedged = {route.name for route in config.route if route.retry.hedge != "off"}
        self._hedges = {name: one for name, one in self._hedges.items() if name in hedged}
        self._limited = {route.name for route in config.route if _has_bulkhead(route)}
        for name, bulkhead in self._bulkheads.items():
            if name not in self._limited:
                bulkhead.resize(NO_LIMIT, monotonic())  # who waits goes on to its upstream
        cached = {route.name for route in config.route if route.cache is not None}
        self._caches = {name: known for name, known in self._caches.items() if name in cached}

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
            route.tenants = self.tenants
        route.cache = self._cache(config)
        route.fallback = self._fallback(config, route)
        route.graceful = route.cache is not None or route.fallback is not None
        return route

    def _cache(self, config: RouteConfig) -> RouteCache | None:
        """A route's cache. It stays the same over reloads, with what it holds, unless that may be about something
        else now."""
        if config.cache is None:
            return None
        tenant = self.tenant
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
            if known is not None:
                cache.count_on(known[1])
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
        forward = self._forward
        believes = forward.deadline is not None or forward.priority
        if not rates and self.tenant is None and priority == DEFAULT and not believes:
            return None
        rate_set = RateSet(rates, config.cost, self._arrivals) if rates else None
        return Terms(config.name, config.upstream, self.tenant, priority, rate_set)

    # -- now and then -------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """About ten times a second."""
        self.tenants.tick(now)
        for bulkhead in self._bulkheads.values():
            bulkhead.tick(now)
        if len(self._bulkheads) > len(self._limited):
            self._forget()

    def _forget(self) -> None:
        """Let go of routes' limits that have left the configuration, once nobody is under them."""
        for name in [name for name in self._bulkheads if name not in self._limited]:
            bulkhead = self._bulkheads[name]
            if not bulkhead.in_flight and not bulkhead.queue.queued:
                del self._bulkheads[name]
                self._resources.forget(bulkhead.shared)

    def look(self, now: float) -> None:
        """Another worker has left a place to one who waits here."""
        self.tenants.look(now)
        self._model_builder.look(now)
        for bulkhead in self._bulkheads.values():
            bulkhead.dispatch(now)

    # -- for who tells of them ----------------------------------------------------------------------------------------

    def rates(self) -> Collection[Rate]:
        """Of the configuration."""
        return self._rates.values()

    def bulkheads(self) -> Collection[Bulkhead]:
        """Of routes, those included that only old requests still need."""
        return self._bulkheads.values()

    def caches(self) -> dict[str, RouteCache]:
        """By the names of their routes."""
        return {name: cache for name, (_, cache) in self._caches.items()}


def _has_bulkhead(config: RouteConfig) -> bool:
    return config.limit > 0 or config.paused


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


def _rate(config: RateConfig, before: Rate | None) -> Rate:
    windows = windows_of(config.name, [parse_rate(text) for text in config.limits])
    headers = _RATE_HEADERS[config.headers]
    rate = Rate(config.name, SUBJECTS.index(config.by), windows, config.enforce, headers)
    if before is not None:
        rate.refused, rate.would_refuse = before.refused, before.would_refuse
    return rate


def _routes(config: Config) -> tuple[RouteConfig, ...]:
    if config.route:
        return config.route
    return (RouteConfig(name="default", upstream=next(iter(config.upstream))),)


def _prompt_routes(config: Config, routes: dict[str, Route]) -> list[Route]:
    """A prompt's path belongs to its route, whatever that matches."""
    found: dict[str, Route] = {}
    for prompt in config.prompt:
        own = routes[prompt.route]
        path = prompt.path.encode()
        made = Route(own.name, own.host, path, own.upstream, b"", own.timeout_s, own.body_bytes, own.generation)
        made.terms, made.tenants, made.bulkhead, made.llm = own.terms, own.tenants, own.bulkhead, own.llm
        found[f"{own.name} {prompt.path}"] = made
    return list(found.values())
