"""What a worker has seen of models: requests, tokens, money and times, by public model, target and operation; tenants
apart.

Buckets are those that OpenTelemetry recommends for its GenAI metrics, so that what is written here is what a scraper
gets (observe/llm_metrics.py). What came from the prompt cache, or was joined, is counted and no more: it says nothing
of a target, and has cost nothing.

Everything is bounded: series by the configuration and MAX_SERIES, tenants by `tenants.py`. All numbers only grow.

Source: OpenTelemetry, semantic-conventions-genai, gen-ai-metrics.md (status: development).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from edgeq.llm.tenants import TenantUses
from edgeq.observe.refusals import OTHER

if TYPE_CHECKING:
    from edgeq.llm.message import Usage

TOKENS: Final[tuple[float, ...]] = (
    1,
    4,
    16,
    64,
    256,
    1024,
    4096,
    16384,
    65536,
    262144,
    1048576,
    4194304,
    16777216,
    67108864,
)
DURATION_S: Final[tuple[float, ...]] = (
    0.01,
    0.02,
    0.04,
    0.08,
    0.16,
    0.32,
    0.64,
    1.28,
    2.56,
    5.12,
    10.24,
    20.48,
    40.96,
    81.92,
)
FIRST_TOKEN_S: Final[tuple[float, ...]] = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
)
PER_TOKEN_S: Final[tuple[float, ...]] = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)

# Of any length, as mypyc has it: it takes one of known length that begins with a float for not set (mypy 2.4).

MAX_SERIES: Final = 64
"""Of model, target and operation; the rest is one for each operation, OTHER."""
UNKNOWN_S: Final = -1.0

OK: Final = "ok"
HIT: Final = "hit"
JOINED: Final = "joined"


class Distribution:
    """Counts by bucket, the last one without a bound, and the sum."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts: list[int] = [0] * (len(bounds) + 1)
        self.total: float = 0.0

    def record(self, value: float) -> None:
        """One value."""
        bucket = 0
        for bound in self._bounds:  # compiled, a tenth of what a call of bisect_left costs
            if value <= bound:
                break
            bucket += 1
        self.counts[bucket] += 1
        self.total += value

    def told(self) -> dict[str, Any]:
        """For the report."""
        return {"counts": self.counts, "sum": self.total}


class Series:
    """One operation (chat, embeddings) of one model at one target."""

    __slots__ = (
        "cache_write",
        "cached",
        "cost_micro",
        "duration",
        "first",
        "input",
        "output",
        "per_token",
        "reasoning",
        "requests",
    )

    def __init__(self) -> None:
        self.first = Distribution(FIRST_TOKEN_S)
        self.per_token = Distribution(PER_TOKEN_S)
        self.duration: dict[str, Distribution] = {}
        """By outcome: what fails takes another time."""
        self.input = Distribution(TOKENS)
        self.output = Distribution(TOKENS)
        self.cached: int = 0
        self.cache_write: int = 0
        self.reasoning: int = 0
        self.cost_micro: int = 0
        self.requests: dict[str, dict[str, int]] = {}
        """By outcome ("ok", or a reason of the vocabulary) and what the cache was ("", "hit", "miss", "joined")."""

    def told(self) -> dict[str, Any]:
        """For the report."""
        return {
            "first": self.first.told(),
            "per_token": self.per_token.told(),
            "duration": {outcome: one.told() for outcome, one in self.duration.items()},
            "input": self.input.told(),
            "output": self.output.told(),
            "cached": self.cached,
            "cache_write": self.cache_write,
            "reasoning": self.reasoning,
            "cost_micro": self.cost_micro,
            "requests": self.requests,
        }


class Measures:
    """All of a worker."""

    __slots__ = ("_degraded", "_series", "_tenants")

    def __init__(self) -> None:
        self._degraded: dict[tuple[str, str, str], int] = {}
        self._series: dict[tuple[str, str, str], Series] = {}
        self._tenants: TenantUses = TenantUses()

    def record(
        self,
        model: str,
        target: str,
        tenant: str,
        usage: Usage,
        cost_micro: int,
        first_token_s: float,
        duration_s: float,
        outcome: str,
        cache: str,
        operation: str,
    ) -> None:
        """A request has ended.

        Args: model is the public name, target "provider/model" (empty: it reached none); tenant: a name of the
        operator's (never a credential), empty for none; cost in millionths of the currency; first_token_s of a stream,
        else UNKNOWN_S; outcome and cache as in `Series.requests`; operation: OpenTelemetry's word for it.
        """
        series = self._find(model, target, operation)
        of_outcome = series.requests.setdefault(outcome, {})
        of_outcome[cache] = of_outcome.get(cache, 0) + 1
        if cache in (HIT, JOINED):
            if tenant:
                self._tenants.record(tenant, 0, 0)
            return
        times = series.duration.get(outcome)
        if times is None:
            times = series.duration[outcome] = Distribution(DURATION_S)
        times.record(duration_s)
        if outcome == OK and first_token_s >= 0.0:
            series.first.record(first_token_s)
            if usage.output > 1:
                series.per_token.record(max(0.0, duration_s - first_token_s) / (usage.output - 1))
        if usage.input >= 0:
            series.input.record(usage.input)
        if usage.output >= 0:
            series.output.record(usage.output)
        series.cached += usage.cached
        series.cache_write += usage.cache_write
        series.reasoning += usage.reasoning
        series.cost_micro += cost_micro
        if tenant:
            self._tenants.record(tenant, max(0, usage.input) + max(0, usage.output), cost_micro)

    def degraded(self, asked: str, model: str, reason: str) -> None:
        """One of these was answered by `model` in place of the one that was asked for; both are public names, and
        reason is a token of `edgeq.reasons`."""
        counts = self._degraded
        key = (asked, model, reason)
        if key not in counts and len(counts) >= MAX_SERIES:
            key = (OTHER, OTHER, reason)
        counts[key] = counts.get(key, 0) + 1

    def _find(self, model: str, target: str, operation: str) -> Series:
        key = (model, target, operation)
        series = self._series.get(key)
        if series is None:
            if len(self._series) >= MAX_SERIES:
                key = (OTHER, OTHER, operation)
                series = self._series.get(key)
            if series is None:
                series = Series()
                self._series[key] = series
        return series

    def told(self, now: float) -> dict[str, Any]:
        """For the report: {"asked": {model: {target: {operation: numbers}}}, "tenants": {tenant: numbers}, "degraded":
        {asked: {model: {reason: count}}}}; empty if nothing was recorded."""
        if not self._series:
            return {}
        asked: dict[str, dict[str, dict[str, Any]]] = {}
        for (model, target, operation), series in self._series.items():
            asked.setdefault(model, {}).setdefault(target, {})[operation] = series.told()
        degraded: dict[str, dict[str, dict[str, int]]] = {}
        for (one, model, reason), count in self._degraded.items():
            degraded.setdefault(one, {}).setdefault(model, {})[reason] = count
        return {"asked": asked, "tenants": self._tenants.told(now), "degraded": degraded}


def degraded_of(told: Mapping[str, Any]) -> Iterator[tuple[str, str, str, int]]:
    """What `Measures.told` says of degraded requests: which model was asked, which has answered, why, and how many."""
    for asked, models in told.get("degraded", {}).items():
        for model, reasons in models.items():
            for reason, count in reasons.items():
                yield asked, model, reason, count


def asked_of(told: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """What `Measures.told` says of each model, target and operation: these three, and its numbers."""
    for model, targets in told.get("asked", {}).items():
        for target, operations in targets.items():
            for operation, numbers in operations.items():
                yield model, target, operation, numbers
