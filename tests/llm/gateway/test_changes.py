"""The configuration changes while streams run: those that run end well, and who comes later sees what is new."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.llm.gateway.support import (
    CHAT,
    MESSAGES,
    STREAM_HEAD,
    Stand,
    ask_for,
    events,
    framed,
    request,
    said,
    sse,
)
from tests.support.raw_client import Answer, Asked
from tests.support.scripted_upstream import SeenRequest, UpstreamConnection

Reload = Callable[[Callable[[dict[str, Any]], None]], None]


@pytest.fixture
def reload(stand: Stand) -> Iterator[Reload]:
    """Change what the file says, by a function of its tables; afterwards it is as it was."""
    was = stand.gateway.settings

    def change(how: Callable[[dict[str, Any]], None]) -> None:
        tables = copy.deepcopy(stand.tables)
        how(tables)
        stand.gateway.settings = dataclasses.replace(was, extra={**was.extra, **tables})
        stand.gateway.reload({})

    yield change
    stand.gateway.settings = was
    stand.gateway.reload({})


def test_a_target_is_removed_while_it_streams(stand: Stand, reload: Reload) -> None:
    """Its provider, too: its streams go on to their ends, and nobody else is sent there."""
    asked: list[bytes] = []

    def stream(connection: UpstreamConnection, seen: SeenRequest) -> None:
        asked.append(seen.target)
        connection.send(STREAM_HEAD + framed(sse(said("hi"))))
        connection.wait(stand.opened)
        connection.send(framed(sse(said("", "stop"), "[DONE]")) + b"0\r\n\r\n")

    stand.opened.clear()
    stand.play(stream)
    clients = []
    for path in (CHAT, MESSAGES):
        client = stand.client()
        client.send(request(ask_for("removed", True), path))
        while b'"hi"' not in client.received:
            assert client.read_some()
        clients.append(client)

    def how(tables: dict[str, Any]) -> None:
        del tables["provider"]["removed"]
        tables["model"]["removed"]["targets"] = [{"provider": "an", "model": "mock/tokens=5,tag=moved"}]

    reload(how)
    answer = stand.ask(ask_for("removed"))
    assert answer.get(b"x-edgeq-target") == b"an/mock/tokens=5,tag=moved"
    assert len(asked) == 2
    stand.opened.set()
    for client in clients:
        (got,) = client.read_answers([Asked(b"POST")], 30)
        assert got.complete
        assert events(got.body)[-1][1] in ("[DONE]", {"type": "message_stop"})
        client.close()
    stand.wait_idle()


def test_a_model_is_removed_and_another_is_new(stand: Stand, reload: Reload) -> None:
    """Requests that wait for it are still answered by what it was."""
    with stand.client() as first, stand.client() as second:
        first.send(request(ask_for("turns", True)))
        stand.wait_counts(stand.called("turns"), open=1)
        second.send(request(ask_for("turns")))

        def how(tables: dict[str, Any]) -> None:
            tables["model"]["new"] = tables["model"].pop("turns")
            tables["model"]["new"]["aliases"] = []

        reload(how)
        assert stand.ask(ask_for("turns")).status == 404
        assert stand.ask(ask_for("new")).status == 200
        for client in (first, second):
            (got,) = client.read_answers([Asked(b"POST")], 30)
            assert got.status == 200, got
    stand.wait_idle()


def test_a_key_is_replaced(stand: Stand, reload: Reload) -> None:
    """From the next request on the provider sees the new one."""
    name = stand.called("plain-oa")
    stand.ask(ask_for("plain-oa"))

    def how(tables: dict[str, Any]) -> None:
        tables["provider"]["oa"]["keys"] = ["sk-replaced"]

    reload(how)
    before = stand.counts(name, "sk-oa")["requests"]
    assert stand.ask(ask_for("plain-oa")).status == 200
    assert stand.counts(name, "sk-replaced")["requests"] == 1
    assert stand.counts(name, "sk-oa")["requests"] == before


def test_limits_change_under_a_stream(stand: Stand, reload: Reload) -> None:
    """A limit that is set while requests run counts them, and one that is taken away lets others in."""
    with stand.client() as first:
        first.send(request(ask_for("long-an", True)))
        stand.wait_counts(stand.called("long-an"), open=1)

        def limited(tables: dict[str, Any]) -> None:
            tables["model"]["plain-an"]["limits"] = {"requests_per_minute": 1}

        reload(limited)
        assert stand.ask(ask_for("plain-an")).status == 200
        answer = stand.ask(ask_for("plain-an"))
        assert answer.status in (429, 503), answer
        assert 0 < float(answer.get(b"retry-after") or 0) <= 60
        reload(lambda tables: None)
        assert stand.ask(ask_for("plain-an")).status == 200
    stand.wait_idle()


WRONG: dict[str, tuple[str, Any]] = {
    "dangling provider": ("model.plain-oa.targets", [{"provider": "nobody"}]),
    "no target": ("model.plain-oa.targets", []),
    "alias twice": ("model.plain-oa.aliases", ["plain-an"]),
    "dialect": ("provider.oa.dialect", "bedrock"),
    "url": ("provider.oa.url", "nowhere"),
    "unknown key": ("provider.oa.hope", 1),
    "hedge": ("model.plain-oa.hedge", "soon"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_file_changes_nothing(stand: Stand, what: str) -> None:
    """It is refused with the key that is wrong, and what ran runs."""
    key, value = WRONG[what]
    tables = copy.deepcopy({name: stand.tables[name] for name in ("provider", "model")})
    table, name, last = key.split(".")
    tables[table][name][last] = value
    stand.gateway.reconfigure(tables)
    status, told = stand.admin("POST", "/v1/reload")
    assert status == 422, told
    assert last in json.dumps(told) or name in json.dumps(told), told
    assert stand.ask(ask_for("plain-oa")).status == 200
    stand.gateway.reconfigure({})


CHANGES = [
    ("provider/oa", "wait", "5s", "soon"),
    ("provider/oa", "limits.requests_per_minute", "100000", "-1"),
    ("model/plain-oa", "hedge", "1s", "soon"),
    ("model/plain-oa", "limits.concurrent", "50", "many"),
    ("route/llm", "llm.first_token", "20s", "never"),
    ("route/llm", "llm.mode", "strict", "hard"),
    ("route/llm", "llm.keepalive", "5s", "-1s"),
]


@pytest.mark.parametrize(("resource", "key", "value", "wrong"), CHANGES)
def test_live_changes(stand: Stand, resource: str, key: str, value: str, wrong: str) -> None:
    """Keys of providers, models and [route.llm] are set and unset in all workers; what is wrong is refused."""
    with stand.client() as first:
        first.send(request(ask_for("long-oa", True)))
        stand.wait_counts(stand.called("long-oa"), open=1)
        where = f"/v1/changes?resource={quote(resource)}&key={quote(key)}"
        status, told = stand.admin("PUT", f"{where}&value={quote(value)}")
        assert status == 200, told
        assert stand.ask(ask_for("plain-oa")).status == 200
        status, told = stand.admin("PUT", f"{where}&value={quote(wrong)}")
        assert status == 422, told
        status, told = stand.admin("DELETE", where)
        assert status == 200, told
        assert first.read_some()
        assert stand.counts(stand.called("long-oa"))["open"] == 1
    stand.wait_idle()


def test_a_live_change_holds_for_the_next_request(stand: Stand) -> None:
    """Strict at once, and lenient again."""
    asked = ask_for("plain-an", seed=7)
    where = "/v1/changes?resource=route/llm&key=llm.mode"
    assert stand.ask(asked).status == 200
    assert stand.admin("PUT", where + "&value=strict")[0] == 200
    assert stand.ask(asked).status == 400
    assert stand.admin("DELETE", where)[0] == 200
    assert stand.ask(asked).status == 200


@pytest.mark.parametrize("key", ["keys", "headers.authorization", "headers"])
def test_secrets_are_not_set(stand: Stand, key: str) -> None:
    """They would stand in shells' histories and in lists of changes."""
    status, told = stand.admin("PUT", f"/v1/changes?resource=provider/oa&key={key}&value=sk-very-secret")
    assert status == 422, told
    assert "sk-very-secret" not in json.dumps(told)
    assert "sk-very-secret" not in json.dumps(stand.show("changes"))
    assert "sk-oa" not in json.dumps(stand.show("config"))


def test_a_provider_is_taken_out(stand: Stand) -> None:
    """Whoever has another target turns to it at once, whoever has none is told why; and back again."""

    def taken_out(what: str) -> Answer:
        status, told = stand.admin("POST", f"/v1/disable?endpoint={quote(what, '')}&ttl=1h&comment=why")
        assert status == 200, told
        (change,) = stand.show("changes")
        assert (change["resource"], change["comment"]) == ("provider/oa", "why")
        (row,) = [one for one in stand.show("models") if one["model"] == "plain-oa"]
        assert row["state"] == "disabled"
        asks = "why is nobody asked"
        for name in ("", "model/plain-oa", f"target/oa/{stand.called('plain-oa')}"):
            told = stand.admin("GET", f"/v1/explain?what={quote(name, '')}")[1]
            assert told["cause"] == "endpoints_taken_out", (asks, name, told)
            assert "disabled by an operator" in told["verdict"]
            assert told["next"].startswith(f"edgeq enable {what} ")
        answers = [stand.ask(ask_for("plain-oa")) for _ in range(4)]
        assert {(one.status, json.loads(one.body)["error"]["code"]) for one in answers} == {
            (503, "upstream_none_healthy")
        }
        # Until somebody enables it: that is no matter of a second.
        assert {(one.get(b"retry-after"), one.get(b"x-should-retry")) for one in answers} == {(None, b"false")}
        assert stand.admin("POST", f"/v1/enable?endpoint={quote(what, '')}")[0] == 200
        assert stand.ask(ask_for("plain-oa")).status == 200
        status, told = stand.admin("POST", f"/v1/enable?endpoint={quote(what, '')}")
        assert (status, told["error"]) == (422, f"{what} is not disabled")
        return answers[0]

    _status, told_all = stand.admin("POST", "/v1/disable?endpoint=provider/oa")
    assert "model.plain-oa.targets: nobody answers for the model: all its targets are disabled" in told_all["warning"]
    (shown,) = [one for one in stand.show("upstreams") if one["upstream"] == "oa"]
    assert shown["in_use"] == 0
    assert {one["state"] for one in stand.show("endpoints") if one["upstream"] == "oa"} == {"disabled"}
    assert stand.ask(ask_for("late")).get(b"x-edgeq-target") == b"an/mock/tokens=5,tag=moved"
    told = taken_out("provider/oa")
    assert b'all who answer for \\"plain-oa\\" are disabled' in told.body
    taken_out(f"target/oa/{stand.called('plain-oa')}")


def test_clients_are_told_no_names_of_ours(stand: Stand) -> None:
    """They are customers: who has refused or answered is for the log, and for operators."""
    names = (b"edgeq-resource", b"x-edgeq-target", b"127.0.0.1", b"upstream/")
    models = ("plain-oa", "untold")

    def told() -> list[Answer]:
        return [stand.ask(ask_for(model), path) for model in models for path in (CHAT, MESSAGES)]

    def found(answers: list[Answer]) -> set[bytes]:
        heads = [b"%b%b%b" % (name, value, one.body) for one in answers for name, value in one.headers]
        return {name for name in names for head in heads if name in head}

    assert found(told()) == set(names)
    where = "/v1/changes?resource=forward&key=tell_resource"
    assert stand.admin("PUT", where + "&value=false")[0] == 200
    answers = told()
    assert stand.admin("DELETE", where)[0] == 200
    assert found(answers) == set()
    assert [one.status for one in answers[:2]] == [200, 200]
    assert all(b"edgeq-reason=" in (one.get(b"proxy-status") or b"") for one in answers[2:])
