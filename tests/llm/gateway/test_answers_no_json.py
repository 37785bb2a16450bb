"""A prompt promises JSON, and its model writes something else: whose fault is that, and who pays?"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.llm.gateway.support import MESSAGES, Stand, ask_for, request, wait_for
from tests.support import demo_llm, gateway
from tests.support.raw_client import Asked
from tests.support.scripted_upstream import ScriptedUpstream, SeenRequest, UpstreamConnection, answer

PROSE = json.dumps(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "no JSON"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
).encode()


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
            "provider": {
                "demo": {"url": f"{demo.url}/v1", "keys": ["sk-demo"], "breaker": {"min_requests": 2}},
                "scripted": {"url": f"http://127.0.0.1:{scripted.port}/v1", "keys": ["sk-x"]},
            },
            "model": {
                "shared": {
                    "targets": [
                        {"provider": "demo", "model": "mock/say=echo,tag=first", "price": price},
                        {"provider": "demo", "model": "mock/say=echo,tag=second", "price": price},
                    ]
                },
                "held": {"targets": [{"provider": "scripted", "model": "x", "price": price}]},
            },
            "prompt": [
                {**prompt, "name": "plain", "path": "/p/plain"},
                {**prompt, "name": "kept", "path": "/p/kept", "cache": {}},
                {**prompt, "name": "joined", "path": "/p/joined", "cache": {}, "model": "held"},
                {**prompt, "name": "short", "path": "/p/short", "max_tokens": 2},
            ],
            "route": [{"name": "all", "match": {"path": "/v1/*"}, "llm": {}}],
        }
        settings = gateway.Settings(workers=1, extra={"server": {"admin": admin}, **tables})
        with gateway.running(demo.port, settings) as found:
            stand = Stand(found, demo, scripted, tables, admin)
            yield stand
            stand.close_clients()


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
        got = prosaic.ask({"text": "no JSON, I fear"}, f"/p/{path}", fields=fields)
        assert (got.status, json.loads(got.body)["error"]["code"]) == (502, "answer_not_json"), got
        assert json.loads(got.body)["error"]["message"].endswith("what the model has answered is no JSON")
    assert prosaic.ask(ask_for("shared"), MESSAGES, fields=fields).status == 200
    assert prosaic.counts(called)["requests"] == before + 13
    assert prosaic.counts("mock/say=echo,tag=second").get("requests", 0) == 0
    lines = prosaic.wait_log(lambda one: one.get("edgeq.reason") == "answer_not_json", since, 12)
    assert all(line["gen_ai.usage.output_tokens"] == 4 and line["edgeq.cost"] > 0 for line in lines)
    good = prosaic.ask({"text": '{"a": 1}'}, f"/p/{path}", fields=fields)
    assert (good.status, json.loads(good.body)) == (200, {"a": 1})
    prosaic.wait_idle()


def test_all_who_joined_get_the_one_answer_that_is_paid(prosaic: Stand) -> None:
    """They have asked the same of the same model at the same time: what it has written is their answer, too, and is
    paid once. Nothing of it is stored: who asks after that is answered anew."""

    def prose(connection: UpstreamConnection, seen: SeenRequest) -> None:
        connection.wait(prosaic.opened)
        connection.send(answer(PROSE, b"200 OK", b"content-type: application/json"))

    prosaic.opened.clear()
    prosaic.play(prose)
    _, made = prosaic.admin("POST", "/v1/keys?tenant=joined")
    whole = request({"text": "go"}, "/p/joined", fields={"authorization": f"Bearer {made['key']}"})
    since = len(prosaic.gateway.log_lines())
    clients = [prosaic.client() for _ in range(5)]
    for one in clients:
        one.send(whole)
    wait_for(lambda: sum(one["in_flight"] for one in prosaic.show("workers")) == 5, lambda: "not all are here")
    prosaic.opened.set()
    answers = [one.read_answers([Asked(b"POST")])[0] for one in clients]
    codes = [(one.status, json.loads(one.body)["error"]["code"]) for one in answers]
    assert codes == [(502, "answer_not_json")] * 5
    assert len({json.loads(one.body)["error"]["message"] for one in answers}) == 1
    assert len(prosaic.scripted.requests) == 1
    assert sorted(one.get(b"x-edgeq-cache") or b"" for one in answers) == [b"joined"] * 4 + [b"miss"]
    lines = prosaic.wait_log(lambda one: one.get("edgeq.reason") == "answer_not_json", since, 5)
    assert sum(line.get("edgeq.cost", 0) > 0 for line in lines) == 1
    assert sorted(line["edgeq.cache"] for line in lines) == ["joined"] * 4 + ["miss"]
    prosaic.ask({"text": "go"}, "/p/joined", fields={"authorization": f"Bearer {made['key']}"})
    assert len(prosaic.scripted.requests) == 2
    prosaic.wait_idle()


def test_what_was_cut_says_so(prosaic: Stand) -> None:
    """Who has written the prompt can do something about it."""
    _, made = prosaic.admin("POST", "/v1/keys?tenant=short")
    got = prosaic.ask({"text": '{"a": 1, "b": 2, "c": 3}'}, "/p/short", fields={"x-api-key": made["key"]})
    assert got.status == 502
    assert json.loads(got.body)["error"]["message"].endswith("it was cut at max_tokens")
    prosaic.wait_idle()
