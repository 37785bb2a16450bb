"""Fields of limits: the caller's tightest, in his dialect, and what we write is what we read of others."""

from __future__ import annotations

import calendar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.config.schema_llm import TokenLimits
from edgeq.llm.dialects.base import ANTHROPIC, OPENAI, RESPONSES
from edgeq.llm.estimate import Estimate
from edgeq.llm.ledger import Ledger, reserve
from edgeq.llm.limit_headers import go_duration, header_lines
from edgeq.llm.meter import KEY, TENANT, Meter
from edgeq.llm.provider_limits import INPUT, REQUESTS, TOKENS, go_duration_s, hear
from edgeq.policy.rate import LocalArrivals

NOW = 1000.0
WALL = float(calendar.timegm((2026, 11, 26, 12, 0, 0)))


def used() -> list[Meter]:
    ledger = Ledger(LocalArrivals())
    ledger.tick(NOW, WALL)
    tenant = ledger.meter(TENANT, "acme", TokenLimits(tokens_per_minute=10_000, requests_per_minute=100))
    key = ledger.meter(KEY, "k", TokenLimits(tokens_per_minute=6000, input_tokens_per_minute=3000))
    reserve([tenant, key], Estimate(1000, 2000), NOW)
    return [tenant, key]


def test_openai() -> None:
    """Requests of the tenant, tokens of his key, of which less is left."""
    lines = header_lines(OPENAI, used(), NOW).decode().split("\r\n")
    assert lines == [
        "x-ratelimit-limit-requests: 100",
        "x-ratelimit-remaining-requests: 99",
        "x-ratelimit-reset-requests: 600ms",
        "x-ratelimit-limit-tokens: 6000",
        "x-ratelimit-remaining-tokens: 3000",
        "x-ratelimit-reset-tokens: 30s",
        "",
    ]


def test_anthropic() -> None:
    """With the limits of input and output apart."""
    lines = header_lines(ANTHROPIC, used(), NOW).decode().split("\r\n")
    assert lines[3:] == [
        "anthropic-ratelimit-tokens-limit: 6000",
        "anthropic-ratelimit-tokens-remaining: 3000",
        "anthropic-ratelimit-tokens-reset: 2026-11-26T12:00:30Z",
        "anthropic-ratelimit-input-tokens-limit: 3000",
        "anthropic-ratelimit-input-tokens-remaining: 2000",
        "anthropic-ratelimit-input-tokens-reset: 2026-11-26T12:00:20Z",
        "",
    ]


def test_no_limits_say_nothing() -> None:
    """Not even zeros."""
    ledger = Ledger(LocalArrivals())
    assert header_lines(OPENAI, [ledger.meter(TENANT, "acme", TokenLimits())], NOW) == b""


@pytest.mark.parametrize("dialect", [OPENAI, RESPONSES, ANTHROPIC])
def test_we_understand_what_we_say(dialect: str) -> None:
    """A gateway behind a gateway."""
    heard = hear(b"HTTP/1.1 200 OK\r\n" + header_lines(dialect, used(), NOW), WALL)
    assert heard is not None
    assert (heard.limits[REQUESTS], heard.limits[TOKENS]) == (100, 6000)
    assert (heard.remaining[REQUESTS], heard.remaining[TOKENS]) == (99, 3000)
    assert heard.resets_s[TOKENS] == pytest.approx(30.0)
    assert heard.remaining[INPUT] == (2000 if dialect == ANTHROPIC else -1)


@given(st.integers(0, 10**8))
def test_durations_are_gos(millis: int) -> None:
    """Read back they are the same."""
    assert go_duration_s(go_duration(millis / 1000)) == pytest.approx(millis / 1000, abs=0.0011)


def test_durations() -> None:
    """As in OpenAI's documentation."""
    written = [go_duration(seconds).decode() for seconds in (0, 0.12, 1, 1.5, 360, 3600.5)]
    assert written == ["0s", "120ms", "1s", "1.5s", "6m0s", "1h0m0.5s"]
