"""The SDKs' helpers for answers of a given shape, before every dialect of upstream: whole and streamed."""

from __future__ import annotations

import json
from typing import Any, Literal

import anthropic
import openai
import pytest
from pydantic import BaseModel, Field

from tests.llm.sdk.support import HELLO
from tests.support.llm_service import Service

MAX = 100_000
TOOL: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
ARRIVED = {"openai": "json_schema", "anthropic": "json_schema", "gemini": "responseJsonSchema"}


class Shown(BaseModel):
    """Any object: the behaviour "show" answers with the request that has arrived."""


class Bound(BaseModel):
    """What one provider takes of a schema, and another one not."""

    age: int = Field(default=7, ge=1, le=120, description="Of years.")
    tags: dict[str, str] = {}
    name: str | None = Field(default=None, max_length=9)


class City(BaseModel):
    """That others refer to."""

    name: str
    people: int
    twin: City | None = None


class Journey(BaseModel):
    """Lists, references, one of several, and words of which one is meant."""

    cities: list[City]
    by: Literal["train", "ship"]
    price: float | None


def arrived(service: Service, text: str | None) -> bool:
    """The schema is in the request, in the words of the upstream."""
    assert text is not None
    return ARRIVED.get(service.upstream, "schema") in text and '"Shown"' in text


@pytest.mark.parametrize("streamed", [False, True])
def test_chat(client: openai.OpenAI, service: Service, streamed: bool) -> None:
    """`parse`, and the stream that parses."""
    model = service.model("show")
    if streamed:
        with client.chat.completions.stream(model=model, messages=HELLO, response_format=Shown) as stream:
            message = stream.get_final_completion().choices[0].message
    else:
        message = client.chat.completions.parse(model=model, messages=HELLO, response_format=Shown).choices[0].message
    assert message.parsed == Shown()
    assert arrived(service, message.content)


@pytest.mark.parametrize("streamed", [False, True])
def test_responses(client: openai.OpenAI, service: Service, streamed: bool) -> None:
    """The same."""
    model = service.model("show")
    if streamed:
        with client.responses.stream(model=model, input="hello", text_format=Shown) as stream:
            answer = stream.get_final_response()
    else:
        answer = client.responses.parse(model=model, input="hello", text_format=Shown)
    assert answer.output_parsed == Shown()
    assert arrived(service, answer.output_text)


@pytest.mark.parametrize("streamed", [False, True])
def test_messages(claude: anthropic.Anthropic, service: Service, streamed: bool) -> None:
    """The same."""
    model = service.model("show")
    if streamed:
        with claude.messages.stream(model=model, max_tokens=MAX, messages=HELLO, output_format=Shown) as stream:
            message = stream.get_final_message()
    else:
        message = claude.messages.parse(model=model, max_tokens=MAX, messages=HELLO, output_format=Shown)
    assert message.parsed_output == Shown()
    assert arrived(service, "".join(block.text for block in message.content if block.type == "text"))


def test_the_mock_answers_in_the_shape(client: openai.OpenAI, claude: anthropic.Anthropic, service: Service) -> None:
    """Whoever is asked, by whatever dialect: so typed answers can be tried without an account."""
    model = service.model("plain")
    chat = client.chat.completions.parse(model=model, messages=HELLO, response_format=Journey)
    answer = client.responses.parse(model=model, input="hello", text_format=Journey)
    message = claude.messages.parse(model=model, max_tokens=MAX, messages=HELLO, output_format=Journey)
    for found in (chat.choices[0].message.parsed, answer.output_parsed, message.parsed_output):
        assert found is not None
        assert (found.by, found.cities[0].name, found.cities[0].people) == ("train", "sample", 7)
    free = client.chat.completions.create(model=model, messages=HELLO, response_format={"type": "json_object"})
    if service.upstream != "anthropic":  # it has no word for that
        assert json.loads(free.choices[0].message.content or "") == {"answer": "sample"}


def test_bounds_and_properties_that_may_be_left_out(client: openai.OpenAI, service: Service) -> None:
    """The schema that is asked for need not be what each provider takes, as LangChain's and LiteLLM's users send it."""
    form: Any = {"type": "json_schema", "json_schema": {"name": "Bound", "schema": Bound.model_json_schema()}}
    answer = client.chat.completions.create(model=service.model("show"), messages=HELLO, response_format=form)
    shown = answer.choices[0].message.content or ""
    assert '"Bound"' in shown
    assert "Of years." in shown
    assert "120" in shown


def test_a_message_with_properties_that_may_be_left_out(claude: anthropic.Anthropic, service: Service) -> None:
    """Anthropic's SDK has prepared the schema for Anthropic, which takes optional ones; OpenAI takes none as strict."""
    message = claude.messages.parse(model=service.model("show"), max_tokens=MAX, messages=HELLO, output_format=Bound)
    assert message.parsed_output == Bound()
    assert "Of years." in "".join(block.text for block in message.content if block.type == "text")


def test_a_schema_and_tools(client: openai.OpenAI, service: Service) -> None:
    """As agents ask; Gemini took only one of the two before its third version, and is told of the tools."""
    form: Any = {"type": "json_schema", "json_schema": {"name": "Bound", "schema": Bound.model_json_schema()}}
    answer = client.chat.completions.with_raw_response.create(
        model=service.model("show"), messages=HELLO, response_format=form, tools=[TOOL], tool_choice="none"
    )
    dropped = answer.headers.get("x-edgeq-dropped") or ""
    assert ("response_format" in dropped.split(", ")) == (service.upstream == "gemini")
    assert "look" in (answer.parse().choices[0].message.content or "")
