"""A prompt promises JSON, and its model writes something else: whose fault is that, and who pays?"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.llm.gateway.support import MESSAGES, Stand, ask_for
from tests.support import demo_llm, gateway
from tests.support.scripted_upstream import ScriptedUpstream


@pytest.fixture(scope="module")
def prosaic() -> Iterator[Stand]:
    """A model that repeats what it is told, and prompts that want JSON of it: one with a cache, one that is cut."""
    with demo_llm.running() as demo, ScriptedUpstream() as scripted, tempfile.TemporaryDirectory() as name:
        admin = str(Path(name) / "admin.sock")
        price = {"input": 100.0, "output": 100.0}
        prompt = {
            "route": "all",
            "model": "shared",
            "answer": "json",
            "messages": [{"role": "user", "text": "{{text}}"}],
            "variables": {"text": {}},
        }
        tables: dict[str, Any] = {
            "accounts": {"store": str(Path(name) / "accounts.sqlite"), "flush": 0.05},
            "provider": {"demo": {"url": f"{demo.url}/v1", "keys": ["sk-demo"], "breaker": {"min_requests": 2}}},
            "model": {
                "shared": {
                    "targets": [
                        {"provider": "demo", "model": "mock/say=echo,tag=first", "price": price},
                        {"provider": "demo", "model": "mock/say=echo,tag=second", "price": price},
                    ]
                }
            },
            "prompt": [
                {**prompt, "name": "plain", "path": "/p/plain"},
                {**prompt, "name": "kept", "path": "/p/kept", "cache": {}},
                {**prompt, "name": "short", "path": "/p/short", "max_tokens": 2},
            ],
            "route": [{"name": "all", "match": {"path": "/v1/*"}, "llm": {}}],
        }
        settings = gateway.Settings(workers=1, extra={"server": {"admin": admin}, **tables})
        with gateway.running(demo.port, settings) as found:
            yield Stand(found, demo, scripted, tables, admin)


@pytest.mark.parametrize("path", ["plain", "kept"])
def test_prose_is_told_and_paid_and_nobody_elses_trouble(prosaic: Stand, path: str) -> None:
    """It is told at once, as another model's answer would be paid as well; the target has answered, so it does not
    rest, however often, and others are served; and who has asked pays for what was written."""
    status, made = prosaic.admin("POST", f"/v1/keys?tenant={path}")
    assert status == 200, made
    fields = {"authorization": f"Bearer {made['key']}"}
    called = prosaic.called("shared")
    before = prosaic.counts(called)["requests"]
    since = len(prosaic.gateway.log_lines())
    for _ in range(12):
        answer = prosaic.ask({"text": "no JSON, I fear"}, f"/p/{path}", fields=fields)
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (502, "answer_not_json"), answer
        assert json.loads(answer.body)["error"]["message"].endswith("what the model has answered is no JSON")
    assert prosaic.ask(ask_for("shared"), MESSAGES, fields=fields).status == 200
    assert prosaic.counts(called)["requests"] == before + 13
    assert prosaic.counts("mock/say=echo,tag=second").get("requests", 0) == 0
    lines = prosaic.wait_log(lambda one: one.get("edgeq.reason") == "answer_not_json", since, 12)
    assert all(line["gen_ai.usage.output_tokens"] == 4 and line["edgeq.cost"] > 0 for line in lines)
    good = prosaic.ask({"text": '{"a": 1}'}, f"/p/{path}", fields=fields)
    assert (good.status, json.loads(good.body)) == (200, {"a": 1})
    prosaic.wait_idle()


def test_what_was_cut_says_so(prosaic: Stand) -> None:
    """Who has written the prompt can do something about it."""
    _, made = prosaic.admin("POST", "/v1/keys?tenant=short")
    answer = prosaic.ask({"text": '{"a": 1, "b": 2, "c": 3}'}, "/p/short", fields={"x-api-key": made["key"]})
    assert answer.status == 502
    assert json.loads(answer.body)["error"]["message"].endswith("it was cut at max_tokens")
    prosaic.wait_idle()
