"""What the SDKs do when they are refused: how often they come again, and how long they wait before.

The times are those that they would sleep: their module `time` is replaced by one that only takes notes.
"""

from __future__ import annotations

import anthropic
import openai
import pytest

from tests.llm.sdk.clock import Clock
from tests.llm.sdk.support import HELLO
from tests.support import demo_llm
from tests.support.llm_service import DIRECT, KEY, Service


@pytest.fixture
def alone(services: dict[str, Service]) -> Service:
    """The provider itself."""
    return services[DIRECT]


def test_openai_waits_what_a_429_says(alone: Service, clock: Clock) -> None:
    """To the millisecond, by retry-after-ms; twice, then it is answered."""
    with openai.OpenAI(api_key=f"{KEY}-1", base_url=alone.openai_url) as client:
        assert client.chat.completions.create(model=alone.model("429-twice"), messages=HELLO).choices
    assert clock.slept_s == [2.5, 2.5]


def test_anthropic_waits_what_a_429_says(alone: Service, clock: Clock) -> None:
    """By retry-after, in whole seconds as Anthropic sends it."""
    with anthropic.Anthropic(api_key=f"{KEY}-2", base_url=alone.anthropic_url) as client:
        assert client.messages.create(model=alone.model("429-twice"), max_tokens=9, messages=HELLO).content
    assert clock.slept_s == [3, 3]


def test_both_wait_what_an_overloaded_provider_says(alone: Service, clock: Clock) -> None:
    """503 and 529 are tried again, too."""
    with openai.OpenAI(api_key=f"{KEY}-3", base_url=alone.openai_url) as client:
        assert client.chat.completions.create(model=alone.model("503-once"), messages=HELLO).choices
    with anthropic.Anthropic(api_key=f"{KEY}-3", base_url=alone.anthropic_url) as other:
        assert other.messages.create(model=alone.model("529-once"), max_tokens=9, messages=HELLO).content
    assert clock.slept_s == [3, 3]


def test_they_give_up_after_two_retries(alone: Service, clock: Clock) -> None:
    """Three requests arrive, then the caller gets the error."""
    with openai.OpenAI(api_key=f"{KEY}-4", base_url=alone.openai_url) as client, pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model=alone.model("429"), messages=HELLO)
    assert clock.slept_s == [2.5, 2.5]


def test_without_a_hint_they_back_off(alone: Service, clock: Clock) -> None:
    """Half a second, then a second, each up to a quarter shorter."""
    with openai.OpenAI(api_key=KEY, base_url=alone.openai_url) as client, pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model=alone.model("500"), messages=HELLO)
    with (
        anthropic.Anthropic(api_key=KEY, base_url=alone.anthropic_url) as other,
        pytest.raises(anthropic.InternalServerError),
    ):
        other.messages.create(model=alone.model("500"), max_tokens=9, messages=HELLO)
    for first, second in (clock.slept_s[:2], clock.slept_s[2:]):
        assert 0.375 <= first <= 0.5
        assert 0.75 <= second <= 1.0


def test_a_wrong_request_is_not_tried_again(alone: Service, clock: Clock) -> None:
    """400 is final."""
    with openai.OpenAI(api_key=KEY, base_url=alone.openai_url) as client, pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=alone.model("400"), messages=HELLO)
    assert clock.slept_s == []


def test_a_real_limit_tells_the_truth(clock: Clock) -> None:
    """Passed, it tells when there will be room; nobody has to guess."""
    with (
        demo_llm.running("tokens=50,input=50", tokens_per_minute=120) as provider,
        openai.OpenAI(api_key=KEY, base_url=f"{provider.url}/v1") as client,
    ):
        assert client.chat.completions.create(model="demo", messages=HELLO).choices
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(model="demo", messages=HELLO)
        counts = provider.stats()[f"{KEY} demo"]
    assert len(clock.slept_s) == 2
    assert all(35 <= seconds <= 40 for seconds in clock.slept_s)  # 80 tokens at 120 a minute
    assert (counts["requests"], counts["refused_429"]) == (4, 3)
