"""Every place where something can wait, in the order of a request's way: one record each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

from edgeq.board.histogram import Histogram
from edgeq.board.reading import Reading, age_ms
from edgeq.config.schema import Config
from edgeq.listener.descriptor_io import drops_of
from edgeq.listener.tcp_info_io import queue_length
from edgeq.observe.reports import Reports, add
from edgeq.observe.sampler import Sampler
from edgeq.supervisor.sockets_io import SHARED, Queue

_QUANTILES: Final = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))


class Sockets(Protocol):
    """The listening sockets."""

    def queues(self) -> list[Queue]:
        """All accept queues."""


class Queues:
    """Of one gateway. `readings()`: the numbers of all resources by name."""

    def __init__(
        self,
        sockets: Sockets,
        reports: Reports,
        sampler: Sampler,
        config: Callable[[], Config],
        readings: Callable[[], Mapping[str, Reading]],
    ) -> None:
        self._sockets = sockets
        self._reports = reports
        self._sampler = sampler
        self._config = config
        self._readings = readings

    def all(self) -> list[dict[str, Any]]:
        """All of them."""
        return [*self._accept_queues(), *self._limited(), *self._waits_of_workers()]

    def note_high_water(self) -> None:
        """Look at those that keep none themselves."""
        for _ in (*self._accept_queues(), *self._waits_of_workers()):
            pass

    def _accept_queues(self) -> Iterator[dict[str, Any]]:
        now_s = time.monotonic()
        reports = self._reports.all()
        for listener, slot, sock in self._sockets.queues():
            accepted = sum(
                one["accepted"]
                for worker, report in reports.items()
                if slot in (worker, SHARED)
                for one in report.get("listeners", ())
                if one["address"] == listener.address
            )
            key = accept_key(listener.address, slot)
            (rate,) = self._sampler.counter_rates(key, now_s, (accepted,))
            name = f"listener/{listener.name or listener.address}:accept"
            if slot == SHARED:  # a Unix socket, which does not tell how many wait
                yield queue(name, "accept", depth=None, limit=listener.backlog, drain_per_s=rate)
                continue
            depth, limit = queue_length(sock)
            drops = drops_of(sock)
            high = self._sampler.high(key, depth)
            refused = {"accept_backlog_overflow": drops} if drops else {}
            yield queue(
                name, "accept", slot, depth=depth, limit=limit, drain_per_s=rate, refused=refused, high_water=high
            )

    def _limited(self) -> Iterator[dict[str, Any]]:
        """The queues before the limits of routes and upstreams."""
        now_s = time.monotonic()
        config = self._config()
        limits = {f"route/{route.name}": route.queue for route in config.route}
        limits |= {f"upstream/{name}": upstream.queue for name, upstream in config.upstream.items()}
        by_tenant: dict[str, dict[str, int]] = {}
        for report in self._reports.all().values():
            for one in report.get("queues", ()):
                add(by_tenant.setdefault(one["resource"], {}), one["by_tenant"])
        for name, reading in self._readings().items():
            rates = self._sampler.rates(name, now_s, reading)
            yield queue(
                f"{name}:queue",
                "limit",
                depth=reading.queued,
                limit=limits[name].max,
                oldest_ms=age_ms(reading.oldest_ns),
                wait_ms=quantiles_ms(self._sampler.recent(name, reading).waits()),
                arrival_per_s=rates.arrivals,
                drain_per_s=rates.departures,
                refused_per_s=rates.refused,
                refused=reading.refusals(),
                high_water=reading.queued_high,
                by_tenant=by_tenant.get(name, {}),
            )

    def _waits_of_workers(self) -> Iterator[dict[str, Any]]:
        """What only the reports tell: places at listeners, pools, tenants, gates and bodies of models, logs, spans."""
        names = {one.address: one.name or one.address for one in self._config().listener}
        for slot, report in self._reports.all().items():
            for one in report.get("listeners", ()):
                yield self._seen(
                    f"listener/{names.get(one['address'], one['address'])}:places",
                    "places",
                    slot,
                    depth=one["waiting"],
                    limit=one["waiting_max"],
                    oldest_ms=one["oldest_wait_s"] * 1000,
                )
        for one in self._reports.pools():
            name = f"upstream/{one['upstream']}#{one['endpoint']}"
            oldest_ms = one["oldest_ms"]
            yield self._seen(
                f"{name}:pool", "pool", depth=one["waiting"], limit=one["waiting_limit"], oldest_ms=oldest_ms
            )
            yield self._seen(f"{name}:connecting", "connecting", depth=one["connecting"], limit=one["connecting_limit"])
        tenant = self._config().tenant
        for one in self._reports.tenants(tenant.limit):
            name, depth = f"tenant/{one['tenant']}", one["queued"]
            yield queue(
                name, "tenant", depth=depth, limit=tenant.queue.max, oldest_ms=one["oldest_ms"], refused=one["refused"]
            )
        upstreams = self._config().upstream
        for one in self._reports.targets():
            upstream = upstreams.get(one["target"].partition("/")[0])
            yield self._seen(
                f"target/{one['target']}:queue",
                "tokens",
                depth=one["queued"],
                limit=upstream.queue.max if upstream is not None else None,
                oldest_ms=one["oldest_ms"],
                refused=one["refused"],
            )
        for slot, report in self._reports.all().items():
            if report.get("bodies"):
                held = report["bodies"]
                refused = {"memory_pressure": held["refused"]} if held["refused"] else {}
                depth, limit = held["held"], held["limit"] or None
                yield self._seen("models:bodies", "bytes", slot, depth=depth, limit=limit, refused=refused)
            if "log" in report:
                yield self._seen("log", "log", slot, depth=report["log"]["waiting"])
            if "trace" in report:
                spans = report["trace"]
                refused = {"dropped": spans["dropped"]} if spans["dropped"] else {}
                yield self._seen(
                    "otel/spans", "spans", slot, depth=spans["waiting"], limit=spans["limit"], refused=refused
                )

    def _seen(self, name: str, kind: str, worker: int | None = None, **values: Any) -> dict[str, Any]:
        """A queue whose high-water is what was seen here."""
        high = self._sampler.high(f"{name} {worker}", values["depth"])
        return queue(name, kind, worker, high_water=high, **values)


def limited(config: Config) -> dict[str, int | str]:
    """All that has a limit on requests in flight, with a queue before it: by name, with the limit as configured; a
    paused route, which lets nobody in, has none else."""
    routes = {f"route/{route.name}": route.limit for route in config.route if route.limit or route.paused}
    return {**routes, **{f"upstream/{name}": upstream.limit for name, upstream in config.upstream.items()}}


def queue(
    name: str,
    kind: str,
    worker: int | None = None,
    *,
    depth: int | None,
    limit: int | None = None,
    oldest_ms: float | None = None,
    wait_ms: Mapping[str, float | None] | None = None,
    arrival_per_s: float | None = None,
    drain_per_s: float | None = None,
    refused_per_s: float | None = None,
    refused: Mapping[str, int] | None = None,
    high_water: int | None = None,
    by_tenant: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """One record of `queues`: `worker` None for one that all workers share."""
    return {
        "queue": name,
        "kind": kind,
        "worker": worker,
        "depth": depth,
        "limit": limit,
        "fill": depth / limit if depth is not None and limit else None,
        "oldest_ms": oldest_ms,
        "wait_ms": wait_ms or dict.fromkeys(mark for mark, _ in _QUANTILES),
        "arrival_per_s": arrival_per_s,
        "drain_per_s": drain_per_s,
        "refused_per_s": refused_per_s,
        "refused": refused or {},
        "high_water": high_water,
        "by_tenant": by_tenant or {},
    }


def quantiles_ms(times: Histogram) -> dict[str, float | None]:
    """Of microseconds; None where nothing was counted."""
    known = times.count > 0
    return {mark: times.quantile(share) / 1000 if known else None for mark, share in _QUANTILES}


def accept_key(address: str, slot: int) -> str:
    """Of the sampler, for a socket's accepted connections."""
    return f"accept/{address} {slot}"
