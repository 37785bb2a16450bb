"""A smaller model in place of one that has no room: what counts as none, who may get it, and how it is told."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from tests.llm.gateway.support import CHAT, Stand, ask_for
from tests.support import demo_llm, gateway
from tests.support.raw_client import Answer
from tests.support.scripted_upstream import ScriptedUpstream

ONE: Final = {"requests_per_minute": 1}
"""Who has been asked once has no room for a minute."""
FULL: Final = ("big", "capped", "spent")
MODELS: Final[dict[str, Any]] = {
    "small": {"targets": [{"provider": "demo", "model": "mock/tokens=5,tag=small"}]},
    "free": {"targets": [{"provider": "demo", "model": "mock/tokens=5"}], "aliases": ["free-latest"]},
    "big": {"targets": [{"provider": "tight", "model": "mock/tokens=5,tag=big"}]},
    "capped": {"targets": [{"provider": "demo", "model": "mock/tokens=5,tag=capped"}], "limits": ONE},
    "spent": {
        "targets": [{"provider": "demo", "model": "mock/tokens=50,tag=spent", "price": {"input": 1e6, "output": 1e6}}],
        "limits": {"money_per_day": 260.0},
    },
    "dearer": {
        "targets": [
            {"provider": "demo", "model": "mock/error=503,tag=cheap", "price": {"input": 1, "output": 1}},
            {"provider": "demo", "model": "mock/tokens=5,tag=dear", "price": {"input": 1e6, "output": 1e6}},
        ]
    },
    "wordless": {
        "targets": [
            {"provider": "claude", "model": "mock/tokens=5,tag=cheap", "price": {"input": 1, "output": 1}},
            {"provider": "demo", "model": "mock/tokens=5,tag=dear", "price": {"input": 1e6, "output": 1e6}},
        ]
    },
}


@pytest.fixture(scope="module")
def degrading() -> Iterator[Stand]:
    """Three models that are soon full, each in its own way, with keys that may use some of them."""
    with demo_llm.running() as demo, ScriptedUpstream() as scripted, tempfile.TemporaryDirectory() as name:
        admin = str(Path(name) / "admin.sock")
        url = f"{demo.url}/v1"
        tables: dict[str, Any] = {
            "accounts": {"store": str(Path(name) / "accounts.sqlite"), "flush": 0.05},
            "provider": {
                "demo": {"url": url, "keys": ["sk-demo"]},
                "claude": {"url": demo.url, "dialect": "anthropic", "keys": ["sk-claude"]},
                "tight": {"url": url, "keys": ["sk-tight"], "limits": ONE, "wait": "1s"},
            },
            "model": {one: {**MODELS[one], **({"degrade": "small"} if one in FULL else {})} for one in MODELS},
            "route": [
                {"name": "all", "match": {"path": "/v1/*"}, "llm": {}},
                {"name": "strict", "match": {"path": "/strict/*"}, "llm": {"mode": "strict"}},
                {"name": "large", "match": {"path": "/large/*"}, "llm": {"models": [*FULL, "free"]}},
            ],
        }
        settings = gateway.Settings(extra={"server": {"admin": admin}, **tables})
        with gateway.running(demo.port, settings) as found:
            found.wait_event("serving")
            yield Stand(found, demo, scripted, tables, admin)


TENANTS: Final = (f"tenant-{number}" for number in count())


def key(stand: Stand, models: str = "") -> str:
    """A new key, of a new tenant: for these models, or all."""
    status, made = stand.admin("POST", f"/v1/keys?tenant={next(TENANTS)}&models={models}")
    assert status == 200, made
    return str(made["key"])


def ask(stand: Stand, secret: str, model: str, path: str = CHAT) -> Answer:
    """A long answer is allowed, so that money is short once one has been paid."""
    return stand.ask(ask_for(model), path, fields={"authorization": f"Bearer {secret}"})


@pytest.mark.parametrize("model", FULL)
def test_whatever_is_short(degrading: Stand, model: str) -> None:
    """Room at its targets, or of the model's own limits: the smaller one answers, and head, log and usage say so. Not
    where the key may not use it, or the route does not serve it."""
    anybody = key(degrading)
    since = len(degrading.gateway.log_lines())
    first = ask(degrading, anybody, model)
    assert (first.status, first.get(b"x-edgeq-model")) == (200, None), first
    second = ask(degrading, anybody, model)
    assert (second.status, second.get(b"x-edgeq-model")) == (200, b"small"), second
    assert second.get(b"x-edgeq-target") == b"demo/mock/tokens=5,tag=small"
    lines = degrading.wait_log(lambda one: one.get("gen_ai.request.model") == model, since, 2)
    assert [line.get("edgeq.model") for line in lines] == [None, "small"]

    for secret, path in ((key(degrading, model), CHAT), (anybody, "/large/chat/completions")):
        refused = ask(degrading, secret, model, path)
        assert (refused.status, refused.get(b"x-edgeq-model")) == (503, None), (path, refused)
    allowed = ask(degrading, key(degrading, f"{model},small"), model)
    assert (allowed.status, allowed.get(b"x-edgeq-model")) == (200, b"small")
    degrading.wait_idle()


def test_a_budget_holds_for_the_next_target_as_well(degrading: Stand) -> None:
    """One that is dearer than who was asked first is asked if there is money for it, and else passed over."""
    for per_day, status in (("100", 503), ("1000", 200)):
        _, made = degrading.admin("POST", f"/v1/keys?tenant={next(TENANTS)}&per-day={per_day}")
        answer = ask(degrading, str(made["key"]), "dearer")
        assert answer.status == status, (per_day, answer)
    degrading.wait_idle()


def test_a_budget_holds_where_the_first_target_does_not_know_a_word(degrading: Stand) -> None:
    """The next one that does is asked if there is money for it."""
    for per_day, status in (("100", 400), ("1000", 200)):
        _, made = degrading.admin("POST", f"/v1/keys?tenant={next(TENANTS)}&per-day={per_day}")
        fields = {"authorization": f"Bearer {made['key']}"}
        answer = degrading.ask({**ask_for("wordless"), "seed": 7}, "/strict/chat/completions", fields=fields)
        assert answer.status == status, (per_day, answer)
    degrading.wait_idle()


def test_a_route_serves_the_aliases_of_its_models(degrading: Stand) -> None:
    """Of those that it names, and no others; the key may name either."""
    for models in ("", "free", "free-latest"):
        secret = key(degrading, models)
        for path in (CHAT, "/large/chat/completions"):
            assert ask(degrading, secret, "free-latest", path).status == 200, (models, path)
    assert ask(degrading, key(degrading), "small", "/large/chat/completions").status == 404
