"""One upstream's shell: names to addresses, addresses to pools, pools to dialed connections; changed in place."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from functools import partial
from time import monotonic
from typing import Any

from edgeq.board.resources import Resources
from edgeq.config.schema import Upstream as UpstreamConfig
from edgeq.errors import StartError
from edgeq.upstream.check_io import HealthChecks
from edgeq.upstream.connect_io import Dial, Dialer, alert
from edgeq.upstream.connection import UpstreamConnection
from edgeq.upstream.endpoint import Address, EndpointSpec, parse_endpoint
from edgeq.upstream.engines_io import EngineReadings
from edgeq.upstream.pool import Pool
from edgeq.upstream.probe_io import probe, unread
from edgeq.upstream.resolve_io import Resolver, Watch
from edgeq.upstream.tls_io import Contexts
from edgeq.upstream.trouble import Troubles
from edgeq.upstream.upstream import Upstream
from edgeq.worker.wheel import Wheel

_BAD_NEWS = frozenset(("endpoint_ejected", "endpoint_unhealthy", "upstream_panic", "circuit_open", "engine_unread"))


class UpstreamService:
    """Keeps an `Upstream`'s pools equal to what its endpoints resolve to."""

    def __init__(
        self,
        name: str,
        loop: asyncio.AbstractEventLoop,
        wheel: Wheel,
        resolver: Resolver,
        log: Any,
        resources: Resources | None = None,
    ) -> None:
        # Each worker draws other numbers, or all would draw the same endpoint at the same time.
        self.upstream = Upstream(name, wheel, random.getrandbits(31), resources)
        self._checks = HealthChecks(self.upstream)
        self._engines = EngineReadings(self.upstream)
        self._loop = loop
        self._resolver = resolver
        self._log = log
        self._config: UpstreamConfig | None = None
        self._watches: dict[str, Watch] = {}
        self._specs: dict[str, EndpointSpec] = {}
        self._addresses: dict[str, tuple[Address, ...]] = {}
        # By what is dialed: a changed SRV weight keeps its connections.
        self._pools: dict[tuple[str, str, str, int], Pool] = {}
        self._dialers: dict[bool, Dialer] = {}
        self._dials: set[Dial] = set()
        self._troubles = Troubles()
        self._refusals = Troubles()
        # Requests that wait for the first address of all; None while nobody need.
        self._lobby: Pool | None = None
        # Out of use, with requests that still wait for a connection.
        self._leaving: list[Pool] = []
        self._is_retired = False

    def apply(
        self, config: UpstreamConfig, workers: int, lenient: bool = False, contexts: Contexts | None = None
    ) -> None:
        """Take over a new configuration; what did not change keeps its connections.

        lenient: certificates that cannot be used are no error; requests of this upstream alone get one.
        contexts: what is known already of certificates; None: they are read.
        Raises: StartError, naming key and file, for certificates that cannot be used; then nothing has changed.
        """
        old = self._config
        weights = config.weights()
        secure = any(parse_endpoint(url).tls for url in weights)
        dialers = {False: Dialer(self._loop, config, None)}
        if secure:
            try:
                context = (contexts or Contexts()).of(config.tls)
            except ValueError as error:
                text = f"upstream.{self.upstream.name}.{error}"
                if not lenient:
                    raise StartError(text) from None
                self._log.error("upstream_unusable", upstream=self.upstream.name, detail=text)
                self.upstream.configure(config, workers)
                self.upstream.unresolved = "config_error"
                return
            dialers[True] = Dialer(self._loop, config, context)
        self._dialers = dialers
        self._config = config
        self._is_retired = False
        self.upstream.configure(config, workers)
        self.upstream.unresolved = "upstream_none_healthy"
        if old is not None and old.tls != config.tls:
            self._retire(self._pools.values())
            self._pools = {}
        if config.host not in ("preserve", "upstream"):
            self.upstream.host = config.host.encode()
        for url in [url for url in self._watches if url not in weights]:
            self._watches.pop(url).close()
            self._specs.pop(url)
            self._addresses.pop(url, None)
        for url in weights:
            if url not in self._watches:
                spec = parse_endpoint(url)
                self._specs[url] = spec
                self._addresses[url] = ()
                self._watches[url] = self._resolver.watch(spec, lambda found, url=url: self._found(url, found))  # type: ignore[misc]
        self._refresh()

    def _found(self, url: str, addresses: tuple[Address, ...]) -> None:
        self._addresses[url] = addresses
        if url in self._watches:
            self._refresh()

    def _refresh(self) -> None:
        """Make the pools equal to the addresses."""
        config = self._config
        if config is None:
            return
        pools: dict[tuple[str, str, str, int], Pool] = {}
        weights: dict[Pool, float] = {}
        of_urls = config.weights()
        for url, spec in self._specs.items():
            addresses = self._addresses.get(url, ())
            for address in addresses:
                key: tuple[str, str, str, int] = (url, address.family, address.host, address.port)
                pool = self._pools.get(key)
                if pool is None:
                    pool = Pool(self.upstream, address, str(address), self._dial, probe)
                    pool.tls = spec.tls
                    pool.host = _host_header(spec)
                    pool.unread = None if spec.tls else unread  # it would be ciphertext
                    pool.refusal = partial(self._refused, pool) if spec.tls else None
                pool.priority = _rank(address, addresses)
                pools[key] = pool
                weights[pool] = of_urls[url] * (_srv_share(address, addresses) if spec.srv else 1.0)
        self._retire([pool for key, pool in self._pools.items() if key not in pools])
        self._pools = pools
        upstream = self.upstream
        now = monotonic()
        upstream.set_pools(list(pools.values()), weights, now)
        self._await_names()
        self._checks.configure(config, self._dialers, now)
        self._engines.configure(config, self._dialers)
        for troubles in (self._troubles, self._refusals):
            troubles.keep({pool.name for pool in upstream.pools})
        hosts = [_host_header(spec) for spec in self._specs.values()]
        upstream.default_host = hosts[0] if hosts else b""
        upstream.hosts_differ = config.host == "upstream" and len(set(hosts)) > 1
        if config.host == "upstream":
            upstream.host = upstream.default_host
        elif config.host == "preserve":
            upstream.host = b""

    def tick(self, now: float) -> None:
        """Look after those who wait."""
        upstream = self.upstream
        upstream.learn(now)
        for pool in upstream.pools:
            if pool.waiting:
                pool.expire_waiting(now)
        upstream.tick(now)
        upstream.unresolved_names = [
            (watch.spec.host, url, watch.last_error, watch.detail)
            for url, watch in self._watches.items()
            if watch.last_error and not watch.addresses
        ]
        self._checks.tick(now)
        self._engines.tick(now)
        if upstream.events:
            self._tell_events()
        if self._leaving:
            for pool in self._leaving:
                pool.expire_waiting(now)
            self._leaving = [pool for pool in self._leaving if pool.waiting]
        if self._is_retired:
            self._let_pools_go()
        elif self._config is not None and not upstream.pools:
            errors = [watch.last_error for watch in self._watches.values() if watch.last_error]
            upstream.unresolved = errors[0] if errors else "upstream_none_healthy"
            self._await_names()

    def _await_names(self) -> None:
        """Who comes while there is no address, and no answer to any lookup yet, waits for that as for a connection: a
        worker that has just begun, or a new name in the file, is no failure of the upstream."""
        upstream = self.upstream
        if not upstream.pools and any(watch.is_new() for watch in self._watches.values()):
            if self._lobby is None:
                self._lobby = Pool(upstream, None, "name", lambda _: None, probe)
            upstream.only = self._lobby
        elif self._lobby is not None:
            lobby, self._lobby = self._lobby, None
            if upstream.only is lobby:
                upstream.only = None
            for exchange in list(lobby.waiting):
                lobby.leave(exchange)
                upstream.submit(exchange)  # to a pool, or there it is told why there is none

    def _dial(self, pool: Pool) -> None:
        dialer = self._dialers[pool.tls]
        made: list[Dial] = []

        def protocol() -> Any:  # a compiled class cannot derive from asyncio.Protocol; it has its methods
            return UpstreamConnection(pool)

        def done(connection: Any, reason: str) -> None:
            dial = made[0]
            self._dials.discard(dial)
            self._tell(pool, reason, dial.detail)
            if connection is None:
                pool.dial_failed(reason)
            else:
                pool.dialed(connection, dial.connect_s + dial.tls_s)

        dial = dialer.dial(pool.address, protocol, done)
        made.append(dial)
        self._dials.add(dial)

    def _tell(self, pool: Pool, reason: str, detail: str) -> None:
        """Log that an endpoint cannot be reached, or can again; an answer only has room for the reason."""
        name = self.upstream.name
        if reason:
            failures = self._troubles.failed(pool.name, reason, detail, monotonic())
            if failures:
                self._log.warning(
                    "upstream_connect_failed",
                    upstream=name,
                    endpoint=pool.name,
                    reason=reason,
                    detail=detail,
                    failures=failures,
                )
        elif self._troubles:
            failures = self._troubles.reached(pool.name, monotonic())
            if failures:
                self._log.info("upstream_connect_recovered", upstream=name, endpoint=pool.name, failures=failures)

    def _refused(self, pool: Pool, error: Exception) -> bool:
        """Did a peer refuse us after the handshake? Then log why."""
        detail = alert(error)
        if not detail:
            return False
        failures = self._refusals.failed(pool.name, "upstream_tls_failed", detail, monotonic())
        if failures:
            self._log.warning(
                "upstream_refused_us",
                upstream=self.upstream.name,
                endpoint=pool.name,
                reason="upstream_tls_failed",
                detail=detail,
                failures=failures,
            )
        return True

    def _tell_events(self) -> None:
        events = self.upstream.events
        self.upstream.events = []
        for name, fields in events:
            tell = self._log.warning if name in _BAD_NEWS else self._log.info
            tell(name, upstream=self.upstream.name, **fields)

    def _retire(self, pools: Iterable[Pool]) -> None:
        for pool in pools:
            pool.retire()
            if pool.waiting:
                self._leaving.append(pool)

    def retire(self) -> None:
        """Not in the configuration any more: let go of everything but the requests that run or wait.

        Those who wait for a place keep the pools, those who wait for a connection get the ones that are being dialed
        for them; to be ticked until `is_settled`. Should it come back before, `apply` goes on with it.
        """
        for watch in self._watches.values():
            watch.close()
        self._checks.close()
        self._engines.close()
        self._watches = {}
        self._specs = {}
        self._addresses = {}
        self._is_retired = True
        self._await_names()
        self._let_pools_go()

    def _let_pools_go(self) -> None:
        """Retired: once nobody waits for a place, nobody comes any more."""
        if self._pools and not self.upstream.bulkhead.queue.queued:
            self._retire(self._pools.values())
            self._pools = {}
            self.upstream.set_pools([], {}, monotonic())

    def is_settled(self) -> bool:
        """Retired, and nobody waits."""
        if self._watches or self._pools or self.upstream.bulkhead.in_flight:
            return False
        return not any(pool.waiting for pool in self._leaving)

    def close(self) -> None:
        """Let go of everything."""
        self.retire()
        self._retire(self._pools.values())
        for dial in list(self._dials):
            dial.cancel()

    def open_connections(self) -> int:
        """To all endpoints, those being dialed included."""
        return sum(pool.opened + pool.connecting for pool in self.upstream.pools)

    def snapshot(self) -> list[dict[str, int | float | str | list[float]]]:
        """Each endpoint's pool."""
        return [pool.snapshot() for pool in self.upstream.pools]


def _srv_share(address: Address, addresses: tuple[Address, ...]) -> float:
    """The weight of an SRV record's address, 1.0 for the average of its name and priority; 0 is "a very small chance"
    (RFC 2782)."""
    weights = [one.weight for one in addresses if one.priority == address.priority]
    total = sum(weights)
    return max(0.01, address.weight * len(weights) / total) if total else 1.0


def _rank(address: Address, addresses: tuple[Address, ...]) -> int:
    """How many priorities of its name go before that of an address: those of other names cannot be compared."""
    return len({one.priority for one in addresses if one.priority < address.priority})


def _host_header(spec: EndpointSpec) -> bytes:
    """What a Host field says of an endpoint: brackets around IPv6, the port unless it is the scheme's own."""
    host = f"[{spec.name}]" if ":" in spec.name else spec.name
    own = spec.scheme == "unix" or spec.srv or spec.port == (443 if spec.tls else 80)
    return (host if own else f"{host}:{spec.port}").encode()
