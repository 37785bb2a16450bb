"""OpenAI's SDK with chat completions, before every dialect of upstream."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from tests.llm.sdk.support import ARGUMENTS, CHAT_TOOLS, HELLO, IMAGE, NAMES, SYSTEM, TEXT, THOUGHT, shown
from tests.support.llm_service import DIRECT, Service

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")


def test_a_whole_answer(client: openai.OpenAI, service: Service) -> None:
    """Text, reason, usage."""
    answer = client.chat.completions.create(model=service.model("plain"), messages=HELLO)
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8
    assert answer.model in service.answers_as("plain")
    assert answer.id


@pytest.mark.parametrize("behaviour", ["plain", "split"])
def test_a_stream(client: openai.OpenAI, service: Service, behaviour: str) -> None:
    """The same, bit by bit, without usage that nobody asked for."""
    with client.chat.completions.create(model=service.model(behaviour), messages=HELLO, stream=True) as stream:
        chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["stop"]
    assert all(chunk.usage is None for chunk in chunks)
    assert {chunk.model for chunk in chunks} <= set(service.answers_as(behaviour))
    assert len({chunk.id for chunk in chunks}) == 1


def test_usage_of_a_stream(client: openai.OpenAI, service: Service) -> None:
    """In one more chunk, without choices, as OpenAI sends it."""
    options: Any = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(
            model=service.model("cached"), messages=HELLO, stream=True, stream_options=options
        )
    )
    last = chunks.pop()
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (100, 5)
    assert last.usage.prompt_tokens_details is not None
    assert last.usage.prompt_tokens_details.cached_tokens == 60
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_with_a_cache(client: openai.OpenAI, service: Service) -> None:
    """Input is all input; what came from the cache is a part of it."""
    usage = client.chat.completions.create(model=service.model("cached"), messages=HELLO).usage
    assert usage is not None
    assert usage.prompt_tokens == 100
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 60


def test_max_tokens(client: openai.OpenAI, service: Service) -> None:
    """Either name of the limit cuts the answer, and it says so."""
    for limit in ({"max_tokens": 3}, {"max_completion_tokens": 3}):
        more: Any = limit
        answer = client.chat.completions.create(model=service.model("plain"), messages=HELLO, **more)
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.completion_tokens == 3


def test_tools(client: openai.OpenAI, service: Service) -> None:
    """Two calls at once, their results in the next turn, and then an answer in words."""
    model = service.model("two-tools")
    first = client.chat.completions.create(model=model, messages=HELLO, tools=CHAT_TOOLS)
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls"
    assert message.tool_calls is not None
    calls = [call for call in message.tool_calls if call.type == "function"]
    assert [call.function.name for call in calls] == list(NAMES)
    assert [json.loads(call.function.arguments) for call in calls] == [ARGUMENTS] * 2
    assert len({call.id for call in calls}) == 2
    results = [{"role": "tool", "tool_call_id": call.id, "content": f"{call.function.name}: 7"} for call in calls]
    said = [*HELLO, message.model_dump(exclude_none=True), *results]
    second = client.chat.completions.create(model=model, messages=said, tools=CHAT_TOOLS)
    assert second.choices[0].finish_reason == "stop"
    assert second.choices[0].message.content


def test_tools_in_a_stream(client: openai.OpenAI, service: Service) -> None:
    """Each call has its index, its id once, and arguments that add up."""
    with client.chat.completions.create(
        model=service.model("two-tools"), messages=HELLO, tools=CHAT_TOOLS, stream=True
    ) as stream:
        chunks = list(stream)
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    ids: dict[int, str] = {}
    for chunk in chunks:
        for call in chunk.choices[0].delta.tool_calls or []:
            assert call.function is not None
            names[call.index] = names.get(call.index, "") + (call.function.name or "")
            arguments[call.index] = arguments.get(call.index, "") + (call.function.arguments or "")
            ids[call.index] = ids.get(call.index, "") + (call.id or "")
    assert names == {0: NAMES[0], 1: NAMES[1]}
    assert [json.loads(text) for text in arguments.values()] == [ARGUMENTS] * 2
    assert len(set(ids.values())) == 2
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["tool_calls"]


def test_the_sdks_own_collector_of_streams(client: openai.OpenAI, service: Service) -> None:
    """`stream()` puts the pieces together again, and is strict with them."""
    with client.chat.completions.stream(model=service.model("two-tools"), messages=HELLO, tools=CHAT_TOOLS) as stream:
        answer = stream.get_final_completion()
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert [call.function.name for call in calls] == list(NAMES)


def test_a_tool_that_must_be_called(client: openai.OpenAI, service: Service) -> None:
    """By name, and any of them; one at a time if it is said."""
    choice: Any = {"type": "function", "function": {"name": "tides"}}
    for wanted, found in ((choice, ["tides"]), ("required", ["weather"])):
        kind: Any = wanted
        answer = client.chat.completions.create(
            model=service.model("plain"),
            messages=HELLO,
            tools=CHAT_TOOLS,
            tool_choice=kind,
        )
        calls = answer.choices[0].message.tool_calls or []
        assert [call.function.name for call in calls if call.type == "function"] == found
    answer = client.chat.completions.create(
        model=service.model("plain"), messages=HELLO, tools=CHAT_TOOLS, tool_choice="none"
    )
    assert answer.choices[0].message.content == TEXT


def test_an_image_and_a_system_prompt(client: openai.OpenAI, service: Service) -> None:
    """Both arrive at the provider, in whatever dialect."""
    url = f"data:image/png;base64,{IMAGE}"
    content: list[Any] = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    said: list[Any] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]
    answer = client.chat.completions.create(model=service.model("show"), messages=said, temperature=0.5)
    arrived = json.dumps(shown(answer.choices[0].message.content))
    assert IMAGE in arrived
    assert SYSTEM in arrived
    assert "what is this?" in arrived
    assert '"temperature": 0.5' in arrived


def test_reasoning(client: openai.OpenAI, service: Service) -> None:
    """Thoughts are not mixed with the text."""
    message = client.chat.completions.create(model=service.model("thinks"), messages=HELLO).choices[0].message
    assert message.content == "".join(TEXT.split(" ")[0:1]) + " " + " ".join(TEXT.split(" ")[1:5])
    with client.chat.completions.create(model=service.model("thinks"), messages=HELLO, stream=True) as stream:
        deltas = [chunk.choices[0].delta for chunk in stream]
    assert "".join(delta.content or "" for delta in deltas) == message.content
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == THOUGHT


def test_a_refusal(client: openai.OpenAI, service: Service) -> None:
    """The reason is told, whatever it is called upstream."""
    answer = client.chat.completions.create(model=service.model("refuses"), messages=HELLO)
    assert answer.choices[0].finish_reason == "content_filter"


def test_errors(client: openai.OpenAI, service: Service) -> None:
    """The SDK's own class for each, with a code."""
    behind = service.upstream != DIRECT
    # A provider that refuses our key, or has no money of ours, is no fault of the client's: nothing for it to correct.
    behind_it = {"400": (400,), "401": (502,), "429": (429, 503), "quota": (503,), "503": (503,), "529": (503,)}
    itself = {"400": (400,), "401": (401,), "429": (429,), "quota": (429,), "503": (503,), "529": (529,)}
    for behaviour, statuses in (behind_it if behind else itself).items():
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model=service.model(behaviour), messages=HELLO)
        assert caught.value.status_code in statuses, (behaviour, caught.value)
        if behind and behaviour in ("429", "503"):
            assert float(caught.value.response.headers["retry-after"]) > 0
        assert caught.value.body, behaviour


def test_a_model_that_does_not_exist(client: openai.OpenAI, service: Service) -> None:
    """404 from a gateway; the demo provider has all models, unless it is told."""
    if service.upstream == DIRECT:
        assert client.chat.completions.create(model="anything", messages=HELLO)
        return
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nobody", messages=HELLO)
    assert caught.value.code == "model_not_found"


def read(client: openai.OpenAI, model: str, seen: list[str]) -> None:
    """Read a stream to its end; what it says goes to `seen`, also if it fails."""
    with client.chat.completions.create(model=model, messages=HELLO, stream=True) as stream:
        for chunk in stream:
            seen += [choice.delta.content for choice in chunk.choices if choice.delta.content]


def test_an_error_inside_a_stream(client: openai.OpenAI, service: Service) -> None:
    """What has come has come; then the SDK raises, and does not take it for an end."""
    seen: list[str] = []
    with pytest.raises(openai.APIError):
        read(client, service.model("fails-inside"), seen)
    assert seen


def test_a_stream_that_is_cut(client: openai.OpenAI, service: Service) -> None:
    """Never as if it were complete: an error event from a gateway, a broken body from the provider itself."""
    seen: list[str] = []
    with pytest.raises(openai.APIError) as caught:
        read(client, service.model("cut-inside"), seen)
    assert isinstance(caught.value, openai.APIConnectionError) == (service.upstream == DIRECT)
    assert seen


def test_leaving_a_stream(client: openai.OpenAI, service: Service) -> None:
    """Who closes a stream early stops the provider's work."""
    before = service.counts("hangs").get("cancelled", 0)
    stream = client.chat.completions.create(model=service.model("hangs"), messages=HELLO, stream=True)
    next(iter(stream))
    stream.close()
    service.provider.wait_stats(
        lambda _: service.counts("hangs")["cancelled"] > before and not service.counts("hangs")["open"]
    )
