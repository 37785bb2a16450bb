"""Virtual keys, as clients of models meet them: which are let in, and what the others are told."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from edgeq.cli import admin_client_io
from tests.support import demo_llm, gateway
from tests.support.gateway import Gateway, Settings, free_port
from tests.support.supervised import wait_for

BODY = json.dumps({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]})


def edgeq(*words: str) -> dict[str, Any]:
    """What a command of keys says."""
    argv = [sys.executable, "-m", "edgeq", "keys", *words, "--json"]
    made: dict[str, Any] = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    return made


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, str]]:
    """A gateway with accounts, and its admin socket."""
    folder = tmp_path_factory.mktemp("door")
    admin = str(folder / "admin.sock")
    with demo_llm.running("tokens=3") as provider:
        models: dict[str, Any] = {
            name: {"targets": [{"provider": "p", "model": f"mock/{behaviour}"}], "aliases": [f"{name}-latest"]}
            for name, behaviour in (("m", "tokens=3"), ("other", "tokens=4"), ("broken", "error=500"))
        }
        extra: dict[str, Any] = {
            "server": {"admin": admin},
            "accounts": {"store": str(folder / "accounts.sqlite")},
            "provider": {
                "p": {"url": f"{provider.url}/v1", "keys": ["sk-p"]},
                "dead": {"url": f"http://127.0.0.1:{free_port()}/v1"},
            },
            "model": models | {"dead": {"targets": [{"provider": "dead"}]}},
            "route": [{"name": "models", "llm": {}}],
        }
        with gateway.running(provider.port, Settings(extra=extra)) as edge:
            yield edge, admin


def ask(edge: Gateway, key: str = "", body: str = BODY, path: str = "/v1/chat/completions") -> tuple[int, Any]:
    """Status and body of an answer."""
    connection = http.client.HTTPConnection(*edge.address, timeout=20)
    try:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        connection.request("GET" if "/models" in path else "POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def code(answer: tuple[int, Any]) -> tuple[int, str]:
    """Status, and edgeq's reason."""
    return answer[0], answer[1]["error"]["code"]


def test_who_brings_no_key_or_a_wrong_one(door: tuple[Gateway, str]) -> None:
    """401 in the client's words, and the key is not repeated."""
    edge, _ = door
    assert code(ask(edge)) == (401, "key_missing")
    answer = ask(edge, "eq-nobody-0123456789")
    assert code(answer) == (401, "key_unknown")
    assert "0123456789" not in json.dumps(answer[1])
    anthropic = ask(edge, path="/v1/messages")
    assert (anthropic[0], anthropic[1]["error"]["type"]) == (401, "authentication_error")


def test_a_key_until_it_is_revoked(door: tuple[Gateway, str]) -> None:
    """It works, and then it is said that it was revoked."""
    edge, admin = door
    made = edgeq("create", "--tenant", "acme", "--admin", admin)
    assert ask(edge, made["key"])[0] == 200
    edgeq("revoke", made["id"], "--admin", admin)
    assert code(ask(edge, made["key"])) == (401, "key_revoked")


def test_a_key_that_was_replaced(door: tuple[Gateway, str]) -> None:
    """Without a time of grace the old one ends at once, and the new one works."""
    edge, admin = door
    made = edgeq("create", "--tenant", "acme", "--admin", admin)
    new = edgeq("rotate", made["id"], "--grace", "0s", "--admin", admin)
    assert code(ask(edge, made["key"]))[0] == 401
    assert ask(edge, new["key"])[0] == 200


def test_models_of_a_key(door: tuple[Gateway, str]) -> None:
    """Others are refused, and not listed."""
    edge, admin = door
    key = edgeq("create", "--tenant", "acme", "--models", "other", "--admin", admin)["key"]
    assert code(ask(edge, key)) == (403, "model_not_allowed")
    assert ask(edge, key, BODY.replace('"m"', '"other"'))[0] == 200
    status, listed = ask(edge, key, path="/v1/models")
    assert (status, [one["id"] for one in listed["data"]]) == (200, ["other", "other-latest"])


def test_what_is_wrong_with_a_request(door: tuple[Gateway, str]) -> None:
    """400 with the parameter; 404 for a model that there is not; 502 for a provider that fails."""
    edge, admin = door
    key = edgeq("create", "--tenant", "acme", "--admin", admin)["key"]
    answer = ask(edge, key, '{"model": 5}')
    assert code(answer) == (400, "model_request_invalid")
    assert answer[1]["error"]["param"] == "model"
    assert code(ask(edge, key, BODY.replace('"m"', '"nope"'))) == (404, "model_not_found")
    assert code(ask(edge, key, BODY.replace('"m"', '"broken"'))) == (502, "upstream_error")


def test_secrets_stay_secret(door: tuple[Gateway, str], tmp_path: Path) -> None:
    """Neither log nor events have a virtual key, or the provider's."""
    edge, admin = door
    key = edgeq("create", "--tenant", "acme", "--admin", admin)["key"]
    assert ask(edge, key)[0] == 200
    said = edge.stderr() + "\n".join(edge.log_lines())
    assert key not in said
    assert "sk-p" not in said


def test_whose_key_a_limit_is(door: tuple[Gateway, str]) -> None:
    """By its tenant and its name for people, beside the id; by each of them it is found."""
    edge, admin = door
    made = edgeq("create", "--tenant", "umbra", "--name", "night batch", "--rpm", "50", "--admin", admin)
    assert ask(edge, made["key"])[0] == 200

    def shown(match: str) -> list[dict[str, Any]]:
        status, _, text = admin_client_io.get(admin, f"/v1/meters?{urlencode({'match': match})}", 10.0)
        assert status == 200
        return list(json.loads(text))

    wait_for("its meter", lambda: shown(made["id"]))
    for match in ("umbra", "night"):
        (one,) = [one for one in shown(match) if one["meter"] == "key"]
        assert (one["name"], one["tenant"], one["key_name"]) == (made["id"], "umbra", "night batch")


def test_what_was_refused_is_no_use_of_anybodys(door: tuple[Gateway, str]) -> None:
    """It is told apart: neither a request that somebody has had, nor one that has failed there."""
    edge, admin = door
    made = edgeq("create", "--tenant", "acme", "--rpm", "2", "--admin", admin)
    broken = BODY.replace('"m"', '"broken"')
    dead = BODY.replace('"m"', '"dead"')
    bodies = (dead, BODY, broken, BODY, BODY)
    assert [ask(edge, made["key"], body)[0] for body in bodies] == [502, 200, 502, 429, 429]

    def told() -> list[dict[str, Any]]:
        _, _, text = admin_client_io.get(admin, "/v1/usage?by=key,target", 10.0)
        return [one for one in json.loads(text) if one["key"] == made["id"]]

    wait_for("all of it is stored", lambda: sum(one["requests"] + one["refused"] for one in told()) == 5)
    assert {one["target"]: (one["requests"], one["errors"], one["refused"]) for one in told()} == {
        "p/mock/tokens=3": (1, 0, 0),
        "p/mock/error=500": (1, 1, 0),
        "dead/dead": (1, 1, 0),
        "": (0, 0, 2),
    }


def test_a_model_that_there_is_not_is_told(door: tuple[Gateway, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is made, as the model may come with the next reload; whoever has mistyped it sees it."""
    _edge, admin = door
    monkeypatch.setenv("EDGEQ_ADMIN", admin)
    once = "this is the only time that the key is shown"
    until = ": the key has no use of that until there is one"
    told = {
        "m,oth*,broken-latest": None,
        "otter": f"there is no model otter (did you mean other?){until}",
        "m,x,y-*": f"there is no model x; there is no model y-*{until}",
    }
    made = {models: edgeq("create", "--tenant", "acme", "--models", models) for models in told}
    assert {one["note"] for one in made.values()} == {once}
    assert {models: one.get("warning") for models, one in made.items()} == told
    one = made["otter"]["id"]
    assert edgeq("set", one, "--models", "brokn")["warning"] == f"there is no model brokn (did you mean broken?){until}"
    assert not {"note", "warning"} & edgeq("set", one, "--models", "broken").keys()
    assert edgeq("set", one, "--models", "")["note"] == "no models are named: the key may use all of them"


def test_a_model_may_be_used_by_each_of_its_names(door: tuple[Gateway, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By those that are listed to the key: all of a model that it may use, or only an alias, if it names that."""
    edge, admin = door
    monkeypatch.setenv("EDGEQ_ADMIN", admin)
    listed = {"m": {"m", "m-latest"}, "other-*": {"other-latest"}}
    for models, names in listed.items():
        secret = edgeq("create", "--tenant", "acme", "--models", models)["key"]
        status, found = ask(edge, secret, path="/v1/models")
        assert (status, {one["id"] for one in found["data"]}) == (200, names)
        for name in ("m", "m-latest", "other", "other-latest"):
            status, _found = ask(edge, secret, BODY.replace('"m"', f'"{name}"'))
            assert status == (200 if name in names else 403), name
            status, _found = ask(edge, secret, path=f"/v1/models/{name}")
            assert status == (200 if name in names else 404), name
