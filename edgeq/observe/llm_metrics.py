"""The numbers of models for Prometheus: OpenTelemetry's GenAI metrics by the names that its exporters give them, and
what they do not know: cost, cached tokens, outcomes, tenants.

`told` is what the workers report, made one (llm/measures.py). Labels are names of the configuration, reasons, and names
of a bounded number of tenants. A label of OpenTelemetry's keeps its name; `target` is ours, "provider/model".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from edgeq.llm.measures import DURATION_S, FIRST_TOKEN_S, PER_TOKEN_S, TOKENS

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_LABELS: Final = ("gen_ai_request_model", "target")
_TIMES: Final = (
    ("gen_ai_server_request_duration_seconds", "From the request to the last byte.", "duration", DURATION_S),
    ("gen_ai_server_time_to_first_token_seconds", "Of streams that went well.", "first", FIRST_TOKEN_S),
    ("gen_ai_server_time_per_output_token_seconds", "After the first one.", "per_token", PER_TOKEN_S),
)
_PARTS: Final = ("cached", "cache_write", "reasoning")


def llm_metrics(told: Mapping[str, Any]) -> Iterator[Metric]:
    """Nothing if no model was asked."""
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    series = [((model, target), one) for model, of in told.get("models", {}).items() for target, one in of.items()]
    if not series:
        return
    asked = [(labels, one) for labels, one in series if any(one["duration"]["counts"])]
    for name, text, key, bounds in _TIMES:
        times = HistogramMetricFamily(name, text, labels=_LABELS)
        for labels, one in asked:
            times.add_metric(labels, _buckets(one[key]["counts"], bounds), one[key]["sum"])
        yield times
    usage = HistogramMetricFamily(
        "gen_ai_client_token_usage", "Tokens of a request.", labels=(*_LABELS, "gen_ai_token_type")
    )
    tokens = CounterMetricFamily(
        "edgeq_llm_tokens", "Parts of input (cached, cache_write) and output (reasoning).", labels=(*_LABELS, "part")
    )
    cost = CounterMetricFamily("edgeq_llm_cost", "In the currency of the prices.", labels=_LABELS)
    requests = CounterMetricFamily(
        "edgeq_llm_requests", "By outcome, and by what the prompt cache was.", labels=(*_LABELS, "outcome", "cache")
    )
    for labels, one in asked:
        for kind in ("input", "output"):
            usage.add_metric((*labels, kind), _buckets(one[kind]["counts"], TOKENS), one[kind]["sum"])
        for part in _PARTS:
            tokens.add_metric((*labels, part), one[part])
        cost.add_metric(labels, one["cost_micro"] / 1e6)
    for labels, one in series:
        for outcome, by_cache in one["requests"].items():
            for cache, count in by_cache.items():
                requests.add_metric((*labels, outcome, cache), count)
    yield usage
    yield tokens
    yield cost
    yield requests
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


def _buckets(counts: list[int], bounds: tuple[float, ...]) -> list[tuple[str, float]]:
    """Cumulative, by upper bound."""
    found: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip(bounds, counts, strict=False):
        total += count
        found.append((repr(float(bound)), total))
    return [*found, ("+Inf", total + counts[-1])]
