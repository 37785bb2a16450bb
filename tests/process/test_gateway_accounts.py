"""Virtual keys before real models: who may ask, what is counted, and budgets that outlive a restart."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from edgeq.cli import admin_client_io
from tests.support import demo_llm, gateway
from tests.support.demo_llm import Provider
from tests.support.gateway import Gateway, Settings, Value
from tests.support.raw_client import Answer, RawClient
from tests.support.supervised import TIMEOUT_S, wait_for

_INPUT, _OUTPUT = 100, 10
"""Tokens of each answer."""


class Shop:
    """A gateway with accounts and one model, which costs a millionth for each token."""

    def __init__(self, edge: Gateway, admin: str) -> None:
        self.edge = edge
        self._admin = admin

    def command(self, method: str, path: str, **arguments: str) -> Any:
        status, _media, text = admin_client_io.send(self._admin, method, f"{path}?{urlencode(arguments)}", TIMEOUT_S)
        assert status == 200, text
        return json.loads(text)

    def ask(self, secret: str = "", model: str = "m", stream: bool = False) -> Answer:
        body = json.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": "hello"}]})
        field = f"Authorization: Bearer {secret}\r\n" if secret else ""
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n{field}Content-Length: {len(body)}\r\n\r\n"
        with RawClient(self.edge.address) as client:
            return client.ask((head + body).encode())

    def requests(self) -> int:
        return sum(one["requests"] for one in self.command("GET", "/v1/usage"))


@contextlib.contextmanager
def shop(directory: Path, provider: Provider, limited: str = "", a_day: float = 0.0) -> Iterator[Shop]:
    """The same store for all in one directory. limited: "provider" or "model", which may cost so much a day."""
    admin = str(directory / "admin.sock")
    budget = {name: {"limits": {"money_per_day": a_day}} if limited == name else {} for name in ("provider", "model")}
    extra: dict[str, Value] = {
        "server": {"admin": admin},
        "accounts": {"store": str(directory / "accounts.sqlite"), "flush": 0.05},
        "provider": {"p": {"url": f"{provider.url}/v1", "keys": ["sk-provider"], **budget["provider"]}},
        "model": {
            name: {
                "targets": [
                    {
                        "provider": "p",
                        "model": f"mock/input={_INPUT},tokens={_OUTPUT}",
                        "price": {"input": 1.0, "output": 1.0},
                    }
                ],
                **budget["model"],
            }
            for name in ("m", "other")
        },
        "route": [{"name": "llm", "match": {"path": "/v1/*"}, "llm": {}}],
    }
    with gateway.running(provider.port, Settings(extra=extra, workers=2)) as edge:
        edge.wait_event("serving")
        yield Shop(edge, admin)


def test_keys_open_models(tmp_path: Path) -> None:
    """Only those that there are, for models that they may use; each refusal has its words."""
    with demo_llm.running() as provider, shop(tmp_path, provider) as one:
        made = one.command("POST", "/v1/keys", tenant="acme", team="core", models="m")
        assert one.ask(made["key"]).status == 200
        assert one.ask(made["key"], stream=True).status == 200
        assert one.ask().status == 401
        assert one.ask(made["key"] + "x").status == 401
        assert one.ask(made["key"], "other").status in (403, 404)
        one.command("DELETE", "/v1/keys", id=made["id"])
        refused = one.ask(made["key"])
        assert refused.status == 401
        assert b"revoked" in refused.body
        wait_for("usage", lambda: one.requests() >= 2)
        rows = one.command("GET", "/v1/usage", by="tenant,team,key,model")
        row = next(row for row in rows if row["model"] == "m")
        assert (row["tenant"], row["team"], row["key"]) == ("acme", "core", made["id"])
        assert (row["input"], row["output"]) == (2 * _INPUT, 2 * _OUTPUT)
        one.edge.stop()
        logged = [json.loads(line, object_pairs_hook=list) for line in one.edge.log_lines()]
        whose = [[value for key, value in line if key == "edgeq.tenant"] for line in logged]
        assert whose.count(["acme"]) == 3, whose  # once in each line of who had a key: two answers, and "other"


def test_a_model_that_keys_name_is_taken_away(tmp_path: Path) -> None:
    """By a reload, or by `set`: the log and who does it are told."""
    told = "model that keys name is no more"
    with demo_llm.running() as provider, shop(tmp_path, provider) as one:
        one.edge.reload({"model": {"m": {"aliases": ["best"]}}})
        key_id = one.command("POST", "/v1/keys", tenant="acme", models="best")["id"]
        says = f"there is no model best any more, which keys name: {key_id}"
        changed = one.command("PUT", "/v1/changes", resource="model/m", key="aliases", value='["worst"]')
        assert changed["warning"] == says
        assert "warning" not in one.command("DELETE", "/v1/changes", resource="model/m", key="aliases")
        one.edge.reconfigure({})
        assert one.command("POST", "/v1/reload")["lost"] == [says]
        assert [event["problem"] for event in one.edge.events(told)] == [says, says]
        assert one.command("POST", "/v1/reload")["lost"] == []
        # And a key that is revoked once more has not changed.
        for _ in range(2):
            one.command("DELETE", "/v1/keys", id=key_id)
        assert len(one.edge.events("accounts changed")) == 2


def test_a_budget_outlives_a_restart(tmp_path: Path) -> None:
    """What was spent today is spent for whoever serves next, and not for other tenants."""
    cost = (_INPUT + _OUTPUT) / 1e6
    with demo_llm.running() as provider:
        with shop(tmp_path, provider) as one:
            secret = one.command("POST", "/v1/keys", tenant="acme")["key"]
            other = one.command("POST", "/v1/keys", tenant="other")["key"]
            for _ in range(20):
                assert one.ask(secret).status == 200
            one.edge.stop()
        with shop(tmp_path, provider) as one:
            assert one.requests() == 20
            assert len(one.command("GET", "/v1/usage", by="day", since="2000-01-01")) == 1, (
                "all of today, from the first"
            )
            assert one.ask(secret).status == 200
            one.command("PUT", "/v1/accounts/tenants", tenant="acme", **{"per-day": f"{20 * cost:.6f}"})
            assert {one.ask(secret).status for _ in range(8)} == {429}
            assert one.ask(other).status == 200
            one.edge.stop()
        with shop(tmp_path, provider) as one:
            assert {one.ask(secret).status for _ in range(8)} == {429}, "from the first request on"
            one.command("PUT", "/v1/accounts/tenants", tenant="acme", **{"per-day": "100"})
            assert one.ask(secret).status == 200


@pytest.mark.parametrize("limited", ["provider", "model"])
def test_a_budget_of_all_outlives_a_restart(tmp_path: Path, limited: str) -> None:
    """What a model, or a model at a provider's key, has cost today is known to whoever serves next."""
    with demo_llm.running() as provider:
        with shop(tmp_path, provider) as one:
            secret = one.command("POST", "/v1/keys", tenant="acme")["key"]
            for _ in range(20):
                assert one.ask(secret).status == 200
            one.edge.stop()
        # One request may cost 0.0042, as far as is known at first; spent is 0.0022.
        with shop(tmp_path, provider, limited, 0.005) as one:
            assert {one.ask(secret).status for _ in range(8)} == {503}, "from the first request on"
            if limited == "model":
                assert one.ask(secret, "other").status == 200, "it has cost nothing"


def test_other_limits_are_shown_at_once(tmp_path: Path) -> None:
    """What runs and what was used is counted by them in all workers, before the next request comes."""
    with demo_llm.running() as provider, shop(tmp_path, provider, "model", 1.0) as one:
        made = one.command("POST", "/v1/keys", tenant="acme", tpm="6000")

        def limits() -> dict[str, Any]:
            return {meter["name"]: meter["limits"] for meter in one.command("GET", "/v1/meters")}

        for _ in range(8):
            assert one.ask(made["key"]).status == 200
        wait_for("limits", lambda: limits() == {made["id"]: {"tokens": 6000}, "m": {"per_day": 1.0}})
        one.command("PUT", "/v1/keys", id=made["id"], tpm="600")
        wait_for("another one of the key", lambda: limits().get(made["id"]) == {"tokens": 600})
        one.command("PUT", "/v1/changes", resource="model/m", key="limits.requests_per_minute", value="90")
        wait_for("one of the model", lambda: limits().get("m") == {"requests": 90, "per_day": 1.0})
