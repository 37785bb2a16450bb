"""The cache of models' answers as clients and operators see it, with a real gateway before the demo provider."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeq.cli import admin_client_io
from tests.support import demo_llm, gateway, kernel
from tests.support.gateway import Gateway, Settings, Value
from tests.support.raw_client import Answer, RawClient
from tests.support.supervised import wait_for

CHAT = "/v1/chat/completions"


def prompt(name: str, text: str, **more: Any) -> dict[str, Any]:
    made = {"name": name, "path": f"/p/{name}", "route": "llm", "model": "echo"}
    return {**made, "messages": [{"role": "user", "text": text}], **more}


@contextlib.contextmanager
def cached(tmp_path: Path, **more: Value) -> Iterator[Gateway]:
    """A gateway that stores the answers of a model that says what it was told last."""
    with demo_llm.running() as provider:
        extra: dict[str, Value] = {
            "server": {"admin": str(tmp_path / "admin.sock")},
            "provider": {"demo": {"url": f"{provider.url}/v1"}},
            "model": {"echo": {"targets": [{"provider": "demo", "model": "mock/say=echo"}]}},
            "route": [{"name": "llm", "llm": {"cache": {}}}],
            **more,
        }
        with gateway.running(provider.port, Settings(extra=extra)) as edge:
            yield edge


def ask(client: RawClient, body: object, path: str = CHAT, fields: str = "") -> Answer:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(data)}\r\n{fields}\r\n"
    return client.ask(head.encode() + data, b"POST")


def chat(text: str) -> dict[str, Any]:
    return {"model": "echo", "messages": [{"role": "user", "content": text}]}


def caches(tmp_path: Path) -> dict[str, dict[str, Any]]:
    return {one["route"]: one for one in json.loads(told(tmp_path, "/v1/caches"))}


def told(tmp_path: Path, target: str) -> bytes:
    """By the admin socket."""
    return admin_client_io.get(str(tmp_path / "admin.sock"), target, 30.0)[2]


def was(answer: Answer) -> bytes | None:
    assert answer.status == 200, answer
    return answer.get(b"x-edgeq-cache")


@pytest.mark.parametrize("name", ["user", "model", "metadata", "stream", "store", "service_tier"])
def test_a_variable_counts_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    """Of a prompt; in a request for a model these do not change the answer."""
    greet = prompt("greet", f"Hello {{{{{name}}}}}", variables={name: {}})
    with cached(tmp_path, prompt=[greet]) as edge, RawClient(edge.address) as client:
        said = [ask(client, {name: who}, "/p/greet") for who in ("Ann", "Bob", "Ann")]
        assert [json.loads(one.body)["text"] for one in said] == ["Hello Ann", "Hello Bob", "Hello Ann"]
        assert [was(one) for one in said] == [b"miss", b"miss", b"hit"]


def test_what_a_prompt_says_counts_and_no_more(tmp_path: Path) -> None:
    """A default that is said, or not, is the same."""
    lines = prompt("lines", "{{n}} lines", variables={"n": {"type": "integer", "default": 3}})
    with cached(tmp_path, prompt=[lines]) as edge, RawClient(edge.address) as client:
        said = [ask(client, body, "/p/lines") for body in ({}, {"n": 3}, {"n": None}, {"n": 4})]
        assert [was(one) for one in said] == [b"miss", b"hit", b"hit", b"miss"]


def test_a_prompt_has_a_cache_of_its_own(tmp_path: Path) -> None:
    """Where its route has none, too; what it holds is told."""
    prompts = [prompt("kept", "kept", cache={"max_bytes": "4MiB"}), prompt("open", "open")]
    route: Value = [{"name": "llm", "llm": {}}]
    with cached(tmp_path, prompt=prompts, route=route) as edge, RawClient(edge.address) as client:
        assert [was(ask(client, {}, "/p/kept")) for _ in range(3)] == [b"miss", b"hit", b"hit"]
        assert [was(ask(client, {}, "/p/open")) for _ in range(2)] == [None, None]
        wait_for("the report", lambda: caches(tmp_path).get("/p/kept@1", {}).get("hits") == 2)
        (one,) = caches(tmp_path).values()
        assert (one["misses"], one["entries"], one["max_bytes"], one["waiting"]) == (1, 1, 4 << 20, 0)
        assert 600 < one["bytes"] < 2000


def test_the_cache_of_a_route_is_told(tmp_path: Path) -> None:
    """As that of any other route; counters go on over a reload."""
    with cached(tmp_path) as edge, RawClient(edge.address) as client:
        for _ in range(3):
            ask(client, chat("told"))
        edge.reload({"model": {"echo": {"hedge": "5s"}}})
        assert was(ask(client, chat("told"))) == b"hit"
        wait_for("the report", lambda: caches(tmp_path)["llm"]["hits"] == 3)
        metrics = told(tmp_path, "/metrics").decode()
        assert 'edgeq_cache_requests_total{outcome="hits",route="llm"} 3.0' in metrics
        assert 'edgeq_cache_requests_total{outcome="misses",route="llm"} 1.0' in metrics
        of = 'gen_ai_request_model="echo",outcome="ok",target="demo/mock/say=echo"'
        assert f'edgeq_llm_requests_total{{cache="hit",{of}}} 3.0' in metrics


def test_what_an_answer_has_cost_is_told_where_that_is_wanted(tmp_path: Path) -> None:
    """Of a whole one, by the usage that it tells; nothing of what the cache gives; of a stream nobody knows it yet. The
    route says so, and while it runs, too."""
    price = {"input": 3.0, "output": 15.0}
    target: Value = {"provider": "demo", "model": "mock/input=100,tokens=10", "price": price}
    route: Value = [{"name": "llm", "llm": {"cache": {}, "tell_cost": True}}]
    with (
        cached(tmp_path, model={"echo": {"targets": [target]}}, route=route) as edge,
        RawClient(edge.address) as client,
    ):
        bodies = [chat("once"), chat("once"), {**chat("once"), "stream": True}, {**chat("once"), "stream": True}]
        answers = [ask(client, body) for body in bodies]
        usage = json.loads(answers[0].body)["usage"]
        cost = (3 * usage["prompt_tokens"] + 15 * usage["completion_tokens"]) / 1e6
        assert [was(one) for one in answers] == [b"miss", b"hit", b"miss", b"hit"]
        told_of = [one.get(b"x-edgeq-cost") for one in answers]
        assert told_of[1:] == [b"0", None, b"0"]
        assert float(told_of[0] or 0) == cost > 0.0
        edge.reload({"route": [{"name": "llm", "llm": {"cache": {}}}]})
        assert ask(client, chat("other")).get(b"x-edgeq-cost") is None


def test_who_waits_for_another_is_told(tmp_path: Path) -> None:
    """Not as one who is answered."""
    model: Value = {"echo": {"targets": [{"provider": "demo", "model": "mock/hang=0"}]}}
    with cached(tmp_path, model=model) as edge, RawClient(edge.address) as leader, RawClient(edge.address) as follower:
        data = json.dumps(chat("same")).encode()
        for client in (leader, follower):
            client.send(f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)

        def states() -> list[tuple[str, str]]:
            seen = json.loads(told(tmp_path, "/v1/connections"))
            return sorted((one["state"], one["resource"].partition("#")[0]) for one in seen)

        wait_for("it", lambda: states() == [("upstream", "upstream/demo"), ("waiting", "route/llm:cache")])
        wait_for("the report", lambda: caches(tmp_path)["llm"]["waiting"] == 1)


def test_what_is_too_old_does_not_wait_for_a_request_to_go(tmp_path: Path) -> None:
    """It is of no use to anybody any more."""
    route: Value = [{"name": "llm", "llm": {"cache": {"ttl": "50ms"}}}]
    with cached(tmp_path, route=route) as edge, RawClient(edge.address) as client:
        ask(client, chat("old"))
        wait_for("it goes", lambda: caches(tmp_path)["llm"]["misses"] == 1 and not caches(tmp_path)["llm"]["entries"])


def test_another_target_has_answers_of_its_own(tmp_path: Path) -> None:
    """After a reload nobody gets what the one before has said."""
    with cached(tmp_path) as edge, RawClient(edge.address) as client:
        assert [was(ask(client, chat("who"))) for _ in range(2)] == [b"miss", b"hit"]
        edge.reload({"model": {"echo": {"targets": [{"provider": "demo", "model": "mock/say=echo,tag=other"}]}}})
        again = ask(client, chat("who"))
        assert (was(again), again.get(b"x-edgeq-target")) == (b"miss", b"demo/mock/say=echo,tag=other")


def test_a_client_says_what_it_takes(tmp_path: Path) -> None:
    """By Cache-Control, as of any cache: a new answer, which is stored; or one that nobody else gets."""
    with cached(tmp_path) as edge, RawClient(edge.address) as client:
        for said, found in (
            ("no-store", b"bypass"),
            ("", b"miss"),
            ("max-age=600", b"hit"),
            ("max-age=0", b"miss"),
            ("no-cache", b"miss"),
            ("No-Store, max-age=600", b"bypass"),
            ("max-age=600\r\nCache-control: no-store", b"bypass"),
            ("", b"hit"),
        ):
            fields = f"Cache-Control: {said}\r\n" if said else ""
            assert was(ask(client, chat("wish"), fields=fields)) == found, said
        assert was(ask(client, {**chat("kept there"), "store": True})) == b"bypass"
        wait_for("the log", lambda: len(edge.log_lines()) == 9)
        assert json.loads(edge.log_lines()[0])["edgeq.cache"] == "bypass"


def test_a_client_takes_only_what_is_stored(tmp_path: Path) -> None:
    """504 where there is nothing (RFC 9111 5.2.1.7): no provider is asked, and SDKs do not come again by themselves."""
    with cached(tmp_path) as edge, RawClient(edge.address) as client:
        only = "Cache-Control: only-if-cached"
        for said in ("\r\n", ", max-age=600\r\n", ", no-store\r\n", ", no-cache\r\n"):
            with RawClient(edge.address) as other:
                refused = ask(other, chat("only"), fields=only + said)
            assert (refused.status, refused.get(b"x-edgeq-cache")) == (504, b"miss"), refused
            assert json.loads(refused.body)["error"]["code"] == "not_cached"
            assert refused.get(b"x-should-retry") == b"false"
        assert was(ask(client, chat("only"))) == b"miss"
        assert was(ask(client, chat("only"), fields=f"{only}\r\n")) == b"hit"


def test_what_was_asked_and_answered_is_logged_without_secrets(tmp_path: Path) -> None:
    """Of a stream what it says, of one from the cache as well; a secret is one, too, behind an escape of JSON, or
    in pieces."""
    store = tmp_path / "accounts.sqlite"
    accounts: Value = {"store": str(store), "log_prompts": True, "flush": "50ms"}
    secret = "write to jane.doe@example.com\nsk-abcdefghijklmnopqrstuv"
    with cached(tmp_path, accounts=accounts) as edge, RawClient(edge.address) as client:
        key = admin_client_io.post(str(tmp_path / "admin.sock"), "/v1/keys?tenant=acme", 30.0)[1]["key"]
        fields = f"Authorization: Bearer {key}\r\n"
        answers = [ask(client, {**chat(secret), "stream": streams}, fields=fields) for streams in (False, True, True)]
        assert [was(one) for one in answers] == [b"miss", b"miss", b"hit"]
        assert secret in json.loads(answers[0].body)["choices"][0]["message"]["content"]

        def logged() -> list[Any]:
            with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as db:
                return db.execute("SELECT prompt, answer FROM conversations").fetchall()

        wait_for("the log", lambda: len(logged()) == 3)
        masked = "write to [mail]\n[key]"
        assert [json.loads(one)["messages"][0]["content"] for one, _ in logged()] == [masked] * 3
        whole, *streams = (json.loads(one) for _, one in logged())
        assert whole["choices"][0]["message"]["content"] == masked
        assert streams == [{"content": masked}] * 2


def test_a_refusal_is_logged_with_its_reason(tmp_path: Path) -> None:
    """As the client was told it."""
    store = tmp_path / "accounts.sqlite"
    accounts: Value = {"store": str(store), "log_prompts": True, "flush": "50ms"}
    with cached(tmp_path, accounts=accounts) as edge, RawClient(edge.address) as client:
        url = "/v1/keys?tenant=acme&rpm=1"
        key = admin_client_io.post(str(tmp_path / "admin.sock"), url, 30.0)[1]["key"]
        fields = f"Authorization: Bearer {key}\r\n"
        told = [ask(client, chat(text), fields=fields) for text in ("first", "second")]
        assert [one.status for one in told] == [200, 429], told

        def logged() -> list[Any]:
            with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as db:
                return db.execute("SELECT prompt, answer FROM conversations ORDER BY rowid").fetchall()

        wait_for("the log", lambda: len(logged()) == 2)
        prompt, answer = logged()[1]
        assert "second" in prompt
        assert json.loads(answer)["error"] == json.loads(told[1].body)["error"]


def test_what_is_left_for_the_next_one_has_no_secrets(tmp_path: Path) -> None:
    """Nor has the file in which workers leave what a killed supervisor has not stored."""
    left = tmp_path / "accounts.sqlite.left"
    accounts: Value = {"store": str(tmp_path / "accounts.sqlite"), "log_prompts": True, "flush": "1h"}
    with cached(tmp_path, accounts=accounts) as edge, RawClient(edge.address) as client:
        key = admin_client_io.post(str(tmp_path / "admin.sock"), "/v1/keys?tenant=acme", 30.0)[1]["key"]
        answer = ask(client, chat("write to jane.doe@example.com"), fields=f"Authorization: Bearer {key}\r\n")
        assert b"jane.doe@example.com" in answer.body
        workers = edge.workers
        edge.process.kill()
        wait_for("the end of the worker", lambda: not any(map(kernel.is_alive, workers)))
        assert b"write to [mail]" in left.read_bytes()
        assert b"jane" not in left.read_bytes()


def test_what_a_full_store_does_not_take_has_no_secrets(tmp_path: Path) -> None:
    """Nor has the same file if the supervisor ends while the store cannot be written."""
    store = tmp_path / "accounts.sqlite"
    left = tmp_path / "accounts.sqlite.left"
    accounts: Value = {"store": str(store), "log_prompts": True, "flush": "50ms"}
    with cached(tmp_path, accounts=accounts) as edge, RawClient(edge.address) as client:
        key = admin_client_io.post(str(tmp_path / "admin.sock"), "/v1/keys?tenant=acme", 30.0)[1]["key"]
        with contextlib.closing(sqlite3.connect(store, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            ask(client, chat("write to jane.doe@example.com"), fields=f"Authorization: Bearer {key}\r\n")
            edge.process.terminate()
            wait_for("the end", lambda: edge.process.poll() is not None)
        assert b"write to [mail]" in left.read_bytes()
        assert b"jane" not in left.read_bytes()
