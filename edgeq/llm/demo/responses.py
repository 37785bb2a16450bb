"""OpenAI's responses: /v1/responses. Nothing is stored, so nothing can be continued by an id."""

from __future__ import annotations

from typing import Any, Final

import orjson

from edgeq.llm.demo.behaviour import Behaviour
from edgeq.llm.demo.chat import read_name
from edgeq.llm.demo.checks import (
    Json,
    a_count,
    a_flag,
    a_list,
    a_number,
    a_text,
    a_word,
    an_object,
    count_tokens,
    invalid,
    known,
    names,
)
from edgeq.llm.demo.content import ANY_JSON, CREATED, Ask, Content, Tool
from edgeq.llm.demo.frames import Frame, halves, named
from edgeq.llm.message import STOP_LENGTH, STOP_REFUSAL

_FIELDS: Final = names(
    "background context_management conversation include input instructions max_output_tokens max_tool_calls metadata "
    "model parallel_tool_calls previous_response_id prompt prompt_cache_key prompt_cache_retention reasoning "
    "safety_identifier service_tier store stream stream_options temperature text tool_choice tools top_logprobs top_p "
    "truncation user"
)
_ROLES: Final = names("user assistant system developer")
_PARTS: Final = names("input_text input_image input_file output_text refusal")
_ITEMS: Final = names("message function_call function_call_output reasoning item_reference")
_CHOICES: Final = names("auto none required")
_TIERS: Final = names("auto default flex scale priority")
_MIN_TOKENS: Final = 16


def read(body: Json) -> Ask:
    """What a request asks. Raises: Refusal."""
    known(body, _FIELDS, "Unknown parameter: '{}'.")
    ask = Ask(a_text(body.get("model"), "model", empty=False), include_usage=True)
    ask.stream = a_flag(body, "stream")
    ask.max_tokens = a_count(body, "max_output_tokens", _MIN_TOKENS)
    a_number(body, "temperature", 0, 2)
    a_number(body, "top_p", 0, 1)
    a_word(body, "service_tier", _TIERS)
    if body.get("instructions") is not None:
        a_text(body["instructions"], "instructions")
    if body.get("previous_response_id") is not None:
        wanted = a_text(body["previous_response_id"], "previous_response_id")
        invalid(
            f"Previous response with id '{wanted}' not found.", "previous_response_id", "previous_response_not_found"
        )
    given = body.get("input")
    if isinstance(given, str):
        ask.said = given
    else:
        _read_items(a_list(given, "input", 1), ask)
    _read_tools(body, ask)
    _read_format(body, ask)
    ask.input_tokens = count_tokens([given, body.get("instructions"), body.get("tools")])
    return ask


def _read_items(items: list[Any], ask: Ask) -> None:
    calls: set[str] = set()
    answered: set[str] = set()
    for index, each in enumerate(items):
        where = f"input[{index}]"
        item = an_object(each, where)
        kind = item.get("type", "message")
        if kind not in _ITEMS:
            invalid(f"Invalid value: '{kind}'. Supported values are: {', '.join(sorted(_ITEMS))}.", f"{where}.type")
        ask.may_call = kind != "function_call_output"
        if kind == "message":
            said = _read_message(item, where)
            if item.get("role") == "user":
                ask.said = said
        elif kind == "function_call":
            calls.add(a_text(item.get("call_id"), f"{where}.call_id", empty=False))
            a_text(item.get("name"), f"{where}.name", empty=False)
            a_text(item.get("arguments"), f"{where}.arguments")
        elif kind == "function_call_output":
            call = a_text(item.get("call_id"), f"{where}.call_id", empty=False)
            if call not in calls:
                invalid(f"No tool call found for function call output with call_id {call}.", "input")
            answered.add(call)
            if not isinstance(item.get("output"), str | list):
                invalid(f"Invalid type for '{where}.output': expected a string or an array.", f"{where}.output")
    if calls - answered:
        invalid(f"No tool output found for function call {min(calls - answered)}.", "input")


def _read_message(item: Json, where: str) -> str:
    """Check a message. Returns its text."""
    if a_word(item, "role", _ROLES) == "":
        invalid(f"Missing required parameter: '{where}.role'.", f"{where}.role")
    content = item.get("content")
    if isinstance(content, str):
        return content
    texts: list[str] = []
    for number, part in enumerate(a_list(content, f"{where}.content")):
        at = f"{where}.content[{number}]"
        kind = an_object(part, at).get("type")
        if kind not in _PARTS:
            invalid(f"Invalid value: '{kind}'. Supported values are: {', '.join(sorted(_PARTS))}.", f"{at}.type")
        if (kind in ("output_text", "refusal")) != (item["role"] == "assistant"):
            invalid(f"Invalid value: '{kind}' is no part of a message of the {item['role']}.", f"{at}.type")
        if kind in ("input_text", "output_text"):
            texts.append(a_text(part.get("text"), f"{at}.text"))
        elif kind == "input_image" and part.get("file_id") is None:
            a_text(part.get("image_url"), f"{at}.image_url", empty=False)
    return " ".join(texts)


def _read_format(body: Json, ask: Ask) -> None:
    form = an_object(body.get("text") or {}, "text").get("format")
    if form is not None and an_object(form, "text.format").get("type") != "text":
        ask.form = form.get("schema") or ANY_JSON


def _read_tools(body: Json, ask: Ask) -> None:
    for index, tool in enumerate(a_list(body.get("tools") or [], "tools")):
        where = f"tools[{index}]"
        if an_object(tool, where).get("type") != "function":
            continue  # a tool of the provider's own
        known(
            tool,
            names("type name description parameters strict"),
            "Unknown parameter: '" + where + ".{}'.",
        )
        ask.tools.append(Tool(read_name(tool, where), tool.get("parameters") or {}))
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        ask.must_call = a_text(choice.get("name"), "tool_choice.name", empty=False)
        if ask.must_call not in [tool.name for tool in ask.tools]:
            invalid(f"Tool choice '{ask.must_call}' not found in 'tools' parameter.", "tool_choice")
    elif choice is not None:
        a_word(body, "tool_choice", _CHOICES)
        if choice == "required":
            if not ask.tools:
                invalid("Tool choice 'required' must be specified with 'tools' parameter.", "tool_choice")
            ask.must_call = "*"
        elif choice == "none":
            ask.may_call = False
    if body.get("parallel_tool_calls") is not None:
        ask.parallel = a_flag(body, "parallel_tool_calls")


# -- answers ----------------------------------------------------------------------------------------------------------


def usage(content: Content) -> Json:
    """The tokens of an answer."""
    return {
        "input_tokens": content.input_tokens,
        "input_tokens_details": {"cached_tokens": content.cached},
        "output_tokens": content.output_tokens,
        "output_tokens_details": {"reasoning_tokens": content.reasoning_tokens},
        "total_tokens": content.input_tokens + content.output_tokens,
    }


def whole(ask: Ask, content: Content, behaviour: Behaviour) -> Json:
    """The body of an answer that is no stream."""
    answer = _response(ask, content, "incomplete" if content.stop == STOP_LENGTH else "completed")
    answer["output"] = _items(content)
    answer["usage"] = usage(content) if behaviour.usage != "off" else None
    return answer


def _items(content: Content) -> list[Json]:
    found: list[Json] = []
    if content.thoughts:
        summary = [{"type": "summary_text", "text": content.thought}]
        found.append({"id": f"rs_{content.key}", "type": "reasoning", "summary": summary})
    if content.words or not content.calls:
        found.append(_message(content, "completed", [_part(content, content.text)]))
    found += [
        {
            "id": f"fc_{call.id}",
            "type": "function_call",
            "status": "completed",
            "call_id": f"call_{call.id}",
            "name": call.name,
            "arguments": orjson.dumps(call.arguments).decode(),
        }
        for call in content.calls
    ]
    return found


def _message(content: Content, status: str, parts: list[Json]) -> Json:
    return {"id": f"msg_{content.key}", "type": "message", "status": status, "role": "assistant", "content": parts}


def _part(content: Content, text: str) -> Json:
    if content.stop == STOP_REFUSAL:
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


class _Stream:
    """Events with their numbers."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def add(self, kind: str, value: Json, token: bool = False) -> None:
        self.frames.append(named(kind, {"type": kind, "sequence_number": len(self.frames), **value}, token))


def events(ask: Ask, content: Content, behaviour: Behaviour) -> list[Frame]:
    """The events of a stream."""
    stream = _Stream()
    begun = _response(ask, content, "in_progress")
    stream.add("response.created", {"response": begun})
    stream.add("response.in_progress", {"response": begun})
    for index, item in enumerate(_items(content)):
        place: Json = {"output_index": index, "item_id": item["id"]}
        if item["type"] == "message":
            _message_events(stream, content, item, place)
        elif item["type"] == "function_call":
            started = {**item, "status": "in_progress", "arguments": ""}
            stream.add("response.output_item.added", {"output_index": index, "item": started})
            for piece in halves(item["arguments"]):
                stream.add("response.function_call_arguments.delta", {**place, "delta": piece}, True)
            stream.add(
                "response.function_call_arguments.done",
                {**place, "name": item["name"], "arguments": item["arguments"]},
            )
        else:
            _thought_events(stream, content, item, place)
        stream.add("response.output_item.done", {"output_index": index, "item": item})
    last = whole(ask, content, behaviour)
    stream.add(f"response.{last['status']}", {"response": last})
    return stream.frames


def _message_events(stream: _Stream, content: Content, item: Json, place: Json) -> None:
    refused = content.stop == STOP_REFUSAL
    kind = "refusal" if refused else "output_text"
    inner = {**place, "content_index": 0}
    logprobs: Json = {} if refused else {"logprobs": []}
    stream.add(
        "response.output_item.added",
        {"output_index": place["output_index"], "item": _message(content, "in_progress", [])},
    )
    stream.add("response.content_part.added", {**inner, "part": _part(content, "")})
    for word in content.words:
        stream.add(f"response.{kind}.delta", {**inner, "delta": word, **logprobs}, True)
    done = {"refusal" if refused else "text": content.text}
    stream.add(f"response.{kind}.done", {**inner, **done, **logprobs})
    stream.add("response.content_part.done", {**inner, "part": item["content"][0]})


def _thought_events(stream: _Stream, content: Content, item: Json, place: Json) -> None:
    inner = {**place, "summary_index": 0}
    stream.add("response.output_item.added", {"output_index": place["output_index"], "item": {**item, "summary": []}})
    stream.add("response.reasoning_summary_part.added", {**inner, "part": {"type": "summary_text", "text": ""}})
    for word in content.thoughts:
        stream.add("response.reasoning_summary_text.delta", {**inner, "delta": word}, True)
    stream.add("response.reasoning_summary_text.done", {**inner, "text": content.thought})
    stream.add("response.reasoning_summary_part.done", {**inner, "part": item["summary"][0]})


def _response(ask: Ask, content: Content, status: str) -> Json:
    cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
    return {
        "id": f"resp_{content.key}",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "error": None,
        "incomplete_details": cut,
        "instructions": None,
        "max_output_tokens": ask.max_tokens,
        "model": ask.model,
        "output": [],
        "parallel_tool_calls": ask.parallel,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
        "metadata": {},
    }
