"""The SDKs' asynchronous clients, unchanged, before every dialect of upstream: whole answers and streams."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import anthropic
import openai
import pytest

from tests.llm.sdk.support import HELLO, TEXT
from tests.support.llm_service import KEY, Service

pytestmark = pytest.mark.usefixtures("collected_between_tests")

MAX = 1000


@contextlib.asynccontextmanager
async def openai_of(service: Service) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's client, which tries once."""
    async with openai.AsyncOpenAI(api_key=KEY, base_url=service.openai_url, max_retries=0, timeout=60) as made:
        yield made


@contextlib.asynccontextmanager
async def anthropic_of(service: Service) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """Anthropic's, the same."""
    async with anthropic.AsyncAnthropic(api_key=KEY, base_url=service.anthropic_url, max_retries=0, timeout=60) as made:
        yield made


async def chat(client: openai.AsyncOpenAI, model: str) -> tuple[str, int]:
    """Text and tokens of a whole completion."""
    answer = await client.chat.completions.create(model=model, messages=HELLO)
    assert answer.usage is not None
    return answer.choices[0].message.content or "", answer.usage.completion_tokens


async def response(client: openai.AsyncOpenAI, model: str) -> tuple[str, int]:
    """Those of a whole response."""
    answer = await client.responses.create(model=model, input="hello")
    assert answer.usage is not None
    return answer.output_text, answer.usage.output_tokens


async def message(client: anthropic.AsyncAnthropic, model: str) -> tuple[str, int]:
    """Those of a whole message."""
    answer = await client.messages.create(model=model, max_tokens=MAX, messages=HELLO)
    return "".join(block.text for block in answer.content if block.type == "text"), answer.usage.output_tokens


async def streamed_chat(client: openai.AsyncOpenAI, model: str) -> tuple[str, int]:
    """Those of a completion's chunks."""
    text, tokens = "", 0
    async with await client.chat.completions.create(
        model=model, messages=HELLO, stream=True, stream_options={"include_usage": True}
    ) as stream:
        async for chunk in stream:
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
            tokens = chunk.usage.completion_tokens if chunk.usage else tokens
    return text, tokens


async def streamed_response(client: openai.AsyncOpenAI, model: str) -> tuple[str, int]:
    """Those of a response, as the SDK's own collector puts it together."""
    async with client.responses.stream(model=model, input="hello") as stream:
        text = "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])
        answer = await stream.get_final_response()
    assert (answer.output_text, answer.status) == (text, "completed")
    assert answer.usage is not None
    return text, answer.usage.output_tokens


async def streamed_message(client: anthropic.AsyncAnthropic, model: str) -> tuple[str, int]:
    """Those of a message, as the SDK's own collector puts it together."""
    async with client.messages.stream(model=model, max_tokens=MAX, messages=HELLO) as stream:
        text = "".join([part async for part in stream.text_stream])
        answer = await stream.get_final_message()
    assert answer.stop_reason == "end_turn"
    return text, answer.usage.output_tokens


@pytest.mark.parametrize("behaviour", ["plain", "split"])
def test_all_at_once(service: Service, behaviour: str) -> None:
    """Every kind of answer some times over, by one client of each SDK: each is whole, and nobody gets another's."""

    async def ask() -> list[tuple[str, int]]:
        model = service.model(behaviour)
        async with openai_of(service) as client, anthropic_of(service) as claude:
            by_openai = [one(client, model) for one in (chat, response, streamed_chat, streamed_response) * 4]
            by_anthropic = [one(claude, model) for one in (message, streamed_message) * 4]
            return await asyncio.gather(*by_openai, *by_anthropic)

    assert set(asyncio.run(ask())) == {(TEXT, 8)}


def test_an_answer_of_ones_own(service: Service) -> None:
    """Of many at once, by one client, each is the answer to its question."""

    async def ask() -> dict[str, str | None]:
        async with openai_of(service) as client:

            async def one(text: str) -> str | None:
                answer = await client.chat.completions.create(
                    model=service.model("echo"), messages=[{"role": "user", "content": text}]
                )
                return answer.choices[0].message.content

            questions = [f"question {number}" for number in range(20)]
            return dict(zip(questions, await asyncio.gather(*map(one, questions)), strict=True))

    for question, answer in asyncio.run(ask()).items():
        assert answer is not None
        assert question in answer


@pytest.mark.parametrize(("behaviour", "error"), [("400", "BadRequestError"), ("fails-inside", "APIError")])
def test_errors(service: Service, behaviour: str, error: str) -> None:
    """The SDKs' own classes, before a stream and inside of one."""

    async def by_openai() -> None:
        async with openai_of(service) as client:
            await streamed_chat(client, service.model(behaviour))

    async def by_anthropic() -> None:
        async with anthropic_of(service) as client:
            await streamed_message(client, service.model(behaviour))

    with pytest.raises(getattr(openai, error)):
        asyncio.run(by_openai())
    with pytest.raises(getattr(anthropic, error)):
        asyncio.run(by_anthropic())
