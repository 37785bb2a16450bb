"""Every place where something can wait, in the order of a request's way: one record each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from edgeq.board.histogram import Histogram
from edgeq.board.reading import Reading, age_ms
from edgeq.config.schema import Config
from edgeq.listener.descriptor_io import drops_of
from edgeq.listener.tcp_info_io import queue_length
from edgeq.observe.reports import Reports, add
from edgeq.observe.sampler import Sampler
from edgeq.supervisor.sockets_io import SHARED, Queue

_OVERFLOW: Final = "accept_backlog_overflow"
_MAX: Final = "max_connections"
_MAX_PER_CLIENT: Final = "max_connections_per_client"
QUANTILES: Final = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))


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
        self._counters: dict[str, tuple[int, ...]] = {}
        """Seen since the last look."""
        self._refusals: Mapping[str, Mapping[str, int]] = {}
        """Of all workers, as they were when it began."""

    def all(self) -> list[dict[str, Any]]:
        """All of them."""
        self._refusals = self._reports.refusals()
        return [*self._accept_queues(), *self._limited(), *self._waits_of_workers()]

    def look(self) -> dict[str, tuple[int, ...]]:
        """Look at those that are not on the board: their high-water is noted. Returns counters that become rates."""
        self._counters = {}
        self._refusals = self._reports.refusals()
        for _ in (*self._accept_queues(), *self._waits_of_workers()):
            pass
        return self._counters

    def _accept_queues(self) -> Iterator[dict[str, Any]]:
        reports = self._reports.all()
        for listener, slot, sock in self._sockets.queues():
            accepted = sum(
                one["accepted"]
                for worker, report in reports.items()
                if slot in (worker, SHARED)
                for one in report.get("listeners", ())
                if one["address"] == listener.address
            )
            key = f"accept/{listener.address} {slot}"
            name = f"listener/{listener.name or listener.address}:accept"
            refused = self._refused(None if slot == SHARED else slot, name)
            if slot == SHARED:  # a Unix socket, which does not tell how many wait
                rates = self._rates(key, None, accepted, sum(refused.values()))
                yield queue(name, "accept", depth=None, limit=listener.backlog, refused=refused, **rates)
                continue
            depth, limit = queue_length(sock)
            # What the kernel says itself, also while nobody looks at it there.
            drops = drops_of(sock)
            refused = {**refused, _OVERFLOW: drops} if drops else refused
            rates = self._rates(key, accepted + depth + drops, accepted, sum(refused.values()))
            yield self._seen(name, "accept", slot, depth=depth, limit=limit, refused=refused, **rates)

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
                yield self._places(names.get(one["address"], one["address"]), slot, one)
        for one in self._reports.pools():
            yield from self._pool(f"upstream/{one['upstream']}#{one['endpoint']}", one)
        tenant = self._config().tenant
        for one in self._reports.tenants(tenant.limit):
            name, depth, refused = f"tenant/{one['tenant']}", one["queued"], sum(one["refused"].values())
            yield self._seen(
                name,
                "tenant",
                depth=depth,
                limit=tenant.queue.max,
                oldest_ms=one["oldest_ms"],
                wait_ms=_marked(one["wait_ms"]),
                refused=one["refused"],
                **self._rates(name, one["admitted"] + depth + refused, one["admitted"], refused),
            )
        upstreams = self._config().upstream
        for one in self._reports.targets():
            upstream = upstreams.get(one["target"].partition("/")[0])
            name, depth, refused = f"target/{one['target']}:queue", one["queued"], sum(one["refused"].values())
            yield self._seen(
                name,
                "tokens",
                depth=depth,
                limit=upstream.queue.max if upstream is not None else None,
                oldest_ms=one["oldest_ms"],
                wait_ms=_marked(one["wait_ms"]),
                refused=one["refused"],
                **self._rates(name, one["admitted"] + depth + refused, one["admitted"], refused),
            )
        for slot, report in self._reports.all().items():
            if report.get("bodies"):
                held = report["bodies"]
                refused = self._only_refused(f"models:bodies {slot}", {"memory_pressure": held["refused"]})
                depth, limit = held["held"], held["limit"] or None
                yield self._seen("models:bodies", "bytes", slot, depth=depth, limit=limit, **refused)
            if "log" in report:
                yield self._log(slot, report["log"])
            if "trace" in report:
                spans = report["trace"]
                refused = self._only_refused(f"otel/spans {slot}", {"dropped": spans["dropped"]})
                yield self._seen("otel/spans", "spans", slot, depth=spans["waiting"], limit=spans["limit"], **refused)

    def _places(self, listener: str, slot: int, told: Mapping[str, Any]) -> dict[str, Any]:
        """Connections that wait for a place at a listener, in one worker."""
        name, depth = f"listener/{listener}:places", told["waiting"]
        left = told["waited"] + told["abandoned"]
        refused = self._refused(slot, f"listener/{listener}:{_MAX}", f"listener/{listener}:{_MAX_PER_CLIENT}")
        count = sum(refused.values())
        return self._seen(
            name,
            "places",
            slot,
            depth=depth,
            limit=told["waiting_max"],
            oldest_ms=told["oldest_wait_s"] * 1000,
            wait_ms=_marked(told.get("wait_ms", ())),
            refused=refused,
            **self._rates(f"{name} {slot}", left + depth + count, left, count),
        )

    def _pool(self, name: str, told: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Requests that wait for a connection to an endpoint, and connections that are being opened."""
        depth = told["waiting"]
        left = told["waited"] + told["gave_up"]
        refused = self._refused(None, f"{name}:pool")
        count = sum(refused.values())
        yield self._seen(
            f"{name}:pool",
            "pool",
            depth=depth,
            limit=told["waiting_limit"],
            oldest_ms=told["oldest_ms"],
            wait_ms=_marked(told["wait_ms"]),
            refused=refused,
            **self._rates(f"{name}:pool", left + depth + count, left, count),
        )
        opening = told["connecting"]
        rates = self._rates(f"{name}:connecting", told["dials"], told["dials"] - opening, None)
        yield self._seen(f"{name}:connecting", "connecting", depth=opening, limit=told["connecting_limit"], **rates)

    def _log(self, slot: int, told: Mapping[str, Any]) -> dict[str, Any]:
        """Bytes of lines that the target of the access log has not taken."""
        refused = self._only_refused(f"log {slot}", {"dropped": told.get("dropped", 0)})
        limit = told.get("limit_bytes")
        return self._seen("log", "log", slot, depth=told.get("pending_bytes", 0), limit=limit, **refused)

    def _refused(self, slot: int | None, *resources: str) -> dict[str, int]:
        """Refusals by reason at some resources, in one worker or (None) in all there ever were."""
        found = self._refusals if slot is None else self._reports.all().get(slot, {}).get("refusals", {})
        counts = {reason: sum(told.get(one, 0) for one in resources) for reason, told in found.items()}
        return {reason: count for reason, count in counts.items() if count}

    def _only_refused(self, key: str, refused: Mapping[str, int]) -> dict[str, Any]:
        """By reason, and a second, of a queue of which no more is counted."""
        rates = self._rates(key, None, None, sum(refused.values()))
        return {**rates, "refused": {reason: count for reason, count in refused.items() if count}}

    def _rates(self, key: str, arrived: int | None, left: int | None, refused: int | None) -> dict[str, Any]:
        """What the counters of a queue have become in the last seconds; None is not known."""
        counts = (arrived or 0, left or 0, refused or 0)
        self._counters[key] = counts
        rates = self._sampler.counter_rates(key, time.monotonic(), counts)
        return {
            "arrival_per_s": None if arrived is None else rates[0],
            "drain_per_s": None if left is None else rates[1],
            "refused_per_s": None if refused is None else rates[2],
        }

    def _seen(self, name: str, kind: str, worker: int | None = None, **values: Any) -> dict[str, Any]:
        """A queue whose high-water is what was seen here."""
        high = self._sampler.high(f"{name} {worker}", values["depth"])
        return queue(name, kind, worker, high_water=high, **values)


def _marked(quantiles: Sequence[float]) -> dict[str, float] | None:
    """Of a worker's report: by name; None if nobody has waited."""
    return {mark: one for (mark, _), one in zip(QUANTILES, quantiles, strict=True)} if quantiles else None


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
        "wait_ms": wait_ms or dict.fromkeys(mark for mark, _ in QUANTILES),
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
    return {mark: times.quantile(share) / 1000 if known else None for mark, share in QUANTILES}
