"""The numbers of models for Prometheus: OpenTelemetry's GenAI metrics by the names that its exporters give them, and
what they do not know: cost, cached tokens, outcomes, tenants.

`told` is what the workers report, made one (llm/measures.py). Labels are names of the configuration, reasons, and names
of a bounded number of tenants. A label of OpenTelemetry's keeps its name; `target` is ours, "provider/model".

Source: OpenTelemetry, gen-ai-metrics.md: gen_ai.operation.name and gen_ai.provider.name are required, and error.type
of an operation that has failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from edgeq.llm.measures import DURATION_S, FIRST_TOKEN_S, OK, PER_TOKEN_S, TOKENS, asked_of, degraded_of
from edgeq.llm.meter import KINDS, MODEL
from edgeq.observe.models import DISABLED, READY, SHORT, SPENT
from edgeq.observe.reports import Records, merged

if TYPE_CHECKING:
    from prometheus_client.core import HistogramMetricFamily, Metric

RESTS: Final = "rests"
STATES: Final = (READY, SHORT, RESTS, DISABLED)
"""Of a target; why it rests `edgeq show models` says."""
_LABELS: Final = ("gen_ai_request_model", "target")
_OTEL: Final = ("gen_ai_operation_name", "gen_ai_provider_name", *_LABELS)
_DURATION: Final = "gen_ai_server_request_duration_seconds"
_TIMES: Final = (
    ("gen_ai_server_time_to_first_token_seconds", "Of streams that went well.", "first", FIRST_TOKEN_S),
    ("gen_ai_server_time_per_output_token_seconds", "After the first one.", "per_token", PER_TOKEN_S),
)
_PARTS: Final = ("cached", "cache_write", "reasoning")


def llm_metrics(told: Mapping[str, Any], providers: Mapping[str, str]) -> Iterator[Metric]:
    """Nothing if no model was asked. `providers`: gen_ai.provider.name of each target that there is now."""
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    series = [
        ((operation, providers.get(target, ""), model, target), one) for model, target, operation, one in asked_of(told)
    ]
    if not series:
        return
    asked = [(labels, one) for labels, one in series if one["duration"]]
    times = HistogramMetricFamily(_DURATION, "From the request to the last byte.", labels=(*_OTEL, "error_type"))
    for labels, one in asked:
        for outcome, took in one["duration"].items():
            _add(times, (*labels, "" if outcome == OK else outcome), took, DURATION_S)
    yield times
    for name, text, key, bounds in _TIMES:
        times = HistogramMetricFamily(name, text, labels=_OTEL)
        for labels, one in asked:
            _add(times, labels, one[key], bounds)
        yield times
    usage = HistogramMetricFamily("gen_ai_client_token_usage", "Tokens.", labels=(*_OTEL, "gen_ai_token_type"))
    for labels, one in asked:
        for kind in ("input", "output"):
            _add(usage, (*labels, kind), one[kind], TOKENS)
    yield usage
    yield from _own(series)
    degraded = CounterMetricFamily(
        "edgeq_llm_degraded",
        "Requests for a model that a smaller one was asked in place of, by why.",
        labels=("gen_ai_request_model", "answered_by", "reason"),
    )
    for asked_for, model, reason, count in degraded_of(told):
        degraded.add_metric((asked_for, model, reason), count)
    yield degraded
    tenants = told.get("tenants", {})
    for name, text, key, scale in (
        ("edgeq_llm_tenant_requests", "Of the busiest tenants.", "requests", 1.0),
        ("edgeq_llm_tenant_tokens", "Input and output.", "tokens", 1.0),
        ("edgeq_llm_tenant_cost", "In the currency of the prices.", "cost_micro", 1e-6),
    ):
        family = CounterMetricFamily(name, text, labels=("tenant",))
        for tenant, use in tenants.items():
            family.add_metric((tenant,), use[key] * scale)
        yield family


def state_metrics(models: Records, meters: Records) -> Iterator[Metric]:
    """Who would answer now, and what is left, also before anybody asks; of `Overview.models` and `meters`. Limits of
    callers are left out: the number of series does not depend on clients."""
    from prometheus_client.core import GaugeMetricFamily

    if not models:
        return
    text = "1 for the state that a target at a key of its provider is in."
    states = GaugeMetricFamily("edgeq_llm_target_state", text, labels=(*_LABELS, "state"))
    for (model, target), state in {(one["model"], one["target"]): one["state"] for one in models}.items():
        for name in STATES:
            states.add_metric((model, target, name), float(name == (state if state in STATES else RESTS)))
    yield states
    text = "Of a limit of a model, or its budget."
    left = GaugeMetricFamily("edgeq_llm_limit_left_ratio", text, labels=("gen_ai_request_model", "limit"))
    for one in meters:
        if one["meter"] == KINDS[MODEL]:
            for what, count in one["limits"].items():
                rest = one["remaining"].get(what)
                if what in SPENT:
                    rest = count - (one[SPENT[what]] or 0.0)
                if count and rest is not None:
                    left.add_metric((one["name"], what), max(0.0, rest / count))
    yield left


def _own(series: Iterable[tuple[tuple[str, str, str, str], Mapping[str, Any]]]) -> Iterator[Metric]:
    """What OpenTelemetry has no name for, of all operations together."""
    from prometheus_client.core import CounterMetricFamily

    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for (_operation, _provider, model, target), one in series:
        found[model, target] = merged(found.get((model, target), {}), one)
    tokens = CounterMetricFamily(
        "edgeq_llm_tokens", "Parts of input (cached, cache_write) and output (reasoning).", labels=(*_LABELS, "part")
    )
    cost = CounterMetricFamily("edgeq_llm_cost", "In the currency of the prices.", labels=_LABELS)
    requests = CounterMetricFamily(
        "edgeq_llm_requests", "By outcome, and by what the prompt cache was.", labels=(*_LABELS, "outcome", "cache")
    )
    for labels, one in found.items():
        if one["duration"]:
            for part in _PARTS:
                tokens.add_metric((*labels, part), one[part])
            cost.add_metric(labels, one["cost_micro"] / 1e6)
        for outcome, by_cache in one["requests"].items():
            for cache, count in by_cache.items():
                requests.add_metric((*labels, outcome, cache), count)
    yield tokens
    yield cost
    yield requests


def _add(
    family: HistogramMetricFamily, labels: Sequence[str], told: Mapping[str, Any], bounds: tuple[float, ...]
) -> None:
    """One histogram, if anything was ever counted in it: each is some 3 KB, and a model that only fails, or streams
    never, would have several that say nothing."""
    counts = told["counts"]
    if any(counts):
        family.add_metric(labels, _buckets(counts, bounds), told["sum"])


def _buckets(counts: list[int], bounds: tuple[float, ...]) -> list[tuple[str, float]]:
    """Cumulative, by upper bound."""
    found: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip(bounds, counts, strict=False):
        total += count
        found.append((repr(float(bound)), total))
    return [*found, ("+Inf", total + counts[-1])]
