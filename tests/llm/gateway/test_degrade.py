"""A smaller model in place of one that has no room: what counts as none, who may get it, and how it is told."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from edgeq.cli import admin_client_io
from tests.llm.gateway.support import CHAT, TIMEOUT_S, Stand, ask_for, explained, request, wait_for
from tests.support import demo_llm, gateway
from tests.support.raw_client import Answer, Asked
from tests.support.scripted_upstream import ScriptedUpstream, SeenRequest, UpstreamConnection

ONE: Final = {"requests_per_minute": 1}
"""Who has been asked once has no room for a minute."""
FULL: Final = {
    "big": ("rate_limited_shared", "target/tight/mock/tokens=5,tag=big:requests"),
    "capped": ("rate_limited_shared", "model/capped:requests"),
    "spent": ("budget_exhausted_shared", "model/spent:budget"),
}
"""And why they are."""
_CHEAPER: Final = [
    {"provider": "demo", "model": "mock/tokens=5,tag=dear", "price": {"input": 1e6, "output": 1e6}},
    {"provider": "demo", "model": "mock/tokens=5,tag=cheap", "price": {"input": 1, "output": 1}},
]
MODELS: Final[dict[str, Any]] = {
    "dearer-own": {
        "targets": [
            {"provider": "demo", "model": "mock/error=503,tag=cheap-own", "price": {"input": 1, "output": 1}},
            {**_CHEAPER[0], "model": "mock/tokens=5,tag=dear-own", "limits": {"money_per_day": 100.0}},
        ]
    },
    "cheaper": {"targets": _CHEAPER},
    "cheaper-own": {"targets": _CHEAPER, "limits": {"money_per_day": 1.0}, "degrade": "small"},
    "small": {"targets": [{"provider": "demo", "model": "mock/tokens=5,tag=small"}]},
    "free": {"targets": [{"provider": "demo", "model": "mock/tokens=5"}], "aliases": ["free-latest"]},
    "big": {"targets": [{"provider": "tight", "model": "mock/tokens=5,tag=big"}]},
    "capped": {"targets": [{"provider": "demo", "model": "mock/tokens=5,tag=capped"}], "limits": ONE},
    "counted": {
        "targets": [{"provider": "demo", "model": "mock/tokens=5,tag=counted"}],
        "limits": ONE,
        "degrade": "small",
    },
    "spent": {
        "targets": [{"provider": "demo", "model": "mock/tokens=50,tag=spent", "price": {"input": 1e6, "output": 1e6}}],
        "limits": {"money_per_day": 260.0},
    },
    "shared": {"targets": [{"provider": "tight", "model": "mock/tokens=5,tag=shared"}], "degrade": "held"},
    "held": {"targets": [{"provider": "scripted"}]},
    "chained": {"targets": [{"provider": "tight", "model": "mock/tokens=5,tag=chained"}], "degrade": "middle"},
    "middle": {"targets": [{"provider": "tight", "model": "mock/tokens=5,tag=middle"}], "degrade": "small"},
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
                "scripted": {"url": f"http://127.0.0.1:{scripted.port}/v1"},
                "tight": {"url": url, "keys": ["sk-tight"], "limits": ONE, "wait": "1s"},
            },
            "model": {one: {**MODELS[one], **({"degrade": "small"} if one in FULL else {})} for one in MODELS},
            "route": [
                {"name": "all", "match": {"path": "/v1/*"}, "llm": {}},
                {"name": "strict", "match": {"path": "/strict/*"}, "llm": {"mode": "strict"}},
                {"name": "cached", "match": {"path": "/cached/*"}, "llm": {"cache": {}}},
                {"name": "large", "match": {"path": "/large/*"}, "llm": {"models": [*FULL, "free"]}},
            ],
        }
        settings = gateway.Settings(extra={"server": {"admin": admin}, **tables})
        with gateway.running(demo.port, settings) as found:
            found.wait_event("serving")
            yield Stand(found, demo, scripted, tables, admin)


TENANTS: Final = (f"tenant-{number}" for number in count())


def key(stand: Stand, models: str = "", tenant: str = "") -> str:
    """A new key, of a new tenant if none is said: for these models, or all."""
    status, made = stand.admin("POST", f"/v1/keys?tenant={tenant or next(TENANTS)}&models={models}")
    assert status == 200, made
    return str(made["key"])


def ask(stand: Stand, secret: str, model: str, path: str = CHAT) -> Answer:
    """A long answer is allowed, so that money is short once one has been paid."""
    return stand.ask(ask_for(model), path, fields={"authorization": f"Bearer {secret}"})


def spend(stand: Stand, secret: str, model: str) -> Answer:
    """Ask until a smaller one answers. Returns: its answer."""
    for _ in range(3):  # a minute may just be over
        answer = ask(stand, secret, model)
        assert answer.status == 200
        if answer.get(b"x-edgeq-model") is not None:
            return answer
    raise AssertionError("it has room")


def degraded(stand: Stand, model: str) -> dict[tuple[str, str], float]:
    """Of requests for a model: by who has answered, and why."""
    text = admin_client_io.get(stand.admin_socket, "/metrics", TIMEOUT_S)[2].decode()
    series = re.findall(r"^edgeq_llm_degraded_total{(.*)} (\S+)$", text, re.MULTILINE)
    labels = [(dict(re.findall(r'(\w+)="([^"]*)"', one)), float(count)) for one, count in series]
    return {(one["answered_by"], one["reason"]): count for one, count in labels if one["gen_ai_request_model"] == model}


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
    why = [(line.get("edgeq.degraded_reason"), line.get("edgeq.degraded_resource")) for line in lines]
    assert why == [(None, None), FULL[model]]
    assert "edgeq.reason" not in lines[1]

    for secret, path in ((key(degrading, model), CHAT), (anybody, "/large/chat/completions")):
        refused = ask(degrading, secret, model, path)
        assert (refused.status, refused.get(b"x-edgeq-model")) == (503, None), (path, refused)
    allowed = ask(degrading, key(degrading, f"{model},small"), model)
    assert (allowed.status, allowed.get(b"x-edgeq-model")) == (200, b"small")
    degrading.wait_idle()


@pytest.mark.parametrize("model", FULL)
def test_why_it_was_is_told_afterwards(degrading: Stand, model: str) -> None:
    """By the id of the request: which model was asked, which one has answered, whose limit it was. And by a counter, of
    models by their own names; a route that does not serve the smaller one adds nothing."""
    anybody = key(degrading)
    reason, resource = FULL[model]
    answer = spend(degrading, anybody, model)
    found = explained(degrading, answer)
    assert (found["cause"], found["resource"]) == ("degraded", resource), found
    verdict = f"small has answered in place of {model}, for which there was no room at {resource}: "
    assert found["verdict"].split(": ", 1)[1].startswith(verdict)
    (why,) = (one for one in found["evidence"] if one.startswith(f"{model} had no room for it: "))
    assert ("a day is 260" if model == "spent" else "more than 1 request a minute") in why
    assert f"the model was demo/mock/tokens=5,tag=small, in place of {model} ({reason})" in found["evidence"]
    assert found["next"] == f"edgeq explain model/{model}"
    assert ask(degrading, anybody, model, "/large/chat/completions").status == 503
    assert degrading.line_of(answer)["edgeq.degraded_reason"] == reason
    lines = [json.loads(one) for one in degrading.gateway.log_lines()]
    count = len([one for one in lines if "edgeq.degraded_reason" in one and one["gen_ai.request.model"] == model])
    wait_for(lambda: degraded(degrading, model) == {("small", reason): count}, lambda: str(degraded(degrading, model)))
    degrading.wait_idle()


def test_who_is_refused_is_not_counted_as_degraded(degrading: Stand) -> None:
    """By a limit of his own: no smaller model has answered him."""
    spend(degrading, key(degrading), "counted")
    status, made = degrading.admin("POST", f"/v1/keys?tenant={next(TENANTS)}&rpm=1")
    assert status == 200, made
    answer = ask(degrading, made["key"], "counted")
    assert (answer.status, answer.get(b"x-edgeq-model")) == (200, b"small")
    for _ in range(3):
        assert ask(degrading, made["key"], "counted").status == 429
    spend(degrading, key(degrading), "counted")

    def counted() -> list[float]:
        meters = [one["degraded"] for one in degrading.show("meters") if one["name"] == "counted"]
        return [sum(degraded(degrading, "counted").values()), *meters]

    wait_for(lambda: counted() == [3, 3], lambda: str(counted()))


def test_who_joins_is_told_as_well(degrading: Stand) -> None:
    """His answer is the smaller model's, too, and says so once; but for one whose key is not for that."""
    tenant = next(TENANTS)
    anybody, only = key(degrading, tenant=tenant), key(degrading, "shared", tenant)
    fields = {"authorization": f"Bearer {anybody}"}
    body = json.dumps({"choices": [{"message": {"role": "assistant", "content": "hi"}}], "usage": None}).encode()

    def answer(connection: UpstreamConnection, seen: SeenRequest) -> None:
        connection.wait(degrading.opened)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        connection.send(head % len(body) + body)

    degrading.opened.clear()
    degrading.play(answer)
    assert ask(degrading, anybody, "shared").status == 200
    path = "/cached" + CHAT[3:]
    asked = request(ask_for("shared"), path, fields=fields)
    with degrading.client() as first, degrading.client() as second:
        first.send(asked)
        wait_for(lambda: len(degrading.scripted.requests) == 1, lambda: "the first one has not come")
        second.send(asked)
        wait_for(lambda: sum(one["in_flight"] for one in degrading.show("workers")) == 2, lambda: "nor the second one")
        other = ask(degrading, only, "shared", path)
        degrading.opened.set()
        assert (other.status, other.get(b"x-edgeq-model")) == (503, None), other
        answers = [*first.read_answers([Asked(b"POST")]), *second.read_answers([Asked(b"POST")])]
    assert [one.get(b"x-edgeq-cache") for one in answers] == [b"miss", b"joined"]
    for one in answers:
        assert one.get(b"x-edgeq-model") == b"held", one
        assert explained(degrading, one)["resource"] == "target/tight/mock/tokens=5,tag=shared:requests"
        assert degrading.line_of(one)["edgeq.model"] == "held"
    degrading.wait_idle()


def test_a_smaller_one_without_room_has_its_own_smaller_one(degrading: Stand) -> None:
    """Each is asked as long as it has room, and passed over where the key may not use it. What is told is why the one
    that was asked for did not answer."""
    anybody = key(degrading)
    seen = []
    for _ in range(6):  # a minute may just be over
        answer = ask(degrading, anybody, "chained")
        assert answer.status == 200
        seen.append(answer.get(b"x-edgeq-model"))
        if seen[-1] == b"small":
            break
    assert seen[0] is None
    assert seen[-2:] == [b"middle", b"small"]
    found = explained(degrading, answer)
    assert found["resource"] == "target/tight/mock/tokens=5,tag=chained:requests"
    wait_for(
        lambda: {one for one, _ in degraded(degrading, "chained")} == {"middle", "small"},
        lambda: str(degraded(degrading, "chained")),
    )
    told = {one["model"]: one["degrades_to"] for one in degrading.show("models")}
    wait_for(
        lambda: {one["degrades_to"] for one in degrading.show("models") if one["model"] == "chained"} == {"small"},
        lambda: str(told),
    )
    assert spend(degrading, key(degrading, "chained,small"), "chained").get(b"x-edgeq-model") == b"small"
    degrading.wait_idle()


def test_while_it_goes_on_it_is_told(degrading: Stand) -> None:
    """Of the model that degrades, and of no other one: by `show models`, and by `explain`, as long as requests do."""
    anybody = key(degrading)
    spend(degrading, anybody, "big")

    def states() -> dict[str, str]:
        return {one["model"]: one["degrades_to"] for one in degrading.show("models")}

    wait_for(lambda: states()["big"] == "small", lambda: str(states()))
    assert {states()[model] for model in ("small", "free", "dearer")} == {""}

    def verdict() -> str:
        ask(degrading, anybody, "big")
        return str(degrading.admin("GET", "/v1/explain?what=model/big")[1]["verdict"])

    wait_for(lambda: "small answers in its place" in verdict(), verdict)
    _, found = degrading.admin("GET", "/v1/explain?what=model/big")
    assert found["cause"] == "model_degrades"
    assert "rate_limited_shared" in str(found["evidence"]), found
    _, found = degrading.admin("GET", "/v1/explain?what=model/free")
    assert found["cause"] is None
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


def test_whoever_can_be_paid_is_asked(degrading: Stand) -> None:
    """The first target is too dear for what is left, of whatever budget: the next one is asked, and no smaller model.
    Who has the money gets the first."""
    for per_day, target in (("1000000", b"dear"), ("100", b"cheap")):
        _, made = degrading.admin("POST", f"/v1/keys?tenant={next(TENANTS)}&per-day={per_day}")
        answer = ask(degrading, str(made["key"]), "cheaper")
        assert answer.status == 200, answer
        assert (answer.get(b"x-edgeq-target") or b"").endswith(b"tag=" + target)
    _, made = degrading.admin("POST", f"/v1/keys?tenant={next(TENANTS)}&per-day=0.0001")
    refused = ask(degrading, str(made["key"]), "cheaper")
    assert refused.status == 429, refused
    assert b"and this request may cost 0.00" in refused.body, "the cheapest may"
    answer = ask(degrading, key(degrading), "cheaper-own")
    assert (answer.status, answer.get(b"x-edgeq-model")) == (200, None), answer
    assert (answer.get(b"x-edgeq-target") or b"").endswith(b"tag=cheap")
    degrading.wait_idle()


def test_a_target_s_own_budget_is_asked_for_its_own_price(degrading: Stand) -> None:
    """Not for that of the one before."""
    refused = ask(degrading, key(degrading), "dearer-own")
    assert refused.status == 503, refused
    degrading.wait_idle()


def test_a_route_serves_the_aliases_of_its_models(degrading: Stand) -> None:
    """Of those that it names, and no others; the key may name either."""
    for models in ("", "free", "free-latest"):
        secret = key(degrading, models)
        for path in (CHAT, "/large/chat/completions"):
            assert ask(degrading, secret, "free-latest", path).status == 200, (models, path)
    assert ask(degrading, key(degrading), "small", "/large/chat/completions").status == 404
