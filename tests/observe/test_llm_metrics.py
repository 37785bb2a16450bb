"""The numbers of models on their way from workers to a scraper; those of the dead stay."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from edgeq.board.gcra_table import GcraTable
from edgeq.config.providers import otel_names, provider_keys
from edgeq.config.schema import Config, Provider
from edgeq.config.schema_llm import Model, ProviderKey, Target
from edgeq.llm.measures import Measures
from edgeq.llm.message import Usage
from edgeq.llm.rests import TIMES, of_target, way_of
from edgeq.observe.llm_metrics import STATES
from edgeq.observe.metrics import Metrics
from edgeq.observe.overview import Overview
from edgeq.observe.reports import merged
from tests.observe.test_overview import CONFIG, Bench, target

pytest.importorskip("prometheus_client")

MODELS = replace(
    CONFIG,
    provider={"p": Provider(url="http://g/v1beta", dialect="gemini")},
    model={"m": Model(targets=(Target(provider="p"),))},
)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.board.close()


def measures(requests: int) -> Measures:
    made = Measures()
    for _ in range(requests):
        made.record("m", "p/m", "acme", Usage(100, 11), 500_000, 0.05, 1.05, "ok", "", "chat")
    return made


def exposed(bench: Bench, media: str = "", config: Config = CONFIG) -> str:
    overview = Overview(bench.board, bench.processes, bench.processes, lambda: config)
    return Metrics(bench.board, overview, 1, True, {}).expose(media)[1].decode()


def value(text: str, name: str, **labels: str) -> float:
    """Of one series; of "m" at "p/m" unless it is a tenant's, and of a chat if it is OpenTelemetry's."""
    if "tenant" not in labels:
        labels = {"gen_ai_request_model": "m", "target": "p/m", **labels}
    if name.startswith("gen_ai"):
        labels = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "", **labels}
    series = name + "{" + ",".join(f'{key}="{labels[key]}"' for key in sorted(labels)) + "}"
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    assert found is not None, series
    return float(found[1])


def test_without_models_there_is_nothing(bench: Bench) -> None:
    """Of them."""
    assert "gen_ai" not in exposed(bench)


def test_workers_are_added_and_the_dead_stay(bench: Bench) -> None:
    """By OpenTelemetry's names."""
    bench.tell(0, llm=measures(2).told(0.0))
    bench.tell(1, llm=measures(3).told(0.0))
    bench.tell(2, refusals={}, llm=[], left_out=["llm"])
    first = "gen_ai_server_time_to_first_token_seconds"
    for _ in range(2):
        text = exposed(bench)
        assert value(text, f"{first}_count") == 5
        assert [value(text, f"{first}_bucket", le=bound) for bound in ("0.04", "0.06", "+Inf")] == [0, 5, 5]
        assert value(text, "gen_ai_server_request_duration_seconds_sum", error_type="") == pytest.approx(5.25)
        assert value(text, "gen_ai_server_time_per_output_token_seconds_sum") == pytest.approx(0.5)
        assert value(text, "gen_ai_client_token_usage_sum", gen_ai_token_type="input") == 500
        assert value(text, "edgeq_llm_cost_total") == 2.5
        assert value(text, "edgeq_llm_requests_total", outcome="ok", cache="") == 5
        assert value(text, "edgeq_llm_tenant_tokens_total", tenant="acme") == 555
        if 1 in bench.processes.slots:
            bench.bury(1)
    assert "# EOF" in exposed(bench, "application/openmetrics-text; version=1.0.0")


def test_who_is_asked_for_what(bench: Bench) -> None:
    """Each operation and each failure has times of its own; what has no name of OpenTelemetry's is their sum."""
    made = measures(2)
    made.record("m", "p/m", "", Usage(8, 0), 100_000, -1.0, 0.2, "ok", "miss", "embeddings")
    made.record("m", "p/m", "", Usage(), 0, -1.0, 9.0, "upstream_timeout", "", "chat")
    bench.tell(0, llm=made.told(0.0))
    text = exposed(bench, config=MODELS)
    took = "gen_ai_server_request_duration_seconds_sum"
    by = {"gen_ai_provider_name": "gcp.gemini"}
    assert value(text, took, error_type="", **by) == pytest.approx(2.1)
    assert value(text, took, error_type="upstream_timeout", **by) == 9
    assert value(text, took, error_type="", gen_ai_operation_name="embeddings", **by) == pytest.approx(0.2)
    assert value(text, "edgeq_llm_cost_total") == pytest.approx(1.1)
    assert value(text, "edgeq_llm_requests_total", outcome="ok", cache="") == 2
    assert value(text, "edgeq_llm_requests_total", outcome="ok", cache="miss") == 1


def test_what_was_never_counted_is_not_printed(bench: Bench) -> None:
    """A model that only fails has no tokens and no first one, and one that never streams no first one: each of these
    would be some 17 lines of zeros. What has been counted is all there."""
    made = Measures()
    made.record("m", "p/m", "", Usage(), 0, -1.0, 9.0, "upstream_timeout", "", "chat")
    made.record("n", "p/n", "", Usage(100, 11), 0, -1.0, 1.0, "ok", "", "chat")
    made.record("s", "p/s", "", Usage(100, 11), 0, 0.1, 1.0, "ok", "", "chat")
    bench.tell(0, llm=made.told(0.0))
    found = re.findall(r'^(gen_ai_\w+)_count{.*gen_ai_request_model="(\w)"', exposed(bench), re.MULTILINE)
    duration, usage = "gen_ai_server_request_duration_seconds", "gen_ai_client_token_usage"
    first, rest = "gen_ai_server_time_to_first_token_seconds", "gen_ai_server_time_per_output_token_seconds"
    assert sorted(found) == sorted(
        [(duration, one) for one in "mns"] + [(usage, one) for one in "nnss"] + [(first, "s"), (rest, "s")]
    )


def test_what_smaller_models_have_answered(bench: Bench) -> None:
    """Of all workers, by who was asked for, who has answered, and why."""
    for slot in range(2):
        made = measures(1)
        made.degraded("big", "m", "queue_full")
        made.degraded("big", "m", "circuit_open")
        bench.tell(slot, llm=made.told(0.0))
    told = re.findall(r"^edgeq_llm_degraded_total{(.*)} (\S+)$", exposed(bench, config=MODELS), re.MULTILINE)
    labels = 'answered_by="m",gen_ai_request_model="big",reason='
    assert dict(told) == {f'{labels}"queue_full"': "2.0", f'{labels}"circuit_open"': "2.0"}


def test_who_would_answer_now(bench: Bench) -> None:
    """Of each target at each key, also before anybody asks: it is in one state, and the others are told as 0."""
    keys = (ProviderKey(key="x", name="a"), ProviderKey(key="y", name="b"))
    providers = {"p": Provider(url="http://g/v1"), "k": Provider(url="http://g/v1", keys=keys, disabled={"k-b": True})}
    targets = (Target(provider="p"), Target(provider="k", model="big"), Target(provider="p"))
    config = replace(CONFIG, provider=providers, model={"m": Model(targets=targets)})
    now_ns = time.monotonic_ns()
    paused = target("k-a/big", paused_until_ns=now_ns + 10**11, paused_for="upstream_rate_limit")
    GcraTable(bench.board, 0).delay(of_target("k-a/big", way_of(providers["k"], keys[0])), now_ns + 10**11)
    failing, place = (
        GcraTable(bench.board, 0),
        of_target("p/m", way_of(providers["p"], provider_keys(providers["p"])[0])),
    )
    failing.delay(place, now_ns - 10**9 & ~TIMES | 2)
    bench.tell(0, targets=[target("p/m", fails_by="upstream_timeout"), paused])
    bench.overview.forget()
    text = exposed(bench, config=config)
    assert value(text, "edgeq_llm_target_state", target="p/m", state="rests") == 1, "until a good answer comes"
    failing.hasten(place, now_ns - 10**9 & ~TIMES)
    bench.overview.forget()
    text = exposed(bench, config=config)
    found = {
        name: [one for one in STATES if value(text, "edgeq_llm_target_state", target=name, state=one)]
        for name in ("p/m", "k-a/big", "k-b/big")
    }
    assert found == {"p/m": ["ready"], "k-a/big": ["rests"], "k-b/big": ["disabled"]}
    assert text.count("\nedgeq_llm_target_state{") == 3 * len(STATES)


def test_what_is_left_of_the_limits_of_a_model(bench: Bench) -> None:
    """As a part of each; of callers' limits nothing, as clients would make series."""
    limits = {"tokens": 1000, "requests": 0, "per_day": 10.0}
    meter = {"limits": limits, "remaining": {"tokens": 250}, "spent_day": 9.0, "spent_month": 9.0}
    for kind, name in (("model", "m"), ("key", "somebody")):
        told = {"meter": kind, "name": name, "in_flight": 0, "refused": 0, **meter}
        bench.tell(0 if kind == "model" else 1, meters=[told])
    text = exposed(bench, config=MODELS)
    series = r'^edgeq_llm_limit_left_ratio{gen_ai_request_model="m",limit="(\w+)"} (\S+)$'
    left = dict(re.findall(series, text, re.MULTILINE))
    assert {name: float(one) for name, one in left.items()} == {"tokens": 0.25, "per_day": pytest.approx(0.1)}
    assert "somebody" not in text


def test_providers_have_the_names_of_opentelemetry() -> None:
    """As far as they can be told."""
    azure = Provider(url="https://a.openai.azure.com/openai/v1", keys=("x", ProviderKey(key="y", name="b")))
    claude = Provider(url="http://c/v1", dialect="anthropic")
    targets = (Target(provider="az", model="gpt"), Target(provider="c"), Target(provider="own", model="llama"))
    config = Config(
        listener=(),
        provider={"az": azure, "c": claude, "own": Provider(url="http://vllm/v1")},
        model={"m": Model(targets=targets)},
    )
    azures = {"az-1/gpt": "azure.ai.openai", "az-b/gpt": "azure.ai.openai"}
    assert otel_names(config) == {**azures, "c/m": "anthropic", "own/llama": "openai"}


def test_merged() -> None:
    """Two documents of one shape."""
    one = {"a": 1, "b": {"x": [1, 2]}, "only": {"y": 1}}
    other = {"a": 2, "b": {"x": [10, 20], "z": 1}, "more": 5}
    assert merged(one, other) == {"a": 3, "b": {"x": [11, 22], "z": 1}, "only": {"y": 1}, "more": 5}
    assert one == {"a": 1, "b": {"x": [1, 2]}, "only": {"y": 1}}
    assert merged([1, 2], [1, 2, 3]) == [1, 2, 3]
