"""Limits of models hold among workers, and nothing of them stays: with many at once, and when a worker is killed."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.llm.gateway.support import Stand, ask_for, request, wait_for
from tests.support import demo_llm, gateway
from tests.support.raw_client import Asked
from tests.support.scripted_upstream import ScriptedUpstream, answer, reply

LIMIT: Final = 1200
"""Tokens a minute."""
TOKENS: Final = 20
PLACES: Final = 4
WORKERS: Final = 4
GOOD: Final = json.dumps(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }
).encode()


@pytest.fixture
def limited() -> Iterator[Stand]:
    """Four workers, and a model for each limit."""
    with demo_llm.running() as demo, ScriptedUpstream() as scripted, tempfile.TemporaryDirectory() as name:
        admin = str(Path(name) / "admin.sock")
        config: dict[str, Any] = {
            "provider": {
                "demo": {"url": f"{demo.url}/v1", "keys": ["sk-demo"]},
                "scripted": {"url": f"http://127.0.0.1:{scripted.port}/v1", "keys": ["sk-x"]},
            },
            "model": {
                "tokens": {
                    "targets": [{"provider": "demo", "model": f"mock/tokens={TOKENS},tag=tokens"}],
                    "limits": {"tokens_per_minute": LIMIT},
                },
                "told": {"targets": [{"provider": "scripted"}]},
                "places": {
                    "targets": [{"provider": "demo", "model": f"mock/hang=0,times={PLACES},tag=places"}],
                    "limits": {"concurrent": PLACES},
                },
            },
            "route": [{"name": "llm", "match": {"path": "/v1/*"}, "llm": {"attempts": 1}}],
        }
        settings = gateway.Settings(workers=WORKERS, extra={"server": {"admin": admin}, **config})
        with gateway.running(demo.port, settings) as found:
            stand = Stand(found, demo, scripted, config, admin)
            yield stand
            stand.close_clients()


def meter(stand: Stand, name: str) -> dict[str, Any]:
    """What workers have told of a model's limits, once they have."""
    found: list[dict[str, Any]] = []

    def look() -> bool:
        found[:] = [one for one in stand.show("meters") if one["name"] == name]
        return bool(found)

    wait_for(look, lambda: f"nothing is told of {name}")
    return found[0]


def test_many_at_once_keep_to_a_limit_of_tokens(limited: Stand) -> None:
    """A hundred ask four workers at once. As none is expected to use less than it does, the provider counts no more
    than the limit admits, but for one of each other worker that may look at the same moment. What they did not use is
    paid back, and who was refused is told when to come again."""
    asked = ask_for("tokens") | {"max_tokens": TOKENS}
    clients = [limited.client() for _ in range(100)]
    begun = time.monotonic()
    for client in clients:
        client.send(request(asked))
    answers = [client.read_answers([Asked(b"POST")])[0] for client in clients]
    passed_s = time.monotonic() - begun
    used = limited.counts(limited.called("tokens"))["tokens"]
    good = [answer for answer in answers if answer.status == 200]
    assert {answer.status for answer in answers} == {200, 503}
    assert used <= LIMIT * (1 + passed_s / 60) + (WORKERS - 1) * used / len(good)
    assert all(answer.get(b"retry-after-ms") for answer in answers if answer.status == 503)
    wait_for(
        lambda: meter(limited, "tokens")["remaining"]["tokens"] >= LIMIT - used,
        lambda: f"{used} were used: {meter(limited, 'tokens')}",
    )
    limited.wait_idle()


def test_what_a_provider_has_told_is_forgotten_when_somebody_says_so(limited: Stand) -> None:
    """It said with a refusal that it takes a token a minute: all workers keep to that, and after `edgeq wake` none."""
    refusal = b'{"error":{"message":"Rate limit","type":"tokens","code":"rate_limit_exceeded"}}'
    fields = (b"x-ratelimit-limit-tokens: 1", b"x-ratelimit-remaining-tokens: 0", b"retry-after: 0")
    limited.play(reply(answer(refusal, b"429 Too Many Requests", *fields)))
    asked = request(ask_for("told"))
    clients = [limited.client() for _ in range(20)]

    def codes() -> set[str]:
        answers = [client.ask(asked, b"POST") for client in clients]
        return {"" if one.status == 200 else json.loads(one.body)["error"]["code"] for one in answers}

    codes()
    assert codes() == {"request_over_limit"}
    told: dict[str, Any] = {}

    def is_told() -> bool:
        codes()
        found: Any = limited.show("explain?what=target/scripted/told")
        told.update(found)
        return bool(found["cause"] == "limit_used_up")

    wait_for(is_told, lambda: json.dumps(told))
    assert "are larger than the provider's limit of 1 tokens a minute" in told["verdict"]
    assert told["next"].startswith("edgeq wake scripted/told ")
    limited.play(reply(answer(GOOD, b"200 OK", b"content-type: application/json")))
    status, woken = limited.admin("POST", "/v1/wake?name=scripted")
    assert (status, woken["forgotten"]) == (200, ["target/scripted/told"]), woken
    wait_for(lambda: codes() == {""}, lambda: f"{limited.show('targets')}")
    assert limited.admin("POST", "/v1/wake?name=scripted")[0] == 422


def test_a_killed_worker_leaves_no_place_taken(limited: Stand) -> None:
    """All places of a model are taken by answers that never come. With a worker that holds some of them, killed, they
    are free; its successor admits others."""
    clients = [limited.client() for _ in range(PLACES)]
    for client in clients:
        client.send(request(ask_for("places")))
    limited.wait_counts(limited.called("places"), open=PLACES)
    assert limited.ask(ask_for("places")).status == 503
    wait_for(
        lambda: sum(one["in_flight"] for one in limited.show("workers")) == PLACES,
        lambda: f"{limited.show('workers')}",
    )
    busy = next(one for one in limited.show("workers") if one["in_flight"])
    os.kill(busy["pid"], signal.SIGKILL)
    wait_for(
        lambda: meter(limited, "places")["in_flight"] <= PLACES - busy["in_flight"],
        lambda: f"{busy} was killed: {meter(limited, 'places')}",
    )
    wait_for(
        lambda: limited.ask(ask_for("places")).status == 200,
        lambda: f"the killed worker's places are not free: {meter(limited, 'places')}",
    )
    limited.close_clients()
    limited.wait_idle()
