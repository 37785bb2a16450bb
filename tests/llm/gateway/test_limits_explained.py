"""What an operator hears where a limit of a model is used up, or a provider has refused its key."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeq.cli import main
from tests.llm.gateway.support import Stand, ask_for, request, wait_for
from tests.support import demo_llm, gateway
from tests.support.scripted_upstream import ScriptedUpstream


@pytest.fixture(scope="module")
def short() -> Iterator[Stand]:
    """A model with a small limit, and a key that its provider does not know."""
    with (
        demo_llm.running(keys=frozenset((b"sk-x",))) as demo,
        ScriptedUpstream() as scripted,
        tempfile.TemporaryDirectory() as name,
    ):
        admin = str(Path(name) / "admin.sock")
        url = f"{demo.url}/v1"
        config: dict[str, Any] = {
            "tenant": {"key": "header:x-tenant"},
            "provider": {
                "right": {"url": url, "keys": ["sk-x"]},
                "wrong": {"url": url, "keys": ["sk-y"]},
                "one": {"url": url, "keys": ["sk-x"], "limits": {"concurrent": 1}, "wait": "60s"},
            },
            "model": {
                "small": {
                    "aliases": ["tiny"],
                    "targets": [{"provider": "right", "model": "mock"}],
                    "limits": {"tokens_per_minute": 300},
                },
                "shut": {"targets": [{"provider": "wrong", "model": "mock"}]},
                "slow": {"targets": [{"provider": "one", "model": "mock/latency=60s"}]},
            },
            "route": [{"name": "llm", "match": {"path": "/v1/*"}, "llm": {"keepalive": "0s"}}],
        }
        settings = gateway.Settings(extra={"server": {"admin": admin}, **config})
        with gateway.running(demo.port, settings) as found:
            yield Stand(found, demo, scripted, config, admin)


@pytest.fixture(scope="module")
def keyed() -> Iterator[Stand]:
    """Virtual keys before a provider that takes two at once."""
    with demo_llm.running() as demo, ScriptedUpstream() as scripted, tempfile.TemporaryDirectory() as name:
        admin = str(Path(name) / "admin.sock")
        config: dict[str, Any] = {
            "accounts": {"store": str(Path(name) / "accounts.sqlite")},
            "provider": {
                "two": {"url": f"{demo.url}/v1", "limits": {"concurrent": 2}, "wait": "60s"},
                "free": {"url": f"{demo.url}/v1"},
            },
            "model": {
                "slow": {"targets": [{"provider": "two", "model": "mock/latency=60s"}]},
                "paid": {
                    "targets": [
                        {
                            "provider": "free",
                            "model": "mock/tokens=5,tag=paid",
                            "price": {"input": 1000, "output": 1000},
                        }
                    ]
                },
                "quick": {
                    "targets": [{"provider": "free", "model": "mock/tokens=5"}],
                    "limits": {"tokens_per_minute": 300},
                },
            },
            "route": [{"name": "llm", "match": {"path": "/v1/*"}, "llm": {"keepalive": "0s"}}],
        }
        settings = gateway.Settings(extra={"server": {"admin": admin}, **config})
        with gateway.running(demo.port, settings) as found:
            found.wait_event("serving")
            yield Stand(found, demo, scripted, config, admin)


def explained(stand: Stand, what: str) -> dict[str, Any]:
    """The verdict about one resource."""
    found: Any = stand.show(f"explain?what={what}")
    return dict(found)


def test_the_limit_is_named_and_raised_by_what_is_said(short: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    """By any name of the model, and by its route; the command is one that can be typed, and what it sets is told."""
    for value in ("300 tokens a minute is used up", "600 tokens a minute, set live, is used up"):
        told: dict[str, Any] = {}

        def is_told(value: str = value, told: dict[str, Any] = told) -> bool:
            short.ask(ask_for("small"))
            told.update(explained(short, "model/tiny"))
            return told["cause"] == "limit_used_up" and str(told["verdict"]).endswith(value)

        wait_for(is_told, lambda told=told: json.dumps(told))  # type: ignore[misc]
        assert told["resource"] == "model/small"
        assert explained(short, "route/llm")["resource"] == "model/small"
        command = str(told["next"]).partition("    #")[0].split()
        assert command[:4] == ["edgeq", "set", "model/small", "limits.tokens_per_minute"]
        assert main([*command[1:], "--admin", short.admin_socket]) == 0, capsys.readouterr().err


def test_who_uses_up_a_providers_limit_is_named(short: Stand) -> None:
    """Of those who wait and run there, in all workers."""
    for tenant in ("night", "night", "night", "data"):
        short.client().send(request(ask_for("slow"), fields={"x-tenant": tenant}))
    told: dict[str, Any] = {}

    def is_told() -> bool:
        told.update(explained(short, "provider/one"))
        return told["cause"] == "limit_used_up" and any("data 25%" in one for one in told["evidence"])

    wait_for(is_told, lambda: json.dumps(told))
    short.close_clients()
    assert told["resource"] == "target/one/mock/latency=60s"
    assert "tenant night has 75% of the requests that wait or run there, data 25%" in told["evidence"]


def test_which_key_uses_up_a_providers_limit_is_named(keyed: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    """One tenant has several: by its id and name, never its secret; the command gives that key less, and can be
    typed."""
    made: list[dict[str, Any]] = []
    for name in ("batch", "chat"):
        status, one = keyed.admin("POST", f"/v1/keys?tenant=acme&name={name}")
        assert status == 200, one
        made.append(one)
    for one in (made[0], made[0], made[0], made[1]):
        fields = {"authorization": f"Bearer {one['key']}"}
        keyed.client().send(request(ask_for("slow"), fields=fields))
    batch, chat = made[0]["id"], made[1]["id"]
    told: dict[str, Any] = {}

    def is_told() -> bool:
        told.update(explained(keyed, "provider/two"))
        return f"by key: {batch} (batch) 75%, {chat} (chat) 25%" in told["evidence"]

    wait_for(is_told, lambda: json.dumps(told))
    keyed.close_clients()
    assert told["cause"] == "limit_used_up"
    assert not any(one["key"] in json.dumps(told) for one in made)
    _, _, command = str(told["next"]).partition("for others to have more: ")
    assert command == f"edgeq keys set {batch} --concurrent 1"
    assert main([*command.split()[1:], "--admin", keyed.admin_socket]) == 0, capsys.readouterr().err


def test_which_key_uses_up_a_models_limit_is_named(keyed: Stand) -> None:
    """Where answers come at once, and nobody waits for more: by what was used."""
    _, batch = keyed.admin("POST", "/v1/keys?tenant=acme&name=night")
    _, chat = keyed.admin("POST", "/v1/keys?tenant=acme&name=day")
    told: dict[str, Any] = {}

    def is_told() -> bool:
        for one in (batch, chat):
            size = 20 if one is batch else 1
            keyed.ask(ask_for("quick", text="word " * size), fields={"authorization": f"Bearer {one['key']}"})
        told.update(explained(keyed, "model/quick"))
        return told["cause"] == "limit_used_up" and any("of what was used" in one for one in told["evidence"])

    wait_for(is_told, lambda: json.dumps(told))
    assert "tenant acme has 100% of what was used in the last minute" in told["evidence"]
    (by_key,) = [one for one in told["evidence"] if one.startswith("by key: ")]
    assert f"{batch['id']} (night) " in by_key


def test_whose_budget_is_spent_is_named(keyed: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    """A tenant's; who asks about a key of it hears so, too. The command can be typed, and helps."""
    _, made = keyed.admin("POST", "/v1/keys?tenant=poor&name=web")
    fields = {"authorization": f"Bearer {made['key']}"}
    assert keyed.ask(ask_for("paid", max_tokens=9), fields=fields).status == 200
    admin = ["--admin", keyed.admin_socket]
    assert main(["tenants", "set", "poor", "--per-day", "0.000001", *admin]) == 0, capsys.readouterr().err
    told: dict[str, Any] = {}

    def is_told() -> bool:
        told.update(explained(keyed, "web"))
        return bool(told["cause"])

    wait_for(is_told, lambda: json.dumps(told))
    assert keyed.ask(ask_for("paid", max_tokens=9), fields=fields).status == 429
    for what in ("web", f"key/{made['id']}", "poor"):
        told = explained(keyed, what)
        assert (told["resource"], told["cause"]) == ("tenant/poor", "budget_spent")
        assert told["verdict"].startswith("tenant/poor refuses who comes next: its budget of 0.000001 a day is spent, ")
        assert "T00:00:00+00:00" in told["verdict"]
    command = str(told["next"]).partition("    #")[0].split()
    assert command[:5] == ["edgeq", "tenants", "set", "poor", "--per-day"]
    assert main([*command[1:], *admin]) == 0, capsys.readouterr().err
    assert explained(keyed, "web")["cause"] is None


def test_a_refused_key_is_named_until_it_is_tried_again(short: Stand) -> None:
    """Also when nobody asks any more; the provider hears of it once."""
    assert short.ask(ask_for("shut")).status == 502
    for resource in ("upstream/wrong", "provider/wrong", "model/shut"):
        told: dict[str, Any] = {}

        def is_told(resource: str = resource, told: dict[str, Any] = told) -> bool:
            told.update(explained(short, resource))
            return bool(told["cause"] == "key_rests")

        wait_for(is_told, lambda told=told: json.dumps(told))  # type: ignore[misc]
        assert told["resource"] == "upstream/wrong"
        assert "no model is asked with it until 20" in told["verdict"]
        assert "the provider refuses the key: the provider said 401: " in told["verdict"]
        assert "model/shut has no other target" in told["evidence"]
    assert short.gateway.wait_event("provider_key_rests")["detail"].startswith(
        "the provider does not let the gateway in (the provider said 401: "
    )
    (rests,) = [one["rests"] for one in short.show("upstreams") if one["upstream"] == "wrong"]
    assert 0 < rests["upstream_auth"] <= 60
    (shut,) = [one for one in short.show("models") if one["model"] == "shut"]
    assert (shut["state"], 0 < shut["paused_s"] <= 60) == ("upstream_auth", True)
