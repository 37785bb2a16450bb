"""A model that fails takes neither the others at its provider's key with it, nor the time of those who have another
target; and the operator hears of it."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from edgeq.reasons import REASONS
from tests.llm.gateway.support import CHAT, MESSAGES, Stand, ask_for, request, wait_for
from tests.support import demo_llm, gateway
from tests.support.gateway import free_port
from tests.support.raw_client import Asked
from tests.support.scripted_upstream import ScriptedUpstream, SeenRequest, UpstreamConnection

SECRET: Final = "sk-not-to-be-told"
UNLIKE_A_KEY: Final = "not to be told either"


@pytest.fixture(scope="module")
def failing() -> Iterator[Stand]:
    """A provider with models that are well and others that are not, whose breaker opens soon; and one that is dead."""
    with demo_llm.running() as demo, ScriptedUpstream() as scripted, tempfile.TemporaryDirectory() as name:
        admin = str(Path(name) / "admin.sock")
        breaker = {"min_requests": 2, "open": "60s", "probes": 1}
        models = {
            "well": ["one tokens=5,tag=well"],
            "bad": ["one error=500,tag=bad"],
            "full": ["one error=529,tag=full"],
            "within": ["one fail=0,tag=within"],
            "safe": ["one error=500,tag=safe", "one tokens=5,tag=next"],
            "late": ["one latency=25s,tag=late", "one tokens=5,tag=next"],
            "lost": ["dead x", "one tokens=5,tag=next"],
            "strange": ["one error=409,tag=strange"],
            "said": ["one error=404,tag=said"],
            "picky": ["scripted x"],
            "other": ["scripted z", "one tokens=5,tag=next"],
            "large": ["scripted large", "one tokens=5,tag=large"],
            "shy": ["one latency=600ms,tokens=5,tag=shy", "scripted y"],
            "both": ["scripted first", "beside second", "one tokens=5,tag=both"],
            "gone": ["one error=404,tag=gone"],
            "gone-next": ["one error=404,tag=gone-next", "one tokens=5,tag=next"],
            "elsewhere": ["moved tokens=5,tag=elsewhere"],
            "shut": ["mended tokens=5,tag=shut"],
        }
        config: dict[str, Any] = {
            "provider": {
                "one": {"url": f"{demo.url}/v1", "keys": ["sk-x"], "breaker": breaker},
                "scripted": {"url": f"http://127.0.0.1:{scripted.port}/v1", "keys": [SECRET]},
                "beside": {"url": f"http://127.0.0.1:{scripted.port}/v1", "keys": [UNLIKE_A_KEY]},
                "dead": {"url": f"http://127.0.0.1:{free_port()}/v1", "keys": ["sk-x"]},
                "moved": {"url": f"http://127.0.0.1:{free_port()}/v1", "keys": ["sk-x"]},
                "mended": {"url": f"http://127.0.0.1:{free_port()}/v1", "keys": ["sk-x"], "breaker": breaker},
            },
            "model": {
                model: {
                    "targets": [
                        {"provider": who, "model": f"mock/{what}"}
                        for who, _, what in (one.partition(" ") for one in of)
                    ]
                }
                for model, of in models.items()
            },
            "route": [
                {"name": "quick", "match": {"path": "/quick/*"}, "llm": {"keepalive": "0s", "first_token": "1s"}},
                {"name": "llm", "match": {"path": "/v1/*"}, "llm": {"keepalive": "0s"}},
            ],
        }
        config["model"]["shy"]["hedge"] = config["model"]["both"]["hedge"] = "100ms"
        settings = gateway.Settings(workers=1, extra={"server": {"admin": admin}, **config})
        with gateway.running(demo.port, settings) as found:
            yield Stand(found, demo, scripted, config, admin)


def told_of(stand: Stand, target: str) -> dict[str, Any]:
    """What `show targets` has of it; nothing before a worker has told."""
    return next((one for one in stand.show("targets") if one["target"] == target), {})


@pytest.mark.parametrize(("model", "stream"), [("bad", False), ("full", True), ("within", True), ("gone", False)])
def test_a_bad_model_does_not_take_its_key_with_it(failing: Stand, model: str, stream: bool) -> None:
    """It rests by itself, which is told by its name; who asks for another one at the same key notices nothing."""
    called = failing.called(model)
    codes = []
    for _ in range(25):
        answer = failing.ask(ask_for(model, stream))
        codes.append(json.loads(answer.body)["error"]["code"])
        if codes[-1] == "circuit_open":
            assert answer.status == 503
            assert 0 < int(answer.get(b"retry-after") or b"0") <= 6
            assert b"target/one/" in (answer.get(b"proxy-status") or b"") or b"one/" in answer.body, answer
    assert "circuit_open" not in codes[:3]
    assert set(codes[3:]) == {"circuit_open"}
    assert failing.counts(called)["requests"] == 3
    for path in (CHAT, MESSAGES):
        assert failing.ask(ask_for("well"), path).status == 200
    name = f"one/{called}"
    wait_for(
        lambda: told_of(failing, name).get("paused_for") == "circuit_open", lambda: json.dumps(told_of(failing, name))
    )
    (upstream,) = [one for one in failing.show("upstreams") if one["upstream"] == "one"]
    assert upstream["breaker"] == "closed"
    status, woken = failing.admin("POST", f"/v1/wake?name=target/{name}")
    assert (status, woken["ok"]) == (200, True), woken
    assert told_of(failing, name)["paused_for"] == "", "what is shown right after, before any worker has told"
    assert [one["rests"] for one in failing.show("upstreams") if one["upstream"] == "one"] == [{}]
    failing.ask(ask_for(model, stream))
    assert failing.counts(called)["requests"] == 4, "it is asked again"

    def has_ended() -> bool:
        return any(one["resource"] == f"target/{name}" for one in failing.gateway.events("provider_model_rest_ended"))

    wait_for(has_ended, failing.gateway.stderr)


def test_what_may_be_the_requests_fault_is_none_of_the_targets(failing: Stand) -> None:
    """Or one client could keep all from a model by what it asks for."""
    codes = [json.loads(failing.ask(ask_for("strange")).body)["error"]["code"] for _ in range(12)]
    assert "circuit_open" not in codes


def test_an_answer_that_is_too_large_is_no_failure(failing: Stand) -> None:
    """Whoever asks for so much gets it of nobody, however often, and takes the target from none: it has done its work.
    He is told what to do, and that coming again does not help. A page that never ends is another thing."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 70000000\r\ncontent-type: "

    def endless(kind: bytes) -> None:
        def answer(connection: UpstreamConnection, seen: SeenRequest) -> None:
            connection.send(head + kind + b"\r\n\r\n{")
            connection.stall()

        failing.play(answer)

    endless(b"application/json")
    since = len(failing.gateway.log_lines())
    before = len(failing.scripted.requests)
    for _ in range(5):
        answer = failing.ask(ask_for("large"))
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (502, "answer_too_large"), answer
        assert answer.get(b"x-should-retry") == b"false"
        assert b"67108864 bytes" in answer.body
    assert len(failing.scripted.requests) == before + 5
    assert failing.counts("mock/tokens=5,tag=large").get("requests", 0) == 0
    lines = failing.wait_log(lambda one: one.get("edgeq.reason") == "answer_too_large", since, 5)
    assert all(line["gen_ai.usage.input_tokens"] > 0 for line in lines), "it is paid, as far as is known"
    endless(b"text/html")
    answer = failing.ask(ask_for("large"))
    assert (answer.status, answer.get(b"x-edgeq-target")) == (200, b"one/mock/tokens=5,tag=large")


def explained(stand: Stand, asked: str) -> dict[str, Any]:
    """What is told of a request, once it is remembered."""

    path = f"/v1/{asked}"
    wait_for(lambda: stand.admin("GET", path)[0] == 200, lambda: str(stand.admin("GET", path)))
    return dict(stand.admin("GET", path)[1])


def test_what_the_provider_said_is_told_to_the_operator(failing: Stand) -> None:
    """Of the request by its id, and once in a while as an event; its status in the access log."""
    since = len(failing.gateway.log_lines())
    name = "said"
    for _ in range(2):
        answer = failing.ask(ask_for(name))
        assert answer.status == 502
    said = json.loads(answer.body)["error"]["message"]
    assert said.startswith("the provider said 404: ")
    lines = failing.wait_log(lambda one: one.get("gen_ai.request.model") == name, since, 2)
    assert [line["edgeq.provider_status"] for line in lines] == [404, 404]
    asked = f"explain?what={lines[-1]['edgeq.request_id']}"
    found = explained(failing, asked)
    assert f"it was told: {said}" in found["evidence"]
    assert "its provider's last answer had the status 404" in found["evidence"]
    target = f"target/one/{failing.called(name)}"
    events = [one for one in failing.gateway.events("provider_model_fails") if one["resource"] == target]
    assert [(one["reason"], one["detail"]) for one in events] == [("upstream_error", said)]


def test_what_the_first_target_said_is_told_where_another_one_has_answered(failing: Stand) -> None:
    """Quickly and well, by the id of the request: every attempt in its order, without secrets."""
    said = {"message": f"no such thing for {SECRET}", "type": "server_error", "param": None, "code": "broken"}
    text = json.dumps({"error": said}).encode()
    head = b"HTTP/1.1 500 Bad\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(text)
    failing.play(lambda connection, _: connection.send(head + text))
    answer = failing.ask(ask_for("other"))
    assert answer.status == 200
    asked = f"explain?what={(answer.get(b'x-request-id') or b'').decode()}"
    found = explained(failing, asked)
    assert found["cause"] == "failed_over"
    (first,) = [one for one in found["evidence"] if one.startswith("attempt ")]
    assert first.startswith(f"attempt 1, scripted/{failing.called('other')}: upstream_error after ")
    assert ", status 500: the provider said 500" in first
    assert "no such thing for " in first
    assert SECRET not in json.dumps(found)
    assert found["next"] == "edgeq explain model/other"


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_first_of_two_at_once_said_is_told(failing: Stand, stream: bool) -> None:
    """While the second one is waited for, which then fails as well, and a third one answers; without secrets."""
    text = json.dumps({"error": {"message": f"not with {SECRET} or {UNLIKE_A_KEY}", "type": "server_error"}}).encode()
    head = b"HTTP/1.1 %d Said\r\ncontent-length: %d\r\ncontent-type: %b\r\n\r\n"
    is_second_here = threading.Event()
    failing.opened.clear()

    def both(connection: UpstreamConnection, seen: SeenRequest) -> None:
        if b"mock/second" in seen.body:
            is_second_here.set()
        is_second = b"mock/second" in seen.body
        connection.wait(failing.opened if is_second else is_second_here)
        if is_second and stream:
            said = b"data: " + text + b"\n\n"
            connection.send(head % (200, len(said), b"text/event-stream") + said)
        else:
            connection.send(head % (404 if is_second else 500, len(text), b"application/json") + text)

    failing.play(both)
    first = f"target/scripted/{failing.called('both')}"
    with failing.client() as client:
        client.send(request(ask_for("both", stream)))
        wait_for(
            lambda: any(one["resource"] == first for one in failing.gateway.events("provider_model_fails")),
            lambda: "the first one has not failed",
        )
        failing.opened.set()
        (answer,) = client.read_answers([Asked(b"POST")])
    assert (answer.status, answer.get(b"x-edgeq-target")) == (200, b"one/mock/tokens=5,tag=both")
    found = explained(failing, f"explain?what={(answer.get(b'x-request-id') or b'').decode()}")
    target = f", scripted/{failing.called('both')}: upstream_error after "
    (told,) = [one for one in found["evidence"] if one.startswith("attempt ") and target in one]
    assert ", status 500: the provider said 500" in told
    assert json.dumps(found).count("not with ") == 2
    assert SECRET not in json.dumps(found)
    (second,) = [one for one in found["evidence"] if ", beside/mock/second: upstream_error " in one]
    assert UNLIKE_A_KEY not in second


def test_what_only_the_provider_finds_wrong_is_in_the_log(failing: Stand) -> None:
    """A 400 of its own is one of the client's, remembered as such, with the name of what it is about."""
    told = {
        "error": {"message": "too hot for me", "type": "invalid_request_error", "param": "temperature", "code": None}
    }
    text = json.dumps(told).encode()
    head = b"HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(text)
    failing.play(lambda connection, _: connection.send(head + text))
    since = len(failing.gateway.log_lines())
    assert failing.ask(ask_for("picky")).status == 400
    (line,) = failing.wait_log(lambda one: one.get("gen_ai.request.model") == "picky", since)
    assert (line["error.type"], line["edgeq.provider_status"]) == ("model_request_invalid", 400)
    assert line["edgeq.param"] == "temperature"
    asked = f"explain?what={line['edgeq.request_id']}"
    found = explained(failing, asked)
    assert "it is about temperature" in found["evidence"]
    assert "too hot" not in json.dumps(found), "words about what the client has sent"


@pytest.mark.parametrize(
    ("model", "said", "status"),
    [
        ("picky", {"code": "no permission", "error": "Content violates usage guidelines. Team: t, Model: x"}, 400),
        ("shy", {"code": "no permission", "error": "Content violates usage guidelines. Team: t, Model: x"}, 200),
        ("shy", {"error": {"message": "Your key has no access to the model", "type": "forbidden"}}, 200),
    ],
)
def test_a_403_that_is_not_of_the_key_takes_it_from_nobody(
    failing: Stand, model: str, said: dict[str, Any], status: int
) -> None:
    """Whether it is of what one request says, or of one model; also where only a second target is asked."""
    text = json.dumps(said).encode()
    head = b"HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(text)
    failing.play(lambda connection, _: connection.send(head + text))
    answer = failing.ask(ask_for(model))
    assert (answer.status, b"Team" in answer.body) == (status, False), answer
    text = json.dumps({"error": {"message": "too hot", "type": "invalid_request_error"}}).encode()
    bad = b"HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(text)
    failing.play(lambda connection, _: connection.send(bad + text))
    assert failing.ask(ask_for("picky")).status == 400, "the key does not rest"
    failing.wait_idle()


@pytest.mark.parametrize("model", ["safe", "late", "lost", "gone-next"])
def test_the_next_target_answers_at_once(failing: Stand, model: str) -> None:
    """Whether the first one fails, hangs, is dead, or knows no such model; also where there are few requests, one after
    the other."""
    since = len(failing.gateway.log_lines())
    for _ in range(8):
        answer = failing.ask(ask_for(model, True), "/quick/chat/completions")
        assert answer.status == 200, answer
        assert answer.get(b"x-edgeq-target") == b"one/mock/tokens=5,tag=next"
    lines = failing.wait_log(lambda one: one.get("gen_ai.request.model") == model, since, 8)
    assert ["edgeq.before" in line for line in lines] == [True] * 3 + [False] * 5
    target = f"{'dead' if model == 'lost' else 'one'}/{failing.called(model)}"

    by, says = {
        "safe": ("upstream_error", "have failed: the provider said 500: "),
        "late": ("upstream_timeout", "have failed: no token came within 1 s"),
        "lost": ("upstream_connect_refused", REASONS["upstream_connect_refused"].hint),
        "gone-next": ("upstream_error", "have failed: the provider said 404: "),
    }[model]

    def is_told() -> bool:
        found: Any = failing.show(f"explain?what=model/{model}")
        is_first = (found["resource"], found["cause"]) == (f"target/{target}", "key_rests")
        return is_first and says in found["verdict"]

    wait_for(is_told, lambda: json.dumps(failing.show(f"explain?what=model/{model}")))
    upstream, _, name = target.partition("/")

    def shown(subject: str, key: str) -> list[Any]:
        return [one[key] for one in failing.show(subject) if one["upstream"] == upstream]

    # Each is kept for a moment, so one may be a moment older than the other.
    wait_for(lambda: shown("upstreams", "fails")[0].get(name) == by, lambda: str(failing.show("upstreams")))
    if model == "lost":
        wait_for(lambda: shown("endpoints", "fails_by") == [by], lambda: str(failing.show("endpoints")))


@pytest.mark.parametrize(("model", "provider"), [("elsewhere", "moved"), ("shut", "mended")])
def test_a_reload_that_mends_a_url_ends_the_rest(failing: Stand, model: str, provider: str) -> None:
    """Nobody waits for what has failed elsewhere: neither the target's rest nor its key's breaker is of this one."""
    codes = [json.loads(failing.ask(ask_for(model)).body)["error"]["code"] for _ in range(5)]
    assert codes[-1] == "circuit_open"
    failing.gateway.reload({"provider": {provider: {"url": f"{failing.demo.url}/v1"}}})
    answer = failing.ask(ask_for(model))
    assert answer.status == 200, answer
    failing.gateway.reload({})
