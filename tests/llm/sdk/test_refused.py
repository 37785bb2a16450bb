"""What the SDKs do when edgeq refuses them: they come again when they were told to, or not at all.

What was told stands in the answers, what they would sleep in a clock that only takes notes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import openai
import pytest

from tests.llm.sdk.clock import Clock
from tests.llm.sdk.support import HELLO
from tests.support import llm_service
from tests.support.llm_service import KEY, Service

Told = list[Any]
"""Headers of each answer, in order."""


def keep(told: Told) -> Callable[[Any], None]:
    """A hook of the HTTP library: what each answer's head says."""
    return lambda response: told.append(response.headers)


@contextmanager
def openai_sdk(service: Service, told: Told) -> Iterator[Callable[[str], object]]:
    """Ask a model by OpenAI's SDK, with its own retries."""
    with openai.OpenAI(api_key=KEY, base_url=service.openai_url) as client:
        client._client.event_hooks = {"response": [keep(told)]}
        yield lambda behaviour: client.chat.completions.create(model=service.model(behaviour), messages=HELLO)


@contextmanager
def anthropic_sdk(service: Service, told: Told) -> Iterator[Callable[[str], object]]:
    """The same by Anthropic's."""
    with anthropic.Anthropic(api_key=KEY, base_url=service.anthropic_url) as client:
        client._client.event_hooks = {"response": [keep(told)]}
        yield lambda behaviour: client.messages.create(model=service.model(behaviour), max_tokens=9, messages=HELLO)


SDKS = (openai_sdk, anthropic_sdk)
ERRORS = (openai.APIStatusError, anthropic.APIStatusError)
Sdk = Any


def waits(told: Told) -> list[float]:
    """What the refusals say: exactly, and in whole seconds never less."""
    for headers in told:
        assert 0 < float(headers["retry-after-ms"]) <= 60_000
        assert int(headers["retry-after"]) * 1000 >= float(headers["retry-after-ms"])
        assert headers["x-should-retry"] == "true"
    return [float(headers["retry-after-ms"]) / 1000 for headers in told]


def status_of(caught: pytest.ExceptionInfo[Any]) -> int:
    """Both SDKs' errors have one."""
    status: int = caught.value.status_code
    return status


@pytest.mark.parametrize("sdk", SDKS)
def test_a_rate_of_the_tenant(sdk: Sdk, clock: Clock) -> None:
    """Our 429: they wait what we say, to the millisecond, and no longer than a minute."""

    def two_a_minute(tables: dict[str, Any]) -> None:
        tables["route"][0]["llm"]["limits"] = {"requests_per_minute": 2}

    told: Told = []
    with llm_service.services(two_a_minute) as services, sdk(services["openai"], told) as ask:
        assert ask("plain")
        assert ask("plain")
        told.clear()
        with pytest.raises(ERRORS) as caught:
            ask("plain")
        assert services["openai"].counts("plain")["requests"] == 2
    assert status_of(caught) == 429
    assert len(told) == 3
    assert clock.slept_s == waits(told)[:2]
    # One each half minute; the clock stands still, and who comes before he was told to is one more in the line.
    assert 20 < clock.slept_s[0] <= 30 < clock.slept_s[1] <= 60


@pytest.mark.parametrize("sdk", SDKS)
def test_an_upstream_that_is_full(sdk: Sdk, clock: Clock) -> None:
    """Our 503 (529 for Anthropic's SDK), of a queue: the same; and none of it reaches the provider."""

    def one_place(tables: dict[str, Any]) -> None:
        tables["provider"]["mock-openai"] |= {"limit": 1, "queue": {"max": 1, "timeout": "50ms"}}

    told: Told = []
    with (
        llm_service.services(one_place) as services,
        openai.OpenAI(api_key=KEY, base_url=services["openai"].openai_url) as other,
        sdk(services["openai"], told) as ask,
    ):
        stream = other.chat.completions.create(model=services["openai"].model("hangs"), messages=HELLO, stream=True)
        next(iter(stream))
        with pytest.raises(ERRORS) as caught:
            ask("plain")
        stream.close()
        assert services["openai"].counts("plain") == {}
    assert status_of(caught) == (503 if sdk is openai_sdk else 529)
    assert len(told) == 3
    assert clock.slept_s == waits(told)[:2]


def spend(ask: Callable[[str], object]) -> None:
    """Ask until the money must be gone."""
    for _ in range(10):
        ask("plain")


@pytest.mark.parametrize("sdk", SDKS)
def test_money_that_is_gone(sdk: Sdk, clock: Clock) -> None:
    """No waiting heals it, so they are told not to come again, and do not."""

    def poor(tables: dict[str, Any]) -> None:
        tables["route"][0]["llm"]["limits"] = {"money_per_day": 0.001}
        for model in tables["model"].values():
            model["targets"][0]["price"] = {"input": 100.0, "output": 100.0}

    told: Told = []
    with llm_service.services(poor) as services, sdk(services["openai"], told) as ask, pytest.raises(ERRORS) as caught:
        spend(ask)
    assert status_of(caught) in (402, 429)
    assert told[-1]["x-should-retry"] == "false"
    assert clock.slept_s == []


@pytest.mark.parametrize("sdk", SDKS)
def test_an_account_at_the_provider_without_credit(sdk: Sdk, clock: Clock) -> None:
    """Nobody pays within the two minutes that they would sleep: who is told waits for nothing."""
    told: Told = []
    with llm_service.services() as services, sdk(services["openai"], told) as ask:
        for _ in range(2):  # of the provider, and while its key is left alone
            with pytest.raises(ERRORS) as caught:
                ask("quota")
            assert status_of(caught) in (503, 529)
    assert [one["x-should-retry"] for one in told] == ["false"] * 2
    assert clock.slept_s == []


@pytest.mark.parametrize("sdk", SDKS)
def test_a_provider_that_refuses_once(sdk: Sdk, clock: Clock) -> None:
    """Whoever tries again, edgeq or the SDK: the answer comes, and nobody waits longer than the provider has said."""
    told: Told = []
    with llm_service.services() as services, sdk(services["openai"], told) as ask:
        assert ask("503-once")
    assert all(seconds <= 4 for seconds in clock.slept_s)
