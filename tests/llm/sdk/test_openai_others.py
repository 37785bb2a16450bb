"""OpenAI's SDK with responses, embeddings and models."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import openai
import pytest

from tests.llm.sdk.support import ARGUMENTS, IMAGE, NAMES, RESPONSES_TOOLS, SYSTEM, TEXT, THOUGHT, shown
from tests.support.llm_service import DIRECT, Service


def test_a_response(client: openai.OpenAI, service: Service) -> None:
    """Text and usage."""
    answer = client.responses.create(model=service.model("plain"), input="hello")
    assert (answer.output_text, answer.status) == (TEXT, "completed")
    assert answer.usage is not None
    assert answer.usage.output_tokens == 8
    answer = client.responses.create(model=service.model("cached"), input="hello")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.input_tokens_details.cached_tokens) == (100, 60)


def test_a_response_as_a_stream(client: openai.OpenAI, service: Service) -> None:
    """Events with rising numbers; the last has all of it."""
    with client.responses.create(
        model=service.model("plain"), input="hello", stream=True, metadata={"a": "b"}, max_output_tokens=99
    ) as stream:
        events = list(stream)
    if service.upstream != DIRECT:
        told = [event.response for event in events if event.type in ("response.created", "response.completed")]
        assert [(one.metadata, one.max_output_tokens) for one in told] == [({"a": "b"}, 99)] * 2
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == TEXT
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == TEXT
    assert last.response.usage is not None
    assert last.response.usage.output_tokens == 8


def test_a_response_that_is_cut_short(client: openai.OpenAI, service: Service) -> None:
    """It is incomplete, and says why."""
    model = service.model("show")
    answer = client.responses.create(model=model, input="hello " * 100, max_output_tokens=16)
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize("streamed", [False, True])
def test_tools(client: openai.OpenAI, service: Service, streamed: bool) -> None:
    """Two calls at once, their results, and then an answer in words."""
    model = service.model("two-tools")
    if streamed:
        with client.responses.stream(model=model, input="hello", tools=RESPONSES_TOOLS) as stream:
            first: Any = stream.get_final_response()
    else:
        first = client.responses.create(model=model, input="hello", tools=RESPONSES_TOOLS)
    calls = [item for item in first.output if item.type == "function_call"]
    assert [call.name for call in calls] == list(NAMES)
    assert [json.loads(call.arguments) for call in calls] == [ARGUMENTS] * 2
    said: list[Any] = [{"role": "user", "content": "hello"}]
    said += [
        {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments}
        for call in calls
    ]
    said += [{"type": "function_call_output", "call_id": call.call_id, "output": "7"} for call in calls]
    second = client.responses.create(model=model, input=said, tools=RESPONSES_TOOLS)
    assert second.output_text


def test_an_image_and_instructions(client: openai.OpenAI, service: Service) -> None:
    """Both arrive at the provider, in whatever dialect."""
    content = [
        {"type": "input_text", "text": "what is this?"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{IMAGE}", "detail": "auto"},
    ]
    said: list[Any] = [{"role": "user", "content": content}]
    answer = client.responses.create(model=service.model("show"), input=said, instructions=SYSTEM)
    arrived = json.dumps(shown(answer.output_text))
    assert IMAGE in arrived
    assert SYSTEM in arrived


def test_reasoning(client: openai.OpenAI, service: Service) -> None:
    """An item of its own, before the message."""
    answer = client.responses.create(model=service.model("thinks"), input="hello")
    assert [item.type for item in answer.output] == ["reasoning", "message"]
    assert [item.summary[0].text for item in answer.output if item.type == "reasoning"] == [THOUGHT]


def test_errors(client: openai.OpenAI, service: Service) -> None:
    """Before a stream, and inside of one."""
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model=service.model("400"), input="hello")
    with pytest.raises(openai.APIStatusError) as caught:
        client.responses.create(model=service.model("429"), input="hello")
    assert caught.value.status_code in (429, 503)
    kinds: list[str] = []
    # An event of OpenAI's own form is handed on as any other; one with an object "error" is raised.
    with contextlib.suppress(openai.APIError):
        read(client, service.model("fails-inside"), kinds)
        assert kinds[-1] in ("error", "response.failed")
    assert kinds
    assert "response.completed" not in kinds


def read(client: openai.OpenAI, model: str, kinds: list[str]) -> None:
    """Read a stream to its end; its kinds of events go to `kinds`, also if it fails."""
    with client.responses.create(model=model, input="hello", stream=True) as stream:
        for event in stream:  # one by one: what came before an exception counts
            kinds += [event.type]


def test_embeddings(client: openai.OpenAI, service: Service) -> None:
    """As numbers and, as this SDK asks by itself, in base64; also where the provider is Gemini."""
    if service.upstream == "anthropic":
        with pytest.raises(openai.APIStatusError):  # it has none
            client.embeddings.create(model=service.model("plain"), input="a")
        return
    model = service.model("plain")
    packed = client.embeddings.create(model=model, input=["a", "b"], dimensions=8).data
    plain = client.embeddings.create(model=model, input=["a", "b"], dimensions=8, encoding_format="float").data
    assert [each.index for each in packed] == [0, 1]
    for one, other in zip(packed, plain, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert len(one.embedding) == 8


def test_models(client: openai.OpenAI) -> None:
    """The list in the shape that this SDK reads."""
    found = list(client.models.list())
    assert found
    assert all(model.object == "model" for model in found)
