"""What each answer tells a caller of his limits: what is left of them once his request has been counted."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.llm.gateway.support import CHAT, MESSAGES, Stand, ask_for, request
from tests.support import demo_llm, gateway
from tests.support.raw_client import Answer
from tests.support.scripted_upstream import ScriptedUpstream

LIMIT: Final = 300
"""Tokens a minute; far less than an answer of a model may have that nothing is known of."""
TOKENS: Final = 20


@pytest.fixture(scope="module")
def told() -> Iterator[Stand]:
    """One route for each test, so that nobody has used anything of its limits."""
    with demo_llm.running() as demo, ScriptedUpstream() as scripted, tempfile.TemporaryDirectory() as name:
        admin = str(Path(name) / "admin.sock")
        llm = {"limits": {"tokens_per_minute": LIMIT, "requests_per_minute": 10}}
        providers = {
            "demo": {"url": f"{demo.url}/v1", "keys": ["sk-demo"], "rest_after": 0}
        }  # whatever it does, it is asked
        targets = {"same": f"mock/tokens={TOKENS}", "failing": "mock/error=500", "strange": "mock/error=400"}
        targets["held"] = f"mock/hang=3,tokens={TOKENS}"
        config: dict[str, Any] = {
            "provider": providers
            | {
                "claude": {"url": f"{demo.url}/v1", "dialect": "anthropic", "keys": ["sk-demo"]},
            },
            "model": {
                **{name: {"targets": [{"provider": "demo", "model": model}]} for name, model in targets.items()},
                "other": {"targets": [{"provider": "claude", "model": f"mock/tokens={TOKENS}"}]},
            },
            "route": [
                {"name": route, "match": {"path": f"/{route}/*"}, "llm": llm}
                for route in ("same", "other", "failing", "strange", "claude", "stream")
            ],
        }
        settings = gateway.Settings(workers=1, extra={"server": {"admin": admin}, **config})
        with gateway.running(demo.port, settings) as found:
            stand = Stand(found, demo, scripted, config, admin)
            yield stand
            stand.close_clients()


def open_ended(model: str) -> dict[str, Any]:
    """A request that does not say how long its answer may be."""
    asked = ask_for(model)
    del asked["max_tokens"]
    return asked


def field(answer: Answer, name: bytes) -> bytes:
    """One that must be there."""
    value = answer.get(name)
    assert value is not None, answer.headers
    return value


def used_by(answer: Answer) -> int:
    """Tokens, as the answer itself tells."""
    found = re.search(rb'"total_tokens":\s*(\d+)', answer.body)
    assert found is not None, answer.body
    return int(found[1])


@pytest.mark.parametrize("model", ["same", "other"])
def test_a_whole_answer_tells_what_is_left_after_it(told: Stand, model: str) -> None:
    """It is read before its head is sent, so what it has used is known: not what might have been is told as gone."""
    answer = told.ask(open_ended(model), f"/{model}{CHAT}")
    used = used_by(answer)
    assert answer.status == 200
    assert LIMIT - used <= int(field(answer, b"x-ratelimit-remaining-tokens")) < LIMIT
    seconds = float(field(answer, b"x-ratelimit-reset-tokens").removesuffix(b"s"))
    assert 0.0 < seconds <= used * 60 / LIMIT
    assert answer.get(b"x-ratelimit-remaining-requests") == b"9"


def test_the_same_in_anthropics_words(told: Stand) -> None:
    """Here the client has to say how long the answer may be."""
    answer = told.ask({**open_ended("same"), "max_tokens": 4096}, f"/claude{MESSAGES}")
    assert answer.status == 200
    assert int(field(answer, b"anthropic-ratelimit-tokens-remaining")) >= LIMIT - 2 * TOKENS


@pytest.mark.parametrize(("model", "status"), [("failing", 502), ("strange", 400)])
def test_an_error_has_used_nothing(told: Stand, model: str, status: int) -> None:
    """The tokens are given back before the caller is told; a request that was sent counts as one."""
    answer = told.ask(open_ended(model), f"/{model}{CHAT}")
    assert answer.status == status
    assert answer.get(b"x-ratelimit-remaining-tokens") == b"%d" % LIMIT
    assert answer.get(b"x-ratelimit-remaining-requests") == b"9"


def test_the_head_of_a_stream_tells_of_no_more_than_the_limit(told: Stand) -> None:
    """It goes before anybody knows what the stream will use. What that may be beyond all of the limit is a guess, and
    no reason to tell of a reset in a quarter of an hour."""
    client = told.client()
    client.send(request({**open_ended("held"), "stream": True}, f"/stream{CHAT}"))
    while b"\r\n\r\n" not in client.received:
        client.read_some()
    head = bytes(client.received).lower()
    assert b"x-ratelimit-remaining-tokens: 0\r\n" in head
    assert re.search(rb"x-ratelimit-reset-tokens: (1m0|[1-5][0-9](\.[0-9]+)?)s\r\n", head), head
    client.close()
    told.wait_idle()


def test_each_who_is_turned_away_is_told_a_time_of_his_own(told: Stand) -> None:
    """By a limit of requests, or of tokens; or they would come back together, and all but the first in vain. Nobody is
    taken for one whose connection was at the same place in memory before."""
    for route, limit_of in (("failing", b"requests"), ("strange", b"tokens")):
        asked = {**open_ended(route), "max_tokens": LIMIT // 2}
        if limit_of == b"tokens":
            asked["messages"] = [{"role": "user", "content": "hello " * 100}]
        waits: list[int] = []
        while len(waits) < 3:
            answer = told.ask(asked, f"/{route}{CHAT}")
            if answer.status == 429:
                waits.append(int(field(answer, b"retry-after-ms")))
        assert waits[0] < waits[1] <= waits[2] <= 60_000
