"""What a worker has seen of models: every request counts once, in numbers that only grow and stay bounded."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeq.llm.measures import MAX_SERIES, UNKNOWN_S, Measures, degraded_of
from edgeq.llm.message import Usage
from edgeq.llm.tenants import PERIOD_S, TenantUses


def record(measures: Measures, **more: Any) -> None:
    given: dict[str, Any] = {
        "model": "m",
        "target": "p/m",
        "tenant": "",
        "usage": Usage(100, 11, 40, 0, 5),
        "cost_micro": 7,
        "first_token_s": UNKNOWN_S,
        "duration_s": 1.5,
        "outcome": "ok",
        "cache": "",
        "operation": "chat",
    }
    measures.record(*{**given, **more}.values())


def series(measures: Measures, model: str = "m", target: str = "p/m") -> dict[str, Any]:
    found: dict[str, Any] = measures.told(0.0)["asked"][model][target]["chat"]
    return found


def test_nothing() -> None:
    """Is told as nothing."""
    assert Measures().told(0.0) == {}


def test_a_stream() -> None:
    """Its times, tokens, and cost; the time per token is of those after the first."""
    measures = Measures()
    record(measures, first_token_s=0.5)
    told = series(measures)
    assert (told["first"]["sum"], told["duration"]["ok"]["sum"], told["per_token"]["sum"]) == (0.5, 1.5, 0.1)
    assert (told["input"]["sum"], told["output"]["sum"]) == (100, 11)
    assert (told["cached"], told["reasoning"], told["cost_micro"]) == (40, 5, 7)
    assert told["requests"] == {"ok": {"": 1}}


def test_whole_answers_and_failures() -> None:
    """Without a first token, and without usage where nobody has told it."""
    measures = Measures()
    record(measures)
    record(measures, outcome="upstream_timeout", usage=Usage(), first_token_s=0.1, cost_micro=0)
    told = series(measures)
    assert sum(told["first"]["counts"]) == sum(told["per_token"]["counts"]) == 0
    assert {outcome: sum(one["counts"]) for outcome, one in told["duration"].items()} == {
        "ok": 1,
        "upstream_timeout": 1,
    }
    assert sum(told["input"]["counts"]) == 1
    assert told["requests"] == {"ok": {"": 1}, "upstream_timeout": {"": 1}}


def test_what_came_from_the_cache_has_cost_nothing() -> None:
    """It is counted, and no more."""
    measures = Measures()
    for cache in ("hit", "joined", "miss"):
        record(measures, cache=cache, tenant="t")
    told = series(measures)
    assert told["requests"] == {"ok": {"hit": 1, "joined": 1, "miss": 1}}
    assert (sum(told["duration"]["ok"]["counts"]), told["cost_micro"]) == (1, 7)
    assert measures.told(0.0)["tenants"] == {"t": {"requests": 3, "tokens": 111, "cost_micro": 7}}


def test_series_are_bounded() -> None:
    """The rest is one."""
    measures = Measures()
    for number in range(MAX_SERIES + 10):
        record(measures, model=f"m{number}")
    told = measures.told(0.0)["asked"]
    assert len(told) == MAX_SERIES + 1
    assert told["other"]["other"]["chat"]["requests"] == {"ok": {"": 10}}


def test_what_was_degraded() -> None:
    """By who was asked for, who has answered, and why; bounded as the series are."""
    measures = Measures()
    record(measures)
    for reason in ("queue_full", "queue_full", "circuit_open"):
        measures.degraded("big", "m", reason)
    told = measures.told(0.0)
    assert told["degraded"] == {"big": {"m": {"queue_full": 2, "circuit_open": 1}}}
    assert set(degraded_of(told)) == {("big", "m", "queue_full", 2), ("big", "m", "circuit_open", 1)}
    for number in range(MAX_SERIES + 10):
        measures.degraded(f"m{number}", "m", "queue_full")
    told = measures.told(0.0)["degraded"]
    assert len(told) == MAX_SERIES
    assert told["other"] == {"other": {"queue_full": 12}}


def test_operations_are_told_apart() -> None:
    """An embedding says nothing of how long an answer takes."""
    measures = Measures()
    record(measures)
    record(measures, operation="embeddings")
    assert set(measures.told(0.0)["asked"]["m"]["p/m"]) == {"chat", "embeddings"}


def test_the_busiest_tenants_get_a_place() -> None:
    """Once a minute; what the quietest had used goes to the others."""
    uses = TenantUses(max_tenants=2)
    uses.told(0.0)
    uses.record("first", 10, 1)
    uses.record("second", 1000, 1)
    for _ in range(3):
        uses.record("late", 100, 1)
    uses.record("idle", 1, 1)
    uses.record("other", 1, 1)
    assert set(uses.told(1.0)) == {"first", "second", "other"}
    told = uses.told(PERIOD_S)
    assert set(told) == {"second", "late", "other"}
    assert told["late"] == {"requests": 0, "tokens": 0, "cost_micro": 0}
    assert told["other"] == {"requests": 6, "tokens": 312, "cost_micro": 6}


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 1000), st.floats(0, 100)), max_size=80))
def test_no_use_is_lost(requests: list[tuple[int, int, float]]) -> None:
    """Whoever has a place, the sum is what was used; and places are bounded."""
    uses = TenantUses(max_tenants=3)
    now = 0.0
    for tenant, tokens, passes in requests:
        uses.record(str(tenant), tokens, tokens)
        now += passes
        told = uses.told(now)
        assert len(told) <= 4
    told = uses.told(now)
    assert sum(one["tokens"] for one in told.values()) == sum(tokens for _, tokens, _ in requests)
    assert sum(one["requests"] for one in told.values()) == len(requests)
