"""What the supervisor gathers, from a board that a test has written."""

from __future__ import annotations

import time
from typing import Any

import pytest
from msgspec.structs import replace

from edgeq.config.schema import Provider
from edgeq.config.schema_llm import Model, Target
from edgeq.explain.gather import Gatherer
from edgeq.llm.measures import Measures
from edgeq.llm.message import Usage
from tests.observe.test_overview import CONFIG, Bench


def test_a_worker_that_gives_no_sign_of_life_lags() -> None:
    """Its last report says nothing of it, and the next one comes when it is over."""
    bench = Bench()
    try:
        gatherer = Gatherer(bench.board, bench.processes, bench.processes, bench.overview, lambda: CONFIG)
        for slot, age_s in ((0, 0.0), (1, 5.0)):
            bench.tell(slot, max_lag_us=900)
            bench.board.row(slot).beat(time.monotonic_ns() - int(age_s * 1e9), 0, 0, 0)
        for _ in range(3):
            gatherer.look()
        assert gatherer.watch.standing_lag_ms(0) < 1000
        assert gatherer.watch.standing_lag_ms(1) >= 4000
    finally:
        bench.board.close()


def test_what_models_have_answered_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each provider, by model, whatever was asked of it and how it ended: as workers report it."""
    provider = Provider(url="http://g/v1")
    config = replace(CONFIG, provider={"p": provider}, model={"m": Model(targets=(Target(provider="p"),))})
    bench = Bench()
    noted: list[Any] = []
    try:
        gatherer = Gatherer(bench.board, bench.processes, bench.processes, bench.overview, lambda: config)
        monkeypatch.setattr(gatherer.watch, "note_resources", lambda _now, _readings, models, *_: noted.append(models))
        for slot, outcome, operation in ((0, "ok", "chat"), (1, "upstream_timeout", "embeddings")):
            measures = Measures()
            measures.record("m", "p/big", "", Usage(100, 11), 0, 0.05, 1.5, outcome, "", operation)
            bench.tell(slot, llm=measures.told(0.0))
        bench.tell(2, llm=[], left_out=["llm"])  # did not fit
        gatherer.look()
        assert noted[-1]["upstream/p"] == {"big": (2, 3.0)}
    finally:
        bench.board.close()
