"""A provider's requests a minute, or a day, are kept to before it refuses: by what its answers tell."""

from __future__ import annotations

import datetime
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.llm.gateway.support import CHAT, MESSAGES, Stand, ask_for, wait_for
from tests.support import demo_llm, gateway
from tests.support.scripted_upstream import ScriptedUpstream, SeenRequest, UpstreamConnection

PER_MINUTE: Final = 5
RESET_S: Final = 50
ANSWERS: Final = {
    "openai": {"choices": [{"message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}]},
    "anthropic": {"type": "message", "role": "assistant", "content": [], "stop_reason": "end_turn"},
}


@pytest.fixture(scope="module")
def counted() -> Iterator[Stand]:
    """Nobody waits for long: who would have to is refused, and that is seen at once."""
    with (
        demo_llm.running(requests_per_minute=PER_MINUTE) as demo,
        ScriptedUpstream() as scripted,
        tempfile.TemporaryDirectory() as name,
    ):
        admin = str(Path(name) / "admin.sock")
        common = {"keys": ["sk-x"], "wait": "100ms", "breaker": {"min_requests": 1_000_000}, "limit": 1000}
        urls = {
            "demo": ("openai", f"{demo.url}/v1"),
            "demo-an": ("anthropic", f"{demo.url}/v1"),
            "openai": ("openai", f"http://127.0.0.1:{scripted.port}/v1"),
            "anthropic": ("anthropic", f"http://127.0.0.1:{scripted.port}/v1"),
        }
        config: dict[str, Any] = {
            "provider": {who: {"url": url, "dialect": dialect, **common} for who, (dialect, url) in urls.items()},
            "model": {who: {"targets": [{"provider": who, "model": f"mock/tokens=3,tag={who}"}]} for who in urls},
            "route": [{"name": "llm", "match": {"path": "/v1/*"}, "llm": {"keepalive": "0s"}}],
        }
        settings = gateway.Settings(extra={"server": {"admin": admin}, **config})
        with gateway.running(demo.port, settings) as found:
            yield Stand(found, demo, scripted, config, admin)


NOTHING: dict[str, Any] = {"limits": {}, "paused_s": 0.0}


def target(stand: Stand, provider: str) -> dict[str, Any]:
    """What is told of it; nothing before a worker has."""
    return next((one for one in stand.show("targets") if one["target"].startswith(f"{provider}/")), NOTHING)


@pytest.mark.parametrize("provider", ["demo", "demo-an"])
def test_a_limit_of_a_minute_is_learned(counted: Stand, provider: str) -> None:
    """Twice as many as there may be: the provider refuses none, for it is not asked."""
    answers = [counted.ask(ask_for(provider, number % 2 == 1)) for number in range(2 * PER_MINUTE)]
    refused = [answer for answer in answers if answer.status != 200]
    assert len(refused) < len(answers) - 2
    assert counted.counts(counted.called(provider))["refused_429"] == 0
    assert all(answer.get(b"x-should-retry") == b"true" for answer in refused)
    if provider == "demo":  # Anthropic's moments are whole seconds: for a few requests they do not tell
        wait_for(
            lambda: target(counted, provider)["limits"] == {"requests": PER_MINUTE},
            lambda: f"{target(counted, provider)}",
        )


def moment(seconds: float) -> str:
    """In RFC 3339."""
    at = datetime.datetime.fromtimestamp(time.time() + seconds, datetime.UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_the_last_request_is_the_last(counted: Stand, provider: str) -> None:
    """The provider says that none is left, of whatever it counts by, and hears of nobody until the reset."""
    seen: list[bytes] = []

    def answer(connection: UpstreamConnection, request: SeenRequest) -> None:
        seen.append(request.target)
        if provider == "openai":
            lines = (
                "x-ratelimit-limit-requests: 10\r\nx-ratelimit-remaining-requests: 0\r\n"
                f"x-ratelimit-reset-requests: {RESET_S}s\r\n"
            )
        else:
            lines = (
                "anthropic-ratelimit-requests-limit: 10\r\nanthropic-ratelimit-requests-remaining: 0\r\n"
                f"anthropic-ratelimit-requests-reset: {moment(RESET_S)}\r\n"
            )
        body = json.dumps(ANSWERS[provider]).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{lines}content-length: {len(body)}\r\n\r\n"
        connection.send(head.encode() + body)

    counted.play(answer)
    assert counted.ask(ask_for(provider)).status == 200
    for path in (CHAT, MESSAGES):
        refused = counted.ask(ask_for(provider), path)
        assert refused.status in (503, 529), refused
        assert b"edgeq-reason=upstream_rate_limit" in (refused.get(b"proxy-status") or b"")
        assert 1 <= int(refused.get(b"retry-after") or b"0") <= RESET_S + 1
    assert len(seen) == 1
    wait_for(lambda: 0 < target(counted, provider)["paused_s"] <= RESET_S, lambda: f"{target(counted, provider)}")
