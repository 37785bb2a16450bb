"""Anthropic's SDK with messages, before every dialect of upstream."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest

from tests.llm.sdk.support import ARGUMENTS, CLAUDE_TOOLS, HELLO, IMAGE, NAMES, SYSTEM, TEXT, THOUGHT, shown
from tests.support.llm_service import DIRECT, Service

MAX = 1000


def text_of(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_a_whole_answer(claude: anthropic.Anthropic, service: Service) -> None:
    """Text, reason, usage."""
    answer = claude.messages.create(model=service.model("plain"), max_tokens=MAX, messages=HELLO)
    assert text_of(answer) == TEXT
    assert (answer.role, answer.type, answer.stop_reason) == ("assistant", "message", "end_turn")
    assert answer.usage.output_tokens == 8
    assert answer.usage.input_tokens > 0
    assert answer.model in service.answers_as("plain")


@pytest.mark.parametrize("behaviour", ["plain", "split"])
def test_a_stream(claude: anthropic.Anthropic, service: Service, behaviour: str) -> None:
    """The SDK's own collector puts it together, and is strict with the order of events."""
    with claude.messages.stream(model=service.model(behaviour), max_tokens=MAX, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        answer = stream.get_final_message()
    assert text == text_of(answer) == TEXT
    assert answer.stop_reason == "end_turn"
    assert answer.usage.output_tokens == 8


def test_events_come_in_order(claude: anthropic.Anthropic, service: Service) -> None:
    """One block after another, each begun and ended, between the message's start and stop."""
    with claude.messages.create(
        model=service.model("two-tools"), max_tokens=MAX, messages=HELLO, tools=CLAUDE_TOOLS, stream=True
    ) as stream:
        events = list(stream)
    kinds = [event.type for event in events if event.type != "content_block_delta"]
    blocks = kinds[1:-2]
    assert [kinds[0], *kinds[-2:]] == ["message_start", "message_delta", "message_stop"]
    assert blocks == ["content_block_start", "content_block_stop"] * (len(blocks) // 2)
    indexes = [event.index for event in events if event.type == "content_block_start"]
    assert indexes == list(range(len(blocks) // 2))  # more than two, if thoughts come between
    starts = [event.content_block for event in events if event.type == "content_block_start"]
    assert [block.name for block in starts if block.type == "tool_use"] == list(NAMES)


def test_usage_with_a_cache(claude: anthropic.Anthropic, service: Service) -> None:
    """Input is without what came from the cache."""
    answer = claude.messages.create(model=service.model("cached"), max_tokens=MAX, messages=HELLO)
    assert (answer.usage.input_tokens, answer.usage.cache_read_input_tokens) == (40, 60)
    with claude.messages.stream(model=service.model("cached"), max_tokens=MAX, messages=HELLO) as stream:
        usage = stream.get_final_message().usage
    assert (usage.output_tokens, usage.cache_read_input_tokens) == (5, 60)


def test_max_tokens(claude: anthropic.Anthropic, service: Service) -> None:
    """It cuts the answer, and the answer says so."""
    answer = claude.messages.create(model=service.model("plain"), max_tokens=3, messages=HELLO)
    assert (answer.stop_reason, answer.usage.output_tokens) == ("max_tokens", 3)


@pytest.mark.parametrize("streamed", [False, True])
def test_tools(claude: anthropic.Anthropic, service: Service, streamed: bool) -> None:
    """Two calls at once, their results in the next turn, and then an answer in words."""
    model = service.model("two-tools")
    first: anthropic.types.Message
    if streamed:
        with claude.messages.stream(model=model, max_tokens=MAX, messages=HELLO, tools=CLAUDE_TOOLS) as stream:
            first = stream.get_final_message()
    else:
        first = claude.messages.create(model=model, max_tokens=MAX, messages=HELLO, tools=CLAUDE_TOOLS)
    assert first.stop_reason == "tool_use"
    calls = [block for block in first.content if block.type == "tool_use"]
    assert [call.name for call in calls] == list(NAMES)
    assert [call.input for call in calls] == [ARGUMENTS] * 2
    assert len({call.id for call in calls}) == 2
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": f"{call.name}: 7"} for call in calls]
    used = [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.input} for call in calls]
    said: list[Any] = [*HELLO, {"role": "assistant", "content": used}, {"role": "user", "content": results}]
    second = claude.messages.create(model=model, max_tokens=MAX, messages=said, tools=CLAUDE_TOOLS)
    assert second.stop_reason == "end_turn"
    assert text_of(second)


@pytest.mark.parametrize("streamed", [False, True])
def test_the_sdks_own_runner_of_tools(claude: anthropic.Anthropic, service: Service, streamed: bool) -> None:
    """It asks the server to hold the conversation, hears that nobody does, and sends all of it, as it must."""

    @anthropic.beta_tool
    def weather(city: str, days: int = 1) -> str:
        """The weather."""
        return f"{city}: sunny for {days} days"

    runner: Any = claude.beta.messages.tool_runner(
        model=service.model("two-tools"), max_tokens=MAX, messages=HELLO, tools=[weather], stream=streamed
    )
    last = runner.until_done()
    assert last.stop_reason == "end_turn"
    assert [block.type for block in last.content] == ["text"]


def test_a_tool_that_must_be_called(claude: anthropic.Anthropic, service: Service) -> None:
    """By name, and any of them."""
    choice: Any
    for choice, found in (({"type": "tool", "name": "tides"}, "tides"), ({"type": "any"}, "weather")):
        answer = claude.messages.create(
            model=service.model("plain"),
            max_tokens=MAX,
            messages=HELLO,
            tools=CLAUDE_TOOLS,
            tool_choice=choice,
        )
        assert [block.name for block in answer.content if block.type == "tool_use"] == [found]


def test_an_image_and_a_system_prompt(claude: anthropic.Anthropic, service: Service) -> None:
    """Both arrive at the provider, in whatever dialect."""
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": IMAGE}}
    said: list[Any] = [{"role": "user", "content": [image, {"type": "text", "text": "what is this?"}]}]
    answer = claude.messages.create(
        model=service.model("show"),
        max_tokens=100_000,
        messages=said,
        system=SYSTEM,
    )
    arrived = json.dumps(shown(text_of(answer)))
    assert IMAGE in arrived
    assert SYSTEM in arrived
    assert "what is this?" in arrived


def test_thinking(claude: anthropic.Anthropic, service: Service) -> None:
    """Thoughts come in a block of their own, before the text."""
    with claude.messages.stream(model=service.model("thinks"), max_tokens=MAX, messages=HELLO) as stream:
        answer = stream.get_final_message()
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert [block.thinking for block in answer.content if block.type == "thinking"] == [THOUGHT]


def test_a_refusal(claude: anthropic.Anthropic, service: Service) -> None:
    """The reason is told, whatever it is called upstream."""
    answer = claude.messages.create(model=service.model("refuses"), max_tokens=MAX, messages=HELLO)
    assert answer.stop_reason == "refusal"


def test_count_tokens(claude: anthropic.Anthropic, service: Service) -> None:
    """A number, also where the provider has no such operation."""
    assert claude.messages.count_tokens(model=service.model("plain"), messages=HELLO).input_tokens > 0


def test_models(claude: anthropic.Anthropic) -> None:
    """The list in the shape that this SDK reads."""
    assert all(model.type == "model" for model in claude.models.list().data)


def test_errors(claude: anthropic.Anthropic, service: Service) -> None:
    """The SDK's own class for each."""
    behind = service.upstream != DIRECT
    # A provider that refuses our key, or has no money of ours, is no fault of the client's: nothing for it to correct.
    behind_it = {"400": (400,), "401": (500, 502), "429": (429, 529), "quota": (529,), "503": (529,), "529": (529,)}
    itself = {"400": (400,), "401": (401,), "429": (429,), "quota": (402,), "503": (503,), "529": (529,)}
    for behaviour, statuses in (behind_it if behind else itself).items():
        with pytest.raises(anthropic.APIStatusError) as caught:
            claude.messages.create(model=service.model(behaviour), max_tokens=MAX, messages=HELLO)
        assert caught.value.status_code in statuses, (behaviour, caught.value)
        body: Any = caught.value.body
        assert body["type"] == "error", behaviour


def read(claude: anthropic.Anthropic, model: str) -> None:
    """Read a stream to its end."""
    with claude.messages.stream(model=model, max_tokens=MAX, messages=HELLO) as stream:
        stream.until_done()


def test_an_error_inside_a_stream(claude: anthropic.Anthropic, service: Service) -> None:
    """The SDK raises, and does not take it for an end."""
    with pytest.raises(anthropic.APIStatusError):
        read(claude, service.model("fails-inside"))


def test_a_stream_that_is_cut(claude: anthropic.Anthropic, service: Service) -> None:
    """Never as if it were complete: an error event from a gateway; directly, the HTTP library's own."""
    with pytest.raises(Exception, match=r".") as caught:
        read(claude, service.model("cut-inside"))
    assert isinstance(caught.value, anthropic.APIStatusError) == (service.upstream != DIRECT)


def test_every_answer_has_the_id_that_the_sdk_looks_for(claude: anthropic.Anthropic, service: Service) -> None:
    """Good, streamed or refused, by us or by the provider: the SDK hands it on, for whoever complains."""
    ask = claude.messages.with_raw_response.create
    whole = ask(model=service.model("plain"), max_tokens=MAX, messages=HELLO)
    assert whole.parse()._request_id == whole.headers["request-id"]
    heads = [whole.headers]
    with claude.messages.stream(model=service.model("plain"), max_tokens=MAX, messages=HELLO) as stream:
        assert stream.request_id == stream.response.headers["request-id"]
        heads.append(stream.response.headers)
    for model in (service.model("400"), "mock/error=404" if service.upstream == DIRECT else "none"):
        with pytest.raises(anthropic.APIStatusError) as caught:
            claude.messages.create(model=model, max_tokens=MAX, messages=HELLO)
        body = caught.value.body
        assert isinstance(body, dict)
        assert caught.value.request_id == body["request_id"] == caught.value.response.headers["request-id"]
        heads.append(caught.value.response.headers)
    if service.upstream != DIRECT:
        assert all(one["request-id"] == one["x-request-id"] for one in heads)
