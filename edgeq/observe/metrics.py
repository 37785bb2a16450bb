"""All numbers for Prometheus: text 0.0.4, or OpenMetrics when the scraper asks for it.

The exposition is prometheus_client's, which costs 30 ms and 5 MiB to import; so it is imported at the first scrape,
and only ever in the supervisor. Its own registry of metrics is not used: the numbers are those of `edgeq show`.

Names follow the conventions (base units, _total for counters). Labels come from the configuration, reasons are a closed
table, and of a resource an endpoint's address is left out, because addresses come and go with DNS: so the number of
series is bounded by the configuration, and no client can make new ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from edgeq.board import resources
from edgeq.board.histogram import Histogram, bucket_floor
from edgeq.board.layout import Board
from edgeq.observe.llm_metrics import llm_metrics, state_metrics
from edgeq.observe.overview import Overview

if TYPE_CHECKING:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""OpenTelemetry's for HTTP, and longer ones for models and streams."""
_BREAKER: Final = ("closed", "open", "half-open")


class Metrics:
    """One scrape. `generation` of the configuration; `reloaded`: the last reload went well; `build`: of build_info;
    `store_fails`: that of accounts cannot be written, None: there is none."""

    def __init__(
        self,
        board: Board,
        overview: Overview,
        generation: int,
        reloaded: bool,
        build: dict[str, str],
        store_fails: bool | None = None,
    ) -> None:
        self._store_fails = store_fails
        self._board = board
        self._overview = overview
        self._generation = generation
        self._reloaded = reloaded
        self._build = build

    def expose(self, accept: str) -> tuple[str, bytes]:
        """Media type and text, by what the scraper accepts."""
        from prometheus_client.exposition import choose_encoder

        encode, media = choose_encoder(accept)
        return media, encode(self)

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client's registries do it."""
        from prometheus_client import PROCESS_COLLECTOR
        from prometheus_client.core import InfoMetricFamily

        build = InfoMetricFamily("edgeq_build", "What runs here.")
        build.add_metric((), self._build)
        yield build
        yield _gauge("edgeq_config_generation", "Of the configuration that runs.", (), [((), self._generation)])
        yield _gauge("edgeq_config_changes", "Keys that are set live.", (), [((), len(self._overview.changes()))])
        yield _gauge(
            "edgeq_config_last_reload_success", "1 unless the last reload was refused.", (), [((), self._reloaded)]
        )
        yield _counter("edgeq_requests", "Requests of all workers.", (), [((), self._board.requests_total())])
        accepted = self._board.connections_total()
        yield _counter("edgeq_connections_accepted", "Connections of all workers.", (), [((), accepted)])
        if self._store_fails is not None:
            help_text = "1 while usage waits because accounts.store cannot be written."
            yield _gauge("edgeq_accounts_store_failing", help_text, (), [((), self._store_fails)])
        yield from self._workers()
        yield from self._queues()
        yield from self._upstreams()
        yield from self._times()
        yield self._refusals()
        yield from llm_metrics(self._overview.reports.llm(), self._overview.providers())
        yield from state_metrics(self._overview.models(), self._overview.meters())
        yield from PROCESS_COLLECTOR.collect()

    def _workers(self) -> Iterator[Metric]:
        rows = self._overview.workers()
        for name, help_text, key, scale in (
            ("edgeq_worker_connections_open", "Connections of clients.", "connections", 1.0),
            ("edgeq_worker_requests_inflight", "Requests that run.", "in_flight", 1.0),
            ("edgeq_event_loop_lag_seconds", "The worst lag of the event loop lately.", "max_lag_us", 1e-6),
            ("edgeq_worker_heartbeat_age_seconds", "Since the worker's last sign of life.", "beat_age_ms", 1e-3),
            ("edgeq_worker_memory_bytes", "Resident memory.", "memory_bytes", 1.0),
        ):
            yield _gauge(
                name, help_text, ("worker",), [((str(one["slot"]),), _scaled(one[key], scale)) for one in rows]
            )
        yield _gauge(
            "edgeq_worker_aside",
            "1 if the others serve for the worker, because it is stuck or its accept queue is full.",
            ("worker",),
            [((str(one["slot"]),), bool(one["aside"])) for one in rows],
        )
        yield _counter(
            "edgeq_worker_rescues",
            "How often workers were set aside (stuck, crowded), came back, and were given up: killed; how often one "
            "was stuck while no other was well (alone), and went on (revived).",
            ("what",),
            [((what,), count) for what, count in self._overview.stuck.counts.items()],
        )

    def _queues(self) -> Iterator[Metric]:
        rows = self._overview.queues()
        accept = [one for one in rows if one["kind"] == "accept" and one["depth"] is not None]
        labels = ("listener", "worker")
        named = [
            ((one["queue"].removeprefix("listener/").removesuffix(":accept"), str(one["worker"])), one)
            for one in accept
        ]
        yield _gauge("edgeq_accept_queue_depth", "Connections in the kernel's queue.", labels, _pick(named, "depth"))
        yield _gauge("edgeq_accept_queue_limit", "Of that queue, as the kernel has it.", labels, _pick(named, "limit"))
        overflows = [(values, one["refused"].get("accept_backlog_overflow", 0)) for values, one in named]
        yield _counter("edgeq_accept_overflows", "Connections that the kernel dropped.", labels, overflows)

        caches = self._overview.caches()
        outcomes = ("hits", "joined", "stale", "misses")
        yield _counter(
            "edgeq_cache_requests",
            "By what the route's cache had for them.",
            ("route", "outcome"),
            [((one["route"], outcome), one[outcome]) for one in caches for outcome in outcomes],
        )
        of_routes = [((one["route"],), one) for one in caches]
        yield _gauge("edgeq_cache_bytes", "What is stored, of all workers.", ("route",), _pick(of_routes, "bytes"))
        yield _gauge("edgeq_cache_limit_bytes", "How much may be.", ("route",), _pick(of_routes, "max_bytes"))
        yield _gauge("edgeq_cache_waiting", "For another request's answer.", ("route",), _pick(of_routes, "waiting"))

        yield _counter(
            "edgeq_retries",
            "Requests sent again (retried), those that the budget denied; of the former: hedges, and hedges_won.",
            ("upstream", "what"),
            [
                ((one["upstream"], what), one[what])
                for one in self._overview.retries()
                for what in ("retried", "denied", "hedges", "hedges_won")
            ],
        )

        would = [((one["rate"],), one["would_refuse"]) for one in self._overview.rates() if not one["enforce"]]
        yield _counter("edgeq_rate_would_refuse", "By a rate that is not enforced.", ("rate",), would)

        dropped = [((str(one["worker"]),), sum(one["refused"].values())) for one in rows if one["kind"] == "spans"]
        yield _counter("edgeq_spans_dropped", "Spans that no collector has got.", ("worker",), dropped)

        # Of pools the sum over endpoints; tenants' names are not ours.
        waits: dict[tuple[str, ...], dict[str, float]] = {}
        oldest_s: dict[tuple[str, ...], float] = {}  # where it is known
        for one in rows:
            if one["kind"] in ("accept", "tenant"):
                continue
            key = (_named(one["queue"]), one["kind"])
            found = waits.setdefault(key, {"depth": 0, "limit": 0})
            found["depth"] += one["depth"] or 0
            found["limit"] += one["limit"] or 0
            if one["oldest_ms"] is not None:
                oldest_s[key] = max(oldest_s.get(key, 0.0), one["oldest_ms"] / 1000)
        labels = ("queue", "kind")
        of_queues = list(waits.items())
        yield _gauge(
            "edgeq_queue_depth", "Who waits; of kind bytes: how many are held.", labels, _pick(of_queues, "depth")
        )
        limited = [(values, one) for values, one in of_queues if one["limit"]]
        yield _gauge("edgeq_queue_limit", "How many may wait.", labels, _pick(limited, "limit"))
        yield _gauge("edgeq_queue_oldest_seconds", "Age of the oldest waiter.", labels, list(oldest_s.items()))

    def _upstreams(self) -> Iterator[Metric]:
        rows = [((one["upstream"],), one) for one in self._overview.upstreams()]
        one_label = ("upstream",)
        yield _gauge("edgeq_inflight", "Requests at the upstream.", one_label, _pick(rows, "in_flight"))
        limited = [(values, one) for values, one in rows if one["limit"] is not None]
        yield _gauge("edgeq_inflight_limit", "How many there may be now.", one_label, _pick(limited, "limit"))
        observed = [(values, one) for values, one in rows if one["observed_limit"] is not None]
        yield _gauge(
            "edgeq_inflight_limit_observed",
            "What would be learned (limit = observe).",
            one_label,
            _pick(observed, "observed_limit"),
        )
        yield _gauge("edgeq_upstream_endpoints", "Known endpoints.", one_label, _pick(rows, "endpoints"))
        yield _gauge("edgeq_upstream_endpoints_in_use", "Those in use.", one_label, _pick(rows, "in_use"))
        yield _gauge(
            "edgeq_breaker_state",
            "1 for the state that the breaker is in.",
            ("upstream", "state"),
            [
                ((*values, state), one["breaker"] == state)
                for values, one in rows
                if one["breaker"] is not None
                for state in _BREAKER
            ],
        )
        states: dict[tuple[str, ...], int] = {}
        for one in self._overview.endpoints():
            for state in ("active", "idle", "connecting"):
                key = (one["upstream"], state)
                states[key] = states.get(key, 0) + one[state]
        yield _gauge(
            "edgeq_upstream_connections", "Connections to the endpoints.", ("upstream", "state"), states.items()
        )

    def _times(self) -> Iterator[Metric]:
        from prometheus_client.core import HistogramMetricFamily

        readings = self._overview.readings()
        waits = HistogramMetricFamily(
            "edgeq_queue_wait_seconds", "Waits of requests that were let in.", labels=("resource",)
        )
        services = HistogramMetricFamily(
            "edgeq_service_seconds", "From the permit to the last byte of an answer.", labels=("resource",)
        )
        for name, reading in readings.items():
            counters = reading.counters
            waits.add_metric((name,), _buckets(reading.waits()), counters[resources.WAIT_US] / 1e6)
            services.add_metric((name,), _buckets(reading.services()), counters[resources.SERVICE_US] / 1e6)
        yield waits
        yield services
        outcomes = (("ok", resources.OK), ("dropped", resources.DROPPED), ("ignored", resources.IGNORED))
        yield _counter(
            "edgeq_finished",
            "Permits that were given back, by what the limiter has learned from it.",
            ("resource", "outcome"),
            [((name, word), one.counters[at]) for name, one in readings.items() for word, at in outcomes],
        )

    def _refusals(self) -> Metric:
        counts: dict[tuple[str, ...], int] = {}
        for one in self._overview.reasons():
            key = (one["reason"], _named(one["resource"]))
            counts[key] = counts.get(key, 0) + one["count"]
        return _counter(
            "edgeq_refusals", "Requests and connections refused or failed.", ("reason", "resource"), counts.items()
        )


def _listener(queue: str) -> str:
    return queue.removeprefix("listener/").removesuffix(":accept")


def _named(resource: str) -> str:
    """A resource without an endpoint's address: "upstream/api#10.0.0.7:9000:pool" is "upstream/api:pool"."""
    name, mark, rest = resource.partition("#")
    if not mark:
        return resource
    last = rest.rpartition(":")[2]
    return f"{name}:{last}" if last.isalpha() else name


def _buckets(times: Histogram) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound, a bucket of ours in the first one that holds all of it."""
    found: list[tuple[str, float]] = []
    total = 0
    at = 0
    for bound_s in BOUNDS_S:
        while at < len(times.counts) and bucket_floor(at + 1) <= bound_s * 1e6 + 1:
            total += times.counts[at]
            at += 1
        found.append((f"{bound_s:g}" if bound_s != int(bound_s) else f"{bound_s:.1f}", total))
    return [*found, ("+Inf", total + sum(times.counts[at:]))]


def _pick(
    rows: Iterable[tuple[tuple[str, ...], dict[str, Any]]], key: str, scale: float = 1.0
) -> list[tuple[tuple[str, ...], float]]:
    return [(labels, _scaled(one[key], scale)) for labels, one in rows]


def _scaled(value: float | None, scale: float) -> float:
    return (value or 0) * scale


def _gauge(
    name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]
) -> GaugeMetricFamily:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(name, text, labels=labels)
    for of_labels, value in values:
        family.add_metric(of_labels, float(value))
    return family


def _counter(
    name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]
) -> CounterMetricFamily:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(name, text, labels=labels)
    for of_labels, value in values:
        family.add_metric(of_labels, float(value))
    return family
