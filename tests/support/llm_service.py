"""What an SDK talks to in a test: the demo provider itself, or edgeq before it, with every model behind each dialect.

Tests are the same for all: they say how the provider shall behave by a name of `BEHAVIOURS`, and get a model that does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from tests.support import demo_llm, gateway
from tests.support.demo_llm import Provider

DIRECT: Final = "direct"
"""No gateway: the provider speaks whatever the client speaks."""
DIALECTS: Final = {"openai": "/v1", "anthropic": "/v1", "gemini": "/v1beta"}
"""Of upstreams, with the path of their API."""
KEY: Final = "sk-test-sdk"

BEHAVIOURS: Final = {
    "plain": "tokens=8",
    "echo": "say=echo",
    "show": "say=show",
    "thinks": "think=3,tokens=5",
    "cached": "input=100,cached=60,tokens=5",
    "two-tools": "tools=2",
    "one-tool": "tools=1",
    "refuses": "stop=refusal",
    "paced": "rate=2000,tokens=20",
    "split": "split=5,crlf,tokens=8",
    "fails-inside": "fail=6,tokens=8,rate=10",
    "cut-inside": "cut=6,tokens=8,rate=10",
    "cut-whole": "cut=1,tokens=8",
    "hangs": "hang=4,tokens=8",
    "400": "error=400",
    "401": "error=401",
    "429": "error=429,retry_after=2.5",
    "quota": "error=quota",
    "500": "error=500",
    "503": "error=503,retry_after=3",
    "529": "error=529,retry_after=3",
    "429-twice": "error=429,retry_after=2.5,times=2",
    "503-once": "error=503,retry_after=3,times=1",
    "529-once": "error=529,retry_after=3,times=1",
}


@dataclass(slots=True)
class Service:
    """One of them."""

    upstream: str
    """DIRECT, or the dialect of the provider behind the gateway."""
    origin: str
    """Before the paths: "http://127.0.0.1:8080"."""
    provider: Provider

    @property
    def openai_url(self) -> str:
        return f"{self.origin}/v1"

    @property
    def anthropic_url(self) -> str:
        return self.origin

    def model(self, behaviour: str) -> str:
        """The name of a model that behaves so."""
        return f"mock/{BEHAVIOURS[behaviour]}" if self.upstream == DIRECT else f"{behaviour}-{self.upstream}"

    def answers_as(self, behaviour: str) -> tuple[str, ...]:
        """What an answer may call its model: what was asked for, or what the provider calls it."""
        return self.model(behaviour), f"mock/{BEHAVIOURS[behaviour]}"

    def counts(self, behaviour: str) -> dict[str, int]:
        """What the provider has counted for a model, of all keys together."""
        total: dict[str, int] = {}
        for name, counts in self.provider.stats().items():
            if name.partition(" ")[2] == f"mock/{BEHAVIOURS[behaviour]}":
                for each, count in counts.items():
                    total[each] = total.get(each, 0) + count
        return total


def configuration(port: int) -> dict[str, Any]:
    """The tables of models: every behaviour behind every dialect, all of them at the provider on `port`."""
    providers: dict[str, Any] = {}
    models: dict[str, Any] = {}
    for dialect, path in DIALECTS.items():
        for behaviour, directives in BEHAVIOURS.items():
            # A refusal may pause a whole key, so who refuses has one of his own.
            provider = f"mock-{dialect}-{behaviour}" if "error=" in directives else f"mock-{dialect}"
            providers[provider] = {
                "url": f"http://127.0.0.1:{port}{path}",
                "dialect": dialect,
                "keys": [f"sk-{provider}"],
                "breaker": {"min_requests": 1_000_000},
            }
            # A name with a slash of its own is Gemini's only with all of its path.
            name = f"models/mock/{directives}" if dialect == "gemini" else f"mock/{directives}"
            models[f"{behaviour}-{dialect}"] = {"targets": [{"provider": provider, "model": name}]}
    route = {"name": "llm", "match": {"path": "/v1/*"}, "llm": {"attempts": 1, "keepalive": 0}}
    return {"provider": providers, "model": models, "route": [route]}


@contextlib.contextmanager
def services(change: Callable[[dict[str, Any]], None] = lambda _: None) -> Iterator[dict[str, Service]]:
    """By upstream: DIRECT and each dialect; one provider and one gateway for all of them.

    `change`: what a test wants otherwise in the tables of `configuration`.
    """
    with demo_llm.running() as provider:
        tables = configuration(provider.port)
        change(tables)
        settings = gateway.Settings(extra=tables)
        with gateway.running(provider.port, settings) as found:
            origin = "http://{}:{}".format(*found.address)
            made = {dialect: Service(dialect, origin, provider) for dialect in DIALECTS}
            yield {DIRECT: Service(DIRECT, provider.url, provider), **made}
