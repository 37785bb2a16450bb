"""What `edgeq show` and the metrics tell, made in the supervisor from the board, the sockets and the configuration.

No worker is asked, so a worker that hangs is seen, not waited for. One list of records for each subject; every record
of a list has the same keys, and what cannot be known is None. Times are milliseconds, rates are of the last ten
seconds, quantiles of the last ten to twenty (`sampler.py`).

Made at most ten times a second, and in a tenth of the supervisor's time, however often somebody asks: a thousand
readers cost as much as ten.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import orjson

from edgeq.board import resources
from edgeq.board.layout import Board
from edgeq.board.resources import Reading
from edgeq.config.schema import Config
from edgeq.config.shown import leaves
from edgeq.listener.descriptor_io import drops_of
from edgeq.listener.tcp_info_io import queue_length
from edgeq.observe.refusals import OTHER
from edgeq.observe.sampler import Sampler
from edgeq.reasons import REASONS
from edgeq.supervisor.sockets_io import SHARED, Queue, kernel_backlog_limit

Records = list[dict[str, Any]]
T = TypeVar("T")

MAX_REFUSALS: Final = 4096
"""Pairs of reason and resource that are kept of dead workers."""
MAX_TENANTS: Final = 64
STUCK_MS: Final = 2000
"""A worker that has not flushed for so long does not turn its loop: eight flushes are missing."""
_FRESH_S: Final = 0.1
_FRESH_TIMES: Final = 9.0
"""What took longer to make holds for longer, so many times: 50 ms with 200 upstreams and 16 workers."""
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Fleet(Protocol):
    """Which processes there are."""

    def pids(self) -> dict[int, int]:
        """Slot to process id."""


class Sockets(Protocol):
    """The listening sockets."""

    def queues(self) -> list[Queue]:
        """All accept queues."""


class Overview:
    """All subjects, each a method that returns records."""

    def __init__(self, board: Board, fleet: Fleet, sockets: Sockets, config: Callable[[], Config]) -> None:
        self._board = board
        self._fleet = fleet
        self._sockets = sockets
        self._config = config
        self._sampler = Sampler(board)
        self._made: dict[str, tuple[float, Any]] = {}
        """By subject: until when it holds, and what was made."""
        self.subjects: Final[Mapping[str, Callable[[], Records]]] = {
            one.__name__: one
            for one in (
                self.queues,
                self.upstreams,
                self.endpoints,
                self.routes,
                self.tenants,
                self.limits,
                self.workers,
                self.reasons,
                self.config,
            )
        }
        """By name, as commands call them."""

    # Now and then.

    def sample(self) -> None:
        """Once a second: note the counters that become rates, and the high-water of what keeps none itself."""
        counters: dict[str, tuple[int, ...]] = {
            f"worker/{slot}": (self._board.row(slot).requests, self._board.row(slot).connections)
            for slot in self._fleet.pids()
        }
        for slot, report in self._reports().items():
            for one in report.get("listeners", ()):
                counters[_accept_key(one["address"], slot)] = (one["accepted"],)
        for reason, found in self._refusals().items():
            for resource, count in found.items():
                counters[_refusal_key(reason, resource)] = (count,)
        self._sampler.sample(time.monotonic(), self._resources(), counters)
        for _ in (*self._accept_queues(), *self._waits_of_workers()):
            pass

    def bury(self, slot: int) -> None:
        """A worker is dead and its row is about to be cleared: keep what it has refused, with that of the other dead.

        MAX_REFUSALS pairs are kept; of more only the sum of each reason.
        """
        page = self._board.report(self._board.slots)
        kept = _refusals_of(_decode(page.read()))
        _add_refusals(kept, _refusals_of(_decode(self._board.report(slot).read())))
        if sum(map(len, kept.values())) > MAX_REFUSALS or len(text := _encode_refusals(kept)) > page.max_bytes:
            text = _encode_refusals({reason: {OTHER: sum(found.values())} for reason, found in kept.items()})
        page.write(text)
        self._made.clear()

    # Subjects.

    def queues(self) -> Records:
        """Every place where something can wait, in the order of a request's way."""
        return self._fresh("queues", lambda: [*self._accept_queues(), *self._limited(), *self._waits_of_workers()])

    def upstreams(self) -> Records:
        """Each upstream with its limit, its breaker, and what its answers take."""
        return self._fresh("upstreams", self._upstreams)

    def endpoints(self) -> Records:
        """Each endpoint with its connections, of all workers, and why it is left out."""
        return self._fresh("endpoints", self._endpoints)

    def routes(self) -> Records:
        """Each route with its limit."""
        return self._fresh("routes", self._routes)

    def tenants(self) -> Records:
        """The tenants that have the most requests in flight or waiting; only where tenants have a limit."""
        return self._fresh("tenants", self._tenants)

    def limits(self) -> Records:
        """Everything that is a number in the configuration, and where its value comes from."""
        return self._fresh("limits", self._limits)

    def workers(self) -> Records:
        """Each worker process."""
        return self._fresh("workers", self._workers)

    def reasons(self) -> Records:
        """Refusals and failures by reason and resource, of all workers, the dead ones included."""
        return self._fresh("reasons", self._reasons)

    def config(self) -> Records:
        """What runs now, with secrets masked."""
        return [{"key": one.key, "value": one.value, "default": one.is_default} for one in leaves(self._config())]

    def readings(self) -> dict[str, Reading]:
        """The numbers of all resources with histograms since the start, for the metrics."""
        return self._fresh("readings", lambda: {name: self._reading(name) for name in self._resources()})

    # How it is done.

    def _fresh(self, subject: str, make: Callable[[], T]) -> T:
        begun_s = time.monotonic()
        known = self._made.get(subject)
        if known is not None and begun_s < known[0]:
            found: T = known[1]
            return found
        found = make()
        now_s = time.monotonic()
        self._made[subject] = (now_s + max(_FRESH_S, _FRESH_TIMES * (now_s - begun_s)), found)
        return found

    def _resources(self) -> list[str]:
        config = self._config()
        routes = [f"route/{route.name}" for route in config.route if route.limit]
        return [*routes, *(f"upstream/{name}" for name in config.upstream)]

    def _reading(self, name: str) -> Reading:
        return resources.read(self._board, self._board.resource_index(name))

    def _reports(self) -> dict[int, dict[str, Any]]:
        return self._fresh("reports", self._read_reports)

    def _read_reports(self) -> dict[int, dict[str, Any]]:
        return {slot: _decode(self._board.report(slot).read()) for slot in self._fleet.pids()}

    def _refusals(self) -> dict[str, dict[str, int]]:
        total = _refusals_of(_decode(self._board.report(self._board.slots).read()))
        for report in self._reports().values():
            _add_refusals(total, _refusals_of(report))
        return total

    def _accept_queues(self) -> Iterator[dict[str, Any]]:
        now_s = time.monotonic()
        reports = self._reports()
        for listener, slot, sock in self._sockets.queues():
            accepted = sum(
                one["accepted"]
                for worker, report in reports.items()
                if slot in (worker, SHARED)
                for one in report.get("listeners", ())
                if one["address"] == listener.address
            )
            key = _accept_key(listener.address, slot)
            (rate,) = self._sampler.counter_rates(key, now_s, (accepted,))
            name = f"listener/{listener.name or listener.address}:accept"
            if slot == SHARED:  # a Unix socket, which does not tell how many wait
                yield _queue(name, "accept", depth=None, limit=listener.backlog, drain_per_s=rate)
                continue
            depth, limit = queue_length(sock)
            drops = drops_of(sock)
            high = self._sampler.high(key, depth)
            refused = {"accept_backlog_overflow": drops} if drops else {}
            yield _queue(
                name, "accept", slot, depth=depth, limit=limit, drain_per_s=rate, refused=refused, high_water=high
            )

    def _limited(self) -> Iterator[dict[str, Any]]:
        """The queues before the limits of routes and upstreams."""
        now_s, now_ns = time.monotonic(), time.monotonic_ns()
        config = self._config()
        limits = {f"route/{route.name}": route.queue for route in config.route}
        limits |= {f"upstream/{name}": upstream.queue for name, upstream in config.upstream.items()}
        by_tenant: dict[str, dict[str, int]] = {}
        for report in self._reports().values():
            for one in report.get("queues", ()):
                _add(by_tenant.setdefault(one["resource"], {}), one["by_tenant"])
        for name, reading in self.readings().items():
            rates = self._sampler.rates(name, now_s, reading)
            waits = self._sampler.recent(name, reading).waits()
            yield _queue(
                f"{name}:queue",
                "limit",
                depth=reading.queued,
                limit=limits[name].max,
                oldest_ms=(now_ns - reading.oldest_ns) / 1e6 if reading.oldest_ns else 0.0,
                wait_ms={mark: waits.quantile(share) / 1000 for mark, share in _QUANTILES},
                arrival_per_s=rates.arrivals,
                drain_per_s=rates.departures,
                refused_per_s=rates.refused,
                refused=reading.refusals(),
                high_water=reading.queued_high,
                by_tenant=by_tenant.get(name, {}),
            )

    def _waits_of_workers(self) -> Iterator[dict[str, Any]]:
        """What only the reports tell: places at listeners, pools, tenants, logs."""
        names = {one.address: one.name or one.address for one in self._config().listener}
        for slot, report in self._reports().items():
            for one in report.get("listeners", ()):
                yield self._seen(
                    f"listener/{names.get(one['address'], one['address'])}:places",
                    "places",
                    slot,
                    depth=one["waiting"],
                    limit=one["waiting_max"],
                    oldest_ms=one["oldest_wait_s"] * 1000,
                )
        for one in self._pools():
            name = f"upstream/{one['upstream']}#{one['endpoint']}"
            oldest_ms = one["oldest_ms"]
            yield self._seen(
                f"{name}:pool", "pool", depth=one["waiting"], limit=one["waiting_limit"], oldest_ms=oldest_ms
            )
            yield self._seen(f"{name}:connecting", "connecting", depth=one["connecting"], limit=one["connecting_limit"])
        limit = self._config().tenant.queue.max
        for one in self.tenants():
            name, depth = f"tenant/{one['tenant']}", one["queued"]
            yield _queue(name, "tenant", depth=depth, limit=limit, oldest_ms=one["oldest_ms"], refused=one["refused"])
        for slot, report in self._reports().items():
            if "log" in report:
                yield self._seen("log", "log", slot, depth=report["log"]["waiting"])

    def _seen(self, name: str, kind: str, worker: int | None = None, **values: Any) -> dict[str, Any]:
        """A queue whose high-water is what was seen here."""
        high = self._sampler.high(f"{name} {worker}", values["depth"])
        return _queue(name, kind, worker, high_water=high, **values)

    def _upstream_reports(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for slot, report in self._reports().items():
            for one in report.get("upstreams", ()):
                yield slot, one

    def _pools(self) -> Records:
        found: dict[tuple[str, str], dict[str, Any]] = {}
        now_ns = time.monotonic_ns()
        for _slot, upstream in self._upstream_reports():
            for seen in upstream["endpoints"]:
                key = (upstream["upstream"], seen["endpoint"])
                one = found.get(key)
                if one is None:
                    one = found[key] = {
                        "upstream": key[0],
                        "endpoint": key[1],
                        "state": "in use",
                        **dict.fromkeys(("active", "idle", "connecting", "waiting"), 0),
                        "oldest_ms": 0.0,
                        "cost_ms": None,
                        "weight": seen.get("weight", 1.0),
                        **dict.fromkeys(("answered", "failed", "waiting_limit", "connecting_limit"), 0),
                        "ejected_s": 0.0,
                        "health": "unknown",
                    }
                for count in ("active", "idle", "connecting", "waiting"):
                    one[count] += seen[count]
                for count in ("answered", "failed"):
                    one[count] += seen.get(count, 0)
                one["waiting_limit"] += upstream["max_waiting"]
                one["connecting_limit"] += upstream["max_connecting"]
                if seen["oldest_ns"]:
                    one["oldest_ms"] = max(one["oldest_ms"], (now_ns - seen["oldest_ns"]) / 1e6)
                if "cost_s" in seen:
                    one["cost_ms"] = max(one["cost_ms"] or 0.0, seen["cost_s"] * 1000)
                one["ejected_s"] = max(one["ejected_s"], seen.get("ejected_s", 0.0))
                if seen.get("health", "unknown") != "unknown":
                    one["health"] = seen["health"]
                if one["ejected_s"] or one["health"] == "bad":
                    one["state"] = "ejected" if one["ejected_s"] else "unhealthy"
        return [found[key] for key in sorted(found)]

    def _endpoints(self) -> Records:
        left_out = ("waiting_limit", "connecting_limit")
        return [{key: value for key, value in one.items() if key not in left_out} for one in self._pools()]

    def _upstreams(self) -> Records:
        now_s, now_ns = time.monotonic(), time.monotonic_ns()
        states: dict[str, dict[str, Any]] = {}
        for _slot, seen in self._upstream_reports():
            # Workers agree on what is in use but for a moment; the breaker that is not closed is the one to be told.
            known = states.get(seen["upstream"])
            if known is None or (seen["breaker"] or {}).get("state", "closed") != "closed":
                states[seen["upstream"]] = seen
        readings = self.readings()
        found: Records = []
        for name, config in self._config().upstream.items():
            reading = readings[f"upstream/{name}"]
            recent = self._sampler.recent(f"upstream/{name}", reading)
            rates = self._sampler.rates(f"upstream/{name}", now_s, reading)
            state = states.get(name, {})
            breaker = state.get("breaker")
            limit, source = self._limit_of(f"upstream/{name}", config.limit)
            service = recent.services()
            found.append(
                {
                    "upstream": name,
                    "in_flight": reading.in_flight,
                    "limit": limit,
                    "limit_source": source,
                    "queued": reading.queued,
                    "queue_limit": config.queue.max,
                    "oldest_ms": (now_ns - reading.oldest_ns) / 1e6 if reading.oldest_ns else 0.0,
                    "endpoints": state.get("known", 0),
                    "in_use": state.get("in_use", 0),
                    "panic": state.get("panic", False),
                    "breaker": breaker["state"] if breaker else None,
                    "service_ms": {mark: service.quantile(share) / 1000 for mark, share in _QUANTILES},
                    "answers_per_s": rates.departures,
                    "refused_per_s": rates.refused,
                    "ok": reading.counters[resources.OK],
                    "dropped": reading.counters[resources.DROPPED],
                    "refused": reading.refusals(),
                }
            )
        return found

    def _limit_of(self, name: str, configured: int | str) -> tuple[int | None, str]:
        """What holds now, None for no limit, and whose number it is."""
        if isinstance(configured, int):
            return configured or None, "file"
        learned = self._board.learned_limit(self._board.resource_index(name)) or None
        return (None, "observe") if configured == "observe" else (learned, "learned")

    def _routes(self) -> Records:
        now_s = time.monotonic()
        readings = self.readings()
        found: Records = []
        for route in self._config().route:
            name = f"route/{route.name}"
            reading = readings.get(name)
            rates = self._sampler.rates(name, now_s, reading) if reading is not None else None
            found.append(
                {
                    "route": route.name,
                    "host": route.match.host,
                    "path": route.match.path,
                    "upstream": route.upstream,
                    "priority": route.priority,
                    "in_flight": reading.in_flight if reading is not None else None,
                    "limit": route.limit or None,
                    "queued": reading.queued if reading is not None else None,
                    "queue_limit": route.queue.max if route.limit else None,
                    "answers_per_s": rates.departures if rates is not None else None,
                    "refused_per_s": rates.refused if rates is not None else None,
                }
            )
        return found

    def _tenants(self) -> Records:
        found: dict[str, dict[str, Any]] = {}
        for report in self._reports().values():
            for seen in report.get("tenants", ()):
                one = found.setdefault(
                    seen["tenant"],
                    {"tenant": seen["tenant"], "in_flight": 0, "limit": 0, "queued": 0, "oldest_ms": 0, "refused": {}},
                )
                one["in_flight"] += seen["in_flight"]
                one["queued"] += seen["queued"]
                one["oldest_ms"] = max(one["oldest_ms"], seen["oldest_ms"])
                _add(one["refused"], seen["refused"])
                one["limit"] = self._config().tenant.limit or None
        return sorted(found.values(), key=lambda one: -(one["in_flight"] + one["queued"]))[:MAX_TENANTS]

    def _limits(self) -> Records:
        somaxconn = kernel_backlog_limit()
        found: Records = []
        for leaf in leaves(self._config()):
            is_number = isinstance(leaf.raw, int | float) and not isinstance(leaf.raw, bool)
            step, _, last = leaf.key.rpartition(".")
            is_learned = last == "limit" and step.startswith("upstream.") and not is_number
            is_rate = last == "limits" and step.startswith("rate.")
            if not is_number and not is_learned and not is_rate:
                continue
            value, source = leaf.value, "default" if leaf.is_default else "file"
            if is_learned:
                name = step.removeprefix("upstream.").strip('"')
                limit, source = self._limit_of(f"upstream/{name}", str(leaf.raw))
                value = "none" if limit is None else str(limit)
            elif last == "backlog" and somaxconn is not None and leaf.raw > somaxconn:
                value, source = str(somaxconn), "kernel"
            found.append({"limit": leaf.key, "value": value, "source": source, "configured": leaf.value})
        return found

    def _workers(self) -> Records:
        """A worker that was never heard of has a beat age of -1."""
        now_s, now_ns = time.monotonic(), time.monotonic_ns()
        reports = self._reports()
        found: Records = []
        for slot, pid in self._fleet.pids().items():
            row = self._board.row(slot)
            beat_age_ms = (now_ns - row.heartbeat_ns) // 1_000_000 if row.heartbeat_ns else -1
            seen = row.snapshot()
            counts = (row.requests, row.connections)
            requests_per_s, accepts_per_s = self._sampler.counter_rates(f"worker/{slot}", now_s, counts)
            found.append(
                {
                    **seen,
                    "state": "stuck" if beat_age_ms > STUCK_MS else seen["state"],
                    "pid": pid,
                    "max_lag_us": reports.get(slot, {}).get("max_lag_us", 0),
                    "beat_age_ms": beat_age_ms,
                    "requests_per_s": requests_per_s,
                    "accepts_per_s": accepts_per_s,
                    "memory_bytes": _memory_bytes(pid),
                }
            )
        return found

    def _reasons(self) -> Records:
        now_s = time.monotonic()
        found: Records = []
        for reason, counts in self._refusals().items():
            known = REASONS.get(reason)
            for resource, count in counts.items():
                (rate,) = self._sampler.counter_rates(_refusal_key(reason, resource), now_s, (count,))
                found.append(
                    {
                        "reason": reason,
                        "resource": resource,
                        "count": count,
                        "per_s": rate,
                        "status": known.status if known is not None else 0,
                        "hint": known.hint if known is not None else "",
                    }
                )
        return sorted(found, key=lambda one: (-one["per_s"], -one["count"], one["reason"], one["resource"]))


_QUANTILES: Final = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))


def _queue(
    name: str,
    kind: str,
    worker: int | None = None,
    *,
    depth: int | None,
    limit: int | None = None,
    oldest_ms: float | None = None,
    wait_ms: Mapping[str, float] | None = None,
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
        "wait_ms": wait_ms or dict.fromkeys(("p50", "p90", "p99")),
        "arrival_per_s": arrival_per_s,
        "drain_per_s": drain_per_s,
        "refused_per_s": refused_per_s,
        "refused": refused or {},
        "high_water": high_water,
        "by_tenant": by_tenant or {},
    }


def _accept_key(address: str, slot: int) -> str:
    return f"accept/{address} {slot}"


def _refusal_key(reason: str, resource: str) -> str:
    return f"refused/{reason} {resource}"


def _decode(document: bytes) -> dict[str, Any]:
    """A report; empty if there is none."""
    if not document:
        return {}
    found = orjson.loads(document)
    return found if isinstance(found, dict) else {}


def _refusals_of(report: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    return {reason: dict(counts) for reason, counts in report.get("refusals", {}).items()}


def _add_refusals(total: dict[str, dict[str, int]], more: Mapping[str, Mapping[str, int]]) -> None:
    for reason, counts in more.items():
        _add(total.setdefault(reason, {}), counts)


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for key, count in more.items():
        total[key] = total.get(key, 0) + count


def _encode_refusals(counts: Mapping[str, Mapping[str, int]]) -> bytes:
    return orjson.dumps({"refusals": counts})


def _memory_bytes(pid: int) -> int | None:
    """Resident, of any process that we may see."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * _PAGE_BYTES
    return None
