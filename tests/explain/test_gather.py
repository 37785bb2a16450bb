"""What the supervisor gathers, from a board that a test has written."""

from __future__ import annotations

import time
from typing import Any

import pytest
from msgspec.structs import replace

from edgeq.board.gcra_table import GcraTable
from edgeq.config.base import Text
from edgeq.config.providers import provider_keys
from edgeq.config.schema import Config, Provider, Route
from edgeq.config.schema_llm import Model, Prompt, PromptMessage, ProviderKey, RouteLlm, Target, TokenLimits
from edgeq.explain.facts import HEARD, Facts
from edgeq.explain.gather import Gatherer
from edgeq.explain.verdict import names
from edgeq.llm.measures import Measures
from edgeq.llm.message import Usage
from edgeq.llm.rests import of_key, way_of
from tests.observe.test_overview import CONFIG, Bench, target


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


def test_limits_of_models_are_known_by_the_word_that_sets_them() -> None:
    """A target's own, a key's, a provider's, a model's, and what the provider has told if that is less; each where
    somebody waits or was refused."""
    few = TokenLimits(tokens_per_minute=600)
    providers = {
        "p": Provider(url="http://g/v1", limits=TokenLimits(tokens_per_minute=100, requests_per_minute=9)),
        "k": Provider(url="http://g/v1", keys=(ProviderKey("x", "a", limits=few), ProviderKey("y", "b"))),
    }
    targets = (Target(provider="p"), Target(provider="k", limits=few))
    models = {"m": Model(targets=targets, limits=few), "n": Model(targets=(Target(provider="k"),))}
    routes = (Route(name="all", llm=RouteLlm()), Route(name="one", llm=RouteLlm(models=("n",))))
    config = replace(CONFIG, provider=providers, model=models, route=routes)
    bench = Bench(config)
    try:
        gatherer = Gatherer(bench.board, bench.processes, bench.processes, bench.overview, lambda: config)
        gatherer.look()
        left = {"tokens": 7}
        now_ns = time.monotonic_ns()
        told = [
            target("p/m", queued=2, remaining=left, heard={"tokens": 50}, oldest_ns=now_ns),
            target("k-a/m", queued=1, remaining=left),
            target("k-a/n", queued=1, remaining=left),
            target("k-b/n", paused_until_ns=now_ns + 10**10, paused_for="upstream_auth"),
            target("k-b/m"),
        ]
        resting = of_key("k-b", way_of(providers["k"], provider_keys(providers["k"])[1]))
        GcraTable(bench.board, 0).delay(resting, now_ns + 10**10)
        asking = {"target/p/m": {"night": 3, "data": 1}, "model/m": {"night": 4}}
        bench.tell(0, targets=told, refusals={"token_limit_shared": {"model/m:tokens": 3}}, asking=asking)
        bench.tell(1, asking={"target/p/m": {"night": 2}}, asking_keys={"target/p/m": {"k1 batch": 2}})
        bench.overview.forget()
        gatherer.look()
        facts = gatherer.facts()
        assert facts.parts["route/all"] == ["model/m", "model/n"]
        assert facts.parts["route/one"] == ["model/n"]
        assert facts.parts["upstream/k-b"] == ["target/k-b/m", "target/k-b/n"]
        gates = {one.resource: one for one in facts.gates}
        assert list(gates) == ["model/m", "target/p/m", "target/k-a/m", "target/k-a/n", "target/k-b/n"]
        assert [one.tenants for one in gates.values()][:3] == [{"night": 4}, {"night": 5, "data": 1}, {}]
        assert [one.keys for one in gates.values()][:3] == [{}, {"k1 batch": 2}, {}]
        assert not facts.has_accounts
        seen = {
            name: [(one.settings, one.key, one.count, one.source, one.can_set) for one in gate.limits]
            for name, gate in gates.items()
        }
        per_minute = "limits.tokens_per_minute"
        assert seen == {
            "model/m": [("model/m", per_minute, 600, "file", True)],
            "target/p/m": [
                ("provider/p", "limits.requests_per_minute", 9, "file", True),
                ("provider/p", per_minute, 50, HEARD, True),
            ],
            "target/k-a/m": [("model/m", f"targets.k.{per_minute}", 600, "file", True)],
            "target/k-a/n": [("provider/k", f"keys[0].{per_minute}", 600, "file", False)],
            "target/k-b/n": [],
        }
        rest = gates["target/k-b/n"].rest
        assert rest is not None
        assert 0 < rest.left_s <= 10
        assert (rest.reason, rest.is_whole_key) == ("upstream_auth", True)
    finally:
        bench.board.close()


def test_a_prompt_is_known() -> None:
    """By its route, and by the model of each of its versions."""
    says = (PromptMessage(role="user", text=Text("hello")),)
    prompts = tuple(
        Prompt(name="sum", path="/p/sum", route="all", messages=says, model=model, version=version)
        for model, version in (("m", "1"), ("n", "2"), ("n", "3"))
    )
    models = {name: Model(targets=(Target(provider="p"),)) for name in ("m", "n")}
    routes = (Route(name="all", llm=RouteLlm()),)
    config = replace(CONFIG, provider={"p": Provider(url="http://g/v1")}, model=models, route=routes, prompt=prompts)
    bench = Bench(config)
    try:
        facts = Gatherer(bench.board, bench.processes, bench.processes, bench.overview, lambda: config).facts()
        assert facts.named["prompt/sum"] == ["model/m", "model/n"]
        assert facts.parts["prompt/sum"] == ["route/all"]
        assert "prompt/sum" in names(facts)
    finally:
        bench.board.close()


def facts_of(config: Config) -> Facts:
    """Of a machine that has done nothing yet."""
    bench = Bench(config)
    try:
        return Gatherer(bench.board, bench.processes, bench.processes, bench.overview, lambda: config).facts()
    finally:
        bench.board.close()


def test_what_of_a_model_is_disabled() -> None:
    """Some of its targets, or all of them; and whether a smaller one answers then."""
    targets = {"big": ("p", "q"), "small": ("q",), "tiny": ("p",), "huge": ("q",)}
    degrades = {"big": "small", "small": "tiny", "huge": "small"}
    models = {
        name: Model(targets=tuple(Target(provider=one) for one in of), degrade=degrades.get(name, ""))
        for name, of in targets.items()
    }
    for p_is_on, smaller, in_its_place in (
        (True, {"model/big": "tiny", "model/small": "tiny", "model/huge": "tiny"}, {}),
        (False, {}, {"model/big": "small or tiny", "model/small": "tiny", "model/huge": "small or tiny"}),
    ):
        providers = {"p": Provider(url="http://g/v1", enabled=p_is_on), "q": Provider(url="http://g/v1", enabled=False)}
        config = replace(CONFIG, provider=providers, model=models)
        facts = facts_of(config)
        assert (facts.smaller, facts.smaller_disabled) == (smaller, in_its_place)
        in_part = {name: [one.name for one in found] for name, found in facts.disabled_part.items()}
        assert in_part == ({"model/big": ["provider/q"]} if p_is_on else {})
        assert [one.name for one in facts.disabled["model/small"]] == ["provider/q"]
