"""The numbers of models on their way from workers to a scraper; those of the dead stay."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from edgeq.llm.measures import Measures
from edgeq.llm.message import Usage
from edgeq.observe.metrics import Metrics
from edgeq.observe.overview import Overview
from edgeq.observe.reports import merged
from tests.observe.test_overview import CONFIG, Bench

pytest.importorskip("prometheus_client")


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.board.close()


def measures(requests: int) -> Measures:
    made = Measures()
    for _ in range(requests):
        made.record("m", "p/m", "acme", Usage(100, 11), 500_000, 0.05, 1.05, "ok", "")
    return made


def exposed(bench: Bench, media: str = "") -> str:
    overview = Overview(bench.board, bench.processes, bench.processes, lambda: CONFIG)
    return Metrics(bench.board, overview, 1, True, {}).expose(media)[1].decode()


def value(text: str, name: str, **labels: str) -> float:
    """Of one series; of "m" at "p/m" unless it is a tenant's."""
    if "tenant" not in labels:
        labels = {"gen_ai_request_model": "m", "target": "p/m", **labels}
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
        assert value(text, "gen_ai_server_request_duration_seconds_sum") == pytest.approx(5.25)
        assert value(text, "gen_ai_server_time_per_output_token_seconds_sum") == pytest.approx(0.5)
        assert value(text, "gen_ai_client_token_usage_sum", gen_ai_token_type="input") == 500
        assert value(text, "edgeq_llm_cost_total") == 2.5
        assert value(text, "edgeq_llm_requests_total", outcome="ok", cache="") == 5
        assert value(text, "edgeq_llm_tenant_tokens_total", tenant="acme") == 555
        if 1 in bench.processes.slots:
            bench.bury(1)
    assert "# EOF" in exposed(bench, "application/openmetrics-text; version=1.0.0")


def test_merged() -> None:
    """Two documents of one shape."""
    one = {"a": 1, "b": {"x": [1, 2]}, "only": {"y": 1}}
    other = {"a": 2, "b": {"x": [10, 20], "z": 1}, "more": 5}
    assert merged(one, other) == {"a": 3, "b": {"x": [11, 22], "z": 1}, "only": {"y": 1}, "more": 5}
    assert one == {"a": 1, "b": {"x": [1, 2]}, "only": {"y": 1}}
    assert merged([1, 2], [1, 2, 3]) == [1, 2, 3]
